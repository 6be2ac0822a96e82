"""Anchors: where they stand, and how boxes are written relative to them."""

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.boxes import box_center_to_corner, box_corner_to_center
from kerascv_d2l.ops.checks import as_boxes

# Offsets are divided by the standard deviations that they are taken to have, so
# that a network has targets of about unit size to learn: shifts of a tenth of
# the anchor, and size ratios whose logarithm is about 0.2.
OFFSET_STD_XY = 0.1
OFFSET_STD_WH = 0.2


def multibox_prior(data, sizes, ratios):
    """Anchors centred on every pixel of a feature map.

    The pairs of size s and aspect ratio r at a pixel are (s1, r1), (s2, r1) …
    (sn, r1), (s1, r2) … (s1, rm): only pairs with s1 or r1, so n + m - 1.
    An anchor is s·h/√r pixels high and s·h·√r wide (h the map's height):
    the ratio is that of pixels, whatever the shape of the map.

    Args:
        data: feature map or images `(batch, height, width, channels)`; only
            its shape is read.
        sizes: sequence of n floats > 0, share of the image's height.
        ratios: sequence of m floats > 0, width over height.

    Returns:
        float32 `(1, height·width·(n + m - 1), 4)`, normalised corners, by pixel
        row, then column, then pair. Anchors may reach over the border.

    Raises:
        InputError: if `data` has not four dimensions, or a size or ratio is not
            positive.

    Source:
        D2L 1.0.3, section 14.4.1.
    """
    shape = getattr(data, "shape", None)
    if shape is None or len(shape) != 4:
        raise InputError(
            f"data must be (batch, height, width, channels); got shape {shape and tuple(shape)}."
        )
    sizes = np.asarray(sizes, np.float64).reshape(-1)
    ratios = np.asarray(ratios, np.float64).reshape(-1)
    for name, values in (("sizes", sizes), ("ratios", ratios)):
        if not len(values) or not np.all(values > 0):
            raise InputError(f"{name} must be one or more positive numbers; got {values.tolist()}.")

    pair_sizes = np.concatenate([sizes, np.full(len(ratios) - 1, sizes[0])])
    pair_ratios = np.concatenate([np.full(len(sizes), ratios[0]), ratios[1:]])
    widths = tf.constant(pair_sizes * np.sqrt(pair_ratios), tf.float32)  # (pairs,) over height
    heights = tf.constant(pair_sizes / np.sqrt(pair_ratios), tf.float32)  # (pairs,)

    dynamic = tf.shape(data)
    rows = tf.cast(dynamic[1] if shape[1] is None else shape[1], tf.float32)
    columns = tf.cast(dynamic[2] if shape[2] is None else shape[2], tf.float32)
    center_y = (tf.range(rows) + 0.5) / rows  # (height,)
    center_x = (tf.range(columns) + 0.5) / columns  # (width,)
    # (height, width, pairs) each
    y, x, w = tf.meshgrid(center_y, center_x, widths * (rows / columns), indexing="ij")
    anchors = tf.stack([x, y, w, heights + tf.zeros_like(w)], axis=-1)
    return tf.reshape(box_center_to_corner(anchors), [1, -1, 4])


def offset_boxes(anchors, assigned_bb, eps=1e-6):
    """Write boxes relative to anchors.

    With centres (x, y) and sizes (w, h) of anchor a and box b:
    `((x_b - x_a)/w_a/σ_xy, (y_b - y_a)/h_a/σ_xy, log(eps + w_b/w_a)/σ_wh,
    log(eps + h_b/h_a)/σ_wh)` with σ_xy = 0.1, σ_wh = 0.2.

    Args:
        anchors: float32 `(…, 4)` corners.
        assigned_bb: float32 `(…, 4)` corners of the box for each anchor, in the
            same frame.
        eps: float; keeps the logarithm of a box without area finite.

    Returns:
        float32 `(…, 4)`.

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        D2L 1.0.3, section 14.4.3.2.
    """
    # One tensor a coordinate: a CPU takes half the time for these as for (…, 4) and (…, 2).
    ax, ay, aw, ah = tf.unstack(box_corner_to_center(as_boxes(anchors, "anchors")), axis=-1)
    x1, y1, x2, y2 = tf.unstack(as_boxes(assigned_bb, "assigned_bb"), axis=-1)
    offsets = [
        ((x1 + x2) / 2 - ax) / (aw * OFFSET_STD_XY),
        ((y1 + y2) / 2 - ay) / (ah * OFFSET_STD_XY),
        tf.math.log(eps + (x2 - x1) / aw) / OFFSET_STD_WH,
        tf.math.log(eps + (y2 - y1) / ah) / OFFSET_STD_WH,
    ]
    return tf.stack(offsets, axis=-1)


def offset_inverse(anchors, offset_preds):
    """Boxes from anchors and offsets: the inverse of `offset_boxes`.

    Args:
        anchors: float32 `(…, 4)` corners.
        offset_preds: float32 `(…, 4)` offsets.

    Returns:
        float32 `(…, 4)` corners in the anchors' frame, not clipped.

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        D2L 1.0.3, section 14.4.4.
    """
    anchors = box_corner_to_center(as_boxes(anchors, "anchors"))
    offsets = as_boxes(offset_preds, "offset_preds")
    xy = offsets[..., :2] * OFFSET_STD_XY * anchors[..., 2:] + anchors[..., :2]
    wh = tf.exp(offsets[..., 2:] * OFFSET_STD_WH) * anchors[..., 2:]
    return box_center_to_corner(tf.concat([xy, wh], axis=-1))
