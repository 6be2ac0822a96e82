"""A sheet of examples with their labels drawn, by which one sees whether a data set is right."""

import numpy as np

from kerascv_d2l.data.voc_classes import VOC_COLORMAP
from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.book import bbox_to_rect
from kerascv_d2l.plotting.common import class_color, grid, save, to_uint8
from kerascv_d2l.plotting.instances import overlay_instances
from kerascv_d2l.plotting.segmentation import overlay

CELL_INCHES = 3.0


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
    instances=None,
    background=0,
):
    """Write a grid of images, each with a title and with its boxes or its mask.

    Args:
        path: the file, `.png`.
        images: sequence of `(height, width, 3)` of any sizes, as `to_uint8`
            takes them.
        titles: sequence of str, one an image.
        labels: for each image `(objects, 5)` rows `[class, x_min, y_min,
            x_max, y_max]`, normalised; class -1 is not drawn. `None` for none.
        masks: for each image class indices `(height, width)`, 255 ignored
            (white). `None` for none.
        class_names: names of the labels' classes.
        colormap: `(classes, 3)` RGB 0-255 of the masks' classes; VOC's by default.
        columns: int, images a row.
        inches: float, longer side of an image, at 100 dots an inch.
        instances: for each image the masks of its objects, see `overlay_instances`. `None` for
            none.
        background: the class of masks that leaves an image as it is, or None.

    Raises:
        InputError: if there is no image, numbers differ, a mask is of another
            size than its image or has a class without a colour, or the
            file's ending is not that of an image.
    """
    count = len(images)
    if count == 0:
        raise InputError("`images` is empty; pass at least one image to draw")
    for name, values in (("titles", titles), ("labels", labels), ("masks", masks)):
        if values is not None and len(values) != count:
            raise InputError(f"there are {count} images and {len(values)} {name}")
    figure, places = grid(count, columns, inches, inches)
    for i, (axes, image) in enumerate(zip(places, images, strict=False)):
        image = to_uint8(image)
        if masks is not None:
            colors = VOC_COLORMAP if colormap is None else colormap
            image = overlay(image, masks[i], colors, background)
        if instances is not None:
            image = overlay_instances(image, instances[i])
        axes.imshow(image)
        axes.set_title(titles[i], fontsize=8, parse_math=False)
        if labels is not None:
            _draw_boxes(axes, image, np.asarray(labels[i]), class_names, instances is not None)
    save(path, figure)


def _draw_boxes(axes, image, rows, class_names, masked):
    rows = rows[rows[:, 0] >= 0]
    line = 0.7 if masked else 2  # so that masks of small objects are seen
    named = not masked or len(set(rows[:, 0])) > 1
    height, width = image.shape[:2]
    boxes = rows[:, 1:] * [width, height, width, height]  # (m, 4) pixels
    classes = rows[:, 0].astype(int)
    for box, kind in zip(boxes, classes, strict=True):
        name = class_names[kind] if kind < len(class_names) else str(kind)
        rectangle = bbox_to_rect(box, class_color(kind))
        rectangle.set_linewidth(line)
        axes.add_patch(rectangle)
        if not named:
            continue
        # Small and thin: the objects are what is to be seen.
        axes.text(
            *box[:2],
            name,
            fontsize=5,
            color="white",
            va="bottom",
            clip_on=True,
            parse_math=False,
            bbox={"facecolor": class_color(kind), "alpha": 0.7, "linewidth": 0, "pad": 0.7},
        )
