"""Which anchors, and which size of images, suit the objects of a data set."""

import math

import numpy as np

# Shares of the objects that may be smaller than the smallest anchor, or larger than the largest.
_SMALLER, _LARGER = 0.05, 0.05
_FLAT, _TALL = 0.1, 0.9  # quantiles of the shapes that stand beside the median
_LEAST_STEP = 1.25  # between one ratio and the next

# Sides of square images, pixels, and how large an object of the class with the smallest ones
# should be there: three places of the finest map.
IMAGE_SIDES = (256, 320, 384, 448, 512)
_WANTED_SIZE = 26.0
_LEAST_OBJECTS = 5  # of a class that counts


def choose_image_size(boxes, classes, sizes):
    """Choose the size that images are resized to: as small as their objects let it be.

    Args:
        boxes: array `(n, 4)`, normalised corners, of all objects to learn from.
        classes: int array `(n,)`.
        sizes: int array `(images, 2)`: height and width of the images, pixels.

    Returns:
        `(height, width)`, one of `IMAGE_SIDES`: the least at which the median object of each
        class is as large as a square of 26 pixels; but no larger than the longer side of the
        median image needs. Classes of less than five objects do not count.
    """
    boxes, classes = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(classes)
    shares = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))
    medians = [
        np.median(shares[classes == k])
        for k in np.unique(classes)
        if np.count_nonzero(classes == k) >= _LEAST_OBJECTS
    ]
    smallest = min(medians, default=1.0)
    longer = np.median(np.max(sizes, axis=1))
    side = next(
        (s for s in IMAGE_SIDES if s * smallest >= _WANTED_SIZE or s >= longer), IMAGE_SIDES[-1]
    )
    return side, side


def choose_anchors(boxes, image_size, strides):
    """Choose a size of anchors for each level, and ratios for all, by the labels' quantiles.

    Sizes grow by the same factor from level to level, from the quantile 0.05 of the objects' to
    the quantile 0.95: an object between two sizes overlaps the nearer one by 1 / factor or more.
    But none is below two strides of its level, where anchors would lie too far apart. The ratios
    are the quantiles 0.1, 0.5 and 0.9, at least a quarter apart.

    Args:
        boxes: array `(n, 4)`, normalised corners, of all objects to learn from.
        image_size: `(height, width)` of the network's input, pixels.
        strides: sequence of ints, pixels between anchors, for each level.

    Returns:
        Tuple of
        sizes: tuple of float, pixels: the side of a square as large as the object, one a level.
        ratios: three floats, height over width.
        None if there are no objects with an area.
    """
    height, width = image_size
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]) * (width, height)
    sides = sides[(sides > 0).all(axis=1)]
    if len(sides) == 0:
        return None
    size, ratio = np.sqrt(sides.prod(axis=1)), sides[:, 1] / sides[:, 0]
    low, high = np.quantile(size, [_SMALLER, 1 - _LARGER])
    sizes = np.maximum(np.geomspace(low, high, len(strides)), 2 * np.asarray(strides))
    flat, middle, tall = np.quantile(ratio, [_FLAT, 0.5, _TALL])
    ratios = min(flat, middle / _LEAST_STEP), middle, max(tall, middle * _LEAST_STEP)
    # Two decimals, but for flat objects two digits: a ratio of 0 is none.
    digits = [max(2, 1 - math.floor(math.log10(r))) for r in ratios]
    ratios = tuple(round(float(r), n) for r, n in zip(ratios, digits, strict=True))
    return tuple(np.round(sizes, 1).tolist()), ratios
