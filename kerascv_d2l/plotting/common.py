"""What all drawings share: colours of classes, pictures as screens show them, files."""

from pathlib import Path

import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.files import whole

# One a class, repeated beyond. Far apart, strong enough on photographs; not white, which
# is the ground truth's.
CLASS_COLORS = (
    "#ff3b30",
    "#0a84ff",
    "#ffcc00",
    "#34c759",
    "#bf5af2",
    "#ff8c1a",
    "#00d5d5",
    "#ff5fa8",
    "#8fce00",
    "#a2714f",
)

# Floats up to here are taken as 0-1 with some overshoot (jitter, interpolation), above as 0-255.
UNIT_RANGE_LIMIT = 2.0

DPI = 100
GAP_INCHES = 0.08  # between the pictures of a grid
MIN_WIDTH_INCHES = 6.5  # the legend's heading fits
LEGEND_ENTRY_INCHES = 2.0
MAX_NAME_LETTERS = 24  # of a class in a legend, beside a matrix or over a picture


def to_uint8(image):
    """Bring an image to what screens show.

    Args:
        image: `(height, width)`, `(height, width, 1)` or `(height, width, 3)`; uint8 or
            other integers 0-255, or floats 0-1 or 0-255: an image with a value
            above 2 is taken as 0-255. What lies outside is clipped.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: if the shape is another.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise InputError(
            f"image has shape {image.shape}; pass (height, width, 3), or one channel for grey."
        )
    if image.dtype != np.uint8:
        if image.dtype == bool or not np.issubdtype(image.dtype, np.integer):
            image = image.astype(np.float32)
            if np.nanmax(image) <= UNIT_RANGE_LIMIT:
                image = image * 255
        image = np.clip(np.rint(np.nan_to_num(image)), 0, 255).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def class_color(class_index):
    """Give the colour of a class: `#rrggbb`, the same in every picture."""
    return CLASS_COLORS[int(class_index) % len(CLASS_COLORS)]


def shortened(name):
    """Cut a long name of a class, a str, to `MAX_NAME_LETTERS`, with an ellipsis at its end."""
    name = str(name)
    return name if len(name) <= MAX_NAME_LETTERS else name[: MAX_NAME_LETTERS - 1] + "…"


def save(path, figure):
    """Write a figure that has a canvas to a file, which appears only when it is whole.

    Args:
        path: the file, `.png` or another ending that Matplotlib writes.
        figure: `matplotlib.figure.Figure`.

    Raises:
        InputError: if the file's ending is not that of a picture.
    """
    suffix = Path(path).suffix.lower()
    if suffix.removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: pictures cannot be written as {suffix!r}; use .png.")
    with whole(path) as temporary:
        figure.canvas.print_figure(temporary, dpi=DPI)
