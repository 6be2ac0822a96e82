"""Which weights a training leaves behind, and the clock before it, on a model of one layer."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import batches, flip_augmentation, generate_detection, ssd_augmentation
from kerascv_d2l.errors import InputError
from kerascv_d2l.training.keeping import AverageWeights, KeepBest
from kerascv_d2l.training.optimizers import make_optimizer
from kerascv_d2l.training.run import Run

pytestmark = pytest.mark.usefixtures("no_curves")

MOMENTUM, STEPS, EPOCHS = 0.5, 3, 4
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 2)).astype("f"), RNG.normal(size=(12, 1)).astype("f")


def make_model(averaging=MOMENTUM, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    optimizer = make_optimizer("sgd", 0.3, averaging=averaging, **options)
    model.compile(optimizer, "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


class Scores(keras.callbacks.Callback):
    """Measure what a table says, and remember the weights that were measured."""

    def __init__(self, table):
        super().__init__()
        self.table, self.seen = table, {}

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.table[epoch]
        self.seen[epoch] = self.model.get_weights()


def train(out, table, resume=False, stop=None, patience=None, averaging=MOMENTUM):
    """Train as a script does; `stop` ends it before that epoch."""
    model = make_model(averaging)
    averaged, best, scores = AverageWeights(), KeepBest("score", patience), Scores(table)
    settings = {"epochs": EPOCHS, "batch_size": 4, "patience": patience}
    run = Run(out, settings, task="toy", resume=resume)
    run.watch(model, averaged, best)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == stop:
                raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        model.fit(
            data, epochs=EPOCHS, initial_epoch=run.initial_epoch, verbose=0, shuffle=False,
            callbacks=[averaged, scores, best, run, Stop()],
        )  # fmt: skip
    run.close()
    return model.get_weights(), scores.seen, run


def slow_means():
    """The kernel, and its running mean, after each step, by NumPy."""
    kernel, bias = (np.float64(w) for w in make_model().get_weights())
    mean, means = None, []
    for epoch in range(EPOCHS):
        for k in range(STEPS):
            x, y = X[4 * k : 4 * k + 4], Y[4 * k : 4 * k + 4]
            gradient = 2 * (x @ kernel + bias - y) / 4
            kernel, bias = kernel - 0.3 * x.T @ gradient, bias - 0.3 * gradient.sum(0)
            updates = STEPS * epoch + k
            keep = min(MOMENTUM, (1 + updates) / (10 + updates)) if updates else 0
            mean = keep * (mean if updates else 0) + (1 - keep) * kernel
        means.append(mean)
    return means


def test_what_is_measured_and_kept_is_the_mean_of_the_best_epoch(tmp_path):
    kept, seen, _ = train(tmp_path, [0.1, float("nan"), 0.7, 0.2])
    for epoch, mean in enumerate(slow_means()):
        np.testing.assert_allclose(seen[epoch][0], mean, rtol=1e-5)
    np.testing.assert_array_equal(kept[0], seen[2][0])


def test_without_averaging_the_weights_are_measured(tmp_path):
    _, seen, _ = train(tmp_path, [1, 0, 0, 0], averaging=None)
    _, means, _ = train(tmp_path / "mean", [1, 0, 0, 0])
    assert np.abs(seen[3][0] - means[3][0]).max() > 1e-3
    plain = make_model(None)
    plain.fit(X, Y, batch_size=4, epochs=EPOCHS, verbose=0, shuffle=False)
    np.testing.assert_allclose(seen[3][0], plain.get_weights()[0], rtol=1e-6)


@pytest.mark.parametrize("stop, table", [(1, [0.1, 0.9, 0.2, 0.3]), (3, [float("nan")] * 4)])
def test_a_resumed_run_keeps_the_same_weights(tmp_path, stop, table):
    """With a best epoch, and with none: then the last mean is kept."""
    whole, seen, _ = train(tmp_path / "whole", table)
    train(tmp_path / "part", table, stop=stop)
    resumed, later, _ = train(tmp_path / "part", table, resume=True)
    for one, two in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(seen[3][0], later[3][0])
    np.testing.assert_array_equal(whole[0], seen[3 if np.isnan(table[0]) else 1][0])
    # Finished, and resumed before the model was saved.
    again, later, _ = train(tmp_path / "part", table, resume=True)
    assert not later
    np.testing.assert_array_equal(again[0], whole[0])


def test_of_equal_epochs_the_last_is_kept(tmp_path):
    kept, seen, _ = train(tmp_path, [0.0, 0.3, 0.3, 0.1])
    np.testing.assert_array_equal(kept[0], seen[2][0])


def test_patience(tmp_path, capsys):
    _, seen, run = train(tmp_path, [0.5, 0.4, 0.4, 0.9], patience=2)
    assert "stopped after epoch 3: no better score in 2 epochs" in capsys.readouterr().out
    assert list(seen) == [0, 1, 2] and run.epochs_done == 3
    # Resumed, it stays stopped unless it is to wait longer.
    for more, left in ((2, []), (3, [3]), (None, [])):
        _, seen, _ = train(tmp_path, [0.5, 0.4, 0.4, 0.9], resume=True, patience=more)
        assert list(seen) == left
    # Epochs without a measurement say nothing, as before the first one.
    nan = float("nan")
    _, seen, _ = train(tmp_path / "rare", [nan, nan, 0.4, nan], patience=1)
    assert list(seen) == [0, 1, 2, 3]
    _, seen, _ = train(tmp_path / "later", [0.5, nan, 0.4, 0.9], patience=1)
    assert list(seen) == [0, 1, 2]
    # As good is not better, also in a run that is resumed between the two.
    for stop, resume in ((2, False), (None, True)):
        _, seen, _ = train(tmp_path / "same", [0.0] * 4, resume, stop, patience=2)
    assert list(seen) == [2]
    with pytest.raises(InputError, match="patience is 0"):
        KeepBest("score", 0)


def test_announce_changes_nothing(tmp_path, capsys):
    model = make_model()
    run = Run(tmp_path, {"epochs": 2, "batch_size": 4}, task="toy")
    run.watch(model)
    before = model.get_weights() + [v.numpy() for v in model.optimizer.variables]
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat()
    run.announce(model, data, 5, evaluated=8)
    assert not list(tmp_path.rglob("*state*"))  # of the checkpoint for the clock
    after = model.get_weights() + [v.numpy() for v in model.optimizer.variables]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    assert "seconds for 10 updates of 4 images, " in capsys.readouterr().out
    run.close()


def test_the_announced_time_counts_measurements_and_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kerascv_d2l.training.run.rehearse", lambda *_: (2.0, 10.0))
    monkeypatch.setattr(Run, "_checkpoint_seconds", lambda *_: 3.0)
    model = make_model()
    run = Run(tmp_path, {"epochs": 2, "batch_size": 4}, task="toy")
    run.watch(model)
    run.announce(model, None, 5, evaluated=8)
    # 10 updates, two batches to measure at 0.4 of an update, 2.7 first steps and two checkpoints.
    assert "expected: 55 seconds for 10 updates of 4 images" in capsys.readouterr().out
    run.close()


def test_warmup_and_clipping():
    optimizer = make_optimizer("sgd", 0.8, schedule="cosine", steps=40, warmup=0.1, clip_norm=0.5)
    rates = [float(optimizer._learning_rate(k)) for k in range(41)]
    np.testing.assert_allclose(rates[:5], [0, 0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    half = 0.8 * (1 + np.cos(np.pi * np.arange(37) / 36)) / 2
    np.testing.assert_allclose(rates[4:], half, atol=1e-6)
    optimizer = make_optimizer("sgd", 1.0, clip_norm=0.5)
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer.apply([np.float32([3.0]), np.float32([4.0])], variables)
    np.testing.assert_allclose([v.numpy()[0] for v in variables], [1 - 0.3, 1 - 0.4], rtol=1e-6)


def test_the_last_epochs_are_augmented_otherwise(tmp_path):
    """Also where a run is resumed in the middle, or within them."""
    data = generate_detection(6, 2, seed=0, image_size=(32, 48))
    cut, flip = ssd_augmentation((32, 48)), flip_augmentation((32, 48))
    options = {"seed": 4, "training": True}
    whole = {
        name: [
            x.numpy() for x, _ in batches(data.train, (32, 48), 2, transform=t, **options).take(12)
        ]
        for name, t in (("cut", cut), ("flip", flip))
    }
    run = Run(tmp_path, {"epochs": 4, "batch_size": 2}, task="toy")
    expected = whole["cut"][:6] + whole["flip"][6:]  # three batches an epoch, two epochs each
    for start in (0, 1, 2, 3):
        run.epochs_done = start
        made = run.batches(
            data.train, (32, 48), 2, transform=cut, last=({"transform": flip}, 2), seed=4
        )
        for one, (two, _) in zip(expected[3 * start :], made, strict=False):
            np.testing.assert_array_equal(one, two)
    assert np.abs(whole["cut"][6] - whole["flip"][6]).max() > 1
    run.close()
