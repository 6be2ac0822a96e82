"""Time this package's layers against those of Keras that they stand in for.

    python benchmarks/layers.py

Prints a Markdown table: forward and backward of one layer, in float32 and bfloat16, and training
steps of the detector that a folder gets, whole, with random weights, at 256 x 256 and batch 8.
Both sides are Keras and TensorFlow; each has a process of its own. Takes two minutes on two cores.
"""

import argparse
import sys

import timing

SIDES = ("keras", "here")
DTYPES = ("float32", "bfloat16")
STEP = "training step of FCOS on MobileNet 0.75"


def make_layers(side):
    """Dict from a case to a pair of a layer and the shape of its input."""
    import keras

    from kerascv_d2l import layers

    home = keras.layers if side == "keras" else layers
    return {
        "batch norm, 8 x 64 x 64 x 96": (home.BatchNormalization, (8, 64, 64, 96)),
        "the same of 24 channels": (home.BatchNormalization, (8, 128, 128, 24)),
        "group norm of 32 groups, 8 x 32 x 32 x 64": (
            lambda **options: home.GroupNormalization(32, **options),
            (8, 32, 32, 64),
        ),
        "convolution 1 x 1, 8 x 32 x 32 x 192 to 192": (
            lambda **options: home.Conv2D(192, 1, **options),
            (8, 32, 32, 192),
        ),
        "convolution 3 x 3, 2 x 40 x 40 x 256 to 256": (
            lambda **options: home.Conv2D(256, 3, padding="same", **options),
            (2, 40, 40, 256),
        ),
        "depthwise 3 x 3, stride 2, 8 x 65 x 65 x 96": (
            lambda **options: home.DepthwiseConv2D(3, 2, **options),
            (8, 65, 65, 96),
        ),
    }


def learner(layer, shape, dtype):
    """A function that runs a layer forward and backward."""
    import tensorflow as tf

    layer.build((None, *shape[1:]))
    x = tf.cast(tf.random.stateless_normal(shape, (0, 1)), dtype)

    @tf.function
    def learn():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True) if hasattr(layer, "moving_mean") else layer(x)
        return tape.gradient(y, [x, *(w.value for w in layer.trainable_weights)], y)

    return lambda: learn()[0].numpy()


def stepper(side, dtype):
    """A function that trains the folder's detector for a step."""
    import keras
    import tensorflow as tf

    import kerascv_d2l as d2l
    from kerascv_d2l.models import backbones, dense, fpn

    if side == "keras":
        backbones._FAST.clear()
        dense.GroupNormalization = keras.layers.GroupNormalization
        dense.Conv2D = fpn.Conv2D = keras.layers.Conv2D
    keras.mixed_precision.set_global_policy({"bfloat16": "mixed_bfloat16"}.get(dtype, dtype))
    recipe = d2l.detector_recipe("fcos", on_folder=True)
    model = d2l.create_detector(
        "fcos", ["one"], (256, 256), recipe["backbone"], **recipe["options"]
    )
    optimizer = d2l.make_optimizer(
        "adam", 1e-4, weight_decay=1e-4, clip_norm=10.0, averaging=0.99, model=model
    )
    model.compile(optimizer)
    images = tf.random.stateless_uniform((8, 256, 256, 3), (0, 1), 0, 255)
    boxes = tf.tile([[[0.2, 0.3, 0.7, 0.8]]], [8, 1, 1])
    rows = {"boxes": boxes, "classes": tf.zeros([8, 1], tf.int32)}
    rows["ignore"] = tf.zeros([8, 1], tf.bool)
    return lambda: model.train_on_batch(images, rows)


def serve(side, dtype):
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(timing.THREADS)
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    cases = {
        name: learner(kind(dtype=policy), shape, dtype)
        for name, (kind, shape) in make_layers(side).items()
    }
    about = {"Keras": keras.__version__, "TensorFlow": tf.__version__}
    timing.serve({**cases, STEP: stepper(side, dtype)}, about)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    print(timing.machine(), timing.HEADER, sep="\n\n")
    for dtype in DTYPES:
        command = [sys.executable, __file__, "--serve"]
        with (
            timing.Worker([*command, SIDES[0], dtype]) as keras,
            timing.Worker([*command, SIDES[1], dtype]) as here,
        ):
            for case in here.cases:
                both = {"keras": (keras, case), "here": (here, case)}
                seconds = timing.interleave(both, args.rounds)
                print(
                    timing.row(f"{case}, {dtype}", "Keras' layers", **_sides(seconds)), flush=True
                )


def _sides(seconds):
    return {"theirs": seconds["keras"], "ours": seconds["here"]}


if __name__ == "__main__":
    main()
