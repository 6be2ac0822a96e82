"""Anchors of a feature pyramid, in pixels, as torchvision's detectors stand on them."""

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError

RPN_SIZES = ((32,), (64,), (128,), (256,), (512,))  # of P2 … P6
RPN_RATIOS = (0.5, 1.0, 2.0)
RETINANET_SIZES = tuple(  # of P3 … P7
    tuple(int(size * 2 ** (k / 3)) for k in range(3)) for size in (32, 64, 128, 256, 512)
)


def pyramid_anchors(image_size, map_sizes, sizes=RPN_SIZES, ratios=RPN_RATIOS):
    """Place anchors at every pixel of every map, in pixels of the image.

    An anchor of size s and ratio r is s·√r high and s/√r wide around (0, 0), its
    corners rounded to whole pixels, half to even. It is moved by whole strides,
    image // map, without half a pixel: the first one is centred on the corner of
    the image. Where a map does not divide the image, so does the stride not: 13
    rows for 800 pixels are 61 apart.

    Args:
        image_size: `(height, width)`, ints or int scalars, padding included.
        map_sizes: list of `(height, width)`, ints or int scalars, one for each level.
        sizes: for each level a sequence of floats, pixels.
        ratios: sequence of floats, **height over width**.

    Returns:
        list of float32 `(h·w·len(ratios)·len(sizes), 4)` corners, one for each
        level, by pixel row, then column, then ratio, then size. Anchors may
        reach over the border.

    Raises:
        InputError: if there are not as many sizes as maps, or one is not positive.

    Source:
        Ren et al. 2015, "Faster R-CNN", section 3.1.1; torchvision's
        `AnchorGenerator`.
    """
    if len(sizes) != len(map_sizes):
        raise InputError(
            f"sizes={sizes!r} are for {len(sizes)} levels, but map_sizes has {len(map_sizes)}."
        )
    return [
        _level(image_size, map_size, base_anchors(level_sizes, ratios))
        for map_size, level_sizes in zip(map_sizes, sizes, strict=True)
    ]


def check_anchor_sizes(anchor_sizes, levels):
    """Check that each level of a pyramid has anchors, and equally many, for one head reads all.

    Args:
        anchor_sizes: for each level a sequence of floats, pixels.
        levels: int, of the pyramid.

    Raises:
        InputError: if there are sizes of more or fewer levels, or of one more than of another.
    """
    if len(anchor_sizes) != levels:
        raise InputError(
            f"anchor_sizes={anchor_sizes!r} are for {len(anchor_sizes)} levels, and the pyramid "
            f"has {levels}: give sizes of each level."
        )
    counts = [len(sizes) for sizes in anchor_sizes]
    if min(counts) < 1 or min(counts) != max(counts):
        raise InputError(
            f"anchor_sizes={anchor_sizes!r} has {counts} sizes for its levels: give equally many "
            "for each, at least one."
        )


def base_anchors(sizes, ratios):
    """Anchors around (0, 0), rounded: float32 `(len(ratios)·len(sizes), 4)` NumPy array."""
    sizes, roots = np.asarray(sizes, np.float32), np.sqrt(np.asarray(ratios, np.float32))
    if sizes.ndim != 1 or not (sizes > 0).all() or not (roots > 0).all():
        raise InputError(
            f"sizes of a level and ratios must be positive numbers; got {sizes.tolist()} and "
            f"{np.square(roots).tolist()}."
        )
    widths = ((1 / roots)[:, None] * sizes).reshape(-1)  # (ratios·sizes,)
    heights = (roots[:, None] * sizes).reshape(-1)
    return np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2)


def _level(image_size, map_size, base):
    rows, columns = (
        tf.cast(tf.range(count) * (side // count), tf.float32)
        for side, count in zip(image_size, map_size, strict=True)
    )
    y, x = tf.meshgrid(rows, columns, indexing="ij")  # (h, w) each
    shifts = tf.stack([x, y, x, y], axis=-1)[:, :, tf.newaxis]  # (h, w, 1, 4)
    return tf.reshape(shifts + tf.constant(base, tf.float32), [-1, 4])
