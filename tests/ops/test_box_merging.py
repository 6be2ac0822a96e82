"""Merging boxes, against a loop over pairs."""

import numpy as np
import pytest

from kerascv_d2l import InputError, box_iou, merge_boxes, vote_boxes

pytestmark = pytest.mark.quick


def slow_merge(boxes, scores, threshold):
    boxes, scores, counts = [*boxes], [*scores], [1] * len(boxes)
    while len(boxes) > 1:
        best = (np.inf, 0, 0)
        for i in range(len(boxes)):
            for j in range(i + 1, len(boxes)):
                a, b = boxes[i], boxes[j]
                away = np.linalg.norm((a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2)
                away /= np.mean([a[2:] - a[:2], b[2:] - b[:2]])
                away += 1 - float(box_iou(a[None], b[None])[0, 0])
                best = min(best, (away, i, j))
        away, i, j = best
        if away > threshold:
            break
        boxes[i] = (boxes[i] + boxes.pop(j)) / 2
        scores[i] += scores.pop(j)
        counts[i] += counts.pop(j)
    order = np.argsort(-np.array(scores), kind="stable")
    return [np.array(part)[order] for part in (boxes, scores, counts)]


@pytest.mark.parametrize("threshold", [0.3, 0.7, 5.0])
def test_merging_is_a_loop_over_pairs(threshold):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.7, (14, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.3, (14, 2))], 1).astype(np.float32)
    scores = rng.uniform(0.5, 1, 14).astype(np.float32)
    wanted = slow_merge(boxes, scores, threshold)
    for found, value in zip(merge_boxes(boxes, scores, threshold), wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5)
    assert wanted[2].sum() == 14 and (threshold < 5) == (len(wanted[0]) > 1)


def test_one_and_none():
    box = np.float32([[0, 0, 0.5, 0.5]])
    boxes, scores, counts = merge_boxes(box, np.float32([0.7]))
    np.testing.assert_array_equal(boxes, box)
    assert scores.numpy().tolist() == [np.float32(0.7)] and counts.numpy().tolist() == [1]
    assert merge_boxes(box[:0], np.zeros(0, np.float32))[0].shape == (0, 4)


def test_voting_is_a_mean_by_squared_scores_of_the_boxes_around():
    rng = np.random.default_rng(1)
    kept = np.float32([[0.1, 0.2, 0.5, 0.6], [0.5, 0.1, 0.9, 0.8], [0.3, 0.3, 0.3, 0.6]])
    boxes = np.stack([kept, kept[::-1]])  # (2, 3, 4); the box without area overlaps nothing
    candidates = np.repeat(boxes, 5, axis=1) + rng.normal(0, 0.02, (2, 15, 4)).astype(np.float32)
    scores = rng.uniform(-0.2, 1, (2, 15)).astype(np.float32)
    voted = vote_boxes(boxes, candidates, scores, 0.8).numpy()
    said = []
    for image in range(2):
        for box, found in zip(boxes[image], voted[image], strict=True):
            total, weights = np.zeros(4), 0.0
            for candidate, score in zip(candidates[image], scores[image], strict=True):
                if float(box_iou(box[None], candidate[None])[0, 0]) >= 0.8 and score > 0:
                    total, weights = total + score**2 * candidate, weights + score**2
            np.testing.assert_allclose(found, total / weights if weights else box, rtol=1e-5)
            said.append(weights > 0)
    assert said == [True, True, False, False, True, True] and np.any(scores < 0)


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_a_threshold_of_voting_out_of_range(threshold):
    box = np.float32([[0, 0, 0.5, 0.5]])
    with pytest.raises(InputError, match=r"iou_threshold must lie in \(0, 1\]; got"):
        vote_boxes(box, box, [1.0], threshold)
