"""Detection batches with SSD's augmentation and with mosaics."""

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import (
    DetectionSplit,
    InputError,
    detection_batches,
    generate_detection,
    mosaic_transform,
    ssd_transform,
)

SIZE = (48, 64)
OPTIONS = {
    "ssd": {"transform": ssd_transform(SIZE), "full_resolution": True},
    "mosaic": {"transform": mosaic_transform(SIZE), "full_resolution": True, "partners": 3},
}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Picture files of two sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    images, labels, sizes = [], [], []
    for seed, size in ((1, (60, 90)), (2, (100, 70))):
        part = generate_detection(6, 1, seed=seed, image_size=size).train
        for number, image in enumerate(part.images):
            images.append(str(folder / f"{seed}-{number}.jpg"))
            Image.fromarray(image).save(images[-1], quality=95)
        labels += part.labels
        sizes += [size] * 6
    return DetectionSplit(images, labels, images, np.array(sizes), np.full(12, True))


def batches(split, kind, count=4, **more):
    options = OPTIONS[kind] | {"training": True, "seed": 3} | more
    found = detection_batches(split, SIZE, 5, **options).take(count)
    return [(images.numpy(), labels.numpy()) for images, labels in found]


@pytest.mark.parametrize("kind", OPTIONS)
def test_batches_are_sound_and_resume(split, kind):
    found = batches(split, kind, 6)  # three batches an epoch
    rows = max(len(each) for each in split.labels) * (4 if kind == "mosaic" else 1)
    objects = 0
    for images, labels in found:
        assert images.shape[1:] == (*SIZE, 3) and labels.shape[1:] == (rows, 5)
        assert images.dtype == np.float32 and images.min() >= 0 and images.max() <= 255
        assert images.std() > 10
        there = labels[..., 0] >= 0
        assert (labels[~there] == -1).all()
        boxes = labels[there][:, 1:]
        assert (boxes >= 0).all() and (boxes <= 1).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        objects += len(boxes)
    assert objects > 10
    for again in (batches(split, kind, 3, initial_epoch=1), batches(split, kind, 6)[3:]):
        for one, two in zip(found[3:], again, strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])
    assert (found[0][0] != found[3][0]).any()


def test_half_of_the_examples_are_mosaics(split):
    labels = np.concatenate([rows for _, rows in batches(split, "mosaic", 24)])
    own = labels.shape[1] // 4
    several = (labels[:, own:, 0] >= 0).any(1)
    # A mosaic nearly always has an object of another picture; the others never have.
    assert 0.3 < several.mean() < 0.65


def test_partners_need_a_transform(split):
    with pytest.raises(InputError, match="partners are for a transform"):
        detection_batches(split, SIZE, 2, partners=3, training=True)
