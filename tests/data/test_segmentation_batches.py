"""Windows of pictures and masks: the same of both, every pixel once, the same after a resume."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerascv_d2l.data.images import check_images, read_image
from kerascv_d2l.data.segmentation import SegmentationSplit, encode_mask
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.pipelines import segmentation_batches, whole_pictures
from kerascv_d2l.pipelines.segmentation import OUTSIDE, count_windows, cut_window, draw_window

pytestmark = pytest.mark.quick
NUM, CROP = 5, (16, 24)
SIZE = (30, 40)


def coordinates(height, width, k):
    """A picture whose pixels say where they are, and of which picture."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, k)], axis=-1).astype(np.uint8)


def label(rows, columns, k):
    """The class at a place: the mask goes with the picture, pixel by pixel."""
    return ((3 * rows + 5 * columns + 7 * k) % 250).astype(np.uint8)


def masks_of(images):
    return np.stack([label(*np.moveaxis(image.astype(int), -1, 0)) for image in images])


@pytest.fixture(scope="module")
def arrays():
    images = np.stack([coordinates(*SIZE, k) for k in range(NUM)])
    return SegmentationSplit(images, masks_of(images), [str(k) for k in range(NUM)])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same in PNG files of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    paths, masks = [], []
    for k in range(NUM):
        image = coordinates(20 + 3 * k, 47 - 5 * k, k)
        paths.append(str(folder / f"{k}.png"))
        Image.fromarray(image).save(paths[-1])
        masks.append(encode_mask(masks_of(image[None])[0]))
    infos, _ = check_images(paths)
    sizes = np.array([info[:2] for info in infos])
    plain = np.array([info.plain for info in infos])
    return SegmentationSplit(paths, masks, [str(k) for k in range(NUM)], sizes, plain)


def numpy_batches(dataset, count=None):
    return list((dataset if count is None else dataset.take(count)).as_numpy_iterator())


def examples(dataset, count=None):
    batches = numpy_batches(dataset, count)
    return [pair for images, masks in batches for pair in zip(images, masks, strict=True)]


@pytest.mark.parametrize("kind", ["arrays", "files"])
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("augment", ["none", "flip"])
def test_windows_of_picture_and_mask_are_the_same(kind, cache, augment, request):
    split = request.getfixturevalue(kind)
    dataset = segmentation_batches(
        split, CROP, 2, training=True, seed=3, augment=augment, cache=cache
    )
    assert dataset.element_spec == (
        tf.TensorSpec((None, *CROP, 3), tf.float32),
        tf.TensorSpec((None, *CROP), tf.uint8),
    )
    seen, mirrored = [], 0
    for image, mask in examples(dataset, 3 * 12):
        rows, columns, number = np.moveaxis(image.astype(int), -1, 0)
        k = int(number[0, 0])
        np.testing.assert_array_equal(mask, label(rows, columns, k))
        flipped = columns[0, 0] > columns[0, -1]
        expected = columns[0, -1 if flipped else 0] + np.arange(CROP[1])
        np.testing.assert_array_equal(columns[0], expected[::-1] if flipped else expected)
        np.testing.assert_array_equal(rows[:, 0], rows[0, 0] + np.arange(CROP[0]))
        seen.append((k, rows[0, 0], columns[0].min()))
        mirrored += flipped
    assert [sorted(k for k, *_ in seen[i : i + NUM]) for i in range(0, 60, NUM)] == [
        list(range(NUM))
    ] * 12
    assert (mirrored == 0) if augment == "none" else (15 < mirrored < 45)
    # Every place from the first to the last that fits comes up.
    for k, size in enumerate(split.sizes):
        tops = [top for number, top, _ in seen if number == k]
        assert min(tops) >= 0 and max(tops) <= size[0] - CROP[0] and len(set(tops)) > 2


def test_all_places_are_drawn():
    found = {tuple(draw_window((8, 9), (6, 8), (1, k), (1.0, 1.0)).numpy()[0]) for k in range(100)}
    assert found == set(itertools.product(range(3), range(2)))


def slow_cut(image, mask, window, size):
    """`cut_window`, mask pixel by pixel."""
    start, shown, filled, before = window.tolist()
    part = image[start[0] : start[0] + shown[0], start[1] : start[1] + shown[1]]
    pixels = np.full((*size, 3), OUTSIDE, np.float32)
    labels = np.full(size, 255, np.uint8)
    inside = tuple(slice(b, b + f) for b, f in zip(before, filled, strict=True))
    pixels[inside] = resize(part, filled)
    for row in range(filled[0]):
        for column in range(filled[1]):
            r = int((row + 0.5) * shown[0] / filled[0])
            c = int((column + 0.5) * shown[1] / filled[1])
            labels[before[0] + row, before[1] + column] = mask[start[0] + r, start[1] + c]
    return pixels, labels


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.7, 2.0])
def test_scaled_windows(arrays, scale):
    image, mask = arrays.images[2], arrays.masks[2]
    for k in range(4):
        window = draw_window(SIZE, CROP, (k, 0), (scale, scale)).numpy()
        start, shown, filled, before = window
        # At half size the picture is 15 x 20: lower and narrower than the window.
        assert (filled == np.minimum(CROP, np.round(np.array(SIZE) * scale))).all()
        assert (shown == np.minimum(SIZE, np.round(np.array(CROP) / scale))).all()
        assert (start >= 0).all() and (start + shown <= SIZE).all()
        assert (before >= 0).all() and (before + filled <= CROP).all()
        pixels, labels = cut_window(image, mask, tf.constant(window), CROP)
        wanted = slow_cut(image, mask, window, CROP)
        np.testing.assert_allclose(pixels, wanted[0], atol=1e-4)
        np.testing.assert_array_equal(labels, wanted[1])


def test_scaling_keeps_picture_and_mask_together(arrays):
    """Where the pictures are their own coordinates, the mask's place can be read off."""
    scales = []
    for image, mask in examples(segmentation_batches(arrays, CROP, 4, training=True), 25):
        known = mask != 255
        assert (image[~known] == OUTSIDE).all()
        rows, columns, k = np.moveaxis(image[known], -1, 0)
        k = np.rint(k)
        np.testing.assert_array_equal(k, k[0])
        # Nearest pixel: its class is that of a pixel at most one away from the interpolated place.
        near = np.zeros(len(k), bool)
        for r, c in itertools.product((-1, 0, 1), repeat=2):
            near |= mask[known] == label(np.rint(rows) + r, np.rint(columns) + c, k)
        assert near.mean() > 0.99
        inner = image[4:12, 8:16, 1]
        scales.append(7 / abs(inner[0, -1] - inner[0, 0]))
    assert 0.49 < min(scales) < 0.65 and 1.6 < max(scales) < 2.01


def test_resumed_at_an_epoch_and_other_seeds(arrays):
    def batches(seed, epoch, count):
        dataset = segmentation_batches(
            arrays, CROP, 2, training=True, seed=seed, initial_epoch=epoch
        )
        return numpy_batches(dataset, count)

    whole, resumed, other = batches(1, 0, 9), batches(1, 2, 3), batches(2, 0, 9)
    for a, b in zip(whole[6:], resumed, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert not any(np.array_equal(a[0], b[0]) for a, b in zip(whole, other, strict=True))


def test_transform_gets_windows_and_its_own_seed(arrays):
    seeds = []

    def transform(image, mask, seed):
        assert image.shape == (*CROP, 3) and image.dtype == tf.float32
        assert mask.shape == CROP and mask.dtype == tf.uint8
        noise = tf.random.stateless_uniform((), seed)
        return image * 0 + noise, mask

    for _ in range(2):
        dataset = segmentation_batches(arrays, CROP, NUM, training=True, transform=transform)
        images, _ = numpy_batches(dataset, 1)[0]
        assert len(np.unique(images)) == NUM
        seeds.append(images)
    np.testing.assert_array_equal(*seeds)


@pytest.mark.parametrize("kind", ["arrays", "files"])
@pytest.mark.parametrize("window", [(64, 64), (16, 24), (30, 13), (7, 5)])
def test_evaluation_counts_every_pixel_once(kind, window, request):
    split = request.getfixturevalue(kind)
    times = [np.zeros(size, int) for size in split.sizes]
    given = examples(segmentation_batches(split, window, 4))
    assert len(given) == count_windows(split, window)
    for image, mask in given:
        assert image.shape[:2] == tuple(np.minimum(window, split.sizes.max(axis=0)))
        rows, columns, number = np.moveaxis(image.astype(int), -1, 0)
        known = mask != 255
        np.testing.assert_array_equal(mask[known], label(rows, columns, number)[known])
        np.add.at(times[number[0, 0]], (rows[known], columns[known]), 1)
        # Real pixels as far as the picture goes, then its last row and column.
        height, width = split.sizes[number[0, 0]]
        expected = np.minimum(rows[0, 0] + np.arange(len(rows)), height - 1)
        np.testing.assert_array_equal(rows[:, 0], expected)
        expected = np.minimum(columns[0, 0] + np.arange(rows.shape[1]), width - 1)
        np.testing.assert_array_equal(columns[0], expected)
    assert all((count == 1).all() for count in times)


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_whole_pictures(kind, request):
    split = request.getfixturevalue(kind)
    pairs = list(whole_pictures(split).as_numpy_iterator())
    assert len(pairs) == NUM
    some = list(whole_pictures(split, [3, 1]).as_numpy_iterator())
    for found, k in zip(some, (3, 1), strict=True):
        np.testing.assert_array_equal(found[1], pairs[k][1])
    for k, (image, mask) in enumerate(pairs):
        wanted = split.images[k] if kind == "arrays" else read_image(split.images[k])
        np.testing.assert_array_equal(image, wanted)
        np.testing.assert_array_equal(mask, split.mask(k))


def test_errors(arrays, files):
    with pytest.raises(InputError, match=r"crop_size 31 x 40 .*larger than every picture; .*30 x"):
        segmentation_batches(arrays, (31, 40), 2, training=True)
    # Large in both ways at once counts: 32 x 27 and 20 x 47 are there, but nothing of 32 x 47.
    with pytest.raises(InputError, match="larger than every picture"):
        segmentation_batches(files, (32, 47), 2, training=True)
    segmentation_batches(files, (20, 47), 2, training=True)
    with pytest.raises(InputError, match="augment is 'rotate'; wanted one of none, flip, scale"):
        segmentation_batches(arrays, CROP, 2, augment="rotate")
    with pytest.raises(InputError, match="batch_size is 0"):
        segmentation_batches(arrays, CROP, 0)
    with pytest.raises(InputError, match="seed is -1"):
        segmentation_batches(arrays, CROP, 2, seed=-1)
