"""Upsampling of feature maps by a whole factor, and fitting of images to a network's strides."""

import tensorflow as tf

from kerascv_d2l.errors import InputError


def transposed_upsampling(x, kernel, factor):
    """Transposed convolution with kernel side 2s, stride s and padding s/2, as one matrix product.

    Every s x s block of the result, shifted by s/2, depends on just 2 x 2
    inputs. So the blocks are `patches @ weights`, with 2 x 2 patches of the
    input. `tf.nn.conv2d_transpose` gives the same numbers, but spends more time,
    above all on the gradient of large kernels.

    Args:
        x: float `(batch, h, w, channels)`.
        kernel: float `(2s, 2s, filters, channels)`, the order of
            `keras.layers.Conv2DTranspose`.
        factor: the even int s.

    Returns:
        `(batch, h * s, w * s, filters)`.

    Raises:
        InputError: if the factor is odd or the kernel's sides are not 2s.
    """
    check_factor(factor)
    sides = tuple(kernel.shape[:2])
    if sides != (2 * factor, 2 * factor):
        raise InputError(
            f"kernel has sides {sides}: factor={factor} needs {2 * factor} x {2 * factor}."
        )
    filters, channels = kernel.shape[2], kernel.shape[3]
    shape = tf.shape(x)
    batch, h, w = shape[0], shape[1], shape[2]
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    patches = tf.concat(
        [x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]], axis=-1
    )  # (batch, h+1, w+1, 4 * channels)
    # A block lies in the second half of what the earlier input writes, and in the first of the
    # later one's.
    first, second = slice(0, factor), slice(factor, None)
    weights = tf.concat(
        [kernel[rows, columns] for rows in (second, first) for columns in (second, first)], axis=-1
    )  # (s, s, filters, 4 * channels)
    blocks = tf.matmul(
        tf.reshape(patches, [-1, 4 * channels]),
        tf.reshape(weights, [factor * factor * filters, 4 * channels]),
        transpose_b=True,
    )
    # Merged as (s, s * filters), rows of s * filters numbers move as one piece.
    blocks = tf.reshape(blocks, [batch, h + 1, w + 1, factor, factor * filters])
    blocks = tf.transpose(blocks, [0, 1, 3, 2, 4])  # (batch, h+1, s, w+1, s * filters)
    x = tf.reshape(blocks, [batch, (h + 1) * factor, (w + 1) * factor, filters])
    return crop(x, (factor // 2, factor // 2), (h * factor, w * factor))


def bilinear_upsampling(x, factor):
    """Upsample by bilinear interpolation between pixel centres.

    Inside a border of s/2 pixels it equals `transposed_upsampling` with a
    bilinear kernel; on the border, where that one fades to zero, the outermost
    inputs are repeated. Two small matrix products, whose gradient is two more.

    Args:
        x: float `(batch, h, w, channels)`.
        factor: int s, at least 1.

    Returns:
        `(batch, h * s, w * s, channels)`.

    Raises:
        InputError: if the factor is less than 1.
    """
    if factor < 1:
        raise InputError(f"factor={factor}: expected at least 1.")
    channels = x.shape[-1]
    shape = tf.shape(x)
    batch, h, w = shape[0], shape[1], shape[2]
    across = _interpolation(w, factor, x.dtype)  # (w * s, w)
    x = tf.matmul(across, tf.reshape(x, [batch * h, w, channels]))  # (batch * h, w * s, channels)
    down = _interpolation(h, factor, x.dtype)  # (h * s, h)
    x = tf.matmul(down, tf.reshape(x, [batch, h, w * factor * channels]))
    return tf.reshape(x, [batch, h * factor, w * factor, channels])


def _interpolation(size, factor, dtype):
    """`(size * factor, size)` weights of the inputs at every place of the enlarged axis."""
    size = tf.cast(size, tf.float32)
    places = (tf.range(size * factor) + 0.5) / factor - 0.5  # in inputs
    places = tf.clip_by_value(places, 0.0, size - 1)
    return tf.cast(tf.nn.relu(1 - tf.abs(places[:, None] - tf.range(size))), dtype)


def check_factor(factor):
    """Raise if a kernel of side 2s cannot lie symmetrically for a factor s.

    Args:
        factor: int.

    Raises:
        InputError: if it is not even and positive.
    """
    if factor < 2 or factor % 2:
        raise InputError(
            f"factor={factor}: a transposed convolution with padding factor / 2 needs an even "
            "factor. Use 2, 4, 8, ..., or bilinear upsampling."
        )


def pad_to_multiple(images, multiple, minimum=0):
    """Pad images below and to the right until a network's stride divides their sides.

    The last row and column are repeated, so that images of any size, down to 1 x 1, can be
    padded with their own colours.

    Args:
        images: `(batch, height, width, channels)` of any type.
        multiple: int.
        minimum: int, least side of the result; a multiple of `multiple`.

    Returns:
        `(batch, height', width', channels)`, the same tensor where no padding is needed.
    """
    images = tf.convert_to_tensor(images)
    for axis in (1, 2):
        static = images.shape[axis]
        if static is not None and static % multiple == 0 and static >= minimum:
            continue
        size = tf.shape(images)[axis] if static is None else static
        wanted = tf.maximum(-(-size // multiple) * multiple, minimum)
        images = tf.gather(images, tf.minimum(tf.range(wanted), size - 1), axis=axis)
    return images


def enlarge_to_multiple(images, multiple):
    """Enlarge images a little until a network's stride divides their sides.

    Normalised coordinates stay as they are, unlike under padding. Without it a map has a cell
    more than fits into the image, and what is counted in cells drifts from the pixels below.

    Args:
        images: `(batch, height, width, channels)` of any type.
        multiple: int.

    Returns:
        `(batch, height', width', channels)`, float32 and bilinear; the same tensor where the shape
        shows that nothing has to change.
    """
    images = tf.convert_to_tensor(images)
    static, dynamic = images.shape[1:3], tf.shape(images)[1:3]
    if all(side is not None and side % multiple == 0 for side in static):
        return images
    enlarged = tf.image.resize(images, -(-dynamic // multiple) * multiple)
    sides = [None if side is None else -(-side // multiple) * multiple for side in static]
    enlarged.set_shape([images.shape[0], *sides, images.shape[3]])
    return enlarged


def fit_to_stride(features, pixels, stride):
    """Pad feature maps of a network without padding, so that they cover its image.

    Such maps lack some rows and columns at the border, as many on one side as
    on the other (or one more below and to the right). The outermost are repeated.

    Args:
        features: `(batch, h, w, channels)`.
        pixels: `(batch, height, width, ...)`, with sides that `stride` divides.
        stride: int.

    Returns:
        `(batch, height / stride, width / stride, channels)`.
    """
    for axis in (1, 2):
        size = tf.shape(features)[axis]
        wanted = tf.shape(pixels)[axis] // stride
        before = (wanted - size) // 2
        places = tf.clip_by_value(tf.range(wanted) - before, 0, size - 1)
        features = tf.gather(features, places, axis=axis)
    return features


def crop_like(x, reference):
    """Crop maps below and to the right to the height and width of others.

    Args:
        x: `(batch, height, width, ...)`.
        reference: `(batch, height', width', ...)`, not larger.

    Returns:
        `(batch, height', width', ...)`.
    """
    x, reference = tf.convert_to_tensor(x), tf.convert_to_tensor(reference)
    if x.shape[1:3].is_fully_defined() and x.shape[1:3] == reference.shape[1:3]:
        return x
    return tf.ensure_shape(
        crop(x, (0, 0), tf.unstack(tf.shape(reference)[1:3])),
        [x.shape[0], *reference.shape[1:3], *x.shape[3:]],
    )


def crop(x, start, size):
    """Crop maps: `x[:, top : top + height, left : left + width]`.

    The same numbers, but the gradient of that expression runs on one thread, in ten times
    the time of this one's (160 instead of 8 ms for 8 x 320 x 480 x 21 numbers).

    Args:
        x: `(batch, h, w, ...)`.
        start: `(top, left)`, ints or int32 tensors.
        size: `(height, width)`, likewise; -1 for all that is left.

    Returns:
        `(batch, height, width, ...)`.
    """
    x = tf.convert_to_tensor(x)
    others = x.shape.rank - 3
    return tf.slice(x, [0, *start, *[0] * others], [-1, *size, *[-1] * others])
