"""Random brightness, contrast, saturation and hue."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation.base import RandomTransform, bounds
from kerascv_d2l.ops.color import OPERATIONS, VALUE_RANGE, jitter, random_jitter

MOST_HUE = 0.5


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class ColorJitter(RandomTransform):
    """Change brightness, contrast, saturation and hue at random, in random order.

    Each image has its own four factors and its own order. After each of the four, values
    are clipped to the value range; uint8 is rounded once, at the end.
    Boxes, labels and masks pass through. Takes what `RandomTransform` takes, of uint8 or floats
    with three channels.

    Args:
        brightness: v for factors uniform in [max(0, 1 - v), 1 + v], or
            `(low, high)`.
        contrast: likewise.
        saturation: likewise.
        hue: v in [0, 1/2] for shifts uniform in [-v, v] turns, or `(low, high)`.
        value_range: `(black, white)` of float images.

    Raises:
        InputError: if a range is empty or out of bounds.

    Source:
        torchvision's `ColorJitter`; the adjustments are those of `ops.color`.
    """

    moves = False

    def __init__(
        self,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
        value_range=VALUE_RANGE,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.brightness = _factor_range(brightness, "brightness")
        self.contrast = _factor_range(contrast, "contrast")
        self.saturation = _factor_range(saturation, "saturation")
        self.hue = bounds(
            hue if isinstance(hue, (tuple, list)) else (-hue, hue), "hue", -MOST_HUE, MOST_HUE
        )
        self.value_range = bounds(value_range, "value_range")
        if self.value_range[0] == self.value_range[1]:
            raise InputError(f"value_range is {value_range!r}; wanted (black, white), not equal")
        neutral = dict.fromkeys(OPERATIONS, (1.0, 1.0)) | {"hue": (0.0, 0.0)}
        ranges = {name: getattr(self, name) for name in OPERATIONS}
        self._ranges = {name: ends for name, ends in ranges.items() if ends != neutral[name]}

    def draw_for(self, sizes, seed):
        """Draw `(factors, order)`, each `(..., n)`, of the n adjustments that do anything."""
        if not self._ranges:
            return ()
        return random_jitter(seed, list(self._ranges.values()), tf.shape(sizes)[:-1])

    def apply(self, example, draw):
        """Change the colours of the image."""
        if not self._ranges:
            return example
        image = jitter(example.image, *draw, tuple(self._ranges), self.value_range)
        return example._replace(image=image)


def _factor_range(value, name):
    if not isinstance(value, (tuple, list)):
        if value < 0:
            raise InputError(f"{name} is {value!r}; wanted at least 0, or (low, high)")
        value = max(0.0, 1.0 - value), 1.0 + value
    return bounds(value, name, 0)
