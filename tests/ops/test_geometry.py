"""Windows: drawn as torchvision draws them, and cut out where they were drawn."""

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.ops.geometry import (
    crop_and_resize,
    random_flip,
    random_window,
    resize_and_center_crop,
)
from kerascv_d2l.ops.resize import resize

pytestmark = pytest.mark.quick
SIZE = (240, 310)


def draw(size, count, **options):
    """Windows `(count, 4)` of as many seeds."""
    seeds = tf.data.Dataset.range(count).map(lambda k: tf.stack([k, 3]))
    windows = seeds.map(lambda seed: random_window(tf.constant(size), seed, **options))
    return windows.batch(count).get_single_element().numpy()


def test_windows_are_distributed_as_they_should_be():
    windows = draw(SIZE, 4000)
    top, left, height, width = windows.T
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (top + height <= SIZE[0]).all() and (left + width <= SIZE[1]).all()
    # 0 where there is only one place.
    share = top[height < SIZE[0]] / (SIZE[0] - height[height < SIZE[0]])
    assert abs(share.mean() - 0.5) < 0.02 and share.min() < 0.02 and share.max() > 0.98
    area, ratio = height * width / np.prod(SIZE), np.log(width / height)
    # Large windows fit at few ratios: the median is below that of the draws, .54.
    assert area.min() > 0.078 and 0.43 < np.median(area) < 0.53
    assert np.abs(ratio).max() < np.log(4 / 3) + 0.03
    assert abs(ratio.std() - 2 * np.log(4 / 3) / 12**0.5) < 0.02


def test_scale_and_ratio_of_the_book():
    height, width = draw((200, 200), 1000, area=(0.1, 1), ratio=(0.5, 2))[:, 2:].T
    area, ratio = height * width / 200**2, width / height
    assert 0.097 < area.min() < 0.2 and 0.9 < area.max() <= 1
    assert 0.48 < ratio.min() < 0.6 and 1.7 < ratio.max() < 2.05


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((10, 1000), (0, 493, 10, 13)),
        ((900, 12), (442, 0, 16, 12)),
        ((1, 1), (0, 0, 1, 1)),
    ],
)
def test_long_pictures_give_their_middle(size, window):
    found = random_window(tf.constant(size), tf.constant([1, 2], tf.int64))
    assert tuple(found.numpy()) == window


def test_equal_seeds_give_equal_windows():
    one, two = draw(SIZE, 5), draw(SIZE, 5)
    np.testing.assert_array_equal(one, two)
    assert len({tuple(window) for window in one}) == 5


def test_crop_and_resize_takes_the_window():
    y, x = np.mgrid[:40, :70]
    ramps = np.stack([y, x, y + x], -1).astype(np.uint8)
    cut = crop_and_resize(ramps, tf.constant([6, 11, 20, 30]), (20, 30))
    np.testing.assert_array_equal(cut, ramps[6:26, 11:41])
    smaller = crop_and_resize(ramps, tf.constant([6, 11, 20, 30]), (10, 12))
    np.testing.assert_allclose(smaller, resize(ramps[6:26, 11:41], (10, 12)))


def test_half_of_the_pictures_are_mirrored():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    flips = 0
    for k in range(100):
        found = random_flip(image, [k, 1]).numpy()
        mirrored = (found == image[:, ::-1]).all()
        assert mirrored or (found == image).all()
        flips += mirrored
    assert 30 < flips < 70


def test_the_middle_of_the_resized():
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 81, 3), dtype=np.uint8)
    found = resize_and_center_crop(images, (32, 48), (28, 40))
    assert found.shape == (2, 28, 40, 3)
    np.testing.assert_allclose(found, resize(images, (32, 48))[:, 2:30, 4:44])
    single = resize_and_center_crop(images[0], (32, 48), (28, 40))
    np.testing.assert_allclose(single, found[0], atol=1e-4)
