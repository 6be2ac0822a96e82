"""What two logical CPU devices compute, beside one; run by test_distribution.py.

Prints one line of JSON. Devices are set before TensorFlow starts, so it needs a process of
its own. With the argument `cluster` it is one of the workers that `TF_CONFIG` tells of.
"""

import json
import sys

import numpy as np

STEPS, BATCH, IMAGES, CLASSES = 20, 8, 37, 3
SIZE = (8, 11)


def data(tf, count=IMAGES, batch_size=BATCH):
    """Images with a colour cast by class, as one pass of batches."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES, IMAGES)
    images = rng.normal(size=(IMAGES, *SIZE, 3)).astype("float32")
    images += np.eye(CLASSES, dtype="float32")[labels][:, None, None, :]
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = tf.data.Dataset.from_tensor_slices((images[:count], labels[:count])).batch(batch_size)
    return batches.with_options(options)


def build(norm, seed=1):
    """A small network; `norm` is "", "plain" or "sync"."""
    import keras

    import kerascv_d2l

    keras.utils.set_random_seed(seed)
    layers = [keras.Input((*SIZE, 3)), keras.layers.Conv2D(6, 3, strides=2)]
    if norm:
        layers.append(kerascv_d2l.BatchNorm())
    layers += [keras.layers.ReLU(), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    model = keras.Sequential(layers)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    if norm == "sync":
        kerascv_d2l.synchronize_batch_norm(model)
    return model


def evaluate(model, tf, count):
    """Loss and accuracy; without `evaluation_batch_size` the last batch would be too small."""
    from kerascv_d2l import evaluation_batch_size

    size = evaluation_batch_size(count, BATCH, model.distribute_strategy)
    return model.evaluate(data(tf, count, size), verbose=0)


def evaluate_few(model, count):
    """Loss and accuracy of an odd number of images, which no one batch size splits."""
    from kerascv_d2l import Split, evaluation_batches

    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (count, *SIZE, 3)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, count)
    split = Split(images, {"label": labels}, [str(k) for k in range(count)])
    batches = evaluation_batches(split, SIZE, BATCH, model.distribute_strategy, crop_pct=1.0)
    return model.evaluate(batches, verbose=0)


def fit(model, tf):
    """The loss of each of `STEPS` steps."""
    import keras

    losses = []
    model.fit(
        data(tf, 32).repeat(),
        steps_per_epoch=1,
        epochs=STEPS,
        verbose=0,
        shuffle=False,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: losses.append(logs["loss"]))
        ],
    )
    return losses


def apart(a, b):
    """The largest difference of two lists of numbers or arrays; of numbers above 1, relative."""
    pairs = [(np.asarray(p), np.asarray(q)) for p, q in zip(a, b, strict=True)]
    return max(float((np.abs(p - q) / np.maximum(1, np.abs(q))).max()) for p, q in pairs)


def save_and_load(tf, strategy, folder):
    """Save a network of two devices, load it on one and on two, and go on with the latter."""
    import keras

    with strategy.scope():
        two = build("sync")
    batches = data(tf, 8)
    two.fit(batches, verbose=0, shuffle=False)
    result = {}
    path = f"{folder}/network.keras"
    two.save(path)
    loaded = keras.models.load_model(path)
    with strategy.scope():
        again = keras.models.load_model(path)
    result["loaded"] = max(
        apart(two.get_weights(), model.get_weights()) for model in (loaded, again)
    )
    again.fit(batches, verbose=0, shuffle=False)
    result["goes on"] = apart(two.get_weights(), again.get_weights()) > 0
    return result


def devices(folder):
    import tensorflow as tf

    from kerascv_d2l.training.devices import average_replicas, describe_strategy, make_strategy

    strategy = make_strategy("cpu:2")
    again = make_strategy("cpu:2")
    result = {
        "replicas": [strategy.num_replicas_in_sync, again.num_replicas_in_sync],
        "text": describe_strategy(strategy),
    }
    for norm in ("", "sync"):
        one = build(norm)
        with strategy.scope():
            two = build(norm)
        result[f"loss{norm}"] = apart(fit(one, tf), fit(two, tf))
        result[f"weights{norm}"] = apart(one.get_weights(), two.get_weights())
        for count in (37, 33):  # the last batch has 5 images or 1 for two devices
            figures = [evaluate(m, tf, count) for m in (one, two)]
            result[f"evaluate{norm}{count}"] = apart(*figures)
        for count in (5, 9):
            result[f"few{norm}{count}"] = apart(*(evaluate_few(m, count) for m in (one, two)))

    with strategy.scope():
        model = build("plain")
    one = build("plain")
    result["plain differs"] = apart(fit(one, tf), fit(model, tf))
    mean = next(v for v in model.non_trainable_variables if "moving_mean" in v.path)

    def parts():
        return [part.numpy() for part in strategy.experimental_local_results(mean.value)]

    before = parts()
    average_replicas(model)
    after = parts()
    result["apart"] = apart(before[:1], before[1:])
    result["averaged"] = max(apart([part], [np.mean(before, axis=0)]) for part in after)
    result.update(save_and_load(tf, strategy, folder))
    return result


def cluster():
    import tensorflow as tf

    from kerascv_d2l.training.cluster import make_multi_worker_strategy, read_cluster
    from kerascv_d2l.training.devices import average_replicas, describe_strategy

    strategy = make_multi_worker_strategy()
    index, _ = read_cluster()

    result = {"text": describe_strategy(strategy)}
    for norm in ("sync", "plain"):
        with strategy.scope():
            # Each worker starts with weights of its own: those of the first must win.
            many = build(norm, seed=1 + index)
        losses = fit(many, tf)
        if norm == "plain":
            average_replicas(many)
        for count in (37, 33):
            result[f"evaluate{norm}{count}"] = evaluate(many, tf, count)
        result[f"losses{norm}"] = losses
        # Hexadecimal: to the last bit.
        result[f"weights{norm}"] = [w.astype("<f4").tobytes().hex() for w in many.get_weights()]
    return result


def one_device():
    """What `cluster` computes, by one device."""
    import tensorflow as tf

    model = build("sync")
    losses = fit(model, tf)
    result = {f"evaluatesync{n}": evaluate(model, tf, n) for n in (37, 33)}
    return {
        **result,
        "lossessync": losses,
        "weightssync": [w.astype("<f4").tobytes().hex() for w in model.get_weights()],
    }


if __name__ == "__main__":
    answer = cluster() if sys.argv[1] == "cluster" else devices(sys.argv[1])
    print(json.dumps(answer))
