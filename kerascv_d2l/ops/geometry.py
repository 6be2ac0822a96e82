"""Windows of images: where they are, and what is cut out there.

What is drawn and what is done with the draw are separate, so that the same window can be cut
out of an image, its mask and its boxes.
"""

import math

import tensorflow as tf

from kerascv_d2l.ops.checks import as_boxes
from kerascv_d2l.ops.resize import resize

# The one generator whose numbers are the same on every device.
ALGORITHM = "philox"
# RandomResizedCrop as ImageNet networks are trained with: share of the area, width over height.
CROP_AREA = (0.08, 1.0)
# ImageNet networks are tested on the middle 224 x 224 of images resized to 256 x 256.
CROP_PCT = 224 / 256
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10
# Up to here the four pixels that are interpolated leave none out that lies between.
MOST_SHRINK = 2


def random_window(size, seed, area=CROP_AREA, ratio=CROP_RATIO, tries=CROP_TRIES):
    """Draw the window of RandomResizedCrop, of one image or of many at once.

    The share of the area is uniform in `area`, the logarithm of width over
    height uniform between those of `ratio`, every place as likely as every
    other. The first of `tries` draws that fits into the image is taken; if
    none does, the largest central window whose ratio is allowed.

    Args:
        size: int32 `(..., 2)`, height and width of each image, pixels.
        seed: integers `(2,)`, for all of them: equal seeds, equal windows.
        area: `(low, high)` share of the image's area, in (0, 1].
        ratio: `(low, high)` width over height of the window.
        tries: int, at least 1.

    Returns:
        int32 `(..., 4)`: top, left, height and width of each window, pixels; it
        lies inside its image and has at least one pixel.

    Source:
        Szegedy et al. 2015, "Going Deeper with Convolutions", section 6, in
        torchvision's form.
    """
    full = tf.cast(size, tf.float32)  # (..., 2)
    each = full[..., None, :]  # (..., 1, 2), against (..., tries, 2)
    draws_shape = tf.concat([[4], tf.shape(full)[:-1], [tries]], 0)
    draws = tf.random.stateless_uniform(draws_shape, seed, alg=ALGORITHM)
    areas = area[0] + draws[0] * (area[1] - area[0])  # (..., tries), of the image's
    areas *= tf.reduce_prod(each, axis=-1)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = tf.exp(low + draws[1] * (high - low))
    sides = tf.round(tf.sqrt(tf.stack([areas / ratios, areas * ratios], axis=-1)))
    fits = tf.reduce_all((sides >= 1) & (sides <= each), axis=-1)
    places = tf.floor(tf.stack([draws[2], draws[3]], axis=-1) * (each - sides + 1))  # top, left
    places = tf.minimum(places, each - sides)  # a draw just below 1 can round up

    # Height at most width / low, width at most height · high; never less than a pixel.
    narrowed = tf.round(full[..., ::-1] * [1 / ratio[0], ratio[1]])  # (..., 2)
    narrowed = tf.clip_by_value(narrowed, 1.0, full)
    drawn = tf.concat([places, sides], -1)  # (..., tries, 4)
    drawn = tf.gather(drawn, tf.argmax(fits, axis=-1), axis=-2, batch_dims=fits.shape.rank - 1)
    central = tf.concat([tf.floor((full - narrowed) / 2), narrowed], -1)  # (..., 4)
    found = tf.reduce_any(fits, axis=-1, keepdims=True)
    return tf.cast(tf.where(found, drawn, central), tf.int32)


def crop_and_resize(image, window, size, antialias=False, fill=None):
    """Cut a window out of an image and resize it.

    Without `antialias` each new pixel is interpolated between the four old ones
    around its centre, wherever it lies: torchvision's `resized_crop(antialias=False)`,
    PyTorch's `interpolate` and `tf.image.resize`. A window more than twice as
    large as its result is sampled with gaps then. With `antialias` the filter
    is widened by as much as the image shrinks, and reaches every pixel: what
    Pillow and torchvision on Pillow images always do (to 8 bits, theirs), and
    `ops.resize` here. Where a window grows the two are the same. `antialias=None`
    takes the slower way only for windows that would be sampled with gaps.

    A window may reach beyond the image if there is a `fill`. The part that shows
    the image then gets whole pixels of the result, the rest is filled;
    `crop_mask` and `crop_boxes` put masks and boxes exactly there.

    Args:
        image: `(height, width, channels)`, uint8 or float.
        window: int32 `(4,)`: top, left, height and width, pixels; inside the
            image without `fill`, and with it partly inside.
        size: `(height, width)` of the result.
        antialias: bool, or None for where it matters.
        fill: None, or a number or one for each channel, in the value range of
            `image`, for what lies outside the image.

    Returns:
        float32 `(height, width, channels)`, in the value range of `image`.

    Source:
        torchvision 0.28, `transforms.functional.resized_crop`.
    """
    image = tf.convert_to_tensor(image)
    shape = (*_known(size), image.shape[-1])
    if fill is None:
        return tf.ensure_shape(_cut(image, window, size, antialias), shape)
    part, place = overlap(window, tf.shape(image)[:2], size)
    fill = tf.cast(fill, tf.float32)
    pixels = _cut(image, part, tf.unstack(place[2:]), antialias) - fill
    pixels = tf.pad(pixels, _margins(place, size, channels=True)) + fill
    return tf.ensure_shape(pixels, shape)


def _cut(image, window, size, antialias):
    top, left, height, width = tf.unstack(tf.cast(window, tf.int32))
    pixels = image[top : top + height, left : left + width]
    return resize_as(pixels, size, antialias)


def resize_as(pixels, size, antialias):
    """Resize with or without antialiasing, or, for None, with it where it matters.

    Args:
        pixels: `(height, width, channels)`, uint8 or float.
        size: `(height, width)` of the result.
        antialias: bool, or None: true if a side becomes less than half as long.

    Returns:
        float32 `(height, width, channels)`, in the value range of `pixels`.
    """
    if antialias is None:
        gaps = tf.shape(pixels)[:2] > MOST_SHRINK * tf.cast(size, tf.int32)
        return tf.cond(
            tf.reduce_any(gaps),
            lambda: resize_as(pixels, size, True),
            lambda: resize_as(pixels, size, False),
        )
    if antialias:
        return resize(pixels, size)
    return tf.cond(  # TensorFlow itself sees only sizes that are known beforehand
        tf.reduce_all(tf.shape(pixels)[:2] == tf.cast(size, tf.int32)),
        lambda: tf.cast(pixels, tf.float32),
        lambda: tf.cast(tf.image.resize(pixels, size), tf.float32),
    )


def crop_mask(mask, window, size, fill=None, axis=0):
    """Cut a window out of a class mask, as `crop_and_resize` does with its image.

    Never interpolated: a new pixel has the class of the old one in which its
    centre lies.

    Args:
        mask: `(..., height, width, ...)`, any dtype.
        window: int32 `(4,)`: top, left, height and width, pixels.
        size: `(height, width)` of the result.
        fill: None, or the class of what lies outside, such as 255 for ignored pixels.
        axis: int, that of the height.

    Returns:
        The dtype and shape of `mask`, but for its height and width.
    """
    mask = tf.convert_to_tensor(mask)
    before, after = mask.shape[:axis], mask.shape[axis + 2 :]
    part, place = tf.cast(window, tf.int32), tf.concat([[0, 0], size], 0)
    if fill is not None:
        part, place = overlap(window, tf.shape(mask)[axis : axis + 2], size)
    for k in (0, 1):
        new = tf.range(place[2 + k])
        # Half a pixel is whole where everything counts twice.
        old = (2 * new + 1) * part[2 + k] // (2 * place[2 + k]) + part[k]
        mask = tf.gather(mask, old, axis=axis + k)
    if fill is not None:
        margins = _margins(place, size, channels=False)
        margins = tf.pad(margins, [[len(before), len(after)], [0, 0]])
        mask = tf.pad(mask, margins, constant_values=tf.cast(fill, mask.dtype))
    return tf.ensure_shape(mask, (*before, *_known(size), *after))


def crop_boxes(boxes, window, image_size, size, by_centre=False):
    """Say where boxes are in the result of `crop_and_resize`.

    Args:
        boxes: float32 `(n, 4)`, normalised corners in the image.
        window: int32 `(4,)`: top, left, height and width, pixels; it may reach
            beyond the image.
        image_size: int32 `(2,)`, height and width of the image.
        size: `(height, width)` of the result.
        by_centre: bool, or bool `(n,)`: an object whose centre is outside the window
            goes, as SSD has it. Otherwise it stays while any of it is inside.

    Returns:
        `(boxes, kept)`: float32 `(n, 4)`, normalised corners in the result, clipped
        to what shows the image; bool `(n,)`, whether the object is still there.
    """
    boxes = as_boxes(boxes, "boxes", 2)
    part, place = overlap(window, image_size, size)
    part, place = tf.cast(part, tf.float32), tf.cast(place, tf.float32)
    scale = place[2:] / part[2:]  # (2,) result over image, y and x
    shift = place[:2] - part[:2] * scale
    new_size = tf.cast(size, tf.float32)
    scale *= tf.cast(image_size, tf.float32) / new_size
    shift /= new_size
    scale, shift = (tf.tile(value[::-1], [2]) for value in (scale, shift))  # (4,) x y x y
    moved = boxes * scale + shift  # (n, 4)

    first, last = place[:2] / new_size, (place[:2] + place[2:]) / new_size
    first, last = first[::-1], last[::-1]  # (2,) x and y
    clipped = tf.clip_by_value(moved, tf.tile(first, [2]), tf.tile(last, [2]))
    kept = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=-1)
    centres = (moved[:, :2] + moved[:, 2:]) / 2
    inside = tf.reduce_all((centres > first) & (centres < last), axis=-1)
    return clipped, kept & (inside | ~tf.convert_to_tensor(by_centre))


def overlap(window, image_size, size):
    """Say what a window shows of an image, and where in a result of `size`, in whole pixels.

    Args:
        window: int32 `(4,)`: top, left, height and width; it may reach beyond the image.
        image_size: int32 `(2,)`.
        size: int32 `(2,)`.

    Returns:
        `(part, place)`: int32 `(4,)` each, top, left, height and width, in the
        image and in the result; of at least one pixel.
    """
    window = tf.cast(window, tf.int32)
    first, sides = window[:2], window[2:]
    image_size, size = tf.cast(image_size, tf.int32), tf.cast(size, tf.int32)
    start = tf.clip_by_value(first, 0, image_size - 1)
    end = tf.maximum(tf.minimum(first + sides, image_size), start + 1)

    def in_result(position):  # rounded half up
        return (2 * (position - first) * size + sides) // (2 * sides)

    place = tf.clip_by_value(in_result(start), 0, size - 1)
    place_end = tf.clip_by_value(in_result(end), place + 1, size)
    return tf.concat([start, end - start], 0), tf.concat([place, place_end - place], 0)


def _known(size):
    """`(height, width)` with None for tensors, whose values show only later."""
    return [None if tf.is_tensor(side) else side for side in size]


def _margins(place, size, channels):
    before = place[:2]
    after = tf.cast(size, tf.int32) - before - place[2:]
    margins = tf.stack([before, after], axis=-1)  # (2, 2)
    return tf.pad(margins, [[0, 1], [0, 0]]) if channels else margins


def flip_left_right(image, boxes=None):
    """Flip images, and the boxes on them, left to right.

    Args:
        image: `(..., height, width, channels)`, any dtype. A mask needs its
            channel.
        boxes: None, or float32 `(..., n, 4)`, normalised corners.

    Returns:
        The flipped image; with `boxes` `(image, boxes)`.
    """
    image = tf.reverse(image, [-2])
    if boxes is None:
        return image
    x_min, y_min, x_max, y_max = tf.unstack(as_boxes(boxes, "boxes"), axis=-1)
    return image, tf.stack([1 - x_max, y_min, 1 - x_min, y_max], axis=-1)


def flip_up_down(image, boxes=None):
    """Flip images, and the boxes on them, top to bottom; otherwise as `flip_left_right`."""
    image = tf.reverse(image, [-3])
    if boxes is None:
        return image
    x_min, y_min, x_max, y_max = tf.unstack(as_boxes(boxes, "boxes"), axis=-1)
    return image, tf.stack([x_min, 1 - y_max, x_max, 1 - y_min], axis=-1)


def resized_size(image_size, crop_pct=CROP_PCT):
    """Compute the size to which images are resized before their centre is cropped: 256 for 224.

    Args:
        image_size: `(height, width)`, pixels.
        crop_pct: float in (0, 1]: the share of each side that is kept.

    Returns:
        `(height, width)`, pixels.
    """
    return tuple(max(side, round(side / crop_pct)) for side in image_size)


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


def as_dtype(pixels, dtype):
    """Floats as `dtype`: rounded half up where that is an integer type."""
    if not dtype.is_integer:
        return tf.cast(pixels, dtype)
    # A cast rounds towards 0, which for what is never below it is down.
    return tf.cast(pixels + 0.5 if dtype.is_unsigned else tf.floor(pixels + 0.5), dtype)
