"""The book's functions for a notebook: boxes on axes, images in a grid."""

import numpy as np
from matplotlib.patches import Rectangle

from kerascv_d2l.plotting.common import to_uint8

# The book's colours for boxes, in its order.
BOOK_COLORS = ("b", "g", "r", "m", "c")


def bbox_to_rect(bbox, color):
    """Turn a box into Matplotlib's rectangle.

    Args:
        bbox: `(4,)`, corners x_min, y_min, x_max, y_max in the units of the axes
            (for an image shown by `imshow`: pixels).
        color: Matplotlib colour of the outline.

    Returns:
        `matplotlib.patches.Rectangle`, not filled, 2 points wide.

    Source:
        D2L 1.0.3, section 14.3.
    """
    x_min, y_min, x_max, y_max = (float(value) for value in bbox)
    return Rectangle(
        (x_min, y_min), x_max - x_min, y_max - y_min, fill=False, edgecolor=color, linewidth=2
    )


def show_bboxes(axes, bboxes, labels=None, colors=None):
    """Draw boxes onto axes, each with a label centred on its upper left corner.

    Args:
        axes: Matplotlib axes, usually with an image.
        bboxes: `(n, 4)`, corners in the units of the axes.
        labels: list of str, or one str for the first box. Boxes beyond its end
            have no label.
        colors: list of Matplotlib colours, or one, repeated over the boxes;
            default blue, green, red, magenta, cyan.

    Source:
        D2L 1.0.3, section 14.4.
    """
    labels = _as_list(labels, ())
    colors = _as_list(colors, BOOK_COLORS)
    for i, bbox in enumerate(np.asarray(bboxes)):
        color = colors[i % len(colors)]
        rectangle = axes.add_patch(bbox_to_rect(bbox, color))
        if i < len(labels):
            axes.text(
                *rectangle.get_xy(),
                labels[i],
                va="center",
                ha="center",
                fontsize=9,
                color="k" if color == "w" else "w",
                bbox={"facecolor": color, "linewidth": 0},
            )


def show_images(imgs, num_rows, num_cols, titles=None, scale=1.5):
    """Show images in a grid, in a notebook.

    Args:
        imgs: sequence of images, or a batch `(n, height, width, channels)`: uint8;
            floats 0-1 or 0-255 (told apart by the largest value); one channel or
            none is drawn in grey. More than the grid holds are left out.
        num_rows: int.
        num_cols: int.
        titles: sequence of str, one an image, or None.
        scale: inches of a side of a cell.

    Returns:
        NumPy array `(num_rows * num_cols,)` of Matplotlib axes, by row.

    Source:
        D2L 1.0.3, `d2l.show_images`.
    """
    import matplotlib.pyplot as plt  # here, since it picks a backend

    _, axes = plt.subplots(
        num_rows, num_cols, figsize=(num_cols * scale, num_rows * scale), squeeze=False
    )
    axes = axes.flatten()
    for i, (axis, image) in enumerate(zip(axes, imgs, strict=False)):
        axis.imshow(to_uint8(image))
        axis.xaxis.set_visible(False)
        axis.yaxis.set_visible(False)
        if titles is not None and i < len(titles):
            axis.set_title(titles[i])
    return axes


def apply(img, aug, num_rows=2, num_cols=4, scale=1.5):
    """Show what an augmentation makes of an image, again and again, in a notebook.

    Args:
        img: `(height, width, channels)`, as `show_images` takes it.
        aug: function of an image, such as a layer of `layers.augmentation`.
        num_rows: int.
        num_cols: int.
        scale: inches of a side of a cell.

    Returns:
        NumPy array `(num_rows * num_cols,)` of Matplotlib axes, by row.

    Source:
        D2L 1.0.3, section 14.1.
    """
    # A Sequential of layers would augment only where something trains.
    import keras  # here, for other drawings do without

    options = {"training": True} if isinstance(aug, keras.Layer) else {}
    results = [aug(img, **options) for _ in range(num_rows * num_cols)]
    return show_images(results, num_rows, num_cols, scale=scale)


def _as_list(value, default):
    if value is None:
        return default
    return value if isinstance(value, (list, tuple)) else [value]
