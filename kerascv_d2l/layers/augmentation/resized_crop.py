"""The window ImageNet networks are trained on."""

import keras

from kerascv_d2l.layers.augmentation.base import bounds
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.geometry import CROP_AREA, CROP_RATIO, random_window


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomResizedCrop(RandomWindow):
    """Crop a random window of each image and resize it to `size`.

    Objects are clipped to the window, and stay while any of them is inside.
    Takes what `RandomTransform` takes.

    Args:
        size: int or `(height, width)` of the results.
        scale: `(low, high)` share of the image's area, uniform.
        ratio: `(low, high)` width over height, the logarithm uniform.
        antialias: bool, as for `crop_and_resize`: true is as on Pillow images, None
            only where pixels would be left out.

    Raises:
        InputError: if a size or range is out of bounds.

    Source:
        Szegedy et al. 2015, "Going Deeper with Convolutions", section 6;
        torchvision's layer of this name.
    """

    def __init__(self, size, scale=CROP_AREA, ratio=CROP_RATIO, antialias=None, **kwargs):
        super().__init__(size, antialias, **kwargs)
        self.scale = bounds(scale, "scale", 0, 1, above=0)
        self.ratio = bounds(ratio, "ratio", above=0)

    def draw_for(self, sizes, seed):
        """Draw the windows, int32 `(..., 4)` for sizes `(..., 2)`."""
        return random_window(sizes, seed, self.scale, self.ratio)
