"""SSD's random crop."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation.base import bounds as checked, chance
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.checks import check_whole
from kerascv_d2l.ops.geometry import ALGORITHM, crop_boxes
from kerascv_d2l.ops.segmentation import IGNORE_LABEL
from kerascv_d2l.ops.windows import (
    CANVAS_SIDE,
    CROP_SCALE,
    CROP_SHAPE,
    CROP_TRIES,
    IOU_BOUNDS,
    random_canvas,
    random_iou_window,
)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomIoUCrop(RandomWindow):
    """Crop a window whose IoU with some object is at least a drawn bound.

    Objects whose centre is outside go, but for ignored ones, which no IoU is asked of; the others
    are clipped. An image without objects, or with ignored ones only, or without boxes at all, shows
    any window. Takes what `RandomTransform` takes.

    With `zoom_out` the window is one of a larger canvas, on which `RandomZoomOut` puts the image.
    Both are one step: nothing is interpolated twice, and no canvas is filled.

    Args:
        size: int or `(height, width)` of the results; None for that of the image,
            to which the window is resized whatever its shape.
        bounds: IoUs of which one is drawn; 1 stands for the whole image.
        scale: `(low, high)` of the window's sides over the image's.
        ratio: `(low, high)` of the window's width over its height.
        tries: int, windows for a bound before another one is drawn.
        zoom_out: float, probability of a canvas.
        side_range: `(low, high)` of the canvas' sides over the image's.
        fill: number, or one for each channel, of the canvas.
        mask_fill: class of the canvas in masks.
        antialias: bool or None, as for `crop_and_resize`.

    Raises:
        InputError: if a size, range, probability or number of tries is out of bounds, or there
            are no `bounds`.

    Source:
        Liu et al. 2016, "SSD", sections 2.2 and 3.6; torchvision's layer of this name.
    """

    by_centre = True

    def __init__(
        self,
        size=None,
        bounds=IOU_BOUNDS,
        scale=CROP_SCALE,
        ratio=CROP_SHAPE,
        tries=CROP_TRIES,
        zoom_out=0.0,
        side_range=CANVAS_SIDE,
        fill=0.0,
        mask_fill=IGNORE_LABEL,
        antialias=None,
        **kwargs,
    ):
        super().__init__(size, antialias, fill if zoom_out else None, mask_fill, **kwargs)
        self.bounds = tuple(float(bound) for bound in bounds)
        if not self.bounds:
            raise InputError("bounds is empty; wanted IoUs of which one is drawn")
        self.scale = checked(scale, "scale", 0, 1, above=0)
        self.ratio = checked(ratio, "ratio", above=0)
        check_whole(1, tries=tries)
        self.tries = tries
        self.zoom_out = chance(zoom_out, "zoom_out")
        self.side_range = checked(side_range, "side_range", 1)

    def draw(self, example, seed):
        """Draw the window, int32 `(4,)`."""
        size, boxes = example.size, example.boxes
        start = tf.constant([0, 0, 0, 0])
        if boxes is None:
            boxes, is_object = tf.zeros((1, 4)), tf.constant([False])
        else:
            is_object = example.classes >= 0
            if example.ignore is not None:
                is_object &= ~example.ignore
        if self.zoom_out:
            canvas_seed, seed = tf.unstack(tf.random.split(seed, 2, alg=ALGORITHM))
            canvas = random_canvas(size, canvas_seed, self.side_range, self.zoom_out)
            boxes, _ = crop_boxes(boxes, canvas, size, canvas[2:])
            start, size = tf.concat([canvas[:2], [0, 0]], 0), canvas[2:]
        window = random_iou_window(
            size, boxes, is_object, seed, self.bounds, self.scale, self.ratio, self.tries
        )
        return window + start  # in pixels of the image
