"""A classifier on all windows of a larger image in one pass: its dense layers as convolutions."""

import math

import keras
import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.checks import as_image_size

_layers = keras.layers
_POOLS = {
    _layers.GlobalAveragePooling2D: _layers.AveragePooling2D,
    _layers.GlobalMaxPooling2D: _layers.MaxPooling2D,
}
# What stays as it is behind the last feature map: the same at every place.
_POINTWISE = (_layers.Activation, _layers.Dropout, _layers.ReLU)


class SlidingClassifier:
    """A classifier whose answer is a map, with an element for each window of the image.

    A global mean becomes a mean over as many cells as a window has, a dense layer behind a
    flattened map a convolution of the map's size, every other dense layer one of 1 x 1. The layers
    below are the classifier's own, so that windows share what they have in common.

    **What is equal**: element `(i, j)` belongs to the window whose upper left corner is at
    `(i, j) * stride` pixels. If no layer pads, it is the answer of the classifier to this window,
    value for value. If layers pad, the classifier sees zeros around the window where one pass
    sees the image. The element is then equal to that of a smaller image: the window with
    `context` pixels more on each side, or up to the border of the image, where both pad, as long
    as the sides of the image are multiples of `stride`. `context` is 0 where no layer pads.

    Args:
        model: `keras.Model`, functional or Sequential, from `(batch, height, width, 3)` to logits
            or probabilities `(batch, classes)`: `Classifier`, `imagenet_classifier`; or a
            `Localizer`. A softmax at its end is left out.
        window: `(height, width)`, pixels; None for the model's `image_size` or input size.

    Attributes:
        model: `keras.Model` from `(batch, height, width, 3)` to a map of logits; of a
            `Localizer` to a dict of maps.
        window: `(height, width)`, pixels.
        stride: int, pixels from one window to the next.
        context: int, pixels; see above.

    Raises:
        InputError: if the model ends otherwise, one of its layers looks at the whole image at
            every place (as squeeze-and-excitation does), or no window size is known.

    Source:
        Sermanet et al. 2013, "OverFeat", section 3.5.
    """

    def __init__(self, model, window=None):
        window = window or getattr(model, "image_size", None) or _input_size(model)
        self.window = as_image_size(window)
        output = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
        outputs = output if isinstance(output, dict) else {"": output}
        tails = {name: _tail(output) for name, output in outputs.items()}
        body = keras.Model(model.inputs[0], [features for features, _ in tails.values()])
        field, self.stride, padded = _field(body)
        self.context = (1 + math.ceil(field / 2 / self.stride)) * self.stride if padded else 0
        pixels = keras.Input((None, None, 3), name="pixels")
        # The same layers on an input of another size.
        body = keras.models.clone_model(body, pixels, clone_function=lambda layer: layer)
        shapes = body.compute_output_shape((1, *self.window, 3))
        maps, shapes = keras.tree.flatten(body.output), np.reshape(shapes, (-1, 4))
        found = {
            name: _slide(features, tuple(map(int, shape[1:3])), layers)
            for (name, (_, layers)), features, shape in zip(
                tails.items(), maps, shapes, strict=True
            )
        }
        self.model = keras.Model(pixels, found if isinstance(output, dict) else found[""])

    def __call__(self, images):
        """Classify all windows.

        Args:
            images: pixels as the model takes them `(batch, height, width, 3)`, at least as large
                as a window.

        Returns:
            float32 `(batch, rows, columns, classes)`, logits; of a `Localizer` a dict of these
            and `boxes` `(batch, rows, columns, 4)`, normalised corners in each window (as many
            times 4 as the model gives).
        """
        return self.model(images, training=False)

    def corners(self, shape):
        """Give the upper left corners of the windows, int `(rows, columns, 2)`: top, left.

        Args:
            shape: `(rows, columns)` of a map.
        """
        return np.stack(np.indices(shape), axis=-1) * self.stride


def _input_size(model):
    shape = model.input_shape
    if not isinstance(shape[1], int):
        raise InputError("window is missing: the model takes images of any size.")
    return shape[1:3]


def _tail(output):
    """The last feature map of a classifier, and the layers behind it, the first one first."""
    layers = []
    while True:
        operation = output._keras_history.operation
        inputs = operation.input
        boundary = isinstance(operation, (*_POOLS, _layers.Flatten, _layers.Reshape))
        single = not isinstance(inputs, (list, tuple))
        if not single or isinstance(operation, (keras.Model, _layers.InputLayer)):
            raise InputError(
                "the model does not end in a global mean or a flattened map and dense layers: "
                f"{operation.name} stands among them."
            )
        layers.insert(0, operation)
        output = inputs
        if boundary and len(inputs.shape) == 4 and inputs.shape[1:3] != (1, 1):
            return inputs, layers


def _slide(x, cells, layers):
    """Apply the layers of a tail at every place of a map; `cells`: of one window, (h, w)."""
    kernel = (1, 1)
    for layer in layers:
        if type(layer) in _POOLS:
            pool = _POOLS[type(layer)](cells, strides=1, padding="valid", dtype=layer.dtype_policy)
            x = pool(x)
        elif isinstance(layer, (_layers.Flatten, _layers.Reshape)):
            if layer is layers[0]:
                kernel = cells  # of the dense layer that follows
        elif isinstance(layer, _layers.Dense):
            x, kernel = _as_convolution(layer, kernel, x), (1, 1)
        elif isinstance(layer, _layers.Conv2D) and layer.kernel_size == (1, 1):
            x = layer(x)
        elif isinstance(layer, _layers.Softmax) or _is_softmax(layer):
            pass
        elif isinstance(layer, _POINTWISE):
            x = layer(x)
        else:
            raise InputError(f"the layer {layer.name} cannot slide over an image.")
    return x


def _as_convolution(dense, kernel, x):
    weights = dense.get_weights()
    activation = None if _is_softmax(dense) else dense.activation
    convolution = _layers.Conv2D(
        dense.units, kernel, use_bias=dense.use_bias, activation=activation, name=dense.name,
        dtype=dense.dtype_policy,
    )  # fmt: skip
    x = convolution(x)
    convolution.set_weights([weights[0].reshape(convolution.kernel.shape), *weights[1:]])
    return x


def _is_softmax(layer):
    return getattr(layer, "activation", None) is keras.activations.softmax


def _field(model, start=(1, 1)):
    """Receptive field and stride of the outputs, pixels, and whether a layer pads.

    The field is that of one cell. Padding shifts it; it does not change its size.
    """
    known = {id(tensor): start for tensor in model.inputs}
    padded = False
    for operation in model.operations:
        if isinstance(operation, _layers.InputLayer):
            continue
        given = [known[id(t)] for t in keras.tree.flatten(operation.input) if id(t) in known]
        size, stride = max(g[0] for g in given), max(g[1] for g in given)
        if isinstance(operation, (*_POOLS, _layers.Flatten)):
            raise InputError(
                f"{operation.name} looks at the whole image at every place: no window is equal."
            )
        if isinstance(operation, keras.Model):
            size, stride, pads = _field(operation, (size, stride))
            padded |= pads
        else:
            kernel = getattr(operation, "kernel_size", getattr(operation, "pool_size", (1, 1)))
            dilation = getattr(operation, "dilation_rate", (1, 1))
            size += max((k - 1) * _pair(dilation)[i] for i, k in enumerate(kernel)) * stride
            stride *= max(_pair(getattr(operation, "strides", (1, 1))))
            padded |= isinstance(operation, _layers.ZeroPadding2D)
            padded |= getattr(operation, "padding", "valid") == "same" and max(kernel) > 1
        for tensor in keras.tree.flatten(operation.output):
            known[id(tensor)] = (size, stride)
    ends = [known[id(tensor)] for tensor in model.outputs]
    return max(e[0] for e in ends), max(e[1] for e in ends), padded


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)
