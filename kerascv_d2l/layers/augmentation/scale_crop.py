"""Crops that segmentation networks and networks of small images are trained on."""

import keras
import tensorflow as tf

from kerascv_d2l.layers.augmentation.base import bounds
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.checks import check_whole
from kerascv_d2l.ops.geometry import ALGORITHM, as_dtype
from kerascv_d2l.ops.segmentation import IGNORE_LABEL
from kerascv_d2l.ops.windows import SCALE, random_scaled_window


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomScaleCrop(RandomWindow):
    """Scale an image at random and crop a window of `size`.

    Both in one step: the window is cut out of the unscaled image. Where the scaled image is
    smaller than the window it lies anywhere in it; the rest is filled. Masks are never
    interpolated. Takes what `RandomTransform` takes.

    Args:
        size: int or `(height, width)` of the results.
        scale: `(low, high)` of the factor; (1, 1) for a random crop.
        log_uniform: bool: the logarithm of the factor is uniform, not the factor.
        fill: number, or one for each channel, in the value range of the images.
        mask_fill: class of what is filled, usually the one that the loss ignores.
        antialias: bool or None, as for `crop_and_resize`.

    Raises:
        InputError: if a size or range is out of bounds.

    Source:
        Chen et al. 2018, "DeepLab", section 4.1.
    """

    def __init__(
        self,
        size,
        scale=SCALE,
        log_uniform=False,
        fill=0.0,
        mask_fill=IGNORE_LABEL,
        antialias=None,
        **kwargs,
    ):
        super().__init__(size, antialias, fill, mask_fill, **kwargs)
        self.scale = bounds(scale, "scale", 0, above=0)
        self.log_uniform = log_uniform

    def draw_for(self, sizes, seed):
        """Draw the windows, int32 `(..., 4)` for sizes `(..., 2)`."""
        return random_scaled_window(sizes, self.size, seed, self.scale, self.log_uniform)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RandomShift(RandomWindow):
    """Pad each image on all sides and crop a window of its old size.

    Each of the (2 · `padding` + 1)² windows is equally likely. A batch without boxes and masks is
    cropped all at once. Takes what `RandomTransform` takes.

    Args:
        padding: int, pixels on each side; 4 is what networks for CIFAR-10 are trained with.
        fill: number, or one for each channel, in the value range of the images.
        mask_fill: class of what is filled in masks.

    Raises:
        InputError: if `padding` is no whole number from 0 on.

    Source:
        torchvision's `RandomCrop(size, padding)`.
    """

    full_resolution = False  # nothing is resized

    def __init__(self, padding=4, fill=0.0, mask_fill=IGNORE_LABEL, **kwargs):
        super().__init__(None, False, fill, mask_fill, **kwargs)
        check_whole(0, padding=padding)
        self.padding = padding

    def draw_for(self, sizes, seed):
        """Draw the windows, int32 `(..., 4)` for sizes `(..., 2)`."""
        sizes = tf.cast(sizes, tf.int32)
        corners = tf.random.stateless_uniform(
            tf.shape(sizes), seed, -self.padding, self.padding + 1, tf.int32, alg=ALGORITHM
        )
        return tf.concat([corners, sizes], -1)

    def apply_batch(self, example, draws):
        """Show the windows `draws`, int32 `(batch, 4)`."""
        if len(example.fields()) > 1:
            return super().apply_batch(example, draws)
        images, padding = example.image, self.padding
        margins = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
        fill = as_dtype(
            tf.constant(self.fill, tf.float32), images.dtype
        )  # tf.pad takes one number for all channels
        padded = tf.pad(images - fill, margins) + fill if self.fill else tf.pad(images, margins)
        height, width = tf.unstack(example.size)
        rows = draws[:, :1] + padding + tf.range(height)  # (batch, height)
        columns = draws[:, 1:2] + padding + tf.range(width)  # (batch, width)
        cut = tf.gather(padded, rows, axis=1, batch_dims=1)  # (batch, height, padded width, c)
        cut = tf.gather(cut, columns, axis=2, batch_dims=1)  # (batch, height, width, c)
        return example._replace(image=tf.ensure_shape(cut, images.shape))
