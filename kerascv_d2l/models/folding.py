"""Frozen batch norms, computed in training as part of the convolutions before them."""

import collections
import math

import keras
import tensorflow as tf
from keras.src.backend.common.variables import AutocastScope  # guarded by the pin of Keras' version
from keras.src.models.functional import operation_fn, unpack_singleton

from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.layers.depthwise import DepthwiseConv2D

# Of a larger kernel the scaled copy takes more memory than the map that is saved.
_LARGEST_KERNEL = 2**18  # numbers


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class FoldingModel(keras.Model):
    """A functional model that, in training, folds frozen batch norms into convolutions.

    Made from inputs and outputs as `keras.Model` is, with the same layers, weights and results.
    A frozen batch norm is a scale and an offset of each channel. Where it is the only reader of a
    convolution, the kernel is scaled instead of the map (or the map, if the kernel is large). The
    backward pass then needs no map from before the batch norm and no pass over it, and TensorFlow
    fuses convolution, offset and ReLU. Without training it does so by itself, so this is Keras'
    own code there. What is frozen is looked up when the step is traced.
    """

    def call(self, inputs, training=None, mask=None):
        folded = _folded(self) if training and mask is None else {}
        if not folded:
            return super().call(inputs, training=training, mask=mask)
        outputs = self._run_through_graph(
            self._standardize_inputs(inputs),
            lambda layer: folded.get(id(layer)) or operation_fn(layer, training=training),
        )
        return unpack_singleton(outputs)


def _folded(model):
    """What stands for layers in training: dict of the id of a layer to a function."""
    nodes = [n for nodes in model._nodes_by_depth.values() for n in nodes if not n.is_input]
    calls = collections.Counter(id(node.operation) for node in nodes)
    readers = collections.Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers.update(map(id, model.outputs))
    found = {}
    for node in nodes:
        norm = node.operation
        if not _is_frozen(norm) or calls[id(norm)] > 1:
            continue
        (tensor,) = node.input_tensors
        layer = tensor._keras_history.operation
        if readers[id(tensor)] == calls[id(layer)] == 1 and _is_linear(layer):
            found[id(layer)] = _convolution(layer, norm)
            found[id(norm)] = lambda x, **_: x
    return found


def _is_frozen(layer):
    norm = isinstance(layer, keras.layers.BatchNormalization)
    return norm and not layer.trainable and layer.axis in (-1, 3)


def _is_linear(layer):
    kinds = (keras.layers.Conv2D, Conv2D, keras.layers.DepthwiseConv2D, DepthwiseConv2D)
    return type(layer) in kinds and layer.activation is keras.activations.linear


def _convolution(layer, norm):
    """A function that does what a convolution and the frozen batch norm behind it do."""

    def convolve(x):
        with AutocastScope(None):  # in float32 also under mixed precision
            scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)  # (channels,)
            scale = scale if norm.gamma is None else scale * norm.gamma
            offset = -norm.moving_mean * scale
            offset = tf.stop_gradient(offset if norm.beta is None else offset + norm.beta)
            scale = tf.stop_gradient(scale)
            # Of a depthwise kernel the last two axes make up the channels.
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            of_kernel = tf.reshape(scale, layer.kernel.shape[2:]) if depthwise else scale
            values = []
            if math.prod(layer.kernel.shape) <= _LARGEST_KERNEL:
                values.append((layer.kernel, layer.kernel * of_kernel))
                if layer.use_bias:
                    values.append((layer.bias, layer.bias * scale))
            folded = keras.StatelessScope(values, initialize_variables=False)
        with folded:
            y = layer(x)
        if not values:
            y *= tf.cast(scale, y.dtype)
        return tf.nn.bias_add(y, tf.cast(offset, y.dtype))

    return convolve
