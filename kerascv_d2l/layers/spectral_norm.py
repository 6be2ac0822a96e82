"""Spectral normalisation, which bounds how fast the output of a discriminator can change."""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError

_WARM_UP = 15  # power iterations at the start, as PyTorch does
_LEAST = 1e-12  # of a norm that is divided by


@keras.saving.register_keras_serializable("kerascv_d2l")
class SpectralNormalization(keras.layers.Wrapper):
    """Divide the kernel of a linear layer by its largest singular value.

    One power iteration a training call follows that value; the vectors are kept. The gradient
    flows through the division, as in PyTorch. `keras.layers.SpectralNormalization` overwrites the
    kernel by the normalised one instead, so that its optimizer works on another quantity.

    What the layer gives is divided, which is the same: it has no bias of its own and no
    activation. The bias is added here.

    Args:
        layer: layer with a `kernel` whose last axis is that of the outputs, as `Conv2D` and
            `Dense`, made with `use_bias=False`.
        **kwargs: of `keras.layers.Wrapper`.

    Raises:
        InputError: if the layer has a bias or an activation.

    Source:
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks",
        algorithm 1; `torch.nn.utils.parametrizations.spectral_norm`.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        if getattr(layer, "use_bias", False) or (
            getattr(layer, "activation", keras.activations.linear) is not keras.activations.linear
        ):
            raise InputError(
                f"layer {layer.name} has a bias or an activation; wanted use_bias=False and none"
            )

    def build(self, input_shape=None):
        """Make the bias `(out,)` and the singular vectors `(out,)` and `(n,)`."""
        super().build(input_shape)
        matrix = self._matrix().numpy()  # (n, out)
        u = np.random.default_rng(0).normal(size=matrix.shape[1])
        for _ in range(_WARM_UP):
            v = matrix @ u
            v /= max(np.linalg.norm(v), _LEAST)
            u = v @ matrix
            u /= max(np.linalg.norm(u), _LEAST)
        options = {"trainable": False, "dtype": "float32", "autocast": False}
        for name, value in (("u", u), ("v", v)):
            start = keras.initializers.Constant(value.astype(np.float32))
            setattr(self, name, self.add_weight(value.shape, start, name=name, **options))
        self.bias = self.add_weight((len(u),), "zeros", name="bias")

    def _matrix(self):
        kernel = tf.convert_to_tensor(self.layer.kernel)
        return tf.reshape(tf.cast(kernel, tf.float32), [-1, kernel.shape[-1]])  # (n, out)

    def call(self, inputs, training=None):
        """Call the layer with the normalised kernel."""
        matrix = self._matrix()
        u, v = tf.convert_to_tensor(self.u), tf.convert_to_tensor(self.v)
        if training:
            fixed = tf.stop_gradient(matrix)
            u = tf.math.l2_normalize(tf.linalg.matvec(fixed, v, transpose_a=True), epsilon=_LEAST)
            v = tf.math.l2_normalize(tf.linalg.matvec(fixed, u), epsilon=_LEAST)
            self.u.assign(u)
            self.v.assign(v)
        norm = tf.tensordot(v, tf.linalg.matvec(matrix, u), 1)
        outputs = self.layer(inputs)
        return outputs / tf.cast(norm, outputs.dtype) + tf.cast(self.bias, outputs.dtype)

    def compute_output_shape(self, input_shape):
        """Give the layer's."""
        return self.layer.compute_output_shape(input_shape)
