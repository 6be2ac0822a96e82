"""Keras callbacks that every run uses: figures a second, a line an epoch, a stop at NaN."""

import math
import shutil
import sys
import time

import keras

from kerascv_d2l.errors import InputError

_REFRESH = 0.2  # seconds between two updates of the line on a terminal
_REFRESH_IN_FILE = 60.0  # seconds between two lines where output goes to a file
_BAR_WIDTH = 20  # characters
_CHECK_LOSS = 0.1  # seconds between two looks at the loss: each waits for the device


class DivergenceError(InputError):
    """The loss became NaN or infinite."""


class StopOnNaN(keras.callbacks.Callback):
    """End training when the loss is NaN or infinite, before anything is written of it."""

    def __init__(self, keeps=None):
        """Make the callback.

        Args:
            keeps: function without arguments that says what is kept, for the
                message.
        """
        super().__init__()
        self._keeps = keeps
        self._epoch = 0
        self._last_look = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # The loss in the logs is the mean since the epoch began: once NaN, it stays NaN, and
        # looking now and then is enough.
        now = time.perf_counter()
        if now - self._last_look >= _CHECK_LOSS:
            self._check(logs, f"by step {batch + 1} of epoch {self._epoch + 1}")
            self._last_look = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, f"in epoch {epoch + 1}")

    def _check(self, logs, where):
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            return
        kept = f" {self._keeps()}" if self._keeps else ""
        raise DivergenceError(
            f"the loss became {loss} {where}: the step was too large. Start again with a "
            "--learning-rate 3 to 10 times smaller (and another --out), or look for labels that "
            f"are not finite.{kept}"
        )


class StatusLine:
    """A line about what is going on: drawn anew on a terminal, now and then in a log."""

    def __init__(self, stream=None):
        """Make the line.

        Args:
            stream: where to write; default: stdout.
        """
        self._stream = stream or sys.stdout
        self.terminal = self._stream.isatty()
        self._width = 0
        self._shown = time.perf_counter()

    def due(self):
        """Whether it is time for the next look; if so, the next one is put off."""
        now = time.perf_counter()
        if now - self._shown < (_REFRESH if self.terminal else _REFRESH_IN_FILE):
            return False
        self._shown = now
        return True

    def wait(self):
        """Put the next look off."""
        self._shown = time.perf_counter()

    def draw(self, text, end=False):
        """Show a text; `end` leaves it there."""
        if self.terminal:
            if not end:  # a line that wraps could not be drawn over
                text = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + text.ljust(self._width))
            self._width = 0 if end else len(text)
            self._stream.write("\n" if end else "")
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self):
        """End a line that is being drawn."""
        if self._width:
            self.draw("", end=True)


def bar(done, total, seconds_left, figures):
    """Write progress in words: step, bar, time left, figures.

    Args:
        done: int, steps done.
        total: int or None, steps in all.
        seconds_left: float; not shown without `total`.
        figures: dict of name -> number.

    Returns:
        str.
    """
    text = f"step {done}"
    if total:
        filled = _BAR_WIDTH * done // total
        text += (
            f"/{total}  [{'=' * filled}{'.' * (_BAR_WIDTH - filled)}]  {seconds_left:.0f} s left"
        )
    return f"{text}  {_figures(figures)}"


class Progress(keras.callbacks.Callback):
    """Show one line an epoch: figures, seconds, images a second.

    On a terminal the line is also drawn anew while the epoch runs. Elsewhere
    there is none of that, only a sign of life a minute, so that a log stays
    readable.
    """

    def __init__(self, stream=None):
        """Make the callback.

        Args:
            stream: where to write; default: stdout.
        """
        super().__init__()
        self._line = StatusLine(stream)
        self._epoch = 0
        self._start = 0.0
        self._epochs_shown = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._start = time.perf_counter()
        self._line.wait()
        if self._line.terminal and not self._epochs_shown:
            self._line.draw(f"{self._title()}  compiling the training step")

    def on_train_batch_end(self, batch, logs=None):
        if not self._line.due():
            return
        done, steps = batch + 1, self.params.get("steps")
        seconds = time.perf_counter() - self._start
        text = bar(done, steps, seconds / done * ((steps or done) - done), logs)
        self._line.draw(f"{self._title()}  {text}")

    def on_test_begin(self, logs=None):
        if self._line.terminal:
            self._line.draw(f"{self._title()}  validating")

    def on_epoch_end(self, epoch, logs=None):
        seconds = (logs or {}).get("seconds", time.perf_counter() - self._start)
        text = f"{self._title()}  {_figures(logs)}  {seconds:.1f} s"
        rate = (logs or {}).get("images_per_second", math.nan)
        if math.isfinite(rate):
            text += f"  {rate:.{0 if rate >= 10 else 1}f} images/s"
        self._line.draw(text, end=True)
        self._epochs_shown += 1

    def on_train_end(self, logs=None):
        self._line.close()

    def _title(self):
        epochs = self.params.get("epochs", 0)
        return f"epoch {self._epoch + 1:>{len(str(epochs))}}/{epochs}"


# Not figures of the model: shown with their units at the end of the line, or only in history.csv.
_NO_FIGURES = ("seconds", "images_per_second", "learning_rate")


def _figures(logs):
    figures = {k: float(v) for k, v in (logs or {}).items() if not k.startswith(_NO_FIGURES)}
    # NaN stands for "not measured in this epoch": a diverged loss ends the run (`StopOnNaN`).
    return "  ".join(f"{k} {v:.4g}" for k, v in figures.items() if not math.isnan(v))


def learning_rates(optimizer):
    """Read the present learning rate of an optimizer, or of each group of a `MultiOptimizer`.

    Returns:
        `{"learning_rate": rate}`, or `{"learning_rate_NAME": rate, …}` by the
        name of each inner optimizer.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # float16: LossScaleOptimizer
    if optimizer is None:
        return {}
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        # Keras ties no name to a group: two of one class share it unless the caller named them.
        rates = {}
        for i, inner in enumerate(optimizer.optimizers):
            key = f"learning_rate_{inner.name}"
            rates[f"{key}_{i}" if key in rates else key] = _rate(inner)
        return rates
    return {"learning_rate": _rate(optimizer)}


def _rate(optimizer):
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
