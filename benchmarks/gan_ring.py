"""What GANs do on eight Gaussians in a ring: modes that are covered, and gradients that vanish.

    python benchmarks/gan_ring.py --out FOLDER

Trains `GAN` with networks of two dense layers on points of the plane, for every loss, with and
without spectral normalisation, three seeds each, and prints a Markdown table of modes covered of
8: those that get at least 1 % of the samples, counted within four standard deviations. Then the
generator stands still while the discriminator learns, and the norm of the gradient of both forms
of the generator's loss is taken. Draws ring.png and gradients.png. Some five minutes on one core;
`--seeds 1 --steps 200` for a quick look.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import kerascv_d2l as d2l
from kerascv_d2l.plotting.common import save

MODES, RADIUS, STD = 8, 0.7, 0.03  # in a square from -1 to 1
HIDDEN, LATENT, BATCH, RATE = 64, 4, 256, 1e-3
NEAR, LEAST_SHARE, SAMPLES = 4, 0.01, 2000
GRADIENT_STEPS = (0, 5, 10, 20, 50, 100, 200, 400, 800)


class RingGAN(d2l.GAN):
    """`GAN` of points: images of two values."""

    def make_networks(self):
        """Make two networks with two hidden layers each."""

        def dense(x, units):
            if self.normalization == "spectral":
                return d2l.SpectralNormalization(keras.layers.Dense(units, use_bias=False))(x)
            return keras.layers.Dense(units)(x)

        codes, points = keras.Input((self.latent_size,)), keras.Input((1, 2, 1))
        x = keras.layers.Dense(HIDDEN, "relu")(codes)
        x = keras.layers.Dense(HIDDEN, "relu")(x)
        x = keras.layers.Reshape((1, 2, 1))(keras.layers.Dense(2)(x))
        y = keras.layers.Flatten()(points)
        for _ in range(2):
            y = keras.layers.LeakyReLU(0.2)(dense(y, HIDDEN))
        return keras.Model(codes, x), keras.Model(points, dense(y, 1))

    def points(self, count, seed=0):
        """Sample points float32 `(count, 2)` from -1 to 1."""
        codes = tf.random.stateless_normal((count, self.latent_size), (seed, 1))
        return 2 * self(codes).numpy().reshape(-1, 2) - 1


def centres():
    """Means of the modes, `(8, 2)`."""
    angles = 2 * np.pi * np.arange(MODES) / MODES
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1)


def ring(count, seed):
    """Draw points float32 `(count, 2)` of the ring."""
    rng = np.random.default_rng(seed)
    return (centres()[rng.integers(0, MODES, count)] + STD * rng.normal(size=(count, 2))).astype(
        "float32"
    )


def batches(seed):
    """Endless batches of points as pixels 0-255."""
    pixels = 127.5 * (ring(20_000, seed) + 1)
    data = tf.data.Dataset.from_tensor_slices(pixels.reshape(-1, 1, 2, 1)).cache()
    return data.shuffle(20_000, seed).repeat().batch(BATCH, drop_remainder=True).prefetch(4)


def build(loss, normalization, seed, rate=RATE, **options):
    """Build a GAN of points; with rate 0 only its discriminator learns."""
    keras.utils.set_random_seed(seed)
    model = RingGAN((1, 2), 1, LATENT, 1, loss=loss, normalization=normalization)
    model.compile(
        keras.optimizers.Adam(rate, beta_1=0.5),
        keras.optimizers.Adam(RATE, beta_1=0.5),
        jit_compile=False,
        **options,
    )
    return model


def train(loss, normalization, steps, seed):
    """Train a GAN on the ring."""
    model = build(loss, normalization, seed, steps_per_execution=min(steps, 50))
    model.fit(batches(seed), steps_per_epoch=steps, verbose=0, shuffle=False)
    return model


def covered(points):
    """Modes covered, and the share of points that lie near a mode."""
    distances = np.linalg.norm(points[:, None] - centres(), axis=2)  # (n, modes)
    near = distances < NEAR * STD
    return int((near.mean(0) >= LEAST_SHARE).sum()), float(near.any(1).mean())


def generator_gradient(model, loss, count=1000):
    """Norm of the gradient of the generator's loss over its weights."""
    codes = tf.random.stateless_normal((count, LATENT), (0, 2))
    with tf.GradientTape() as tape:
        scores = model.discriminator(tf.tanh(model.generator(codes)))[:, 0]
        value = tf.reduce_mean(d2l.generator_loss(loss, scores))
    return float(tf.linalg.global_norm(tape.gradient(value, model.generator.trainable_variables)))


def study_modes(args):
    """Print the table of modes, and draw the samples of the first seed."""
    kinds = [
        (loss, normalization)
        for loss in d2l.ADVERSARIAL_LOSSES
        for normalization in ("none", "spectral")
        if (loss, normalization) != ("wasserstein", "spectral")  # it has its penalty
    ]
    print("| loss | discriminator | modes of 8, by seed | share of samples near a mode |")
    print("|---|---|---|---|")
    drawn = {"data": ring(SAMPLES, 0)}
    for loss, normalization in kinds:
        points = [
            train(loss, normalization, args.steps, seed).points(SAMPLES)
            for seed in range(args.seeds)
        ]
        found = [covered(p) for p in points]
        modes = ", ".join(str(modes) for modes, _ in found)
        shares = ", ".join(f"{share:.2f}" for _, share in found)
        penalty = "gradient penalty" if loss == "wasserstein" else normalization
        print(f"| {loss} | {penalty} | {modes} | {shares} |", flush=True)
        drawn[f"{loss.replace('_', ' ')}, {penalty}"] = points[0]
    figure = Figure(figsize=(2.2 * 5, 2.4 * 2), dpi=100, layout="constrained")
    for place, (title, points) in enumerate(drawn.items(), start=1):
        axes = figure.add_subplot(2, 5, place)
        axes.scatter(*points[:1000].T, s=2, alpha=0.4, color="#0a84ff")
        axes.scatter(*centres().T, s=12, marker="+", color="black", linewidths=0.7)
        axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=[], yticks=[], aspect="equal")
        axes.set_title(title, fontsize=8)
    save(args.out / "ring.png", figure)


def study_gradients(args):
    """Print and draw the generator's gradients while only the discriminator learns."""
    found = {}
    print("\n| discriminator, its steps | right | minimax | non-saturating |\n|---|---|---|---|")
    for normalization in ("none", "spectral"):
        norms = found[normalization] = {"minimax": [], "non_saturating": []}
        model, done = build("non_saturating", normalization, 0, rate=0.0), 0
        for steps in GRADIENT_STEPS:
            if steps:
                more = steps - done
                model.fit(batches(steps), steps_per_epoch=more, verbose=0, shuffle=False)
            done = steps
            real, fake = (
                model.discriminator(p.reshape(-1, 1, 2, 1)).numpy()[:, 0]
                for p in (ring(1000, 1), model.points(1000))
            )
            right = np.mean(np.concatenate([real > 0, fake < 0]))
            for loss, values in norms.items():
                values.append(generator_gradient(model, loss))
            cells = " | ".join(f"{values[-1]:.2g}" for values in norms.values())
            print(f"| {normalization}, {steps} | {right:.3f} | {cells} |", flush=True)
    draw_gradients(args.out / "gradients.png", found)


def draw_gradients(path, found):
    """Draw `{normalization: {loss: norms at GRADIENT_STEPS}}`."""
    figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
    shared, places = None, range(len(GRADIENT_STEPS))
    for place, (normalization, norms) in enumerate(found.items(), start=1):
        shared = axes = figure.add_subplot(1, 2, place, sharey=shared)
        for loss, values in norms.items():
            axes.plot(places, values, marker="o", label=loss.replace("_", "-"))
        axes.set_xticks(places, GRADIENT_STEPS)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # formulas are not drawn
        axes.set(xlabel="steps of the discriminator", title=f"normalisation: {normalization}")
        axes.grid(alpha=0.3)
    axes.legend()
    figure.axes[0].set_ylabel("norm of the generator's gradient")
    save(path, figure)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gan_ring"), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--steps", type=int, default=2000, metavar="N")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    study_gradients(args)
    study_modes(args)


if __name__ == "__main__":
    main()
