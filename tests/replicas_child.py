"""What steps of segmentation, style transfer and generation compute on one and on two devices.

Prints one line of JSON. Devices are set before TensorFlow starts, so it needs a process of
its own: `test_replicas.py` runs it.
"""

import json
import sys
from pathlib import Path

import numpy as np

CLASSES = 3


def apart(a, b):
    """The largest difference of two lists of arrays; of numbers above 1, relative."""
    pairs = [(np.asarray(p), np.asarray(q)) for p, q in zip(a, b, strict=True)]
    return max(float((np.abs(p - q) / np.maximum(1, np.abs(q))).max()) for p, q in pairs)


def batches(tf, *parts, batch_size=4):
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch_size).with_options(options)


def segmentation_model():
    import keras

    import kerascv_d2l

    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Conv2D(CLASSES, 1)(x))
    model.compile(
        keras.optimizers.SGD(1.0),
        kerascv_d2l.SegmentationCrossEntropy(class_weight=[1, 3, 0.5]),
        metrics=[kerascv_d2l.SegmentationMetrics(CLASSES)],
        jit_compile=False,
    )
    return model


def segmentation(tf, strategy):
    """A step with ignored pixels in half of the images, and evaluation in `fit`."""
    import kerascv_d2l

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 12, 20, 3)).astype("float32")
    masks = rng.integers(0, CLASSES, (7, 12, 20)).astype("uint8")
    masks[[0, 1, 4], :, 3:] = 255
    one = segmentation_model()
    with strategy.scope():
        two = segmentation_model()
    result, histories = {}, []
    for model in (one, two):
        segment = kerascv_d2l.Segmenter(model, (8, 12), overlap=2, stride=4)
        pairs = [(images[0, :11, :17], masks[0, :11, :17]), (images[3], masks[3])]
        callback = kerascv_d2l.SegmentationCallback(segment, pairs, "abc")
        history = model.fit(
            batches(tf, images[:4], masks[:4]),
            epochs=2,
            verbose=0,
            shuffle=False,
            callbacks=[callback],
        ).history
        measured = kerascv_d2l.evaluate_segmentation(segment, pairs, "abc", loss=model.loss)
        result["history is evaluation"] = all(
            history[f"val_{name}"][-1] == measured[name] for name in ("mean_iou", "loss")
        )
        histories.append([history[name] for name in sorted(history)])
    result["history"] = apart(*histories)
    result["loss"] = histories[0][0]
    result["weights"] = apart(one.get_weights(), two.get_weights())
    # A last batch of 3: two images on one device and one on the other.
    uneven = [m.evaluate(batches(tf, images, masks), verbose=0) for m in (one, two)]
    result["evaluate"] = apart(*uneven)
    return result


def style_trainer():
    """The trainer of `scripts/train_fast_style.py`, with SGD: Adam's first step is all signs."""
    import keras

    sys.path.insert(0, str(Path(__file__).parent / "scripts"))
    from pytest import MonkeyPatch
    from training_data import add_tiny, load_script

    add_tiny(MonkeyPatch())
    script = load_script("train_fast_style")
    flags = ["--network", "tiny", "--weights", "none", "--image-size", "32x40"]
    args = script.parse(["style.png", *flags, "--width", "4", "--blocks", "1"])
    keras.utils.set_random_seed(0)
    trainer = script.build_trainer(args, np.full((40, 32, 3), (230, 90, 20), np.uint8), steps=1)
    for weight in trainer.net.trainable_variables:
        if "correction" in weight.path:  # from zero it passes no gradient on
            weight.assign(np.random.default_rng(0).normal(0, 0.05, weight.shape))
    trainer.compile(keras.optimizers.SGD(0.05), jit_compile=False)
    return trainer


def fast_style(tf, strategy):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3)).astype("float32")
    one = style_trainer()
    with strategy.scope():
        two = style_trainer()
    before = one.net.get_weights()
    histories = [
        m.fit(batches(tf, images), steps_per_epoch=1, verbose=0, shuffle=False).history
        for m in (one, two)
    ]
    values = [[h[name] for name in sorted(h)] for h in histories]
    return {
        "names": sorted(histories[0]),
        "metrics": len(one.metrics),
        "history": apart(*values),
        "weights": apart(one.net.get_weights(), two.net.get_weights()),
        "moved": apart(one.net.get_weights(), before),
    }


def generator(kind):
    """A small VAE or GAN, with SGD; on several devices batch norm takes all images."""
    import keras

    import kerascv_d2l

    keras.utils.set_random_seed(0)
    model = kind(image_size=(16, 32), latent_size=4, width=4)
    if kind is kerascv_d2l.GAN:
        model.compile(keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5), jit_compile=False)
    else:
        model.compile(keras.optimizers.SGD(1e-4), jit_compile=False)
    kerascv_d2l.synchronize_batch_norm(model)
    return model


def generation(tf, strategy, kind):
    """Two steps, with noise that each device has a part of."""
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 32, 3)).astype("float32")
    one = generator(kind)
    with strategy.scope():
        two = generator(kind)
    before = one.get_weights()
    data = batches(tf, images)
    logs = [m.fit(data, verbose=0, shuffle=False).history for m in (one, two)]
    return {
        "history": apart(*([h[name][0] for name in sorted(h)] for h in logs)),
        "weights": apart(one.get_weights(), two.get_weights()),
        "moved": apart(one.get_weights(), before),
    }


def main():
    from kerascv_d2l.training.devices import make_strategy

    strategy = make_strategy("cpu:2")
    import tensorflow as tf

    result = {"replicas": strategy.num_replicas_in_sync}
    result["segmentation"] = segmentation(tf, strategy)
    result["fast_style"] = fast_style(tf, strategy)
    import kerascv_d2l

    for kind in (kerascv_d2l.VAE, kerascv_d2l.GAN):
        result[kind.__name__] = generation(tf, strategy, kind)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
