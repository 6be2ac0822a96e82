"""Curves of a training: all of a history in panels, or the book's three in one."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.common import DPI, save

# Curve panels, in this order: title of the y axis and the words that a name is put there for.
# A name that fits none gets a panel of its own.
SCORE_PANEL = "score, 0 to 1 (higher is better)"
HISTORY_PANELS = (
    ("loss", ("loss",)),
    ("error (lower is better)", ("error", "mae", "mse")),
    (SCORE_PANEL, ("map", "acc", "accuracy", "iou", "precision", "recall", "auc")),
    ("learning rate", ("learning_rate", "lr")),
)

# The curves of the book's Animator: name in a history -> line, and what the book calls it. Of a
# classifier, a segmenter, a detector.
BOOK_CURVES = {
    "loss": ("-", "train loss"),
    "accuracy": ("m--", "train acc"),
    "val_accuracy": ("g-.", "test acc"),
    "pixel_accuracy": ("m--", "train acc"),
    "val_pixel_accuracy": ("g-.", "test acc"),
    "val_mean_iou": ("r:", "test mean IoU"),
    "class_error": ("m--", "class error"),
    "bbox_mae": ("g-.", "bbox mae"),
}


def draw_history(path, history, unit="epoch"):
    """Write the curves of a training.

    One panel each for losses, errors, scores, the learning rate and whatever else
    there is. A validation curve (`val_x`) is dashed, in the colour of `x`.
    Values that are not finite are left out; their neighbours are joined.

    Args:
        path: the file, `.png`.
        history: dict from name to a list of numbers, one an epoch, as `History.history`
            has it. `epoch` (as CSVLogger adds it) is left out: the axis starts at 1.
        unit: str: what the axis counts.

    Raises:
        InputError: if there is nothing to draw, or the lists differ in length, or
            the file's ending is not that of an image.
    """
    series = {name: _numbers(name, values) for name, values in history.items() if name != "epoch"}
    lengths = {len(values) for values in series.values()}
    if not lengths or lengths == {0}:
        raise InputError("history is empty; train for at least one epoch before drawing it.")
    if len(lengths) > 1:
        counts = {name: len(values) for name, values in series.items()}
        raise InputError(f"history has lists of different lengths: {counts}.")
    (epochs,) = lengths

    panels = _panels(series)
    columns = len(panels) if len(panels) < 4 else math.ceil(len(panels) / 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.6 * columns, 4 * rows), dpi=DPI, layout="constrained")
    if any(name.startswith("val_") for name in series):
        figure.suptitle("solid: training      dashed: validation (val_)", fontsize=11)
    for place, (title, names) in enumerate(panels.items(), start=1):
        _draw_panel(figure.add_subplot(rows, columns, place), title, names, series, epochs, unit)
    save(path, figure)


def draw_curves(path, history, names=None):
    """Write the curves of a training as the book draws them, in one panel.

    Args:
        path: the file, `.png`, or a binary stream for PNG.
        history: dict from name to a list of numbers, one an epoch.
        names: what of it to draw, sequence of str; None for those of `BOOK_CURVES`.

    Raises:
        InputError: if none of these is there.
    """
    wanted = BOOK_CURVES if names is None else {n: ("-", n.replace("_", " ")) for n in names}
    known = {name: style for name, style in wanted.items() if history.get(name)}
    if not known:
        raise InputError(
            f"history has none of {', '.join(wanted)}, but {', '.join(history) or 'nothing'}"
        )
    figure = Figure(figsize=(5.6, 4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    longest, top, low = 1, 1.0, 0.0
    for name, (style, label) in known.items():
        values = _numbers(name, history[name])
        finite = np.flatnonzero(np.isfinite(values))
        # One point makes no line.
        axes.plot(finite + 1, values[finite], style, label=label, marker="o", markersize=4)
        longest, top = max(longest, len(values)), max(top, *values[finite], 1.0)
        low = min(low, *values[finite], 0.0)
    axes.set_xlabel("epoch")
    axes.set_xlim(1 - 0.02 * longest, longest * 1.02)
    axes.set_ylim(1.03 * low, 1.03 * top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, framealpha=0.8)
    if hasattr(path, "write"):
        figure.canvas.print_figure(path, dpi=DPI, format="png")
    else:
        save(path, figure)


def _numbers(name, values):
    try:
        return np.asarray(values, np.float64).reshape(len(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"history[{name!r}] is not a list of numbers: {values!r}.") from error


def _base(name):
    return name.removeprefix("val_")


def _panels(series):
    """Put names of curves into panels: dict from title to names, in the order to draw."""
    panels = {title: [] for title, _ in HISTORY_PANELS}
    for name in series:
        words = set(_base(name).split("_"))
        for title, keys in HISTORY_PANELS:
            in_group = any(_base(name).startswith(f"{key}_") for key in keys if "_" in key)
            if _base(name) in keys or words & set(keys) or in_group:  # learning_rate_head
                panels[title].append(name)
                break
        else:
            panels.setdefault(_base(name), []).append(name)
    return {title: names for title, names in panels.items() if names}


def _draw_panel(axes, title, names, series, epochs, unit):
    bases = list(dict.fromkeys(_base(name) for name in names))
    for name in names:
        values = series[name]
        finite = np.flatnonzero(np.isfinite(values))
        validation = name.startswith("val_")
        axes.plot(
            finite + 1,
            values[finite],
            color=f"C{bases.index(_base(name)) % 10}",
            linestyle="--" if validation else "-",
            linewidth=1.8,
            # One point makes no line; few points are worth seeing.
            marker="o" if epochs <= 30 else None,
            markersize=4 if epochs > 1 else 7,
            markerfacecolor="white" if validation else None,
            label=name if len(finite) else f"{name}: no values",
        )
    axes.set_xlabel(unit)
    axes.set_ylabel(title.replace("_", " "))
    margin = 0.5 if epochs < 3 else 0.02 * epochs
    axes.set_xlim(1 - margin, epochs + margin)
    if title == SCORE_PANEL:
        axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.8)
