"""Metrics that need a second look at the validation set, for `fit`."""

import keras

from ..errors import InputError
from .detection import MAP_KEYS, evaluate_detections


class MeanAveragePrecisionCallback(keras.callbacks.Callback):
    """Add mean average precision on validation data to the logs of `fit`.

    After an epoch `logs` has `val_map`, `val_map_50`, `val_map_75`,
    `val_voc07_map` and `val_voc_map`, so the progress line, the history and
    every callback that stands **after** this one in the list (CSVLogger,
    ModelCheckpoint, EarlyStopping) see them.

    Args:
        dataset: batches `(images, labels)`, see `evaluate_detections`.
        every: int, evaluate after every so many epochs, and always after the
            last. In the epochs between the five are NaN, so that the history
            keeps one value an epoch.

    Raises:
        InputError: if `every` is not a positive whole number.
    """

    def __init__(self, dataset, every=1):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every is {every!r}; pass a number of epochs, 1 or more.")
        self.dataset = dataset
        self.every = every

    def on_epoch_end(self, epoch, logs=None):
        """Evaluate, and write the figures into `logs`."""
        if logs is None:
            return
        last = epoch + 1 == (self.params or {}).get("epochs")
        if (epoch + 1) % self.every == 0 or last:
            result = evaluate_detections(self.model, self.dataset)
        else:
            result = dict.fromkeys(MAP_KEYS, float("nan"))
        logs.update({f"val_{key}": result[key] for key in MAP_KEYS})
