import numpy as np
import pytest
import tensorflow as tf
from artists import corners, dashed, rectangles
from matplotlib.colors import to_hex
from PIL import Image

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.common import DPI, class_color
from kerascv_d2l.plotting.detections import (
    _detections_figure,
    _place,
    draw_boxes,
    draw_detections,
)

pytestmark = pytest.mark.quick

NAMES = ["cat", "dog", "bird"]


def example():
    """Three images of 40 x 80, more than one of everything, padding with bait in it."""
    images = np.full((3, 40, 80, 3), 100, np.uint8)
    detections = {
        "boxes": np.float32(
            [
                [[0.1, 0.2, 0.5, 0.8], [0.0, 0.0, 0.3, 0.5], [0, 0, 1, 1]],
                [[0.7, 0.9, 1.1, 1.2], [0.2, 0.2, 0.3, 0.3], [0.3, 0.3, 0.4, 0.4]],
                [[0.3, 0.3, 0.6, 0.6], [0.3, 0.3, 0.6, 0.6], [0.4, 0.4, 0.5, 0.5]],
            ]
        ),
        "scores": np.float32([[0.9, 0.6, 0.9], [0.8, 0.49, 0.99], [0.5, 0.99, 0.99]]),
        "classes": np.int32([[1, 0, -1], [0, 0, 2], [1, -1, -1]]),
        "num_valid": np.int32([3, 2, 3]),
    }
    labels = np.float32(
        [
            [[1, 0.15, 0.25, 0.5, 0.75], [-1, 0, 0, 1, 1]],
            [[0, 0.7, 0.8, 1, 1], [2, 0.0, 0.1, 0.2, 0.9]],
            [[-1, 0, 0, 0, 0], [-1, 0, 0, 0, 0]],
        ]
    )
    return images, detections, labels


def grid(names=NAMES, columns=2, **change):
    images, detections, labels = example()
    return _detections_figure(change.get("images", images), detections, labels, names, 0.5, columns)


def test_grid_draws_what_counts_in_pixels_and_truth_apart():
    figure = grid()
    expected_truth = [
        [[12, 10, 40, 30]],
        [[56, 32, 80, 40], [0, 4, 16, 36]],
        [],
    ]
    expected_found = [
        [[0, 0, 24, 20], [8, 8, 40, 32]],  # the best last, so on top
        [[56, 36, 88, 48]],
        [[24, 12, 48, 24]],
    ]
    assert len(figure.axes) == 3
    for axes, truth, found in zip(figure.axes, expected_truth, expected_found, strict=True):
        drawn = rectangles(axes)
        for expected, ours in (
            (truth, [r for r in drawn if dashed(r)]),
            (found, [r for r in drawn if not dashed(r)]),
        ):
            got = np.reshape([corners(r) for r in ours], (-1, 4)) + 0.5
            np.testing.assert_allclose(got, np.reshape(expected, (-1, 4)), atol=1e-4)
        for r in drawn:
            assert (to_hex(r.get_edgecolor()) == "#ffffff") == dashed(r)
    colours = [to_hex(r.get_edgecolor()) for r in rectangles(figure.axes[0]) if not dashed(r)]
    assert colours == [class_color(0), class_color(1)]
    texts = [sorted(t.get_text() for t in axes.texts) for axes in figure.axes]
    assert texts == [["cat 0.60", "dog", "dog 0.90"], ["bird", "cat", "cat 0.80"], ["dog 0.50"]]


def test_grid_draws_ignored_objects_apart():
    images, detections, labels = example()
    ignore = labels[..., 0] == 2
    y = {"boxes": labels[..., 1:], "classes": labels[..., 0], "ignore": ignore, "masks": None}
    figure = _detections_figure(images, detections, y, NAMES, 0.5, 2)
    styles = [(to_hex(r.get_edgecolor()), dashed(r)) for r in rectangles(figure.axes[1])]
    assert styles == [("#ffffff", True), ("#bbbbbb", True), (class_color(0), False)]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["ground truth", "ignored", *NAMES]


def test_grid_of_one_class_has_no_names_at_the_truth():
    images, detections, labels = example()
    labels[..., 0] = np.minimum(labels[..., 0], 0)
    detections["classes"] = np.minimum(detections["classes"], 0)
    figure = _detections_figure(images, detections, labels, ["cat"], 0.5, 4)
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert sorted(texts) == ["cat 0.50", "cat 0.60", "cat 0.80", "cat 0.90"]


def test_grid_legend_says_which_is_which():
    (legend,) = grid().legends
    assert [t.get_text() for t in legend.get_texts()] == ["ground truth", *NAMES]
    lines = legend.get_lines()
    assert [dashed(line) for line in lines] == [True, False, False, False]
    assert [line.get_color() for line in lines[1:]] == [class_color(i) for i in range(3)]
    assert "score ≥ 0.5" in legend.get_title().get_text()


@pytest.mark.parametrize("shapes", [[(40, 80)] * 3, [(40, 80), (90, 30), (50, 50)]])
def test_grid_layout_and_labels_stay_inside(shapes):
    figure = grid(images=[np.zeros((*shape, 3), np.uint8) for shape in shapes])
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    frames = [axes.get_window_extent(renderer) for axes in figure.axes]
    # Two columns: the second to the right, the third below.
    assert frames[1].x0 > frames[0].x1
    assert frames[2].y1 < frames[0].y0
    (legend,) = figure.legends
    assert legend.get_window_extent(renderer).y1 <= frames[2].y0
    for axes, frame in zip(figure.axes, frames, strict=True):
        height, width = axes.images[0].get_array().shape[:2]
        assert frame.width / frame.height == pytest.approx(width / height, rel=0.01)
        places = []
        for text in axes.texts:
            extent = text.get_window_extent(renderer)
            if text.get_bbox_patch() is not None:
                extent = text.get_bbox_patch().get_window_extent(renderer)
            if extent.width <= frame.width:
                assert extent.x0 >= frame.x0 - 1
                assert extent.x1 <= frame.x1 + 1
            assert extent.y0 >= frame.y0 - 1
            assert extent.y1 <= frame.y1 + 1
            places.append(extent)
        if shapes[0] == shapes[1]:  # room enough for all
            for i, one in enumerate(places):
                assert not any(one.overlaps(other) for other in places[i + 1 :])


def test_draw_detections_writes_the_figure_and_leaves_pyplot_alone(tmp_path, pyplot):
    images, detections, labels = example()
    path = tmp_path / "new" / "detections.png"
    tensors = {k: tf.constant(v) for k, v in detections.items()}
    draw_detections(
        path, tf.constant(images, tf.float32), tensors, tf.constant(labels), NAMES, columns=2
    )
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    figure = grid()
    assert pixels.shape[:2] == tuple((figure.get_size_inches()[::-1] * DPI).astype(int))
    # The middle of the right edge of the dog's box in the first image has the dog's colour.
    frame = figure.axes[0].get_window_extent()
    x, y = round(frame.x0 + 0.5 * frame.width), round(frame.y0 + 0.5 * frame.height)
    colour = [int(class_color(1)[i : i + 2], 16) for i in (1, 3, 5)]
    near = pixels[pixels.shape[0] - y, x - 3 : x + 4]
    assert (abs(near - colour).sum(axis=1) < 12).any()
    assert (pixels[pixels.shape[0] - y, x + 20] == 100).all()
    assert pyplot.get_fignums() == []
    assert [p.name for p in path.parent.iterdir()] == ["detections.png"]


def test_draw_detections_errors_say_what_arrived(tmp_path):
    images, detections, labels = example()
    path = tmp_path / "x.png"
    for arguments, message in (
        ((images[:0], detections, labels, NAMES), "images is empty"),
        ((images[:2], detections, labels, NAMES), "for 3 images, images has 2"),
        ((images, detections, labels[:2], NAMES), "labels are for 2 images, images has 3"),
        ((images, detections, labels, NAMES[:1]), "class 2 has no name"),
        ((images, {"boxes": detections["boxes"]}, labels, NAMES), "'scores' is missing"),
    ):
        with pytest.raises(InputError, match=message):
            draw_detections(path, *arguments)
    with pytest.raises(InputError, match=r"x\.txt"):
        draw_detections(tmp_path / "x.txt", images, detections, labels, NAMES)
    assert list(tmp_path.iterdir()) == []


def test_place_prefers_above_then_inside_then_below():
    taken = []
    assert _place((10, 30, 60), (20, 8), (100, 80), taken) == (10, 22)
    assert _place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 30)
    assert _place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 60)
    assert _place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 52)
    assert _place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 22)  # all taken
    assert len(taken) == 5
    assert _place((10, 30, 60), (20, 8), (100, 80), [], below_first=True) == (10, 60)


def test_place_stays_inside():
    assert _place((90, 2, 60), (20, 8), (100, 80), []) == (80, 2)
    assert _place((-5, -9, 200), (20, 8), (100, 80), []) == (0, 0)
    assert _place((50, 90, 99), (20, 8), (100, 80), []) == (50, 72)
    assert _place((50, 40, 60), (200, 8), (100, 80), []) == (0, 32)


@pytest.mark.parametrize("size", [(57, 131), (1, 1), (200, 300), (1365, 2048)])
def test_draw_boxes_keeps_size_and_every_pixel_that_no_box_touches(tmp_path, size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3), np.uint8)
    draw_boxes(tmp_path / "a.png", image, np.zeros((0, 4)), [], [])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


def test_draw_boxes_draws_the_box_s_pixels(tmp_path):
    image = np.full((100, 200, 3), 50, np.uint8)
    path = tmp_path / "a.png"
    draw_boxes(path, image, [[0.1, 0.3, 0.5, 0.9]], [""], ["#ff0000"])
    pixels = np.asarray(Image.open(path))
    red = (pixels == [255, 0, 0]).all(axis=-1)
    expected = np.zeros((100, 200), bool)
    expected[30:90, 20:100] = True
    expected[32:88, 22:98] = False
    np.testing.assert_array_equal(red, expected)
    assert (pixels[~expected] == 50).all()
    assert (image == 50).all()


def test_draw_boxes_labels_at_every_border_are_inside_and_whole(tmp_path):
    image = np.full((120, 200, 3), 50, np.uint8)
    blue = [0, 0, 255]

    def label_pixels(box, text):
        photos = []
        for t in (text, ""):
            draw_boxes(tmp_path / "a.png", image, [box], [t], ["#0000ff"])
            photos.append(np.asarray(Image.open(tmp_path / "a.png")).astype(int))
        changed = np.argwhere((photos[0] != photos[1]).any(axis=-1))
        low, high = changed.min(axis=0), changed.max(axis=0)
        ink = photos[0][low[0] : high[0] + 1, low[1] : high[1] + 1]
        assert (ink == blue).all(axis=-1).mean() > 0.4
        assert (ink == 255).all(axis=-1).any()  # letters
        return low, high

    low, high = label_pixels([0.3, 0.5, 0.9, 0.9], "raccoon 0.87")
    full = high - low
    assert low[1] == 60
    assert high[0] == 59  # right above the box, which starts in row 60
    for box in (
        [0, 0, 0.3, 0.5],
        [0.9, 0.3, 1, 0.5],
        [-0.5, -0.5, 1.5, 1.5],
        [0.8, 0.95, 1.3, 1.3],
        [1.1, 1.1, 1.2, 1.3],
    ):
        low, high = label_pixels(box, "raccoon 0.87")
        assert (abs((high - low) - full) <= 4).all(), box  # within a line's width
        assert (low >= 0).all()


@pytest.mark.parametrize(("count", "named"), [(40, True), (41, False)])
def test_of_many_boxes_names_would_hide_the_objects(tmp_path, count, named):
    at = np.arange(count) / count
    boxes = np.stack([at, at, at + 0.5 / count, at + 0.5 / count], axis=1)
    image = np.full((400, 400, 3), 50, np.uint8)
    draw_boxes(tmp_path / "a.png", image, boxes, ["raccoon"] * count, ["#0000ff"] * count)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert (pixels == 255).all(axis=-1).any() == named  # white letters
    found = {"boxes": boxes[None], "scores": np.ones((1, count)), "classes": [[0] * count]}
    labels = {"boxes": boxes[None], "classes": np.zeros((1, count), int)}
    figure = _detections_figure([image], found, labels, ["raccoon"], 0.5, 1)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["raccoon 1.00"] * count * named


def test_draw_boxes_line_and_letters_grow_with_the_picture(tmp_path):
    widths, heights = [], []
    for scale in (1, 4):
        image = np.zeros((300 * scale, 400 * scale, 3), np.uint8)
        for text in ("", "cat"):
            draw_boxes(tmp_path / "a.png", image, [[0.2, 0.5, 0.9, 0.9]], [text], ["red"])
            red = (np.asarray(Image.open(tmp_path / "a.png")) == [255, 0, 0]).all(axis=-1)
            if text:
                heights.append(150 * scale - np.argwhere(red)[:, 0].min())
            else:
                widths.append(np.count_nonzero(red[:, 200 * scale]) / 2)
    assert widths[1] >= 3 * widths[0]
    assert heights[1] == pytest.approx(4 * heights[0], rel=0.25)


def test_draw_boxes_formats_and_errors(tmp_path):
    image = np.full((40, 60, 3), 0.5, np.float32)
    draw_boxes(tmp_path / "a.JPG", image, [[0, 0, 1, 1]], ["Bär ≥"], ["yellow"])
    with Image.open(tmp_path / "a.JPG") as opened:
        assert (opened.format, opened.size) == ("JPEG", (60, 40))
    with pytest.raises(InputError, match="1 boxes, 0 texts and 1 colors"):
        draw_boxes(tmp_path / "b.png", image, [[0, 0, 1, 1]], [], ["red"])
    for name in ("b.txt", "b"):
        with pytest.raises(InputError, match=name):
            draw_boxes(tmp_path / name, image, [], [], [])
    assert [p.name for p in tmp_path.iterdir()] == ["a.JPG"]
