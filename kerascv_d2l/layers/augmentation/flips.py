"""Random flips, each direction with a draw of its own."""

import keras
import tensorflow as tf

from kerascv_d2l.layers.augmentation.base import RandomTransform, chance
from kerascv_d2l.ops.geometry import ALGORITHM, flip_left_right, flip_up_down


class _RandomFlip(RandomTransform):
    flip = None  # function of (image, boxes)

    def __init__(self, p=0.5, **kwargs):
        super().__init__(**kwargs)
        self.p = chance(p, "p")

    def draw_for(self, sizes, seed):
        """Draw whether to flip: bool `(...)` for sizes `(..., 2)`."""
        return tf.random.stateless_uniform(tf.shape(sizes)[:-1], seed, alg=ALGORITHM) < self.p

    def apply(self, example, draw):
        """Flip the image, its boxes and its masks where `draw`, bool `()`, is true."""
        fields = tf.cond(draw, lambda: self._flipped(example).fields(), lambda: example.fields())
        return type(example)(**fields)

    def apply_batch(self, example, draws):
        """Flip those of a batch that `draws`, bool `(batch,)`, says, all at once."""

        def chosen(new, old):
            return tf.where(tf.reshape(draws, [-1] + [1] * (old.shape.rank - 1)), new, old)

        flipped, old = self._flipped(example, batch=1).fields(), example.fields()
        return type(example)(**{name: chosen(flipped[name], old[name]) for name in old})

    def _flipped(self, example, batch=0):
        flip = type(self).flip
        found = example._replace(image=flip(example.image))
        if example.boxes is not None:
            found = found._replace(boxes=flip(example.image, example.boxes)[1])
        if example.masks is not None:
            found = found._replace(masks=flip(example.masks[..., None])[..., 0])
        if example.mask is not None:
            channel = example.mask.shape.rank == 3 + batch
            mask = flip(example.mask) if channel else flip(example.mask[..., None])[..., 0]
            found = found._replace(mask=mask)
        return found


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomHorizontalFlip(_RandomFlip):
    """Flip left to right at random.

    Takes what `RandomTransform` takes.

    Args:
        p: float, probability of a flip.

    Raises:
        InputError: if `p` is no probability.
    """

    flip = staticmethod(flip_left_right)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomVerticalFlip(_RandomFlip):
    """Flip top to bottom at random.

    Takes what `RandomTransform` takes.

    Args:
        p: float, probability of a flip.

    Raises:
        InputError: if `p` is no probability.
    """

    flip = staticmethod(flip_up_down)
