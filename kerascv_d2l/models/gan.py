"""Generative adversarial networks."""

import keras
import tensorflow as tf

from kerascv_d2l.devices import replica_slice
from kerascv_d2l.losses.generation import (
    ADVERSARIAL_LOSSES,
    check_loss,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from kerascv_d2l.models.common import dtype_scope
from kerascv_d2l.models.generator import ImageGenerator, decoder, encoder
from kerascv_d2l.ops.geometry import ALGORITHM

PENALTY = 10.0  # weight of the gradient penalty: Gulrajani et al. 2017


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class GAN(ImageGenerator):
    """A generator and a discriminator that train against each other, of DCGAN's form.

    `compile` takes an optimizer for each, and `fit` batches of images, pixels 0-255, without
    targets. A step moves the discriminator, then the generator by the new discriminator.

    Args:
        image_size: int or `(height, width)`, pixels, multiples of 16.
        channels: int, 3 or 1.
        latent_size: int, length of a code, which is standard normal noise.
        width: int, channels of the largest feature map of both networks.
        loss: one of `ADVERSARIAL_LOSSES`; "wasserstein" comes with the gradient penalty.
        normalization: of the discriminator: "spectral", "batch" (DCGAN's; real and generated
            images are then normalised apart) or "none".
        dtype: policy of the layers; None for Keras' global one.
        name: str.

    Attributes:
        generator: `keras.Model` from codes to logits of pixels, of which the hyperbolic tangent
            is taken.
        discriminator: `keras.Model` from images, values -1 to 1, to scores `(batch, 1)`.
        discriminator_optimizer: the second optimizer.
        Others are those of `ImageGenerator`.

    Raises:
        InputError: if an argument is out of range.

    Source:
        Goodfellow et al. 2014; Radford, Metz, Chintala 2016 (DCGAN); Miyato et al. 2018
        (spectral normalisation).
    """

    def __init__(
        self,
        image_size=(32, 32),
        channels=3,
        latent_size=64,
        width=32,
        loss="non_saturating",
        normalization="spectral",
        dtype=None,
        name=None,
        **kwargs,
    ):
        with dtype_scope(dtype) as policy:
            super().__init__(
                image_size, channels, latent_size, width, dtype=policy, name=name, **kwargs
            )
            self.adversarial = check_loss(loss, ADVERSARIAL_LOSSES)
            self.normalization = normalization
            self.generator, self.discriminator = self.make_networks()
        names = ["discriminator_loss", "generator_loss", "real_score", "fake_score"]
        names += ["gradient_penalty"] * (loss == "wasserstein")
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def make_networks(self):
        """Make generator and discriminator; others in a subclass need not be convolutional."""
        size = self.image_size, self.channels, self.width
        return (
            decoder(*size, self.latent_size, name="generator"),
            encoder(*size, 1, self.normalization, name="discriminator"),
        )

    def compile(self, optimizer=None, discriminator_optimizer=None, **kwargs):
        """Say how both are trained.

        Args:
            optimizer: `keras.optimizers.Optimizer` of the generator; None for DCGAN's Adam.
            discriminator_optimizer: that of the discriminator; likewise.
            **kwargs: of `keras.Model.compile`.
        """
        optimizer = optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        other = discriminator_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        super().compile(optimizer, **kwargs)
        if self.optimizer is not optimizer:  # Keras scales the loss, in float16
            other = keras.optimizers.LossScaleOptimizer(other)
        self.discriminator_optimizer = other
        self.optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    def get_compile_config(self):
        """Give nothing: a loaded model is compiled anew."""
        return None

    def call(self, codes, training=False):
        """Generate images, float32 `(batch, height, width, channels)`, values 0-1."""
        return self._images_of(codes, training)

    def _images_of(self, codes, training):
        return 0.5 + 0.5 * tf.tanh(self.generator(codes, training=training))

    def train_step(self, data):
        """Move the discriminator, then the generator.

        Args:
            data: images `(batch, h, w, 3 or 1)`, pixels 0-255; of targets there are none.

        Returns:
            dict of the means since the epoch began: both losses, and the scores of real and of
            generated images.
        """
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        real = 2 * self.shares(images) - 1
        codes = self.draw_codes(tf.shape(real)[0])
        with tf.GradientTape() as tape:
            fake = 2 * self._images_of(codes, True) - 1
            with tape.stop_recording():
                self._train_discriminator(real, fake)
            # One step of spectral normalisation is one power iteration: the one above.
            scores = self._scores(fake, training=self.normalization == "batch")
            losses = generator_loss(self.adversarial, scores)
            loss = self.optimizer.scale_loss(_share(losses))
        variables = self.generator.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self._trackers["generator_loss"].update_state(losses)
        return {name: tracker.result() for name, tracker in self._trackers.items()}

    def _train_discriminator(self, real, fake):
        found = {}
        with tf.GradientTape() as tape:
            if self.normalization == "batch":
                scores = self._scores(real, training=True), self._scores(fake, training=True)
            else:  # the same in one call
                both = self._scores(tf.concat([real, fake], 0), training=True)
                scores = tf.split(both, 2)
            found["real_score"], found["fake_score"] = scores
            losses = discriminator_loss(self.adversarial, *scores)
            found["discriminator_loss"] = losses
            if self.adversarial == "wasserstein":
                found["gradient_penalty"] = self._penalty(real, fake)
                losses += PENALTY * found["gradient_penalty"]
            loss = self.discriminator_optimizer.scale_loss(_share(losses))
        variables = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply(tape.gradient(loss, variables), variables)
        for name, values in found.items():
            self._trackers[name].update_state(values)

    def _penalty(self, real, fake):
        seed = tf.cast(self.noise.next(), tf.int32)
        shares = replica_slice(
            lambda total: tf.random.stateless_uniform((total,), seed, alg=ALGORITHM),
            tf.shape(real)[0],
        )
        # Batch norm would mix the images; the paper leaves it out as well.
        return gradient_penalty(lambda x: self._scores(x, training=False), real, fake, shares)

    def _scores(self, images, training):
        """Scores float32 `(batch,)`."""
        return tf.cast(self.discriminator(images, training=training), tf.float32)[:, 0]

    def get_config(self):
        """Give the arguments of the constructor."""
        settings = {"loss": self.adversarial, "normalization": self.normalization}
        return super().get_config() | settings


def _share(losses):
    """This device's share of a mean loss: the optimizer adds up the gradients of all devices."""
    return tf.reduce_mean(losses) / tf.distribute.get_strategy().num_replicas_in_sync
