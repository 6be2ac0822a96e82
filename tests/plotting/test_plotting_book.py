import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from artists import corners, rectangles
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting import book, common

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("kind", [list, np.float32, tf.constant])
def test_bbox_to_rect(kind):
    rectangle = book.bbox_to_rect(kind([60.0, 45.0, 378.0, 516.0]), "blue")
    assert rectangle.get_xy() == (60, 45)
    assert (rectangle.get_width(), rectangle.get_height()) == (318, 471)
    assert to_hex(rectangle.get_edgecolor()) == "#0000ff"
    assert rectangle.get_linewidth() == 2
    assert not rectangle.get_fill()


@pytest.mark.parametrize("kind", [np.float32, tf.constant])
def test_show_bboxes_as_in_the_book(kind):
    axes = Figure().add_subplot()
    boxes = kind([[i, 2.0 * i, i + 3, 2 * i + 5] for i in range(6)])
    assert book.show_bboxes(axes, boxes, ["one", "two"]) is None
    drawn = rectangles(axes)
    np.testing.assert_allclose([corners(r) for r in drawn], np.asarray(boxes))
    assert [to_hex(r.get_edgecolor()) for r in drawn] == [
        to_hex(c) for c in ("b", "g", "r", "m", "c", "b")
    ]
    assert [(t.get_text(), t.get_position()) for t in axes.texts] == [
        ("one", (0, 0)),
        ("two", (1, 2)),
    ]
    assert [to_hex(t.get_bbox_patch().get_facecolor()) for t in axes.texts] == [
        to_hex("b"),
        to_hex("g"),
    ]
    assert {t.get_ha() for t in axes.texts} == {t.get_va() for t in axes.texts} == {"center"}


def test_show_bboxes_takes_one_label_and_colour_and_writes_black_on_white():
    axes = Figure().add_subplot()
    book.show_bboxes(axes, [[0, 0, 1, 1], [1, 1, 2, 2]], "s=0.75", "w")
    assert [t.get_text() for t in axes.texts] == ["s=0.75"]
    assert axes.texts[0].get_color() == "k"
    assert {to_hex(r.get_edgecolor()) for r in rectangles(axes)} == {"#ffffff"}
    axes = Figure().add_subplot()
    book.show_bboxes(axes, np.zeros((0, 4)))
    assert not axes.patches


def test_show_images_returns_flat_axes(pyplot):
    images = np.zeros((5, 4, 6, 3), np.uint8)
    images[1, 2, 3] = [10, 20, 30]
    axes = book.show_images(images, 2, 3, titles=["a", "b", "c", "d", "e"], scale=2)
    assert axes.shape == (6,)
    assert axes[0].figure.get_size_inches().tolist() == [6, 4]
    assert axes[1].images[0].get_array()[2, 3].tolist() == [10, 20, 30]
    assert [a.get_title() for a in axes] == ["a", "b", "c", "d", "e", ""]
    assert not axes[0].xaxis.get_visible()
    assert not axes[0].yaxis.get_visible()
    assert len(axes[5].images) == 0
    assert book.show_images([tf.zeros((4, 6, 1))], 1, 1).shape == (1,)


def test_apply_shows_one_result_a_cell(pyplot):
    image = np.zeros((4, 6, 3), np.uint8)
    calls = iter(range(100))
    axes = book.apply(image, lambda img: img + next(calls), num_rows=2, num_cols=3, scale=2)
    assert [a.images[0].get_array()[0, 0, 0] for a in axes] == [0, 1, 2, 3, 4, 5]
    assert axes[0].figure.get_size_inches().tolist() == [6, 4]
    assert len(book.apply(image, lambda img: img)) == 8


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.uint8(200), 200),
        (np.float32(0.5), 128),
        (np.float32(1.3), 255),  # 0-1 with overshoot
        (np.float32(-0.3), 0),
        (np.float32(200.4), 200),
        (np.float32(300), 255),
        (np.int64(1), 1),
        (np.int32(300), 255),
        (np.float16(0.25), 64),
        (np.bool_(True), 255),
    ],
)
def test_to_uint8(value, expected):
    for shape in ((2, 3), (2, 3, 1), (2, 3, 3)):
        image = common.to_uint8(np.full(shape, value))
        assert image.dtype == np.uint8
        assert image.shape == (2, 3, 3)
        assert (image == expected).all()
    assert (common.to_uint8(tf.fill((2, 3, 3), value)) == expected).all()


def test_to_uint8_names_the_shape():
    for shape in ((2, 3, 4), (1, 2, 3, 3), (0, 3, 3), (5,)):
        with pytest.raises(InputError, match="image has shape"):
            common.to_uint8(np.zeros(shape))


def test_importing_needs_no_pyplot():
    code = (
        "import sys, kerascv_d2l.plotting.sheets;"  # Keras itself imports pyplot
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
