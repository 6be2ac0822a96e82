"""SSD's zoom-out, which makes small objects."""

import keras

from kerascv_d2l.layers.augmentation.base import bounds, chance
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.segmentation import IGNORE_LABEL
from kerascv_d2l.ops.windows import CANVAS_SIDE, random_canvas


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomZoomOut(RandomWindow):
    """Put an image anywhere on a larger, filled canvas, and resize that.

    Takes what `RandomTransform` takes.

    Args:
        size: int or `(height, width)` of the results; None for that of the image.
        fill: number, or one for each channel, in the value range of the images;
            SSD takes the mean of its training images.
        side_range: `(low, high)` of the canvas' sides over the image's.
        p: float, probability of a canvas; otherwise only the size changes.
        mask_fill: class of the canvas in masks.
        antialias: bool or None, as for `crop_and_resize`.

    Raises:
        InputError: if a size, range or probability is out of bounds.

    Source:
        Liu et al. 2016, "SSD", section 3.6; torchvision's layer of this name.
    """

    def __init__(
        self,
        size=None,
        fill=0.0,
        side_range=CANVAS_SIDE,
        p=0.5,
        mask_fill=IGNORE_LABEL,
        antialias=None,
        **kwargs,
    ):
        super().__init__(size, antialias, fill, mask_fill, **kwargs)
        self.side_range = bounds(side_range, "side_range", 1)
        self.p = chance(p, "p")

    def draw(self, example, seed):
        """Draw the canvas, as a window, int32 `(4,)`."""
        return random_canvas(example.size, seed, self.side_range, self.p)
