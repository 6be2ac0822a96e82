import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, SSDLoss, offset_inverse, smooth_l1
from kerascv_d2l.losses.detection import class_losses, hard_negatives, mean_over_replicas

pytestmark = pytest.mark.quick

# Two images of three anchors, two classes. In the second image nothing is to be found.
CLASSES = np.array([[0, 2, 0], [0, 0, 0]])
LOGITS = np.log(
    np.array(
        [
            [[0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [0.9, 0.05, 0.05]],
            [[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]],
        ],
        np.float32,
    )
)
TRUE = np.array([[0.5, 0.5, 0.9], [0.8, 0.4, 0.6]])  # probability of the true class
MASK = np.zeros((2, 12), np.float32)
MASK[0, 4:8] = 1
OFFSETS = np.zeros((2, 12), np.float32)
OFFSETS[0, 4:8] = [1, 2, 3, 4]
PREDICTED = np.full((2, 12), 7.0, np.float32)  # far off where nothing counts
PREDICTED[0, 4:8] = [1.5, 1, 3, 8]  # off by 0.5, 1, 0, 4


def loss(**options):
    per_image = SSDLoss(reduction=None, **options)
    return per_image((OFFSETS, MASK, CLASSES), (LOGITS, PREDICTED)).numpy()


def test_the_book_s_loss():
    expected = -np.log(TRUE).mean(1) + np.array([5.5 / 12, 0])
    np.testing.assert_allclose(loss(), expected, rtol=1e-5)
    batch = SSDLoss()((OFFSETS, MASK, CLASSES), (LOGITS, PREDICTED))
    np.testing.assert_allclose(batch, expected.mean(), rtol=1e-5)


def test_weights_of_the_parts():
    expected = 2 * -np.log(TRUE).mean(1) + 3 * np.array([5.5 / 12, 0])
    np.testing.assert_allclose(loss(class_weight=2.0, box_weight=3.0), expected, rtol=1e-5)


def test_normalised_by_positives():
    expected = -np.log(TRUE).sum(1) + np.array([5.5, 0])  # one positive; none counts as one
    np.testing.assert_allclose(loss(normalizer="positives"), expected, rtol=1e-5)


def test_smooth_l1():
    x = [-2.0, -0.25, 0.0, 0.2, 0.5]
    # σ = 2: parabola 2x² below 1/4, line |x| - 1/8 from there on.
    np.testing.assert_allclose(smooth_l1(tf.constant(x), 2.0), [1.875, 0.125, 0, 0.08, 0.375])
    # σ = 1 on offsets off by 0.5, 1, 0, 4.
    boxes = (0.125 + 0.5 + 0 + 3.5) / 12
    expected = loss(box_weight=0.0)[0] + boxes
    np.testing.assert_allclose(loss(box_loss="smooth_l1")[0], expected, rtol=1e-5)


def test_giou_is_that_of_the_boxes_whatever_the_anchor():
    anchor = np.float32([0.1, 0.3, 0.5, 0.9])  # neither square nor in the middle
    boxes = [offset_inverse(anchor[None], row[4:8][None]) for row in (PREDICTED[0], OFFSETS[0])]
    (x0, y0, x1, y1), (u0, v0, u1, v1) = (np.float64(box[0]) for box in boxes)
    shared = max(0, min(x1, u1) - max(x0, u0)) * max(0, min(y1, v1) - max(y0, v0))
    union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared
    around = (max(x1, u1) - min(x0, u0)) * (max(y1, v1) - min(y0, v0))
    giou = shared / union - (around - union) / around
    found = loss(box_loss="giou", class_weight=0.0, normalizer="positives")
    np.testing.assert_allclose(found, [1 - giou, 0], rtol=1e-5)


def test_focal_loss():
    focal = class_losses(tf.constant(LOGITS), tf.constant(CLASSES), "focal", 0.25, 2.0)
    np.testing.assert_allclose(focal, -0.25 * (1 - TRUE) ** 2 * np.log(TRUE), rtol=1e-4)
    plain = class_losses(tf.constant(LOGITS), tf.constant(CLASSES), "focal", 1.0, 0.0)
    np.testing.assert_allclose(plain, -np.log(TRUE), rtol=1e-5)


def test_focal_gradient_stays_finite_where_all_is_right():
    logits = tf.Variable([[[200.0, -200.0]]])
    for gamma in (0.5, 2.0):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(class_losses(logits, tf.constant([[0]]), "focal", 1.0, gamma))
        assert np.all(np.isfinite(tape.gradient(value, logits))), gamma


def test_hard_negatives_are_the_worst_background():
    losses = tf.constant([[0.1, 9.0, 0.5, 0.4, 0.3], [0.2, 0.1, 0.9, 0.3, 0.5]])
    classes = tf.constant([[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    chosen = hard_negatives(losses, classes, 2).numpy()
    # Without an object as many as for one of them.
    assert chosen.tolist() == [[False, False, True, True, False], [False, False, True, False, True]]
    assert hard_negatives(losses, classes, 99).numpy().sum() == 9


def test_hard_negatives_are_as_many_as_wanted_also_of_equal_losses():
    chosen = hard_negatives(tf.ones((2, 1000)), tf.constant([[1] + [0] * 999, [0] * 1000]), 3.0)
    assert [np.flatnonzero(row).tolist() for row in chosen.numpy()] == [[1, 2, 3], [0, 1, 2]]


@pytest.mark.parametrize("jit", [False, True])
def test_hard_negatives_equal_torchvision_s_ranks(jit):
    """torchvision's SSD: `losses.sort()[1].sort()[1] < wanted`, stable, and only background."""
    rng = np.random.default_rng(0)
    losses = rng.integers(0, 6, (50, 23)).astype(np.float32) / 4  # ties
    classes = rng.choice([-1, 0, 0, 0, 1, 2], (50, 23)).astype(np.int32)
    classes[0], classes[1], classes[2] = 1, -1, 0  # no background, nothing at all, nothing else
    candidates = np.where(classes == 0, losses, -np.inf)
    ranks = np.argsort(np.argsort(-candidates, axis=1, kind="stable"), axis=1, kind="stable")
    wanted = 3 * np.maximum((classes > 0).sum(1, keepdims=True), 1)
    expected = (ranks < wanted) & (classes == 0)
    chosen = tf.function(hard_negatives, jit_compile=jit)(losses, classes, 3.0)
    np.testing.assert_array_equal(chosen, expected)


def test_ignored_anchors_are_left_out():
    classes = CLASSES.copy()
    classes[0, 0], classes[1, 1] = -1, -1
    entropy = np.where(classes >= 0, -np.log(TRUE), 0)
    boxes = np.array([5.5 / 12, 0])
    per_image = SSDLoss(reduction=None)((OFFSETS, MASK, classes), (LOGITS, PREDICTED))
    np.testing.assert_allclose(per_image, entropy.sum(1) / 2 + boxes, rtol=1e-5)
    hard = SSDLoss(reduction=None, negatives_per_positive=9.0, normalizer="positives")
    per_image = hard((OFFSETS, MASK, classes), (LOGITS, PREDICTED))
    np.testing.assert_allclose(per_image, entropy.sum(1) + 12 * boxes, rtol=1e-5)
    focal = SSDLoss(class_loss="focal")((OFFSETS, MASK, classes), (LOGITS, PREDICTED))
    assert np.isfinite(focal)


def test_mean_over_one_replica_is_a_mean():
    assert float(mean_over_replicas(tf.constant(6.0), tf.constant(4))) == 1.5
    assert float(mean_over_replicas(tf.constant(0.0), 0)) == 0


def test_only_hard_negatives_count():
    expected = -(np.log(0.5) + np.log(0.5)) / 3 + 5.5 / 12  # the 0.9 is easy
    np.testing.assert_allclose(loss(negatives_per_positive=1.0)[0], expected, rtol=1e-5)
    np.testing.assert_allclose(loss(negatives_per_positive=1.0)[1], -np.log(0.4) / 3, rtol=1e-5)


def test_config():
    options = {"class_loss": "focal", "sigma": 2.5, "negatives_per_positive": 4.0}
    before = SSDLoss(normalizer="positives", **options)
    after = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(before))
    assert after.settings == before.settings
    assert after.settings["sigma"] == 2.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_loss": "hinge"}, "class_loss must be one of cross_entropy, focal; got 'hinge'"),
        ({"box_loss": "l2"}, "box_loss must be one of l1, smooth_l1"),
        ({"normalizer": "batch"}, "normalizer must be one of"),
        ({"sigma": 0}, "sigma must be above 0"),
        ({"negatives_per_positive": 0}, "negatives_per_positive must be above 0"),
        ({"box_weight": -1}, "box_weight must be 0 or more"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        SSDLoss(**options)


def test_what_is_no_loss_is_refused():
    with pytest.raises(InputError, match="corss_entropy"):
        class_losses(tf.zeros((1, 2, 3)), tf.zeros((1, 2), tf.int32), "corss_entropy")
    with pytest.raises(InputError, match="gamma"):
        SSDLoss(gamma=float("nan"))


@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
def test_what_background_predicts_does_not_count_however_far_out(box_loss):
    loss = SSDLoss(box_loss=box_loss)
    mask = tf.constant([[1.0] * 4 + [0.0] * 4])
    targets = tf.zeros((1, 8)), mask, tf.constant([[1, 0]])

    def of(background):
        boxes = tf.constant([[0.1, 0.2, 0.1, 0.0] + [background] * 4])
        with tf.GradientTape() as tape:
            tape.watch(boxes)
            found = loss.call(targets, (tf.zeros((1, 2, 2)), boxes))
        return found.numpy(), tape.gradient(found, boxes).numpy()

    for near, far in zip(of(0.0), of(230.0), strict=True):
        assert np.isfinite(far).all()
        np.testing.assert_allclose(far, near, atol=1e-6)
