"""What segmentation networks are trained on: a scaled cut, with its mask."""

import keras

from kerascv_d2l.layers.augmentation.base import VOID, bounds
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.windows import SCALE, random_scaled_window


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomScaleCrop(RandomWindow):
    """Scales a picture at random and cuts out a window of one size.

    Both in one step: the window is cut out of the unscaled picture. Where the
    scaled picture is smaller than the window it lies somewhere in it, the rest is
    filled. Masks are never interpolated. Data may be whatever `RandomTransform`
    takes.

    Args:
        size: int or `(height, width)` of the results.
        scale: `(low, high)` of the factor, uniform.
        fill: number, or one for each channel, in the value range of the pictures.
        mask_fill: class of what is filled, usually one that the loss leaves out.
        antialias: bool or None, as for `crop_and_resize`.
        bounding_box_format: of the boxes, "rel_xyxy" unless said otherwise.
        seed: int or None.

    Raises:
        InputError: for a size or range that is none.

    Source:
        Chen et al. 2018, "DeepLab", section 4.1.
    """

    def __init__(self, size, scale=SCALE, fill=0.0, mask_fill=VOID, antialias=None, **kwargs):
        super().__init__(size, antialias, fill, mask_fill, **kwargs)
        self.scale = bounds(scale, "scale", 0)

    def draw(self, example, seed):
        """Draw the window."""
        return random_scaled_window(example.size, self.size, seed, self.scale)

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "scale": self.scale,
            "fill": self.fill,
            "mask_fill": self.mask_fill,
        }
