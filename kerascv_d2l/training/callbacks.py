"""Keras callbacks that every training uses, beside `Run` or without it."""

import math
import time

import keras

from kerascv_d2l.plotting.generation import draw_tiles
from kerascv_d2l.training.devices import average_replicas


class AverageReplicas(keras.callbacks.Callback):
    """Make devices agree on batch-norm statistics before anything is evaluated or saved."""

    def on_train_batch_end(self, batch, logs=None):
        if _is_last(self, batch):
            average_replicas(self.model)

    def on_test_begin(self, logs=None):
        if self.params.get("steps") is None:
            average_replicas(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.on_test_begin()


class Throughput(keras.callbacks.Callback):
    """Measure images a second of the training steps, waiting for data included.

    The first step of the process is left out, as it compiles; validation, callbacks and
    checkpoints are left out too. Adds `images_per_second` to the logs of each epoch, NaN where
    it had no step but the first.
    """

    def __init__(self, images_per_step):
        """Make the callback.

        Args:
            images_per_step: number of images in a step.
        """
        super().__init__()
        self._images_per_step = images_per_step
        self._compiled = False
        self._start = None  # seconds, perf_counter
        self._first_step = 0  # first step that counts
        self._rate = math.nan

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()
        self._first_step = 0
        self._rate = math.nan

    def on_train_batch_end(self, batch, logs=None):
        if self._compiled and not _is_last(self, batch):
            return
        # Wait for the device before looking at the clock.
        float(next(iter((logs or {}).values()), 0.0))
        now = time.perf_counter()
        if not self._compiled:
            self._compiled = True
            self._start, self._first_step = now, batch + 1
        elif batch + 1 > self._first_step:
            images = (batch + 1 - self._first_step) * self._images_per_step
            self._rate = images / max(now - self._start, 1e-9)

    def on_epoch_end(self, epoch, logs=None):
        logs["images_per_second"] = self._rate


class SampleSheets(keras.callbacks.Callback):
    """Draw what a model makes of the same codes or images while it learns.

    Args:
        folder: `Path` to which `epoch-0001.png` and so on are written.
        make: function without arguments that gives the images, uint8 `(n, h, w, channels)`.
        every: int: after every so many epochs, the first and the last one.
    """

    def __init__(self, folder, make, every=1):
        super().__init__()
        self.folder, self.make, self.every = folder, make, every

    def on_epoch_end(self, epoch, logs=None):
        """Draw, if it is time to."""
        last = epoch + 1 == self.params["epochs"]
        if epoch == 0 or last or (epoch + 1) % self.every == 0:
            draw_tiles(self.folder / f"epoch-{epoch + 1:04}.png", self.make())


def _is_last(callback, batch):
    """Whether 0-based `batch` ends an epoch, where their number is known."""
    steps = callback.params.get("steps")
    return steps is not None and batch + 1 >= steps
