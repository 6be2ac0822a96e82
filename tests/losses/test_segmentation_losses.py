"""Cross-entropy over pixels against a loop over them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.losses.segmentation import SegmentationCrossEntropy

pytestmark = pytest.mark.quick

CLASSES = 4


def batch(ignored_share=0.3):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, size=(3, 5, 7)).astype(np.uint8)
    labels[rng.uniform(size=labels.shape) < ignored_share] = 255
    return labels, rng.normal(size=(3, 5, 7, CLASSES)).astype(np.float32) * 3


def slow_loss(labels, scores, class_weight=(1,) * CLASSES):
    total = weights = 0
    for place in np.ndindex(labels.shape):
        if labels[place] == 255:
            continue
        odds = np.exp(scores[place].astype(np.float64))
        weight = class_weight[labels[place]]
        total -= weight * np.log(odds[labels[place]] / odds.sum())
        weights += weight
    return total / weights


@pytest.mark.parametrize("class_weight", [None, (0.5, 2, 0, 1)])
def test_mean_over_known_pixels(class_weight):
    labels, scores = batch()
    expected = slow_loss(labels, scores, class_weight or (1,) * CLASSES)
    loss = SegmentationCrossEntropy(class_weight=class_weight)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    for function in (loss, restored, tf.function(loss, jit_compile=True)):
        np.testing.assert_allclose(function(labels, scores), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(labels[..., None], scores), expected, rtol=1e-5)
    chances = tf.nn.softmax(scores)
    of_chances = SegmentationCrossEntropy(class_weight=class_weight, from_logits=False)
    np.testing.assert_allclose(of_chances(labels, chances), expected, rtol=1e-5)


def test_without_ignored_pixels_it_is_the_books_mean():
    labels, scores = batch(ignored_share=0)
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels.astype(np.int32), scores)
    book = tf.reduce_mean(each, axis=(1, 2))  # (batch,)
    np.testing.assert_allclose(
        SegmentationCrossEntropy()(labels, scores), tf.reduce_mean(book), rtol=1e-6
    )


def test_ignored_pixels_have_no_gradient_and_nothing_else_has_no_loss():
    labels, scores = batch()
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = SegmentationCrossEntropy()(labels, scores)
    gradient = tape.gradient(loss, scores).numpy()
    assert (gradient[labels == 255] == 0).all()
    assert (np.abs(gradient[labels != 255]).sum(-1) > 0).all()
    assert SegmentationCrossEntropy()(np.full_like(labels, 255), scores) == 0


def test_errors_name_the_weights():
    with pytest.raises(InputError, match="class_weight"):
        SegmentationCrossEntropy(class_weight=[1, -1])
    labels, scores = batch()
    with pytest.raises(InputError, match="2 numbers for 4 classes"):
        SegmentationCrossEntropy(class_weight=[1, 1])(labels, scores)


def test_labels_that_are_no_class_are_ignored_and_make_no_nan():
    labels, scores = batch(ignored_share=0)
    labels = labels.astype(np.int32)
    labels[0, :2] = [[7], [-1]]
    expected = slow_loss(np.where((labels < 0) | (labels >= CLASSES), 255, labels), scores)
    for ignore_label in (255, None):
        loss = SegmentationCrossEntropy(ignore_label=ignore_label)
        np.testing.assert_allclose(loss(labels, scores), expected, rtol=1e-5)


def test_half_precision_counts_more_pixels_than_it_has_numbers():
    labels, scores = np.zeros((2, 256, 256), np.uint8), tf.zeros((2, 256, 256, 3), tf.float16)
    losses = SegmentationCrossEntropy().call(labels, scores)
    np.testing.assert_allclose(losses, np.log(3), rtol=1e-3)
