"""Position-sensitive RoI operators: every bin reads channels of its own.

Channel (k·rows + i)·columns + j of the map serves output channel k in bin
(i, j), as in torchvision. Boxes are as in `ops.roi`: pixels of the image.
"""

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops import roi_sampling
from kerascv_d2l.ops.roi import bin_edges, round_half_away
from kerascv_d2l.ops.roi_sampling import as_regions, as_size, map_size


def ps_roi_align(features, boxes, image_indices, output_size, spatial_scale=1.0, sampling_ratio=2):
    """Average bilinear samples in each bin of each box, from the bin's own channels.

    Samples lie as in `roi_align` with `aligned=True`. Runs under XLA and, with
    builtin operators, in TensorFlow Lite.

    Args:
        features: float `(batch, h, w, rows·columns·c)`.
        boxes: float32 `(n, 4)` corners in pixels of the image; an inverted box
            is read backwards.
        image_indices: int32 `(n,)`, the image of each box; 0 comes out for an
            index out of range.
        output_size: int or `(rows, columns)` of bins.
        spatial_scale: float, map over image.
        sampling_ratio: int, samples along each side of a bin; 0 or less for
            ceil(side / bins). Then a box without extent gives 0 (torchvision: NaN).

    Returns:
        `(n, rows, columns, c)` of the dtype of `features`.

    Raises:
        InputError: if a shape is another, or the channels cannot be dealt out.

    Source:
        Dai et al. 2016, "R-FCN"; `torchvision.ops.ps_roi_align`.
    """
    features, boxes, image_indices, dtype = as_regions(features, boxes, image_indices)
    rows, columns = as_size(output_size)
    _, height, width, _ = map_size(features)
    x_min, y_min, x_max, y_max = tf.unstack(boxes * spatial_scale - 0.5, axis=1)
    weigh = roi_sampling.bilinear_weights
    row_weights = weigh(y_min, y_max - y_min, rows, sampling_ratio, height)
    column_weights = weigh(x_min, x_max - x_min, columns, sampling_ratio, width)
    return tf.cast(_apply(features, row_weights, column_weights, image_indices), dtype)


def ps_roi_pool(features, boxes, image_indices, output_size, spatial_scale=1.0):
    """Average whole pixels in each bin of each box, from the bin's own channels.

    Corners are rounded to whole pixels of the map, half away from zero; a side
    is at least one pixel and, other than in `roi_pool`, without the last pixel.
    As in torchvision, bins end before the last row and column of the map.

    Args:
        features: float `(batch, h, w, rows·columns·c)`.
        boxes: float32 `(n, 4)` corners in pixels of the image.
        image_indices: int32 `(n,)`, the image of each box; 0 comes out for an
            index out of range.
        output_size: int or `(rows, columns)` of bins.
        spatial_scale: float, map over image.

    Returns:
        `(n, rows, columns, c)` of the dtype of `features`; 0 for an empty bin.

    Raises:
        InputError: if a shape is another, or the channels cannot be dealt out.

    Source:
        Dai et al. 2016, "R-FCN", equation 1; `torchvision.ops.ps_roi_pool`.
    """
    features, boxes, image_indices, dtype = as_regions(features, boxes, image_indices)
    rows, columns = as_size(output_size)
    _, height, width, _ = map_size(features)
    x_min, y_min, x_max, y_max = tf.unstack(round_half_away(boxes * spatial_scale), axis=1)

    def weights(start, end, bins, size):
        low, high = bin_edges(start, tf.maximum(end - start, 1.0), bins, size - 1)  # (n, bins)
        pixels = tf.range(size)
        inside = (pixels >= low[..., tf.newaxis]) & (pixels < high[..., tf.newaxis])
        count = tf.cast(tf.maximum(high - low, 1), tf.float32)
        return tf.cast(inside, tf.float32) / count[..., tf.newaxis]  # (n, bins, size)

    row_weights = weights(y_min, y_max, rows, height)
    column_weights = weights(x_min, x_max, columns, width)
    return tf.cast(_apply(features, row_weights, column_weights, image_indices), dtype)


def _apply(features, rows, columns, image_indices):
    """`roi_sampling.apply_weights` with channels dealt out to the bins.

    Args:
        features: float32 `(batch, h, w, r·q·c)`.
        rows: float32 `(n, r, h)`.
        columns: float32 `(n, q, w)`.
        image_indices: int32 `(n,)`.

    Returns:
        float32 `(n, r, q, c)`.
    """
    batch, height, width, channels = map_size(features)
    r, q = rows.shape[1], columns.shape[1]
    if isinstance(channels, int) and channels % (r * q):
        raise InputError(
            f"features have {channels} channels, which {r} × {q} bins cannot share evenly; "
            "expected a multiple of the number of bins."
        )
    per_bin = channels // (r * q)
    maps = tf.reshape(features, [batch * height, width, per_bin, r, q])
    maps = tf.transpose(maps, [3, 0, 4, 1, 2])  # (r, batch·h, q, w, c)
    maps = tf.reshape(maps, [r, batch * height, q * width * per_bin])
    own = tf.one_hot(image_indices, batch)  # (n, batch)
    weights = rows[:, :, tf.newaxis] * own[:, tf.newaxis, :, tf.newaxis]  # (n, r, batch, h)
    weights = tf.transpose(tf.reshape(weights, [-1, r, batch * height]), [1, 0, 2])
    lines = tf.matmul(weights, maps)  # (r, n, q·w·c)
    lines = tf.reshape(lines, [r, -1, q, width, per_bin])
    pooled = tf.matmul(columns[:, :, tf.newaxis], lines)  # (n, q, 1, w) @ (r, n, q, w, c)
    return tf.transpose(tf.squeeze(pooled, axis=3), [1, 0, 2, 3])  # (n, r, q, c)
