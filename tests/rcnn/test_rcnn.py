"""R-CNN of 2014. What needs scikit-learn or scikit-image is passed over where it is missing."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.rcnn.model import RCNN, RCNNSettings, warp
from kerascv_d2l.rcnn.selective_search import _Segments, selective_search


def slow_group(image, labels, measure):
    """Join the most alike of all pairs of neighbours, with everything computed from pixels."""
    groups = [{k} for k in range(labels.max() + 1)]
    boxes = []

    def pixels(group):
        return np.isin(labels, list(group))

    def histogram(group, bins=25):
        inside = image[pixels(group)]
        counts = [np.histogram(inside[:, c], bins=bins, range=(0, 1))[0] for c in range(3)]
        return np.concatenate(counts) / np.sum(counts)

    def box(group):
        y, x = np.nonzero(pixels(group))
        return [x.min(), y.min(), x.max() + 1, y.max() + 1]

    def touch(a, b):
        a, b = pixels(a), pixels(b)
        upright, sideways = (a[1:] & b[:-1]) | (b[1:] & a[:-1]), a[:, 1:] & b[:, :-1]
        return upright.any() or sideways.any() or (b[:, 1:] & a[:, :-1]).any()

    def likeness(a, b):
        total, x = 0, labels.size
        sizes = pixels(a).sum() + pixels(b).sum()
        if "color" in measure:
            total += np.minimum(histogram(a), histogram(b)).sum()
        if "size" in measure:
            total += 1 - sizes / x
        if "fill" in measure:
            x0, y0, x1, y1 = box(a | b)
            total += 1 - ((x1 - x0) * (y1 - y0) - sizes) / x
        return total

    boxes = [box(g) for g in groups]
    while len(groups) > 1:
        pairs = [(a, b) for i, a in enumerate(groups) for b in groups[i + 1 :] if touch(a, b)]
        a, b = max(pairs, key=lambda pair: likeness(*pair))
        groups = [g for g in groups if g not in (a, b)] + [a | b]
        boxes.append(box(a | b))
    return np.array(boxes, float)


@pytest.mark.parametrize("measure", [("color", "size", "fill"), ("size", "fill")])
def test_grouping_equals_a_slow_one(measure):
    random = np.random.default_rng(3)
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((4, 5), int))
    labels[:, 7:9] += np.arange(12)[:, None] % 2 * (labels[:, 7:9] < 10)  # ragged borders
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    image = random.uniform(size=(*labels.shape, 3)) ** (1 + labels[..., None] % 3)
    found = _Segments(image, labels).group(measure)
    np.testing.assert_allclose(found, slow_group(image, labels, measure))


def test_warp_equals_sampling_by_hand():
    """Bilinear samples in the middle of equal parts, with context and the mean colour outside."""
    image = np.random.default_rng(0).uniform(0, 255, (11, 17, 3)).astype(np.float32)
    boxes = np.array([[2, 3, 12, 8], [-4, -2, 9.5, 20]], np.float32)
    size, context = 6, 0.125
    crops = warp(image, boxes, size, context).numpy()
    for box, crop in zip(boxes, crops, strict=True):
        margin = (box[2:] - box[:2]) * context / (1 - 2 * context)
        low, high = box[:2] - margin, box[2:] + margin
        for row in range(size):
            for column in range(size):
                at = low + (high - low) * (np.array([column, row]) + 0.5) / size - 0.5
                expected = image.mean(axis=(0, 1))
                if (at >= 0).all() and (at <= [16, 10]).all():
                    x, y = np.minimum(at.astype(int), [15, 9])
                    fx, fy = at - [x, y]
                    top = image[y, x] * (1 - fx) + image[y, x + 1] * fx
                    bottom = image[y + 1, x] * (1 - fx) + image[y + 1, x + 1] * fx
                    expected = top * (1 - fy) + bottom * fy
                np.testing.assert_allclose(crop[row, column], expected, atol=1e-3)


def scenes(n, seed=0):
    """Bright squares (class 0) and dark ones (class 1) on grey, one of each an image, and boxes."""
    random = np.random.default_rng(seed)
    images = np.full((n, 64, 64, 3), 128.0, np.float32) + random.normal(0, 8, (n, 64, 64, 3))
    boxes = np.zeros((n, 3, 4), np.float32)
    for k in range(n):
        for j, (left, value) in enumerate(((0, 240), (32, 20))):
            side = random.integers(14, 24)
            x, y = left + random.integers(0, 32 - side), random.integers(0, 64 - side)
            images[k, y : y + side, x : x + side] = value
            boxes[k, j] = np.array([x, y, x + side, y + side]) / 64
    classes = np.tile([0, 1, -1], (n, 1))
    y = {"boxes": boxes, "classes": classes, "ignore": np.zeros((n, 3), bool)}
    return images.clip(0, 255), y


def windows(image):
    """Proposals that do not need scikit-image: windows of two sizes."""
    places = np.mgrid[0:64:6, 0:64:6].reshape(2, -1).T
    boxes = [np.concatenate([places, places + s], axis=1) for s in (16, 22)]
    return np.concatenate(boxes).astype(np.float32)


def test_rcnn_learns_and_moves_boxes():
    pytest.importorskip("sklearn")
    from kerascv_d2l.metrics.detection import evaluate_detections

    tf.keras.utils.set_random_seed(0)
    settings = RCNNSettings(crop_size=16, ridge_lambda=10.0)
    model = RCNN(["bright", "dark"], propose=windows, settings=settings)
    model.fit([scenes(16)], fine_tune_epochs=2, positives=200)
    test = scenes(8, seed=1)
    measured = evaluate_detections(model, [test])
    assert measured["map_50"] > 0.9
    # Without the regression the boxes are where the windows happened to stand.
    moved, model.regressions = model.regressions, [None, None]
    assert measured["map"] > evaluate_detections(model, [test])["map"] + 0.05
    # A machine that has the classes exchanged finds neither.
    model.regressions, model.svms = moved, model.svms[::-1]
    assert evaluate_detections(model, [test])["map_50"] < 0.4


def test_ignored_objects_are_learned_by_nobody():
    pytest.importorskip("sklearn")
    images, y = scenes(2)
    y["ignore"][:, 1] = True
    model = RCNN(["bright"], propose=windows, settings=RCNNSettings(crop_size=16))
    for pair in zip(images, *(y[name] for name in ("boxes", "classes", "ignore")), strict=True):
        example = model._example(*pair)
        assert example.classes.tolist() == [0] and example.iou.shape[1] == 1
        dark = np.asarray(pair[1][1]) * 64
        overlap = np.minimum(example.boxes[:, 2:], dark[2:]) - np.maximum(
            example.boxes[:, :2], dark[:2]
        )
        assert (overlap.clip(0).prod(axis=1) < 0.7 * (dark[2:] - dark[:2]).prod()).all()


def test_an_object_on_an_ignored_one_is_learned_from():
    """And stays the row that says what it is."""
    image, window = np.zeros((64, 64, 3), np.uint8), [[0.5, 0.5, 1, 1]]
    boxes = np.float32([[0, 0, 0.5, 0.5], [0.5, 0, 0.9, 0.4], [0, 0, 0.5, 0.6]])
    model = RCNN(["a", "b"], propose=lambda _: np.float32(window) * 64)
    example = model._example(image, boxes, np.array([0, 1, 0]), np.array([False, False, True]))
    assert example.classes.tolist() == [0, 1]
    np.testing.assert_allclose(example.boxes, np.concatenate([boxes[:2], window]) * 64)


def test_a_box_moved_out_of_the_image_is_no_detection():
    model = RCNN(["a"])
    scores, offsets = np.array([3.0, 2.0]), np.float32([[-5, 0, 0, 0], [0, 0, 0, 0]])
    model.svms = [SimpleNamespace(decision_function=lambda features: scores)]
    model.regressions = [SimpleNamespace(predict=lambda features: offsets)]
    boxes, size = np.float32([[10, 10, 20, 30]] * 2), np.float32([64] * 4)
    found, margins = model._detect_class(0, boxes, np.zeros((2, 1)), size)
    np.testing.assert_allclose(found, boxes[1:] / 64, rtol=1e-5)
    assert margins.tolist() == [2]


def test_selective_search_finds_what_is_there():
    pytest.importorskip("skimage")
    images, y = scenes(2)
    for image, boxes in zip(images, y["boxes"], strict=True):
        found = selective_search(image.astype(np.uint8), smallest_side=8)
        assert len(np.unique(found, axis=0)) == len(found)
        for box in boxes[:2] * 64:
            assert np.abs(found - box).max(axis=1).min() <= 2  # the smoothing moves borders
        np.testing.assert_array_equal(
            found[:5], selective_search(image.astype(np.uint8), smallest_side=8, max_proposals=5)
        )


def test_errors_say_what_to_do(monkeypatch):
    with pytest.raises(InputError, match=r"image must be uint8 .*float64 \(4, 4, 3\)"):
        selective_search(np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match="call fit first"):
        RCNN(["a"]).detect(np.zeros((1, 8, 8, 3)))
    with pytest.raises(InputError, match="has no third"):
        RCNN(["a", "b", "third"], propose=windows).fit([scenes(1)])
    monkeypatch.setitem(__import__("sys").modules, "skimage.segmentation", None)
    with pytest.raises(InputError, match="pip install scikit-image"):
        selective_search(np.zeros((4, 4, 3), np.uint8))
