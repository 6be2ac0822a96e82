"""Batches of small pictures, augmented at once, against one picture after the other."""

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import ClassificationSplit, InputError, cifar10_batches
from kerascv_d2l.pipelines import augmentation
from kerascv_d2l.pipelines.cifar10 import AUGMENTATIONS, crop, flip, mirror, pad_and_crop

pytestmark = pytest.mark.quick
SIZE = (9, 12)  # height, width


def split(count=37):
    images = np.random.default_rng(3).integers(1, 256, (count, *SIZE, 3)).astype(np.uint8)
    return ClassificationSplit(images, np.arange(count), [str(k) for k in range(count)])


def test_mirror_and_crop_do_what_the_draw_says():
    images = split(5).images
    mirrored = np.array([True, False, True, True, False])
    corners = np.array([[0, 0], [8, 8], [4, 4], [1, 6], [7, 2]], np.int32)
    flipped = mirror(tf.constant(images), mirrored)
    moved = tf.function(pad_and_crop)(tf.constant(images), tf.constant(corners))
    assert flipped.dtype == tf.uint8 and moved.dtype == tf.uint8
    for k, image in enumerate(images):
        np.testing.assert_array_equal(flipped[k], image[:, ::-1] if mirrored[k] else image)
        padded = np.zeros((SIZE[0] + 8, SIZE[1] + 8, 3), np.uint8)
        padded[4:-4, 4:-4] = image
        top, left = corners[k]
        window = padded[top : top + SIZE[0], left : left + SIZE[1]]
        np.testing.assert_array_equal(moved[k], window)
    np.testing.assert_array_equal(moved[2], images[2])  # in the middle: nothing happens


def test_draws_of_a_batch():
    """Half are mirrored; every window is as likely; equal seeds give equal draws."""
    image = np.zeros((4, 4, 1), np.uint8)
    image[1, 0] = 1
    images = tf.constant(np.repeat(image[None], 8100, axis=0))
    flipped = flip(images, (1, 2)).numpy()[:, 1, 3, 0]
    assert abs(flipped.mean() - 0.5) < 0.02
    assert not np.array_equal(flipped, flip(images, (1, 3)).numpy()[:, 1, 3, 0])
    np.testing.assert_array_equal(flipped, flip(images, (1, 2)).numpy()[:, 1, 3, 0])
    # One pixel on, padded by one: where it comes out says which of the 9 windows it was.
    dot = np.zeros((3, 3, 1), np.uint8)
    dot[1, 1] = 1
    moved = crop(tf.constant(np.repeat(dot[None], 8100, axis=0)), (5, 6), padding=1).numpy()
    counts = moved.sum(axis=0, dtype=int)[..., 0]
    assert counts.sum() == 8100 and abs(counts - 900).max() < 150


@pytest.mark.parametrize("augment", ["none", "flip", "crop-flip"])
def test_training_batches(augment):
    data = split()
    first = list(cifar10_batches(data, 8, training=True, augment=augment, seed=5).take(10))
    assert [len(labels) for _, labels in first] == [8, 8, 8, 8, 5] * 2
    epochs = [np.concatenate([labels for _, labels in part]) for part in (first[:5], first[5:])]
    for labels in epochs:
        assert sorted(labels) == list(range(37))
    assert epochs[0].tolist() != epochs[1].tolist()
    changed = 0
    for images, labels in first:
        assert images.dtype == tf.uint8 and images.shape[1:] == (*SIZE, 3)
        for image, label in zip(images.numpy(), labels, strict=True):
            original = data.images[label]
            changed += not np.array_equal(image, original)
            if augment == "flip":
                assert any(np.array_equal(image, o) for o in (original, original[:, ::-1]))
            elif augment == "crop-flip":  # every pixel comes from the picture, or is padding
                assert np.isin(image, np.append(original, 0)).all()
    shares = {"none": (0, 0), "flip": (0.25, 0.75), "crop-flip": (0.9, 1)}
    assert shares[augment][0] <= changed / 74 <= shares[augment][1]
    # A run that goes on at the second epoch gets what an undisturbed one gets there.
    resumed = cifar10_batches(
        data, 8, training=True, augment=augment, seed=5, initial_epoch=1
    ).take(5)
    for (a, b), (c, d) in zip(first[5:], resumed, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_an_epoch_has_draws_of_its_own():
    """The same pictures in the same order would otherwise be mirrored the same way for ever."""
    data = split(1)
    seen = {
        images.numpy().tobytes()
        for images, _ in cifar10_batches(data, 1, training=True, augment="flip").take(12)
    }
    assert len(seen) == 2


def test_one_pass_in_order_untouched():
    data = split()
    batches = list(cifar10_batches(data, 8, augment="crop-flip"))
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), data.images)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), data.labels)


def test_names():
    assert augmentation("none") is None
    with pytest.raises(InputError, match="augment is 'flop'; wanted one of none, flip"):
        augmentation("flop")


@pytest.mark.parametrize("augment", ["color", "all"])
def test_color(augment):
    pytest.importorskip("kerascv_d2l.layers.augmentation")
    assert augment in AUGMENTATIONS
    data = split(16)
    images, labels = next(iter(cifar10_batches(data, 16, training=True, augment=augment)))
    assert images.shape == (16, *SIZE, 3)
    pixels = images.numpy().astype(float)
    assert pixels.min() >= 0 and pixels.max() <= 255
    assert np.abs(pixels - data.images[labels.numpy()]).mean() > 5
