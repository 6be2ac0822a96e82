"""Batches: right pixels and targets, and the same ones after a resume."""

import functools
import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from kerascv_d2l.data import loading
from kerascv_d2l.data.batches import batches, steps_per_epoch, transform_seed, whole_images
from kerascv_d2l.data.images import check_images, read_image
from kerascv_d2l.data.splits import Split, encode_mask
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation import (
    ColorJitter,
    Compose,
    RandomHorizontalFlip,
    RandomScaleCrop,
    flip_augmentation,
    mosaic_augmentation,
    segmentation_augmentation,
    small_augmentation,
    ssd_augmentation,
)
from kerascv_d2l.layers.augmentation.base import RandomTransform
from kerascv_d2l.ops.geometry import crop_and_resize, random_window, resized_size
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.training.run import Run

NUM = 7
SIZE = (24, 40)
NAMES = [str(k) for k in range(NUM)]


def boxes_of(k):
    """k mod 4 objects."""
    rows = [[0.1 * j, 0.2, 0.5 + 0.1 * j, 0.7] for j in range(k % 4)]
    return np.array(rows, np.float32).reshape(-1, 4)


def objects(masks=False):
    """Detection targets; all objects of image k have class k, and the last one is ignored."""
    found = {
        "boxes": [boxes_of(k) for k in range(NUM)],
        "classes": [np.full(k % 4, k, np.int32) for k in range(NUM)],
        "ignore": [np.arange(k % 4) == k % 4 - 1 for k in range(NUM)],
    }
    if masks:
        found["masks"] = [
            [encoded(box, (30 + 4 * k, 50 - 2 * k)) for box in boxes_of(k)] for k in range(NUM)
        ]
    return found


def encoded(box, size):
    """Run lengths of a mask that is the box."""
    mask = np.zeros(size, np.uint8)
    x1, y1, x2, y2 = (box * np.tile(size[::-1], 2)).round().astype(int)
    mask[y1:y2, x1:x2] = 1
    return coco_mask.encode(np.asfortranarray(mask))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A function of targets: a split of files of different sizes; JPEG, PNG and GIF."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for k in range(NUM):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        paths.append(str(folder / f"{k}.{('jpg', 'png', 'gif')[k % 3]}"))
        small.resize((50 - 2 * k, 30 + 4 * k)).save(paths[-1])
    infos, _ = check_images(paths)
    sizes, plain = np.array([info[:2] for info in infos]), [info.plain for info in infos]
    return lambda targets: Split(paths, targets, NAMES, sizes, np.array(plain))


@pytest.fixture(scope="module")
def arrays():
    """A function of targets: images in an array; each has its number as its colour."""
    images = np.tile(np.arange(NUM, dtype=np.uint8)[:, None, None, None], (1, 30, 20, 3))
    return lambda targets: Split(images, targets, NAMES)


def numpy(dataset, count=None):
    return list((dataset if count is None else dataset.take(count)).as_numpy_iterator())


def assert_equal(one, two):
    for a, b in zip(one, two, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, a, b)


@pytest.mark.quick
@pytest.mark.parametrize("cache", [None, True, False])
def test_objects_one_pass_in_order(files, cache):
    split = files(objects())
    dataset = batches(split, SIZE, 3, cache=cache)
    rows = {"boxes": (None, None, 4), "classes": (None, None), "ignore": (None, None)}
    assert tf.nest.map_structure(lambda s: tuple(s.shape), dataset.element_spec) == (
        (None, *SIZE, 3),
        rows,
    )
    found = numpy(dataset)
    assert [len(images) for images, _ in found] == [3, 3, 1]
    # The fullest images of the batches have 2, 3 and 2 objects.
    assert [y["boxes"].shape[1] for _, y in found] == [2, 4, 2]
    for k in range(NUM):
        image, y = tf.nest.map_structure(lambda part, k=k: part[k % 3], found[k // 3])
        np.testing.assert_allclose(image, resize(read_image(split.images[k]), SIZE), atol=1e-4)
        n = k % 4
        np.testing.assert_array_equal(y["boxes"][:n], boxes_of(k))
        assert y["classes"].tolist() == [k] * n + [-1] * (len(y["classes"]) - n)
        assert y["ignore"].tolist() == [j == n - 1 for j in range(len(y["ignore"]))]
        assert (y["boxes"][n:] == -1).all()


@pytest.mark.quick
def test_a_full_image_costs_only_its_own_batch():
    """Before, one image of 1000 objects made 1000 rows for every image."""
    counts = [1, 3, 0, 1000, 2, 1]
    boxes = [np.tile([[0.1, 0.1, 0.6, 0.7]], (n, 1)) for n in counts]
    targets = {"boxes": boxes, "classes": [np.zeros(n) for n in counts]}
    split = Split(np.zeros((6, 8, 8, 3), np.uint8), targets, NAMES[:6])
    for transform in (None, ColorJitter(0.1)):  # at once, and one by one
        options = {"training": True, "transform": transform, "cache": transform is None}
        widths = [y["classes"].shape[1] for _, y in numpy(batches(split, (8, 8), 1, **options), 12)]
        assert sorted(widths) == [1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 1024, 1024]


@pytest.mark.quick
def test_few_shapes_are_traced():
    """200 batches, images of 1 and of up to 100 objects."""
    rng = np.random.default_rng(0)
    counts = np.where(rng.random(40) < 0.3, rng.integers(1, 101, 40), 1)
    targets = {
        "boxes": [np.tile([[0.1, 0.1, 0.6, 0.7]], (n, 1)) for n in counts],
        "classes": [np.zeros(n) for n in counts],
    }
    split = Split(np.zeros((40, 8, 8, 3), np.uint8), targets, [str(k) for k in range(40)])
    traces = []

    @tf.function
    def step(images, y):
        traces.append(y["boxes"].shape)
        return tf.reduce_sum(y["boxes"])

    for images, y in batches(split, 8, 2, training=True).take(200):
        step(images, y)
    assert 1 < len(traces) <= 8


@pytest.mark.quick
@pytest.mark.parametrize("cache", [True, False])
def test_training_pixels_are_rounded_cached_or_not(files, cache):
    split = files({"label": range(NUM)})
    one = batches(split, SIZE, NUM, training=True, cache=cache, transform=Compose([]))
    images, labels = numpy(one, 1)[0]
    assert sorted(labels) == list(range(NUM))
    for image, label in zip(images, labels, strict=True):
        wanted = np.floor(resize(read_image(split.images[label]), SIZE).numpy() + 0.5)
        np.testing.assert_array_equal(image, wanted)


def order(found):
    """Numbers of the images of batches made from `arrays`."""
    return [(images[:, 0, 0, 0]).astype(int).tolist() for images, *_ in found]


@pytest.mark.parametrize("cache", [True, False])
def test_every_epoch_has_other_whole_batches(arrays, cache):
    # cache=False with another size takes the way through single examples.
    options = {"training": True, "seed": 5}
    found = order(numpy(batches(arrays(objects()), SIZE, 3, cache=cache, **options), 8))
    assert {len(batch) for batch in found} == {3} and steps_per_epoch(range(NUM), 3) == 2
    epochs = [found[k] + found[k + 1] for k in range(0, 8, 2)]
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    again = order(numpy(batches(arrays(objects()), SIZE, 3, cache=not cache, **options), 8))
    assert again == found
    other = batches(arrays(objects()), SIZE, 3, training=True, seed=6, cache=cache)
    assert order(numpy(other, 8)) != found


@pytest.mark.parametrize(
    "make", [ssd_augmentation, pytest.param(mosaic_augmentation, marks=pytest.mark.long)]
)
def test_images_kept_at_their_own_size_are_those_of_the_files(files, make):
    split = files(objects())
    options = {"training": True, "transform": make(SIZE), "seed": 3}
    kept, read = (numpy(batches(split, SIZE, 3, cache=c, **options), 4) for c in (True, False))
    assert_equal(kept, read)


RESUMED = {
    "label": ({"label": range(NUM)}, [None, small_augmentation("all")]),
    "objects": (objects(), [None, RandomHorizontalFlip()]),
    "mask": ({"mask": None}, [None]),
    "nothing": ({}, [None]),
}


@pytest.mark.parametrize(
    ("kind", "transform"), [(kind, t) for kind, (_, some) in RESUMED.items() for t in some]
)
def test_resuming_gives_what_an_undisturbed_run_gives(files, kind, transform):
    targets = RESUMED[kind][0]
    if kind == "mask":
        targets = {"mask": [encode_mask(np.full(s, 3, np.uint8)) for s in files({}).sizes]}
    options = {"training": True, "seed": 2, "transform": transform}
    split = files(targets)
    whole = numpy(batches(split, SIZE, 3, **options), 6)
    resumed = numpy(batches(split, SIZE, 3, initial_epoch=2, **options), 2)
    if not isinstance(whole[0], tuple):
        whole, resumed = [(images,) for images in whole], [(images,) for images in resumed]
    assert_equal(whole[4:], resumed)
    assert all(images.shape == (3, *SIZE, 3) for images, *_ in whole)
    assert not any(np.array_equal(a[0], b[0]) for a, b in itertools.combinations(whole, 2))


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("transform", [RandomHorizontalFlip(), ColorJitter(0.5, hue=0.1)])
def test_size_of_batches_changes_no_example(arrays, transform, cache):
    options = {"training": True, "transform": transform, "cache": cache}
    one, three = (
        [
            np.concatenate(parts)
            for parts in zip(
                *numpy(batches(arrays({"label": range(NUM)}), (9, 7), size, **options), steps),
                strict=True,
            )
        ]
        for size, steps in ((1, 6), (3, 2))
    )
    np.testing.assert_array_equal(one[1][:6], three[1])
    np.testing.assert_array_equal(one[0][:6], three[0])


def test_nothing_waits_for_the_tuner(arrays):
    """An iterator that ends may wait for its next look as long as it has run."""
    for training in (False, True):
        dataset = batches(arrays(objects()), SIZE, 3, training=training)
        assert dataset.options().autotune.enabled is False
    assert batches(arrays(objects()), SIZE, 3).cardinality() == 3


class Corner(RandomTransform):
    """Shows the upper left 10 x 10 pixels, and what size it saw."""

    full_resolution = True

    def draw_for(self, sizes, seed):
        return tf.cast(sizes, tf.float32)

    def apply(self, example, draw):
        seen = tf.concat([tf.cast(example.size, tf.float32), draw[:1]], 0)
        return example._replace(image=example.image[:10, :10] * 0 + seen)


def test_layers_that_crop_get_whole_images(files):
    """No crops of squeezed thumbnails, whatever the cache."""
    split = files(objects())
    dataset = batches(split, SIZE, NUM, training=True, transform=Corner())
    images, _ = numpy(dataset, 1)[0]
    found = {tuple(image[0, 0].round().astype(int)) for image in images}
    assert found == {(h, w, h) for h, w in split.sizes.tolist()}
    for recipe in (ssd_augmentation, mosaic_augmentation):
        assert recipe(SIZE).full_resolution


@pytest.fixture(scope="module")
def augmented(files):
    """Function of a recipe: 20 batches of objects and their masks, made once."""

    @functools.cache
    def augmented(kind):
        transform = {"ssd": ssd_augmentation, "mosaic": mosaic_augmentation}[kind](SIZE)
        split = files(objects(masks=True))
        return numpy(batches(split, SIZE, 7, training=True, transform=transform, masks=True), 20)

    return augmented


@pytest.mark.parametrize("kind", ["ssd", "mosaic"])
def test_detection_recipes_are_sound(augmented, kind):
    several, count, ignored = 0, 0, 0
    for images, y in augmented(kind):
        assert images.std() > 10 and images.min() >= 0 and images.max() <= 255
        there = y["classes"] >= 0
        m = there.shape[1]
        assert m & (m - 1) == 0 and there.sum(1).max() > m // 2  # no wider than it must be
        assert (there[:, :-1] >= there[:, 1:]).all()  # objects first, then padding
        assert (y["boxes"][~there] == -1).all() and not y["ignore"][~there].any()
        boxes = y["boxes"][there]
        assert (boxes >= 0).all() and (boxes <= 1).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        count += len(boxes)
        ignored += y["ignore"].sum()
        several += sum(len(set(row) - {-1}) > 1 for row in y["classes"])
    assert count > 100 and 0.3 < ignored / count < 0.8
    # Objects of two images are only in mosaics, and in nearly all of these.
    assert several == 0 if kind == "ssd" else 0.2 < several / 140 < 0.6


def test_resuming_continues_mosaics(files, augmented):
    """They have all of SSD's augmentation in them; here an epoch is a batch."""
    options = {"training": True, "transform": mosaic_augmentation(SIZE), "masks": True}
    resumed = batches(files(objects(masks=True)), SIZE, 7, initial_epoch=18, **options)
    assert_equal(augmented("mosaic")[18:], numpy(resumed, 2))


@pytest.mark.quick
@pytest.mark.parametrize("transform", [None, RandomHorizontalFlip(), "ssd", "mosaic"])
def test_instance_masks_stay_on_their_boxes(files, augmented, transform):
    if isinstance(transform, str):
        found = augmented(transform)[:8]
    else:
        options = {} if transform is None else {"training": True, "transform": transform}
        found = numpy(batches(files(objects(masks=True)), SIZE, 7, masks=True, **options), 8)
    seen = 0
    for images, y in found:
        assert y["masks"].shape == (*y["classes"].shape, *SIZE) and y["masks"].dtype == np.uint8
        assert not y["masks"][y["classes"] < 0].any() and len(images) == 7
        there = y["classes"] >= 0
        for box, mask in zip(y["boxes"][there], y["masks"][there], strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            x1, y1, x2, y2 = box * np.tile(SIZE[::-1], 2)
            if x2 - x1 > 2 and y2 - y1 > 2:
                drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                np.testing.assert_allclose(drawn, [x1, y1, x2, y2], atol=1.6)
                seen += 1
    assert seen > 5


def noted_reads(monkeypatch):
    """List to which each decoding of a file adds its path from now on."""
    reads = []

    def counted(path, plain, window, enough):
        def note(path):
            reads.append(path)
            return read_image(path)

        return tf.ensure_shape(tf.numpy_function(note, [path], tf.uint8), (None, None, 3))

    monkeypatch.setattr(loading, "decode_image", counted)
    return reads


def test_images_are_decoded_once_if_they_fit(files, monkeypatch):
    num_bytes = NUM * SIZE[0] * SIZE[1] * 3
    for limit, decoded in ((num_bytes, NUM), (num_bytes - 1, 3 * NUM)):
        reads = noted_reads(monkeypatch)  # new: what was prefetched before may still come in
        monkeypatch.setattr(loading, "CACHE_BYTES", limit)
        numpy(batches(files(objects()), SIZE, NUM, training=True), 3)
        # Prefetching may have begun with another epoch.
        assert decoded <= len(reads)
        assert (len(reads) == NUM) == (decoded == NUM)


@pytest.mark.parametrize(
    ("augment", "kind"),
    [
        (RandomScaleCrop, "boxes"),  # of images at their own size
        (flip_augmentation, "boxes"),  # resized first
        (RandomScaleCrop, "mask"),
    ],
)
def test_a_run_decodes_images_once_for_all_epochs(tmp_path, files, monkeypatch, augment, kind):
    targets = objects()
    if kind == "mask":
        targets = {"mask": [encode_mask(np.full(s, 3, np.uint8)) for s in files({}).sizes]}
    reads, split = noted_reads(monkeypatch), files(targets)
    run = Run(tmp_path / "run", {"epochs": 2, "batch_size": NUM}, task="toy")
    last = {"transform": Compose([augment(SIZE), RandomHorizontalFlip()])}, 1
    run.batches(split, SIZE, NUM, transform=augment(SIZE), last=last)  # decodes all
    assert len(reads) == NUM
    run.close()


@pytest.mark.parametrize("cache", [None, True, False])
def test_images_to_classify_are_resized_and_their_middle_cut_out(files, cache):
    split = files({"label": [k % 3 for k in range(NUM)]})
    dataset = batches(split, (28, 42), 3, cache=cache)
    assert dataset.element_spec == (
        tf.TensorSpec((None, 28, 42, 3), tf.float32),
        tf.TensorSpec((None,), tf.int32),
    )
    images, labels = (np.concatenate(p) for p in zip(*numpy(dataset), strict=True))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for k in range(NUM):  # 256/224 of 28 x 42 is 32 x 48
        expected = resize(read_image(split.images[k]), (32, 48))[2:30, 3:45]
        np.testing.assert_allclose(images[k], expected, atol=1e-3)
    whole = batches(split, (28, 42), NUM, cache=cache, crop_pct=1)
    wanted = resize(read_image(split.images[2]), (28, 42))
    np.testing.assert_allclose(numpy(whole)[0][0][2], wanted, atol=1e-3)
    assert resized_size((224, 224)) == (256, 256) and resized_size((28, 42)) == (32, 48)


def test_encoded_images_are_decoded(files):
    split = files({"label": range(NUM)})
    split = split.subset(np.flatnonzero(split.plain))
    contents = [Path(path).read_bytes() for path in split.images]
    encoded = Split(contents, split.targets, split.names, split.sizes)
    for training in (False, True):
        one, two = (numpy(batches(s, 24, 2, training=training), 2) for s in (split, encoded))
        assert_equal(one, two)


def test_training_windows_are_parts_of_the_image_flipped_or_not():
    """On ramps a window shows itself: rows rise downwards, columns to either side."""
    y, x = np.mgrid[:120, :150]
    ramps = np.stack([y, x, 0 * x], -1).astype(np.uint8)
    split = Split(np.tile(ramps, (20, 1, 1, 1)), {"label": [0] * 20}, [str(k) for k in range(20)])
    found = numpy(batches(split, (40, 30), 20, training=True), 3)
    images = np.concatenate([images for images, _ in found])
    down = images[:, -8, 15, 0] - images[:, 7, 15, 0]  # source rows in 25 of 40
    across = images[:, 20, -8, 1] - images[:, 20, 7, 1]  # source columns in 15 of 30
    height, width = down * 40 / 25, np.abs(across) * 30 / 15
    area = height * width / (120 * 150)
    assert (down > 0).all() and 0.06 < area.min() < 0.3 and 0.7 < area.max() < 1.05
    ratio = width / height
    assert ratio.min() > 0.7 and ratio.max() < 1.43
    assert 15 < (across < 0).sum() < 45
    # Every image of every epoch has a window of its own, which has nothing to do with its flip.
    assert len(np.unique(np.stack([height, width]).round(2), axis=1).T) > 55
    assert abs(np.corrcoef(height, across < 0)[0, 1]) < 0.4


def test_training_windows_are_cut_as_random_resized_crop_does():
    images = np.random.default_rng(3).integers(0, 256, (9, 120, 150, 3), np.uint8)
    split = Split(images, {"label": range(9)}, list("abcdefghi"))
    found, order = numpy(batches(split, (40, 30), 9, training=True), 1)[0]
    windows = random_window(split.sizes, transform_seed(0, 0, 0)).numpy()[order]
    shrunk = (windows[:, 2:] > (80, 60)).any(axis=1)
    assert 0 < shrunk.sum() < 9  # some are antialiased, others not
    for image, source, window in zip(found, images[order], windows, strict=True):
        wanted = crop_and_resize(source, tf.constant(window), (40, 30), antialias=None).numpy()
        flipped = np.abs(image - wanted).max() > 1
        np.testing.assert_allclose(image[:, ::-1] if flipped else image, wanted, atol=1e-3)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["none", "flip", "crop-flip", "color", "all"])
def test_small_images_augmented_at_once(name):
    images = np.random.default_rng(3).integers(1, 256, (37, 9, 12, 3)).astype(np.uint8)
    split = Split(images, {"label": range(37)}, [str(k) for k in range(37)])
    options = {"training": True, "transform": small_augmentation(name), "seed": 5}
    changed = 0
    for found, labels in numpy(batches(split, (9, 12), 8, **options), 8):
        assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 255
        for image, original in zip(found, images[labels], strict=True):
            changed += not np.array_equal(image, original)
            if name == "flip":
                assert any(np.array_equal(image, o) for o in (original, original[:, ::-1]))
            elif name == "crop-flip":  # every pixel comes from the image, or is padding
                assert np.isin(image, np.append(original, 0)).all()
    least, most = {"none": (0, 0), "flip": (0.25, 0.75)}.get(name, (0.9, 1))
    assert least <= changed / 64 <= most
    evaluated = numpy(batches(split, (9, 12), 37, crop_pct=1))[0]
    np.testing.assert_array_equal(evaluated[0], images)


def coordinates(height, width, k):
    """An image whose pixels say where they are, and of which image."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, k)], axis=-1).astype(np.uint8)


def label(rows, columns, k):
    """The class at a place: the mask goes with the image, pixel by pixel."""
    return ((3 * rows + 5 * columns + 7 * k) % 250).astype(np.uint8)


CROP = (16, 24)


@pytest.fixture(scope="module", params=["arrays", "files"])
def masked(request, tmp_path_factory):
    """A split with masks, of one size in arrays, or of different sizes in PNG files."""
    folder = tmp_path_factory.mktemp("masked")
    images = [
        coordinates(30, 40, k)
        if request.param == "arrays"
        else coordinates(20 + 3 * k, 47 - 4 * k, k)
        for k in range(5)
    ]
    masks = [label(*np.moveaxis(image.astype(int), -1, 0)) for image in images]
    if request.param == "arrays":
        return Split(np.stack(images), {"mask": np.stack(masks)}, NAMES[:5])
    paths = [str(folder / f"{k}.png") for k in range(5)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    sizes = np.array([image.shape[:2] for image in images])
    targets = {"mask": [encode_mask(mask) for mask in masks]}
    return Split(paths, targets, NAMES[:5], sizes, np.full(5, True))


@pytest.mark.quick
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("name", ["none", "flip"])
def test_windows_of_image_and_mask_are_the_same(masked, cache, name):
    transform = segmentation_augmentation(CROP, name)
    options = {"training": True, "seed": 3, "transform": transform, "cache": cache}
    dataset = batches(masked, CROP, 5, **options)
    assert dataset.element_spec == (
        tf.TensorSpec((5, *CROP, 3), tf.float32),
        tf.TensorSpec((5, *CROP), tf.int32),
    )
    seen, flips = [], 0
    for image, mask in [pair for batch in numpy(dataset, 12) for pair in zip(*batch, strict=True)]:
        rows, columns, number = np.moveaxis(image.astype(int), -1, 0)
        k = int(number[0, 0])
        np.testing.assert_array_equal(mask, label(rows, columns, k))
        flipped = columns[0, 0] > columns[0, -1]
        expected = columns[0, -1 if flipped else 0] + np.arange(CROP[1])
        np.testing.assert_array_equal(columns[0], expected[::-1] if flipped else expected)
        np.testing.assert_array_equal(rows[:, 0], rows[0, 0] + np.arange(CROP[0]))
        seen.append((k, rows[0, 0]))
        flips += flipped
    assert (flips == 0) if name == "none" else (15 < flips < 45)
    for k, size in enumerate(masked.sizes):
        tops = [top for number, top in seen if number == k]
        assert min(tops) >= 0 and max(tops) <= size[0] - CROP[0] and len(set(tops)) > 2


def test_scaling_keeps_image_and_mask_together(masked):
    """Where the images are their own coordinates, the mask's place can be read off."""
    scales = []
    found = numpy(batches(masked, CROP, 5, training=True), 20)
    for image, mask in [pair for batch in found for pair in zip(*batch, strict=True)]:
        known = mask != 255
        assert (image[~known] == 127.5).all()
        rows, columns, k = np.moveaxis(image[known], -1, 0)
        k = np.rint(k)
        np.testing.assert_array_equal(k, k[0])
        # Nearest pixel: its class is that of a pixel at most one away from the interpolated place.
        near = np.zeros(len(k), bool)
        for r, c in itertools.product((-1, 0, 1), repeat=2):
            near |= mask[known] == label(np.rint(rows) + r, np.rint(columns) + c, k)
        assert near.mean() > 0.99
        inner = image[6:10, 8:16, 1]
        if known[6:10, 8:16].all():
            scales.append(7 / abs(inner[0, -1] - inner[0, 0]))
    assert 0.48 < min(scales) < 0.65 and 1.6 < max(scales) < 2.05
    assert 0.85 < np.median(scales) < 1.2  # the logarithm is uniform


@pytest.mark.quick
def test_segmentation_is_evaluated_on_whole_images(masked):
    found = numpy(batches(masked, None, 1))
    pairs = numpy(whole_images(masked))
    assert len(found) == len(pairs) == 5
    for k, ((images, masks), (image, mask)) in enumerate(zip(found, pairs, strict=True)):
        np.testing.assert_array_equal(images[0], image)
        np.testing.assert_array_equal(masks[0], mask)
        np.testing.assert_array_equal(image, coordinates(*masked.sizes[k], k))
        np.testing.assert_array_equal(mask, masked.mask(k))
        assert masks.dtype == np.int32 and image.dtype == mask.dtype == np.uint8
    some = numpy(whole_images(masked, [3, 1]))
    assert_equal(some, [pairs[3], pairs[1]])


@pytest.mark.quick
def test_a_detector_s_fit_takes_them(arrays):
    """`fit` retraces nothing for batches of other numbers of objects."""
    traces = []

    class Toy(keras.Model):
        def call(self, images):
            return tf.reduce_mean(images, [1, 2, 3])

        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            traces.append(1)
            return tf.reduce_mean(tf.reduce_sum(tf.nn.relu(y["boxes"]), [1, 2]) - y_pred)

    model = Toy()
    model.compile("sgd", jit_compile=False)
    model.fit(batches(arrays(objects()), (30, 20), 2, training=True), steps_per_epoch=12, verbose=0)
    assert len(traces) <= 2


@pytest.mark.quick
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 8, "training": True}, "batch_size is 8; wanted at most 7"),
        ({"image_size": (0, 5)}, r"image_size=\(0, 5\): expected"),
        ({"image_size": None, "training": True}, "image_size is None"),
        ({"image_size": None}, "batch_size is 2 .*different sizes"),
        ({"seed": -1}, "seed is -1"),
        ({"initial_epoch": -1}, "initial_epoch is -1"),
        ({"transform": RandomHorizontalFlip()}, "transform is for training"),
    ],
)
def test_wrong_arguments_are_named(files, options, message):
    with pytest.raises(InputError, match=message):
        batches(files(objects()), **({"image_size": SIZE, "batch_size": 2} | options))


def test_crops_larger_than_every_image_are_refused(masked):
    with pytest.raises(InputError, match=r"crop_size 48 x 40 .*larger than every image; "):
        batches(masked, (48, 40), 2, training=True)
    batches(masked, (20, 40), 2, training=True, transform=RandomScaleCrop((20, 40)))
