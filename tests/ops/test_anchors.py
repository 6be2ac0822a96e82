import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, box_iou, multibox_prior, offset_boxes, offset_inverse

pytestmark = pytest.mark.quick


def test_anchors_of_the_book():
    anchors = multibox_prior(np.empty((1, 561, 728, 3)), [0.75, 0.5, 0.25], [1, 2, 0.5])
    assert anchors.shape == (1, 2042040, 4)
    at_250 = tf.reshape(anchors, (561, 728, 5, 4))[250, 250]
    expected = [
        [0.0551, 0.0715, 0.6331, 0.8215],
        [0.1514, 0.1965, 0.5367, 0.6965],
        [0.2478, 0.3215, 0.4404, 0.5715],
        [-0.0646, 0.1814, 0.7528, 0.7117],
        [0.1398, -0.0838, 0.5484, 0.9769],
    ]
    np.testing.assert_allclose(at_250, expected, atol=5e-5)


def test_order_centres_and_shapes_in_pixels():
    height, width, sizes, ratios = 2, 5, (0.5, 0.25), (2.0, 0.5)
    anchors = multibox_prior(np.empty((3, height, width, 1)), sizes, ratios)
    pixels = np.reshape(anchors, (height, width, 3, 4)) * [width, height, width, height]
    for i in range(height):
        for j in range(width):
            for k, (s, r) in enumerate([(0.5, 2.0), (0.25, 2.0), (0.5, 0.5)]):
                w, h = s * np.sqrt(r) * height, s / np.sqrt(r) * height
                x, y = j + 0.5, i + 0.5
                expected = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                np.testing.assert_allclose(pixels[i, j, k], expected, atol=1e-5)


def test_unknown_size_gives_the_same():
    data = np.empty((2, 3, 5, 4), np.float32)
    expected = multibox_prior(data, [0.2, 0.5], [1, 2])

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 4))])
    def anchors(data):
        return multibox_prior(data, [0.2, 0.5], [1, 2])

    np.testing.assert_array_equal(anchors(data), expected)


@pytest.mark.parametrize(
    ("shape", "sizes", "ratios", "message"),
    [
        ((4, 4, 3), [0.5], [1], "data must be"),
        ((1, 4, 4, 3), [0.5, 0.0], [1], "sizes must be .*positive"),
        ((1, 4, 4, 3), [0.5], [], "ratios must be"),
    ],
)
def test_bad_arguments_are_named(shape, sizes, ratios, message):
    with pytest.raises(InputError, match=message):
        multibox_prior(np.empty(shape), sizes, ratios)


def test_offsets_by_hand():
    # The anchor is 0.4 wide and 0.2 high around (0.4, 0.5); the box 0.8 x 0.1 around (0.48, 0.4).
    anchor, box = [[0.2, 0.4, 0.6, 0.6]], [[0.08, 0.35, 0.88, 0.45]]
    expected = [[0.08 / 0.4 * 10, -0.1 / 0.2 * 10, 5 * np.log(2), 5 * np.log(0.5)]]
    np.testing.assert_allclose(offset_boxes(anchor, box), expected, rtol=1e-4)


def test_inverse_brings_boxes_back():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(-0.5, 1, (2, 50, 2)), rng.uniform(0.05, 0.8, (2, 50, 2))
    anchors, boxes = np.concatenate([corner, corner + size], axis=-1).astype(np.float32)
    back = offset_inverse(anchors, offset_boxes(anchors, boxes))
    np.testing.assert_allclose(back, boxes, atol=1e-5)


def test_no_offset_is_the_anchor():
    anchors = np.array([[0.1, 0.2, 0.5, 0.9]], np.float32)
    np.testing.assert_allclose(offset_inverse(anchors, np.zeros((1, 4))), anchors, rtol=1e-6)
    np.testing.assert_allclose(box_iou(anchors, anchors), [[1]], rtol=1e-6)
