"""Resizing images with matrix products."""

import tensorflow as tf

# Output rows computed by one matrix product. The filter reaches only a few
# input rows, so short bands multiply few zeros; shorter ones are too small to be worth
# starting (windows of all sizes of 500 x 375 to 224 x 224, one core: 0.64 ms in bands of 8,
# 0.73 of 16, 0.87 of 32).
BAND = 8
# For each new shape of a matrix product, oneDNN compiles a kernel, which takes longer than the
# product itself; it keeps those of some hundred shapes. So widths that differ from image to
# image, and input rows of a band, are rounded up to multiples of these, with weights of 0
# (windows of all sizes to 224 x 224: 2.7 ms with every shape of its own, 0.9 ms with few).
WIDTH_STEP, LENGTH_STEP = 32, 8


def resize(images, size):
    """Resize with an antialiased bilinear (triangle) filter.

    The same as `tf.image.resize(method="bilinear", antialias=True)`, made of
    matrix products: these have builtin operators in TensorFlow Lite, where
    antialiasing has none. One function for training, `detect` and exported
    models, so that all of them see the same pixels.

    Args:
        images: uint8 or float `(..., h, w, channels)`; `h` and `w` may be
            unknown when the graph is built. Each times the new size must stay
            below 2**28.
        size: `(height, width)` of the result: ints, or an int32 tensor `(2,)`.

    Returns:
        float32 `(..., height, width, channels)`, in the value range of `images`;
        exactly `images` where the size stays the same.

    Raises:
        ValueError: if `images` has an unknown rank or fewer than 3 dimensions.
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank is None or images.shape.rank < 3:
        raise ValueError(f"images must have the shape (..., h, w, channels), not {images.shape}")
    shape = tf.shape(images)
    h, w, channels = shape[-3], shape[-2], shape[-1]
    height, width = size[0], size[1]

    rows = tf.reshape(images, [-1, h, w * channels])
    padded = w
    if images.shape[-2] is None:
        padded = _round_up(w, WIDTH_STEP)
        filled = tf.zeros([tf.shape(rows)[0], h, (padded - w) * channels], rows.dtype)
        rows = tf.concat([rows, filled], -1)  # TensorFlow Lite has no tf.pad of uint8
    rows = _resize_rows(rows, h, height)  # (batch, height, padded·channels)
    columns = tf.reshape(rows, [-1, height, padded, channels])
    columns = tf.transpose(columns, [0, 2, 1, 3])  # (batch, padded, height, channels)
    columns = tf.reshape(columns, [-1, padded, height * channels])
    columns = _resize_rows(columns, w, width)  # (batch, width, height·channels)
    columns = tf.reshape(columns, [-1, width, height, channels])
    resized = tf.transpose(columns, [0, 2, 1, 3])  # (batch, height, width, channels)

    if images.shape.rank != 4:
        resized = tf.reshape(resized, tf.concat([shape[:-3], [height, width, channels]], 0))
    static_size = [None if tf.is_tensor(side) else side for side in (height, width)]
    resized.set_shape(images.shape[:-3] + static_size + images.shape[-1:])
    return resized


def _resize_rows(images, old, new):
    """Resize the middle axis: `(batch, old, n)` -> float32 `(batch, new, n)`.

    Output row x has its centre at (x + 1/2)·old/new, input row j at j + 1/2;
    the weight falls linearly with their distance and is 0 from
    max(1, old/new) on. All positions are integers here, in units of 1/(2·new)
    input rows: exact, where floats would lose digits in large images.
    """
    reach = 2 * tf.maximum(old, new)
    num_bands = (new + BAND - 1) // BAND
    centres = (2 * tf.range(num_bands * BAND) + 1) * old
    centres = tf.reshape(centres, [num_bands, BAND])
    # The input rows within reach of any output row of each band, and more where that is too few.
    length = _round_up(((BAND - 1) * old + reach) // new + 1, LENGTH_STEP)
    length = tf.minimum(length, old)
    first = (centres[:, 0] - reach - new) // (2 * new) + 1  # (bands,)
    first = tf.clip_by_value(first, 0, old - length)
    taken = first[:, None] + tf.range(length)  # (bands, length)

    distance = tf.abs((2 * taken + 1)[:, None, :] * new - centres[:, :, None])
    weights = tf.nn.relu(1.0 - tf.cast(distance, tf.float32) / tf.cast(reach, tf.float32))
    # Rows past the end of the last band may reach nothing: 0/0 is 0 for them.
    weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=-1, keepdims=True))

    pieces = tf.gather(images, taken, axis=1)  # (batch, bands, length, n)
    resized = tf.matmul(weights, tf.cast(pieces, tf.float32))  # (batch, bands, BAND, n)
    resized = tf.reshape(resized, [-1, num_bands * BAND, tf.shape(images)[2]])
    return resized[:, :new]


def _round_up(number, step):
    """The next multiple of `step`."""
    return -(-number // step) * step
