"""Pasting: small masks of boxes back into the image."""

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.checks import as_boxes
from kerascv_d2l.ops.roi_sampling import map_size


def paste_masks(masks, boxes, image_size, threshold=None, truncate=False):
    """Enlarge the mask of each box to the box, and put it into an empty image.

    Bilinear and separable: M_y · mask · M_xᵀ with two small matrices for each
    mask. A pixel takes the value of the mask at its own centre; around the mask
    there are zeros, so values fall off over the outer half of its border cells.

    Args:
        masks: float `(n, mask_height, mask_width)`, probabilities.
        boxes: float32 `(n, 4)` corners in pixels of the image, with parts
            outside it or not. A box without area pastes nothing.
        image_size: `(height, width)`, ints or int scalars.
        threshold: None, or the least value that belongs to the object.
        truncate: whether to cut the corners to whole pixels first, as
            torchvision does, which shifts objects by up to a pixel.

    Returns:
        float32 `(n, height, width)`, or bool with a `threshold`.

    Raises:
        InputError: if a shape is another.

    Source:
        Wu et al. 2019, Detectron2, `paste_masks_in_image`; with `truncate`
        torchvision's function of the same name.
    """
    masks = tf.cast(tf.convert_to_tensor(masks), tf.float32)
    boxes = as_boxes(boxes, "boxes", rank=2)
    if masks.shape.rank != 3:
        raise InputError(f"masks must be (n, height, width); got shape {tuple(masks.shape)}.")
    _, mask_height, mask_width = map_size(masks)
    height, width = image_size
    x_min, y_min, x_max, y_max = tf.unstack(boxes, axis=1)
    weigh = _truncated_weights if truncate else _weights
    rows = weigh(y_min, y_max, height, mask_height)  # (n, height, mask_height)
    columns = weigh(x_min, x_max, width, mask_width)  # (n, width, mask_width)
    # The small product first.
    pasted = tf.matmul(rows, tf.matmul(masks, columns, transpose_b=True))  # (n, height, width)
    return pasted if threshold is None else pasted >= threshold


def _weights(start, end, size, cells):
    """Weights of a mask's cells for each pixel of a line, float32 `(n, size, cells)`."""
    centres = tf.range(tf.cast(size, tf.float32)) + 0.5  # (size,)
    extent = (end - start)[:, tf.newaxis]  # (n, 1)
    share = tf.math.divide_no_nan(centres - start[:, tf.newaxis], extent)  # (n, size)
    positions = share * tf.cast(cells, tf.float32) - 0.5
    return tf.where((extent > 0)[..., tf.newaxis], _triangle(positions, cells), 0.0)


def _truncated_weights(start, end, size, cells):
    """As `_weights`, with a border of zeros around the mask and corners in whole pixels."""
    count = tf.cast(cells, tf.float32)
    middle, half = (start + end) * 0.5, (end - start) * 0.5 * ((count + 2) / count)
    low, high = (_towards_zero(edge)[:, tf.newaxis] for edge in (middle - half, middle + half))
    pixels = tf.range(tf.cast(size, tf.float32))  # (size,)
    positions = (pixels - low + 0.5) * (count + 2) / tf.maximum(high - low + 1, 1.0) - 0.5
    positions = tf.clip_by_value(positions, 0.0, count + 1) - 1.0  # cell -1 is the border
    inside = (pixels >= low) & (pixels <= high) & (end > start)[:, tf.newaxis]  # (n, size)
    return tf.where(inside[..., tf.newaxis], _triangle(positions, cells), 0.0)


def _towards_zero(values):
    return tf.where(values < 0, tf.math.ceil(values), tf.floor(values))


def _triangle(positions, cells):
    """Bilinear weights, 0 outside: `(n, size)` -> `(n, size, cells)`."""
    distance = tf.abs(positions[..., tf.newaxis] - tf.range(tf.cast(cells, tf.float32)))
    return tf.nn.relu(1.0 - distance)
