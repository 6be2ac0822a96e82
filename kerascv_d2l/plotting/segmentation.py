"""Class maps in colours: alone, beside their images, or over them."""

import math

import numpy as np
from matplotlib.patches import Patch

from kerascv_d2l.data.splits import IGNORE_LABEL
from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.common import (
    GAP_INCHES,
    LEGEND_ENTRY_INCHES,
    MAX_LEGEND_CLASSES,
    MIN_WIDTH_INCHES,
    grid,
    save,
    shortened,
    to_uint8,
)

CELL_INCHES = 2.4  # the longer side of an image in the grid of `draw_segmentation`
TITLES = ("image", "prediction", "truth")
BACKGROUND = "background"  # the class of this name leaves an image as it is
MASK_WEIGHT = 0.6  # of the class's colour over the image
_IGNORED_COLOR = (255, 255, 255)
_BAND = 256  # rows coloured at a time


def draw_segmentation(path, images, predictions, truths, class_names, colors, columns=2):
    """Write images with the predicted and the true class of every pixel beside them.

    Args:
        path: the file, `.png`.
        images: sequence of `(height, width, 3)` of any sizes, as `to_uint8` takes
            them.
        predictions: for each image int classes `(height, width)`.
        truths: the same; labels that are no class (ignored) are white.
        class_names: sequence of str.
        colors: RGB 0-255 `(classes, 3)`.
        columns: int, images a row, each with its two class maps.

    Raises:
        InputError: if there is no image, numbers or sizes differ, or the file's
            ending is not that of an image.
    """
    images = [to_uint8(image) for image in images]
    maps = [[np.asarray(classes) for classes in part] for part in (predictions, truths)]
    counts = {"images": len(images), "predictions": len(maps[0]), "truths": len(maps[1])}
    if len(set(counts.values())) != 1 or not images:
        raise InputError(f"draw_segmentation needs as many of each, and at least one: {counts}.")
    if len(colors) != len(class_names):
        raise InputError(f"there are {len(class_names)} class names and {len(colors)} colors.")
    for image, *pair in zip(images, *maps, strict=True):
        if any(classes.shape != image.shape[:2] for classes in pair):
            raise InputError(
                f"an image is {image.shape[:2]}, its class maps {pair[0].shape} and "
                f"{pair[1].shape}: the same height and width are needed."
            )
    columns = 3 * min(columns, len(images))
    height, width = np.exp(np.mean([np.log(image.shape[:2]) for image in images], axis=0))
    width, height = np.array([width, height]) * CELL_INCHES / max(height, width) + GAP_INCHES
    width = max(width, MIN_WIDTH_INCHES / columns)
    shown, ignored = _shown_classes([m for part in maps for m in part], len(class_names))
    legend_columns = max(1, min(len(shown) + 1, int(columns * width / LEGEND_ENTRY_INCHES)))
    heading = 0.45 + 0.25 * math.ceil((len(shown) + ignored) / legend_columns)
    figure, places = grid(3 * len(images), columns, width, height, heading)
    for i, image in enumerate(images):
        panels = (image, *(color_classes(part[i], colors) for part in maps))
        for k, (panel, title) in enumerate(zip(panels, TITLES, strict=True)):
            axes = places[3 * i + k]
            axes.imshow(panel, interpolation="antialiased" if k == 0 else "nearest")
            if 3 * i < columns:
                axes.set_title(title, fontsize=10, pad=4)
    handles = [
        Patch(facecolor=np.asarray(colors[k]) / 255, edgecolor="grey", label=shortened(name))
        for k, name in ((k, class_names[k]) for k in shown)
    ]
    if ignored:
        handles.append(Patch(facecolor="white", edgecolor="grey", label="ignored"))
    place = {"loc": "outside lower center", "ncols": legend_columns}
    figure.legend(handles=handles, **place, frameon=False, fontsize=10)
    save(path, figure)


def _shown_classes(maps, num_classes):
    """The classes for the legend, those of the most pixels; and whether pixels are ignored."""
    counts = sum(np.bincount(np.clip(m, 0, 255).ravel(), minlength=256) for m in maps)
    most = np.argsort(-counts[:num_classes], kind="stable")[:MAX_LEGEND_CLASSES]
    return sorted(k for k in most.tolist() if counts[k]), bool(counts[num_classes:].any())


def color_classes(classes, colors):
    """Give each class its colour.

    Args:
        classes: int `(height, width)`.
        colors: RGB 0-255 `(classes, 3)`.

    Returns:
        uint8 `(height, width, 3)`, white where there is no such class (ignored).
    """
    table = np.full((256, 3), 255, np.uint8)
    table[: len(colors)] = colors
    return table[np.clip(classes, 0, 255)]


def background_of(class_names):
    """Give the index of the class that is called background, or None."""
    return list(class_names).index(BACKGROUND) if BACKGROUND in class_names else None


def overlay(image, mask, colormap, background=0):
    """Colour an image by a class mask.

    Args:
        image: uint8 `(height, width, 3)`.
        mask: class indices `(height, width)`; 255 is white.
        colormap: `(classes, 3)` RGB 0-255.
        background: the class that leaves the image as it is, or None.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: if the sizes differ, or a class has no colour.
    """
    mask, colormap = np.asarray(mask), np.asarray(colormap)
    if mask.shape != image.shape[:2]:
        raise InputError(f"`mask` is {mask.shape}, its image {image.shape[:2]} (height, width)")
    ignored = mask == IGNORE_LABEL
    classes = np.where(ignored, 0, mask)
    if classes.min() < 0 or classes.max() >= len(colormap):
        raise InputError(
            f"`mask` has classes from {classes.min()} to {classes.max()}, but there are "
            f"{len(colormap)} colours"
        )
    drawn = np.array(image)
    for start in range(0, len(drawn), _BAND):  # floats of all of a large image take gigabytes
        band = slice(start, start + _BAND)
        colors = np.where(
            ignored[band, :, None], _IGNORED_COLOR, colormap[classes[band]]
        )  # (h, w, 3)
        weight = MASK_WEIGHT * (mask[band] != background)[..., None]  # (h, w, 1)
        drawn[band] = np.rint(image[band] * (1 - weight) + colors * weight)
    return drawn
