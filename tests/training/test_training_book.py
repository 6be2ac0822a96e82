"""The book's words for training, against NumPy and `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import book, train_batch_ch13, train_ch13, train_with_data_aug

RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 4, 5, 1)).astype("float32")
Y = RNG.integers(0, 3, 37)


def build():
    keras.utils.set_random_seed(2)
    return keras.Sequential([keras.Input((4, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def by_hand(weights, x, y):
    """Cross-entropies and hits of a linear classifier."""
    kernel, bias = weights
    logits = x.reshape(len(x), -1) @ kernel + bias
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    return losses, logits.argmax(axis=1) == y


def test_a_batch():
    net, trainer, cost = build(), keras.optimizers.SGD(0.1), loss()
    before = net.get_weights()
    for part in (slice(0, 8), slice(8, 20)):
        losses, hits = by_hand(before, X[part], Y[part])
        total, right = train_batch_ch13(net, X[part], Y[part], cost, trainer)
        assert total == pytest.approx(losses.sum(), rel=1e-5)
        assert right == pytest.approx(hits.sum())
        assert not np.array_equal(before[0], net.get_weights()[0])
        before = net.get_weights()
    assert int(trainer.iterations) == 2  # compiled once


def test_epochs(capsys):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    net, twin = build(), build()
    history = train_ch13(net, data, data, loss(), keras.optimizers.Adam(0.01), 3)
    twin.compile(keras.optimizers.Adam(0.01), loss(), metrics=["accuracy"], jit_compile=False)
    wanted = twin.fit(data, validation_data=data, epochs=3, verbose=0).history
    for name, values in wanted.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)
    for a, b in zip(net.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.isfinite(history["images_per_second"][-1])
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"loss {wanted['loss'][-1]:.3f}, train acc {wanted['accuracy'][-1]:.3f}, "
        f"test acc {wanted['val_accuracy'][-1]:.3f}"
    )
    assert second.endswith("examples/sec on the CPU")


def test_with_data_aug(monkeypatch):
    """Both augmentations arrive where they belong, with the book's recipe."""
    asked = []

    def load(is_train, augs, batch_size, *, data):
        asked.append((is_train, augs, batch_size, data))
        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)

    monkeypatch.setattr(book, "load_cifar10", load)
    net = build()
    history = train_with_data_aug("flips", None, net, 0.02, num_epochs=1, data="somewhere")
    assert asked == [(True, "flips", 256, "somewhere"), (False, None, 256, "somewhere")]
    assert isinstance(net.optimizer, keras.optimizers.Adam)
    assert float(net.optimizer.learning_rate) == pytest.approx(0.02)
    assert len(history["val_accuracy"]) == 1
