"""Windows that augmentation draws: distributed as they are defined."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.ops import windows

RECORDED = np.load(Path(__file__).parents[1] / "recording" / "augmentation.npz")
COUNT = 10_000
SIZE = (240, 310)


def draw(function, count=COUNT):
    """Results of as many seeds, as arrays."""
    draws = tf.data.Dataset.range(count).map(lambda k: function(tf.stack([k, 5])))
    return tf.nest.map_structure(lambda t: t.numpy(), draws.batch(count).get_single_element())


def is_uniform(values, low, high, bins=20):
    counts = np.histogram(values, bins, (low, high))[0]
    expected = len(values) / bins
    return counts.sum() == len(values) and np.abs(counts - expected).max() < 5 * expected**0.5


def assert_as_recorded(values, name, tolerance):
    """Deciles of the columns are those of as many draws of torchvision's."""
    found = np.quantile(values, np.linspace(0.1, 0.9, 9), axis=0)
    wanted = RECORDED[f"draws_{name}"][:, : values.shape[1]]
    assert (np.abs(found - wanted) <= tolerance).all(), np.abs(found - wanted).max(axis=0)


def test_iou_windows_are_distributed_as_torchvision_s():
    boxes = np.array([[20, 30, 150, 200], [200, 20, 290, 90], [-1, -1, -1, -1]])
    normalised = (boxes / [310, 240, 310, 240]).astype(np.float32)
    there = [True, True, False]
    found = draw(lambda s: windows.random_iou_window(tf.constant(SIZE), normalised, there, s))
    assert (found[:, :2] >= 0).all() and (found[:, :2] + found[:, 2:] <= SIZE).all()
    whole = (found[:, 2:] == SIZE).all(1)
    assert abs(whole.mean() - RECORDED["draws_iou_crop"][0, 4]) < 0.02
    assert_as_recorded(found[~whole], "iou_crop", [5, 6, 5, 6])  # pixels
    # The tallest and the widest window of each shape: sides are drawn apart.
    ratios = found[~whole, 3] / found[~whole, 2]
    assert ratios.min() >= 0.5 and ratios.max() <= 2


def test_iou_windows_keep_the_bound_they_drew():
    boxes = np.array([[0.4, 0.45, 0.8, 0.95]], np.float32)
    found = draw(
        lambda s: windows.random_iou_window(tf.constant(SIZE), boxes, [True], s, bounds=(0.7,)), 500
    )
    # Three windows of a thousand will do: after 2000 one of 350 images is left whole.
    whole = (found[:, 2:] == SIZE).all(1)
    assert whole.sum() <= 6
    x1, y1, x2, y2 = boxes[0] * [310, 240, 310, 240]
    top, left, height, width = found[~whole].T
    both = np.maximum(np.minimum(x2, left + width) - np.maximum(x1, left), 0)
    both *= np.maximum(np.minimum(y2, top + height) - np.maximum(y1, top), 0)
    iou = both / ((x2 - x1) * (y2 - y1) + height * width - both)
    assert (iou >= 0.7 - 1e-6).all()
    # Out of reach (an object of a hundredth of the image): the whole image, in the end.
    small = np.array([[0.4, 0.4, 0.45, 0.45]], np.float32)
    found = draw(
        lambda s: windows.random_iou_window(tf.constant(SIZE), small, [True], s, bounds=(0.7,)), 2
    )
    np.testing.assert_array_equal(found, [[0, 0, *SIZE]] * 2)


@pytest.mark.quick
def test_any_window_does_without_objects():
    boxes = np.full((2, 4), -1, np.float32)
    found = draw(
        lambda s: windows.random_iou_window(tf.constant(SIZE), boxes, [False, False], s), 400
    )
    whole = (found[:, 2:] == SIZE).all(1)
    assert 0.07 < whole.mean() < 0.23  # a seventh


@pytest.mark.quick
def test_canvases():
    found = draw(lambda s: windows.random_canvas(tf.constant(SIZE), s))
    whole = (found[:, 2:] == SIZE).all(1)
    assert abs(whole.mean() - 0.5) < 0.025
    assert_as_recorded(found[~whole], "zoom_out", [16, 21, 27, 35])  # 0.037 of what they range over
    top, left, height, width = found[~whole].T
    assert is_uniform(height / SIZE[0] + 0.5 / SIZE[0], 1, 4 + 1 / SIZE[0])
    assert np.abs(width / SIZE[1] - height / SIZE[0]).max() < 1 / SIZE[0]
    assert (top <= 0).all() and (top + height >= SIZE[0]).all()
    roomy = height > 1.2 * SIZE[0]
    assert is_uniform((-top / (height - SIZE[0]))[roomy], -1e-6, 1)
    assert is_uniform((-left / (width - SIZE[1]))[roomy], -1e-6, 1)
    always = draw(lambda s: windows.random_canvas(tf.constant(SIZE), s, (2, 2), chance=1.0), 50)
    np.testing.assert_array_equal(always[:, 2:], [[480, 620]] * 50)


@pytest.mark.quick
def test_scaled_windows():
    found = draw(lambda s: windows.random_scaled_window(tf.constant(SIZE), (100, 150), s))
    _, left, height, width = found.T
    quarters = np.quantile(100 / height, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quarters, [0.875, 1.25, 1.625], atol=0.03)
    assert np.abs(width / height - 1.5).max() < 0.04
    inside = width <= SIZE[1]
    assert inside.any()
    assert (left[inside] >= 0).all() and (left + width <= SIZE[1])[inside].all()
    share = (left / (SIZE[1] - width))[width < 250]
    assert is_uniform(share, -1e-6, 1 + 1e-6, 10)
    logs = draw(
        lambda s: windows.random_scaled_window(tf.constant(SIZE), (100, 150), s, (0.5, 2), True)
    )
    quarters = np.quantile(100 / logs[:, 2], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quarters, [0.5**0.5, 1, 2**0.5], atol=0.03)
    many = windows.random_scaled_window([SIZE, (40, 60)] * 50, (100, 150), [1, 2]).numpy()
    assert many.shape == (100, 4) and len(np.unique(many[::2], axis=0)) > 45
    assert ((many[1::2, :2] <= 0) == (many[1::2, 2:] >= (40, 60))).all()
    larger = draw(lambda s: windows.random_scaled_window((40, 60), (100, 150), s, (1, 1)), 1000)
    assert larger[:, 0].min() == -60 and larger[:, 0].max() == 0  # the image is all inside
    assert larger[:, 1].min() == -90 and larger[:, 1].max() == 0


@pytest.mark.quick
def test_mosaics():
    sizes, size = np.array([[100, 200], [300, 120], [64, 64], [50, 500]]), (120, 180)
    meeting, found = draw(lambda s: windows.random_mosaic(tf.constant(sizes), size, s))
    assert abs(meeting[:, 0].mean() - 60) < 0.6
    assert meeting[:, 0].min() == 30 and meeting[:, 0].max() == 90
    assert meeting[:, 1].min() == 45 and meeting[:, 1].max() == 135
    assert (found[..., :2] >= 0).all() and (found[..., :2] + found[..., 2:] <= sizes).all()
    y, x = meeting.T
    quarters = np.stack([[y, y, 120 - y, 120 - y], [x, 180 - x, x, 180 - x]], -1)  # (4, n, 2)
    quarters = quarters.transpose(1, 0, 2)
    largest = (sizes / quarters).min(-1)[..., None] * quarters  # (n, 4, 2)
    share = found[..., 2:].prod(-1) / largest.prod(-1)
    for k in range(3):
        assert abs(share[:, k].mean() - 0.65) < 0.02 and share[:, k].min() > 0.27
        assert share[:, k].max() < 1.03
    shape = np.log(found[:, 0, 3] / found[:, 0, 2]) - np.log(quarters[:, 0, 1] / quarters[:, 0, 0])
    assert np.abs(shape).max() < 0.06
    places = windows.quarter_windows(tf.constant([50, 70]), size)
    np.testing.assert_array_equal(
        places, [[0, 0, 50, 70], [0, 70, 50, 110], [50, 0, 70, 70], [50, 70, 70, 110]]
    )
