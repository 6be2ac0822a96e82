"""Metrics of a detector on the validation set after each epoch of `fit`: losses and mAP."""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.metrics.detection import MAP_KEYS, evaluate_detections


class MeanAveragePrecisionCallback(keras.callbacks.Callback):
    """Add mean average precision on validation data to the logs of `fit`.

    After an epoch `logs` has `val_map`, `val_map_50`, `val_map_75`,
    `val_voc07_map` and `val_voc_map`, so the progress line, the history and
    every callback that stands **after** this one in the list (CSVLogger,
    ModelCheckpoint, EarlyStopping) see them.

    Leave `validation_data` out of `fit`: then `val_loss` and the other metrics of a
    `Detector` are computed here too, in the same pass over the data.

    Args:
        dataset: batches `(images, labels)`, see `evaluate_detections`.
        every: int, compute mAP after every so many epochs, and always after the
            last. In the epochs between the five are NaN, so that the history
            keeps one value an epoch.

    Attributes:
        result: dict, what `evaluate_detections` returned last, or None.

    Raises:
        InputError: if `every` is not a positive whole number.
    """

    def __init__(self, dataset, every=1):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every is {every!r}; pass a number of epochs, 1 or more.")
        self.dataset = dataset
        self.every = every
        self.result = None

    def on_epoch_end(self, epoch, logs=None):
        """Evaluate, and write the metrics into `logs`."""
        if logs is None:
            return
        last = epoch + 1 == (self.params or {}).get("epochs")
        found = dict.fromkeys(MAP_KEYS, float("nan"))
        if (epoch + 1) % self.every == 0 or last:
            self.result = evaluate_detections(self.model, self.dataset)
            found = {k: v for k, v in self.result.items() if k != "ap_50_by_class"}
        elif "val_loss" not in logs and hasattr(self.model, "evaluate_batch"):
            found = self.model.evaluate(self.dataset, verbose=0, return_dict=True) | found
        for name, value in found.items():
            logs.setdefault(f"val_{name}", value)  # what `fit` validated itself stays
