"""Autoencoder, VAE and GAN as Keras models; two devices are in test_replicas.py."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import kerascv_d2l as d2l

SMALL = {"image_size": (16, 32), "latent_size": 4, "width": 4}


def images(count=16, size=(16, 32)):
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3)).astype("float32")


def compiled(kind, **settings):
    model = kind(**SMALL | settings)
    if kind is d2l.GAN:
        model.compile(*(keras.optimizers.Adam(1e-3, 0.5) for _ in range(2)), jit_compile=False)
    else:
        model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    return model


class LinearVAE(d2l.VAE):
    """Encoder and decoder without nonlinearity: the posterior of linear Gaussian data."""

    def make_networks(self):
        pixels, codes = keras.Input((*self.image_size, self.channels)), keras.Input((2,))
        flat = keras.layers.Flatten()(pixels)
        start = keras.initializers.Constant(-3.0)
        answer = keras.layers.Concatenate()(
            [keras.layers.Dense(2)(flat), keras.layers.Dense(2, bias_initializer=start)(flat)]
        )
        shape = (*self.image_size, self.channels)
        back = keras.layers.Reshape(shape)(keras.layers.Dense(int(np.prod(shape)))(codes))
        return keras.Model(pixels, answer), keras.Model(codes, back)


def test_bound_of_linear_gaussian_data_is_the_exact_likelihood():
    rng, std = np.random.default_rng(0), 0.05
    mixing = 0.2 * rng.normal(size=(2, 6))
    shares = 0.5 + rng.normal(size=(2000, 2)) @ mixing + std * rng.normal(size=(2000, 6))
    exact = scipy.stats.multivariate_normal(
        np.full(6, 0.5), mixing.T @ mixing + std**2 * np.eye(6)
    ).logpdf(shares)
    pixels = (255 * shares).reshape(-1, 2, 3, 1).astype("float32")
    model = LinearVAE((2, 3), 1, 2, 1, loss="gaussian", std=std)
    steps = 1500
    rate = keras.optimizers.schedules.CosineDecay(5e-2, steps)
    model.compile(keras.optimizers.Adam(rate), jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices(pixels).shuffle(2000, 1).repeat().batch(100)
    model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
    bound = float(tf.reduce_mean(model.bound(pixels, samples=20)))
    assert bound == pytest.approx(exact.mean(), rel=0.01)
    assert bound <= exact.mean() + 0.03  # what fitting 2000 images may gain


def test_an_autoencoder_draws_from_the_codes_it_has_seen():
    model = d2l.Autoencoder((16, 16), 3, 4, 2)
    pixels = images(60, (16, 16))
    model.fit_prior([pixels[:20], pixels[20:]])
    codes, drawn = model.encode(pixels)["codes"].numpy(), model.sample(4000)["codes"].numpy()
    np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=0.1 * codes.std())
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), atol=0.1 * codes.var())


def test_measuring_a_bound_leaves_the_noise_of_a_training_alone():
    model = compiled(d2l.VAE)
    before = model.noise.state.numpy()
    bounds = [model.bound(images(3), samples=2, seed=seed).numpy() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(model.noise.state, before)
    np.testing.assert_array_equal(bounds[0], bounds[1])
    assert (bounds[0] != bounds[2]).all()


def test_parts_of_the_vae_loss():
    model = compiled(d2l.VAE, beta=0.5)
    logs = model.evaluate(images(), batch_size=16, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["reconstruction_loss"] + 0.5 * logs["kl_loss"])
    answer = model(images(), training=False)
    shares = images() / 255
    wanted = d2l.reconstruction_loss(shares, answer["outputs"]).numpy().mean()
    assert logs["reconstruction_loss"] == pytest.approx(wanted, rel=1e-5)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        (d2l.GAN, "mixed_bfloat16"),
        pytest.param(d2l.GAN, "mixed_float16", marks=LONG),
        pytest.param(d2l.VAE, "mixed_bfloat16", marks=LONG),
        pytest.param(d2l.VAE, "mixed_float16", marks=LONG),
    ],
)
def test_half_precision_computes_nearly_the_same(kind, policy):
    histories = []
    for dtype in ("float32", policy):
        keras.utils.set_random_seed(0)
        model = compiled(kind, dtype=dtype)
        logs = model.fit(images(), batch_size=8, epochs=8, verbose=0, shuffle=False).history
        names = ("loss",) if kind is d2l.VAE else ("discriminator_loss", "generator_loss")
        histories.append([logs[name] for name in names])
        assert all(v.dtype == "float32" for v in model.trainable_variables)
    one, other = map(np.array, histories)
    assert np.isfinite(other).all()
    # In float16 the first steps only find the scale of the loss.
    np.testing.assert_allclose(other, one, rtol=0.02, atol=0.02)
    optimizers = [model.optimizer, getattr(model, "discriminator_optimizer", model.optimizer)]
    scaled = [isinstance(o, keras.optimizers.LossScaleOptimizer) for o in optimizers]
    assert scaled == [policy == "mixed_float16"] * 2


@pytest.mark.parametrize(
    "loss",
    ["wasserstein"]
    + [pytest.param(name, marks=LONG) for name in d2l.ADVERSARIAL_LOSSES if name != "wasserstein"],
)
def test_every_adversarial_loss_moves_both_networks(loss):
    model = compiled(d2l.GAN, loss=loss, normalization="none" if loss == "wasserstein" else "batch")
    parts = [model.generator, model.discriminator]
    before = [part.get_weights() for part in parts]
    logs = model.fit(images(), batch_size=8, epochs=2, verbose=0).history
    assert ("gradient_penalty" in logs) == (loss == "wasserstein")
    assert np.isfinite(list(logs.values())).all()
    for part, weights in zip(parts, before, strict=True):
        changed = [np.abs(a - b).max() for a, b in zip(part.get_weights(), weights, strict=True)]
        assert min(changed[:2]) > 0


def test_each_optimizer_moves_its_own_network_alone():
    for still in (0, 1):
        model = d2l.GAN(**SMALL)
        rates = [keras.optimizers.SGD(0.0 if k == still else 0.1) for k in range(2)]
        model.compile(*rates, jit_compile=False)
        parts = [model.generator, model.discriminator]
        before = [[v.numpy() for v in part.trainable_variables] for part in parts]
        model.fit(images(8), batch_size=8, verbose=0)
        moved = [
            max(np.abs(v.numpy() - w).max() for v, w in zip(p.trainable_variables, b, strict=True))
            for p, b in zip(parts, before, strict=True)
        ]
        assert moved[still] == 0 and moved[1 - still] > 0


def test_sizes_and_channels():
    for size in ((16, 16), (48, 32), (64, 80)):
        for kind in (d2l.GAN, d2l.Autoencoder):
            model = kind(size, 1, 3, 2)
            assert model.sample(2)["images"].shape == (2, *size, 1)
    assert model.encode(images(2, (20, 30)))["codes"].shape == (2, 3)
    for kind in (d2l.GAN, d2l.VAE):
        with pytest.raises(d2l.InputError, match="image_size 24 x 32: wanted multiples of 16"):
            kind((24, 32))
        with pytest.raises(d2l.InputError, match="channels is 4"):
            kind(channels=4)
        with pytest.raises(d2l.InputError, match="latent_size is 0"):
            kind(latent_size=0)
        with pytest.raises(d2l.InputError, match="loss is 'mse'"):
            kind(loss="mse")
    with pytest.raises(d2l.InputError, match="normalization is 'layer'"):
        d2l.GAN(normalization="layer")


def test_of_an_image_of_another_shape_the_middle_is_taken():
    """As `Split.fitted` does in training."""
    model = d2l.Autoencoder(**SMALL)  # of 16 x 32
    whole = images(2, (40, 48))
    np.testing.assert_allclose(
        model.encode(whole)["codes"], model.encode(whole[:, 8:32])["codes"], rtol=1e-5
    )
    whole = images(2, (30, 90))
    np.testing.assert_allclose(
        model.encode(whole)["codes"], model.encode(whole[:, :, 15:75])["codes"], rtol=1e-5
    )
    np.testing.assert_array_equal(model.shares(images()), images() / 255)


def test_walks():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500))
    arc, line = d2l.walk(a, b, 5).numpy(), d2l.walk(a, b, 5, spherical=False).numpy()
    for path in (arc, line):
        np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-5)
    np.testing.assert_allclose(line[2], (a + b) / 2, atol=1e-5)
    lengths = np.linalg.norm(arc, axis=1)
    assert lengths.min() > 0.99 * min(lengths[[0, -1]]) > 1.2 * np.linalg.norm(line[2])
    np.testing.assert_allclose(d2l.walk(a, a, 3), [a] * 3, rtol=1e-5)


def test_sheets(tmp_path):
    pixels = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 32, 1), np.uint8)
    d2l.draw_tiles(tmp_path / "a.png", pixels, columns=3)
    sheet = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "a.png"))
    assert sheet.shape == (2 * 66 + 2, 3 * 130 + 2, 3)  # enlarged four times, two pixels between
    assert sheet[2 + 66, 2 + 130, 0] == 4 and sheet[-3, -3, 0] == 255
    with pytest.raises(d2l.InputError, match="all alike"):
        d2l.draw_tiles(tmp_path / "b.png", [pixels[0], pixels[0, 1:]])
    with pytest.raises(d2l.InputError, match="files is empty"):
        d2l.draw_animation(tmp_path / "b.gif", [])
