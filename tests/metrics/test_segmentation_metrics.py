"""Pixel accuracy and IoU against sets of pixels counted in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.losses.segmentation import SegmentationCrossEntropy
from kerascv_d2l.metrics.callbacks import SegmentationCallback
from kerascv_d2l.metrics.segmentation import (
    SegmentationMetrics,
    evaluate_segmentation,
    iou_by_class,
)
from kerascv_d2l.models.segmenter import Segmenter
from kerascv_d2l.ops.segmentation import class_map, confusion_matrix

CLASSES = 4


def batch(seed=0, size=(3, 6, 5)):
    """Class 3 occurs nowhere, class 2 only in the prediction, a quarter is ignored."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 255], p=[0.45, 0.3, 0.25], size=size).astype(np.uint8)
    predicted = rng.integers(0, 3, size=size)
    scores = np.eye(CLASSES, dtype=np.float32)[predicted] + rng.uniform(0, 0.9, (*size, CLASSES))
    return labels, predicted, scores.astype(np.float32)


def slow_iou(labels, predicted):
    known = labels != 255
    result = []
    for c in range(CLASSES):
        truth, found = (labels == c) & known, (predicted == c) & known
        either = (truth | found).sum()
        result.append((truth & found).sum() / either if either else np.nan)
    return np.array(result)


def test_figures_of_several_batches():
    batches = [batch(seed) for seed in range(3)]
    metric = SegmentationMetrics(CLASSES, class_names=["a", "b", "c", "d"])
    ignoring = SegmentationMetrics(CLASSES, ignored_as=None)
    for labels, predicted, scores in batches:
        metric.update_state(labels, scores)
        ignoring.update_state(labels[..., None], predicted)
    labels = np.concatenate([b[0] for b in batches])
    predicted = np.concatenate([b[1] for b in batches])
    iou = slow_iou(labels, predicted)
    assert np.isnan(iou[3]) and iou[2] == 0
    as_background = np.mean(np.where(labels == 255, 0, labels) == predicted)
    result = metric.result()
    np.testing.assert_allclose(result["mean_iou"], iou[:3].mean(), rtol=1e-6)
    np.testing.assert_allclose(result["pixel_accuracy"], as_background, rtol=1e-6)
    np.testing.assert_allclose([result[f"iou_{n}"] for n in "abcd"], iou, rtol=1e-6)
    np.testing.assert_allclose(iou_by_class(metric.confusion), iou)
    result = ignoring.result()
    np.testing.assert_allclose(result["mean_iou"], iou[:3].mean(), rtol=1e-6)
    np.testing.assert_allclose(
        result["pixel_accuracy"], (labels == predicted)[labels != 255].mean(), rtol=1e-6
    )


def test_mean_iou_is_keras_where_nothing_is_ignored():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, CLASSES, size=(2, 2, 9, 7))
    theirs, ours = keras.metrics.MeanIoU(CLASSES), SegmentationMetrics(CLASSES, ignore_label=None)
    theirs.update_state(labels, predicted)
    ours.update_state(labels, predicted)
    np.testing.assert_allclose(ours.result()["mean_iou"], theirs.result(), rtol=1e-6)


def test_labels_that_are_no_class_are_not_counted():
    labels, predicted = np.array([0, 1, 7, -1, 255, 1]), np.array([0, 1, 1, 0, 1, 9])
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 2), [[1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(
        confusion_matrix(labels, predicted, 2, ignore_label=None), [[1, 0], [0, 1], [0, 0]]
    )


def test_counts_stay_exact_where_float32_stops():
    metric = SegmentationMetrics(2)
    metric.confusion.assign([[2.0**24, 0], [0, 0], [0, 0]])
    for _ in range(8):
        metric.update_state([[0]], [[1]])
    np.testing.assert_array_equal(metric.confusion.numpy()[0], [2**24, 8])
    metric.confusion.assign([[2.0**24, 0], [0, 0], [0, 0]])
    metric.update_state([[0]], [[0]])
    assert metric.confusion.numpy()[0, 0] == 2**24 + 1


def test_in_fit_evaluate_and_after_loading(tmp_path):
    labels, predicted, scores = batch(size=(8, 6, 5))
    model = keras.Sequential([keras.Input((6, 5, CLASSES)), keras.layers.Rescaling(1.0)])
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255),
        metrics=[SegmentationMetrics(CLASSES, class_names="abcd")],
        jit_compile=False,
    )
    expected = slow_iou(labels, predicted)
    model.save(tmp_path / "model.keras")
    for network in (model, keras.models.load_model(tmp_path / "model.keras")):
        # 3 does not divide 8: the last batch has another size.
        logs = network.evaluate(scores, labels, batch_size=3, verbose=0, return_dict=True)
        np.testing.assert_allclose(logs["mean_iou"], np.nanmean(expected), rtol=1e-6)
        np.testing.assert_allclose(logs["iou_a"], expected[0], rtol=1e-6)
        assert set(logs) == {"loss", "pixel_accuracy", "mean_iou", *(f"iou_{n}" for n in "abcd")}


def test_nothing_counted_is_zero_and_reset_forgets():
    metric = SegmentationMetrics(CLASSES)
    assert metric.result()["mean_iou"] == 0 and metric.result()["pixel_accuracy"] == 0
    labels, _, scores = batch()
    metric.update_state(labels, scores)
    metric.reset_state()
    assert metric.result()["mean_iou"] == 0


@pytest.mark.quick
def test_class_map_is_argmax_and_ties_go_to_the_first():
    scores = np.random.default_rng(0).integers(0, 3, size=(4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(class_map(scores), scores.argmax(-1))


@pytest.mark.quick
def test_errors_name_the_argument():
    with pytest.raises(InputError, match="num_classes=0"):
        SegmentationMetrics(0)
    with pytest.raises(InputError, match="ignore_label=3"):
        SegmentationMetrics(4, ignore_label=3)
    with pytest.raises(InputError, match="ignored_as=4"):
        SegmentationMetrics(4, ignored_as=4)
    with pytest.raises(InputError, match="class_names has 2"):
        SegmentationMetrics(3, class_names=["a", "b"])
    labels, _, scores = batch()
    with pytest.raises(InputError, match="scores of shape"):
        SegmentationMetrics(5).update_state(labels, scores)
    with pytest.raises(InputError, match="sample_weight"):
        SegmentationMetrics(CLASSES).update_state(labels, scores, tf.ones(3))


def test_whole_images_of_any_size():
    """Class by class in NumPy, over images of different sizes; one class never occurs."""
    rng = np.random.default_rng(0)
    pairs, predicted = [], []
    for size in ((4, 7), (5, 3), (9, 9)):
        truth = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
        pairs.append((np.stack([rng.integers(0, 3, size)] * 3, -1).astype(np.uint8), truth))
        predicted.append(pairs[-1][0][..., 0].astype(np.int32))
    names = ("a", "b", "c", "never")
    found = evaluate_segmentation(lambda image: tf.cast(image[..., 0], tf.int32), pairs, names)
    truth = np.concatenate([mask.ravel() for _, mask in pairs])
    guess = np.concatenate([mask.ravel() for mask in predicted])[truth != 255]
    truth = truth[truth != 255]
    iou = [
        ((truth == c) & (guess == c)).sum() / ((truth == c) | (guess == c)).sum() for c in range(3)
    ]
    assert found["mean_iou"] == pytest.approx(np.mean(iou))
    assert found["pixel_accuracy"] == pytest.approx((truth == guess).mean())
    assert list(found["iou_by_class"].values())[:3] == pytest.approx(iou)
    assert np.isnan(found["iou_by_class"]["never"])
    assert found["confusion"].sum() == sum(mask.size for _, mask in pairs)


def network():
    """A tiny segmenter, whose stride of 8 does not divide the sides of `scenes`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(6, 8, strides=8, activation="relu")(x)
    x = keras.layers.UpSampling2D(8)(keras.layers.Conv2D(3, 1)(x))
    return keras.Model(inputs, x)


def scenes(*sizes):
    rng = np.random.default_rng(1)
    for size in sizes:
        labels = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
        image = rng.integers(0, 256, (*size, 3)) // 2 + labels[..., None] % 3 * 60
        yield image.astype(np.uint8), labels


def test_fit_and_evaluation_give_one_figure():
    """`val_mean_iou` of an epoch is `mean_iou` of the same windows; each image counts once."""
    model = network()
    loss = SegmentationCrossEntropy(class_weight=[1, 2, 0.5])
    model.compile("adam", loss, jit_compile=False)
    segment = Segmenter(model, (16, 24), overlap=4, stride=8)
    pairs = list(scenes((21, 30), (16, 24), (9, 50), (5, 7)))
    images, labels = next(scenes((16, 24)))
    callback = SegmentationCallback(segment, pairs, "abc", every=2)
    history = model.fit(
        images[None], labels[None], epochs=3, verbose=0, callbacks=[callback]
    ).history
    assert np.isnan(history["val_mean_iou"][0]) and np.isfinite(history["val_mean_iou"][1])
    result = evaluate_segmentation(segment, pairs, "abc", loss=loss)
    for name in ("mean_iou", "pixel_accuracy", "loss"):
        assert history[f"val_{name}"][-1] == result[name]
    assert result["confusion"].sum() == sum(mask.size for _, mask in pairs)
    assert result["mean_iou"] == evaluate_segmentation(segment, pairs, "abc")["mean_iou"]
    # The loss is that of the averaged scores, summed over all images.
    sums = np.zeros(2)
    for image, mask in pairs:
        _, scores = segment(image, return_scores=True)
        sums += [float(tf.reduce_sum(part)) for part in loss.weighted(mask[None], scores[None])]
    assert result["loss"] == pytest.approx(sums[0] / sums[1], rel=1e-5)


@pytest.mark.quick
def test_callback_checks_its_numbers():
    with pytest.raises(InputError, match="every is 0"):
        SegmentationCallback(None, [], "ab", every=0)


@pytest.mark.parametrize("labels", [(2, 3, 4), (1, 4, 3), (2, 4)])
def test_labels_of_another_shape_are_refused(labels):
    metric = SegmentationMetrics(3)
    with pytest.raises(InputError, match=r"labels of shape .* are not those of \(2, 4, 3\)"):
        metric.update_state(np.zeros(labels, np.int32), np.zeros((2, 4, 3, 3), np.float32))
