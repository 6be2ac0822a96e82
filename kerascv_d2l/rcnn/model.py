"""R-CNN: each proposal is cut out, warped to a square and classified by itself."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError, first_of
from kerascv_d2l.models.ssd import base_net
from kerascv_d2l.ops.box_coding import RPN_WEIGHTS, decode_boxes, encode_boxes
from kerascv_d2l.ops.boxes import box_iou
from kerascv_d2l.ops.nms import batched_nms
from kerascv_d2l.rcnn.extra import optional
from kerascv_d2l.rcnn.selective_search import selective_search

FEATURE_NORM = 20.0  # mean length of the features that the machines see, as in the paper's code
HARD = -1.0  # score from which a negative is learned from: inside the margin
MAX_DETECTIONS = 100


@dataclasses.dataclass(frozen=True)
class RCNNSettings:
    """Numbers of the paper, which it chose on a validation set.

    Attributes:
        crop_size: int, pixels of a side of the squares that the network sees (227 in the paper).
        context: float, share of the square on each side that shows what is around the box.
        fine_tune_iou: IoU from which a proposal stands for an object while the network learns.
        negative_iou: IoU below which a proposal is a negative for the support vector machines;
            those between this and the objects themselves are ignored.
        regression_iou: IoU from which a proposal's box is learned from.
        svm_c: float, the machines' weight of errors.
        ridge_lambda: float, of the regression.
        nms_iou: float.
    """

    crop_size: int = 48
    context: float = 16 / 227
    fine_tune_iou: float = 0.5
    negative_iou: float = 0.3
    regression_iou: float = 0.6
    svm_c: float = 1e-3
    ridge_lambda: float = 1000.0
    nms_iou: float = 0.3


def warp(image, boxes, size, context=0.0):
    """Cut boxes out of an image and stretch each to a square.

    Args:
        image: `(h, w, 3)`, pixels 0-255.
        boxes: float32 `(n, 4)` corners in pixels.
        size: int, pixels of a side.
        context: float, share of the square on each side that shows what is around the box.

    Returns:
        float32 `(n, size, size, 3)`. The mean colour of the image is where there is no image.

    Source:
        Girshick et al. 2014, "R-CNN", appendix A.
    """
    image = tf.cast(image, tf.float32)
    mean = tf.reduce_mean(image, axis=(0, 1))
    low, high = tf.split(tf.cast(boxes, tf.float32), 2, axis=1)
    margin = (high - low) * context / (1 - 2 * context)
    low, high = low - margin, high + margin
    # `crop_and_resize` takes the positions of the first and last sample, from pixel centre to
    # pixel centre; samples stand in the middle of `size` equal parts.
    half = (high - low) / (2 * size)
    extent = tf.cast(tf.shape(image)[1::-1], tf.float32) - 1  # x, y
    corners = tf.concat([low + half - 0.5, high - half - 0.5], axis=1) / tf.tile(extent, [2])
    corners = tf.gather(corners, [1, 0, 3, 2], axis=1)
    which = tf.zeros(tf.shape(corners)[:1], tf.int32)
    return tf.image.crop_and_resize((image - mean)[None], corners, which, [size, size]) + mean


class RCNN:
    """R-CNN of 2014: four parts, trained one after the other.

    1. `propose` finds boxes that may hold an object. 2. A network, fine-tuned on the proposals,
    turns each, warped to a square, into features. 3. A linear support vector machine for each
    class scores them. 4. A ridge regression for each class moves the box. The later members of
    the family (`FastRCNN`, `FasterRCNN`) train all of these as one network, and compute the
    features of an image once.

    Args:
        class_names: sequence of str.
        features: `keras.Model` from pixels 0-255 `(n, crop_size, crop_size, 3)` to features
            `(n, d)`; it is fine-tuned in place. None for a small one from random weights.
        propose: function from a uint8 image `(h, w, 3)` to boxes `(n, 4)` in pixels.
        settings: `RCNNSettings`.
        seed: int, of what is drawn in training.

    Source:
        Girshick et al. 2014, "Rich feature hierarchies for accurate object detection and
        semantic segmentation".
    """

    def __init__(self, class_names, features=None, propose=selective_search, settings=None, seed=0):
        self.class_names = list(class_names)
        self.settings = settings or RCNNSettings()
        self.features = features or small_network(self.settings.crop_size)
        self.propose = propose
        self.seed = seed
        self.svms = self.regressions = None
        self._scale = 1.0

    def fit(self, dataset, fine_tune_epochs=4, positives=2000, verbose=0):
        """Train all parts.

        Args:
            dataset: batches `(images, y)` that end, such as `batches(split, size, n)` gives:
                pixels 0-255 `(b, h, w, 3)` and the dict of boxes, classes and ignore.
            fine_tune_epochs: int, over the crops drawn; 0 leaves the network as it is.
            positives: int, crops of objects drawn for it, and three times as many of background.
            verbose: as in Keras' `fit`.

        Returns:
            The network's history of losses, or None.

        Raises:
            InputError: if a class has no object, or scikit-learn is missing.
        """
        examples = [self._example(*pair) for batch in dataset for pair in _images_of(*batch)]
        self._check_examples(examples)
        history = None
        if fine_tune_epochs:
            history = self._fine_tune(examples, positives, fine_tune_epochs, verbose)
        features = [self._features(e.image, e.boxes) for e in examples]
        self._scale = FEATURE_NORM / np.linalg.norm(np.concatenate(features), axis=1).mean()
        features = [self._scale * f for f in features]
        self.svms = [self._fit_svm(k, examples, features) for k in range(len(self.class_names))]
        self.regressions = [
            self._fit_regression(k, examples, features) for k in range(len(self.class_names))
        ]
        return history

    def detect(self, images):
        """Find objects.

        Args:
            images: pixels 0-255 `(b, h, w, 3)`.

        Returns:
            dict as of `Detector.detect`: `boxes` normalised `(b, 100, 4)`, `scores`, `classes`,
            `num_valid`. Scores are sigmoids of the machines' margins: their order is what
            counts, they are no probabilities.

        Raises:
            InputError: if it is not trained.
        """
        if self.svms is None:
            raise InputError("this RCNN is not trained; call fit first.")
        found = [self._detect(np.asarray(image)) for image in images]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    def _detect(self, image):
        size = np.tile(image.shape[1::-1], 2).astype(np.float32)
        boxes = self.propose(image.astype(np.uint8))
        if not len(boxes):
            boxes = size[None] * np.float32([0, 0, 1, 1])  # a blank image: the whole of it
        features = self._scale * self._features(image, boxes)
        kept = [self._detect_class(k, boxes, features, size) for k in range(len(self.svms))]
        moved, margins = (np.concatenate(part) for part in zip(*kept, strict=True))
        classes = np.repeat(np.arange(len(kept), dtype=np.int32), [len(m) for _, m in kept])
        best = np.argsort(-margins, kind="stable")[:MAX_DETECTIONS]
        padding = MAX_DETECTIONS - len(best)
        return {
            "boxes": np.pad(moved[best], ((0, padding), (0, 0))),
            "scores": np.pad(1 / (1 + np.exp(-margins[best])), (0, padding)),
            "classes": np.pad(classes[best], (0, padding), constant_values=-1),
            "num_valid": np.int32(len(best)),
        }

    def _detect_class(self, k, boxes, features, size):
        """Score, move and suppress for one class: normalised boxes `(n, 4)`, margins `(n,)`."""
        margins = self.svms[k].decision_function(features).astype(np.float32)
        if self.regressions[k] is not None:
            offsets = self.regressions[k].predict(features).astype(np.float32)
            boxes = decode_boxes(offsets, boxes, RPN_WEIGHTS).numpy()
        boxes = np.clip(boxes / size, 0, 1)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # not moved out of the image
        boxes, margins = boxes[inside], margins[inside]
        keep, margins, count = batched_nms(
            boxes[None], margins[None], MAX_DETECTIONS, self.settings.nms_iou, -np.inf, 0.0
        )
        return boxes[keep[0, : count[0]]], margins[0, : count[0]].numpy()

    def _example(self, image, boxes, classes, ignore):
        """Join an image's objects and proposals, with the IoU of each with each object."""
        size = np.tile(image.shape[1::-1], 2).astype(np.float32)
        objects = boxes[classes >= 0] * size
        ignore, classes = ignore[classes >= 0], classes[classes >= 0]
        proposals = np.concatenate([objects[~ignore], self.propose(image.astype(np.uint8))])
        iou = box_iou(tf.constant(proposals), tf.constant(objects)).numpy()
        # What lies on an ignored object is learned by nobody.
        free = ~((iou * ignore).max(axis=1, initial=0) >= self.settings.negative_iou)
        free[: np.count_nonzero(~ignore)] = True  # but for the objects themselves
        return _Example(
            image, proposals[free], objects[~ignore], classes[~ignore], iou[free][:, ~ignore]
        )

    def _check_examples(self, examples):
        seen = set(np.concatenate([e.classes for e in examples]).tolist()) if examples else set()
        missing = [n for k, n in enumerate(self.class_names) if k not in seen]
        if missing:
            raise InputError(f"dataset has no {first_of(missing)}; every class needs an object.")

    def _features(self, image, boxes, batch=256):
        crops = warp(image, boxes, self.settings.crop_size, self.settings.context)
        parts = [self._apply(crops[i : i + batch]) for i in range(0, len(crops), batch)]
        width = self.features.output_shape[-1]
        return np.concatenate([*parts, np.zeros((0, width), np.float32)])

    def _apply(self, crops):
        """Features of up to a batch of crops; rows are filled up, so that few shapes are traced."""
        rows = len(crops)
        full = 1 << max(rows - 1, 0).bit_length()
        crops = tf.pad(crops, [[0, full - rows], [0, 0], [0, 0], [0, 0]])
        return self.features.predict_on_batch(crops)[:rows]

    def _fine_tune(self, examples, positives, epochs, verbose):
        """Train the network to name proposals, section 2.3: a quarter objects, else background."""
        random = np.random.default_rng(self.seed)
        crops, labels = [], []  # (example, index of its box); 0 for background, else class + 1
        for share, wanted in ((positives, True), (3 * positives, False)):
            candidates = [
                (e, i)
                for e in examples
                for i in np.flatnonzero((e.best_iou >= self.settings.fine_tune_iou) == wanted)
            ]
            drawn = random.permutation(len(candidates))[:share]
            for k in np.sort(drawn):
                example, i = candidates[k]
                crops.append((example, i))
                labels.append(example.best_class[i] + 1 if wanted else 0)
        pixels = _crops_of(crops, self.settings)
        head = keras.layers.Dense(len(self.class_names) + 1, name="classes")
        model = keras.Sequential([self.features, head])
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        order = random.permutation(len(labels))
        return model.fit(
            pixels[order], np.array(labels)[order], batch_size=128, epochs=epochs, verbose=verbose
        )

    def _fit_svm(self, k, examples, features):
        """Fit one machine: objects against proposals that hardly touch one, the hard ones added."""
        svm = optional("sklearn.svm")
        positive = np.concatenate(
            [f[: len(e.classes)][e.classes == k] for e, f in zip(examples, features, strict=True)]
        )
        negative = np.concatenate(
            [
                f[e.iou_with(k) < self.settings.negative_iou]
                for e, f in zip(examples, features, strict=True)
            ]
        )
        random = np.random.default_rng([self.seed, k])
        used = np.zeros(len(negative), bool)
        used[random.permutation(len(negative))[: 10 * len(positive)]] = True
        while True:
            x = np.concatenate([positive, negative[used]])
            y = np.arange(len(x)) < len(positive)
            machine = svm.LinearSVC(C=self.settings.svm_c, class_weight="balanced", max_iter=5000)
            machine.fit(x, y)
            hard = ~used & (machine.decision_function(negative) > HARD)
            if not hard.any():
                return machine
            used |= hard

    def _fit_regression(self, k, examples, features):
        """Fit the four offsets from proposals to the object that they overlap most, appendix C."""
        linear = optional("sklearn.linear_model")
        x, y = [], []
        for e, f in zip(examples, features, strict=True):
            rows = (e.best_iou >= self.settings.regression_iou) & (e.best_class == k)
            x.append(f[rows])
            y.append(encode_boxes(e.objects[e.best[rows]], e.boxes[rows], RPN_WEIGHTS).numpy())
        x, y = np.concatenate(x), np.concatenate(y)
        return linear.Ridge(alpha=self.settings.ridge_lambda).fit(x, y) if len(x) else None


@dataclasses.dataclass
class _Example:
    """An image with its objects `(m, 4)` and boxes `(n, 4)`, the objects first, in pixels."""

    image: np.ndarray
    boxes: np.ndarray
    objects: np.ndarray
    classes: np.ndarray  # (m,)
    iou: np.ndarray  # (n, m)

    @property
    def best(self):
        """The object that each box overlaps most, int `(n,)`."""
        return self.iou.argmax(axis=1) if self.iou.shape[1] else np.zeros(len(self.boxes), int)

    @property
    def best_iou(self):
        return self.iou.max(axis=1, initial=0)

    @property
    def best_class(self):
        """Its class, int `(n,)`; -1 where the image has no object."""
        return self.classes[self.best] if len(self.classes) else np.full(len(self.boxes), -1)

    def iou_with(self, k):
        """The largest IoU of each box with an object of class k, `(n,)`."""
        return self.iou[:, self.classes == k].max(axis=1, initial=0)


def _images_of(images, y):
    """Split a batch into images with their objects."""
    fields = [np.asarray(part) for part in (images, y["boxes"], y["classes"], y["ignore"])]
    return zip(*fields, strict=True)


def _crops_of(pairs, settings):
    """Warp the box of each (example, index): float32 `(n, size, size, 3)`."""
    by_image = {}
    for place, (example, i) in enumerate(pairs):
        by_image.setdefault(id(example), (example, [], []))
        by_image[id(example)][1].append(place)
        by_image[id(example)][2].append(i)
    pixels = np.zeros((len(pairs), settings.crop_size, settings.crop_size, 3), np.float32)
    for example, places, indices in by_image.values():
        boxes = example.boxes[indices]
        pixels[places] = warp(example.image, boxes, settings.crop_size, settings.context)
    return pixels


def small_network(crop_size):
    """Build a network for crops of generated scenes: the book's three blocks and a dense layer.

    Args:
        crop_size: int, pixels of a side.

    Returns:
        `keras.Model` from pixels 0-255 `(n, crop_size, crop_size, 3)` to features `(n, 256)`.
    """
    return keras.Sequential(
        [
            keras.Input((crop_size, crop_size, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            base_net(name="base"),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu", name="features"),
        ]
    )
