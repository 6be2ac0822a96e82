"""Windows of pictures: where they are, and what is cut out there.

What is drawn and what is done with the draw are separate, so that the same window can be cut
out of a picture, its mask and its boxes.
"""

import math

import tensorflow as tf

from kerascv_d2l.ops.resize import resize

# The one generator whose numbers are the same on every device.
ALGORITHM = "philox"
# RandomResizedCrop as ImageNet networks are trained with: share of the area, width over height.
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10


def random_window(size, seed, area=CROP_AREA, ratio=CROP_RATIO, tries=CROP_TRIES):
    """Draw the window of RandomResizedCrop.

    The share of the area is uniform in `area`, the logarithm of width over
    height uniform between those of `ratio`, every place as likely as every
    other. The first of `tries` draws that fits into the picture is taken; if
    none does, the largest central window whose ratio is allowed.

    Args:
        size: int32 `(2,)`, height and width of the picture, pixels.
        seed: integers `(2,)`: equal seeds, equal windows.
        area: `(low, high)` share of the picture's area, in (0, 1].
        ratio: `(low, high)` width over height of the window.
        tries: int, at least 1.

    Returns:
        int32 `(4,)`: top, left, height and width of the window, pixels; it
        lies inside the picture and has at least one pixel.

    Source:
        Szegedy et al. 2015, "Going Deeper with Convolutions", section 6, in
        torchvision's form.
    """
    full = tf.cast(size, tf.float32)  # (2,)
    draws = tf.random.stateless_uniform((4, tries), seed, alg=ALGORITHM)
    areas = (area[0] + draws[0] * (area[1] - area[0])) * full[0] * full[1]  # (tries,)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = tf.exp(low + draws[1] * (high - low))  # (tries,)
    sides = tf.round(tf.sqrt(tf.stack([areas / ratios, areas * ratios], axis=-1)))  # (tries, 2)
    fits = tf.reduce_all((sides >= 1) & (sides <= full), axis=-1)  # (tries,)
    places = tf.floor(tf.transpose(draws[2:]) * (full - sides + 1))  # (tries, 2) top, left
    places = tf.minimum(places, full - sides)  # a draw just below 1 can round up

    # Height at most width / low, width at most height · high; never less than a pixel.
    narrowed = tf.round(full[::-1] * [1 / ratio[0], ratio[1]])  # (2,)
    narrowed = tf.clip_by_value(narrowed, 1.0, full)
    first = tf.argmax(fits)  # the first True
    found = tf.reduce_any(fits)
    sides = tf.where(found, sides[first], narrowed)
    place = tf.where(found, places[first], tf.floor((full - narrowed) / 2))
    return tf.cast(tf.concat([place, sides], 0), tf.int32)


def crop_and_resize(image, window, size):
    """Cut a window out of a picture and bring it to a size.

    Args:
        image: `(height, width, channels)`, uint8 or float.
        window: int32 `(4,)`: top, left, height and width, inside the picture.
        size: `(height, width)` of the result.

    Returns:
        float32 `(height, width, channels)`, in the value range of `image`.
    """
    top, left, height, width = tf.unstack(window)
    return resize(image[top : top + height, left : left + width], size)


def random_flip(image, seed):
    """Mirror a picture left to right by a chance of one half.

    Args:
        image: `(height, width, channels)`.
        seed: integers `(2,)`.

    Returns:
        The same shape and dtype.
    """
    image = tf.convert_to_tensor(image)
    mirrored = tf.random.stateless_uniform((), seed, alg=ALGORITHM) < 0.5
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)


def resize_and_center_crop(images, resized, size):
    """Resize to `resized`, whatever the shape, and cut out the middle.

    What ImageNet networks are tested with: 256 x 256, of which the middle
    224 x 224.

    Args:
        images: `(..., h, w, channels)`, uint8 or float.
        resized: `(height, width)`, pixels.
        size: `(height, width)` of the result, at most `resized`.

    Returns:
        float32 `(..., height, width, channels)`, in the value range of `images`.
    """
    top, left = ((big - small) // 2 for big, small in zip(resized, size, strict=True))
    pixels = resize(images, resized)
    return pixels[..., top : top + size[0], left : left + size[1], :]
