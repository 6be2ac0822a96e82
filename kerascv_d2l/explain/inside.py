"""What a network holds, without a score of one image: filters, feature maps, ideal images."""

import keras
import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.explain.layers import inner_layers
from kerascv_d2l.explain.progress import with_progress
from kerascv_d2l.explain.subject import as_subject, look

GREY, NOISE = 117.0, 10.0  # where the ascent begins: about the mean of photographs
_BLUR = np.array([1, 4, 6, 4, 1], np.float32) / 16


def first_layer_filters(model):
    """Give the kernels of the first convolution of the image.

    Args:
        model: as for `saliency`, but no export.

    Returns:
        float32 `(filters, height, width, 3)`.

    Raises:
        InputError: if there is no convolution of three channels.
    """
    subject = as_subject(model)
    subject.check_layers("first_layer_filters")
    for layer in inner_layers(subject.model).values():
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel.shape[2] == 3:
            return np.moveaxis(np.asarray(layer.get_weights()[0], np.float32), -1, 0)
    raise InputError("first_layer_filters: the model has no convolution of three channels.")


def feature_maps(model, image, layer=None):
    """Give the output of a layer for an image.

    Args:
        model: as for `saliency`, but no export.
        image: as for `saliency`.
        layer: str, as for `grad_cam`.

    Returns:
        float32 `(h, w, channels)`.

    Raises:
        InputError: as for `grad_cam`.
    """
    subject, pixels, target = look(model, image, None)
    subject.check_layers("feature_maps")
    maps = subject.layer_output(pixels, subject.layer(pixels, target, layer))
    if maps.ndim != 4:
        raise InputError(f"layer {layer!r}: its output is {maps.shape}; expected feature maps.")
    return maps[0]


def class_visualization(
    model, target, steps=200, rate=6.0, decay=0.02, jitter=8, blur_every=4, size=(224, 224), seed=0
):
    """Draw the image that a classifier takes most for a class, by gradient ascent.

    Args:
        model: classifier, as for `saliency`.
        target: class, by index or name.
        steps: int.
        rate: float, mean change of a pixel in a step, grey levels.
        decay: float, share of the distance from grey that is taken away in a step.
        jitter: int, pixels by which the image is shifted at random before each step, at most.
        blur_every: int, steps from one smoothing to the next.
        size: `(height, width)`, for models without an image size.
        seed: int.

    Returns:
        uint8 `(h, w, 3)`.

    Raises:
        InputError: if there is no such class, or the model is no classifier.

    Source:
        Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 2, with the jitter
        and the blur of Yosinski et al. 2015, "Understanding Neural Networks Through Deep
        Visualization".
    """
    subject, rng = as_subject(model), np.random.default_rng(seed)
    if subject.task not in (None, "classification", "localization"):
        raise InputError(f"class_visualization is for classifiers; got a model for {subject.task}.")
    pixels = np.asarray(subject.prepare(np.full((*size, 3), GREY, np.float32)))
    target = subject.target(pixels, target)
    pixels = pixels + NOISE * rng.standard_normal(pixels.shape, np.float32)
    for step in with_progress(range(steps), f"ascent to {target.name}"):
        shift = tuple(rng.integers(-jitter, jitter + 1, 2))
        pixels = np.roll(pixels, shift, (1, 2))
        _, gradient = subject.gradients(pixels, target)
        pixels += rate * gradient / (np.abs(gradient).mean() + 1e-20)
        pixels -= decay * (pixels - GREY)
        pixels = np.roll(pixels, (-shift[0], -shift[1]), (1, 2))
        if blur_every and step % blur_every == blur_every - 1 and step < steps - 1:
            pixels = _blurred(pixels)
        pixels = np.clip(pixels, 0, 255)
    return np.rint(pixels[0]).astype(np.uint8)


def _blurred(pixels):
    """Smooth `(1, h, w, 3)` by a small binomial filter."""
    for axis in (1, 2):
        margin = [(2, 2) if k == axis else (0, 0) for k in range(4)]
        padded = np.pad(pixels, margin, mode="edge")
        length = pixels.shape[axis]
        pixels = sum(w * padded.take(range(k, k + length), axis) for k, w in enumerate(_BLUR))
    return pixels
