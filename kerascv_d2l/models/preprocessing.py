"""Preprocessing of pixels 0-255 as networks were trained with it, as layers of a model.

Each function takes RGB `(batch, h, w, 3)`, symbolic or not, and returns the same shape. Only stock
Keras layers: a saved model needs no code of this package for them.
"""

import keras

# ImageNet's channel statistics in RGB, on pixels divided by 255 ...
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# ... and the means in BGR, on 0-255, which the networks that come from Caffe subtract.
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def to_unit_range(pixels):
    """Map [0, 255] to [-1, 1]."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="pixels_to_unit_range")(pixels)


def standardise(pixels):
    """Map [0, 255] RGB to ImageNet's mean 0 and standard deviation 1 by channel."""
    scale = [1 / (255 * std) for std in IMAGENET_STD]
    offset = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return keras.layers.Rescaling(scale, offset=offset, name="standardise")(pixels)


def caffe(pixels):
    """Map RGB to BGR with mean 0 by channel, still in steps of 1."""
    offset = [-mean for mean in CAFFE_MEAN_BGR]
    bgr = keras.ops.flip(pixels, axis=-1)
    return keras.layers.Rescaling(1.0, offset=offset, name="centre")(bgr)


def nothing(pixels):
    """Leave pixels as they are, for a network that scales its input itself."""
    return pixels
