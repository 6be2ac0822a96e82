import keras
import numpy as np
import pytest
import slow_boxes
import tensorflow as tf

from kerascv_d2l import (
    DetectionDecoder,
    InputError,
    multibox_detection,
    multibox_prior,
    offset_inverse,
)
from kerascv_d2l.layers.dense_decoder import DenseDecoder
from kerascv_d2l.layers.region_decoder import RegionDecoder
from kerascv_d2l.layers.set_decoder import SetDecoder
from kerascv_d2l.models.common import dtype_scope

pytestmark = pytest.mark.quick


def predictions(seed=0, batch=3, classes=2, inside=False):
    rng = np.random.default_rng(seed)
    anchors = multibox_prior(np.empty((1, 5, 6, 1)), [0.3, 0.5], [1, 2])
    if inside:  # of the image, so that clipping changes nothing
        anchors = 0.4 + 0.2 * anchors
    logits = rng.normal(0, 2, (batch, anchors.shape[1], classes + 1)).astype(np.float32)
    offsets = rng.normal(0, 0.5, (batch, 4 * anchors.shape[1])).astype(np.float32)
    return anchors, logits, offsets


def as_rows(found, image):
    n = int(found["num_valid"][image])
    return np.column_stack([found[k][image][:n] for k in ("classes", "scores", "boxes")])


def test_equals_the_book_s_detection_where_both_have_a_say():
    anchors, logits, offsets = predictions(inside=True)
    decoder = DetectionDecoder(score_threshold=0.4, nms_threshold=0.45, max_detections=200)
    found = decoder(anchors, logits, offsets)
    probabilities = tf.transpose(tf.nn.softmax(logits), [0, 2, 1])
    whole = multibox_detection(probabilities, offsets, anchors, 0.45, 0.4).numpy()
    for image in range(3):
        expected = whole[image][whole[image][:, 0] >= 0]
        assert 5 < len(expected) < 100
        np.testing.assert_allclose(as_rows(found, image), expected, atol=1e-6)


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_boxes_are_clipped_then_dropped_then_suppressed(class_agnostic):
    """Against a plain loop, with boxes over the border and outside of the image."""
    anchors, logits, offsets = predictions(seed=1)
    offsets *= 6
    decoder = DetectionDecoder(0.2, 0.4, 200, 1000, class_agnostic)
    found = decoder(anchors, logits, offsets)
    boxes = offset_inverse(anchors, offsets.reshape(3, -1, 4)).numpy()
    clipped = np.clip(boxes, 0, 1)
    has_area = (clipped[..., 2:] > clipped[..., :2]).all(-1)  # (batch, anchors)
    assert (~has_area).sum() > 2 and (boxes != clipped).any(-1)[has_area].sum() > 20
    scores = tf.nn.softmax(logits).numpy()[..., 1:]  # (batch, anchors, classes)
    for image in range(3):
        rows = []
        if class_agnostic:
            groups = [(scores[image].max(1), scores[image].argmax(1))]
        else:
            groups = [(scores[image, :, k], np.full(scores.shape[1], k)) for k in range(2)]
        for score, classes in groups:
            order = [i for i in np.argsort(-score) if has_area[image, i] and score[i] > 0.2]
            for i in slow_boxes.nms(clipped[image][order], score[order], 0.4):
                i = order[i]
                rows.append([classes[i], score[i], *clipped[image, i]])
        expected = np.array(sorted(rows, key=lambda row: -row[1]))
        np.testing.assert_allclose(as_rows(found, image), expected, atol=1e-6)


def test_a_box_outside_of_the_image_is_no_detection():
    anchors = np.float32([[[-0.5, 0.4, -0.1, 0.6], [0.2, 0.4, 0.5, 0.6]]])
    logits = np.float32([[[0, 3], [0, 2]]])
    for class_agnostic in (True, False):
        decoder = DetectionDecoder(0.0, class_agnostic=class_agnostic)
        found = decoder(anchors, logits, np.zeros((1, 8)))
        assert found["num_valid"].numpy().tolist() == [1]
        np.testing.assert_allclose(found["boxes"][0, 0], anchors[0, 1], atol=1e-6)


def test_padding():
    anchors, logits, offsets = predictions()
    logits[1, :, 0] = 50  # nothing but background in the second image
    found = DetectionDecoder(score_threshold=0.3, max_detections=150)(anchors, logits, offsets)
    assert found["num_valid"].numpy()[1] == 0 < found["num_valid"].numpy()[0] < 150
    valid = np.arange(150) < found["num_valid"].numpy()[:, None]
    np.testing.assert_array_equal(found["classes"].numpy() == -1, ~valid)
    assert not np.any(found["scores"].numpy()[~valid])
    assert not np.any(found["boxes"].numpy()[~valid])


def test_at_most_max_detections_the_best_ones():
    anchors, logits, offsets = predictions()
    many = DetectionDecoder(max_detections=150)(anchors, logits, offsets)
    few = DetectionDecoder(max_detections=4)(anchors, logits, offsets)
    np.testing.assert_array_equal(few["scores"], many["scores"][:, :4])
    assert few["num_valid"].numpy().tolist() == [4, 4, 4]
    assert np.all(np.diff(few["scores"], axis=1) <= 0)


def test_candidates_are_cut_before_the_suppression():
    """Two best candidates on one place: with no third to come in, one detection is left."""
    anchors = np.array([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]], np.float32)
    logits = np.log(np.array([[[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]], np.float32))
    found = DetectionDecoder(max_candidates=2)(anchors, logits, np.zeros((1, 12)))
    assert found["num_valid"].numpy().tolist() == [1]
    np.testing.assert_allclose(found["scores"][0, 0], 0.9, rtol=1e-6)


def test_an_object_is_found_behind_many_candidates_of_better_ones():
    """900 candidates on other places are better; the default leaves room for it."""
    anchors = np.repeat(np.float32([[[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]]]), [900, 1], axis=1)
    logits = np.zeros((1, 901, 2), np.float32)
    logits[..., 1] = np.r_[np.linspace(2, 3, 900), 1]
    found = DetectionDecoder()(anchors, logits, np.zeros((1, 4 * 901)))
    assert found["num_valid"].numpy().tolist() == [2]
    np.testing.assert_allclose(found["boxes"][0, 1], anchors[0, -1], atol=1e-6)


ONE_PLACE = np.tile(np.float32([[0.2, 0.1, 0.6, 0.5]]), (1, 2, 1))
TWO_CLASSES = np.log(np.array([[[0.1, 0.5, 0.4], [0.2, 0.2, 0.6]]], np.float32))


def test_classes_suppress_each_other_or_not():
    agnostic = DetectionDecoder()(ONE_PLACE, TWO_CLASSES, np.zeros((1, 8)))
    assert as_rows(agnostic, 0)[:, :2].round(3).tolist() == [[1, 0.6]]
    per_class = DetectionDecoder(class_agnostic=False)(ONE_PLACE, TWO_CLASSES, np.zeros((1, 8)))
    # An anchor may speak for every class; within a class the better one stands.
    np.testing.assert_allclose(as_rows(per_class, 0)[:, :2], [[1, 0.6], [0, 0.5]], rtol=1e-5)
    np.testing.assert_allclose(per_class["boxes"][0, :2], ONE_PLACE[0], atol=1e-6)


def test_per_class_equals_each_class_alone():
    anchors, logits, offsets = predictions(classes=5)
    probabilities = tf.nn.softmax(logits).numpy()
    # 0.37 is no IoU of anchors on a grid, where rounding would decide.
    inside = np.clip(anchors, 0.05, 0.95).astype(np.float32)  # clipping has nothing to do
    decoder = DetectionDecoder(0.2, 0.37, 300, 1000, class_agnostic=False)
    found = decoder(inside, logits, 0 * offsets)
    for image in range(3):
        rows = as_rows(found, image)
        for kind in range(5):
            score = probabilities[image, :, kind + 1]
            alone = tf.image.non_max_suppression(inside[0], score, 300, 0.37, 0.2)
            np.testing.assert_allclose(rows[rows[:, 0] == kind, 1], score[alone], rtol=1e-6)


def test_soft_suppression_lowers_scores():
    anchors = np.array([[[0, 0, 0.8, 0.8], [0, 0, 0.8, 0.4], [0.9, 0.9, 1, 1]]], np.float32)
    logits = np.log(np.array([[[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]], np.float32))
    found = DetectionDecoder(soft_nms_sigma=0.5)(anchors, logits, np.zeros((1, 12)))
    # IoU 1/2 with the best: 0.8 · exp(-0.25/0.5), now behind the third.
    expected = [0.9, 0.7, 0.8 * np.exp(-0.5)]
    np.testing.assert_allclose(found["scores"][0, :3], expected, rtol=1e-5)


def test_one_image_gives_what_it_gives_in_a_batch():
    anchors, logits, offsets = predictions()
    decoder = DetectionDecoder(class_agnostic=False, soft_nms_sigma=0.3)
    together = decoder(anchors, logits, offsets)
    alone = decoder(anchors, logits[1:2], offsets[1:2])
    for name, value in alone.items():
        np.testing.assert_array_equal(value[0], together[name][1], name)


ONE_BOX = np.float32([[[0.9013, 0.1017, 0.9421, 0.2033]]])
PIXELS = np.array([1, 1])
SCORE, LOGITS = np.float32([[[0.7]]]), np.float32([[[0, 1]]])


@pytest.mark.parametrize(
    ("decoder", "inputs"),
    [
        (DetectionDecoder, (ONE_BOX, LOGITS, np.zeros((1, 4)))),
        (DenseDecoder, ([SCORE], [ONE_BOX], PIXELS)),
        (RegionDecoder, (ONE_BOX, SCORE[..., 0] > 0, LOGITS, np.zeros((1, 1, 2, 4)), PIXELS)),
        (SetDecoder, (SCORE, ONE_BOX)),
    ],
)
def test_mixed_precision_rounds_no_coordinate(decoder, inputs):
    """However a decoder is made, and after a config with another policy is loaded."""
    config = decoder().get_config() | {"dtype": "mixed_bfloat16"}
    with dtype_scope("mixed_bfloat16"):
        decoders = [decoder(), decoder(dtype="mixed_bfloat16"), decoder.from_config(config)]
    for made in decoders:
        found = made(*inputs)
        assert found["num_valid"].numpy().tolist() == [1]
        np.testing.assert_allclose(found["boxes"][0, :1], ONE_BOX[0], atol=1e-6)


def test_config_and_symbolic_use():
    decoder = DetectionDecoder(0.2, 0.3, 7, 50, class_agnostic=False, soft_nms_sigma=0.1)
    again = DetectionDecoder.from_config(decoder.get_config())
    assert again.get_config() == decoder.get_config()
    anchors, logits, offsets = predictions()
    inputs = [keras.Input(batch_shape=x.shape) for x in (anchors, logits, offsets)]
    model = keras.Model(inputs, decoder(*inputs))
    found = model([tf.constant(x) for x in (anchors, logits, offsets)])
    for name, value in decoder(anchors, logits, offsets).items():
        np.testing.assert_array_equal(found[name], value)
        assert model.output[name].shape == value.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 2}, "score_threshold must lie in"),
        ({"nms_threshold": -0.1}, "nms_threshold must lie in"),
        ({"max_detections": 0}, "max_detections must be a whole number"),
        ({"max_candidates": 2.5}, "max_candidates must be a whole number"),
        ({"soft_nms_sigma": -1}, "soft_nms_sigma must be 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        DetectionDecoder(**options)
