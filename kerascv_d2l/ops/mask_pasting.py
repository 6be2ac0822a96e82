"""Small masks of boxes: pasted back into the image, and cut out of it to learn from."""

import tensorflow as tf

from kerascv_d2l.devices import map_batch
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.boxes import sides_of
from kerascv_d2l.ops.checks import as_boxes
from kerascv_d2l.ops.roi_sampling import bilinear_weights, hat, map_size

_AT_ONCE = 16  # masks of whole images in float32 at a time


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


def paste_detections(masks, boxes, image_size, threshold=0.5, loop=True):
    """Paste the masks of a batch of detections, each into an image of its own.

    Args:
        masks: float32 `(batch, n, mask_height, mask_width)`, probabilities.
        boxes: float32 `(batch, n, 4)` corners, normalised.
        image_size: `(height, width)`, ints or int scalars.
        threshold: the least value that belongs to the object.
        loop: whether to have only a few in float32 at a time.

    Returns:
        uint8 `(batch, n, height, width)`, 1 on the object and 0 elsewhere.
    """
    height, width = image_size
    sides = sides_of(tf.stack(image_size))
    _, _, *cells = map_size(masks)
    masks_and_boxes = tf.reshape(masks, [-1, *cells]), tf.reshape(boxes * sides, [-1, 4])

    def paste(masks, boxes):
        return tf.cast(paste_masks(masks, boxes, image_size, threshold), tf.uint8)

    if loop:
        pasted = _few_at_once(paste, masks_and_boxes, tf.uint8, [height, width])
    else:
        pasted = paste(*masks_and_boxes)
    return tf.reshape(pasted, [tf.shape(masks)[0], tf.shape(masks)[1], height, width])


def crop_masks(masks, image_indices, rows, boxes, output_size):
    """Cut one mask out at each box: RoI align of the mask with as many samples as it has pixels.

    Only a few masks are in float32 at a time. No gradient reaches the boxes.

    Args:
        masks: uint8 or bool `(batch, m, height, width)`, 1 on an object and 0 elsewhere.
        image_indices: int32 `(n,)`, the image of each box.
        rows: int32 `(n,)`, in [0, m): which of the image's masks to cut.
        boxes: float32 `(n, 4)` corners in pixels of the masks.
        output_size: int, rows and columns that come out.

    Returns:
        float32 `(n, output_size, output_size)` in [0, 1]: shares, not rounded.

    Source:
        He et al. 2017, "Mask R-CNN", section 3.1; torchvision's
        `project_masks_on_boxes`.
    """
    _, _, height, width = map_size(masks)
    x_min, y_min, x_max, y_max = tf.unstack(tf.stop_gradient(boxes), axis=1)
    y_extent, x_extent = tf.maximum(y_max - y_min, 1.0), tf.maximum(x_max - x_min, 1.0)
    of_rows = bilinear_weights(y_min, y_extent, output_size, 0, height)  # (n, size, height)
    of_columns = bilinear_weights(x_min, x_extent, output_size, 0, width)  # (n, size, width)

    def crop(index, of_rows, of_columns):
        lines = tf.matmul(of_rows, tf.cast(tf.gather_nd(masks, index), tf.float32))
        return tf.matmul(lines, of_columns, transpose_b=True)  # (few, size, size)

    index = tf.stack([image_indices, rows], axis=1)
    size = [output_size, output_size]
    return _few_at_once(crop, (index, of_rows, of_columns), tf.float32, size)


def _few_at_once(function, tensors, dtype, shape):
    """Call a function from tensors `(n, …)` to `(n, *shape)` for `_AT_ONCE` rows at a time."""
    count = tf.shape(tensors[0])[0]
    groups = -(-count // _AT_ONCE)

    def grouped(tensor):
        rest = [[0, 0]] * (tensor.shape.rank - 1)
        padded = tf.pad(tensor, [[0, groups * _AT_ONCE - count], *rest])
        return tf.reshape(padded, tf.concat([[groups, _AT_ONCE], tf.shape(tensor)[1:]], axis=0))

    found = map_batch(
        lambda few: function(*few),
        tuple(map(grouped, tensors)),
        fn_output_signature=dtype,
        parallel_iterations=1,
    )
    return tf.reshape(found, [groups * _AT_ONCE, *shape])[:count]


def _weights(start, end, size, cells):
    """Weights of a mask's cells for each pixel of a line, float32 `(n, size, cells)`."""
    centres = tf.range(tf.cast(size, tf.float32)) + 0.5  # (size,)
    extent = (end - start)[:, tf.newaxis]  # (n, 1)
    share = tf.math.divide_no_nan(centres - start[:, tf.newaxis], extent)  # (n, size)
    positions = share * tf.cast(cells, tf.float32) - 0.5
    return tf.where((extent > 0)[..., tf.newaxis], hat(positions, cells), 0.0)


def _truncated_weights(start, end, size, cells):
    """As `_weights`, with a border of zeros around the mask and corners in whole pixels."""
    count = tf.cast(cells, tf.float32)
    middle, half = (start + end) * 0.5, (end - start) * 0.5 * ((count + 2) / count)
    low, high = (_towards_zero(edge)[:, tf.newaxis] for edge in (middle - half, middle + half))
    pixels = tf.range(tf.cast(size, tf.float32))  # (size,)
    positions = (pixels - low + 0.5) * (count + 2) / tf.maximum(high - low + 1, 1.0) - 0.5
    positions = tf.clip_by_value(positions, 0.0, count + 1) - 1.0  # cell -1 is the border
    inside = (pixels >= low) & (pixels <= high) & (end > start)[:, tf.newaxis]  # (n, size)
    return tf.where(inside[..., tf.newaxis], hat(positions, cells), 0.0)


def _towards_zero(values):
    return tf.where(values < 0, tf.math.ceil(values), tf.floor(values))
