"""What a network sees: maps over images, filters, feature maps, images as points."""

import itertools

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.book import bbox_to_rect
from kerascv_d2l.plotting.common import (
    DPI,
    MAX_LEGEND_CLASSES,
    class_color,
    grid,
    save,
    shortened,
    to_uint8,
)

CELL_INCHES = 3.0  # the longer side of an image
TILE_INCHES = 1.1  # a filter, or a channel of a feature map
TITLE_INCHES, LINE_INCHES = 0.4, 0.15
PERCENTILE = 99.5  # of a map is drawn in full colour: single pixels are often far above
GREY_WEIGHT = 0.55  # of the image under a map
HEAT, SIGNED = "turbo", "bwr"  # signed: red speaks for the class, blue against it
BOX_COLORS = ("white", "lime", "magenta", "cyan")
_TINY = 1e-20


def heat_overlay(image, heat):
    """Lay a map over an image that is made grey and dark.

    Args:
        image: `(height, width, 3)`, as `to_uint8` takes it.
        heat: float `(height, width)`. With negative values it is drawn red where positive and
            blue where negative, else from blue to red; the clearer, the higher.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: if the sizes differ.
    """
    image, heat = to_uint8(image), np.nan_to_num(np.asarray(heat, np.float64))
    if heat.shape != image.shape[:2]:
        raise InputError(f"heat has shape {heat.shape}, the image {image.shape}: bring it onto it.")
    most = max(np.percentile(np.abs(heat), PERCENTILE), np.abs(heat).max() / 20, _TINY)
    scaled = np.clip(heat / most, -1, 1)
    if heat.min() < 0:
        colors = matplotlib.colormaps[SIGNED](0.5 + scaled / 2)[..., :3]
    else:
        colors = matplotlib.colormaps[HEAT](scaled)[..., :3]
    weight = np.sqrt(np.abs(scaled))[..., None] * 0.85
    grey = image.mean(axis=-1, keepdims=True) * (GREY_WEIGHT / 255)
    return to_uint8(np.clip((1 - weight) * grey + weight * colors, 0, 1))


def draw_maps(path, image, maps, boxes=(), columns=4):
    """Write an image and its maps beside it.

    Args:
        path: the file, `.png`.
        image: `(height, width, 3)`, as `to_uint8` takes it.
        maps: dict from titles, of one line or several, to float `(height, width)`, see
            `heat_overlay`.
        boxes: `(x_min, y_min, x_max, y_max)`, pixels, drawn into each, each in another colour: a
            sequence, or a dict from their names, which then stand on the image.
        columns: int, images a row.

    Raises:
        InputError: as for `heat_overlay`, or if the file's ending is not that of an image.
    """
    panels = {"image": to_uint8(image)}
    panels |= {title: heat_overlay(image, heat) for title, heat in maps.items()}
    cell = np.array(panels["image"].shape[1::-1]) * CELL_INCHES / max(panels["image"].shape)
    heading = TITLE_INCHES + LINE_INCHES * max(title.count("\n") for title in panels)
    figure, places = grid(len(panels), columns, cell[0], cell[1] + heading)
    names = list(boxes) if isinstance(boxes, dict) else []
    boxes = list(boxes.values()) if names else boxes
    for axes, (title, panel) in zip(places, panels.items(), strict=False):
        axes.imshow(panel, interpolation="antialiased")
        axes.set_title(title, fontsize=9, pad=4)
        for box, color in zip(boxes, itertools.cycle(BOX_COLORS), strict=False):
            axes.add_patch(bbox_to_rect(box, color))
    for name, box, color in zip(names, boxes, itertools.cycle(BOX_COLORS), strict=False):
        style = {"fontsize": 7, "color": color, "va": "top", "parse_math": False}
        on_dark = {"facecolor": "black", "alpha": 0.6, "pad": 1, "linewidth": 0}
        places[0].text(box[0], box[1], shortened(name), bbox=on_dark, clip_on=True, **style)
    save(path, figure)


def draw_images(path, images, titles, columns=8, inches=CELL_INCHES):
    """Write images with a title each, every one on its own scale.

    Args:
        path: the file, `.png`.
        images: sequence of `(h, w)` or `(h, w, 3)`: uint8, or floats of any range.
        titles: sequence of str.
        columns: int, images a row.
        inches: float, side of a cell.

    Raises:
        InputError: if there is no image, or the file's ending is not that of an image.
    """
    if not len(images):
        raise InputError("images: expected at least 1, got none.")
    figure, places = grid(len(images), columns, inches, inches + 0.25)
    for axes, image, title in zip(places, images, titles, strict=False):
        image = np.asarray(image)
        if image.dtype != np.uint8:
            image = (image - image.min()) / max(np.ptp(image), _TINY)
        axes.imshow(image, cmap="viridis", interpolation="nearest")
        axes.set_title(title, fontsize=7, pad=2)
    save(path, figure)


def draw_filters(path, kernels):
    """Write the filters of a first layer, float `(filters, h, w, 3)`; see `draw_images`."""
    draw_images(path, kernels, range(len(kernels)), 16, TILE_INCHES / 2)


def draw_feature_maps(path, maps, most=32):
    """Write the channels of feature maps `(h, w, channels)` with the largest mean squares."""
    order = np.argsort(-(np.asarray(maps, np.float64) ** 2).mean(axis=(0, 1)), kind="stable")[:most]
    draw_images(path, [maps[..., k] for k in order], [f"{k}" for k in order], 8, TILE_INCHES)


def draw_points(path, points, labels=None, class_names=(), marked=None, title=""):
    """Write a map of a data set: a point for each image.

    Args:
        path: the file, `.png`.
        points: float `(n, 2)`.
        labels: int `(n,)`, the class of each; or None.
        class_names: sequence of str.
        marked: dict from names to float `(2,)`, further points with their names; or None.
        title: str.

    Raises:
        InputError: if the file's ending is not that of an image.
    """
    points = np.asarray(points)
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    labels = np.zeros(len(points), int) if labels is None else np.asarray(labels)
    for k in np.unique(labels):
        name = shortened(class_names[k]) if len(class_names) else None
        axes.scatter(*points[labels == k].T, s=14, color=class_color(k), label=name, alpha=0.8)
    for name, point in (marked or {}).items():
        axes.plot(*point, marker="*", markersize=14, color="black")
        axes.annotate(name, point, fontsize=8, xytext=(6, 6), textcoords="offset points")
    if len(class_names) and len(np.unique(labels)) <= MAX_LEGEND_CLASSES:
        axes.legend(fontsize=8)
    axes.set_title(title, fontsize=11)
    axes.set_xticks([])
    axes.set_yticks([])
    save(path, figure)
