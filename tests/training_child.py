"""A toy training script that can be killed at chosen moments; run by test_training.py.

`python training_child.py` reads a list of {"argv", "kill", "env"} as JSON from
stdin and runs each in a fork of its own, one after the other, so that
TensorFlow is imported once. It prints one JSON line with exit status (negative:
the signal) and output of each.
"""

import argparse
import json
import os
import signal
import sys
import tempfile

IMAGES, BATCH, SIZE, CLASSES = 37, 8, 9, 3  # the last of five batches holds 5 images
STEPS = 5


def parser():
    """Make the toy's parser."""
    from kerascv_d2l.training import add_run_arguments

    parser = argparse.ArgumentParser()
    add_run_arguments(parser, epochs=4, batch_size=BATCH, learning_rate=0.01, out="toy")
    parser.add_argument("--optimizer", default="adam", choices=["adam", "multi"])
    return parser


def make_model(args):
    """Make a model with everything that has state: batch norm, dropout, Adam."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE + 2, 3)),
            layers.Conv2D(4, 3, strides=2, name="body"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(CLASSES, name="head"),
        ]
    )
    rate = args.learning_rate
    optimizer = keras.optimizers.Adam(rate, name="body")
    if args.optimizer == "multi":
        head = keras.optimizers.SGD(10 * rate, momentum=0.9, name="head")
        optimizer = keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(optimizer, {"head/.*": head})
        )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_data(args):
    """Make `make_train_dataset` and validation data of images with a colour cast by class."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(7)
    labels = rng.integers(0, CLASSES, 2 * IMAGES)
    images = rng.normal(size=(2 * IMAGES, SIZE, SIZE + 2, 3)).astype("float32")
    images += np.eye(3, dtype="float32")[labels][:, None, None, :]

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(IMAGES), seed=tf.stack([tf.cast(args.seed, tf.int64), epoch])
        )
        data = tf.data.Dataset.from_tensor_slices(order)
        return data.map(lambda i: (tf.gather(images, i), tf.gather(labels, i))).batch(BATCH)

    def make_train_dataset(initial_epoch):
        return tf.data.Dataset.range(initial_epoch, 2**40).flat_map(one_epoch).prefetch(2)

    validation = tf.data.Dataset.from_tensor_slices((images[IMAGES:], labels[IMAGES:]))
    return make_train_dataset, validation.batch(BATCH)


def main(argv=None):
    """Train the toy."""
    args = parser().parse_args(argv)
    from kerascv_d2l.training import Run, set_up

    strategy = set_up(args)
    import keras
    import numpy as np

    run = Run.start(args, "toy", {"num_classes": CLASSES})
    make_train_dataset, validation = make_data(args)
    with strategy.scope():
        model = make_model(args)
    callbacks = [
        keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=0.05),
        keras.callbacks.EarlyStopping(patience=30, restore_best_weights=True),
    ]
    if kill := os.environ.get("TOY_KILL"):
        callbacks.append(_killer(keras, kill))
    run.fit(
        model,
        make_train_dataset,
        steps_per_epoch=STEPS,
        epochs=args.epochs,
        images_per_epoch=IMAGES,
        validation_data=validation,
        callbacks=callbacks,
    )
    metrics = model.evaluate(validation, verbose=0, return_dict=True)
    np.savez(run.path("weights.npz"), *model.get_weights())
    return run.finish(metrics, next_command=["python", "classify.py", str(run.out)])


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _killer(keras, kill):
    """Make a callback that kills this process: `EPOCH:STEP`, or `EPOCH:half|before|after`."""
    epoch_to_die, moment = kill.split(":")
    epoch_to_die = int(epoch_to_die)

    class Killer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == epoch_to_die and moment == str(batch):
                _die()

        def on_epoch_end(self, epoch, logs=None):
            if epoch == epoch_to_die:
                _break_writing(moment)

    return Killer()


def _break_writing(moment):
    """Make the next checkpoint die half written, just before or just after it gets its name."""
    import numpy as np

    from kerascv_d2l.training import checkpoints

    savez, whole = np.savez, checkpoints.whole

    def half(path, **arrays):
        savez(path, **arrays)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        _die()

    def before(path, **arrays):
        savez(path, **arrays)
        _die()

    class After:
        def __init__(self, path):
            self.inner = whole(path)

        def __enter__(self):
            return self.inner.__enter__()

        def __exit__(self, *error):
            self.inner.__exit__(*error)
            _die()

    if moment == "after":
        checkpoints.whole = After
    elif moment in ("half", "before"):
        np.savez = {"half": half, "before": before}[moment]


def _serve():
    import kerascv_d2l.training

    kerascv_d2l.training.import_tensorflow()
    results = []
    for job in json.load(sys.stdin):
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                os.environ["TOY_KILL"] = job.get("kill", "")
                sys.argv = ["toy.py", *job["argv"]]
                try:
                    kerascv_d2l.training.run_main(main)
                    status = 0
                except SystemExit as end:
                    status = end.code
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    status = 1
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            _, status = os.waitpid(child, 0)
            output.seek(0)
            code = os.waitstatus_to_exitcode(status)
            results.append({"status": code, "output": output.read()})
    print(json.dumps(results))


if __name__ == "__main__":
    _serve()
