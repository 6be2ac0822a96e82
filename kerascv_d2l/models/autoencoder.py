"""Autoencoders: images to short codes and back, and codes drawn at random."""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.losses.generation import (
    RECONSTRUCTION_LOSSES,
    check_loss,
    gaussian_kl,
    reconstruction_loss,
)
from kerascv_d2l.models.common import dtype_scope
from kerascv_d2l.models.generator import ImageGenerator, decoder, encoder
from kerascv_d2l.ops.geometry import ALGORITHM


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class Autoencoder(ImageGenerator):
    """An encoder and a decoder, trained to give an image back from its code.

    `fit` takes batches of images, pixels 0-255, without targets. Codes follow no known
    distribution: `fit_prior` measures one to draw from.

    Args:
        image_size: int or `(height, width)`, pixels, multiples of 16.
        channels: int, 3 or 1.
        latent_size: int, length of a code.
        width: int, channels of the largest feature map.
        loss: "bce" or "gaussian", see `reconstruction_loss`.
        std: float, the standard deviation for "gaussian".
        dtype: policy of the layers; None for Keras' global one.
        name: str.

    Attributes:
        encoder: `keras.Model` from images, values -1 to 1, to codes (a VAE's: means and
            logarithms of variances).
        decoder: `keras.Model` from codes to logits or means.
        Others are those of `ImageGenerator`.

    Raises:
        InputError: if an argument is out of range.
    """

    code_parts = 1  # outputs of the encoder for each number of a code

    def __init__(
        self,
        image_size=(32, 32),
        channels=3,
        latent_size=64,
        width=32,
        loss="bce",
        std=0.1,
        dtype=None,
        name=None,
        **kwargs,
    ):
        with dtype_scope(dtype) as policy:
            super().__init__(
                image_size, channels, latent_size, width, dtype=policy, name=name, **kwargs
            )
            self.reconstruction = check_loss(loss, RECONSTRUCTION_LOSSES)
            if not std > 0:
                raise InputError(f"std is {std}; wanted a number greater than 0")
            self.std = std
            self.encoder, self.decoder = self.make_networks()
        self._trackers = {name: keras.metrics.Mean(name=name) for name in self.losses_by_name}
        self._prior = {
            "mean": self.add_weight((latent_size,), "zeros", trainable=False, name="prior_mean"),
            "factor": self.add_weight(
                (latent_size, latent_size),
                lambda shape, dtype=None: tf.eye(*shape, dtype=dtype),
                trainable=False,
                name="prior_factor",
            ),
        }
        self.built = True

    losses_by_name = ("reconstruction_loss",)  # parts of the loss, as they are logged

    def make_networks(self):
        """Make the encoder and the decoder; others in a subclass need not be convolutional."""
        outputs = self.code_parts * self.latent_size
        return (
            encoder(self.image_size, self.channels, self.width, outputs),
            decoder(self.image_size, self.channels, self.width, self.latent_size),
        )

    def call(self, images, training=False):
        """Encode and decode.

        Args:
            images: `(batch, h, w, 3 or 1)`, pixels 0-255.
            training: bool.

        Returns:
            dict: `outputs`, float32 `(batch, height, width, channels)`, the decoder's; and
            `codes`, float32 `(batch, latent_size)`.
        """
        codes = self.encoder(2 * self.shares(images) - 1, training=training)
        return {"outputs": self.decoder(codes, training=training), "codes": codes}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean loss of images `x`; targets are the images themselves.

        Args:
            x: `(batch, h, w, 3 or 1)`, pixels 0-255.
            y: unused.
            y_pred: what `call` gave.
            sample_weight: unused.
            training: unused.

        Returns:
            float32 scalar: this device's share of the loss, which `fit` adds up.
        """
        parts = self.loss_parts(self.shares(x), y_pred)
        for name, values in parts.items():
            self._trackers[name].update_state(values)
        total = tf.reduce_mean(self.weigh(parts))
        return total / tf.distribute.get_strategy().num_replicas_in_sync

    def loss_parts(self, shares, answer):
        """Parts of the loss of each image, by name: dict of float32 `(batch,)`.

        Args:
            shares: float `(batch, height, width, channels)`, values 0-1.
            answer: what `call` gave.
        """
        values = reconstruction_loss(shares, answer["outputs"], self.reconstruction, self.std)
        return {"reconstruction_loss": values}

    def weigh(self, parts):
        """Sum of the parts of the loss, float32 `(batch,)`."""
        return parts["reconstruction_loss"]

    def _images_of(self, codes, training):
        outputs = self.decoder(codes, training=training)
        return tf.sigmoid(outputs) if self.reconstruction == "bce" else outputs

    def encode(self, images):
        """Encode images of any size.

        Args:
            images: `(batch, h, w, 3 or 1)`, pixels 0-255, uint8 or float.

        Returns:
            dict: `codes`, float32 `(batch, latent_size)`; a VAE's are the means.
        """
        return {"codes": self(images, training=False)["codes"]}

    def reconstruct(self, images):
        """Encode images and decode them again: `images`, uint8, as `decode`."""
        return self.decode(self.encode(images)["codes"])

    def fit_prior(self, batches):
        """Measure mean and covariance of the codes of images, from which `sample` then draws.

        Args:
            batches: finite iterable of images `(batch, h, w, 3 or 1)`, pixels 0-255.
        """
        call = tf.function(self.encode, reduce_retracing=True, autograph=False)
        codes = np.concatenate([call(images)["codes"] for images in batches]).astype(np.float64)
        covariance = np.atleast_2d(np.cov(codes, rowvar=False)) if len(codes) > 1 else 0.0
        # As few images as codes are long leave directions without variance.
        covariance = covariance + 1e-6 * np.eye(self.latent_size)
        self._prior["mean"].assign(codes.mean(0))
        self._prior["factor"].assign(np.linalg.cholesky(covariance))

    def _codes_of(self, noise):
        factor = tf.convert_to_tensor(self._prior["factor"])
        return self._prior["mean"] + tf.matmul(noise, factor, transpose_b=True)

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {"loss": self.reconstruction, "std": self.std}


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class VAE(Autoencoder):
    """A variational autoencoder: codes follow the standard normal distribution.

    The loss is the negative evidence lower bound, with the KL term weighed by `beta`. In
    training a code is drawn from what the encoder gives; elsewhere it is the mean.

    Args:
        beta: float >= 0.
        **kwargs: of `Autoencoder`.

    Raises:
        InputError: if an argument is out of range.

    Source:
        Kingma, Welling: Auto-Encoding Variational Bayes (2014); Higgins et al.: beta-VAE (2017).
    """

    code_parts = 2
    losses_by_name = ("reconstruction_loss", "kl_loss")

    def __init__(self, *args, beta=1.0, **kwargs):
        if not beta >= 0:
            raise InputError(f"beta is {beta}; wanted a number of at least 0")
        super().__init__(*args, **kwargs)
        self.beta = beta

    def call(self, images, training=False):
        """Encode, draw codes if `training`, and decode.

        Args:
            images: `(batch, h, w, 3 or 1)`, pixels 0-255.
            training: bool.

        Returns:
            dict as `Autoencoder.call`, with `mean` and `log_variance`, float32 `(batch,
            latent_size)`, and with `codes` the means outside of training.
        """
        answer = self.encoder(2 * self.shares(images) - 1, training=training)
        mean, log_variance = tf.split(answer, 2, axis=-1)  # (batch, latent_size) each
        codes = mean
        if training:
            codes += tf.exp(0.5 * log_variance) * self.draw_codes(tf.shape(mean)[0])
        outputs = self.decoder(codes, training=training)
        return {"outputs": outputs, "codes": codes, "mean": mean, "log_variance": log_variance}

    def loss_parts(self, shares, answer):
        """Reconstruction and KL divergence of each image; see `Autoencoder.loss_parts`."""
        kl = gaussian_kl(answer["mean"], answer["log_variance"])
        return super().loss_parts(shares, answer) | {"kl_loss": kl}

    def weigh(self, parts):
        """Sum of the parts of the loss, float32 `(batch,)`."""
        return parts["reconstruction_loss"] + self.beta * parts["kl_loss"]

    def bound(self, images, samples=1, seed=0):
        """Evidence lower bound of each image's log-likelihood, with random codes.

        The noise of a training goes on as if nothing had been measured.

        Args:
            images: `(batch, h, w, 3 or 1)`, pixels 0-255.
            samples: int, codes drawn for each image, whose mean is taken.
            seed: int; the same seed draws the same codes.

        Returns:
            float32 `(batch,)`, nats, for values 0-1.
        """
        shares = self.shares(images)
        mean, log_variance = tf.split(self.encoder(2 * shares - 1, training=False), 2, axis=-1)
        total = -gaussian_kl(mean, log_variance)
        for i in range(samples):
            noise = tf.random.stateless_normal(tf.shape(mean), (seed, i), alg=ALGORITHM)
            noise *= tf.exp(0.5 * log_variance)
            outputs = self.decoder(mean + noise, training=False)
            total -= reconstruction_loss(shares, outputs, self.reconstruction, self.std) / samples
        return total

    def _codes_of(self, noise):
        return noise

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {"beta": self.beta}
