"""How long a training will take and how much memory it needs, measured before it begins."""

import sys
import time

import keras
import numpy as np

STEPS, SECONDS = 6, 4.0  # at most so many steps, and so long
# A pass without gradients takes about this share of a training step, for each image.
EVALUATION_SHARE = 0.4
# What is traced later, for measurements and for files, takes about so many times as long as the
# first step, which is traced as well: 2.7 and 2.8 times with FCOS and TinySSD on raccoons.
TRACED_LATER = 2.7


class _Clock(keras.callbacks.Callback):
    """Time the steps of `fit` but for the first, which traces the graph."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        float(next(iter((logs or {}).values()), 0.0))  # wait for the device
        self.times.append(time.perf_counter())
        if self.times[-1] - self.times[0] > SECONDS and len(self.times) > 2:
            self.model.stop_training = True


def rehearse(model, batches, variables):
    """Train a few steps, for the clock, and undo them.

    The function that `fit` traces stays: it is not traced again.

    Args:
        model: compiled `keras.Model`.
        batches: as for `fit`; the same data set begins anew in the next `fit`.
        variables: list of all that a step changes.

    Returns:
        Tuple of floats: seconds a step, and seconds of the first, which is traced.
    """
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    clock, start = _Clock(), time.perf_counter()
    model.fit(batches, epochs=1, steps_per_epoch=STEPS, shuffle=False, verbose=0, callbacks=[clock])
    with model.distribute_strategy.scope():
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    model.stop_training = False
    # The second step may still wait for the first batches to be made.
    return float(np.median(np.diff(clock.times))), clock.times[0] - start


def peak_memory():
    """Give the most memory that this process has had, bytes; None where it cannot be told."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
