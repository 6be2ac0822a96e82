"""Metrics after each epoch of `fit` that need more than a batch: of all tasks but one."""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.metrics.detection import MAP_KEYS, MASK_MAP_KEYS, evaluate_detections
from kerascv_d2l.metrics.segmentation import evaluate_segmentation


class _Every(keras.callbacks.Callback):
    def __init__(self, every):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every is {every!r}; pass a number of epochs, 1 or more.")
        self.every = every

    def is_due(self, epoch):
        """Whether to evaluate after `epoch`, 0-based: the last one is always due."""
        return (epoch + 1) % self.every == 0 or epoch + 1 == (self.params or {}).get("epochs")


class MeanAveragePrecisionCallback(_Every):
    """Add mean average precision on validation data to the logs of `fit`.

    After an epoch `logs` has `val_map`, `val_map_50`, `val_map_75`,
    `val_voc07_map` and `val_voc_map`, with `truth` also `val_mask_map`,
    `val_mask_map_50` and `val_mask_map_75`, so the progress line, the history and
    every callback that stands **after** this one in the list (CSVLogger,
    ModelCheckpoint, EarlyStopping) see them.

    Leave `validation_data` out of `fit`: then `val_loss` and the other metrics of a
    `Detector` are computed here too, in the same pass over the data.

    Args:
        dataset: batches `(images, labels)`, see `evaluate_detections`.
        every: int, compute mAP after every so many epochs, and always after the
            last. In the epochs between they are NaN, so that the history
            keeps one value an epoch.
        truth: as for `evaluate_detections`.

    Attributes:
        result: dict, what `evaluate_detections` returned last, or None.

    Raises:
        InputError: if `every` is not a positive whole number.
    """

    def __init__(self, dataset, every=1, truth=None):
        super().__init__(every)
        self.dataset = dataset
        self.truth = truth
        self.result = None

    def on_epoch_end(self, epoch, logs=None):
        """Evaluate, and write the metrics into `logs`."""
        if logs is None:
            return
        keys = MAP_KEYS + (MASK_MAP_KEYS if self.truth is not None else ())
        found = dict.fromkeys(keys, float("nan"))
        if self.is_due(epoch):
            self.result = evaluate_detections(self.model, self.dataset, self.truth)
            others = ("ap_50_by_class", "score_threshold")
            found = {k: v for k, v in self.result.items() if k not in others}
        for name, value in found.items():
            logs.setdefault(f"val_{name}", value)  # what `fit` validated itself stays


class GenerationCallback(_Every):
    """Add the scores of generated images to the logs of `fit`, as `val_fid_NAME` and so on.

    Args:
        scores: `FeatureScores`.
        count: int, how many images to generate, always with the same seed.
        every: int, score after every so many epochs, and always after the last. In the epochs
            between, the scores are NaN.

    Attributes:
        result: dict, the last scores, or None.

    Raises:
        InputError: if `every` is not a positive whole number.
    """

    def __init__(self, scores, count, every=1):
        super().__init__(every)
        self.scores, self.count, self.result = scores, count, None

    def on_epoch_end(self, epoch, logs=None):
        """Generate and score, and write the scores into `logs`."""
        if self.is_due(epoch):
            self.result = self.scores(self.model.sample(self.count)["images"].numpy())
            logs.update({f"val_{name}": value for name, value in self.result.items()})


class SegmentationCallback(_Every):
    """Add the metrics of `evaluate_segmentation` on whole validation images to the logs of `fit`.

    After an epoch `logs` has `val_loss` (if the loss of `fit` is a
    `SegmentationCrossEntropy`), `val_pixel_accuracy` and `val_mean_iou`, so the history and
    every callback that stands **after** this one in the list see them. They are the metrics
    that `evaluate_segmentation` gives for the same `segment` and images, on any number of
    devices.

    Args:
        segment: `Segmenter` of the model that is trained.
        images: pairs of pixels and labels, see `evaluate_segmentation`; gone through anew at
            each evaluation.
        class_names: sequence of str.
        every: int, evaluate after every so many epochs, and always after the
            last. In the epochs between, the metrics are NaN, so that the history
            keeps one value an epoch.

    Raises:
        InputError: if `every` is not a positive whole number.
    """

    def __init__(self, segment, images, class_names, every=1):
        super().__init__(every)
        self.segment = segment
        self.images = images
        self.class_names = class_names

    def on_epoch_end(self, epoch, logs=None):
        """Evaluate, and write the metrics into `logs`."""
        if logs is None:
            return
        loss = self.model.loss if hasattr(self.model.loss, "weighted") else None
        names = [*([] if loss is None else ["loss"]), "pixel_accuracy", "mean_iou"]
        result = dict.fromkeys(names, float("nan"))
        if self.is_due(epoch):
            result = evaluate_segmentation(self.segment, self.images, self.class_names, loss=loss)
        logs.update({f"val_{name}": result[name] for name in names})
