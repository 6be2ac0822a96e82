import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, match_by_iou, sample_balanced

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import region_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "regions.npz")
pytestmark = pytest.mark.quick


def batch():
    """Boxes (3, 9, 4) and classes (3, 9), padded with class -1."""
    objects, anchors = given.matching()
    boxes, classes = np.full((3, 9, 4), -1, np.float32), np.full((3, 9), -1, np.int32)
    for i, rows in enumerate(objects):
        boxes[i, : len(rows)], classes[i, : len(rows)] = rows, np.arange(len(rows)) % 2
    return boxes, classes, anchors


@pytest.mark.parametrize("name", given.MATCHES)
def test_equal_to_torchvision(name):
    boxes, classes, anchors = batch()
    expected = RECORDED[f"match_{name}"]
    assert {-1, 0, 2} <= set(expected.reshape(-1))
    found = match_by_iou(boxes, classes, anchors, *given.MATCHES[name])
    np.testing.assert_array_equal(found, expected)
    every = np.repeat(anchors[None], 3, axis=0)
    compiled = tf.function(lambda *a: match_by_iou(*a, *given.MATCHES[name]), jit_compile=True)
    np.testing.assert_array_equal(compiled(boxes, classes, every), expected)


def test_ties_are_all_kept():
    anchors = [[0.0, 0, 4, 4], [4, 0, 8, 4], [20, 20, 30, 30], [40, 40, 50, 50]]
    boxes = [[[2.0, 0, 6, 4], [90, 90, 99, 99]]]  # between the first two; over none
    found = match_by_iou(boxes, [[3, 0]], anchors, 0.7, 0.3, allow_low_quality=True)
    assert found.numpy().tolist() == [[0, 0, -1, -1]]
    assert match_by_iou(boxes, [[3, 0]], anchors, 0.7, 0.3).numpy().tolist() == [[-2, -2, -1, -1]]


def test_padding_and_no_objects():
    anchors = [[0.0, 0, 4, 4], [4, 0, 8, 4]]
    boxes = np.array([[[0.0, 0, 4, 4]], [[0, 0, 4, 4]]], np.float32)
    found = match_by_iou(boxes, [[-1], [0]], anchors, 0.7, 0.3, True)
    assert found.numpy().tolist() == [[-1, -1], [0, -1]]
    found = match_by_iou(np.zeros((2, 0, 4)), np.zeros((2, 0)), anchors, 0.7, 0.3, True)
    assert found.numpy().tolist() == [[-1, -1], [-1, -1]]


def test_ignored_objects_and_invalid_anchors():
    anchors = [[0.0, 0, 4, 4], [4, 0, 8, 4], [7, 0, 11, 4], [40, 0, 44, 4], [0, 0, 4, 5]]
    boxes = [[[0.0, 0, 4, 4], [0, 0, 8.5, 4]]]
    found = match_by_iou(
        boxes, [[1, 1]], anchors, 0.7, 0.3, True,
        ignore=[[False, True]], valid=[[True, True, True, True, False]],
    )  # fmt: skip
    assert found.numpy().tolist() == [[0, -2, -1, -1, -2]]


def test_sampling_keeps_its_shares():
    match = np.full((3, 40), -1, np.int32)
    match[0, :20] = 5  # more than the share
    match[1, :3], match[1, 10:] = 0, -2  # few of each
    match[2] = -2
    index, drawn = sample_balanced(match, 16, 0.25, (1, 2))
    assert index.shape == drawn.shape == (3, 16)
    index, drawn = index.numpy(), drawn.numpy()
    kinds = np.take_along_axis(match, index, axis=1)
    assert drawn.sum(axis=1).tolist() == [16, 10, 0]
    assert (kinds[0] == 5).sum() == 4 and (kinds[0, :4] == 5).all()
    assert sorted(index[1][drawn[1]]) == list(range(10)) and drawn[1, :10].all()
    for row, kept in zip(index, drawn, strict=True):
        assert len(set(row[kept])) == kept.sum()


def test_sampling_by_its_seed_alone():
    match = np.where(np.arange(400) % 7, -1, 3)[None].astype(np.int32)
    draw = tf.function(lambda m, seed: sample_balanced(m, 64, 0.5, seed)[0])
    compiled = tf.function(lambda m, seed: sample_balanced(m, 64, 0.5, seed)[0], jit_compile=True)
    first = draw(match, (3, 4)).numpy()
    np.testing.assert_array_equal(sample_balanced(match, 64, 0.5, (3, 4))[0], first)
    np.testing.assert_array_equal(compiled(match, (3, 4)), first)
    assert (draw(match, (3, 5)).numpy() != first).any()
    times = np.zeros(400)
    for seed in range(300):
        times[draw(match, tf.constant([seed, 0])).numpy()] += 1
    positive = times[::7] / 300  # 32 of 58
    negative = times[np.arange(400) % 7 > 0] / 300  # 32 of 342
    assert abs(positive.mean() - 32 / 58) < 1e-6 and positive.min() > 0.4 and positive.max() < 0.7
    assert abs(negative.mean() - 32 / 342) < 1e-6 and negative.min() > 0.02


def test_sampling_more_than_there_are():
    index, drawn = sample_balanced([[0, -1, -2]], 8, 0.5, (0, 0))
    assert index.shape == (1, 8) and drawn.numpy().tolist() == [[True] * 2 + [False] * 6]
    assert index.numpy()[0, :2].tolist() == [0, 1]

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32)])
    def unknown(match):
        return sample_balanced(match, 8, 0.5, (0, 0))

    np.testing.assert_array_equal(unknown([[0, -1, -2]])[1], drawn)


def test_errors_name_the_argument():
    with pytest.raises(InputError, match="low="):
        match_by_iou(np.zeros((1, 1, 4)), [[0]], np.zeros((1, 4)), 0.3, 0.7)
    with pytest.raises(InputError, match="anchors must"):
        match_by_iou(np.zeros((1, 1, 4)), [[0]], np.zeros(4), 0.7, 0.3)
