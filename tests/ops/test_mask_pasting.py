import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, paste_masks, roi_align
from kerascv_d2l.ops.mask_pasting import crop_masks, paste_detections

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


def test_crops_are_regions_of_single_masks_and_pasted_back_they_are_the_masks():
    random = np.random.RandomState(1)
    masks = (random.uniform(size=(2, 3, 30, 41)) > 0.5).astype(np.uint8)
    images, rows = random.randint(0, 2, 37), random.randint(0, 3, 37)
    low = random.uniform(-5, 25, (37, 2))
    boxes = np.concatenate([low, low + random.uniform(-1, 20, (37, 2))], axis=1).astype("f4")
    found = tf.function(crop_masks, autograph=False)(masks, images, rows, boxes, 7)
    flat = masks.reshape(6, 30, 41, 1).astype(np.float32)
    expected = roi_align(flat, boxes, images * 3 + rows, 7, sampling_ratio=0)[..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert crop_masks(masks, images[:0], rows[:0], boxes[:0], 7).shape == (0, 7, 7)

    masks = np.zeros((2, 20, 24, 30), np.uint8)
    masks[:, :, 4:20, 3:27] = random.uniform(size=(2, 20, 4, 6)).repeat(4, 2).repeat(4, 3) > 0.5
    whole = np.tile(np.float32([3, 4, 27, 20]), (40, 1))
    images, rows = np.repeat([0, 1], 20), np.tile(np.arange(20), 2)
    # Without half a pixel, as torchvision cuts: cells are read half a pixel further down right.
    small = crop_masks(masks, images, rows, whole - 0.5, 24)
    pasted = paste_detections(
        tf.reshape(small, (2, 20, 24, 24)),
        tf.reshape(whole, (2, 20, 4)) / [30, 24, 30, 24],
        (24, 30),
    )
    assert pasted.dtype == tf.uint8
    assert (pasted.numpy() != masks).mean() < 0.02
