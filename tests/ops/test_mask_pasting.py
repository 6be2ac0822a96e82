import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, paste_masks

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import roi_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "roi.npz")
pytestmark = pytest.mark.quick


def test_equal_to_detectron_and_torchvision():
    masks, boxes, size = given.masks()
    np.testing.assert_allclose(paste_masks(masks, boxes, size), RECORDED["pasted"], atol=1e-5)
    found = paste_masks(masks, boxes, size, truncate=True)
    np.testing.assert_allclose(found, RECORDED["pasted_truncated"], atol=1e-5)


def test_whole_cells_come_back_as_they_were():
    mask = np.random.RandomState(0).uniform(size=(1, 3, 5)).astype(np.float32)
    pasted = paste_masks(mask, [[2.0, 1, 7, 4]], (6, 9)).numpy()
    np.testing.assert_allclose(pasted[0, 1:4, 2:7], mask[0], atol=1e-6)
    pasted[0, 1:4, 2:7] = 0
    assert not pasted.any()


def test_threshold_and_boxes_without_area():
    masks = np.ones((4, 2, 3), np.float32)
    boxes = [[2.0, 1, 5, 4], [3, 3, 3, 5], [5, 4, 2, 1], [20, 20, 30, 30]]
    for truncate in (False, True):
        pasted = paste_masks(masks, boxes, (6, 7), threshold=0.5, truncate=truncate).numpy()
        assert pasted.dtype == bool
        assert not pasted[1:].any()
        assert pasted[0, 2, 3] and not pasted[0, :, 6].any()


def test_any_number_in_a_graph_and_under_xla():
    masks, boxes, size = given.masks()
    expected = paste_masks(masks, boxes, size)
    signature = [tf.TensorSpec((None, 7, 7)), tf.TensorSpec((None, 4)), tf.TensorSpec(2, tf.int32)]
    graph = tf.function(lambda m, b, s: paste_masks(m, b, (s[0], s[1])), input_signature=signature)
    for count in (0, 3, 8):
        np.testing.assert_allclose(
            graph(masks[:count], boxes[:count], size), expected[:count], atol=1e-6
        )
    compiled = tf.function(lambda m, b: paste_masks(m, b, size), jit_compile=True)
    np.testing.assert_allclose(compiled(masks, boxes), expected, atol=1e-5)


def test_errors_name_the_argument():
    with pytest.raises(InputError, match="masks must"):
        paste_masks(np.ones((2, 3), np.float32), [[0.0, 0, 1, 1]], (4, 4))
