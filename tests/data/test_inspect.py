"""Planted faults are found, each with its number, and a sound data set has none."""

import io

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import DataSet, Split, generate_classification, generate_detection
from kerascv_d2l.data.inspect import find_problems, summarize

pytestmark = pytest.mark.quick
GOOD = {"num_classes": 2, "image_size": (64, 80), "seed": 3}


@pytest.fixture(scope="module")
def sound():
    return generate_classification(60, 20, **GOOD)


def encoded(image, quality, size=None, brightness=1.0):
    photo = Image.fromarray((image * brightness).astype(np.uint8))
    stream = io.BytesIO()
    (photo.resize(size) if size else photo).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def test_a_sound_data_set_has_no_problems(sound):
    assert find_problems(sound) == []
    found = summarize(sound)
    assert list(found) == ["train", "val"] and found["train"]["ignored"] == 0
    counts = np.bincount(sound.train.targets["label"]).tolist()
    assert found["train"] == {
        "images": 60,
        "ignored": 0,
        "images_by_class": {"star": counts[0], "ring": counts[1]},
    }


def test_copies_between_splits(sound):
    """Saved anew, smaller, darker: still the same images; others are not."""
    whole = sound.train.images
    copies = [
        encoded(whole[7], 60),
        encoded(whole[9], 90, (50, 40)),
        encoded(whole[5], 80, None, 0.8),
    ]
    images = copies + [encoded(image, 90) for image in sound.val.images]
    labels = [*sound.train.targets["label"][[7, 9, 5]], *sound.val.targets["label"]]
    names = [f"{k}.jpg" for k in range(len(images))]
    sizes = np.tile([64, 80], (len(images), 1))
    val = Split(images, {"label": labels}, names, sizes)
    (problem,) = find_problems(DataSet(sound.class_names, sound.train, val, "here"))
    assert "3 of 23 val images are nearly the same as train images" in problem
    for text in ("0.jpg = generated-7", "1.jpg = generated-9", "2.jpg = generated-5"):
        assert text in problem


@pytest.mark.parametrize("kind", ["grey of 16 bits", "transparent"])
def test_sees_the_pixels_that_training_sees(kind):
    """All dark in their highest byte, or all of one colour."""
    draw = np.random.default_rng(0)

    def make():
        stream = io.BytesIO()
        pixels = draw.integers(0, 256, (4, 5), np.uint8).repeat(8, 0).repeat(8, 1)
        if kind == "transparent":
            pixels = np.dstack([np.full((*pixels.shape, 3), 40, np.uint8), pixels])
            Image.fromarray(pixels).save(stream, "PNG")
        else:
            Image.fromarray(256 + 200 * pixels.astype(np.uint16)).save(stream, "PNG")
        return stream.getvalue()

    train = [make() for _ in range(12)]
    val = [train[3], *(make() for _ in range(5)), train[8]]
    splits = [
        Split(images, {}, [f"{k}.png" for k in range(len(images))], [[32, 40]] * len(images))
        for images in (train, val)
    ]
    data = DataSet([], *splits, "here")
    assert "class" not in data.describe()  # there are none
    (problem,) = find_problems(data)
    assert "2 of 7 val images" in problem
    assert "0.png = 3.png" in problem and "6.png = 8.png" in problem


def boxes_on(images, boxes, classes, **more):
    count = len(boxes)
    return Split(
        images[:count], {"boxes": boxes, "classes": classes} | more, [f"i{k}" for k in range(count)]
    )


def test_faults_of_boxes():
    scenes = generate_detection(22, 3, **GOOD)
    images = scenes.train.images
    usual = [[0.1, 0.2, 0.5, 0.6]]
    boxes = [usual] * 19 + [
        [[0.5, 0.5, 0.52, 0.52]],  # 1.6 x 1.28 pixels of the image
        [[0.0, 0.0, 1.0, 1.0]],
        [*usual, [0.1, 0.2, 0.5, 0.605], [0.6, 0.6, 0.9, 0.9]],
    ]
    classes = [[0]] * 21 + [[0, 1, 0]]
    train = boxes_on(images, boxes, classes)
    val = boxes_on(scenes.val.images, [usual] * 3, [[0]] * 3)
    data = DataSet(("cat", "dog", "yak"), train, val, "here")
    none, rare, absent, unbalanced, small, large, shared = find_problems(data, (128, 128))
    assert none.startswith("1 of 3 classes have no object to train on: yak.")
    assert rare.startswith("1 of 3 classes have fewer than 10 objects to train on: dog (1)")
    assert absent.startswith("2 of 3 classes are on no val image") and "dog, yak" in absent
    assert unbalanced.startswith("unbalanced classes: 23 objects of cat and 1 of dog")
    assert small.startswith("1 of 27 objects are smaller than 8 pixels") and "128 x 128" in small
    assert large.startswith("1 of 27 objects are larger than the largest anchor (96% of the image)")
    assert (
        shared.startswith("1 pairs of the 27 objects share one box")
        and "i21 (cat and dog)" in shared
    )
    # Nothing of this is said of ignored objects.
    ignored = [np.ones(len(rows), bool) for rows in classes]
    ignored[:18] = [[False]] * 18
    train = boxes_on(images, boxes, classes, ignore=ignored)
    problems = find_problems(DataSet(("cat",) + ("dog",), train, val, "here"))
    assert [p.split(" ")[0] for p in problems] == ["1", "1"]  # dog is rare, and on no val image
    assert summarize(DataSet(("cat", "dog"), train, val, "here"))["train"] == {
        "images": 22,
        "ignored": 6,
        "with_masks": 0,
        "objects_by_class": {"cat": 18, "dog": 0},
    }


def test_pixels():
    masks = np.zeros((12, 8, 8), np.uint8)
    masks[:, 0, 0] = 1
    masks[:3, 4] = 255
    rng = np.random.default_rng(0)

    def split(seed, masks):
        images = np.repeat(np.repeat(rng.integers(0, 255, (12, 8, 8, 3)), 8, 1), 8, 2)
        masks = np.repeat(np.repeat(masks, 8, 1), 8, 2)
        return Split(images.astype(np.uint8), {"mask": masks}, [str(k) for k in range(12)])

    data = DataSet(("sky", "sun"), split(0, masks), split(1, masks * 0), "here")
    absent, unbalanced = find_problems(data)
    assert absent.startswith("1 of 2 classes are on no val image") and "sun" in absent
    assert "pixels of sky and 768 of sun" in unbalanced
    assert summarize(data)["train"]["ignored"] == 3 * 8 * 64
    assert summarize(data)["val"]["pixels_by_class"] == {"sky": 12 * 64 * 64, "sun": 0}


def test_mirrored_copies_and_images_in_two_classes(sound):
    """A mirror image in the other split; the same photograph in two classes of one split."""
    images = [encoded(image, 90) for image in sound.train.images]
    labels = sound.train.targets["label"].copy()
    images[4] = encoded(sound.train.images[8], 50, (70, 60))
    labels[[4, 8]] = 1, 0
    flipped = [encoded(image, 90) for image in sound.val.images]
    flipped[2] = encoded(sound.train.images[11][:, ::-1], 80)
    size = np.array([[64, 80]])

    def split(title, images, labels):
        names = [f"{title}{k}.jpg" for k in range(len(images))]
        return Split(images, {"label": labels}, names, np.repeat(size, len(images), 0))

    val_labels = sound.val.targets["label"].copy()
    val_labels[2] = labels[11]
    data = DataSet(
        sound.class_names, split("a", images, labels), split("b", flipped, val_labels), "here"
    )
    copies, two = find_problems(data)
    assert copies.startswith("1 of 20 val images") and ": b2.jpg = a11.jpg mirrored." in copies
    assert two.startswith("1 pairs of the 80 images are nearly the same, but of two classes: train")
    assert "train/a8.jpg (star) = train/a4.jpg (ring)" in two
