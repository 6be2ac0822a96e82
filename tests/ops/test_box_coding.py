import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, decode_boxes, encode_boxes, offset_boxes

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import region_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "regions.npz")
pytestmark = pytest.mark.quick


def test_equal_to_torchvision():
    boxes, anchors, offsets = given.boxes(12, 1), given.boxes(12, 2), given.offsets(12, 3)
    for i, weights in enumerate(given.WEIGHTS):
        found = encode_boxes(boxes, anchors, weights)
        np.testing.assert_allclose(found, RECORDED[f"encoded_{i}"], rtol=1e-5, atol=1e-5)
        found = decode_boxes(offsets.reshape(12, 3, 4), anchors[:, None], weights)
        np.testing.assert_allclose(found, RECORDED[f"decoded_{i}"], rtol=1e-5, atol=1e-4)


def test_decoding_undoes_encoding_for_a_batch():
    boxes, anchors = given.boxes(12, 1).reshape(2, 6, 4), given.boxes(6, 2)
    code = tf.function(lambda b, a: decode_boxes(encode_boxes(b, a), a), jit_compile=True)
    np.testing.assert_allclose(code(boxes, anchors), boxes, atol=1e-3)


def test_the_book_s_offsets_are_the_same():
    boxes, anchors = given.boxes(5, 1), given.boxes(5, 2)
    found = encode_boxes(boxes, anchors, (10, 10, 5, 5))
    np.testing.assert_allclose(found, offset_boxes(anchors, boxes, eps=0), rtol=1e-4, atol=1e-4)


def test_padding_rows_have_no_offsets():
    solid, padding = [2.0, 3, 9, 5], [-1.0, -1, -1, -1]
    found = encode_boxes([padding, solid, solid], [solid, padding, solid])
    np.testing.assert_array_equal(found, np.zeros((3, 4)))


def test_errors_name_the_argument():
    with pytest.raises(InputError, match="anchors must"):
        encode_boxes([[0.0, 0, 1, 1]], [[0.0, 1, 1]])
    with pytest.raises(InputError, match="offsets must"):
        decode_boxes(np.zeros((2, 8)), np.zeros((2, 4)))
