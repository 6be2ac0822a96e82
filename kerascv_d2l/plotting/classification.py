"""A classifier's results: the confusion matrix, and the images with the worst answers."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.common import DPI, MAX_NAME_LETTERS, grid, save, shortened, to_uint8

MAX_MATRIX_INCHES = 12.0  # side of a confusion matrix
MIN_CELL_INCHES = 0.2  # cells that hold a number
MISTAKE_INCHES = 2.6  # side of an image in the grid of `draw_mistakes`
RIGHT_COLOR, WRONG_COLOR = "#1a7f37", "#b3261e"


def draw_confusion(path, matrix, class_names):
    """Write a confusion matrix: how many images of each class are predicted as which.

    A cell shows the count, and its colour the share of the true class: blue on the
    diagonal, red elsewhere.

    Args:
        path: the file, `.png`.
        matrix: int `(classes, classes)`: rows are true classes, columns predicted ones.
        class_names: list of str.

    Raises:
        InputError: if the matrix is not square or has not as many classes as
            names, or the file's ending is not that of an image.
    """
    matrix = np.asarray(matrix)
    count = len(class_names)
    if matrix.shape != (count, count):
        raise InputError(
            f"matrix has shape {matrix.shape}; with {count} class names pass ({count}, {count})."
        )
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (true, predicted)
    colors = np.where(
        np.eye(count, dtype=bool)[..., None],
        matplotlib.colormaps["Blues"](0.75 * share),
        matplotlib.colormaps["Reds"](0.75 * share),
    )
    side = min(max(0.55 * count, 2.4), MAX_MATRIX_INCHES)
    cell = side / count
    longest = max(len(str(name)) for name in class_names)
    margin = 0.085 * min(longest, MAX_NAME_LETTERS)
    figure = Figure(
        figsize=(side + margin + 2.2, side + margin + 1.2), dpi=DPI, layout="constrained"
    )
    axes = figure.add_subplot()
    axes.imshow(colors, interpolation="nearest")
    if cell >= MIN_CELL_INCHES:
        for row, column in np.ndindex(count, count):
            if matrix[row, column]:
                axes.text(
                    column,
                    row,
                    f"{matrix[row, column]}",
                    ha="center",
                    va="center",
                    fontsize=min(10, 40 * cell),
                    color="white" if share[row, column] > 0.7 else "black",
                )
    correct = np.trace(matrix) / max(matrix.sum(), 1)
    accuracies = [f"{shortened(name)}  {share[k, k]:.0%}" for k, name in enumerate(class_names)]
    axes.set_xticks(range(count), [shortened(name) for name in class_names], rotation=90)
    axes.set_yticks(range(count), accuracies)
    axes.tick_params(labelsize=min(10, 60 * cell))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class, and its recall")
    axes.set_title(f"{np.trace(matrix)} of {matrix.sum()} right ({correct:.1%})", fontsize=11)
    save(path, figure)


def draw_mistakes(path, images, names, labels, probabilities, class_names, columns=4):
    """Write a grid of images with their true class and what a classifier predicts.

    Args:
        path: the file, `.png`.
        images: sequence of `(height, width, 3)`, as `to_uint8` takes them, in
            the order to draw: the worst first.
        names: sequence of str: what to call each.
        labels: int `(n,)`, the true classes.
        probabilities: float `(n, classes)`.
        class_names: list of str.
        columns: int, images a row.

    Raises:
        InputError: if there is no image, or numbers differ, or the file's
            ending is not that of an image.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    lengths = {
        "images": len(images),
        "names": len(names),
        "labels": len(labels),
        "probabilities": len(probabilities),
    }
    if len(set(lengths.values())) != 1 or not len(images):
        raise InputError(f"draw_mistakes needs as many of each, and at least one, not {lengths}.")
    # Each image has three lines of text above it.
    figure, places = grid(len(images), columns, MISTAKE_INCHES, MISTAKE_INCHES + 0.5, 0.4)
    for axes, image, name, label, row in zip(
        places, images, names, labels, probabilities, strict=False
    ):
        predicted = int(np.argmax(row))
        wrong = predicted != label
        said = f"predicted {shortened(class_names[predicted])} {row[predicted]:.2f}"
        verdict = f"{shortened(class_names[label])} {row[label]:.2f}\n{said if wrong else 'right'}"
        axes.imshow(to_uint8(image))
        axes.set_title(
            f"{verdict}\n{_end(name)}", fontsize=8, color=WRONG_COLOR if wrong else RIGHT_COLOR
        )
    figure.suptitle("least probability of the true class first", fontsize=11)
    save(path, figure)


def _end(name, most=34):
    """The end of a long name, where file names differ."""
    return name if len(name) <= most else "…" + name[1 - most :]
