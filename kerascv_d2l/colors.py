"""Colours that tell classes apart, the same in every drawing and export."""

import numpy as np

MOST_COLORS = 255
NEAR = 12  # grey levels in every channel: colours that look alike; VOC's are 32 apart


def default_colors(count):
    """Colours that tell classes apart: VOC's, continued by VOC's rule.

    Args:
        count: int, at most 255.

    Returns:
        uint8 `(count, 3)`, RGB.
    """
    # The bits of the index spread over the channels, high bits first.
    index = np.arange(count)
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        colors[:, bit % 3] |= ((index >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colors


def told_apart(colors):
    """Replace colours that are the same as an earlier one, or nearly.

    Args:
        colors: uint8 `(count, 3)`, RGB.

    Returns:
        `(colors, changed)`: uint8 `(count, 3)`; and which were replaced, a list of int: by the
        first of VOC's that no other is near to.
    """
    told, changed, spare = np.array(colors), [], None

    def near(color, others):
        return len(others) and np.abs(others.astype(int) - color).max(axis=1).min() < NEAR

    for k, color in enumerate(np.array(colors, int)):
        if near(color, told[:k]):
            spare = iter(default_colors(MOST_COLORS).astype(int)) if spare is None else spare
            taken = np.concatenate([told[:k], colors[k + 1 :]])
            told[k] = next((c for c in spare if not near(c, taken)), color)
            changed.append(k)
    return told, changed
