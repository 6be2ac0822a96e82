"""SSD's random crop."""

import keras
import tensorflow as tf

from kerascv_d2l.layers.augmentation.base import bounds as checked
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.windows import (
    CROP_SCALE,
    CROP_SHAPE,
    CROP_TRIES,
    IOU_BOUNDS,
    random_iou_window,
)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomIoUCrop(RandomWindow):
    """Shows a window whose IoU with some object is at least a drawn bound.

    Objects whose centre is outside go, the others are clipped. A picture without
    objects, or without boxes at all, shows any window. Data may be whatever
    `RandomTransform` takes.

    Args:
        size: int or `(height, width)` of the results; None for that of the picture,
            to which the window is brought whatever its shape.
        bounds: IoUs of which one is drawn; 1 stands for the whole picture.
        scale: `(low, high)` of the window's sides over the picture's.
        ratio: `(low, high)` of the window's width over its height.
        tries: int, windows for a bound before another one is drawn.
        antialias: bool or None, as for `crop_and_resize`.
        bounding_box_format: of the boxes, "rel_xyxy" unless said otherwise.
        seed: int or None.

    Raises:
        InputError: for a size or range that is none.

    Source:
        Liu et al. 2016, "SSD", section 2.2; torchvision's layer of this name.
    """

    by_centre = True

    def __init__(
        self,
        size=None,
        bounds=IOU_BOUNDS,
        scale=CROP_SCALE,
        ratio=CROP_SHAPE,
        tries=CROP_TRIES,
        antialias=None,
        **kwargs,
    ):
        super().__init__(size, antialias, **kwargs)
        self.bounds = tuple(float(bound) for bound in bounds)
        self.scale = checked(scale, "scale", 0, 1)
        self.ratio = checked(ratio, "ratio", 0)
        self.tries = tries

    def draw(self, example, seed):
        """Draw the window."""
        boxes, is_object = example.boxes, example.is_object
        if boxes is None:
            boxes, is_object = tf.zeros((1, 4)), tf.constant([False])
        return random_iou_window(
            example.size, boxes, is_object, seed, self.bounds, self.scale, self.ratio, self.tries
        )

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "bounds": self.bounds,
            "scale": self.scale,
            "ratio": self.ratio,
            "tries": self.tries,
        }
