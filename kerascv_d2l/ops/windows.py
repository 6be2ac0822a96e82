"""Windows that augmentation draws: SSD's crop, zoom-out, mosaics, scaled cuts.

A window is int32 `(4,)`, top, left, height and width, in pixels of the image,
beyond which it may reach. `crop_and_resize`, `crop_mask` and `crop_boxes` of
`ops.geometry` do with it what there is to do.
"""

import math

import tensorflow as tf

from kerascv_d2l.ops.boxes import iou_of_corners
from kerascv_d2l.ops.geometry import ALGORITHM

# Liu et al. 2016, "SSD", sections 2.2 and 3.6, with torchvision's numbers.
IOU_BOUNDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
CROP_SCALE = (0.3, 1.0)
CROP_SHAPE = (0.5, 2.0)
CROP_TRIES = 40
# torchvision draws bounds for ever. After this many, of which a seventh would have been to take
# the whole image, it is taken.
MAX_BOUNDS = 50
CANVAS_SIDE = (1.0, 4.0)
# Nearly the whole image may be one of the four, or as good as nothing.
MOSAIC_CENTRE = (0.25, 0.75)
MOSAIC_AREA = (0.3, 1.0)
SCALE = (0.5, 2.0)  # DeepLab's


def whole_window(size):
    """The window that is the image: int32 `(4,)` of int32 `(2,)`."""
    return tf.concat([[0, 0], tf.cast(size, tf.int32)], 0)


def random_iou_window(
    size,
    boxes,
    is_object,
    seed,
    bounds=IOU_BOUNDS,
    scale=CROP_SCALE,
    shape=CROP_SHAPE,
    tries=CROP_TRIES,
):
    """Draw the window of SSD's random crop.

    A bound is drawn, then up to `tries` windows: the first counts that has the
    centre of an object inside whose IoU with the window is at least the bound. If
    none does, the next bound is drawn. A bound of 1 or more stands for the whole
    image. On an image without objects every window counts.

    Args:
        size: int32 `(2,)`, height and width of the image.
        boxes: float32 `(n, 4)`, normalised corners.
        is_object: bool `(n,)`: false for padding.
        seed: integers `(2,)`: equal seeds, equal windows.
        bounds: IoUs of which one is drawn, each as likely as every other.
        scale: `(low, high)` of the window's height over the image's, and apart
            from it of its width.
        shape: `(low, high)` of the window's width over its height, pixels.
        tries: int.

    Returns:
        int32 `(4,)`, inside the image.

    Source:
        Liu et al. 2016, "SSD", section 2.2, in the form of torchvision's
        `RandomIoUCrop` (which leaves images without objects whole).
    """
    full = tf.cast(size, tf.float32)  # (2,)
    x1, y1, x2, y2 = tf.unstack(boxes * tf.tile(full[::-1], [2]), axis=-1)  # (n,) each, pixels
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    any_window = ~tf.reduce_any(is_object)
    bound_seed, window_seed = tf.unstack(tf.random.split(seed, 2, alg=ALGORITHM))
    indices = tf.random.stateless_uniform(
        (MAX_BOUNDS,), bound_seed, 0, len(bounds), tf.int32, alg=ALGORITHM
    )
    drawn_bounds = tf.gather(tf.constant(bounds, tf.float32), indices)  # (MAX_BOUNDS,)

    def draw(number):
        """One bound and its tries: `(found, window)`."""
        bound = drawn_bounds[number]
        # Seeds that differ at all give draws that have nothing to do with each other.
        own_seed = window_seed + tf.cast(tf.stack([0, number]), window_seed.dtype)
        draws = tf.random.stateless_uniform((tries, 4), own_seed, alg=ALGORITHM)
        sides = tf.floor(full * (scale[0] + draws[:, :2] * (scale[1] - scale[0])))
        sides = tf.maximum(sides, 1.0)  # (tries, 2)
        places = tf.minimum(tf.floor((full - sides) * draws[:, 2:]), full - sides)
        ratio = sides[:, 1] / sides[:, 0]
        shaped = (ratio >= shape[0]) & (ratio <= shape[1])  # (tries,)

        top, left = tf.unstack(places[:, None], axis=-1)  # (tries, 1)
        bottom, right = tf.unstack((places + sides)[:, None], axis=-1)
        inside = (centre_x > left) & (centre_x < right) & (centre_y > top) & (centre_y < bottom)
        iou = iou_of_corners((x1, y1, x2, y2), (left, top, right, bottom))  # (tries, n)
        counts = tf.reduce_any(is_object & inside & (iou >= bound), axis=-1)
        counts = shaped & (counts | any_window)
        first = tf.argmax(counts)
        window = tf.cast(tf.concat([places[first], sides[first]], 0), tf.int32)
        whole = bound >= 1
        return whole | tf.reduce_any(counts), tf.where(whole, whole_window(size), window)

    def once_more(number, found, window):
        found, drawn = draw(number)
        return number + 1, found, tf.where(found, drawn, window)

    _, _, window = tf.while_loop(
        lambda number, found, _: ~found & (number < MAX_BOUNDS),
        once_more,
        (tf.constant(0), tf.constant(False), whole_window(size)),
    )
    return window


def random_canvas(size, seed, side=CANVAS_SIDE, chance=0.5):
    """Draw the larger canvas on which zoom-out puts an image.

    Args:
        size: int32 `(2,)`, height and width of the image.
        seed: integers `(2,)`: equal seeds, equal canvases.
        side: `(low, high)` of the canvas' sides over the image's, at least 1.
        chance: how often there is one at all.

    Returns:
        int32 `(4,)`: the canvas as a window of the image; its top and left are
        at most 0.

    Source:
        Liu et al. 2016, "SSD", section 3.6; torchvision's `RandomZoomOut`.
    """
    full = tf.cast(size, tf.float32)
    draws = tf.random.stateless_uniform((4,), seed, alg=ALGORITHM)
    sides = tf.floor(full * (side[0] + draws[0] * (side[1] - side[0])))  # (2,)
    places = -tf.floor((sides - full) * draws[1:3])
    canvas = tf.cast(tf.concat([places, sides], 0), tf.int32)
    return tf.where(draws[3] < chance, canvas, whole_window(size))


def random_scaled_window(image_size, size, seed, scale=SCALE, log_uniform=False):
    """Draw what is cut out of an image that is first scaled at random.

    Args:
        image_size: int32 `(..., 2)`, height and width of each image.
        size: `(height, width)` of the cut.
        seed: integers `(2,)`: equal seeds, equal windows.
        scale: `(low, high)` by which the image is scaled.
        log_uniform: bool: the logarithm of the factor is uniform, not the factor.

    Returns:
        int32 `(..., 4)`, in pixels of the unscaled image. It lies inside the
        image, or, along an axis where it is larger, the image inside it.
    """
    full = tf.cast(image_size, tf.float32)  # (..., 2)
    draws_shape = tf.concat([[3], tf.shape(full)[:-1]], 0)
    draws = tf.random.stateless_uniform(draws_shape, seed, alg=ALGORITHM)
    low, high = (math.log(end) for end in scale) if log_uniform else scale
    factor = low + draws[0] * (high - low)
    factor = (tf.exp(factor) if log_uniform else factor)[..., None]  # (..., 1)
    sides = tf.maximum(tf.round(tf.cast(size, tf.float32) / factor), 1.0)  # (..., 2)
    room = full - sides  # (..., 2), negative where the window is larger
    least, most = tf.minimum(room, 0.0), tf.maximum(room, 0.0)
    shares = tf.stack([draws[1], draws[2]], -1)
    places = tf.minimum(least + tf.floor(shares * (most - least + 1)), most)
    return tf.cast(tf.concat([places, sides], -1), tf.int32)


def random_mosaic(image_sizes, size, seed, centre=MOSAIC_CENTRE, area=MOSAIC_AREA):
    """Draw where four images meet, and which window of each shows.

    Windows have the shape of their quarter, so that nothing is distorted; the
    largest such window of an image has area share 1.

    Args:
        image_sizes: int32 `(4, 2)`, height and width of each image.
        size: `(height, width)` of the mosaic, at least 2.
        seed: integers `(2,)`: equal seeds, equal mosaics.
        centre: `(low, high)` of the meeting point over height, and over width.
        area: `(low, high)` of the window's area over that of the largest.

    Returns:
        `(meeting, windows)`: int32 `(2,)` y and x in the result, inside it; int32
        `(4, 4)` the windows of the upper left, upper right, lower left and lower
        right image.

    Source:
        After Bochkovskiy et al. 2020, "YOLOv4", section 3.3.
    """
    draws = tf.random.stateless_uniform((14,), seed, alg=ALGORITHM)
    full = tf.cast(size, tf.float32)
    meeting = tf.round(full * (centre[0] + draws[:2] * (centre[1] - centre[0])))
    meeting = tf.clip_by_value(meeting, 1.0, full - 1)
    quarters = tf.cast(_quarter_sizes(tf.cast(meeting, tf.int32), size), tf.float32)  # (4, 2)
    sizes = tf.cast(image_sizes, tf.float32)
    scale = tf.reduce_min(sizes / quarters, axis=-1, keepdims=True)  # (4, 1)
    share = area[0] + draws[2:6, None] * (area[1] - area[0])
    sides = tf.round(quarters * scale * tf.sqrt(share))
    sides = tf.clip_by_value(sides, 1.0, sizes)  # (4, 2)
    room = sizes - sides
    places = tf.minimum(tf.floor(tf.reshape(draws[6:], (4, 2)) * (room + 1)), room)
    return tf.cast(meeting, tf.int32), tf.cast(tf.concat([places, sides], -1), tf.int32)


def join_quarters(quarters):
    """Put four pieces together: upper left, upper right, lower left, lower right.

    Args:
        quarters: four tensors `(height, width, ...)` that fit together.

    Returns:
        One tensor `(height, width, ...)`.
    """
    return tf.concat([tf.concat(quarters[k : k + 2], axis=1) for k in (0, 2)], axis=0)


def quarter_windows(meeting, size):
    """Where the four images of a mosaic lie in it: int32 `(4, 4)`."""
    y, x = tf.unstack(meeting)
    zero = tf.zeros_like(y)
    corners = tf.stack([[zero, zero], [zero, x], [y, zero], [y, x]])  # (4, 2)
    return tf.concat([corners, _quarter_sizes(meeting, size)], -1)


def _quarter_sizes(meeting, size):
    (y, x), (height, width) = tf.unstack(meeting), size
    return tf.stack([[y, x], [y, width - x], [height - y, x], [height - y, width - x]])
