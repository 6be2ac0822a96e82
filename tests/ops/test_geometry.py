"""Windows: drawn as torchvision draws them, and cut out where they were drawn."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.ops.geometry import (
    crop_and_resize,
    crop_boxes,
    crop_mask,
    flip_left_right,
    flip_up_down,
    random_window,
    resize_and_center_crop,
)
from kerascv_d2l.ops.resize import resize

pytestmark = pytest.mark.quick
RECORDED = np.load(Path(__file__).parents[1] / "recording" / "augmentation.npz")
SIZE = (240, 310)


def draw(size, count, **options):
    """Windows `(count, 4)` of as many seeds."""
    seeds = tf.data.Dataset.range(count).map(lambda k: tf.stack([k, 3]))
    windows = seeds.map(lambda seed: random_window(tf.constant(size), seed, **options))
    return windows.batch(count).get_single_element().numpy()


@pytest.mark.parametrize("size", [(240, 310), (60, 310)])
def test_windows_are_distributed_as_torchvision_s(size):
    """Deciles of top, left, height and width; in the long image many draws do not fit."""
    windows = draw(size, 10_000)
    found = np.quantile(windows, np.linspace(0.1, 0.9, 9), axis=0)
    wanted = RECORDED[f"draws_resized_crop_{size[0]}_{size[1]}"]
    tolerance = np.maximum(0.03 * np.ptp(wanted, axis=0), 1)  # pixels
    assert (np.abs(found - wanted) <= tolerance).all(), np.abs(found - wanted).max(axis=0)


def test_windows_are_distributed_as_they_should_be():
    windows = draw(SIZE, 4000)
    top, left, height, width = windows.T
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (top + height <= SIZE[0]).all() and (left + width <= SIZE[1]).all()
    # 0 where there is only one place.
    share = top[height < SIZE[0]] / (SIZE[0] - height[height < SIZE[0]])
    assert abs(share.mean() - 0.5) < 0.02 and share.min() < 0.02 and share.max() > 0.98
    area, ratio = height * width / np.prod(SIZE), np.log(width / height)
    # Large windows fit at few ratios: the median is below that of the draws, 0.54.
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
def test_long_images_give_their_middle(size, window):
    found = random_window(tf.constant(size), tf.constant([1, 2], tf.int64))
    assert tuple(found.numpy()) == window


def test_draws_for_many_images_at_once():
    """Each has windows of its own, inside itself; those that no draw fits have their middle."""
    sizes = np.tile([[240, 310], [31, 17], [10, 1000]], (3000, 1))
    windows = random_window(sizes, [1, 2]).numpy()
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (windows[:, :2] + windows[:, 2:] <= sizes).all()
    assert (windows[2::3] == (0, 493, 10, 13)).mean() > 0.9
    one_by_one = draw(SIZE, 3000)
    found, wanted = (
        np.quantile(w, np.linspace(0.1, 0.9, 9), 0) for w in (windows[::3], one_by_one)
    )
    assert (np.abs(found - wanted) <= 0.04 * np.ptp(wanted, axis=0)).all()
    relation = np.corrcoef(windows[::3, 2], windows[1::3, 2])[0, 1]
    assert abs(relation) < 0.06  # of heights of neighbours


def test_equal_seeds_give_equal_windows():
    one, two = draw(SIZE, 5), draw(SIZE, 5)
    np.testing.assert_array_equal(one, two)
    assert len({tuple(window) for window in one}) == 5


def test_crop_and_resize_takes_the_window():
    y, x = np.mgrid[:40, :70]
    ramps = np.stack([y, x, y + x], -1).astype(np.uint8)
    cut = crop_and_resize(ramps, tf.constant([6, 11, 20, 30]), (20, 30))
    np.testing.assert_array_equal(cut, ramps[6:26, 11:41])
    smaller = crop_and_resize(ramps, tf.constant([6, 11, 20, 30]), (10, 12), antialias=True)
    np.testing.assert_allclose(smaller, resize(ramps[6:26, 11:41], (10, 12)))


def test_the_middle_of_the_resized():
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 81, 3), dtype=np.uint8)
    found = resize_and_center_crop(images, (32, 48), (28, 40))
    assert found.shape == (2, 28, 40, 3)
    np.testing.assert_allclose(found, resize(images, (32, 48))[:, 2:30, 4:44])
    single = resize_and_center_crop(images[0], (32, 48), (28, 40))
    np.testing.assert_allclose(single, found[0], atol=1e-4)


@pytest.mark.parametrize("name", [n for n in RECORDED.files if n.startswith("crop_")])
def test_windows_look_as_torchvision_has_them(name):
    *window, height, width = map(int, name.split("_")[1:])
    image = RECORDED["image"]
    found = crop_and_resize(image, tf.constant(window), (height, width))
    assert found.dtype == tf.float32
    assert np.abs(found - RECORDED[name]).max() <= 0.51  # theirs is rounded
    smooth = crop_and_resize(image, tf.constant(window), (height, width), antialias=True)
    assert np.abs(smooth - RECORDED[f"pillow_{name}"]).max() <= 1.01  # rounded twice
    gaps = window[2] > 2 * height or window[3] > 2 * width
    auto = crop_and_resize(image, tf.constant(window), (height, width), antialias=None)
    np.testing.assert_array_equal(auto, smooth if gaps else found)
    filled = crop_and_resize(image, tf.constant(window), (height, width), fill=9.0)
    np.testing.assert_allclose(filled, found, atol=1e-4)  # nothing to fill


def test_window_beyond_the_image_is_filled():
    image = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    mask = image[..., 0]
    for window in ((-3, 4, 8, 20), (-5, -7, 30, 40), (6, -2, 4, 10)):
        top, left, height, width = window
        rows, columns = np.arange(top, top + height), np.arange(left, left + width)
        inside = ((rows >= 0) & (rows < 10))[:, None] & ((columns >= 0) & (columns < 14))
        cut = image[np.clip(rows, 0, 9)[:, None], np.clip(columns, 0, 13)]
        # At its own size nothing is interpolated.
        found = crop_and_resize(image, tf.constant(window), (height, width), fill=[1.0, 2.0, 3.0])
        np.testing.assert_allclose(
            found, np.where(inside[..., None], cut, [1, 2, 3]), atol=1e-4, err_msg=str(window)
        )
        found = crop_mask(mask, tf.constant(window), (height, width), fill=255)
        np.testing.assert_array_equal(found, np.where(inside, cut[..., 0], 255))


def test_masks_are_taken_where_centres_lie():
    mask = np.random.default_rng(1).integers(0, 5, (30, 40, 1), dtype=np.int32)
    for window, size in (((3, 5, 11, 20), (25, 7)), ((0, 0, 30, 40), (30, 40))):
        top, left, height, width = window
        rows = np.floor((np.arange(size[0]) + 0.5) * height / size[0]).astype(int) + top
        columns = np.floor((np.arange(size[1]) + 0.5) * width / size[1]).astype(int) + left
        found = crop_mask(mask, tf.constant(window), size)
        assert found.dtype == tf.int32
        np.testing.assert_array_equal(found, mask[rows[:, None], columns])


def test_boxes_in_a_window():
    boxes = np.array(
        [
            [0.1, 0.1, 0.29, 0.5],  # more than half is cut off
            [0.5, 0.6, 0.6, 0.9],
            [0.0, 0.0, 0.19, 1.0],  # outside
            [0.15, 0.3, 0.22, 0.4],  # its centre is outside
        ],
        np.float32,
    )
    window = tf.constant([10, 40, 50, 100])  # of 100 x 200: y 0.1 to 0.6, x 0.2 to 0.7
    found, kept = crop_boxes(boxes, window, (100, 200), (30, 30))
    np.testing.assert_array_equal(kept, [True, False, False, True])
    np.testing.assert_allclose(found[0], [0, 0, 0.18, 0.8], atol=1e-6)
    np.testing.assert_allclose(found[3], [0, 0.4, 0.04, 0.6], atol=1e-6)
    _, kept = crop_boxes(boxes, window, (100, 200), (30, 30), by_centre=True)
    np.testing.assert_array_equal(kept, [False, False, False, False])
    _, kept = crop_boxes(boxes + [0.02, 0, 0.02, 0], window, (100, 200), (30, 30), by_centre=True)
    np.testing.assert_array_equal(kept, [True, False, False, True])


def test_a_box_and_its_mask_stay_together():
    rng = np.random.default_rng(3)
    for _ in range(40):
        height, width = rng.integers(20, 90, 2)
        x1, x2 = np.sort(rng.choice(width + 1, 2, replace=False))
        y1, y2 = np.sort(rng.choice(height + 1, 2, replace=False))
        mask = np.zeros((height, width), np.uint8)
        mask[y1:y2, x1:x2] = 1
        sides = rng.integers(15, 120, 2)
        window = np.array([*rng.integers(-sides // 2, [height, width] - sides // 2), *sides])
        window[:2] = np.clip(window[:2], 1 - sides, np.array([height, width]) - 1)
        size = tuple(int(side) for side in rng.integers(10, 70, 2))
        cut = crop_mask(mask, tf.constant(window), size, fill=0).numpy()
        box = np.array([[x1 / width, y1 / height, x2 / width, y2 / height]], np.float32)
        moved, kept = crop_boxes(box, tf.constant(window), (height, width), size)
        if not cut.any():
            assert not kept or ((moved[0, 2:] - moved[0, :2]) * size[::-1] < 1.01).numpy().any()
            continue
        rows, columns = np.flatnonzero(cut.any(1)), np.flatnonzero(cut.any(0))
        drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert kept
        # A pixel belongs to the mask if its centre does: half a pixel either way.
        np.testing.assert_allclose(moved[0] * [*size[::-1], *size[::-1]], drawn, atol=0.501)


def test_flips_with_boxes():
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    boxes = np.array([[0.1, 0.2, 0.4, 0.9]], np.float32)
    flipped, moved = flip_left_right(image, boxes)
    np.testing.assert_array_equal(flipped, image[..., ::-1, :])
    np.testing.assert_allclose(moved, [[0.6, 0.2, 0.9, 0.9]], atol=1e-6)
    flipped, moved = flip_up_down(image, boxes)
    np.testing.assert_array_equal(flipped, image[..., ::-1, :, :])
    np.testing.assert_allclose(moved, [[0.1, 0.1, 0.4, 0.8]], atol=1e-6)
    np.testing.assert_array_equal(flip_up_down(flip_up_down(image)), image)
