import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from kerascv_d2l import plotting
from kerascv_d2l.errors import InputError

pytestmark = pytest.mark.quick

NAMES = ["cat", "dog", "bird"]


@pytest.fixture
def pyplot():
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def corners(rectangle):
    x, y = rectangle.get_xy()
    return [x, y, x + rectangle.get_width(), y + rectangle.get_height()]


def dashed(artist):
    return artist.get_linestyle() not in ("-", "solid")


# ---------------------------------------------------------------- the book's functions


@pytest.mark.parametrize("kind", [list, np.float32, tf.constant])
def test_bbox_to_rect(kind):
    rectangle = plotting.bbox_to_rect(kind([60.0, 45.0, 378.0, 516.0]), "blue")
    assert rectangle.get_xy() == (60, 45)
    assert (rectangle.get_width(), rectangle.get_height()) == (318, 471)
    assert to_hex(rectangle.get_edgecolor()) == "#0000ff"
    assert rectangle.get_linewidth() == 2
    assert not rectangle.get_fill()


@pytest.mark.parametrize("kind", [np.float32, tf.constant])
def test_show_bboxes_as_in_the_book(kind):
    axes = Figure().add_subplot()
    boxes = kind([[i, 2.0 * i, i + 3, 2 * i + 5] for i in range(6)])
    assert plotting.show_bboxes(axes, boxes, ["one", "two"]) is None
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
    plotting.show_bboxes(axes, [[0, 0, 1, 1], [1, 1, 2, 2]], "s=0.75", "w")
    assert [t.get_text() for t in axes.texts] == ["s=0.75"]
    assert axes.texts[0].get_color() == "k"
    assert {to_hex(r.get_edgecolor()) for r in rectangles(axes)} == {"#ffffff"}
    axes = Figure().add_subplot()
    plotting.show_bboxes(axes, np.zeros((0, 4)))
    assert not axes.patches


def test_show_images_returns_flat_axes(pyplot):
    images = np.zeros((5, 4, 6, 3), np.uint8)
    images[1, 2, 3] = [10, 20, 30]
    axes = plotting.show_images(images, 2, 3, titles=["a", "b", "c", "d", "e"], scale=2)
    assert axes.shape == (6,)
    assert axes[0].figure.get_size_inches().tolist() == [6, 4]
    assert axes[1].images[0].get_array()[2, 3].tolist() == [10, 20, 30]
    assert [a.get_title() for a in axes] == ["a", "b", "c", "d", "e", ""]
    assert not axes[0].xaxis.get_visible()
    assert not axes[0].yaxis.get_visible()
    assert len(axes[5].images) == 0
    assert plotting.show_images([tf.zeros((4, 6, 1))], 1, 1).shape == (1,)


def test_apply_shows_one_result_a_cell(pyplot):
    image = np.zeros((4, 6, 3), np.uint8)
    calls = iter(range(100))
    axes = plotting.apply(image, lambda img: img + next(calls), num_rows=2, num_cols=3, scale=2)
    assert [a.images[0].get_array()[0, 0, 0] for a in axes] == [0, 1, 2, 3, 4, 5]
    assert axes[0].figure.get_size_inches().tolist() == [6, 4]
    assert len(plotting.apply(image, lambda img: img)) == 8


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
        image = plotting.to_uint8(np.full(shape, value))
        assert image.dtype == np.uint8
        assert image.shape == (2, 3, 3)
        assert (image == expected).all()
    assert (plotting.to_uint8(tf.fill((2, 3, 3), value)) == expected).all()


def test_to_uint8_names_the_shape():
    for shape in ((2, 3, 4), (1, 2, 3, 3), (0, 3, 3), (5,)):
        with pytest.raises(InputError, match="image has shape"):
            plotting.to_uint8(np.zeros(shape))


def test_importing_needs_no_tensorflow_and_no_pyplot():
    code = (
        "import sys, kerascv_d2l.plotting;"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- a grid of detections


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
    return plotting._detections_figure(
        change.get("images", images), detections, labels, names, 0.5, columns
    )


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
    assert colours == [plotting.class_color(0), plotting.class_color(1)]
    texts = [sorted(t.get_text() for t in axes.texts) for axes in figure.axes]
    assert texts == [["cat 0.60", "dog", "dog 0.90"], ["bird", "cat", "cat 0.80"], ["dog 0.50"]]


def test_grid_of_one_class_has_no_names_at_the_truth():
    images, detections, labels = example()
    labels[..., 0] = np.minimum(labels[..., 0], 0)
    detections["classes"] = np.minimum(detections["classes"], 0)
    figure = plotting._detections_figure(images, detections, labels, ["cat"], 0.5, 4)
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert sorted(texts) == ["cat 0.50", "cat 0.60", "cat 0.80", "cat 0.90"]


def test_grid_legend_says_which_is_which():
    (legend,) = grid().legends
    assert [t.get_text() for t in legend.get_texts()] == ["ground truth", *NAMES]
    lines = legend.get_lines()
    assert [dashed(line) for line in lines] == [True, False, False, False]
    assert [line.get_color() for line in lines[1:]] == [plotting.class_color(i) for i in range(3)]
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
    plotting.draw_detections(
        path, tf.constant(images, tf.float32), tensors, tf.constant(labels), NAMES, columns=2
    )
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    figure = grid()
    assert picture.shape[:2] == tuple((figure.get_size_inches()[::-1] * plotting.DPI).astype(int))
    # The middle of the right edge of the dog's box in the first image has the dog's colour.
    frame = figure.axes[0].get_window_extent()
    x, y = round(frame.x0 + 0.5 * frame.width), round(frame.y0 + 0.5 * frame.height)
    colour = [int(plotting.class_color(1)[i : i + 2], 16) for i in (1, 3, 5)]
    near = picture[picture.shape[0] - y, x - 3 : x + 4]
    assert (abs(near - colour).sum(axis=1) < 12).any()
    assert (picture[picture.shape[0] - y, x + 20] == 100).all()
    assert pyplot.get_fignums() == []
    assert [p.name for p in path.parent.iterdir()] == ["detections.png"]


def test_draw_detections_errors_say_what_arrived(tmp_path):
    images, detections, labels = example()
    path = tmp_path / "x.png"
    for arguments, message in (
        ((images[:0], detections, labels, NAMES), "images is empty"),
        ((images[:2], detections, labels, NAMES), "for 3 images, images has 2"),
        ((images, detections, labels[:2], NAMES), r"labels has shape \(2, 2, 5\)"),
        ((images, detections, labels, NAMES[:1]), "class 2 has no name"),
        ((images, {"boxes": detections["boxes"]}, labels, NAMES), "'scores' is missing"),
    ):
        with pytest.raises(InputError, match=message):
            plotting.draw_detections(path, *arguments)
    with pytest.raises(InputError, match=r"x\.txt"):
        plotting.draw_detections(tmp_path / "x.txt", images, detections, labels, NAMES)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- labels' places


def test_place_prefers_above_then_inside_then_below():
    taken = []
    assert plotting._place((10, 30, 60), (20, 8), (100, 80), taken) == (10, 22)
    assert plotting._place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 30)
    assert plotting._place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 60)
    assert plotting._place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 52)
    assert plotting._place((12, 30, 60), (20, 8), (100, 80), taken) == (12, 22)  # all taken
    assert len(taken) == 5
    assert plotting._place((10, 30, 60), (20, 8), (100, 80), [], below_first=True) == (10, 60)


def test_place_stays_inside():
    assert plotting._place((90, 2, 60), (20, 8), (100, 80), []) == (80, 2)
    assert plotting._place((-5, -9, 200), (20, 8), (100, 80), []) == (0, 0)
    assert plotting._place((50, 90, 99), (20, 8), (100, 80), []) == (50, 72)
    assert plotting._place((50, 40, 60), (200, 8), (100, 80), []) == (0, 32)


# ---------------------------------------------------------------- one picture


@pytest.mark.parametrize("size", [(57, 131), (1, 1), (200, 300), (1365, 2048)])
def test_draw_boxes_keeps_size_and_every_pixel_that_no_box_touches(tmp_path, size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3), np.uint8)
    plotting.draw_boxes(tmp_path / "a.png", image, np.zeros((0, 4)), [], [])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


def test_draw_boxes_draws_the_box_s_pixels(tmp_path):
    image = np.full((100, 200, 3), 50, np.uint8)
    path = tmp_path / "a.png"
    plotting.draw_boxes(path, image, [[0.1, 0.3, 0.5, 0.9]], [""], ["#ff0000"])
    picture = np.asarray(Image.open(path))
    red = (picture == [255, 0, 0]).all(axis=-1)
    expected = np.zeros((100, 200), bool)
    expected[30:90, 20:100] = True
    expected[32:88, 22:98] = False
    np.testing.assert_array_equal(red, expected)
    assert (picture[~expected] == 50).all()
    assert (image == 50).all()


def test_draw_boxes_labels_at_every_border_are_inside_and_whole(tmp_path):
    image = np.full((120, 200, 3), 50, np.uint8)
    blue = [0, 0, 255]

    def label_pixels(box, text):
        pictures = []
        for t in (text, ""):
            plotting.draw_boxes(tmp_path / "a.png", image, [box], [t], ["#0000ff"])
            pictures.append(np.asarray(Image.open(tmp_path / "a.png")).astype(int))
        changed = np.argwhere((pictures[0] != pictures[1]).any(axis=-1))
        low, high = changed.min(axis=0), changed.max(axis=0)
        ink = pictures[0][low[0] : high[0] + 1, low[1] : high[1] + 1]
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


def test_draw_boxes_line_and_letters_grow_with_the_picture(tmp_path):
    widths, heights = [], []
    for scale in (1, 4):
        image = np.zeros((300 * scale, 400 * scale, 3), np.uint8)
        for text in ("", "cat"):
            plotting.draw_boxes(tmp_path / "a.png", image, [[0.2, 0.5, 0.9, 0.9]], [text], ["red"])
            red = (np.asarray(Image.open(tmp_path / "a.png")) == [255, 0, 0]).all(axis=-1)
            if text:
                heights.append(150 * scale - np.argwhere(red)[:, 0].min())
            else:
                widths.append(np.count_nonzero(red[:, 200 * scale]) / 2)
    assert widths[1] >= 3 * widths[0]
    assert heights[1] == pytest.approx(4 * heights[0], rel=0.25)


def test_draw_boxes_formats_and_errors(tmp_path):
    image = np.full((40, 60, 3), 0.5, np.float32)
    plotting.draw_boxes(tmp_path / "a.JPG", image, [[0, 0, 1, 1]], ["Bär ≥"], ["yellow"])
    with Image.open(tmp_path / "a.JPG") as picture:
        assert (picture.format, picture.size) == ("JPEG", (60, 40))
    with pytest.raises(InputError, match="1 boxes, 0 texts and 1 colors"):
        plotting.draw_boxes(tmp_path / "b.png", image, [[0, 0, 1, 1]], [], ["red"])
    for name in ("b.txt", "b"):
        with pytest.raises(InputError, match=name):
            plotting.draw_boxes(tmp_path / name, image, [], [], [])
    assert [p.name for p in tmp_path.iterdir()] == ["a.JPG"]


# ---------------------------------------------------------------- curves

NAN = float("nan")


def test_history_panels_pair_training_and_validation():
    history = {
        "epoch": [0, 1, 2],
        "loss": [3.0, 2, 1],
        "class_error": [0.3, 0.2, 0.1],
        "bbox_mae": [0.1, 0.1, 0.1],
        "learning_rate": [0.2, 0.1, 0.05],
        "val_loss": [4.0, NAN, 2],
        "val_class_error": [0.4, 0.3, 0.2],
        "val_map_50": [NAN, NAN, 0.9],
        "val_voc_map": [NAN] * 3,
        "cls_loss": [1.0, 1, 1],
        "images_per_second": [30.0, 31, 32],
        "accuracy": [0.1, 0.2, 0.3],
    }
    figure = plotting._history_figure(history)
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    names = {title: [line.get_label() for line in axes.lines] for title, axes in panels.items()}
    assert names == {
        "loss": ["loss", "val_loss", "cls_loss"],
        "error (lower is better)": ["class_error", "bbox_mae", "val_class_error"],
        "score, 0 to 1 (higher is better)": ["val_map_50", "val_voc_map: no values", "accuracy"],
        "learning rate": ["learning_rate"],
        "images per second": ["images_per_second"],
    }
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    assert all(dashed(line) == name.startswith("val_") for name, line in lines.items())
    assert lines["loss"].get_color() == lines["val_loss"].get_color()
    assert lines["loss"].get_color() != lines["cls_loss"].get_color()
    assert lines["class_error"].get_color() == lines["val_class_error"].get_color()
    assert lines["loss"].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert lines["val_loss"].get_xydata().tolist() == [[1, 4], [3, 2]]
    assert lines["val_map_50"].get_xydata().tolist() == [[3, 0.9]]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert panels["score, 0 to 1 (higher is better)"].get_ylim() == (0, 1.02)
    assert all(axes.get_legend() is not None for axes in figure.axes)


@pytest.mark.parametrize("epochs", [1, 2, 7, 200])
def test_history_ticks_are_whole_epochs_and_every_point_is_in_view(tmp_path, epochs):
    values = list(np.linspace(2, 1, epochs))
    figure = plotting._history_figure({"loss": values, "val_loss": values})
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < 1 <= epochs < high
    ticks = [t for t in axes.get_xticks() if low <= t <= high]
    assert ticks
    assert all(t == int(t) for t in ticks)
    # A single point is only seen by its marker.
    assert (axes.lines[0].get_marker() == "o") == (epochs <= 30)
    plotting.draw_history(tmp_path / "h.png", {"loss": values})
    with Image.open(tmp_path / "h.png") as picture:
        assert picture.size == (560, 400)
        blue = np.asarray(picture.convert("RGB")).astype(int) - [0x1F, 0x77, 0xB4]
    assert np.count_nonzero((abs(blue).sum(axis=-1) < 12)[60:330, 80:400]) > 10


def test_history_errors_and_all_nan(tmp_path):
    for history in ({}, {"loss": []}, {"epoch": [0]}):
        with pytest.raises(InputError, match="empty"):
            plotting.draw_history(tmp_path / "h.png", history)
    with pytest.raises(InputError, match="'val_loss': 1"):
        plotting.draw_history(tmp_path / "h.png", {"loss": [1, 2], "val_loss": [1]})
    with pytest.raises(InputError, match="'loss'"):
        plotting.draw_history(tmp_path / "h.png", {"loss": ["a"]})
    with pytest.raises(InputError, match="'loss'"):
        plotting.draw_history(tmp_path / "h.png", {"loss": 3})
    assert not list(tmp_path.iterdir())
    plotting.draw_history(tmp_path / "h.png", {"loss": [NAN, float("inf")], "val_map": [None, 1]})
    assert (tmp_path / "h.png").stat().st_size > 1000


def test_a_canvas_of_its_own():
    assert isinstance(plotting._history_figure({"loss": [1]}).canvas, FigureCanvasAgg)


@pytest.mark.quick
def test_curves_of_the_book(tmp_path):
    history = {
        "loss": [2.5, 1.0, float("nan")],
        "seconds": [1, 2, 3],
        "val_accuracy": [0.1, 0.5, 0.75],
        "accuracy": [0.2, 0.6, 0.9],
    }
    (axes,) = plotting._curves_figure(history).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "train loss": [[1, 2.5], [2, 1.0]],
        "train acc": [[1, 0.2], [2, 0.6], [3, 0.9]],
        "test acc": [[1, 0.1], [2, 0.5], [3, 0.75]],
    }
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 2.5
    plotting.draw_curves(tmp_path / "curves.png", history)
    stream = io.BytesIO()
    plotting.draw_curves(stream, history)
    assert (tmp_path / "curves.png").read_bytes()[:4] == stream.getvalue()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="history has none of loss, accuracy, val_accuracy"):
        plotting.draw_curves(stream, {"seconds": [1]})


# ---------------------------------------------------------------- a class for every pixel


def scenes(count):
    rng = np.random.default_rng(0)
    sizes = [(40, 60 + k) for k in range(count)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    truths = [rng.integers(0, 3, size) for size in sizes]
    truths[0][:20] = 255
    return images, [np.full(size, 1) for size in sizes], truths


def test_draw_segmentation(tmp_path):
    images, predictions, truths = scenes(3)
    colors = [[10, 20, 30], [200, 0, 0], [0, 0, 250]]
    plotting.draw_segmentation(
        tmp_path / "a.png", images, predictions, truths, NAMES, colors, columns=2
    )
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    shares = [(np.abs(drawn - color).max(-1) < 8).mean() for color in colors]
    assert shares[1] > 0.1 > shares[0] > 0.02  # predictions are all of the second class
    figure = plotting._segmentation_figure(images, predictions, truths, NAMES, colors, 2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:6] == ["picture", "prediction", "truth"] * 2 and not any(titles[6:])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*NAMES, "void"]
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(shown[3], images[1])
    np.testing.assert_array_equal(shown[4], np.broadcast_to(colors[1], shown[4].shape))
    np.testing.assert_array_equal(shown[5], np.array(colors)[truths[1]])
    assert (shown[2][:20] == 255).all()


def test_draw_segmentation_refuses(tmp_path):
    images, predictions, truths = scenes(2)
    colors = [[0, 0, 0]] * 3
    with pytest.raises(InputError, match="'truths': 1"):
        plotting.draw_segmentation("a.png", images, predictions, truths[:1], NAMES, colors)
    with pytest.raises(InputError, match="3 class names and 2 colors"):
        plotting.draw_segmentation("a.png", images, predictions, truths, NAMES, colors[:2])
    with pytest.raises(InputError, match=r"a picture is \(40, 60\)"):
        plotting.draw_segmentation("a.png", images, predictions, truths[::-1], NAMES, colors)
