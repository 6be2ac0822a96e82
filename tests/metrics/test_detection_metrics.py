import contextlib
import io
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kerascv_d2l.errors import InputError
from kerascv_d2l.metrics.callbacks import MeanAveragePrecisionCallback
from kerascv_d2l.metrics.detection import (
    MAP_KEYS,
    DetectionEvaluator,
    bbox_eval,
    cls_eval,
    evaluate_detections,
)

pytestmark = pytest.mark.quick

A, B, C = [0.1, 0.1, 0.3, 0.5], [0.5, 0.2, 0.9, 0.4], [0.2, 0.6, 0.5, 0.9]
AWAY = [0.7, 0.7, 0.8, 0.95]  # meets none of them


def batch_of(images):
    """[(rows of labels, rows [class, score, box] of detections)] -> labels, detections.

    Rows of labels are [class, box], or [class, box, ignore]: then the labels are a dict.
    """
    m = max([len(gt) for gt, _ in images] + [1])
    n = max([len(det) for _, det in images] + [1])
    width = max([len(row) for gt, _ in images for row in gt] + [5])
    labels = np.full((len(images), m, width), -1.0, np.float32)
    rows = np.full((len(images), n, 6), -1.0, np.float32)
    for i, (gt, det) in enumerate(images):
        labels[i, : len(gt)] = np.reshape(gt, (-1, width))
        rows[i, : len(det)] = np.reshape(det, (-1, 6))
    if width == 6:
        labels = {
            "boxes": labels[..., 1:5],
            "classes": labels[..., 0].astype(np.int32),
            "ignore": labels[..., 5] == 1,
        }
    return labels, {
        "boxes": rows[..., 2:],
        "scores": rows[..., 1],
        "classes": rows[..., 0].astype(np.int32),
        "num_valid": np.array([len(det) for _, det in images], np.int32),
    }


def evaluate(images):
    evaluator = DetectionEvaluator()
    evaluator.update(*batch_of(images))
    return evaluator.result()


@pytest.mark.parametrize(("objects", "expected"), [(100, 0.0), (101, 1.0)])
def test_crowds_are_not_measured_by_the_best_hundred(objects, expected):
    """COCO's limit holds as far as an image has not more objects of a class itself."""
    at = np.arange(objects) / objects
    boxes = np.stack([at, at, at + 0.9 / objects, at + 0.9 / objects], axis=1)
    found = [[0, 0.9, *AWAY]] * 100 * (objects == 100) + [[0, 0.5, *box] for box in boxes]
    figures = evaluate([([[0, *box] for box in boxes], found)])
    assert figures["map"] == pytest.approx(expected)


def same(one, other):
    one, other = (
        r | {f"class {k}": v for k, v in r["ap_50_by_class"].items()} for r in (one, other)
    )
    del one["ap_50_by_class"], other["ap_50_by_class"]
    return one == pytest.approx(other, nan_ok=True)


def random_images(rng, count, classes=3, max_objects=6, max_detections=15, ignored=0.0):
    """Detections near the objects and far from them, scores with ties, empty images.

    With `ignored`, the share of ignored objects, each object has a sixth column.
    """
    images = []
    for _ in range(count):
        num_gt, num_det = rng.integers(max_objects + 1), rng.integers(max_detections + 1)
        low = rng.uniform(0, 0.7, (num_gt, 2))
        gt = np.c_[
            rng.integers(classes, size=num_gt), low, low + rng.uniform(0.02, 0.3, (num_gt, 2))
        ]
        gt = gt.astype(np.float32)
        if num_gt:
            of = rng.integers(num_gt, size=num_det)
            guess, boxes = gt[of, 0], gt[of, 1:]
            boxes = boxes + rng.normal(0, 0.02, (num_det, 4)) * rng.integers(2, size=(num_det, 1))
        else:
            low = rng.uniform(0, 0.7, (num_det, 2))
            guess, boxes = np.zeros(num_det), np.c_[low, low + 0.2]
        boxes = np.c_[np.minimum(boxes[:, :2], boxes[:, 2:]), boxes[:, 2:]]
        scores = rng.integers(1, 12, size=num_det) / 12
        # Class `classes` is detected and never there.
        guess = np.where(rng.random(num_det) < 0.7, guess, rng.integers(classes + 1, size=num_det))
        det = np.c_[guess, scores, boxes]
        if ignored:
            gt = np.c_[gt, rng.random(num_gt) < ignored]
        images.append((gt, det[np.argsort(-scores, kind="stable")]))
    return images


def slow_iou(a, b):
    a, b = [float(x) for x in a], [float(x) for x in b]
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    size = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (size - w * h)


def slow_voc(images):
    """The devkit's VOCevaldet.m and VOCap.m, line by line."""
    eleven, area = [], []
    for k in sorted({int(row[0]) for gt, _ in images for row in gt if sum(row[5:]) == 0}):
        detections = []
        for i, (_, det) in enumerate(images):
            for row in np.asarray(det, np.float32):
                if row[0] == k:
                    detections.append((i, row[1], row[2:]))
        detections.sort(key=lambda d: -d[1])  # stable
        gts = [[np.float32(row[1:]) for row in gt if row[0] == k] for gt, _ in images]
        taken, tp, fp, recall, precision = set(), 0, 0, [], []
        npos = sum(sum(gt[4:]) == 0 for g in gts for gt in g)
        for i, _, box in detections:
            best, where = -1.0, None
            for j, gt in enumerate(gts[i]):
                if slow_iou(box, gt) > best:
                    best, where = slow_iou(box, gt), j
            if best >= 0.5 and sum(gts[i][where][4:]):
                continue  # difficult: neither right nor wrong
            if best >= 0.5 and (i, where) not in taken:
                taken.add((i, where))
                tp += 1
            else:
                fp += 1
            recall.append(tp / npos)
            precision.append(tp / (tp + fp))
        eleven.append(
            sum(
                max([p for p, r in zip(precision, recall, strict=True) if r >= t - 1e-9] + [0])
                for t in np.linspace(0, 1, 11)
            )
            / 11
        )
        mrec, mpre = [0, *recall, 1], [0, *precision, 0]
        for i in range(len(mpre) - 2, -1, -1):
            mpre[i] = max(mpre[i], mpre[i + 1])
        area.append(
            sum(
                (mrec[i] - mrec[i - 1]) * mpre[i]
                for i in range(1, len(mrec))
                if mrec[i] != mrec[i - 1]
            )
        )
    return np.mean(eleven), np.mean(area)


def pixel_coco(images, sizes):
    """pycocotools as its own demo uses it: pixels, default settings, summarize()."""

    def annotations(rows, size, image, first, start):
        h, w = size
        for number, row in enumerate(rows, first):
            x0, y0, x1, y1 = np.float32(row[start : start + 4]).astype(float) * [w, h, w, h]
            yield {
                "id": number,
                "image_id": image,
                "category_id": int(row[0]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": int(sum(row[5:])) if start == 1 else 0,
            }

    gts, dts = [], []
    for i, ((gt, det), size) in enumerate(zip(images, sizes, strict=True)):
        gts += annotations(gt, size, i + 1, len(gts) + 1, 1)
        found = list(annotations(det, size, i + 1, len(dts) + 1, 2))
        dts += [d | {"score": float(np.float32(r[1]))} for d, r in zip(found, det, strict=True)]
    truth = COCO()
    categories = sorted({a["category_id"] for a in gts + dts})
    truth.dataset = {
        "info": {},
        "images": [{"id": i + 1} for i in range(len(images))],
        "categories": [{"id": c} for c in categories],
        "annotations": gts,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(dts), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


# ---------------------------------------------------------------- the book's two sums


def test_cls_eval_counts_and_bbox_eval_sums_in_graph_and_eagerly():
    preds = np.array([[[0.1, 0.9, 0], [0.7, 0.2, 0.1]], [[0, 0.1, 2.0], [0.3, 0.3, 0.1]]], "f4")
    labels = np.array([[1, 1], [2, 0]], "i4")  # right, wrong, right, right (a tie goes low)
    for function in (cls_eval, tf.function(cls_eval), tf.function(cls_eval, jit_compile=True)):
        assert float(function(preds, labels)) == 3.0
        assert float(function(tf.constant(preds), tf.cast(labels, tf.int64))) == 3.0
    offsets, targets = np.array([[1.0, -2, 3, 9]], "f4"), np.array([[0.5, 2, 3, 0]], "f4")
    mask = np.array([[1.0, 1, 1, 0]], "f4")
    for function in (bbox_eval, tf.function(bbox_eval), tf.function(bbox_eval, jit_compile=True)):
        assert float(function(offsets, targets, mask)) == 4.5


def test_bbox_eval_in_half_precision_does_not_overflow():
    ones = np.ones((2, 60000), np.float16)
    result = bbox_eval(ones * 2, ones, ones)
    assert result.dtype == tf.float32
    assert float(result) == 120000


# ---------------------------------------------------------------- by hand


def test_hand_computed_curve():
    """Three objects; right, wrong, right, in this order of scores; one object missed.

    Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3; interpolated 1 up to 1/3, 2/3 up to 2/3.
    """
    result = evaluate(
        [
            ([[0, *A], [0, *B]], [[0, 0.9, *A], [0, 0.8, *AWAY]]),
            ([[0, *C]], [[0, 0.7, *C]]),
        ]
    )
    assert result["voc_map"] == pytest.approx((1 + 2 / 3) / 3)
    # levels 0 .1 .2 .3 at precision 1; .4 .5 .6 at 2/3
    assert result["voc07_map"] == pytest.approx((4 + 3 * 2 / 3) / 11)
    # 101 levels: 0 … .33 (34) at 1, .34 … .66 (33) at 2/3
    coco = (34 + 33 * 2 / 3) / 101
    assert result["map_50"] == pytest.approx(coco)
    assert result["map_75"] == pytest.approx(coco)
    assert result["map"] == pytest.approx(coco)
    assert result["ap_50_by_class"] == {0: pytest.approx(coco)}
    assert list(result)[:-1] == list(MAP_KEYS)
    assert all(type(result[key]) is float for key in MAP_KEYS)


def test_all_right_is_one_and_duplicates_are_false_positives():
    gt = [[0, *A], [0, *B]]
    assert all(
        evaluate([(gt, [[0, 0.9, *A], [0, 0.8, *B]])])[k] == pytest.approx(1) for k in MAP_KEYS
    )
    # Precision 1, 1/2, 2/3: the duplicate between them costs.
    result = evaluate([(gt, [[0, 0.9, *A], [0, 0.85, *A], [0, 0.8, *B]])])
    assert result["voc_map"] == pytest.approx((1 + 2 / 3) / 2)
    # A duplicate after everything is found costs nothing.
    result = evaluate([(gt, [[0, 0.9, *A], [0, 0.85, *B], [0, 0.8, *A]])])
    assert result["voc_map"] == 1


def test_voc_gives_a_detection_to_its_best_object_only_and_coco_to_the_next_free_one():
    first, second = [0.1, 0.1, 0.5, 0.5], [0.1, 0.15, 0.5, 0.55]
    near_first = [0.1, 0.11, 0.5, 0.51]
    result = evaluate([([[0, *first], [0, *second]], [[0, 0.9, *first], [0, 0.8, *near_first]])])
    assert result["voc_map"] == pytest.approx(0.5)
    assert result["map_50"] == pytest.approx(1)


def test_iou_of_exactly_one_half_is_a_hit_and_below_is_not():
    gt = [[0, 0, 0, 1, 0.5]]
    result = evaluate([(gt, [[0, 0.9, 0, 0, 0.5, 0.5]])])
    assert (result["voc_map"], result["map_50"], result["map_75"]) == (1, pytest.approx(1), 0)
    result = evaluate([(gt, [[0, 0.9, 0, 0, 0.499, 0.5]])])
    assert (result["voc_map"], result["map_50"]) == (0, 0)


def test_recall_levels_of_voc07_are_compared_exactly():
    """3 of 10 objects found reach the levels 0, .1, .2 and .3."""
    boxes = [[0.1 * i, 0.1, 0.1 * i + 0.05, 0.3] for i in range(10)]
    for found in range(11):
        result = evaluate([([[0, *b] for b in boxes], [[0, 0.5, *b] for b in boxes[:found]])])
        expected = (found + 1) / 11 if found else 0
        assert result["voc07_map"] == pytest.approx(expected), found


def test_small_boxes_count():
    tiny = [0.4, 0.3, 0.401, 0.3005]
    assert evaluate([([[0, *tiny]], [[0, 0.9, *tiny]])])["map"] == pytest.approx(1)


def test_ties_keep_the_order_they_came_in():
    right, wrong = [0, 0.5, *A], [0, 0.5, *AWAY]
    first = evaluate([([[0, *A]], [right, wrong])])
    last = evaluate([([[0, *A]], [wrong, right])])
    for key in MAP_KEYS:
        assert first[key] == pytest.approx(1)
        assert last[key] == pytest.approx(0.5)


# ---------------------------------------------------------------- ignored objects


def test_what_is_found_on_ignored_objects_is_neither_right_nor_wrong():
    gt = [[0, *A, 0], [0, *B, 1], [0, *C, 1]]
    # A perfect detector; the ignored objects are found first.
    result = evaluate([(gt, [[0, 0.9, *B], [0, 0.8, *C], [0, 0.7, *A]])])
    assert all(result[key] == pytest.approx(1) for key in MAP_KEYS)
    # They need not be found.
    result = evaluate([(gt, [[0, 0.7, *A]])])
    assert all(result[key] == pytest.approx(1) for key in MAP_KEYS)
    # A second detection on one costs nothing, one beside costs.
    result = evaluate([(gt, [[0, 0.9, *B], [0, 0.8, *B], [0, 0.7, *A]])])
    assert all(result[key] == pytest.approx(1) for key in MAP_KEYS)
    result = evaluate([(gt, [[0, 0.9, *AWAY], [0, 0.7, *A]])])
    assert all(result[key] == pytest.approx(0.5) for key in MAP_KEYS)


def test_a_part_of_a_crowd_is_ignored_by_coco_and_wrong_for_voc():
    crowd, inside = [0.4, 0.4, 0.9, 0.9], [0.45, 0.45, 0.55, 0.55]
    gt = [[0, *A, 0], [0, *crowd, 1]]
    result = evaluate([(gt, [[0, 0.9, *inside], [0, 0.8, *A]])])
    assert result["map"] == pytest.approx(1)
    assert result["voc_map"] == pytest.approx(0.5)


def test_a_class_of_ignored_objects_only_is_left_out_of_the_mean():
    result = evaluate([([[0, *A, 0], [1, *B, 1]], [[0, 0.9, *A], [1, 0.9, *AWAY]])])
    assert all(result[key] == pytest.approx(1) for key in MAP_KEYS)
    assert np.isnan(result["ap_50_by_class"][1])
    result = evaluate([([[1, *B, 1]], [[1, 0.9, *B]])])
    assert all(np.isnan(result[key]) for key in MAP_KEYS)


# ---------------------------------------------------------------- empty cases


def test_image_without_objects_has_false_positives():
    good = ([[0, *A]], [[0, 0.8, *A]])
    result = evaluate([([], [[0, 0.9, *A]]), good])
    assert all(result[key] == pytest.approx(0.5) for key in MAP_KEYS)
    # Without detections there either, it changes nothing.
    assert evaluate([([], []), good]) == evaluate([good])


def test_image_without_detections_loses_recall():
    result = evaluate([([[0, *A]], [[0, 0.8, *A]]), ([[0, *B]], [])])
    assert result["voc_map"] == pytest.approx(0.5)
    assert result["map_50"] == pytest.approx(51 / 101)


def test_class_without_objects_is_left_out_of_the_mean():
    result = evaluate([([[2, *A]], [[2, 0.8, *A], [0, 0.9, *A], [5, 0.7, *B]])])
    assert all(result[key] == pytest.approx(1) for key in MAP_KEYS)
    by_class = result["ap_50_by_class"]
    assert by_class[2] == pytest.approx(1)
    assert set(by_class) == {0, 2, 5}
    assert np.isnan([by_class[0], by_class[5]]).all()


def test_class_never_detected_counts_as_zero():
    result = evaluate([([[0, *A], [1, *B]], [[0, 0.8, *A]])])
    assert all(result[key] == pytest.approx(0.5) for key in MAP_KEYS)
    assert result["ap_50_by_class"] == {0: pytest.approx(1), 1: 0}


def test_no_detection_at_all_is_zero_and_no_object_at_all_is_nan():
    nothing_found = evaluate([([[0, *A]], []), ([[1, *A]], [])])
    assert all(nothing_found[key] == 0 for key in MAP_KEYS)
    nothing_there = evaluate([([], [[0, 0.8, *A]]), ([], [])])
    assert all(np.isnan(nothing_there[key]) for key in MAP_KEYS)
    assert np.isnan(nothing_there["ap_50_by_class"][0])
    assert evaluate([([], [])])["ap_50_by_class"] == {}


def test_tensors_without_columns():
    evaluator = DetectionEvaluator()
    detections = {
        "boxes": tf.zeros((2, 0, 4)),
        "scores": tf.zeros((2, 0)),
        "classes": tf.zeros((2, 0), tf.int32),
        "num_valid": tf.zeros((2,), tf.int32),
    }
    evaluator.update(tf.zeros((2, 0, 5)), detections)
    assert np.isnan(evaluator.result()["map"])
    evaluator.update(np.array([[[0, *A]], [[-1, *A]]]), detections)
    assert evaluator.result()["map"] == 0


def test_nothing_taken_in_is_an_error():
    with pytest.raises(InputError, match="update"):
        DetectionEvaluator().result()


# ---------------------------------------------------------------- against references


def test_padding_is_inert():
    rng = np.random.default_rng(0)
    labels, detections = batch_of(random_images(rng, 12))
    plain = DetectionEvaluator()
    plain.update(labels, detections)

    # Padding rows that hold a perfect pair, NaN, and a huge score, before and after the rest.
    pad = np.zeros((12, 2, 5), np.float32)
    pad[..., 0] = -1
    pad[..., 1:] = [A, [np.nan, np.inf, 0, -5]]
    row = {
        "boxes": np.tile(np.float32([A, [np.nan] * 4])[None], (12, 1, 1)),
        "scores": np.full((12, 2), 2, np.float32),
        "classes": np.full((12, 2), -1, np.int32),
    }
    padded = {k: np.concatenate([detections[k], row[k]], axis=1) for k in row}
    other = DetectionEvaluator()
    other.update(np.concatenate([pad, labels, pad], axis=1), padded)
    assert same(other.result(), plain.result())

    # Rows past num_valid, with a class.
    row["classes"][:] = 0
    padded = {k: np.concatenate([detections[k], row[k]], axis=1) for k in row}
    other.reset()
    other.update(labels, padded | {"num_valid": detections["num_valid"]})
    assert same(other.result(), plain.result())


@pytest.mark.parametrize("seed", range(12))
def test_voc_equals_the_devkit(seed):
    images = random_images(np.random.default_rng(seed), 20, ignored=0.3 * (seed >= 6))
    result = evaluate(images)
    eleven, area = slow_voc(images)
    assert 0.02 < area < 0.98
    assert result["voc07_map"] == pytest.approx(eleven, abs=1e-12)
    assert result["voc_map"] == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_coco_equals_pycocotools_in_pixels_of_images_of_any_shape(seed):
    rng = np.random.default_rng(100 + seed)
    images = random_images(rng, 20, ignored=0.3 * (seed >= 6))
    # Not square, and not all of one shape. Detections far beyond 100 an image in one case.
    sizes = rng.integers(40, 900, (len(images), 2))
    if seed == 0:
        images += random_images(rng, 2, max_objects=40, max_detections=900)
        sizes = np.r_[sizes, [[300, 200], [64, 512]]]
    result = evaluate(images)
    expected = pixel_coco(images, sizes)
    assert [result["map"], result["map_50"], result["map_75"]] == pytest.approx(expected, abs=1e-9)


def test_batches_equal_one_batch_and_the_screen_stays_empty(capfd):
    images = random_images(np.random.default_rng(3), 9)
    evaluator = DetectionEvaluator()
    for i in range(0, 9, 4):
        labels, detections = batch_of(images[i : i + 4])
        evaluator.update(tf.constant(labels), {k: tf.constant(v) for k, v in detections.items()})
    assert evaluator.num_images == 9
    assert same(evaluator.result(), evaluate(images))
    assert capfd.readouterr().out == ""


def test_objects_of_different_batches_are_different_objects():
    evaluator = DetectionEvaluator()
    for _ in range(3):
        evaluator.update(*batch_of([([[0, *A], [0, *B]], [[0, 0.9, *A], [0, 0.8, *B]])]))
    assert evaluator.result()["voc_map"] == 1
    images = random_images(np.random.default_rng(4), 40)
    evaluator.reset()
    for image in images:
        evaluator.update(*batch_of([image]))
    assert same(evaluator.result(), evaluate(images))


def test_five_hundred_images_in_seconds():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.7, (500, 100, 2))
    boxes = np.concatenate([low, low + 0.2], axis=-1)
    labels = np.concatenate([rng.integers(3, size=(500, 5, 1)), boxes[:, :5]], axis=-1)
    start = time.process_time()
    evaluator = DetectionEvaluator()
    for i in range(0, 500, 32):
        found = {
            "boxes": boxes[i : i + 32],
            "scores": rng.random((500, 100))[i : i + 32],
            "classes": rng.integers(3, size=(500, 100))[i : i + 32],
        }
        evaluator.update(labels[i : i + 32], found)
    evaluator.result()
    assert time.process_time() - start < 20  # 3 s when this was written, nearly all pycocotools


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((1, 5))}, r"labels must have shape 3 dimensions.*got \(1, 5\)"),
        ({"labels": np.float32([[[0.5, *A]]])}, "class 0.5"),
        ({"labels": np.float32([[[-2, *A]]])}, "class -2"),
        ({"labels": np.float32([[[np.nan, *A]]])}, "class nan"),
        ({"labels": np.float32([[[0, 0.5, 0.1, 0.2, 0.9]]])}, "x_max >= x_min"),
        ({"labels": np.float32([[[0, 0.1, np.nan, 0.2, 0.9]]])}, "nan"),
        ({"boxes": np.zeros((2, 1, 4))}, r"boxes'\] has shape \(2, 1, 4\)"),
        ({"boxes": np.full((1, 1, 4), np.nan)}, "nan.*diverged"),
        ({"scores": np.full((1, 1), np.inf)}, "score inf"),
        ({"scores": np.zeros((1, 3))}, r"scores'\] has shape \(1, 3\)"),
        ({"num_valid": np.zeros((1, 1))}, "num_valid"),
        ({"scores": None}, "missing"),
    ],
)
def test_errors_say_what_arrived(change, message):
    labels, detections = batch_of([([[0, *A]], [[0, 0.9, *A]])])
    labels = change.pop("labels", labels)
    detections |= change
    detections = {k: v for k, v in detections.items() if v is not None}
    with pytest.raises(InputError, match=message):
        DetectionEvaluator().update(labels, detections)


# ---------------------------------------------------------------- in fit


class Echo(keras.Model):
    """Its `detect` finds the box that is painted into the images."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.calls = 0

    def call(self, images):
        return self.dense(images)

    def detect(self, images):
        self.calls += 1
        return {
            "boxes": images[:, None, :4],
            "scores": tf.ones_like(images[:, None, 0]),
            "classes": tf.zeros_like(images[:, None, 0], tf.int32),
            "num_valid": tf.ones_like(images[:, 0], tf.int32),
        }


def echo_data():
    images = np.float32([A, B, C, AWAY])
    labels = np.float32([[[0, *A]], [[0, *B]], [[0, *C]], [[0, *A]]])  # 3 of 4 found
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)


def test_evaluate_detections_runs_the_whole_data_set():
    result = evaluate_detections(Echo(), echo_data())
    # Equal scores in this order: right, right, right, wrong.
    assert result["voc_map"] == pytest.approx(0.75)
    with pytest.raises(InputError, match="no image"):
        evaluate_detections(Echo(), echo_data().take(0))


def test_callback_reaches_history_and_csv(tmp_path):
    model = Echo()
    model.compile("sgd", "mse", jit_compile=False)
    callback = MeanAveragePrecisionCallback(echo_data(), every=3)
    csv_logger = keras.callbacks.CSVLogger(str(tmp_path / "history.csv"))
    history = model.fit(
        np.ones((4, 4)), np.ones((4, 1)), epochs=4, verbose=0, callbacks=[callback, csv_logger]
    ).history
    assert model.calls == 2 * 2  # two batches, in epoch 3 and in the last
    for key in MAP_KEYS:
        values = history[f"val_{key}"]
        assert np.isnan(values[:2]).all()
        assert not np.isnan(values[2:]).any()
    assert history["val_voc_map"][3] == pytest.approx(0.75)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert "val_map_50" in lines[0]
    assert len(lines) == 5


@pytest.mark.parametrize("every", [0, 1.5, "1"])
def test_callback_refuses_a_bad_interval(every):
    with pytest.raises(InputError, match="every"):
        MeanAveragePrecisionCallback(echo_data(), every=every)


def test_curves_and_errors_of_each_image():
    """Hits, a second hit on one object, a false one and a hit on an ignored object."""
    box, other = [0.1, 0.1, 0.5, 0.4], [0.6, 0.5, 0.9, 0.9]
    none = [-1.0] * 4
    labels = {
        "boxes": np.array([[box, other], [box, none], [box, none]], np.float32),
        "classes": np.array([[0, 0], [0, -1], [0, -1]]),
        "ignore": np.array([[False, False], [True, False], [False, False]]),
    }
    detections = {
        "boxes": np.array([[box, box], [box, other], [none, none]], np.float32).clip(0),
        "scores": np.array([[0.9, 0.8], [0.7, 0.6], [0, 0]]),
        "classes": np.array([[0, 0], [0, 0], [-1, -1]]),
    }
    evaluator = DetectionEvaluator()
    evaluator.update(labels, detections)
    ((recall, precision, scores),) = evaluator.precision_recall().values()
    np.testing.assert_allclose(recall, [1 / 3] * 3)  # of three objects
    np.testing.assert_allclose(precision, [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.6])  # 0.7 is on an ignored object
    missed, false = evaluator.errors_by_image(0.5)
    assert missed.tolist() == [1, 0, 1] and false.tolist() == [1, 1, 0]
    missed, false = evaluator.errors_by_image(0.85)
    assert missed.tolist() == [1, 0, 1] and false.tolist() == [0, 0, 0]
    assert evaluator.errors_by_image(0.95)[0].tolist() == [2, 0, 1]


@pytest.mark.parametrize("digits", [4, 1])
def test_best_score_threshold_is_that_of_the_greatest_f1(digits):
    """Against a loop over all thresholds, with two classes, an ignored object and ties."""
    random = np.random.default_rng(4)
    boxes = random.uniform(0, 0.5, (6, 8, 2))
    boxes = np.concatenate([boxes, boxes + 0.4], axis=2).astype("float32")
    classes = random.integers(0, 2, (6, 8))
    labels = {"boxes": boxes[:, :5], "classes": classes[:, :5], "ignore": np.zeros((6, 5), bool)}
    labels["ignore"][:, 0] = True
    shifted = boxes + random.normal(0, 0.05, boxes.shape).astype("float32")
    scores = np.round(random.uniform(0, 1, (6, 8)), digits).astype("float32")
    evaluator = DetectionEvaluator()
    evaluator.update(labels, {"boxes": shifted, "scores": scores, "classes": classes})
    f1 = {}
    for threshold in np.unique(scores):
        missed, false = (n.sum() for n in evaluator.errors_by_image(threshold))
        found = 6 * 4 - missed
        f1[threshold] = 2 * found / (2 * found + false + missed)
    best = max(f1, key=lambda t: (f1[t], t))
    assert evaluator.best_score_threshold() == pytest.approx(np.floor(100 * best) / 100)
    assert 0.05 < best < 0.95
    nothing = DetectionEvaluator()
    nothing.update(labels, {"boxes": shifted, "scores": scores, "classes": classes + 2})
    assert np.isnan(nothing.best_score_threshold())
