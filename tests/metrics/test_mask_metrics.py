"""Mean average precision of masks, compared with pycocotools called by hand."""

import contextlib
import io

import keras
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kerascv_d2l.data.splits import Split
from kerascv_d2l.errors import InputError
from kerascv_d2l.metrics.callbacks import MeanAveragePrecisionCallback
from kerascv_d2l.metrics.detection import MASK_MAP_KEYS, DetectionEvaluator, evaluate_detections

pytestmark = pytest.mark.quick
SIZES = [(30, 50), (44, 32), (25, 25), (61, 40)]  # height x width of four images
CELLS, ROWS = 7, 9  # of a mask in its box; detections an image


def truth():
    """A split: discs and rings of three classes in images of four sizes, some ignored."""
    draw = np.random.default_rng(4)
    targets = {"boxes": [], "classes": [], "ignore": [], "masks": []}
    for height, width in SIZES:
        y, x = np.mgrid[:height, :width] + 0.5
        boxes, masks = [], []
        for _ in range(draw.integers(2, 5)):
            radius, middle = draw.uniform(4, 9), draw.uniform(9, (height - 9, width - 9))
            distance = np.hypot(y - middle[0], x - middle[1])
            mask = (distance < radius) & (distance > draw.choice([-1, radius / 2]))
            edges = [f(np.flatnonzero(mask.any(axis))) for f in (min, max) for axis in (0, 1)]
            boxes.append(np.add(edges, [0, 0, 1, 1]) / [width, height, width, height])
            masks.append(mask)
        targets["boxes"].append(boxes)
        targets["classes"].append(draw.integers(0, 3, len(boxes)))
        targets["ignore"].append(draw.random(len(boxes)) < 0.2)
        targets["masks"].append(
            [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        )
    return Split([b""] * len(SIZES), targets, [str(k) for k in range(len(SIZES))], SIZES)


def detections_near(split):
    """Boxes near the objects with masks near theirs, and false ones; padded rows."""
    draw = np.random.default_rng(5)
    count = len(split)
    found = {
        "boxes": np.zeros((count, ROWS, 4), np.float32),
        "scores": np.zeros((count, ROWS), np.float32),
        "classes": np.full((count, ROWS), -1, np.int32),
        "masks": draw.random((count, ROWS, CELLS, CELLS), np.float32),
    }
    y, x = np.abs(np.mgrid[:CELLS, :CELLS] - CELLS // 2)
    for i, boxes in enumerate(split.targets["boxes"]):
        rows = draw.permutation(np.repeat(np.arange(len(boxes)), 2))[: ROWS - 1]
        n = len(rows)
        found["boxes"][i, :n] = np.clip(boxes[rows] + draw.normal(0, 0.03, (n, 4)), 0, 1)
        found["scores"][i, :n] = -np.sort(-draw.random(n))
        sure = draw.random(n) < 0.8
        found["classes"][i, :n] = np.where(sure, split.targets["classes"][i][rows], 1)
        found["masks"][i, :n] = (np.hypot(y, x) < 3.2) * 0.8 + 0.1
    return found


def pasted_slowly(mask, box, size):
    """Each pixel by itself: bilinear at its centre, zeros around the mask."""
    height, width = size
    x_min, y_min, x_max, y_max = box.astype(np.float64) * [width, height, width, height]
    around = np.pad(mask.astype(np.float64), 1)
    found = np.zeros(size, np.uint8)
    for i in range(height):
        for j in range(width):
            v = (i + 0.5 - y_min) / (y_max - y_min) * CELLS + 0.5  # + 1 for the padding
            u = (j + 0.5 - x_min) / (x_max - x_min) * CELLS + 0.5
            if 0 <= v < CELLS + 1 and 0 <= u < CELLS + 1:
                a, b = int(v), int(u)
                p, q = v - a, u - b
                top = around[a, b] * (1 - q) + around[a, b + 1] * q
                bottom = around[a + 1, b] * (1 - q) + around[a + 1, b + 1] * q
                found[i, j] = top * (1 - p) + bottom * p >= 0.5
    return found


def by_hand(split, found, masks):
    """pycocotools' figures of masks `masks[image][row]`, called as its own example does."""
    annotations, results = [], []
    for i in range(len(split)):
        rows = zip(*(split.targets[n][i] for n in ("classes", "ignore", "masks")), strict=True)
        for kind, ignore, mask in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(kind),
                    "iscrowd": int(ignore),
                    "segmentation": mask,
                    "bbox": coco_mask.toBbox(mask).tolist(),
                    "area": float(coco_mask.area(mask)),
                }
            )
        for k in np.flatnonzero(found["classes"][i] >= 0):
            results.append(
                {
                    "image_id": i,
                    "category_id": int(found["classes"][i, k]),
                    "score": float(found["scores"][i, k]),
                    "segmentation": coco_mask.encode(np.asfortranarray(masks[i][k], np.uint8)),
                }
            )
    data = COCO()
    data.dataset = {
        "info": {},
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(split.sizes)],
        "categories": [{"id": k} for k in range(3)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3].tolist()


def slowly_pasted(split, found):
    return [
        [pasted_slowly(m, b, split.sizes[i]) for m, b in zip(found["masks"][i], boxes, strict=True)]
        for i, boxes in enumerate(found["boxes"])
    ]


def batch(found, rows):
    return {name: value[rows] for name, value in found.items()}


def labels_of(split, i):
    return {name: np.stack([split.targets[name][i]]) for name in ("boxes", "classes", "ignore")}


def test_figures_are_those_of_pycocotools_at_the_size_of_each_image(monkeypatch):
    split = truth()
    found = detections_near(split)
    masks = slowly_pasted(split, found)
    expected = by_hand(split, found, masks)
    assert 0.1 < expected[0] < expected[1] < 0.95
    monkeypatch.setattr("kerascv_d2l.metrics.detection.PIXELS_AT_ONCE", 3000)  # few at a time
    results = []
    for pasted in (False, True):
        evaluator = DetectionEvaluator(split)
        for i in range(len(split)):
            detections = batch(found, [i])
            if pasted:
                detections["masks"] = np.stack([masks[i]])
            evaluator.update(labels_of(split, i), detections)
        results.append(evaluator.result())
        assert [results[-1][key] for key in MASK_MAP_KEYS] == pytest.approx(expected, abs=1e-9)
    plain = DetectionEvaluator()
    for i in range(len(split)):
        plain.update(labels_of(split, i), batch(found, [i]))
    for key, value in plain.result().items():  # of the boxes nothing changes
        assert results[0][key] == value
    assert results[0]["mask_map_50"] != results[0]["map_50"]


def test_what_does_not_fit_is_an_error():
    split = truth()
    found, labels = batch(detections_near(split), [0]), labels_of(split, 0)
    evaluator = DetectionEvaluator(split)
    without = {name: value for name, value in found.items() if name != "masks"}
    with pytest.raises(InputError, match="'masks' is missing"):
        evaluator.update(labels, without)
    with pytest.raises(InputError, match=r"masks'\] are \(30, 49\) pixels .* \(30, 50\)"):
        evaluator.update(labels, found | {"masks": np.zeros((1, ROWS, 30, 49), bool)})
    with pytest.raises(InputError, match="image 0 has"):
        evaluator.update({name: rows[:, 1:] for name, rows in labels.items()}, found)
    empty = Split([b""], {"boxes": [[]], "classes": [[]], "masks": [[]]}, ["a"], [(30, 50)])
    evaluator = DetectionEvaluator(empty)
    evaluator.update(labels_of(empty, 0), found)
    assert all(np.isnan(evaluator.result()[key]) for key in MASK_MAP_KEYS)


class Known(keras.Model):
    """Finds what it was given, image by image."""

    def __init__(self, found):
        super().__init__()
        self.found, self.layer = found, keras.layers.Dense(1)

    def call(self, x):
        return self.layer(x)

    def detect(self, images):
        return batch(self.found, images[:, 0].numpy().astype(int))


def test_the_callback_writes_them_into_the_logs():
    import tensorflow as tf

    split = truth()
    found = detections_near(split)
    model = Known(found)
    images = [([[float(i)]], labels_of(split, i)) for i in range(len(split))]
    signature = (
        tf.TensorSpec((1, 1)),
        {
            "boxes": tf.TensorSpec((1, None, 4)),
            "classes": tf.TensorSpec((1, None), tf.int32),
            "ignore": tf.TensorSpec((1, None), tf.bool),
        },
    )
    dataset = tf.data.Dataset.from_generator(lambda: images, output_signature=signature)
    model.compile("sgd", "mse", jit_compile=False)
    callback = MeanAveragePrecisionCallback(dataset, every=2, truth=split)
    history = model.fit(np.ones((2, 1)), np.ones(2), epochs=2, verbose=0, callbacks=[callback])
    expected = evaluate_detections(model, dataset, split)
    for key in MASK_MAP_KEYS:
        first, second = history.history[f"val_{key}"]
        assert np.isnan(first) and second == callback.result[key] == expected[key] > 0
