"""Colours that tell classes apart, the same in every drawing and export."""

import numpy as np


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
