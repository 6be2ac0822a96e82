import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, pyramid_anchors

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import region_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "regions.npz")
pytestmark = pytest.mark.quick


def test_equal_to_torchvision():
    for name, sizes in given.ANCHOR_SIZES.items():
        levels = pyramid_anchors(given.IMAGE_SIZE, given.MAP_SIZES, sizes)
        assert [len(level) for level in levels] == [
            h * w * 3 * len(s) for (h, w), s in zip(given.MAP_SIZES, sizes, strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(levels), RECORDED[f"anchors_{name}"])


def test_sizes_known_only_at_run_time():
    @tf.function(input_signature=[tf.TensorSpec(2, tf.int32), tf.TensorSpec((3, 2), tf.int32)])
    def place(image, maps):
        sizes = [(maps[i, 0], maps[i, 1]) for i in range(3)]
        levels = pyramid_anchors((image[0], image[1]), sizes, given.ANCHOR_SIZES["rpn"])
        return tf.concat(levels, axis=0)

    found = place(given.IMAGE_SIZE, given.MAP_SIZES)
    np.testing.assert_array_equal(found, RECORDED["anchors_rpn"])


def test_the_first_anchors():
    (anchors,) = pyramid_anchors((64, 96), [(4, 6)], [(32,)])
    assert anchors[:3].numpy().tolist() == [
        [-23, -11, 23, 11],
        [-16, -16, 16, 16],
        [-11, -23, 11, 23],
    ]
    np.testing.assert_array_equal(anchors[3] - anchors[0], [16, 0, 16, 0])


def test_errors_name_the_argument():
    with pytest.raises(InputError, match="sizes="):
        pyramid_anchors((64, 64), [(4, 4), (2, 2)], [(32,)])
    with pytest.raises(InputError, match="ratios must"):
        pyramid_anchors((64, 64), [(4, 4)], [(32,)], (1, 0))
