"""Class activation maps: which cells of a feature map speak for a class."""

import keras
import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.explain.layers import inner_layers
from kerascv_d2l.explain.subject import look

_TINY = 1e-12
_CAM_TOLERANCE = 1e-3  # of the scores that the maps must add up to


def grad_cam(model, image, target=None, layer=None):
    """Weigh the channels of a feature map by the mean of the score's derivatives, and add up.

    Args:
        model: as for `saliency`, but no export.
        image: as for `saliency`.
        target: as for `saliency`.
        layer: str, name of the layer; None for the one of `Subject.layer`.

    Returns:
        float32 `(h, w)` of the feature map, at least 0. For a classifier that ends in a global
        mean and one dense layer, what of `cam` is above 0, over the number of cells.

    Raises:
        InputError: as for `saliency`, or if there is no such layer, or it has no map.

    Source:
        Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2.
    """
    _, maps, gradients = _maps(model, image, target, layer, "grad_cam")
    return np.maximum((maps * gradients.mean(axis=(0, 1))).sum(axis=-1), 0)


def grad_cam_plus_plus(model, image, target=None, layer=None):
    """Compute `grad_cam` with weights that count every instance of a class, small ones too.

    It is made for classifiers that end in a global mean: there all derivatives of a channel have
    one sign. Those of a detection have both, and of each channel the positive ones alone count, so
    that hardly a channel weighs nothing, and the map is that of mean activations: use `layer_cam`.

    Arguments, result and errors are those of `grad_cam`.

    Source:
        Chattopadhay et al. 2018, "Grad-CAM++", equations 19 and 20, with the score's exponential
        as the score.
    """
    _, maps, gradients = _maps(model, image, target, layer, "grad_cam_plus_plus")
    # Of the exponential the second and third derivatives are those squares and cubes: over them
    # alpha is g² / (2 g² + sum · g³) = 1 / (2 + sum · g), and counts where g > 0 only.
    below = 2 + maps.sum(axis=(0, 1)) * gradients  # (h, w, channels)
    alphas = np.where(np.abs(below) > _TINY, 1 / np.where(below, below, 1), 0)
    weights = (alphas * np.maximum(gradients, 0)).sum(axis=(0, 1))
    return np.maximum((maps * weights).sum(axis=-1), 0)


def layer_cam(model, image, target=None, layer=None):
    """Weigh every cell of a feature map by its own positive derivatives, and add up.

    The weights of `grad_cam` know no places: its map of one detection lights every place with
    the same features. This one is weak where the score hardly depends on the map.

    Arguments, result and errors are those of `grad_cam`.

    Source:
        Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for
        Localization".
    """
    _, maps, gradients = _maps(model, image, target, layer, "layer_cam")
    return np.maximum((maps * np.maximum(gradients, 0)).sum(axis=-1), 0)


def cam(model, image, target=None):
    """Weigh the channels of the last feature map by the output layer, and add up.

    Args:
        model: classifier that ends in a global mean and one dense layer, or a convolution of
            1 x 1.
        image: as for `saliency`.
        target: as for `saliency`.

    Returns:
        float32 `(h, w)` of the feature map, of either sign; its mean and the bias are the logit.

    Raises:
        InputError: as for `saliency`, or if the model ends otherwise.

    Source:
        Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", equation 2.
    """
    subject, maps, _ = _maps(model, image, target, None, "cam")
    pixels = subject.prepare(image)
    target = subject.target(pixels, target)
    heads = [
        layer
        for layer in inner_layers(subject.model).values()
        if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D))
    ]
    kernel, bias = heads[-1].get_weights() if heads and heads[-1].use_bias else (maps[:0], 0)
    index = int(target.tensors["class"])
    if subject.task == "classification" and kernel.size == maps.shape[-1] * kernel.shape[-1]:
        heat = maps @ kernel.reshape(-1, kernel.shape[-1])[:, index]
        score = heat.mean() + bias[index]
        if abs(score - target.score) <= _CAM_TOLERANCE * max(1, abs(target.score)):
            return heat
    raise InputError(
        "cam: the model does not end in a global mean and one dense layer; use grad_cam."
    )


def _maps(model, image, target, layer, method):
    """The subject, and maps and derivatives `(h, w, channels)`."""
    subject, pixels, target = look(model, image, target)
    subject.check_layers(method)
    path = subject.layer(pixels, target, layer)
    maps, gradients = subject.maps(pixels, target, path)
    if maps.ndim != 4:
        raise InputError(f"layer {path!r}: its output is {maps.shape}; expected feature maps.")
    return subject, maps[0], gradients[0]
