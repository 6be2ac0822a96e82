"""The book's functions for its data sets, on small ones in the layout of the real ones."""

import fake_archives
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import kerascv_d2l
from kerascv_d2l import (
    VOC_CLASSES,
    VOC_COLORMAP,
    InputError,
    load_cifar10,
    load_data_bananas,
    load_data_hotdog,
    load_data_voc,
    read_data_bananas,
    read_voc_images,
    voc_colormap2label,
    voc_label_indices,
    voc_rand_crop,
)
from kerascv_d2l.data.prepared import prepare, read_prepared
from kerascv_d2l.layers.augmentation.base import Example
from kerascv_d2l.ops.geometry import random_window


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A TFDS folder with all three, prepared from unpacked folders."""
    folder = tmp_path_factory.mktemp("data")
    fake_archives.write(fake_archives.bananas(bad=False), folder)
    fake_archives.write(fake_archives.hotdogs(bad=False), folder)
    fake_archives.write(fake_archives.voc(num_train=8, num_val=4, bad=False), folder)
    for name in ("banana_detection", "hotdog", "voc2012_segmentation"):
        prepare(name, data_dir=folder / "tfds", archive=folder)
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
        (seed,) = (s for s in wanted if (fake_archives.random_image(s) == image).all())
        np.testing.assert_allclose(label, [wanted[seed]], rtol=1e-6)


def test_bananas_of_another_size_are_resized_with_their_boxes(data_dir):
    train, _ = load_data_bananas(8, data_dir=data_dir)
    images, labels = collect(train)
    height, width = fake_archives.ODD_SIZE
    wanted = [0, 11 / width, 21 / height, 61 / width, 121 / height]
    (row,) = np.flatnonzero(np.abs(labels[:, 0] - wanted).max(-1) < 1e-6)
    source = tf.image.resize(
        fake_archives.random_image(1, height, width), (256, 256), antialias=True
    )
    assert np.abs(images[row] - source.numpy()).max() <= 0.51  # rounding


def test_read_data_bananas(data_dir):
    images, labels = read_data_bananas(True, data_dir=data_dir)
    assert labels.shape == (5, 1, 5) and labels.dtype == np.float32
    for i in (0, 2, 3, 4):
        np.testing.assert_array_equal(images[i], fake_archives.random_image(i))
        wanted = np.array([10 + i, 20 + i, 60 + i, 120 + i]) / 256
        np.testing.assert_allclose(labels[i, 0, 1:], wanted, rtol=1e-6)
    assert images[1].shape == (*fake_archives.ODD_SIZE, 3)
    assert len(read_data_bananas(False, data_dir=data_dir)[0]) == 2


def test_images_with_several_and_few_bananas_are_padded(tmp_path):
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


def sources(data_dir, split):
    """Whole images and masks of a split, images decoded as Pillow does."""
    builder = prepare("voc2012_segmentation", data_dir=data_dir)
    examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return [
        (
            tf.io.decode_jpeg(example["image"], dct_method="INTEGER_ACCURATE").numpy(),
            example["segmentation_mask"].numpy()[..., 0],
        )
        for example in examples
    ]


def find_window(image, mask, images):
    """Which `(image, top, left)` a window was cut from, by its pixels; all that match."""
    height, width = mask.shape
    found = []
    for i, (photo, classes) in enumerate(images):
        for top in range(photo.shape[0] - height + 1):
            for left in range(photo.shape[1] - width + 1):
                window = (slice(top, top + height), slice(left, left + width))
                if (classes[window] != mask).any():
                    continue
                # Chroma at the edge of a decoded window may differ by rounding.
                if np.abs(photo[window].astype(int) - image).max() <= 2:
                    found.append((i, top, left))
    return found


CROP = (135, 190)  # leaves out the odd image of 130 x 210


@pytest.mark.quick
def test_voc_windows_and_masks_belong_together(data_dir):
    train, val = load_data_voc(2, CROP, data_dir=data_dir, seed=1)
    assert train.element_spec[0].shape == (2, *CROP, 3)
    assert train.element_spec[1] == tf.TensorSpec((2, *CROP), tf.int32)
    assert train.cardinality() == 3  # 7 of 8 are large enough, and the last one is dropped
    assert val.cardinality() == 2
    for batches, split in ((train, "train"), (val, "validation")):
        photos = sources(data_dir, split)
        images, masks = collect(batches)
        assert 255 in masks
        seen = []
        for image, mask in zip(images, masks, strict=True):
            (window,) = find_window(image, mask, photos)
            seen.append(window[0])
        assert len(set(seen)) == len(seen)


def test_voc_windows_change_in_training_only(data_dir):
    train, val = load_data_voc(1, CROP, data_dir=data_dir, seed=1)
    first, second = collect(val), collect(val)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (collect(train)[0] != collect(train)[0]).any()


def test_voc_crop_that_is_too_large(data_dir):
    with pytest.raises(InputError, match=r"`crop_size` 151 x 190 .*0 of the 8 images of train"):
        load_data_voc(1, (151, 190), data_dir=data_dir)
    with pytest.raises(InputError, match=r"7 of the 8 .*fewer than `batch_size` 9"):
        load_data_voc(9, CROP, data_dir=data_dir)
    for bad in ((320,), (0, 20), "ab"):
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
            source = fake_archives.random_image(100 + 10 * c + i, 100 + 10 * i, 140 + 7 * i)
            wanted = tf.image.resize(source, (256, 256), antialias=True)[16:240, 16:240]
            error = np.abs(images[labels == c] - wanted.numpy()).max((1, 2, 3))
            assert (error <= 0.51).sum() == 1  # rounding


def test_hotdogs_are_the_pixels_that_fine_tuning_sees(data_dir):
    """One rule of resizing for one section of the book: that of the augmentation layers."""
    train, _ = load_data_hotdog(8, data_dir=data_dir, seed=2)
    images, labels = collect(train)
    split = read_prepared("hotdog", "classification", data_dir=data_dir).train
    seeds = tf.data.Dataset.random(2, rerandomize_each_iteration=True).batch(2)
    crop, flips = kerascv_d2l.RandomResizedCrop(224), 0
    for image, label, seed in zip(images, labels, seeds, strict=False):
        several = []
        for k in np.flatnonzero(split.targets["label"] == label):
            whole = Example(tf.cast(tf.io.decode_png(split.images[k]), tf.float32))
            draw_seed = tf.random.experimental.stateless_split(seed, 2)[0]
            window = random_window(split.sizes[k], draw_seed)
            several.append(crop.apply(whole, window).image)
        near = [
            [np.abs(candidate[:, ::step] - image).max() for step in (1, -1)]
            for candidate in several
        ]
        assert np.min(near) <= 0.51  # rounding
        flips += np.min(near, axis=0)[1] <= 0.51
    assert 0 < flips < 8


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


# Pascal VOC

HEIGHT, WIDTH = 7, 11


@pytest.fixture(scope="module")
def table():
    return voc_colormap2label()


def coloured(classes):
    colors = np.reshape(fake_archives.palette(), (256, 3)).astype(np.uint8)
    return colors[classes]


@pytest.mark.quick
def test_lists():
    assert len(VOC_COLORMAP) == len(VOC_CLASSES) == 21
    assert VOC_CLASSES[0] == "background"
    # VOC's own rule: the bits of the index spread over the channels, high bits first.
    for index, color in enumerate(VOC_COLORMAP):
        rule = [0, 0, 0]
        for bit in range(8):
            rule[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
        assert color == rule


@pytest.mark.quick
def test_table_is_indexed_as_in_the_book(table):
    assert table.shape == (256**3,)
    assert table[(128 * 256 + 0) * 256 + 0] == VOC_CLASSES.index("aeroplane")
    assert table[(0 * 256 + 64) * 256 + 128] == VOC_CLASSES.index("tv/monitor")


@pytest.mark.quick
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_label_indices(table, dtype, batch):
    rng = np.random.default_rng(0)
    classes = rng.choice([*range(21), 255], (*batch, HEIGHT, WIDTH))
    colors = coloured(classes).astype(dtype)
    np.testing.assert_array_equal(voc_label_indices(colors, table), classes)
    in_graph = tf.function(voc_label_indices)(tf.constant(colors), table)
    np.testing.assert_array_equal(in_graph, classes)


@pytest.mark.quick
def test_a_table_of_ones_own(table):
    own = np.zeros(256**3, np.int32)
    own[256 + 2] = 7
    colors = np.array([[[0, 1, 2], [2, 1, 0]]], np.uint8)
    assert voc_label_indices(colors, own).numpy().tolist() == [[7, 0]]


@pytest.mark.quick
def test_label_indices_in_map_with_unknown_sizes(table):
    classes = np.arange(HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH) % 21
    data = tf.data.Dataset.from_generator(
        lambda: iter(coloured(classes)),
        output_signature=tf.TensorSpec((None, None, 3), tf.uint8),
    )
    (found,) = data.map(lambda colors: voc_label_indices(colors, voc_colormap2label()))
    np.testing.assert_array_equal(found, classes[0])


@pytest.mark.quick
def test_a_colour_of_no_class_is_void(table):
    colors = np.array([[[224, 224, 192], [1, 2, 3], [0, 0, 0]]], np.uint8)
    assert voc_label_indices(colors, table).numpy().tolist() == [[255, 255, 0]]


@pytest.mark.quick
def test_label_indices_needs_colours(table):
    with pytest.raises(InputError, match=r"`colormap` must be .* got \(7, 11\)"):
        voc_label_indices(np.zeros((HEIGHT, WIDTH), np.uint8), table)


def places(height=HEIGHT, width=WIDTH):
    """Image and mask that both say where each of their pixels stood."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, y + x], -1).astype(np.uint8), (y * width + x).astype(np.int32)


@pytest.mark.quick
@pytest.mark.parametrize("seed", [None, (3, 4)])
@pytest.mark.parametrize("channels", [False, True])
def test_picture_and_mask_get_the_same_window(seed, channels):
    feature, label = places()
    if channels:
        label = label[..., None]
    for _ in range(5):
        window, mask = voc_rand_crop(feature, label, 4, 9, seed)
        assert window.shape == (4, 9, 3)
        assert mask.shape == (4, 9, 1) if channels else (4, 9)
        y, x, _ = np.moveaxis(window.numpy().astype(int), -1, 0)
        np.testing.assert_array_equal(np.reshape(mask, (4, 9)), y * WIDTH + x)
        assert (np.diff(y, axis=0) == 1).all() and (np.diff(x, axis=1) == 1).all()


@pytest.mark.quick
def test_windows_come_from_every_place_alike():
    feature, label = places()
    draws = 3000
    tops, lefts = np.zeros(4), np.zeros(3)

    def place(i):
        window, _ = voc_rand_crop(feature, label, 4, 9, tf.stack([i, 0]))
        return window[0, 0, :2]

    drawn = tf.data.Dataset.range(draws).map(place, tf.data.AUTOTUNE).batch(draws)
    for top, left in next(iter(drawn)).numpy():
        tops[top] += 1
        lefts[left] += 1
    # Four standard deviations of a binomial count.
    assert np.abs(tops / draws - 1 / 4).max() < 4 * np.sqrt(3 / 16 / draws)
    assert np.abs(lefts / draws - 1 / 3).max() < 4 * np.sqrt(2 / 9 / draws)


@pytest.mark.quick
def test_same_seed_same_window():
    feature, label = places(40, 60)
    first, again, other = (
        voc_rand_crop(feature, label, 5, 6, seed)[1].numpy() for seed in ((1, 2), (1, 2), (1, 3))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.quick
def test_whole_picture_as_window():
    feature, label = places()
    window, mask = voc_rand_crop(feature, label, HEIGHT, WIDTH)
    np.testing.assert_array_equal(window, feature)
    np.testing.assert_array_equal(mask, label)


@pytest.mark.quick
def test_bad_windows():
    feature, label = places()
    with pytest.raises(InputError, match="`height` is 8, but the image's is 7"):
        voc_rand_crop(feature, label, 8, 9)
    with pytest.raises(InputError, match="`width` is 12, but the image's is 11"):
        voc_rand_crop(feature, label, 7, 12)
    with pytest.raises(InputError, match=r"`feature` is 7 x 11 .* `label` 6 x 11"):
        voc_rand_crop(feature, label[1:], 3, 3)
    with pytest.raises(InputError, match=r"\(h, w, channels\)"):
        voc_rand_crop(feature[None], label, 3, 3)
    unknown = tf.function(
        lambda x, y: voc_rand_crop(x, y, 8, 9),
        input_signature=[
            tf.TensorSpec((None, None, 3), tf.uint8),
            tf.TensorSpec((None, None), tf.int32),
        ],
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="smaller than the window"):
        unknown(feature, label)


@pytest.mark.quick
@pytest.mark.parametrize("given", ["VOCdevkit/VOC2012", "VOCdevkit", ""])
def test_read_voc_images(tmp_path, given):
    fake_archives.write(fake_archives.voc(num_train=2, num_val=3, bad=False), tmp_path)
    features, labels = read_voc_images(tmp_path / given, is_train=True)
    assert len(features) == len(labels) == 2
    height, width = fake_archives.ODD_SIZE
    assert features[1].shape == labels[1].shape == (height, width, 3)
    np.testing.assert_array_equal(labels[1], coloured(fake_archives.voc_mask(1, height, width)))
    error = features[1].astype(int) - fake_archives.random_image(1, height, width)
    assert np.abs(error).mean() < 3  # JPEG
    assert len(read_voc_images(tmp_path / given, is_train=False)[0]) == 3


@pytest.mark.quick
def test_read_voc_images_names_what_is_bad(tmp_path):
    fake_archives.write(fake_archives.voc(), tmp_path)
    with pytest.raises(InputError, match=r"2007_000002\.jpg: damaged or truncated"):
        read_voc_images(tmp_path)
    with pytest.raises(InputError, match=r"Segmentation/train\.txt: no such file"):
        read_voc_images(tmp_path / "VOCdevkit" / "VOC2007")


# CIFAR-10


def test_cifar10_or_what_stands_in_for_it(tmp_path, capsys):
    # Nobody asked for a download: shapes.
    batches = load_cifar10(False, None, 200, data_dir=tmp_path)
    assert "generated shapes" in capsys.readouterr().out
    assert [len(labels) for _, labels in batches] == [200, 200, 100]
    train = load_cifar10(True, lambda images: images[:, :, ::-1], 900, data="generated", seed=3)
    assert capsys.readouterr().out == "" and int(train.cardinality()) == 3
    (first, _), (again, labels) = next(iter(train)), next(iter(train))
    assert first.shape == (900, 32, 32, 3) and first.dtype == tf.uint8
    assert labels.dtype == tf.int32 and (first.numpy() != again.numpy()).any()


def test_cifar10_from_a_folder(tmp_path):
    for split, sizes in (("train", [(32, 32), (32, 32), (48, 20)]), ("test", [(32, 32)])):
        for k, name in enumerate(("ash", "birch")):
            (tmp_path / split / name).mkdir(parents=True)
            for i, (height, width) in enumerate(sizes):
                pixels = fake_archives.random_image(10 * k + i, height, width)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    images, labels = collect(load_cifar10(True, None, 6, data=str(tmp_path)))
    assert images.shape == (6, 32, 32, 3) and sorted(labels) == [0, 0, 0, 1, 1, 1]
    found = [(image == fake_archives.random_image(10, 32, 32)).all() for image in images]
    assert labels[np.flatnonzero(found)].tolist() == [1]
