"""SSD's zooming out, which makes small objects."""

import keras

from kerascv_d2l.layers.augmentation.base import VOID, bounds, chance
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.windows import CANVAS_SIDE, random_canvas


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomZoomOut(RandomWindow):
    """Puts a picture somewhere on a larger, filled canvas, and brings that to one size.

    Data may be whatever `RandomTransform` takes.

    Args:
        size: int or `(height, width)` of the results; None for that of the picture.
        fill: number, or one for each channel, in the value range of the pictures;
            SSD takes the mean of its training pictures.
        side_range: `(low, high)` of the canvas' sides over the picture's.
        p: float, how often; otherwise only the size changes.
        mask_fill: class of the canvas in masks.
        antialias: bool or None, as for `crop_and_resize`.
        bounding_box_format: of the boxes, "rel_xyxy" unless said otherwise.
        seed: int or None.

    Raises:
        InputError: for a size, range or probability that is none.

    Source:
        Liu et al. 2016, "SSD", section 3.6; torchvision's layer of this name.
    """

    def __init__(
        self,
        size=None,
        fill=0.0,
        side_range=CANVAS_SIDE,
        p=0.5,
        mask_fill=VOID,
        antialias=None,
        **kwargs,
    ):
        super().__init__(size, antialias, fill, mask_fill, **kwargs)
        self.side_range = bounds(side_range, "side_range", 1)
        self.p = chance(p, "p")

    def draw(self, example, seed):
        """Draw the canvas, as a window."""
        return random_canvas(example.size, seed, self.side_range, self.p)

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "fill": self.fill,
            "side_range": self.side_range,
            "p": self.p,
            "mask_fill": self.mask_fill,
        }
