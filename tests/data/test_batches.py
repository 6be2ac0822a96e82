"""Batches: right pixels and labels, and the same ones after a resume."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerascv_d2l.data.classification import ClassificationSplit
from kerascv_d2l.data.detection import DetectionSplit
from kerascv_d2l.data.images import check_images, read_image
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import crop_and_resize, random_window
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.pipelines import (
    batches,
    classification_batches,
    detection_batches,
    resized_size,
    steps_per_epoch,
)

pytestmark = pytest.mark.quick
NUM = 7
SIZE = (24, 40)


def rows_of(k):
    """k mod 3 objects, all of class k, so that a row tells its picture."""
    return np.array([[k, 0.1 * j, 0.2, 0.5 + 0.1 * j, 0.7] for j in range(k % 3)], np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A split of files of different sizes and kinds; JPEG, PNG and a GIF."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for k in range(NUM):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        ending = ("jpg", "png", "gif")[k % 3]
        paths.append(str(folder / f"{k}.{ending}"))
        small.resize((50 + 7 * k, 33 + 5 * k)).save(paths[-1])
    infos, _ = check_images(paths)
    return DetectionSplit(
        images=paths,
        labels=[rows_of(k).reshape(-1, 5) for k in range(NUM)],
        names=[str(k) for k in range(NUM)],
        sizes=np.array([info[:2] for info in infos]),
        plain=np.array([info.plain for info in infos]),
    )


@pytest.fixture(scope="module")
def arrays():
    """The same labels, with pictures in an array; each has its number as its colour."""
    images = np.tile(np.arange(NUM, dtype=np.uint8)[:, None, None, None], (1, 30, 20, 3))
    labels = [rows_of(k).reshape(-1, 5) for k in range(NUM)]
    return DetectionSplit(images, labels, [str(k) for k in range(NUM)])


def numpy_batches(dataset, count=None):
    return list((dataset if count is None else dataset.take(count)).as_numpy_iterator())


@pytest.mark.parametrize("cache", [None, True, False])
def test_one_pass_in_order(files, cache):
    dataset = detection_batches(files, SIZE, 3, cache=cache)
    assert dataset.element_spec == (
        tf.TensorSpec((None, *SIZE, 3), tf.float32),
        tf.TensorSpec((None, 2, 5), tf.float32),
    )
    batches = numpy_batches(dataset)
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    for k in range(NUM):
        expected = resize(read_image(files.images[k]), SIZE)
        np.testing.assert_allclose(images[k], expected, atol=1e-4)  # exact, not rounded
        np.testing.assert_array_equal(labels[k][: k % 3], rows_of(k).reshape(-1, 5))
        np.testing.assert_array_equal(labels[k][k % 3 :], -1)


@pytest.mark.parametrize("cache", [True, False])
def test_training_pixels_are_rounded_cached_or_not(files, cache):
    one = detection_batches(files, SIZE, NUM, training=True, cache=cache)
    images, labels = numpy_batches(one, 1)[0]
    known = [int(rows[0, 0]) for rows in labels if rows[0, 0] >= 0]
    assert sorted(known) == [1, 2, 4, 5]
    for image, rows in zip(images, labels, strict=True):
        if rows[0, 0] >= 0:
            picture = read_image(files.images[int(rows[0, 0])])
            np.testing.assert_array_equal(image, np.floor(resize(picture, SIZE).numpy() + 0.5))


def order(batches):
    """Numbers of the pictures of batches made from `arrays`."""
    return [images[:, 0, 0, 0].astype(int).tolist() for images, _ in batches]


@pytest.mark.parametrize("cache", [True, False])
def test_every_epoch_has_every_picture_once_in_its_own_order(arrays, cache):
    # cache=False with another size takes the way through single examples.
    dataset = detection_batches(arrays, SIZE, 3, training=True, seed=5, cache=cache)
    epochs = np.array(order(numpy_batches(dataset, 12)), dtype=object).reshape(4, 3)
    flat = [list(itertools.chain(*epoch)) for epoch in epochs]
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[3, 3, 1]] * 4
    assert all(sorted(epoch) == list(range(NUM)) for epoch in flat)
    assert len({tuple(epoch) for epoch in flat}) == 4
    other = detection_batches(arrays, SIZE, 3, training=True, seed=6, cache=cache)
    assert list(itertools.chain(*order(numpy_batches(other, 3)))) != flat[0]
    again = detection_batches(arrays, SIZE, 3, training=True, seed=5, cache=not cache)
    assert order(numpy_batches(again, 12)) == [
        batch for epoch in epochs.tolist() for batch in epoch
    ]


def add_noise(image, labels, seed):
    return image + tf.random.stateless_uniform(tf.shape(image), seed), labels


@pytest.mark.parametrize("transform", [None, add_noise])
@pytest.mark.parametrize("epoch", [1, 3])
def test_resuming_gives_what_an_undisturbed_run_gives(files, transform, epoch):
    options = {"training": True, "seed": 2, "transform": transform}
    steps = steps_per_epoch(files, 3)
    whole = numpy_batches(detection_batches(files, SIZE, 3, **options), 5 * steps)
    resumed = detection_batches(files, SIZE, 3, initial_epoch=epoch, **options)
    for a, b in zip(
        whole[epoch * steps :], numpy_batches(resumed, (5 - epoch) * steps), strict=True
    ):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("several", [False, True])
def test_size_of_batches_changes_no_example(arrays, several):
    """Whether an epoch is whole batches (1, 7 of 7) or ends with a smaller one (2)."""

    def unchanged(image, labels, seed):
        return image, labels + tf.random.stateless_uniform([], seed)

    transform = None if several else unchanged
    epochs = [
        numpy_batches(
            detection_batches(arrays, SIZE, size, training=True, transform=transform), steps
        )
        for size, steps in ((2, 8), (1, 14), (7, 2))
    ]
    assert [len(images) for images, _ in epochs[0]] == [2, 2, 2, 1] * 2
    wanted, *others = (
        [np.concatenate(parts) for parts in zip(*batches, strict=True)] for batches in epochs
    )
    for other in others:
        np.testing.assert_array_equal(wanted[0], other[0])
        np.testing.assert_array_equal(wanted[1], other[1])


def test_nothing_waits_for_the_tuner(arrays):
    """An iterator that ends may wait for its next look as long as it has run."""
    for dataset in (
        detection_batches(arrays, SIZE, 3),
        detection_batches(arrays, SIZE, 3, training=True),
    ):
        assert dataset.options().autotune.enabled is False
    assert detection_batches(arrays, SIZE, 3).cardinality() == 3


def test_transform_draws_anew_for_every_picture_and_epoch(arrays):
    def draw(image, labels, seed):
        assert image.shape == (30, 20, 3) and labels.shape == (2, 5) and seed.shape == (2,)
        return image * 0 + tf.random.stateless_uniform([], seed), labels

    dataset = detection_batches(arrays, (30, 20), 3, training=True, transform=draw)
    draws = np.concatenate([images[:, 0, 0, 0] for images, _ in numpy_batches(dataset, 9)])
    assert len(set(draws.tolist())) == 3 * NUM


def test_transform_at_full_resolution(files):
    def crop(image, labels, seed):
        return image[:20, 10:], labels  # of a float32 picture at its own size

    dataset = detection_batches(files, SIZE, 4, transform=crop, full_resolution=True)
    images = np.concatenate([images for images, _ in numpy_batches(dataset)])
    for k in range(NUM):
        expected = resize(read_image(files.images[k])[:20, 10:], SIZE)
        np.testing.assert_allclose(images[k], expected, atol=1e-4)


def test_arrays_of_the_right_size_pass_unchanged(arrays):
    images, labels = numpy_batches(detection_batches(arrays, (30, 20), NUM))[0]
    np.testing.assert_array_equal(images, arrays.images)
    assert images.dtype == np.float32 and labels.shape == (NUM, 2, 5)


def test_pictures_are_decoded_once_if_they_fit(files, monkeypatch):
    num_bytes = NUM * SIZE[0] * SIZE[1] * 3
    for limit, decoded in ((num_bytes, NUM), (num_bytes - 1, 3 * NUM)):
        reads = []  # a new one each: what was prefetched before may still come in

        def counted(path, plain, reads=reads):
            def note(path):
                reads.append(path)
                return read_image(path)

            picture = tf.numpy_function(note, [path], tf.uint8)
            return tf.ensure_shape(picture, (None, None, 3))

        monkeypatch.setattr(batches, "decode_image", counted)
        monkeypatch.setattr(batches, "CACHE_BYTES", limit)
        numpy_batches(detection_batches(files, SIZE, NUM, training=True), 3)
        # Prefetching may have begun with another epoch.
        assert decoded <= len(reads)
        assert (len(reads) == NUM) == (decoded == NUM)


def test_drop_remainder_and_steps(arrays):
    dataset = detection_batches(arrays, SIZE, 3, drop_remainder=True)
    assert dataset.element_spec[0].shape == (3, *SIZE, 3)
    assert len(numpy_batches(dataset)) == 2 == steps_per_epoch(arrays, 3, drop_remainder=True)
    assert steps_per_epoch(arrays, 3) == 3
    assert steps_per_epoch(arrays, 7) == 1
    training = detection_batches(arrays, SIZE, 3, training=True, drop_remainder=True)
    assert [len(images) for images, _ in numpy_batches(training, 5)] == [3] * 5


def test_no_object_at_all_gives_one_padding_row(arrays):
    split = DetectionSplit(arrays.images, [np.zeros((0, 5), np.float32)] * NUM, arrays.names)
    _, labels = numpy_batches(detection_batches(split, SIZE, NUM))[0]
    np.testing.assert_array_equal(labels, np.full((NUM, 1, 5), -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 8, "drop_remainder": True}, "7 pictures make no batch of 8"),
        ({"image_size": (0, 5)}, r"image_size is \(0, 5\)"),
        ({"seed": -1}, "seed is -1"),
        ({"initial_epoch": -1}, "initial_epoch is -1"),
        ({"full_resolution": True}, "full_resolution and partners are for a transform"),
    ],
)
def test_wrong_arguments_are_named(arrays, options, message):
    with pytest.raises(InputError, match=message):
        detection_batches(arrays, **({"image_size": SIZE, "batch_size": 2} | options))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 0.1, 0.2, np.nan, 0.4], "p, object 1: .*nan"),
        ([0, 0.5, 0.2, 0.1, 0.4], "p, object 1"),
        ([0, 0.5, 0.2, 0.6, 1.1], "p, object 1"),
        ([-1, 0.5, 0.2, 0.6, 0.9], "wanted a class from 0 on"),
        ([0.5, 0.5, 0.2, 0.6, 0.9], "wanted a class from 0 on"),
        ([0.1, 0.2, 0.6, 0.9], r"p: labels must have the shape \(objects, 5\), not \(1, 4\)"),
    ],
)
def test_labels_are_checked_where_they_enter(row, message):
    with pytest.raises(InputError, match=message):
        DetectionSplit(np.zeros((1, 4, 6, 3), np.uint8), [np.array([row], np.float32)], ["p"])
    with pytest.raises(InputError, match=r"as many of each, not .*'labels': 0"):
        DetectionSplit(np.zeros((1, 4, 6, 3), np.uint8), [], ["p"])


@pytest.fixture(scope="module")
def classified(files):
    """The files of before, with classes."""
    labels = [k % 3 for k in range(NUM)]
    return ClassificationSplit(files.images, labels, files.names, files.sizes, files.plain)


@pytest.mark.parametrize("cache", [None, True, False])
def test_pictures_to_classify_are_resized_and_their_middle_cut_out(classified, cache):
    dataset = classification_batches(classified, (28, 42), 3, cache=cache)
    assert dataset.element_spec == (
        tf.TensorSpec((None, 28, 42, 3), tf.float32),
        tf.TensorSpec((None,), tf.int32),
    )
    images, labels = (np.concatenate(p) for p in zip(*numpy_batches(dataset), strict=True))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for k in range(NUM):  # 256/224 of 28 x 42 is 32 x 48
        expected = resize(read_image(classified.images[k]), (32, 48))[2:30, 3:45]
        np.testing.assert_allclose(images[k], expected, atol=1e-3)


def test_sizes_before_the_cut():
    assert resized_size(224) == (256, 256) and resized_size((28, 42)) == (32, 48)


def test_encoded_pictures_are_decoded(classified):
    plain = np.flatnonzero(classified.plain)
    assert len(plain) > 3
    files = classified.subset(plain)
    contents = [Path(path).read_bytes() for path in files.images]
    encoded = ClassificationSplit(contents, files.labels, files.names, files.sizes)
    for a, b in zip(
        numpy_batches(classification_batches(files, 24, 4)),
        numpy_batches(classification_batches(encoded, 24, 4)),
        strict=True,
    ):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("epoch", [1, 2])
def test_resumed_classification_gives_what_an_undisturbed_run_gives(classified, epoch):
    options = {"training": True, "seed": 4}
    whole = numpy_batches(classification_batches(classified, 24, 3, **options), 12)
    resumed = classification_batches(classified, 24, 3, initial_epoch=epoch, **options)
    for a, b in zip(whole[3 * epoch :], numpy_batches(resumed, 12 - 3 * epoch), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    flat = [np.concatenate([images for images, _ in whole[k : k + 3]]) for k in (0, 3)]
    assert len(flat[0]) == NUM and not np.array_equal(*flat)


def test_training_windows_are_parts_of_the_picture_mirrored_or_not():
    """On ramps a window shows itself: rows rise downwards, columns to either side."""
    y, x = np.mgrid[:120, :150]
    ramps = np.stack([y, x, 0 * x], -1).astype(np.uint8)
    split = ClassificationSplit(np.tile(ramps, (20, 1, 1, 1)), [0] * 20, ["r"] * 20)
    batches = classification_batches(split, (40, 30), 20, training=True)
    images = np.concatenate([images for images, _ in numpy_batches(batches, 3)])
    down = images[:, -8, 15, 0] - images[:, 7, 15, 0]  # source rows in 25 of 40
    across = images[:, 20, -8, 1] - images[:, 20, 7, 1]  # source columns in 15 of 30
    height, width = down * 40 / 25, np.abs(across) * 30 / 15
    area = height * width / (120 * 150)
    assert (down > 0).all() and 0.06 < area.min() < 0.3 and 0.7 < area.max() < 1.05
    ratio = width / height
    assert ratio.min() > 0.7 and ratio.max() < 1.43
    assert 15 < (across < 0).sum() < 45
    # Every picture of every epoch has a window of its own, which has nothing to do with its flip.
    assert len(np.unique(np.stack([height, width]).round(2), axis=1).T) > 55
    assert abs(np.corrcoef(height, across < 0)[0, 1]) < 0.4


def test_training_windows_are_cut_as_random_resized_crop_does():
    pictures = np.random.default_rng(3).integers(0, 256, (9, 120, 150, 3), np.uint8)
    split = ClassificationSplit(pictures, [0] * 9, ["p"] * 9)
    (images, _), *_ = numpy_batches(classification_batches(split, (40, 30), 9, training=True), 1)
    order = batches._order(0, 0, 9).numpy()
    windows = random_window(split.sizes, batches.transform_seed(0, 0, 0)).numpy()[order]
    shrunk = (windows[:, 2:] > (80, 60)).any(axis=1)
    assert 0 < shrunk.sum() < 9  # some are antialiased, others not
    for image, picture, window in zip(images, pictures[order], windows, strict=True):
        wanted = crop_and_resize(picture, tf.constant(window), (40, 30), antialias=None).numpy()
        mirrored = np.abs(image - wanted).max() > 1
        np.testing.assert_allclose(image[:, ::-1] if mirrored else image, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"image_size": (0, 5)}, r"image_size is \(0, 5\)"),
        ({"seed": -1}, "seed is -1"),
        ({"initial_epoch": -1}, "initial_epoch is -1"),
    ],
)
def test_wrong_arguments_of_classification_are_named(classified, options, message):
    with pytest.raises(InputError, match=message):
        classification_batches(classified, **({"image_size": SIZE, "batch_size": 2} | options))
