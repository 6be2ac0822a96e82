"""Training at several scales: each batch has one of a list of sizes."""

import numpy as np
import pytest

from kerascv_d2l.data.batches import batches, sizes_around
from kerascv_d2l.data.generated import (
    generate_classification,
    generate_detection,
    generate_segmentation,
)
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation import Compose, RandomHorizontalFlip
from kerascv_d2l.ops.resize import resize

SIZES = np.array([[64, 96], [32, 64], [48, 32]])


@pytest.mark.parametrize(
    ("size", "multi_scale", "expected"),
    [
        (256, 0.25, [(320, 320), (288, 288), (256, 256), (224, 224), (192, 192)]),
        ((192, 384), 0.2, [(224, 448), (192, 416), (192, 384), (192, 352), (160, 320)]),
        (300, 0, [(300, 300)]),
        (32, 0.5, [(32, 32)]),
    ],
)
def test_sizes_around_one(size, multi_scale, expected):
    assert sizes_around(size, multi_scale).tolist() == [list(each) for each in expected]


def test_a_scale_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"multi_scale is 1; wanted at least 0 and less than 1"):
        sizes_around(256, 1)
    split = generate_detection(2, 2, image_size=(32, 32)).train
    with pytest.raises(InputError, match="sizes is for training"):
        batches(split, 32, 2, sizes=SIZES)


@pytest.mark.parametrize(
    "make", [generate_detection, generate_classification, generate_segmentation]
)
def test_batches_are_those_of_one_size_resized(make):
    """Images, targets and instance masks together; the sizes are those that a resumed run draws."""
    more = {"masks": True} if make is generate_detection else {}
    split = make(6, 2, image_size=(64, 96), **more).train
    options = {"training": True, "seed": 3, "masks": split.has_masks}
    options["transform"] = Compose([RandomHorizontalFlip()])
    plain = list(batches(split, (64, 96), 2, **options).take(12).as_numpy_iterator())
    made = list(batches(split, (64, 96), 2, sizes=SIZES, **options).take(12).as_numpy_iterator())
    seen = {images.shape[1:3] for images, _ in made}
    assert seen == {tuple(size) for size in SIZES}
    for (images, y), (other, wanted) in zip(made, plain, strict=True):
        size = images.shape[1:3]
        np.testing.assert_allclose(images, resize(other, size), atol=1e-3)
        # A new pixel has the class of the old one in which its centre lies.
        rows, columns = (
            np.floor((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip(size, (64, 96), strict=True)
        )
        if isinstance(y, dict):
            assert set(y) == set(wanted)
            for name in ("boxes", "classes", "ignore"):
                np.testing.assert_array_equal(y[name], wanted[name])
            masks = wanted["masks"][:, :, rows][:, :, :, columns]
            np.testing.assert_array_equal(y["masks"], masks)
        elif y.ndim == 3:
            np.testing.assert_array_equal(y, wanted[:, rows][:, :, columns])
        else:
            np.testing.assert_array_equal(y, wanted)
    resumed = batches(split, (64, 96), 2, sizes=SIZES, initial_epoch=2, **options).take(6)
    for (images, _), (expected, _) in zip(resumed.as_numpy_iterator(), made[6:], strict=True):
        np.testing.assert_array_equal(images, expected)
