"""A sheet of examples with their labels drawn, by which one sees whether a data set is right."""

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kerascv_d2l.datasets.voc_classes import VOC_COLORMAP, VOC_VOID
from kerascv_d2l.errors import InputError
from kerascv_d2l.files import whole
from kerascv_d2l.plotting import CLASS_COLORS, show_bboxes, to_uint8

CELL_INCHES = 3.0
DPI = 100
MASK_WEIGHT = 0.6  # of the class's colour over the picture
_VOID_COLOR = (255, 255, 255)
_BAND = 256  # rows coloured at a time


def draw_examples(
    path,
    images,
    titles,
    labels=None,
    masks=None,
    class_names=(),
    colormap=None,
    columns=4,
    inches=CELL_INCHES,
):
    """Write a grid of pictures, each with a title and with its boxes or its mask.

    Args:
        path: the file, `.png`.
        images: sequence of `(height, width, 3)` of any sizes, as `to_uint8`
            takes them.
        titles: sequence of str, one a picture.
        labels: for each picture `(objects, 5)` rows `[class, x_min, y_min,
            x_max, y_max]`, normalised; class -1 is not drawn. `None` for none.
        masks: for each picture class indices `(height, width)`, 255 void
            (white). Background (0) is left as it is. `None` for none.
        class_names: names of the labels' classes.
        colormap: `(classes, 3)` RGB 0-255 of the masks' classes; VOC's by default.
        columns: int, pictures a row.
        inches: float, longer side of a picture, at 100 dots an inch.

    Raises:
        InputError: if there is no picture, numbers differ, a mask is of another
            size than its picture or has a class without a colour, or the
            file's ending is not that of a picture.
    """
    count = len(images)
    if count == 0:
        raise InputError("`images` is empty; pass at least one picture to draw")
    for name, values in (("titles", titles), ("labels", labels), ("masks", masks)):
        if values is not None and len(values) != count:
            raise InputError(f"there are {count} images and {len(values)} {name}")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * inches, rows * inches), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if Path(path).suffix.lower().removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: pictures cannot be written with this ending; use .png")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for i, (axes, image) in enumerate(zip(grid, images, strict=False)):
        image = to_uint8(image)
        if masks is not None:
            image = overlay(image, masks[i], VOC_COLORMAP if colormap is None else colormap)
        axes.imshow(image)
        axes.set_title(titles[i], fontsize=8)
        if labels is not None:
            _draw_boxes(axes, image, np.asarray(labels[i]), class_names)
    with whole(path) as temporary:
        figure.canvas.print_figure(temporary, dpi=DPI)


def overlay(image, mask, colormap, background=0):
    """Colour a picture by a class mask.

    Args:
        image: uint8 `(height, width, 3)`.
        mask: class indices `(height, width)`; 255 is white.
        colormap: `(classes, 3)` RGB 0-255.
        background: the class that leaves the picture as it is, or None.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: if the sizes differ, or a class has no colour.
    """
    mask, colormap = np.asarray(mask), np.asarray(colormap)
    if mask.shape != image.shape[:2]:
        raise InputError(f"`mask` is {mask.shape}, its picture {image.shape[:2]} (height, width)")
    void = mask == VOC_VOID
    classes = np.where(void, 0, mask)
    if classes.min() < 0 or classes.max() >= len(colormap):
        raise InputError(
            f"`mask` has classes from {classes.min()} to {classes.max()}, but there are "
            f"{len(colormap)} colours"
        )
    drawn = np.array(image)
    for start in range(0, len(drawn), _BAND):  # floats of all of a large picture take gigabytes
        band = slice(start, start + _BAND)
        colors = np.where(void[band, :, None], _VOID_COLOR, colormap[classes[band]])  # (h, w, 3)
        weight = MASK_WEIGHT * (mask[band] != background)[..., None]  # (h, w, 1)
        drawn[band] = np.rint(image[band] * (1 - weight) + colors * weight)
    return drawn


def _draw_boxes(axes, image, rows, class_names):
    rows = rows[rows[:, 0] >= 0]
    height, width = image.shape[:2]
    boxes = rows[:, 1:] * [width, height, width, height]  # (m, 4) pixels
    classes = rows[:, 0].astype(int)
    names = [class_names[c] if c < len(class_names) else str(c) for c in classes]
    show_bboxes(axes, boxes, names, [CLASS_COLORS[c % len(CLASS_COLORS)] for c in classes])
