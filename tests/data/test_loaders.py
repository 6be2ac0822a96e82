"""Batches of the chapter's data sets, from small prepared ones."""

import fake_archives
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import kerascv_d2l
from kerascv_d2l import (
    InputError,
    load_data_bananas,
    load_data_hotdog,
    load_data_voc,
    read_data_bananas,
)
from kerascv_d2l.data import loaders


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A TFDS folder with all three, prepared from unpacked folders."""
    folder = tmp_path_factory.mktemp("data")
    fake_archives.write(fake_archives.bananas(bad=False), folder)
    fake_archives.write(fake_archives.hotdogs(bad=False), folder)
    fake_archives.write(fake_archives.voc(num_train=8, num_val=4, bad=False), folder)
    for name in ("banana_detection", "hotdog", "voc2012_segmentation"):
        loaders.prepare(name, data_dir=folder / "tfds", archive=folder)
    return folder / "tfds"


def collect(batches):
    parts = zip(*(tuple(part.numpy() for part in batch) for batch in batches), strict=True)
    return [np.concatenate(part) for part in parts]


@pytest.mark.quick
def test_bananas(data_dir):
    train, val = load_data_bananas(2, data_dir=data_dir)
    assert train.element_spec[0].shape == (None, 256, 256, 3)
    assert [tuple(x.shape) for x, _ in train] == [(2, 256, 256, 3)] * 2 + [(1, 256, 256, 3)]
    assert [tuple(y.shape) for _, y in train] == [(2, 1, 5)] * 2 + [(1, 1, 5)]
    images, labels = collect(val)  # 0.png,0,10,20,60,120 and 1.png,0,11,21,61,121
    assert images.dtype == np.uint8 and labels.dtype == np.float32
    wanted = {
        50 + i: np.array([0, (10 + i) / 256, (20 + i) / 256, (60 + i) / 256, (120 + i) / 256])
        for i in range(2)
    }
    assert len(images) == 2
    for image, label in zip(images, labels, strict=True):
        (seed,) = (s for s in wanted if (fake_archives.picture(s) == image).all())
        np.testing.assert_allclose(label, [wanted[seed]], rtol=1e-6)


def test_bananas_of_another_size_are_resized_with_their_boxes(data_dir):
    train, _ = load_data_bananas(8, data_dir=data_dir)
    images, labels = collect(train)
    height, width = fake_archives.ODD_SIZE
    wanted = [0, 11 / width, 21 / height, 61 / width, 121 / height]
    (row,) = np.flatnonzero(np.abs(labels[:, 0] - wanted).max(-1) < 1e-6)
    source = tf.image.resize(fake_archives.picture(1, height, width), (256, 256), antialias=True)
    assert np.abs(images[row] - source.numpy()).max() <= 0.51  # rounding


def test_read_data_bananas(data_dir):
    images, labels = read_data_bananas(True, data_dir=data_dir)
    assert labels.shape == (5, 1, 5) and labels.dtype == np.float32
    for i in (0, 2, 3, 4):
        np.testing.assert_array_equal(images[i], fake_archives.picture(i))
        wanted = np.array([10 + i, 20 + i, 60 + i, 120 + i]) / 256
        np.testing.assert_allclose(labels[i, 0, 1:], wanted, rtol=1e-6)
    assert images[1].shape == (*fake_archives.ODD_SIZE, 3)
    assert len(read_data_bananas(False, data_dir=data_dir)[0]) == 2


def test_pictures_with_several_and_few_bananas_are_padded(tmp_path):
    files = fake_archives.bananas(bad=False)
    files["banana-detection/bananas_val/label.csv"] += b"1.png,0,128,0,256,64\n"
    fake_archives.write(files, tmp_path)
    _, val = load_data_bananas(2, data_dir=tmp_path / "tfds", archive=tmp_path)
    _, labels = collect(val)
    classes = sorted(labels[..., 0].tolist())
    assert classes == [[0, -1], [0, 0]]
    _, labels = read_data_bananas(False, data_dir=tmp_path / "tfds")
    assert labels[..., 0].tolist() == [[0, -1], [0, 0]]
    assert labels[1, 1].tolist() == [0, 0.5, 0, 1, 0.25]


def test_read_detection(data_dir):
    with pytest.raises(InputError, match=r"pictures of different sizes .*`image_size` must be"):
        kerascv_d2l.read_detection("banana_detection", data_dir=data_dir)
    data = kerascv_d2l.read_detection("banana_detection", image_size=(64, 96), data_dir=data_dir)
    assert data.class_names == ("banana",)
    assert data.train.images.shape == (5, 64, 96, 3) and data.val.images.shape == (2, 64, 96, 3)
    assert "banana_detection 1.0.0" in data.describe()
    seen = set()
    for image, rows in zip(data.val.images, data.val.labels, strict=True):
        i = round(float(rows[0, 1] * 256)) - 10  # 0.png,0,10,20,60,120 and 1.png,0,11,21,61,121
        wanted = np.array([10 + i, 20 + i, 60 + i, 120 + i]) / 256
        np.testing.assert_allclose(rows, [[0, *wanted]], rtol=1e-6)
        picture = tf.image.resize(fake_archives.picture(50 + i), (64, 96), antialias=True)
        assert np.abs(image - picture.numpy()).max() <= 0.51  # rounding
        seen.add(i)
    assert seen == {0, 1}

    voc = {"name": "voc2012_segmentation", "image_size": (64, 96), "data_dir": data_dir}
    data = kerascv_d2l.read_detection(**voc)
    assert data.class_names[15] == "potted plant"
    assert all(rows[:, 0].tolist() == [15] for rows in data.train.labels)  # the person is difficult
    data = kerascv_d2l.read_detection(**voc, difficult=True)
    assert all(rows[:, 0].tolist() == [15, 14] for rows in data.train.labels)
    with pytest.raises(InputError, match="hotdog: has no boxes"):
        kerascv_d2l.read_detection("hotdog", data_dir=data_dir)


def test_read_classification(data_dir):
    data = kerascv_d2l.read_classification("hotdog", data_dir=data_dir)
    assert data.class_names == ("hotdog", "not-hotdog")
    assert sorted(data.train.labels.tolist()) == [0] * 4 + [1] * 4 and len(data.val) == 8
    assert all(
        name.startswith(data.class_names[label] + "/")
        for name, label in zip(data.val.names, data.val.labels, strict=True)
    )
    batches = kerascv_d2l.classification_batches(data.val, 224, 8)
    images, labels = next(iter(batches))
    _, test = load_data_hotdog(8, data_dir=data_dir)
    theirs, their_labels = next(iter(test))  # rounded
    np.testing.assert_array_equal(labels, their_labels)
    assert np.abs(images - tf.cast(theirs, tf.float32)).max() <= 0.51
    heights = [tf.io.decode_image(content).shape[0] for content in data.val.images]
    assert data.val.sizes[:, 0].tolist() == heights
    with pytest.raises(InputError, match="banana_detection: has no classes"):
        kerascv_d2l.read_classification("banana_detection", data_dir=data_dir)


def sources(data_dir, split):
    """Whole pictures and masks of a split, pictures decoded as Pillow does."""
    builder = tfds.builder("voc2012_segmentation", data_dir=data_dir)
    examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return [
        (
            tf.io.decode_jpeg(example["image"], dct_method="INTEGER_ACCURATE").numpy(),
            example["segmentation_mask"].numpy()[..., 0],
        )
        for example in examples
    ]


def find_window(image, mask, pictures):
    """Which `(picture, top, left)` a window was cut from, by its pixels; all that match."""
    height, width = mask.shape
    found = []
    for i, (picture, classes) in enumerate(pictures):
        for top in range(picture.shape[0] - height + 1):
            for left in range(picture.shape[1] - width + 1):
                window = (slice(top, top + height), slice(left, left + width))
                if (classes[window] != mask).any():
                    continue
                # Chroma at the edge of a decoded window may differ by rounding.
                if np.abs(picture[window].astype(int) - image).max() <= 2:
                    found.append((i, top, left))
    return found


CROP = (135, 190)  # leaves out the odd picture of 130 x 210


@pytest.mark.quick
def test_voc_windows_and_masks_belong_together(data_dir):
    train, val = load_data_voc(2, CROP, data_dir=data_dir, seed=1)
    assert train.element_spec[0].shape == (2, *CROP, 3)
    assert train.element_spec[1] == tf.TensorSpec((2, *CROP), tf.int32)
    assert train.cardinality() == 3  # 7 of 8 are large enough, and the last one is dropped
    assert val.cardinality() == 2
    for batches, split in ((train, "train"), (val, "validation")):
        pictures = sources(data_dir, split)
        images, masks = collect(batches)
        assert 255 in masks
        seen = []
        for image, mask in zip(images, masks, strict=True):
            (window,) = find_window(image, mask, pictures)
            seen.append(window[0])
        assert len(set(seen)) == len(seen)


def test_voc_windows_change_in_training_only(data_dir):
    train, val = load_data_voc(1, CROP, data_dir=data_dir, seed=1)
    first, second = collect(val), collect(val)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (collect(train)[0] != collect(train)[0]).any()


def test_voc_crop_that_is_too_large(data_dir):
    with pytest.raises(InputError, match=r"`crop_size` 151 x 190 .*0 of the 8 pictures of train"):
        load_data_voc(1, (151, 190), data_dir=data_dir)
    with pytest.raises(InputError, match=r"7 of the 8 .*fewer than `batch_size` 9"):
        load_data_voc(9, CROP, data_dir=data_dir)
    for bad in (320, (320,), (0, 20), "ab"):
        with pytest.raises(InputError, match="`crop_size`"):
            load_data_voc(1, bad, data_dir=data_dir)


def test_hotdogs(data_dir):
    train, test = load_data_hotdog(3, data_dir=data_dir, seed=2)
    images, labels = collect(train)
    assert images.shape == (8, 224, 224, 3) and images.dtype == np.uint8
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4
    images, labels = collect(test)
    for c in range(2):
        for i in range(4):
            source = fake_archives.picture(100 + 10 * c + i, 100 + 10 * i, 140 + 7 * i)
            wanted = tf.image.resize(source, (256, 256), antialias=True)[16:240, 16:240]
            error = np.abs(images[labels == c] - wanted.numpy()).max((1, 2, 3))
            assert (error <= 0.51).sum() == 1  # rounding


def test_hotdog_windows(data_dir):
    """Windows of a picture of ramps say where they were cut."""
    y, x = np.mgrid[:240, :250]
    ramps = np.stack([y, x, 0 * x], -1).astype(np.uint8)
    content = fake_archives.encoded(ramps)
    areas, ratios, flips = [], [], 0

    @tf.function
    def draw(seed):
        return loaders._hotdog_train({"image": content, "label": 1}, seed)[0]

    draws = 400
    for k in range(draws):
        pixels = draw(tf.constant([k, 7], tf.int64)).numpy().astype(float)
        down = pixels[200, 112, 0] - pixels[24, 112, 0]  # source rows in 176 of 224
        across = pixels[112, 200, 1] - pixels[112, 24, 1]
        flips += across < 0
        height, width = down * 224 / 176, abs(across) * 224 / 176
        areas.append(height * width / (240 * 250))
        ratios.append(np.log(width / height))
    assert abs(flips / draws - 0.5) < 4 * 0.5 / np.sqrt(draws)
    areas, ratios = np.array(areas), np.array(ratios)
    assert areas.min() > 0.08 * 0.93 and areas.max() < 1.05
    assert np.abs(ratios).max() < np.log(4 / 3) + 0.05
    # Uniform: mean and deviation; the largest windows do not fit at every ratio.
    assert abs(ratios.mean()) < 0.04 and abs(ratios.std() - 2 * np.log(4 / 3) / 12**0.5) < 0.03
    assert abs(np.median(areas) - 0.51) < 0.08


@pytest.mark.parametrize(
    "load",
    [
        lambda d, seed: load_data_bananas(2, data_dir=d, seed=seed)[0],
        lambda d, seed: load_data_voc(2, CROP, data_dir=d, seed=seed)[0],
        lambda d, seed: load_data_hotdog(2, data_dir=d, seed=seed)[0],
    ],
    ids=["bananas", "voc", "hotdog"],
)
def test_a_seed_gives_the_same_epochs(data_dir, load):
    def epochs(seed):
        batches = load(data_dir, seed)
        return [collect(batches) for _ in range(2)]

    first, again, other = epochs(5), epochs(5), epochs(6)
    for a, b in zip(first, again, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert (first[0][0] != first[1][0]).any()  # epochs differ
    assert (first[0][0] != other[0][0]).any()  # seeds differ


def test_batches_are_split_among_workers_by_example(data_dir):
    _, val = load_data_voc(1, CROP, data_dir=data_dir)
    policy = val.options().experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    (image, _), *_ = strategy.experimental_distribute_dataset(val)
    assert image.shape == (1, *CROP, 3)


@pytest.mark.parametrize("load", [load_data_bananas, load_data_hotdog])
def test_batch_size_must_be_positive(load, data_dir):
    with pytest.raises(InputError, match="`batch_size` must be at least 1, got 0"):
        load(0, data_dir=data_dir)
