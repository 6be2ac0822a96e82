"""Losses of models that generate images: of autoencoders, of VAEs and of GANs.

All of them give a value for each image; reconstructions are summed over pixels. A mean over
pixels would make the KL term weigh as much more as there are pixels, and the code would vanish.
"""

import math

import tensorflow as tf

from kerascv_d2l.errors import InputError

RECONSTRUCTION_LOSSES = ("bce", "gaussian")
ADVERSARIAL_LOSSES = ("minimax", "non_saturating", "least_squares", "hinge", "wasserstein")


def gaussian_kl(mean, log_variance):
    """KL divergence of diagonal Gaussians from the standard normal distribution.

    Args:
        mean: float `(batch, d)`.
        log_variance: float `(batch, d)`, natural logarithm.

    Returns:
        float32 `(batch,)`, nats.

    Source:
        Kingma, Welling: Auto-Encoding Variational Bayes (2014), appendix B.
    """
    mean, log_variance = tf.cast(mean, tf.float32), tf.cast(log_variance, tf.float32)
    terms = 1 + log_variance - tf.square(mean) - tf.exp(log_variance)  # (batch, d)
    return -0.5 * tf.reduce_sum(terms, -1)


def reconstruction_loss(targets, outputs, loss="bce", std=1.0):
    """Negative log-likelihood of images, summed over pixels and channels.

    Args:
        targets: float `(batch, h, w, channels)`, values 0-1.
        outputs: float, the same shape, what a decoder gives: for `"bce"` logits, for
            `"gaussian"` the mean of each value.
        loss: `"bce"`: binary cross-entropy, each value taken for a probability; or `"gaussian"`:
            of a normal distribution around the output.
        std: float > 0, the standard deviation for `"gaussian"`.

    Returns:
        float32 `(batch,)`, nats.

    Raises:
        InputError: if the loss is unknown.
    """
    targets, outputs = tf.cast(targets, tf.float32), tf.cast(outputs, tf.float32)
    if check_loss(loss, RECONSTRUCTION_LOSSES) == "bce":
        values = tf.nn.sigmoid_cross_entropy_with_logits(targets, outputs)
    else:
        constant = math.log(std) + 0.5 * math.log(2 * math.pi)
        values = 0.5 * tf.square((targets - outputs) / std) + constant
    return tf.reduce_sum(values, list(range(1, values.shape.rank)))


def discriminator_loss(loss, real, fake):
    """What the discriminator of a GAN minimises.

    Args:
        loss: one of `ADVERSARIAL_LOSSES`; the first two are the same here.
        real: float `(batch,)`, its scores (logits) of real images.
        fake: float `(batch,)`, its scores of generated ones.

    Returns:
        float32 `(batch,)`.

    Raises:
        InputError: if the loss is unknown.

    Source:
        Goodfellow et al. 2014, "Generative Adversarial Nets"; Mao et al. 2017, "Least Squares
        GANs"; Lim, Ye 2017, "Geometric GAN" (hinge); Arjovsky et al. 2017, "Wasserstein GAN".
    """
    real, fake = tf.cast(real, tf.float32), tf.cast(fake, tf.float32)
    if check_loss(loss, ADVERSARIAL_LOSSES) in ("minimax", "non_saturating"):
        return tf.nn.softplus(-real) + tf.nn.softplus(fake)
    if loss == "least_squares":
        return 0.5 * (tf.square(real - 1) + tf.square(fake))
    if loss == "hinge":
        return tf.nn.relu(1 - real) + tf.nn.relu(1 + fake)
    return fake - real


def generator_loss(loss, fake):
    """What the generator of a GAN minimises.

    `"minimax"` is log(1 - D): where the discriminator is sure, its gradient vanishes.
    `"non_saturating"` is -log D, whose gradient is then largest.

    Args:
        loss: one of `ADVERSARIAL_LOSSES`.
        fake: float `(batch,)`, the discriminator's scores (logits) of generated images.

    Returns:
        float32 `(batch,)`.

    Raises:
        InputError: if the loss is unknown.
    """
    fake = tf.cast(fake, tf.float32)
    if check_loss(loss, ADVERSARIAL_LOSSES) == "minimax":
        return -tf.nn.softplus(fake)
    if loss == "non_saturating":
        return tf.nn.softplus(-fake)
    return 0.5 * tf.square(fake - 1) if loss == "least_squares" else -fake


def gradient_penalty(critic, real, fake, shares):
    """How far the norm of a critic's gradient is from 1 between real and generated images.

    Args:
        critic: function from images to scores `(batch,)`.
        real: float `(batch, …)`.
        fake: float `(batch, …)`.
        shares: float `(batch,)` in [0, 1]: where between them.

    Returns:
        float32 `(batch,)`, the square of the norm's distance from 1.

    Source:
        Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3.
    """
    real, fake = tf.convert_to_tensor(real), tf.convert_to_tensor(fake)
    shares = tf.reshape(shares, [-1] + [1] * (real.shape.rank - 1))
    between = real + shares * (fake - real)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = critic(between)
    gradients = tf.cast(tape.gradient(scores, between), tf.float32)
    squares = tf.reduce_sum(tf.square(gradients), list(range(1, real.shape.rank)))  # (batch,)
    return tf.square(tf.sqrt(squares + 1e-12) - 1)


def check_loss(loss, known):
    """Return `loss` if it is among `known`, else raise `InputError`."""
    if loss not in known:
        raise InputError(f"loss is {loss!r}; wanted one of {', '.join(known)}")
    return loss
