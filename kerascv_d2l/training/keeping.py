"""Which weights a training leaves behind: averaged ones, and those of its best epoch."""

import math

import keras
import numpy as np

from kerascv_d2l.errors import InputError


class AverageWeights(keras.callbacks.Callback):
    """Measure and keep the running mean of the weights, where the optimizer has one.

    With `use_ema` a Keras optimizer keeps the mean beside the weights. This callback, the first
    in the list, puts the mean into the model at the end of each epoch, and the weights back at
    the beginning of the next: every other callback, the checkpoint of a `Run` and the model after
    `fit` have the mean. Without `use_ema` it does nothing. (Keras' `SwapEMAWeights` cannot be
    resumed, and swaps by adding and subtracting, which rounds.)

    Pass it to `Run.watch`, so that a resumed run knows which of the two the model has.
    """

    def __init__(self):
        super().__init__()
        self._means = None  # list of arrays while the model has them, and the optimizer the weights

    def get_state(self):
        return {"averaged": self._means is not None}

    def set_state(self, state):
        self._means = _values(self._optimizer()._trainable_variables) if state["averaged"] else None

    def on_train_begin(self, logs=None):
        self._means = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._means is not None:
            self._swap()
            self._means = None

    def on_epoch_end(self, epoch, logs=None):
        if self._optimizer().use_ema:
            self._swap()
            self._means = _values(self._optimizer()._trainable_variables)

    def on_train_end(self, logs=None):
        # Just before, `fit` has put into the model what it takes for the means.
        if self._means is not None:
            self._assign(self._optimizer()._trainable_variables, self._means)

    def _swap(self):
        optimizer = self._optimizer()
        weights, means = optimizer._trainable_variables, optimizer._model_variables_moving_average
        values = _values(weights)
        self._assign(weights, _values(means))
        self._assign(means, values)

    def _assign(self, variables, values):
        with self.model.distribute_strategy.scope():
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _optimizer(self):
        return getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)


def _values(variables):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


class KeepBest(keras.callbacks.Callback):
    """Give the model the weights of its best epoch when the training ends.

    Place it behind the callback that measures, and pass it to `Run.watch`: a resumed run knows
    the best weights of its earlier part. Epochs without a measurement do not count. Of equal ones
    the last is kept, which has learned most.

    Args:
        monitor: str, name in the logs of what is measured; more is better.
        patience: int: stop at a measurement so many epochs after the best one, or more; None:
            never.

    Attributes:
        best: float, the best value so far; -inf before the first.
        best_epoch: int from 0, when that was last; -1 before the first.

    Raises:
        InputError: if `patience` is not positive.
    """

    def __init__(self, monitor, patience=None):
        super().__init__()
        if patience is not None and patience < 1:
            raise InputError(f"patience is {patience}; pass a number of epochs, 1 or more.")
        self.monitor, self.patience = monitor, patience
        self._reset()

    def _reset(self):
        self.best, self.best_epoch, self._weights = -math.inf, -1, None
        self._improved = -1  # the first epoch that was as good

    def get_state(self):
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "improved": self._improved,
            "weights": self._weights,
        }

    def set_state(self, state):
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])
        self._improved = int(state.get("improved", self.best_epoch))
        self._weights = state["weights"]

    def on_train_begin(self, logs=None):
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        """Look at what was measured, and remember the weights if it is the best."""
        value = (logs or {}).get(self.monitor, math.nan)
        if value > self.best:  # which NaN is not
            self._improved = epoch
        if value >= self.best:
            self.best, self.best_epoch = float(value), epoch
            self._weights = [np.array(weight) for weight in self.model.get_weights()]
        # Before the first measurement, and between two, nothing can be said.
        measured = not math.isnan(value) and self.best_epoch >= 0
        if self.patience is not None and measured and epoch - self._improved >= self.patience:
            self.model.stop_training = True
            text = f"stopped after epoch {epoch + 1}: no better {self.monitor} in {self.patience}"
            print(f"{text} epochs", flush=True)

    def on_train_end(self, logs=None):
        """Put the best weights into the model."""
        if self._weights is None:
            return
        with self.model.distribute_strategy.scope():
            self.model.set_weights(self._weights)
        print(f"kept: epoch {self.best_epoch + 1}, {self.monitor} {self.best:.4g}", flush=True)
