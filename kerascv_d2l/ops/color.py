"""Colours of images: brightness, contrast, saturation and hue, as torchvision defines them.

All of it works on planes, `(batch, 3, pixels)`: neighbouring numbers then are of the same channel,
and vector instructions take many of them at once. A 500 x 375 image goes through all four in
about 2.4 ms of one core, 1.5 as `jitter` in a graph; hue alone takes 10 in `tf.image.adjust_hue`.
"""

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import ALGORITHM, as_dtype

# What red, green and blue add to grey: ITU-R BT.601, with the digits that torchvision uses.
GREY_WEIGHTS = (0.2989, 0.587, 0.114)
VALUE_RANGE = (0, 255)
# The hexagon of hues has six sides; pure red, green and blue are two sides apart.
HUE_SIDES = 6
OPERATIONS = ("brightness", "contrast", "saturation", "hue")


def adjust_brightness(image, factor, value_range=VALUE_RANGE):
    """Multiply an image: 0 makes it black, 1 leaves it.

    Args:
        image: `(..., height, width, 3)` RGB, uint8 or float.
        factor: number of at least 0, for all images, or one for each: `(...)`.
        value_range: `(black, white)` of floats. uint8 is 0 to 255 always.

    Returns:
        The same shape and dtype, cut off at white; uint8 rounded half up
        (torchvision drops fractions: its values are the same or 1 less).

    Raises:
        InputError: if shape or dtype are not those of RGB images, or the value range is empty.

    Source:
        torchvision 0.28, `transforms.functional.adjust_brightness`.
    """
    return _adjust(_brighten, image, factor, value_range)


def adjust_contrast(image, factor, value_range=VALUE_RANGE):
    """Move an image away from its mean grey level: 0 makes it all that grey, 1 leaves it.

    Takes and raises what `adjust_brightness` does.

    Returns:
        The same shape and dtype, clipped to the value range; uint8 rounded half
        up. torchvision drops the fractions of grey levels and of results: its
        values are the same or 1 off for factors up to 2.

    Source:
        torchvision 0.28, `transforms.functional.adjust_contrast`.
    """
    return _adjust(_contrast, image, factor, value_range)


def adjust_saturation(image, factor, value_range=VALUE_RANGE):
    """Move every pixel away from its own grey level: 0 makes an image grey, 1 leaves it.

    Takes and raises what `adjust_brightness` does.

    Returns:
        The same shape and dtype, clipped to the value range; uint8 rounded half
        up. torchvision drops the fractions of grey levels and of results: its
        values are the same or 1 off for factors up to 2.

    Source:
        torchvision 0.28, `transforms.functional.adjust_saturation`.
    """
    return _adjust(_saturate, image, factor, value_range)


def adjust_hue(image, shift, value_range=VALUE_RANGE):
    """Turn the hues of an image along the circle red, green, blue.

    Of hue, saturation and value (HSV) the other two stay. Takes and raises what
    `adjust_brightness` does, but for the factor `shift`: turns of the circle, in [-1/2, 1/2], of
    which 1/3 makes red green.

    Returns:
        The same shape and dtype; uint8 rounded half up (torchvision drops
        fractions; Pillow's HSV has 8 bits and is several grey levels off).

    Source:
        torchvision 0.28, `transforms.functional.adjust_hue` on tensors.
    """
    return _adjust(_turn_hue, image, shift, value_range)


def normalize(images, mean, std):
    """Subtract a mean from each channel and divide by a standard deviation.

    What `keras.layers.Normalization` computes, on a CPU in a fifth of its time: a row of pixels
    is long enough for vector instructions, the channels of one pixel are not. In a model, where
    other layers take far longer, Keras' layer does as well.

    Args:
        images: `(..., height, width, channels)`, uint8 or float.
        mean: number for each channel, in the value range of `images`: ImageNet's are 0.485, 0.456
            and 0.406, times 255 for pixels 0-255.
        std: likewise, above 0; ImageNet's are 0.229, 0.224 and 0.225.

    Returns:
        float32, the same shape.

    Raises:
        InputError: if there are not as many means and deviations as channels.
    """
    images = tf.convert_to_tensor(images)
    mean, std = (np.asarray(values, np.float64) for values in (mean, std))
    rank, channels = images.shape.rank, images.shape[-1] if images.shape.rank else None
    if rank is None or rank < 3 or mean.shape != (channels,) or std.shape != (channels,):
        raise InputError(
            f"images have the shape {images.shape}, mean {mean.shape} and std {std.shape}; wanted "
            "(..., height, width, channels) and a number for each channel"
        )
    shape = tf.shape(images)
    width = shape[-2]
    scale, offset = tf.constant(1 / std, tf.float32), tf.constant(-mean / std, tf.float32)
    rows = tf.cast(tf.reshape(images, [-1, width * channels]), tf.float32)
    rows = rows * tf.tile(scale, [width]) + tf.tile(offset, [width])  # (rows, width · channels)
    return tf.ensure_shape(tf.reshape(rows, shape), images.shape)


def random_jitter(seed, ranges, shape=()):
    """Draw the factors of colour jitters and the order in which they are applied.

    Args:
        seed: integers `(2,)`: equal seeds, equal draws.
        ranges: `(low, high)` for n of brightness, contrast, saturation and hue.
        shape: int32 `(k,)`: for how many images.

    Returns:
        `(factors, order)`: float32 `(*shape, n)`, uniform in their ranges; int32
        `(*shape, n)`, every permutation of 0 … n-1 equally likely.
    """
    low, high = tf.unstack(tf.constant(ranges, tf.float32), axis=-1)  # (n,)
    draws_shape = tf.concat([[2], tf.cast(shape, tf.int32), [len(ranges)]], 0)
    draws = tf.random.stateless_uniform(draws_shape, seed, alg=ALGORITHM)
    return low + draws[0] * (high - low), tf.argsort(draws[1])


def jitter(image, factors, order, operations=OPERATIONS, value_range=VALUE_RANGE):
    """Apply several of the adjustments in a given order, clipping after each.

    Between them nothing is rounded. 1.6 times as fast in a graph (as in `Dataset.map`) in
    which the size of the image is known.

    Args:
        image: `(height, width, 3)` RGB, uint8 or float.
        factors: float `(n,)`: of each operation.
        order: int `(n,)`: indices into `operations`, the first to be applied first.
        operations: tuple of n of brightness, contrast, saturation, hue.
        value_range: `(black, white)` of floats. uint8 is 0 to 255 always.

    Returns:
        The same shape and dtype; uint8 rounded half up.

    Raises:
        InputError: if shape or dtype are not those of RGB images, or the value range is empty.
    """

    image = tf.convert_to_tensor(image)
    if image.shape.rank != 3:
        raise InputError(f"image has the shape {image.shape}; wanted (height, width, 3)")
    if not operations:
        return image
    factors, order = tf.cast(factors, tf.float32), tf.cast(order, tf.int32)
    one_size = image.shape.is_fully_defined() and not tf.executing_eagerly()
    apply = _compiled_jitter if one_size else _jitter
    return apply(image, factors, order, tuple(operations), tuple(value_range))


def _jitter(image, factors, order, operations, value_range):
    factors = tf.reshape(factors, [-1, 1, 1, 1])  # one by one below

    def all_of_them(planes, high):
        def one(step, planes):
            branches = [
                lambda name=name, k=k: _FUNCTIONS[name](planes, factors[k], high)
                for k, name in enumerate(operations)
            ]
            return step + 1, tf.switch_case(order[step], branches)

        return tf.while_loop(
            lambda step, _: step < len(operations),
            one,
            (tf.constant(0), planes),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, 3, None])),
            maximum_iterations=len(operations),
        )[1]

    return _on_planes(all_of_them, image, value_range)


# XLA makes one pass over the image of each adjustment (500 x 375: 0.8 ms instead of 1.3), but
# compiles for a third of a second for each size: so only where a graph is for images of one.
_compiled_jitter = tf.function(_jitter, jit_compile=True, autograph=False)


def _adjust(function, image, factor, value_range):
    image = tf.convert_to_tensor(image)
    factor = tf.reshape(tf.cast(factor, tf.float32), [-1, 1, 1])  # (1 or batch, 1, 1)
    return _on_planes(lambda planes, high: function(planes, factor, high), image, value_range)


def _on_planes(function, image, value_range):
    """Apply a function of planes (batch, 3, pixels), 0 to `high`, to images."""
    rank = image.shape.rank
    if rank is None or rank < 3 or image.shape[-1] not in (3, None):
        raise InputError(f"image has the shape {image.shape}; wanted (..., height, width, 3)")
    if image.dtype.is_integer and image.dtype != tf.uint8:
        raise InputError(f"image is {image.dtype.name}; wanted uint8 or floats")
    low, high = VALUE_RANGE if image.dtype == tf.uint8 else value_range
    if not low < high:
        raise InputError(f"value_range is {value_range}; wanted (black, white), the first smaller")

    shape = tf.shape(image)
    batch = 1 if rank == 3 else tf.reduce_prod(shape[:-3])
    pixels = tf.reshape(image, [batch, shape[-3] * shape[-2], 3])
    planes = tf.cast(tf.transpose(pixels, [0, 2, 1]), tf.float32)  # (batch, 3, pixels)
    if low != 0:
        planes -= low
    planes = function(planes, float(high - low))
    pixels = tf.transpose(planes, [0, 2, 1])  # (batch, pixels, 3)
    if low != 0:
        pixels += low
    result = tf.reshape(as_dtype(pixels, image.dtype), shape)
    result.set_shape(image.shape)
    return result


def _brighten(planes, factor, high):
    return tf.minimum(planes * factor, high)


def _contrast(planes, factor, high):
    means = tf.reduce_mean(planes, axis=-1)  # (batch, 3)
    grey = tf.reduce_sum(means * GREY_WEIGHTS, axis=-1)[:, None, None]  # (batch, 1, 1)
    return _clipped(planes * factor + (1 - factor) * grey, high)


def _saturate(planes, factor, high):
    # Blending with grey mixes the channels of each pixel: one small matrix does it.
    mix = factor * tf.eye(3) + (1 - factor) * tf.constant([GREY_WEIGHTS] * 3)  # (batch, 3, 3)
    return _clipped(mix @ planes, high)


def _turn_hue(planes, shift, high):
    """Turn hues without going to HSV and back.

    A third of a turn exchanges the channels. What remains is at most a sixth: δ
    sides of the hexagon, in [-1, 1]. On each side one channel rises or falls
    along a line, and with chroma C = max - min the new red is

        2·R - mid - sign(G - B)·C·δ, clipped to [min, max];

    green and blue likewise, the channels moved round. (Without δ that is the
    line on which red lies, continued beyond its ends.)
    """
    sides = shift[:, 0, 0] * HUE_SIDES  # (1 or batch,)
    thirds = tf.round(sides / 2)
    rest = (sides - 2 * thirds)[:, None]  # (1 or batch, 1), in [-1, 1]
    thirds = tf.cast(thirds, tf.int32) % 3
    red, green, blue = _exchanged(tf.unstack(planes, axis=1), thirds)  # (batch, pixels) each

    larger, smaller = tf.maximum(red, green), tf.minimum(red, green)
    middle = tf.maximum(smaller, tf.minimum(larger, blue))
    largest, least = tf.maximum(larger, blue), tf.minimum(smaller, blue)
    turned = (largest - least) * rest

    def channel(own, following, last):
        new = 2 * own - middle - tf.sign(following - last) * turned
        return tf.maximum(tf.minimum(new, largest), least)

    return tf.stack(
        [channel(red, green, blue), channel(green, blue, red), channel(blue, red, green)], axis=1
    )


def _exchanged(channels, thirds):
    """Move red to green, green to blue and blue to red, all `(batch, pixels)`, 0, 1 or 2 times.

    `thirds` is int32 `(1,)`, or `(batch,)`: for each image.
    """
    ways = [channels[-k:] + channels[:-k] for k in range(3)]
    if thirds.shape[0] == 1:
        return tf.switch_case(thirds[0], [lambda way=way: way for way in ways])
    counts = thirds[:, None]  # (batch, 1)
    return [
        tf.where(counts == 0, none, tf.where(counts == 1, once, twice))
        for none, once, twice in zip(*ways, strict=True)
    ]


def _clipped(planes, high):
    # Two operations that work in place are faster than tf.raw_ops.ClipByValue, which does not.
    return tf.maximum(tf.minimum(planes, high), 0.0)


_FUNCTIONS = dict(zip(OPERATIONS, (_brighten, _contrast, _saturate, _turn_hue), strict=True))
