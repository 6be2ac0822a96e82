"""What is done to pictures and boxes before a detector is trained on them."""

import tensorflow as tf

from kerascv_d2l.layers.augmentation import ColorJitter, Mosaic, RandomHorizontalFlip
from kerascv_d2l.layers.augmentation.base import Example
from kerascv_d2l.layers.augmentation.windows import cut_window
from kerascv_d2l.ops.geometry import ALGORITHM, crop_boxes
from kerascv_d2l.ops.windows import random_canvas, random_iou_window
from kerascv_d2l.pipelines.batches import as_size
from kerascv_d2l.pipelines.detection import PADDING_CLASS

# torchvision's RandomPhotometricDistort, after Liu et al. 2016.
JITTER = {"brightness": 0.125, "contrast": 0.5, "saturation": 0.5, "hue": 0.05}
FILL = (123.675, 116.28, 103.53)  # ImageNet's mean, as in SSD
MOSAIC_SHARE = 0.5  # of the examples; the others are as without mosaics
MOSAIC_PARTNERS = 3


def ssd_transform(image_size):
    """SSD's augmentation, for `detection_batches(transform=…, full_resolution=True)`.

    Zooming out, the crop by IoU and the resizing are one step, so that nothing is
    interpolated twice and no large canvas is filled; then mirroring and colours.

    Args:
        image_size: int or `(height, width)` of the results, pixels.

    Returns:
        Function `(image, labels, seed)` -> `(image, labels)`.

    Source:
        Liu et al. 2016, "SSD", sections 2.2 and 3.6.
    """
    size = as_size(image_size)
    finish = _finishing()

    def transform(image, rows, seed):
        window_seed, finish_seed = tf.unstack(tf.random.split(seed, 2, alg=ALGORITHM))
        example = _zoom_and_crop(_as_example(image, rows), size, window_seed)
        example = finish(example, finish_seed)
        return example.image, _as_rows(example, rows[:, 0])

    return transform


def mosaic_transform(image_size, share=MOSAIC_SHARE):
    """Mosaics of four pictures for a share of the examples, SSD's augmentation for the others.

    For `detection_batches(transform=…, full_resolution=True, partners=3)`.

    Args:
        image_size: int or `(height, width)` of the results, pixels.
        share: float in [0, 1].

    Returns:
        Function `(member, seed)` -> `(image, labels)`, with four times as many rows.
    """
    size = as_size(image_size)
    finish, mosaic = _finishing(), Mosaic(size)

    def transform(member, seed):
        which, draw_seed, finish_seed = tf.unstack(tf.random.split(seed, 3, alg=ALGORITHM))

        def of_four():
            members = [member(k) for k in range(1 + MOSAIC_PARTNERS)]
            example = mosaic.join([_as_example(*each) for each in members], draw_seed)
            classes = tf.concat([rows[:, 0] for _, rows in members], 0)
            return example.image, _as_rows(example, classes)

        def of_one():
            image, rows = member(0)
            example = _zoom_and_crop(_as_example(image, rows), size, draw_seed)
            rows = _as_rows(example, rows[:, 0])
            missing = MOSAIC_PARTNERS * tf.shape(rows)[0]
            rows = tf.pad(rows, [[0, missing], [0, 0]], constant_values=PADDING_CLASS)
            return example.image, rows

        is_mosaic = tf.random.stateless_uniform((), which, alg=ALGORITHM) < share
        image, rows = tf.cond(is_mosaic, of_four, of_one)
        example = finish(_as_example(tf.ensure_shape(image, (*size, 3)), rows), finish_seed)
        return example.image, _as_rows(example, rows[:, 0])

    return transform


def _zoom_and_crop(example, size, seed):
    canvas_seed, crop_seed = tf.unstack(tf.random.split(seed, 2, alg=ALGORITHM))
    canvas = random_canvas(example.size, canvas_seed)
    boxes, _ = crop_boxes(example.boxes, canvas, example.size, canvas[2:])
    window = random_iou_window(canvas[2:], boxes, example.is_object, crop_seed)
    window += tf.concat([canvas[:2], [0, 0]], 0)  # in pixels of the picture
    return cut_window(example, window, size, None, FILL, None, by_centre=True)


def _finishing():
    layers = RandomHorizontalFlip(), ColorJitter(**JITTER)

    def finish(example, seed):
        for number, layer in enumerate(layers):
            own = tf.random.fold_in(seed, number, alg=ALGORITHM)
            example = layer.apply(example, layer.draw(example, own))
        return example

    return finish


def _as_example(image, rows):
    return Example(image, rows[:, 1:], rows[:, 0] >= 0)


def _as_rows(example, classes):
    """float32 `(m, 5)` rows, -1 where there is no object any more."""
    rows = tf.concat([classes[:, None], example.boxes], -1)
    return tf.where(example.is_object[:, None], rows, PADDING_CLASS)
