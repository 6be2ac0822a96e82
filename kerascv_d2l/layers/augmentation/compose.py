"""Several augmentations one after the other, and the usual ones by name."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation.base import RandomTransform
from kerascv_d2l.layers.augmentation.color_jitter import ColorJitter
from kerascv_d2l.layers.augmentation.flips import RandomHorizontalFlip
from kerascv_d2l.layers.augmentation.iou_crop import RandomIoUCrop
from kerascv_d2l.layers.augmentation.mosaic import Mosaic
from kerascv_d2l.layers.augmentation.resized_crop import RandomResizedCrop
from kerascv_d2l.layers.augmentation.scale_crop import RandomScaleCrop, RandomShift
from kerascv_d2l.ops.geometry import ALGORITHM, CROP_AREA

# torchvision's RandomPhotometricDistort, after Liu et al. 2016.
SSD_JITTER = {"brightness": 0.125, "contrast": 0.5, "saturation": 0.5, "hue": 0.05}
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB 0-255; what SSD fills with
BOOK_JITTER = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5}
MIDDLE_GREY = 127.5
MOSAIC_SHARE = 0.5  # of the examples; the others are augmented as SSD does
SMALL_AUGMENTATIONS = ("none", "flip", "crop-flip", "color", "all")
SEGMENTATION_AUGMENTATIONS = ("none", "flip", "scale")  # each does what those before it do


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class Compose(RandomTransform):
    """Apply several augmentation layers in turn.

    Takes what `RandomTransform` takes; `bounding_box_format` and `seed` of the layers inside do
    not count. A layer that needs partners (`Mosaic`) comes first.

    Args:
        layers: sequence of `RandomTransform`; none at all changes nothing.

    Raises:
        InputError: if one is no augmentation layer, or a later one needs partners.
    """

    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.layers = list(layers)
        for number, layer in enumerate(self.layers):
            if not isinstance(layer, RandomTransform):
                raise InputError(f"layers has {layer!r}; wanted augmentation layers")
            if layer.partners and number:
                raise InputError(f"layers has {type(layer).__name__} at {number}; wanted it first")
        self.moves = any(layer.moves for layer in self.layers)
        self.full_resolution = any(layer.full_resolution for layer in self.layers)
        self.cuts_first = bool(self.layers) and self.layers[0].cuts_first
        self.partners = max((layer.partners for layer in self.layers), default=0)
        if any(layer.draw_for is None for layer in self.layers):
            self.draw_for = None

    def transform(self, data, seed):
        """Transform with draws that depend on `seed` only, as `RandomTransform.transform`."""
        return super().transform(data, seed) if self.layers else data

    def draw_for(self, sizes, seed):
        """Draw for images of `sizes`, int32 `(..., 2)`: a tuple of what each layer draws."""
        draws = []
        for layer, own_seed in self._with_seeds(seed):
            draws.append(layer.draw_for(sizes, own_seed))
            sides = layer.output_size(sizes[..., 0], sizes[..., 1])
            sizes = tf.stack([tf.broadcast_to(side, tf.shape(sizes)[:-1]) for side in sides], -1)
        return tuple(draws)

    def apply(self, example, draw):
        """Apply each layer with its draw."""
        for layer, own_draw in zip(self.layers, draw, strict=True):
            example = layer.apply(example, own_draw)
        return example

    def apply_batch(self, example, draws):
        """Apply each layer to the batch with its draws."""
        for layer, own_draws in zip(self.layers, draws, strict=True):
            example = layer.apply_batch(example, own_draws)
        return example

    def transform_one(self, example, seed):
        """Apply each layer with a seed of its own."""
        return self.transform_members(lambda _: example, seed)

    def transform_members(self, member, seed):
        """Apply each layer; the first gets the partners."""
        example = None
        for layer, own_seed in self._with_seeds(seed):
            if example is None:
                example = layer.transform_members(member, own_seed)
            else:
                example = layer.transform_one(example, own_seed)
        return member(0) if example is None else example

    def transform_batch(self, example, seed):
        """Apply each layer to the batch with a seed of its own."""
        for layer, own_seed in self._with_seeds(seed):
            example = layer.transform_batch(example, own_seed)
        return example

    def _with_seeds(self, seed):
        return [
            (layer, tf.random.fold_in(seed, number, alg=ALGORITHM))
            for number, layer in enumerate(self.layers)
        ]

    def output_size(self, height, width):
        """Height and width of the results."""
        for layer in self.layers:
            height, width = layer.output_size(height, width)
        return height, width

    def output_rows(self, count):
        """Rows of boxes in a result for `count` rows in the data."""
        for layer in self.layers:
            count = layer.output_rows(count)
        return count


def classification_augmentation(image_size, scale=CROP_AREA):
    """Make what ImageNet networks are trained with: `RandomResizedCrop` and a random flip.

    Args:
        image_size: int or `(height, width)` of the results, pixels.
        scale: `(low, high)` share of the image's area.

    Returns:
        `Compose`.
    """
    return Compose([RandomResizedCrop(image_size, scale), RandomHorizontalFlip()])


def small_augmentation(name):
    """Make an augmentation of small images, as CIFAR-10's, at their own size.

    Args:
        name: `"none"`; `"flip"`, the book's random flip; `"crop-flip"`: a crop of the image padded
            by four pixels of zeros, then a random flip; `"color"`: the book's colour jitter, 0.5
            each; `"all"`: `"crop-flip"`, then `"color"`.

    Returns:
        `Compose`.

    Raises:
        InputError: for another name.
    """
    _check_name(name, SMALL_AUGMENTATIONS)
    layers = []
    if name in ("crop-flip", "all"):
        layers.append(RandomShift())
    if name in ("flip", "crop-flip", "all"):
        layers.append(RandomHorizontalFlip())
    if name in ("color", "all"):
        layers.append(ColorJitter(**BOOK_JITTER))
    return Compose(layers)


def segmentation_augmentation(image_size, name="scale"):
    """Make an augmentation of images and their segmentation masks.

    Args:
        image_size: int or `(height, width)` of the results, pixels.
        name: `"none"`: a random crop; `"flip"`: and a random flip; `"scale"`: of images that are
            scaled by 1/2 to 2 first, the logarithm uniform. What lies outside an image is middle
            grey, and ignored in the mask.

    Returns:
        `Compose`.

    Raises:
        InputError: for another name.
    """
    _check_name(name, SEGMENTATION_AUGMENTATIONS)
    crop = RandomScaleCrop(image_size, scale=(1, 1), fill=MIDDLE_GREY, antialias=False)
    if name == "scale":
        crop = RandomScaleCrop(image_size, log_uniform=True, fill=MIDDLE_GREY, antialias=True)
    return Compose([crop] if name == "none" else [crop, RandomHorizontalFlip()])


def ssd_augmentation(image_size):
    """Make SSD's augmentation: zoom out, crop by IoU, random flip, colour jitter.

    Args:
        image_size: int or `(height, width)` of the results, pixels.

    Returns:
        `Compose`.

    Source:
        Liu et al. 2016, "SSD", sections 2.2 and 3.6.
    """
    return Compose([_ssd_crop(image_size), *flip_color_augmentation(image_size).layers])


def flip_augmentation(image_size):
    """Make a random flip, with the boxes.

    Args:
        image_size: not used: images keep their size.

    Returns:
        `Compose`.
    """
    return Compose([RandomHorizontalFlip()])


def flip_color_augmentation(image_size):
    """Make SSD's augmentation without its zoom and crop: random flip, colour jitter.

    Args:
        image_size: not used: images keep their size.

    Returns:
        `Compose`.
    """
    return Compose([RandomHorizontalFlip(), ColorJitter(**SSD_JITTER)])


def mosaic_augmentation(image_size, share=MOSAIC_SHARE):
    """Make mosaics of four images for a share of the examples, SSD's augmentation for the others.

    Args:
        image_size: int or `(height, width)` of the results, pixels.
        share: float in [0, 1].

    Returns:
        `Compose`.
    """
    mosaic = Mosaic(image_size, p=share, otherwise=_ssd_crop(image_size))
    return Compose([mosaic, *flip_color_augmentation(image_size).layers])


def _ssd_crop(image_size):
    return RandomIoUCrop(image_size, zoom_out=0.5, fill=IMAGENET_MEAN)


def _check_name(name, names):
    if name not in names:
        raise InputError(f"augment is {name!r}; wanted one of {', '.join(names)}")
