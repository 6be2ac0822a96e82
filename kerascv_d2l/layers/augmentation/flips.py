"""Mirroring, each direction with a draw of its own."""

import keras
import tensorflow as tf

from kerascv_d2l.layers.augmentation.base import Example, RandomTransform, chance
from kerascv_d2l.ops.geometry import ALGORITHM, flip_left_right, flip_up_down


class _RandomFlip(RandomTransform):
    flip = None  # function of (image, boxes)

    def __init__(self, p=0.5, **kwargs):
        super().__init__(**kwargs)
        self.p = chance(p, "p")

    def draw(self, example, seed):
        """Draw whether to mirror: bool `()`."""
        return tf.random.stateless_uniform((), seed, alg=ALGORITHM) < self.p

    def apply(self, example, draw):
        """Mirror the picture, its boxes and its mask where `draw` is true."""
        flip = type(self).flip

        def mirrored():
            image, boxes, mask = flip(example.image), example.boxes, example.mask
            if boxes is not None:
                _, boxes = flip(example.image, boxes)
            if mask is not None:
                mask = flip(mask) if mask.shape.rank == 3 else flip(mask[..., None])[..., 0]
            return [part for part in (image, boxes, mask) if part is not None]

        kept = [p for p in (example.image, example.boxes, example.mask) if p is not None]
        parts = iter(tf.cond(draw, mirrored, lambda: kept))
        image, boxes, mask = (
            None if part is None else next(parts)
            for part in (example.image, example.boxes, example.mask)
        )
        return Example(image, boxes, example.is_object, mask)

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {"p": self.p}


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomHorizontalFlip(_RandomFlip):
    """Mirrors left to right.

    Data may be whatever `RandomTransform` takes.

    Args:
        p: float, how often.
        bounding_box_format: of the boxes, "rel_xyxy" unless said otherwise.
        seed: int or None.

    Raises:
        InputError: if `p` is no probability.
    """

    flip = staticmethod(flip_left_right)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomVerticalFlip(_RandomFlip):
    """Mirrors top to bottom.

    Data may be whatever `RandomTransform` takes.

    Args:
        p: float, how often.
        bounding_box_format: of the boxes, "rel_xyxy" unless said otherwise.
        seed: int or None.

    Raises:
        InputError: if `p` is no probability.
    """

    flip = staticmethod(flip_up_down)
