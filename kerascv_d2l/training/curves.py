"""Curves that grow while a model trains, where there is a notebook to draw them in."""

import io
import math
import sys

import keras

from kerascv_d2l.plotting.curves import draw_curves


class LiveCurves(keras.callbacks.Callback):
    """Draw the curves of the book after each epoch, over those of the epoch before.

    Only in a notebook: a script has `draw_curves` write them to a file at the end.

    Attributes:
        history: dict of name -> list, a value an epoch, with the epochs before this training.
    """

    def __init__(self, history=None, names=None):
        """Make the callback.

        Args:
            history: dict of name -> list, of epochs before, to go on from.
            names: what to draw, as of `draw_curves`.
        """
        super().__init__()
        self._names = names
        self.history = {name: list(values) for name, values in (history or {}).items()}
        self._shown = None  # IPython's handle of the image

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            values = self.history.setdefault(name, [])
            values.extend([math.nan] * (epoch - len(values)))
            values.append(float(value))
        display = _notebook_display()
        if display is None:
            return
        content = io.BytesIO()
        draw_curves(content, self.history, self._names)
        content_image = display.Image(data=content.getvalue(), format="png")
        if self._shown is None:
            self._shown = display.display(content_image, display_id=True)
        else:
            self._shown.update(content_image)


def _notebook_display():
    """`IPython.display` in a notebook, None elsewhere; never imports IPython anew."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if not hasattr(shell, "kernel"):  # none in a terminal
        return None
    import IPython.display

    return IPython.display
