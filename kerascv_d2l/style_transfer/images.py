"""Images in and out of the normalised space in which they are optimised."""

import numpy as np
import tensorflow as tf
from PIL import Image

from kerascv_d2l.data.images import upright_rgb
from kerascv_d2l.errors import InputError
from kerascv_d2l.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from kerascv_d2l.ops.checks import as_image_size

PIXEL_MAX = 255.0
# ImageNet's mean and standard deviation of RGB in [0, 1], as the book and torchvision use them.
RGB_MEAN, RGB_STD = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
# Black and white: the bounds of a normalised image.
LOWEST = -RGB_MEAN / RGB_STD
HIGHEST = (1 - RGB_MEAN) / RGB_STD

# BT.601's weights of red, green and blue in luminance, as Pillow has them.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def as_rgb(img, name="img"):
    """Convert an image to uint8 RGB.

    Args:
        img: `PIL.Image` of any mode, taken as `read_image` takes files, or uint8 array `(h, w, 3)`.
        name: what error messages call it.

    Returns:
        uint8 array `(h, w, 3)`.

    Raises:
        InputError: if it is neither, or has no pixels.
    """
    if isinstance(img, Image.Image):
        img = upright_rgb(img)
    img = np.asarray(img)
    if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3 or 0 in img.shape:
        raise InputError(
            f"{name} must be a PIL image or a uint8 array (h, w, 3), not {img.dtype} {img.shape}"
        )
    return img


def resize(img, image_shape):
    """Resize as torchvision's `Resize` does a PIL image: bilinear, antialiased.

    Args:
        img: uint8 array `(h, w, 3)` or `PIL.Image`.
        image_shape: `(height, width)` in pixels.

    Returns:
        uint8 array `(height, width, 3)`.

    Raises:
        InputError: if the shape is not two positive integers.
    """
    img = as_rgb(img)
    height, width = as_image_size(image_shape, "image_shape")
    if img.shape[:2] == (height, width):
        return img
    return np.asarray(Image.fromarray(img).resize((width, height), Image.Resampling.BILINEAR))


def preprocess(img, image_shape):
    """Resize an image and normalise it with ImageNet's mean and standard deviation.

    Args:
        img: `PIL.Image` or uint8 array `(h, w, 3)`.
        image_shape: `(height, width)`; the proportions are not kept.

    Returns:
        float32 tensor `(1, height, width, 3)`.

    Raises:
        InputError: for anything else.

    Source:
        D2L 1.0.3, section 14.12.2.
    """
    return normalise(resize(img, image_shape)[None])


def normalise(pixels):
    """Normalise pixels 0-255 `(..., 3)` of any number type with ImageNet's statistics: float32."""
    return (tf.cast(pixels, tf.float32) / PIXEL_MAX - RGB_MEAN) / RGB_STD


def postprocess(img):
    """Invert `preprocess`, clipped to what an image can show.

    Args:
        img: float `(1, h, w, 3)` or `(h, w, 3)`, normalised.

    Returns:
        `PIL.Image`, RGB. Values are rounded to the nearest of 256 (the book's torchvision
        cuts off), so that `postprocess(preprocess(img, shape))` gives `img` back.

    Source:
        D2L 1.0.3, section 14.12.2.
    """
    img = np.asarray(img, np.float32)
    img = img[0] if img.ndim == 4 else img
    return Image.fromarray(
        np.rint(np.clip(img * RGB_STD + RGB_MEAN, 0, 1) * PIXEL_MAX).astype(np.uint8)
    )


def grey(img):
    """Replace all three channels by the luminance.

    Args:
        img: uint8 array `(h, w, 3)`.

    Returns:
        uint8 array `(h, w, 3)`.
    """
    luminance = img.astype(np.float32) @ _LUMINANCE  # (h, w)
    return np.repeat(np.rint(luminance).astype(np.uint8)[..., None], 3, axis=2)


def match_luminance(img, reference):
    """Give one grey image the mean and standard deviation of another.

    Without it, a dark style would darken an image whose colours are kept.

    Args:
        img: uint8 array `(h, w, 3)`, grey.
        reference: uint8 array `(h', w', 3)`, grey.

    Returns:
        uint8 array `(h, w, 3)`.

    Source:
        Gatys et al., Preserving Color in Neural Artistic Style Transfer (2016), section 4.2.
    """
    spread = max(float(img.std()), 1.0)  # a flat image stays flat
    matched = (img - img.mean()) * (reference.std() / spread) + reference.mean()
    return np.rint(np.clip(matched, 0, 255)).astype(np.uint8)


def with_colors_of(img, content):
    """Combine the luminance of one image with the colours of another.

    Args:
        img: uint8 array `(h, w, 3)`, which gives its luminance.
        content: uint8 array `(h, w, 3)`, which gives its chrominance.

    Returns:
        uint8 array `(h, w, 3)`. Where the wanted luminance cannot be had in full colour, the
        colour fades until it can: luminance is kept, and no channel is clipped.
    """
    luminance = (img.astype(np.float32) @ _LUMINANCE)[..., None]  # (h, w, 1)
    content = content.astype(np.float32)
    color = content - (content @ _LUMINANCE)[..., None]  # (h, w, 3), of luminance 0
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(
            color > 0, (255 - luminance) / color, np.where(color < 0, -luminance / color, np.inf)
        )
    share = np.clip(room.min(axis=2, keepdims=True), 0, 1)  # (h, w, 1)
    return np.rint(np.clip(luminance + share * color, 0, 255)).astype(np.uint8)
