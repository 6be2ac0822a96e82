"""Instance masks on an image."""

import numpy as np
from PIL import ImageColor

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting.common import class_color, to_uint8

OPACITY = 0.45


def overlay_instances(image, masks, colors=None, opacity=OPACITY):
    """Lay masks over an image, half-transparent and with a contour, each in its own colour.

    Args:
        image: `(height, width, 3)`, as `to_uint8` takes it.
        masks: iterable of `(height, width)`, not 0 on the object; later ones on top. They are
            used one by one.
        colors: for each mask `#rrggbb`; None for one after the other of `class_color`.
        opacity: float in [0, 1] of the colour inside; 0 for contours alone.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: if a mask has another size than the image.
    """
    found = np.array(to_uint8(image))
    width = max(1, round(min(found.shape[:2]) / 300))
    for number, mask in enumerate(masks):
        mask = np.asarray(mask) != 0
        if mask.shape != found.shape[:2]:
            raise InputError(f"masks: one is {mask.shape}, the image {found.shape[:2]}")
        if not mask.any():
            continue
        color = class_color(number) if colors is None else colors[number]
        color = np.array(ImageColor.getrgb(color), np.float32)
        # Only the part with the object: most are small.
        window = tuple(
            slice(np.flatnonzero(line)[0], np.flatnonzero(line)[-1] + 1)
            for line in (mask.any(axis=1), mask.any(axis=0))
        )
        inside, pixels = mask[window], found[window]
        pixels[inside] = np.rint((1 - opacity) * pixels[inside] + opacity * color)
        pixels[inside & ~_eroded(inside, width)] = color
    return found


def _eroded(mask, width):
    """What is left of a mask, bool `(h, w)`, without the `width` pixels at its border."""
    for _ in range(width):
        around = np.pad(mask, 1)
        mask = mask & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask
