"""Choosing devices. What several devices compute is tested in a process of its own."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kerascv_d2l.distribution import check_batch_size, make_strategy, parse_devices
from kerascv_d2l.errors import InputError


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("auto", ("auto", None)),
        (" AUTO ", ("auto", None)),
        ("cpu", ("cpu", 1)),
        ("cpu:3", ("cpu", 3)),
        ("2", ("gpu", 2)),
        (4, ("gpu", 4)),
    ],
)
def test_parse(text, want):
    assert parse_devices(text) == want


@pytest.mark.quick
@pytest.mark.parametrize("text", ["", "0", "-1", "cpu:", "cpu:0", "cpu2", ":2", "gpu:1", "1.5"])
def test_parse_refuses(text):
    with pytest.raises(InputError, match="--devices: expected auto"):
        parse_devices(text)


@pytest.mark.quick
def test_a_batch_smaller_than_the_devices():
    strategy = SimpleNamespace(num_replicas_in_sync=4)
    check_batch_size(5, strategy)
    with pytest.raises(InputError, match=r"--batch-size 3 .* at least 4"):
        check_batch_size(3, strategy)


@pytest.mark.quick
def test_more_gpus_than_there_are():
    with pytest.raises(InputError, match=r"--devices 99 asks for 99 GPUs, but TensorFlow finds"):
        make_strategy("99")


@pytest.mark.quick
def test_too_late():
    import tensorflow as tf

    tf.constant(1.0) + 1.0
    with pytest.raises(InputError, match=r"cpu:7 comes too late"):
        make_strategy("cpu:7")


# Prints as JSON what two logical devices compute; one device's results stand beside them.
_TWO_DEVICES = """
import json, sys
from kerascv_d2l.distribution import *
from kerascv_d2l.distribution import average_replicas, check_last_batch
from kerascv_d2l.errors import InputError
from kerascv_d2l.training import import_tensorflow
tf = import_tensorflow()
strategy = make_strategy("cpu:2")
again = make_strategy("cpu:2")
import keras, numpy as np
result = {"replicas": strategy.num_replicas_in_sync, "again": again.num_replicas_in_sync,
          "text": describe_strategy(strategy)}

rng = np.random.default_rng(3)
x = rng.normal(size=(37, 5)).astype("float32")
y = rng.integers(0, 3, 37)

def build(norm):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((5,)), keras.layers.Dense(7)]
    if norm:
        layers.append(keras.layers.BatchNormalization(synchronized=norm == "sync"))
    model = keras.Sequential([*layers, keras.layers.ReLU(), keras.layers.Dense(3)])
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model

data = tf.data.Dataset.from_tensor_slices((x[:32], y[:32])).batch(8)
uneven = {n: tf.data.Dataset.from_tensor_slices((x[:n], y[:n])).batch(8) for n in (37, 33)}
for norm in ("", "sync"):
    one = build(norm)
    with strategy.scope():
        two = build(norm)
    losses = [m.fit(data.repeat(), epochs=1, steps_per_epoch=20, verbose=0,
                    shuffle=False).history["loss"][0] for m in (one, two)]
    result[f"loss{norm}"] = abs(losses[0] - losses[1])
    pairs = zip(one.get_weights(), two.get_weights())
    result[f"weights{norm}"] = max(float(np.abs(a - b).max()) for a, b in pairs)
    # The last batch has 5 or 1 images for two devices.
    for n, images in uneven.items():
        a = one.evaluate(images, verbose=0)
        b = two.evaluate(images, verbose=0)
        result[f"evaluate{norm}{n}"] = max(abs(p - q) for p, q in zip(a, b))

with strategy.scope():
    model = build("plain")
model.fit(data, epochs=3, verbose=0, shuffle=False)
mean = model.layers[1].moving_mean.value
parts = lambda: [p.numpy() for p in strategy.experimental_local_results(mean)]
before = parts()
average_replicas(model)
after = parts()
result["apart"] = float(np.abs(before[0] - before[1]).max())
result["averaged"] = max(float(np.abs(p - np.mean(before, axis=0)).max()) for p in after)
for images in (37, 33, 32):
    try:
        check_last_batch(model, images, -(-images // 8), 8)
        result[f"last{images}"] = "fine"
    except InputError as error:
        result[f"last{images}"] = str(error)
print(json.dumps(result))
"""


def test_two_logical_devices():
    run = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["replicas"], result["again"]) == (2, 2)
    assert result["text"] == "the CPU as 2 logical devices"
    for norm in ("", "sync"):
        assert result[f"loss{norm}"] < 1e-5
        assert result[f"weights{norm}"] < 1e-5
        assert result[f"evaluate{norm}37"] < 1e-5
        assert result[f"evaluate{norm}33"] < 1e-5
    # If this fails Keras has begun to keep the replicas together: average_replicas can go.
    assert result["apart"] > 1e-3
    assert result["averaged"] < 1e-6
    assert result["last32"] == "fine" and result["last37"] == "fine"
    assert "leaves 1 of 33 images" in result["last33"]
