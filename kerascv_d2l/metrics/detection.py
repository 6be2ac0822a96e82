"""Metrics of detectors: the book's two sums, and mean average precision."""

import contextlib
import io

import keras
import numpy as np
import tensorflow as tf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.checks import as_targets
from kerascv_d2l.ops.mask_pasting import paste_masks
from kerascv_d2l.ops.rle import encode_masks, mask_area

VOC_IOU_THRESHOLD = 0.5  # the VOC devkit's VOCopts.minoverlap
VOC07_RECALL_LEVELS = 11  # 0, 0.1, … 1
COCO_MAX_DETECTIONS = 100  # a class and image; the rest COCO does not look at, see `_coco_limit`
# COCO's size classes are in pixels and mean nothing for normalised boxes, whose
# area is below 1: one range that takes everything, "all" in COCO's words.
COCO_AREA_RANGE = [0.0, 1e10]

# The scalars of `DetectionEvaluator.result`; all lie between 0 and 1.
MAP_KEYS = ("map", "map_50", "map_75", "voc07_map", "voc_map")
MASK_MAP_KEYS = ("mask_map", "mask_map_50", "mask_map_75")  # where there are masks

MASK_THRESHOLD = 0.5  # probability from which a pixel belongs to an object
PIXELS_AT_ONCE = 2**24  # of masks that are pasted at one time, a float32 each


def cls_eval(cls_preds, cls_labels):
    """Count the anchors that are classed right.

    Args:
        cls_preds: float `(batch, anchors, classes + 1)`, scores or logits.
        cls_labels: int `(batch, anchors)`, 0 for background.

    Returns:
        float32 scalar tensor: how many anchors (exact up to 2**24) have their
        largest score at the label's class; of equal scores the lowest class counts.

    Source:
        D2L 1.0.3, section 14.7, `cls_eval`.
    """
    labels = tf.cast(cls_labels, tf.int32)
    predicted = tf.argmax(cls_preds, axis=-1, output_type=tf.int32)  # (batch, anchors)
    return tf.reduce_sum(tf.cast(predicted == labels, tf.float32))


def bbox_eval(bbox_preds, bbox_labels, bbox_masks):
    """Add up the absolute errors of the offsets that count.

    Args:
        bbox_preds: float `(batch, 4 * anchors)`, predicted offsets.
        bbox_labels: float `(batch, 4 * anchors)`, target offsets.
        bbox_masks: float `(batch, 4 * anchors)`, 1 where an anchor has an object, else 0.

    Returns:
        float32 scalar tensor: sum of |(label - prediction) * mask|, in units of
        the scaled offsets of `offset_boxes`.

    Source:
        D2L 1.0.3, section 14.7, `bbox_eval`.
    """
    # float32 before the sum: float16 ends at 65504.
    difference = tf.cast(bbox_labels, tf.float32) - tf.cast(bbox_preds, tf.float32)
    return tf.reduce_sum(tf.abs(difference * tf.cast(bbox_masks, tf.float32)))


class DetectionEvaluator:
    """Collect detections and ground truth batch by batch, then compute mean average precision.

    Two rules are computed from the same boxes:

    - COCO, by pycocotools: detections, best score first, each take the free
      object that they overlap most; precision is read at 101 recall levels; at
      most 100 detections a class and image, unless an image has more objects of
      one class than that: then all count.
    - Pascal VOC, as the devkit does it: each detection goes to the object of its
      class and image that it overlaps most (of equal ones the first). It is
      right if that IoU is >= 0.5 and no better-scored detection has had that
      object, even if another object were free. `voc07_map` averages the
      interpolated precision at 11 recall levels (compared exactly: 3 objects of
      10 do reach recall 0.3), `voc_map` is the area under the interpolated curve.

    Ignored objects (VOC: difficult, COCO: crowds) do not count in recall, and
    what is found on them is neither right nor wrong. VOC: a detection that goes to
    an ignored object by the rule above. COCO: each ignored object is a crowd, as
    `iscrowd` = 1 in pycocotools: a detection that takes no other object falls on it if
    the intersection over the area of the *detection* reaches the threshold, and any
    number of detections may.

    In both, equal scores keep the order in which they came; an image without
    objects makes each of its detections a false positive; an object never
    detected lowers recall; a class without any object that counts in the whole set
    is left out of the mean. Where there is no such object of any class every mean is
    NaN (pycocotools writes -1 there).

    Boxes are normalised, which leaves IoU as it is in pixels, whatever the shape
    of the image. The devkit counts a box as one pixel wider and higher than the
    difference of its corners; that has no meaning here and is left out, as in COCO.

    With `truth` COCO's figures are computed of the masks, too, each at the size of its own
    image; ignored objects as above. They are kept encoded.

    Args:
        truth: None, or what has the masks of the objects: a `Split` for detection with
            `masks`, whose images come in its order, and with all their objects.
    """

    def __init__(self, truth=None):
        self.truth = truth
        self.reset()

    def reset(self):
        """Forget everything collected."""
        self.num_images = 0
        self._num_objects = 0
        self._objects = []  # (image, class, box, ignore) of each batch, flat
        self._detections = []  # (image, class, score, box, best IoU, best object) of each batch
        self._masks = [], []  # encoded, of all objects and of all detections

    def update(self, labels, detections):
        """Add one batch.

        Args:
            labels: dict of `boxes`, `classes` and `ignore`, or rows `(batch, m, 5)`, see
                `kerascv_d2l.ops.checks.as_targets`; other keys are not read.
            detections: dict as `detect` returns it: `boxes` float `(batch, n, 4)`
                normalised corners, `scores` float `(batch, n)`, `classes` int `(batch, n)`,
                -1 for padding, and, optional, `num_valid` int `(batch,)`: rows from there
                on are padding too. With `truth` also `masks`: uint8 or bool `(batch, n, height,
                width)` in images of their own size; or probabilities within each box as
                `decode` gives them, float `(batch, n, rows, columns)`. Other keys are not read.

        Raises:
            InputError: if a key or a shape is wrong, an object has a wrong class or box,
                or a detection that is not padding has coordinates or scores that are not
                finite; or masks are missing, or there are others than objects.
        """
        targets = as_targets(labels)
        gt_boxes = targets["boxes"].numpy().astype(np.float64)
        gt_classes, ignore = targets["classes"].numpy(), targets["ignore"].numpy()
        batch = len(gt_boxes)
        is_object = gt_classes >= 0  # (batch, m)
        boxes, scores, classes, is_detection = _read_detections(detections, batch)
        if self.truth is not None:
            self._add_masks(detections, boxes, is_detection, is_object.sum(axis=1))

        # (batch, n, 1, 4), (batch, 1, m, 4) -> (batch, n, m)
        iou = _iou(boxes[:, :, None], gt_boxes[:, None])
        pairs = is_detection[:, :, None] & is_object[:, None]  # (batch, n, m)
        pairs &= classes[:, :, None] == gt_classes[:, None]
        iou = np.where(pairs, iou, -1.0)
        # A column that never wins, so that argmax has one where m is 0.
        iou = np.pad(iou, ((0, 0), (0, 0), (0, 1)), constant_values=-1.0)  # (batch, n, m + 1)
        best = iou.argmax(axis=2)  # (batch, n)
        best_iou = np.take_along_axis(iou, best[..., None], axis=2)[..., 0]  # (batch, n)
        # Numbers of the objects through the whole set; meaningless for padding.
        number = np.cumsum(is_object).reshape(is_object.shape) - 1 + self._num_objects
        number = np.pad(number, ((0, 0), (0, 1)), constant_values=-1)  # (batch, m + 1)
        best_object = np.take_along_axis(number, best, axis=1)  # (batch, n)

        gt_image, det_image = np.nonzero(is_object)[0], np.nonzero(is_detection)[0]
        columns = gt_classes, gt_boxes, ignore
        self._objects.append((gt_image + self.num_images, *(c[is_object] for c in columns)))
        columns = classes, scores, boxes, best_iou, best_object
        self._detections.append((det_image + self.num_images, *(c[is_detection] for c in columns)))
        self.num_images += batch
        self._num_objects += len(gt_image)

    def _add_masks(self, detections, boxes, is_detection, num_objects):
        """Encode masks of a batch, at the sizes of the images."""
        if "masks" not in detections:
            raise InputError(f"detections has the keys {sorted(detections)}; 'masks' is missing.")
        masks = detections["masks"]
        for i, count in enumerate(num_objects):
            index = self.num_images + i
            known = self.truth.targets["masks"][index] if index < len(self.truth) else ()
            if len(known) != count:
                raise InputError(
                    f"image {index} has {count} objects, and `truth` {len(known)} masks for it; "
                    "pass all images of the split, in its order."
                )
            rows = np.flatnonzero(is_detection[i])
            size = tuple(map(int, self.truth.sizes[index]))
            self._masks[0].extend(known)
            self._masks[1].extend(_encoded(masks[i], rows, boxes[i], size))

    def result(self):
        """Compute mean average precision over everything collected so far.

        Returns:
            dict of floats between 0 and 1: `map` (COCO, mean over IoU 0.50, 0.55, … 0.95),
            `map_50` and `map_75` (COCO at that IoU), `voc07_map`, `voc_map` (VOC, IoU 0.5);
            with `truth` also `mask_map`, `mask_map_50`, `mask_map_75`, COCO's of the masks;
            NaN if no object that counts was seen. And `ap_50_by_class`: dict from class
            index to COCO's average precision at IoU 0.50, NaN for a class without an
            object that counts.

        Raises:
            InputError: if there was no batch.
        """
        objects, detections = self._collected()
        by_class = {int(c): float("nan") for c in np.union1d(objects[1], detections[1])}
        known = np.unique(objects[1][~objects[3]])  # the classes that have objects
        if not len(known):
            keys = MAP_KEYS + (MASK_MAP_KEYS if self.truth is not None else ())
            return {**dict.fromkeys(keys, float("nan")), "ap_50_by_class": by_class}

        coco = _coco_average_precision(
            known, objects, detections[:4], self.num_images
        )  # (iou, class)
        by_class.update(zip(known.tolist(), coco[0].tolist(), strict=True))
        voc = np.array([_voc_average_precision(c, objects, detections) for c in known])
        voc07_map, voc_map = voc.mean(axis=0)  # (class, 2) -> (2,)
        masks = {}
        if self.truth is not None:
            of_masks = _coco_average_precision(
                known, objects, detections[:4], self.num_images, self._masks
            )
            masks = dict(zip(MASK_MAP_KEYS, _coco_means(of_masks), strict=True))
        boxes = (*_coco_means(coco), float(voc07_map), float(voc_map))
        return {
            **dict(zip(MAP_KEYS, boxes, strict=True)),
            **masks,
            "ap_50_by_class": by_class,
        }

    def precision_recall(self):
        """Compute the curves under which `voc_map` is the area: precision over recall at IoU 0.5.

        Returns:
            dict from the index of every class with objects to a tuple of float arrays `(k,)`,
            by falling score: recall, precision, score.

        Raises:
            InputError: if there was no batch.
        """
        objects, detections = self._collected()
        curves = {}
        for class_index in np.unique(objects[1][~objects[3]]):
            mine, right, num_objects = _voc_matches(class_index, objects, detections)
            found = np.cumsum(right)
            precision = found / np.arange(1, len(mine) + 1)
            curves[int(class_index)] = found / num_objects, precision, detections[2][mine]
        return curves

    def best_score_threshold(self):
        """Find the score from which on detections are best believed.

        Returns:
            float in [0, 1]: of all thresholds the one with the greatest F1 at IoU 0.5, over the
            objects of all classes together, rounded down to hundredths; NaN where nothing is
            found.

        Raises:
            InputError: if there was no batch.
        """
        objects, detections = self._collected()
        scores, right = [np.zeros(0)], [np.zeros(0, bool)]
        for class_index in np.unique(detections[1]):
            mine, hits, _ = _voc_matches(class_index, objects, detections)
            scores.append(detections[2][mine])
            right.append(hits)
        scores, right = np.concatenate(scores), np.concatenate(right)
        if not right.any():
            return float("nan")
        order = np.argsort(-scores, kind="stable")
        scores, right = scores[order], right[order]
        # F1 is 2 right / (detections + objects).
        f1 = np.cumsum(right) / (np.arange(len(order)) + 1 + np.sum(~objects[3]))
        # A threshold lets in all detections of equal score, up to the last of them.
        last = np.append(scores[1:] < scores[:-1], True)
        return float(np.floor(100 * scores[last][f1[last].argmax()]) / 100)

    def errors_by_image(self, score_threshold):
        """Count what is wrong with the detections of at least a score, at IoU 0.5.

        Args:
            score_threshold: float.

        Returns:
            Two int arrays `(images,)`, in the order in which they came: objects that were
            missed, and detections that are false.

        Raises:
            InputError: if there was no batch.
        """
        objects, detections = self._collected()
        missed = np.bincount(objects[0][~objects[3]], minlength=self.num_images)
        false = np.zeros_like(missed)
        for class_index in np.unique(detections[1]):
            mine, right, _ = _voc_matches(class_index, objects, detections)
            sure = detections[2][mine] >= score_threshold
            image = detections[0][mine]
            missed -= np.bincount(image[sure & right], minlength=self.num_images)
            false += np.bincount(image[sure & ~right], minlength=self.num_images)
        return missed, false

    def _collected(self):
        """Columns of all objects, and of all detections."""
        if not self.num_images:
            raise InputError("There is nothing to evaluate: call update() with a batch first.")
        return (
            [np.concatenate(column) for column in zip(*batches, strict=True)]
            for batches in (self._objects, self._detections)
        )


def evaluate_detections(model, dataset, truth=None):
    """Run a detector over a data set and compute its metrics in one pass.

    Args:
        model: `kerascv_d2l.models.detector.Detector`, or anything with `detect(images)`
            returning the dict that `DetectionEvaluator.update` takes.
        dataset: iterable of batches `(images, labels)`, such as a batched
            `tf.data.Dataset`: images as the model takes them (a dict: as `detect` takes
            arguments), labels as `DetectionEvaluator.update` takes them. It must end.
        truth: as for `DetectionEvaluator`: for figures of the masks, too.

    Returns:
        dict: see `DetectionEvaluator.result`; before these `score_threshold`, see
        `DetectionEvaluator.best_score_threshold`; and for a compiled `Detector`, `loss` and its
        other metrics, as `model.evaluate(dataset, return_dict=True)` gives them. (For a model on
        several devices that is a second pass, which all of them share.)

    Raises:
        InputError: if the data set has no batch, or labels or detections are not
            as `DetectionEvaluator.update` takes them.
    """
    evaluator, losses, one_pass = DetectionEvaluator(truth), {}, False
    if getattr(model, "compiled", False) and hasattr(model, "evaluate_batch"):
        one_pass = model.distribute_strategy.num_replicas_in_sync == 1
        if not one_pass:
            losses = model.evaluate(dataset, verbose=0, return_dict=True)
        model.reset_metrics()
    loss = keras.metrics.Mean()
    for images, labels in dataset:
        counted = evaluator.num_images
        if one_pass:
            batch_loss, detections = model.evaluate_batch(images, labels)
        elif isinstance(images, dict):  # with proposals
            detections = model.detect(**images)
        elif truth is not None and hasattr(model, "detect_in_boxes"):
            detections = model.detect_in_boxes(images)  # pasted at their own sizes later
        else:
            detections = model.detect(images)
        evaluator.update(labels, detections)
        if one_pass:
            loss.update_state(batch_loss, sample_weight=evaluator.num_images - counted)
    if not evaluator.num_images:
        raise InputError("dataset gave no image to evaluate on; pass one that is not empty.")
    if one_pass:
        losses = {k: float(v) for k, v in model.get_metrics_result().items()}
        losses["loss"] = float(loss.result())
    return losses | {"score_threshold": evaluator.best_score_threshold()} | evaluator.result()


def _read_detections(detections, batch):
    """Convert the dict of `detect` to arrays, and mark what is not padding."""
    missing = {"boxes", "scores", "classes"} - set(detections)
    if missing:
        raise InputError(
            f"detections has the keys {sorted(detections)}; {sorted(missing)} is missing."
        )
    boxes = np.asarray(detections["boxes"], np.float64)
    scores = np.asarray(detections["scores"], np.float64)
    classes = np.asarray(detections["classes"]).astype(np.int64)
    if boxes.ndim != 3 or boxes.shape[0] != batch or boxes.shape[-1] != 4:
        raise InputError(
            f"detections['boxes'] has shape {boxes.shape}; pass (batch, n, 4) for the "
            f"{batch} images of labels."
        )
    for name, array in (("scores", scores), ("classes", classes)):
        if array.shape != boxes.shape[:2]:
            raise InputError(
                f"detections[{name!r}] has shape {array.shape} beside boxes of shape "
                f"{boxes.shape}; pass {boxes.shape[:2]}."
            )
    valid = classes >= 0  # (batch, n)
    if detections.get("num_valid") is not None:
        num_valid = np.asarray(detections["num_valid"])
        if num_valid.shape != (batch,):
            raise InputError(
                f"detections['num_valid'] has shape {num_valid.shape}; pass ({batch},)."
            )
        valid &= np.arange(boxes.shape[1]) < num_valid[:, None]  # (n,) < (batch, 1)
    finite = np.isfinite(boxes).all(axis=-1) & np.isfinite(scores)
    if not finite[valid].all():
        row = np.argwhere(valid & ~finite)[0]
        raise InputError(
            f"detections has box {boxes[tuple(row)].tolist()} with score {scores[tuple(row)]} "
            f"for image {row[0]} of the batch; has the model's training diverged?"
        )
    return boxes, scores, classes, valid


def _encoded(masks, rows, boxes, size):
    """Encode the masks of some detections of one image of `size`, a few at a time."""
    step = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
    pasted = masks.dtype in (np.uint8, bool, tf.uint8, tf.bool)
    if pasted and tuple(masks.shape[1:]) != size:
        raise InputError(
            f"detections['masks'] are {tuple(masks.shape[1:])} pixels high and wide, the image "
            f"{size}; detect in images of their own size."
        )
    masks, found = np.asarray(masks), []
    boxes = boxes * [size[1], size[0], size[1], size[0]]  # (n, 4) pixels
    for some in (rows[start : start + step] for start in range(0, len(rows), step)):
        each = masks[some]
        if not pasted:
            each = paste_masks(each, boxes[some], size, MASK_THRESHOLD).numpy()
        found += encode_masks(each)
    return found


def _iou(boxes1, boxes2):
    """IoU in float64, as pycocotools computes it; broadcasts `(…, 4)` to `(…)`."""
    with np.errstate(invalid="ignore", over="ignore"):  # padding rows may hold anything
        size1 = np.maximum(boxes1[..., 2:] - boxes1[..., :2], 0)
        size2 = np.maximum(boxes2[..., 2:] - boxes2[..., :2], 0)
        overlap = np.minimum(boxes1[..., 2:], boxes2[..., 2:]) - np.maximum(
            boxes1[..., :2], boxes2[..., :2]
        )
        intersection = np.maximum(overlap, 0).prod(axis=-1)
        union = size1.prod(axis=-1) + size2.prod(axis=-1) - intersection
        return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _voc_average_precision(class_index, objects, detections):
    """Average precision of one class that has objects, in both of the devkit's ways.

    Returns:
        `(eleven_point, area)`, floats.
    """
    _, right, num_objects = _voc_matches(class_index, objects, detections)
    found = np.cumsum(right)  # recall is found / num_objects
    precision = found / np.arange(1, len(right) + 1)
    # The largest precision at this recall or any above.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    area = envelope[right].sum() / num_objects  # each object found adds 1 / num_objects of recall
    # Recall >= k / 10 in whole numbers, where 0.3 as a float would be a matter of luck.
    steps = VOC07_RECALL_LEVELS - 1
    at = np.searchsorted(found * steps, np.arange(VOC07_RECALL_LEVELS) * num_objects)
    eleven_point = np.append(envelope, 0.0)[at].mean()  # 0 for a recall never reached
    return eleven_point, area


def _voc_matches(class_index, objects, detections):
    """Tell right detections of one class from wrong ones, as the devkit does.

    Returns:
        Tuple of the detections that are judged, int `(k,)`, best score first; bool `(k,)`,
        which of them are right; and the number of objects that count.
    """
    ignore = objects[3]
    num_objects = np.count_nonzero((objects[1] == class_index) & ~ignore)
    _, classes, scores, _, best_iou, best_object = detections
    mine = np.flatnonzero(classes == class_index)
    mine = mine[np.argsort(-scores[mine], kind="stable")]
    # The devkit: ovmax >= VOCopts.minoverlap, and neither right nor wrong on a difficult object.
    on_ignored = best_iou[mine] >= VOC_IOU_THRESHOLD
    on_ignored[on_ignored] = ignore[best_object[mine][on_ignored]]
    mine = mine[~on_ignored]
    hits = np.flatnonzero(best_iou[mine] >= VOC_IOU_THRESHOLD)
    # unique gives the first, so the best-scored, detection of each object.
    _, first = np.unique(best_object[mine][hits], return_index=True)
    right = np.zeros(len(mine), bool)
    right[hits[first]] = True
    return mine, right, num_objects


def _coco_means(precision):
    """Means over all IoUs, at 0.5 and at 0.75, of `_coco_average_precision`'s result."""
    return float(precision.mean()), float(precision[0].mean()), float(precision[5].mean())


def _coco_average_precision(known, objects, detections, num_images, masks=None):
    """Average precision by pycocotools for the classes `known`, which have objects.

    With `masks`, encodings of all objects and of all detections, of these and not of boxes.

    Returns:
        float `(10, classes)`: a row for each IoU 0.50, 0.55, … 0.95.
    """
    masks = masks or (None, None)
    rows = np.isin(objects[1], known)
    image, classes, boxes, ignore = (column[rows] for column in objects)
    truth = _coco_data(image, classes, boxes, num_images, known, "iscrowd", ignore)
    _add_segmentations(truth, masks[0], rows)
    rows = np.isin(detections[1], known)
    image, classes, scores, boxes = (column[rows] for column in detections)
    found = _coco_data(image, classes, boxes, num_images, known, "score", scores)
    _add_segmentations(found, masks[1], rows)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox" if masks[0] is None else "segm")
        evaluation.params.areaRng = [COCO_AREA_RANGE]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [_coco_limit(objects, detections)]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (iou, recall, class, area, max detections)
    return precision[..., 0, 0].mean(axis=1)


def _coco_limit(objects, detections):
    """How many detections of a class and image count, best score first.

    COCO's images have fewer objects than its limit. With more, the limit would bound recall.
    """

    def most(columns):  # rows of one class in one image
        pairs = np.stack([columns[0], columns[1]], axis=1)
        return np.unique(pairs, axis=0, return_counts=True)[1].max(initial=0)

    if most(objects) <= COCO_MAX_DETECTIONS:
        return COCO_MAX_DETECTIONS
    return max(COCO_MAX_DETECTIONS, int(most(detections)))


def _coco_data(images, classes, boxes, num_images, known_classes, key, values):
    """Annotations for pycocotools, each with `key` (`iscrowd` or `score`) besides its box."""
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)  # COCO: x, y, width, height
    rows = zip(
        images.tolist(),
        classes.tolist(),
        np.concatenate([boxes[:, :2], sizes], axis=1).tolist(),
        sizes.prod(axis=1).tolist(),
        values.tolist(),
        strict=True,
    )
    keys = ("image_id", "category_id", "bbox", "area", key)
    data = COCO()
    data.dataset = {
        "images": [{"id": image} for image in range(num_images)],
        "categories": [{"id": int(c)} for c in known_classes],
        "annotations": [
            # From 1: pycocotools takes the number 0 for "no match".
            {"id": number, "iscrowd": 0, **dict(zip(keys, row, strict=True))}
            for number, row in enumerate(rows, start=1)
        ],
    }
    return data


def _add_segmentations(data, masks, rows):
    """Give annotations the encodings of masks in `rows`, bool `(n,)`, their areas and sizes."""
    if masks is None:
        return
    annotations, images = data.dataset["annotations"], data.dataset["images"]
    for annotation, row in zip(annotations, np.flatnonzero(rows), strict=True):
        annotation |= {"segmentation": masks[row], "area": mask_area(masks[row])}
        height, width = masks[row]["size"]
        images[annotation["image_id"]] |= {"height": height, "width": width}
