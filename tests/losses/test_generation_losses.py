"""Losses of VAEs and GANs, against PyTorch's values, Monte Carlo and finite differences."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import generation_inputs as given  # noqa: E402

import kerascv_d2l as d2l  # noqa: E402

pytestmark = pytest.mark.quick


def test_vae_loss_and_gradients_are_pytorch_s():
    x = given.vae()
    wanted = json.loads((RECORDING / "generation.json").read_text())["vae"]
    mean, log_variance = (tf.constant(x[k], tf.float32) for k in ("mean", "log_variance"))
    with tf.GradientTape() as tape:
        tape.watch([mean, log_variance])
        kl = d2l.gaussian_kl(mean, log_variance)
        bce = d2l.reconstruction_loss(x["targets"], x["logits"], "bce")
        loss = tf.reduce_mean(kl + bce)
    assert kl.shape == bce.shape == (3,)
    assert float(tf.reduce_sum(kl)) == pytest.approx(wanted["kl"], rel=1e-5)
    assert float(tf.reduce_sum(bce)) == pytest.approx(wanted["bce"], rel=1e-5)
    assert float(loss) == pytest.approx(wanted["loss"], rel=1e-5)
    gaussian = d2l.reconstruction_loss(x["targets"], x["logits"], "gaussian", given.STD)
    assert float(tf.reduce_sum(gaussian)) == pytest.approx(wanted["gaussian"], rel=1e-5)
    for gradient, name in zip(
        tape.gradient(loss, [mean, log_variance]),
        ("mean_gradient", "log_variance_gradient"),
        strict=True,
    ):
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-4, atol=1e-6)


def test_kl_is_what_monte_carlo_estimates():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    z = mean + np.exp(log_variance / 2) * rng.normal(size=(200_000, 2, 3))
    log_q = -0.5 * (log_variance + (z - mean) ** 2 / np.exp(log_variance))
    estimate = (log_q + 0.5 * z**2).sum(-1)  # (draws, 2); the constants cancel
    error = 4 * estimate.std(0) / np.sqrt(len(z))
    assert np.all(np.abs(d2l.gaussian_kl(mean, log_variance) - estimate.mean(0)) < error)
    closed = [
        d2l.kl_of_gaussians(m, np.diag(np.exp(v)), np.zeros(3), np.eye(3))
        for m, v in zip(mean, log_variance, strict=True)
    ]
    np.testing.assert_allclose(d2l.gaussian_kl(mean, log_variance), closed, rtol=1e-5)


def test_adversarial_losses_by_their_formulas():
    real, fake = np.array([0.5, -2.0, 30.0]), np.array([-0.3, 4.0, -30.0])
    d_real, d_fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    wanted = {
        "minimax": (-np.log(d_real) - np.log(1 - d_fake), np.log(1 - d_fake)),
        "non_saturating": (-np.log(d_real) - np.log(1 - d_fake), -np.log(d_fake)),
        "least_squares": (0.5 * (real - 1) ** 2 + 0.5 * fake**2, 0.5 * (fake - 1) ** 2),
        "hinge": (np.maximum(0, 1 - real) + np.maximum(0, 1 + fake), -fake),
        "wasserstein": (fake - real, -fake),
    }
    assert set(wanted) == set(d2l.ADVERSARIAL_LOSSES)
    for name, (discriminator, generator) in wanted.items():
        found = d2l.discriminator_loss(name, real, fake), d2l.generator_loss(name, fake)
        np.testing.assert_allclose(found[0], discriminator, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found[1], generator, rtol=1e-5, atol=1e-6, err_msg=name)
    with pytest.raises(d2l.InputError, match="loss is 'wgan'; wanted one of minimax"):
        d2l.generator_loss("wgan", fake)


def test_minimax_gradient_vanishes_where_the_discriminator_wins():
    scores = tf.constant([-20.0, 0.0])
    gradients = {}
    for name in ("minimax", "non_saturating"):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            loss = d2l.generator_loss(name, scores)
        gradients[name] = tape.gradient(loss, scores).numpy()
    np.testing.assert_allclose(gradients["minimax"], [0, -0.5], atol=1e-6)
    np.testing.assert_allclose(gradients["non_saturating"], [-1, -0.5], atol=1e-6)


def test_gradient_penalty_of_a_linear_critic():
    rng = np.random.default_rng(0)
    real, fake = (tf.constant(rng.normal(size=(4, 3, 2, 1)), tf.float32) for _ in range(2))
    weights = rng.normal(size=(3, 2, 1)).astype(np.float32)
    penalty = d2l.gradient_penalty(
        lambda x: tf.reduce_sum(x * weights, (1, 2, 3)), real, fake, tf.random.uniform((4,))
    )
    wanted = (np.sqrt((weights**2).sum()) - 1) ** 2
    np.testing.assert_allclose(penalty, np.full(4, wanted), rtol=1e-4)


def test_gradient_penalty_takes_arrays():
    real, fake = np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32)
    found = d2l.gradient_penalty(lambda x: tf.reduce_sum(x, -1), real, fake, [0.1, 0.5, 1.0])
    np.testing.assert_allclose(found, [1, 1, 1], rtol=1e-5)  # (2 - 1)²
