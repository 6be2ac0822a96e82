import numpy as np
import pytest
from artists import figure_of
from PIL import Image

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting import segmentation

pytestmark = pytest.mark.quick

NAMES = ["cat", "dog", "bird"]


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
    segmentation.draw_segmentation(
        tmp_path / "a.png", images, predictions, truths, NAMES, colors, columns=2
    )
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    shares = [(np.abs(drawn - color).max(-1) < 8).mean() for color in colors]
    assert shares[1] > 0.1 > shares[0] > 0.02  # predictions are all of the second class
    figure = figure_of(
        segmentation.draw_segmentation, images, predictions, truths, NAMES, colors, 2
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:6] == ["image", "prediction", "truth"] * 2 and not any(titles[6:])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*NAMES, "ignored"]
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(shown[3], images[1])
    np.testing.assert_array_equal(shown[4], np.broadcast_to(colors[1], shown[4].shape))
    np.testing.assert_array_equal(shown[5], np.array(colors)[truths[1]])
    assert (shown[2][:20] == 255).all()


def test_the_legend_has_what_is_drawn_and_at_most_20_classes():
    names, colors = [f"class {k}" for k in range(60)], [[k, 0, 0] for k in range(60)]
    image = np.zeros((30, 60, 3), np.uint8)
    few = np.zeros((30, 60), int)
    few[0, 0] = 59

    def legend(prediction, truth):
        figure = figure_of(
            segmentation.draw_segmentation, [image], [prediction], [truth], names, colors, 1
        )
        return [text.get_text() for text in figure.legends[0].get_texts()]

    assert legend(few, np.full((30, 60), 7)) == ["class 0", "class 7", "class 59"]
    # Class k has k pixels in each row: the largest are named.
    many = np.repeat(np.arange(60), np.arange(60))[None, :]
    many = np.repeat(many, 30, 0)
    image = np.zeros((*many.shape, 3), np.uint8)
    assert legend(many, many) == names[40:]


def test_draw_segmentation_refuses(tmp_path):
    images, predictions, truths = scenes(2)
    colors = [[0, 0, 0]] * 3
    with pytest.raises(InputError, match="'truths': 1"):
        segmentation.draw_segmentation("a.png", images, predictions, truths[:1], NAMES, colors)
    with pytest.raises(InputError, match="3 class names and 2 colors"):
        segmentation.draw_segmentation("a.png", images, predictions, truths, NAMES, colors[:2])
    with pytest.raises(InputError, match=r"an image is \(40, 60\)"):
        segmentation.draw_segmentation("a.png", images, predictions, truths[::-1], NAMES, colors)
