import numpy as np
import pytest
import slow_boxes
import tensorflow as tf

from kerascv_d2l import InputError, vote_boxes
from kerascv_d2l.layers.dense_decoder import DenseDecoder

pytestmark = pytest.mark.quick
SIZE = (120, 200)
SIDES = np.float32([200, 120, 200, 120])


def predictions(seed=0, batch=2, classes=3):
    """Two levels of places, clusters of boxes in pixels of an image of 120 x 200, all inside."""
    rng = np.random.default_rng(seed)
    middles = rng.uniform((60, 45), (140, 75), (batch, 6, 2))
    low, high = middles - rng.uniform(10, 40, (batch, 6, 2)), middles + 30
    boxes = np.repeat(np.concatenate([low, high], -1), 8, axis=1) + rng.normal(0, 2, (batch, 48, 4))
    scores = rng.uniform(0, 1, (batch, 48, classes)).astype(np.float32)
    boxes = boxes.astype(np.float32)
    return [scores[:, :40], scores[:, 40:]], [boxes[:, :40], boxes[:, 40:]]


@pytest.mark.parametrize("voting", [None, 0.7])
def test_each_class_is_suppressed_alone_and_votes_alone(voting):
    scores, boxes = predictions()
    decoder = DenseDecoder(0.2, 0.6, max_detections=90, box_voting=voting)
    found = decoder(scores, boxes, tf.constant(SIZE))
    scores, boxes = np.concatenate(scores, 1), np.concatenate(boxes, 1) / SIDES
    for image in range(2):
        rows = []
        for kind in range(3):
            score = scores[image, :, kind]
            order = [i for i in np.argsort(-score) if score[i] > 0.2]
            kept = [order[i] for i in slow_boxes.nms(boxes[image][order], score[order], 0.6)]
            stand = boxes[image][kept]
            if voting:
                stand = vote_boxes(stand, boxes[image], score, voting).numpy()
            rows += [[kind, score[i], *box] for i, box in zip(kept, stand, strict=True)]
        expected = np.array(sorted(rows, key=lambda row: -row[1]))
        n = int(found["num_valid"][image])
        names = ("classes", "scores", "boxes")
        rows = np.column_stack([found[name][image][:n] for name in names])
        assert 5 < n < 90
        np.testing.assert_allclose(rows, expected, atol=2e-6)
        assert not np.any(found["boxes"][image][n:])


def test_voting_moves_boxes_and_nothing_else():
    scores, boxes = predictions()
    still, moved = (
        DenseDecoder(box_voting=voting)(scores, boxes, tf.constant(SIZE)) for voting in (None, 0.7)
    )
    for name in ("scores", "classes", "num_valid"):
        np.testing.assert_array_equal(still[name], moved[name])
    apart = np.abs(still["boxes"] - moved["boxes"]).max(-1)
    assert 0.001 < np.median(apart[apart > 0]) < 0.05 and (apart > 0).sum() > 20


@pytest.mark.parametrize("voting", [None, 0.7])
def test_what_has_no_area_in_the_image_is_no_detection(voting):
    outside, line, point = [-90, 30, -10, 90], [20, -30, 90, 0], [50, 50, 50, 50]
    boxes = np.float32([[outside, line, [150, 60, 260, 100], point]])
    scores = np.float32([[[0.9], [0.8], [0.6], [0.7]]])
    decoder = DenseDecoder(0.0, max_detections=5, box_voting=voting)
    found = decoder([scores], [boxes], tf.constant(SIZE))
    assert found["num_valid"].numpy().tolist() == [1]
    np.testing.assert_allclose(found["boxes"][0, 0], [0.75, 0.5, 1, 5 / 6], atol=1e-6)
    assert found["scores"][0].numpy().tolist() == [pytest.approx(0.6), 0, 0, 0, 0]


def test_config():
    config = DenseDecoder(0.2, 0.3, 7, 50, box_voting=0.8).get_config()
    assert DenseDecoder.from_config(config).get_config() == config
    assert config["box_voting"] == 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 2}, "score_threshold must lie in"),
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"box_voting": 0}, "box_voting must lie in"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        DenseDecoder(**options)
