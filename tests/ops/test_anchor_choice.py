import numpy as np
import pytest

from kerascv_d2l.models.registry import detector_class
from kerascv_d2l.ops.anchor_choice import choose_anchors, choose_image_size

pytestmark = pytest.mark.quick
STRIDES = (4, 8, 16, 32, 64)


def boxes(widths, heights):
    """Normalised boxes of these sides in pixels, in an image 100 high and 200 wide."""
    return np.stack([0 * widths, 0 * widths, widths / 200, heights / 100], axis=1)


def test_sizes_reach_from_small_objects_to_large_ones():
    sides = np.geomspace(20, 320, 201)  # the quantiles 0.05 and 0.95 are 1.15 times as far in
    sizes, ratios = choose_anchors(boxes(sides, sides), (100, 200), STRIDES)
    np.testing.assert_allclose(sizes, [23, 42.9, 80, 149.3, 278.6], rtol=0.01)
    assert ratios == (0.8, 1.0, 1.25)


def test_ratios_are_heights_over_widths_of_the_input():
    widths = np.full(101, 30.0)
    sizes, ratios = choose_anchors(boxes(widths, np.linspace(30, 90, 101)), (100, 200), STRIDES)
    np.testing.assert_allclose(ratios, [1.2, 2.0, 2.8], atol=0.01)
    # No level has anchors smaller than two of its strides.
    assert sizes[3:] == (64.0, 128.0) and 30 < sizes[0] < sizes[1] < sizes[2] < 60


def test_without_objects_a_detector_keeps_its_own():
    assert choose_anchors(np.zeros((3, 4)), (100, 200), STRIDES) is None
    cls = detector_class("faster_rcnn")
    assert cls.anchor_options(np.zeros((0, 4)), (100, 200)) == {}
    found = cls.anchor_options(boxes(*np.full((2, 5), 30.0)), (100, 200))
    assert [sizes[0] for sizes in found["anchor_sizes"]] == [30.0, 30.0, 32.0, 64.0, 128.0]
    sizes = detector_class("retinanet").anchor_options(boxes(*np.full((2, 5), 30.0)), (100, 200))
    assert sizes["anchor_sizes"][:2] == ((30.0, 37.8, 47.6), (32.0, 40.3, 50.8))
    assert detector_class("tinyssd").anchor_options(np.zeros((0, 4)), (100, 200)) == {}


@pytest.mark.quick
def test_image_size():
    """By the class with the smallest objects, if it has some, and by the images themselves."""
    large, small = [0.1, 0.1, 0.6, 0.6], [0.2, 0.2, 0.26, 0.28]  # the square root of 0.0048: 0.069
    photographs = np.full((3, 2), (400, 1000))
    boxes, classes = [large] * 9 + [small] * 5, [0] * 9 + [3] * 5
    assert choose_image_size([large] * 9, [0] * 9, photographs) == (256, 256)
    assert choose_image_size(boxes, classes, photographs) == (384, 384)
    assert choose_image_size(boxes, [0] * 14, photographs) == (256, 256)
    assert choose_image_size(boxes[:-1], classes[:-1], photographs) == (256, 256)
    assert choose_image_size(boxes, classes, [[300, 310], [9, 9], [300, 200]]) == (320, 320)
    tiny = [0.5, 0.5, 0.51, 0.51]
    assert choose_image_size([tiny] * 5, [0] * 5, photographs) == (512, 512)
    assert choose_image_size(np.zeros((0, 4)), [], photographs) == (256, 256)


def test_ratios_of_very_flat_objects_are_not_zero():
    boxes = np.float32([[0, 0.5, 1, 0.5 + h] for h in (0.0012, 0.002, 0.0043)])
    _, ratios = choose_anchors(boxes, (512, 512), (8, 16))
    np.testing.assert_allclose(ratios, (0.0014, 0.002, 0.0038), rtol=0.03)
