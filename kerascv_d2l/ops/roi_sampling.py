"""Where a region's bins take their samples, and ways to read a map there.

Rows and columns are separable: a region has P·s sample rows and Q·s sample
columns, and its samples are their crossings.

- `sample_means` multiplies the map by one sparse matrix. Its time depends on
  the number of samples only. Neither XLA nor TensorFlow Lite has it.
- `gathered_means` does the same with a gather for each pixel that a bin reads.
  Its time is some three times that, and it runs everywhere.
- `bilinear_weights` and `apply_weights` write the same as two small matrices a
  region. Their time grows with the map, and they run everywhere.

`tf.image.crop_and_resize` would do for the first, were it not for its gradient:
its threads add to the same pixels at once and lose a part of it (up to a tenth
of the largest value, seen in TensorFlow 2.21 with 512 boxes on two cores).

Boxes carry no gradient: where samples lie is taken as given.
"""

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.checks import as_boxes


def as_regions(features, boxes, image_indices):
    """Convert and check what all RoI operators take.

    Args:
        features: `(batch, h, w, c)`.
        boxes: `(n, 4)`.
        image_indices: `(n,)`, whole numbers.

    Returns:
        Tuple of float32 `(batch, h, w, c)`, float32 `(n, 4)` without gradient,
        int32 `(n,)`, and the dtype that results are to have.

    Raises:
        InputError: if a shape is another.
    """
    features = tf.convert_to_tensor(features)
    dtype = features.dtype if features.dtype.is_floating else tf.float32
    image_indices = tf.cast(tf.convert_to_tensor(image_indices), tf.int32)
    boxes = as_boxes(boxes, "boxes", rank=2)
    if features.shape.rank not in (4, None):
        raise InputError(
            f"features must be (batch, height, width, channels); got {tuple(features.shape)}."
        )
    if image_indices.shape.rank not in (1, None) or not boxes.shape[:1].is_compatible_with(
        image_indices.shape[:1]
    ):
        raise InputError(
            "image_indices must hold one index for each box; got shape "
            f"{tuple(image_indices.shape)} for boxes {tuple(boxes.shape)}."
        )
    return tf.cast(features, tf.float32), tf.stop_gradient(boxes), image_indices, dtype


def as_size(output_size, name="output_size"):
    """Return `(rows, columns)` from an int or a pair; `InputError` unless both are at least 1."""
    size = tuple(output_size) if hasattr(output_size, "__len__") else (output_size, output_size)
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"{name} must be one or two whole numbers from 1 up; got {output_size!r}.")
    return int(size[0]), int(size[1])


def compiled_by_xla():
    """Whether the code being traced is inside `tf.function(jit_compile=True)`.

    TensorFlow has no public way to ask; this one is what its own control flow uses.
    """
    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def map_size(features):
    """Return `(batch, height, width, channels)`, ints where known, else scalar tensors."""
    dynamic = tf.shape(features)
    return tuple(dynamic[i] if n is None else n for i, n in enumerate(features.shape))


def sample_positions(start, extent, bins, samples):
    """Place `samples` points in each of `bins` equal parts of an interval.

    The order of the operations is torchvision's, so that a sample that lies on
    the border of the map does so to the last bit.

    Args:
        start: float32 `(n,)`, in pixels of the map.
        extent: float32 `(n,)`.
        bins: int.
        samples: int.

    Returns:
        float32 `(n, bins, samples)`.
    """
    size = extent / float(bins)  # (n,)
    starts = start[:, tf.newaxis] + tf.range(bins, dtype=tf.float32) * size[:, tf.newaxis]
    inside = (tf.range(samples, dtype=tf.float32) + 0.5) * size[:, tf.newaxis] / float(samples)
    return starts[:, :, tf.newaxis] + inside[:, tf.newaxis]  # (n, bins, samples)


def _valid(positions, size):
    return (positions >= -1.0) & (positions <= tf.cast(size, tf.float32))


def hat(positions, size):
    """Bilinear weights of `size` pixels, 0 for positions outside: any shape -> shape + (size,)."""
    pixels = tf.range(size, dtype=tf.float32)
    return tf.nn.relu(1.0 - tf.abs(positions[..., tf.newaxis] - pixels))


def _weights_at(positions, size):
    """As `hat`, but up to a pixel outside the border a position takes the border's pixel."""
    weights = hat(tf.clip_by_value(positions, 0.0, tf.cast(size - 1, tf.float32)), size)
    return tf.where(_valid(positions, size)[..., tf.newaxis], weights, 0.0)


def bilinear_weights(start, extent, bins, samples, size):
    """Weights with which each bin reads the pixels of a line of the map.

    Args:
        start: float32 `(n,)`, in pixels of the map.
        extent: float32 `(n,)`.
        bins: int.
        samples: int, points in a bin; 0 or less for ceil(extent / bins) points,
            another number for every region.
        size: int or int scalar, pixels of the line.

    Returns:
        float32 `(n, bins, size)`.
    """
    if samples > 0:
        positions = sample_positions(start, extent, bins, samples)
        return tf.reduce_mean(_weights_at(positions, size), axis=2)
    part = extent / float(bins)  # (n,)
    counts = tf.math.ceil(part)  # (n,)
    starts = start[:, tf.newaxis] + tf.range(bins, dtype=tf.float32) * part[:, tf.newaxis]

    def add(k, total):
        inside = (k + 0.5) * part / tf.maximum(counts, 1.0)  # (n,)
        weights = _weights_at(starts + inside[:, tf.newaxis], size)  # (n, bins, size)
        return k + 1, total + tf.where((k < counts)[:, tf.newaxis, tf.newaxis], weights, 0.0)

    most = tf.reduce_max(tf.concat([counts, [0.0]], axis=0))
    zeros = tf.zeros([tf.shape(start)[0], bins, size])
    shape = tf.TensorShape([start.shape[0], bins, size if isinstance(size, int) else None])
    zeros = tf.ensure_shape(zeros, shape)
    _, total = tf.while_loop(lambda k, _: k < most, add, (0.0, zeros), (tf.TensorShape([]), shape))
    return total / tf.maximum(counts, 1.0)[:, tf.newaxis, tf.newaxis]


def apply_weights(features, rows, columns, image_indices):
    """Read the map of each region through a matrix for rows and one for columns.

    With several images their rows are stacked to one tall map, which costs as
    many times as much arithmetic as there are images, but no copy of a map for
    each region.

    Args:
        features: float32 `(batch, h, w, c)`.
        rows: float32 `(n, bins, h)`.
        columns: float32 `(n, bins, w)`.
        image_indices: int32 `(n,)`.

    Returns:
        float32 `(n, bins, bins, c)`.
    """
    batch, height, width, channels = map_size(features)
    bins = rows.shape[1]
    if features.shape[0] == 1:  # of no other image there is anything
        rows *= tf.cast(image_indices == 0, rows.dtype)[:, tf.newaxis, tf.newaxis]
    else:
        own = tf.one_hot(image_indices, batch)  # (n, batch)
        rows = rows[:, :, tf.newaxis] * own[:, tf.newaxis, :, tf.newaxis]  # (n, bins, batch, h)
    rows = tf.reshape(rows, [-1, batch * height])  # (n·bins, batch·h)
    tall = tf.reshape(features, [batch * height, width * channels])
    lines = tf.reshape(tf.matmul(rows, tall), [-1, bins, width, channels])
    return tf.matmul(columns[:, tf.newaxis], lines)  # (n, 1, bins, w) @ (n, bins, w, c)


def sample_means(features, ys, xs, image_indices):
    """Mean of the samples of each bin, as one sparse matrix times the map.

    The matrix has a row for each bin and four entries for each of its samples.
    Its transpose takes the gradient back.

    Args:
        features: float32 `(batch, h, w, c)`.
        ys: float32 `(n, rows, s)` of `sample_positions`.
        xs: float32 `(n, columns, s)`.
        image_indices: int32 `(n,)`.

    Returns:
        float32 `(n, rows, columns, c)`.
    """
    batch, height, width, channels = map_size(features)
    rows, columns = ys.shape[1], xs.shape[1]
    num_bins = tf.shape(ys)[0] * rows * columns
    entries = _sampling_entries(ys, xs, image_indices, (batch, height, width), num_bins)

    def matrix():
        # TensorFlow divides by the number of rows: one empty row where there are no bins.
        shape = tf.cast([tf.maximum(num_bins, 1), batch * height * width], tf.int64)
        return tf.raw_ops.SparseTensorToCSRSparseMatrix(**entries, dense_shape=shape)

    @tf.custom_gradient
    def read(features):
        flat = tf.reshape(features, [batch * height * width, channels])
        means = tf.raw_ops.SparseMatrixMatMul(a=matrix(), b=flat)[:num_bins]

        def back(upstream):
            # Made anew: a SavedModel stores no gradient that holds on to a matrix. Transposed
            # first: `transpose_a` would give each thread a map of its own.
            transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix(), type=tf.float32)
            return tf.raw_ops.SparseMatrixMatMul(a=transposed, b=upstream)

        def gradient(upstream):
            upstream = tf.reshape(upstream, [num_bins, channels])
            total = tf.cond(num_bins > 0, lambda: back(upstream), lambda: tf.zeros_like(flat))
            return tf.reshape(total, tf.shape(features))

        return tf.reshape(means, [-1, rows, columns, channels]), gradient

    return read(features)


def gathered_means(table, ys, xs, first, height, width):
    """Mean of the samples of each bin, one after another of the pixels that a bin reads.

    The maps lie in one table, so that each region may read another one.

    Args:
        table: float32 `(pixels, c)`, maps by row, one behind the other.
        ys: float32 `(n, rows, s)` of `sample_positions`.
        xs: float32 `(n, columns, s)`.
        first: int32 `(n,)`, where the region's map begins in the table.
        height: int32 `(n,)`, of the region's map.
        width: int32 `(n,)`.

    Returns:
        float32 `(n, rows, columns, c)`.
    """
    first, height, width = (t[:, tf.newaxis, tf.newaxis] for t in (first, height, width))
    y, y_weights = _taps(ys, height)  # (n, rows, 2s)
    x, x_weights = _taps(xs, width)  # (n, columns, 2s)
    total = 0.0
    for i in range(y.shape[2]):
        for j in range(x.shape[2]):
            pixels = first + y[:, :, i : i + 1] * width + x[:, tf.newaxis, :, j]
            weights = y_weights[:, :, i : i + 1] * x_weights[:, tf.newaxis, :, j]
            total += weights[..., tf.newaxis] * tf.gather(table, pixels)
    return total / float(ys.shape[2] * xs.shape[2])


def _sampling_entries(ys, xs, image_indices, size, num_bins):
    """Entries of the matrix `(bins, pixels)`: dict of `indices` and `values`, by rows.

    Every pixel named exists: the product does not look.
    """
    batch, height, width = size
    rows, columns, samples = ys.shape[1], xs.shape[1], ys.shape[2]
    y, y_weights = _taps(ys, height)  # (n, rows, 2s)
    x, x_weights = _taps(xs, width)  # (n, columns, 2s)
    known = (image_indices >= 0) & (image_indices < batch)  # (n,)
    y += tf.where(known, image_indices, 0)[:, tf.newaxis, tf.newaxis] * height
    y_weights = tf.where(known[:, tf.newaxis, tf.newaxis], y_weights, 0.0)

    def cross(lines, others, combine):
        lines = tf.reshape(lines, [-1, rows, 1, 2 * samples, 1])
        others = tf.reshape(others, [-1, 1, columns, 1, 2 * samples])
        return tf.reshape(combine(lines, others), [-1])  # (n·rows·columns·2s·2s,)

    pixels = cross(y, x, lambda y, x: y * width + x)
    weights = cross(y_weights, x_weights, tf.multiply) / float(samples**2)
    bins = tf.repeat(tf.range(num_bins), 4 * samples**2)
    indices = tf.cast(tf.stack([bins, pixels], axis=1), tf.int64)
    return {"indices": indices, "values": weights}


def _taps(positions, size):
    """The two pixels that a sample lies between, and their weights.

    Args:
        positions: float32 `(n, bins, s)`.
        size: int, int scalar, or int32 `(n, 1, 1)`.

    Returns:
        Tuple of int32 in [0, size) and float32, both `(n, bins, 2s)`; weights
        are 0 for a sample outside.
    """
    near = tf.clip_by_value(positions, 0.0, tf.cast(size - 1, tf.float32))
    low = tf.floor(near)
    pixel = tf.clip_by_value(tf.cast(low, tf.int32), 0, size - 1)  # NaN may have become anything
    pixels = tf.stack([pixel, tf.minimum(pixel + 1, size - 1)], axis=-1)
    weights = tf.stack([1.0 - (near - low), near - low], axis=-1)
    weights = tf.where(_valid(positions, size)[..., tf.newaxis], weights, 0.0)
    shape = [-1, positions.shape[1], 2 * positions.shape[2]]
    return tf.reshape(pixels, shape), tf.reshape(weights, shape)
