"""Results of an evaluation: curves of precision over recall, and a bar for every class."""

import numpy as np
from matplotlib.figure import Figure

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.common import DPI, MAX_LEGEND_CLASSES, class_color, save, shortened

BAR_INCHES = 0.3


def draw_precision_recall(path, curves):
    """Write the precision over the recall of every class.

    Args:
        path: the file, `.png`.
        curves: dict from class name to a pair of float arrays `(n,)`, recall and precision, by
            falling score threshold. The first 20 are drawn.

    Raises:
        InputError: if there is no curve, or the file's ending is not that of an image.
    """
    if not curves:
        raise InputError("curves is empty; pass at least one class.")
    figure = Figure(figsize=(6.5, 4.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for k, (name, (recall, precision)) in enumerate(list(curves.items())[:MAX_LEGEND_CLASSES]):
        axes.plot(recall, precision, color=class_color(k), label=shortened(name))
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    save(path, figure)


def draw_bars(path, values, title):
    """Write a bar for the value of every class.

    Args:
        path: the file, `.png`.
        values: dict from class name to float between 0 and 1; NaN has no bar.
        title: str: what the values are.

    Raises:
        InputError: if there is no value, or the file's ending is not that of an image.
    """
    if not values:
        raise InputError("values is empty; pass at least one class.")
    height = min(1.2 + BAR_INCHES * len(values), 60)
    figure = Figure(figsize=(6.5, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(range(len(values)), np.nan_to_num(list(values.values())), color="#0a84ff")
    axes.bar_label(bars, [f"{v:.3f}" for v in values.values()], padding=3, fontsize=9)
    axes.set_yticks(range(len(values)), [shortened(name) for name in values])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12), title=title)
    save(path, figure)
