"""A toy training script that can be killed at chosen moments; run by test_run.py.

`python training_child.py JOBS` runs each of a JSON list of {"argv", "kill"} in a fork of its own,
one after the other, so that TensorFlow is imported once. It prints one JSON line with exit status
(negative: the signal) and output of each.
"""

import json
import os
import signal
import sys
import tempfile

import children

IMAGES, BATCH, SIZE, CLASSES = 37, 8, 9, 3
STEPS = IMAGES // BATCH
TASK = "toy"
NOISE = 5  # what the GAN makes images of


def parser():
    """Make the toy's parser."""
    from kerascv_d2l import cli

    parser = cli.parser(__doc__)
    cli.add_optimizer_arguments(parser, ["toy"], "toy", help_text="the only one")
    cli.add_training_arguments(parser, TASK, epochs=4, batch_size=BATCH)
    parser.add_argument("--schedule", choices=["constant", "cosine"])
    parser.add_argument("--model", default="classifier", choices=["classifier", "rates", "gan"])
    return parser


def parse(argv=None):
    """Parse, and fill in what is not given."""
    from kerascv_d2l import cli

    args = parser().parse_args(argv)
    cli.fill_in(args, {"learning_rate": 0.01, "schedule": "constant"})
    return args


def make_model(args):
    """Make a model with everything that has state: batch norm, dropout, Adam."""
    import keras

    from kerascv_d2l.training.optimizers import make_optimizer

    if args.model == "gan":
        return make_gan(args.learning_rate)
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
    steps = STEPS * args.epochs
    optimizer = make_optimizer("adam", args.learning_rate, schedule=args.schedule, steps=steps)
    if args.model == "rates":
        optimizer = make_optimizer(
            "adam",
            args.learning_rate,
            schedule=args.schedule,
            steps=steps,
            model=model,
            multipliers={"head": 10},
        )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def make_gan(rate):
    """Make two models in one, with an optimizer each and noise from two seed generators."""
    import keras
    import tensorflow as tf

    layers, losses = keras.layers, keras.losses

    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            shape = (SIZE, SIZE + 2, 3)
            self.generator = keras.Sequential(
                [layers.Dense(SIZE * (SIZE + 2) * 3), layers.Reshape(shape)]
            )
            self.critic = keras.Sequential([layers.Flatten(), layers.Dropout(0.2), layers.Dense(1)])
            self.noise = keras.random.SeedGenerator(3)
            self.means = {name: keras.metrics.Mean(name=name) for name in ("d_loss", "g_loss")}

        @property
        def metrics(self):
            return list(self.means.values())

        def build(self, input_shape):
            self.generator.build((None, NOISE))
            self.critic.build(input_shape)
            self.built = True

        def compile(self, d_optimizer, g_optimizer):
            super().compile(jit_compile=False)
            self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
            self.d_optimizer.build(self.critic.trainable_variables)
            self.g_optimizer.build(self.generator.trainable_variables)

        def make(self, seed=None):
            return self.generator(keras.random.normal((BATCH, NOISE), seed=seed))

        def train_step(self, data):
            real, _ = data
            loss = losses.BinaryCrossentropy(from_logits=True)
            ones, zeros = tf.ones((BATCH, 1)), tf.zeros((BATCH, 1))
            with tf.GradientTape() as tape:
                d_loss = loss(ones, self.critic(real, training=True))
                d_loss += loss(zeros, self.critic(self.make(self.noise), training=True))
            weights = self.critic.trainable_variables
            self.d_optimizer.apply(tape.gradient(d_loss, weights), weights)
            with tf.GradientTape() as tape:
                g_loss = loss(ones, self.critic(self.make(), training=True))
            weights = self.generator.trainable_variables
            self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)
            self.means["d_loss"].update_state(d_loss)
            self.means["g_loss"].update_state(g_loss)
            return {name: mean.result() for name, mean in self.means.items()}

    gan = Gan()
    gan.build((None, SIZE, SIZE + 2, 3))
    gan.compile(keras.optimizers.Adam(rate), keras.optimizers.RMSprop(rate / 2))
    return gan


def make_data(seed, initial_epoch):
    """Make training batches from an epoch on, and validation batches.

    The images have a colour cast by class.
    """
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(7)
    labels = rng.integers(0, CLASSES, 2 * IMAGES)
    images = rng.normal(size=(2 * IMAGES, SIZE, SIZE + 2, 3)).astype("float32")
    images += np.eye(3, dtype="float32")[labels][:, None, None, :]

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(IMAGES), seed=tf.stack([tf.cast(seed, tf.int64), epoch])
        )
        data = tf.data.Dataset.from_tensor_slices(order)
        data = data.map(lambda i: (tf.gather(images, i), tf.gather(labels, i)))
        return data.batch(BATCH, drop_remainder=True)

    train = tf.data.Dataset.range(initial_epoch, 2**40).flat_map(one_epoch).prefetch(2)
    validation = tf.data.Dataset.from_tensor_slices((images[IMAGES:], labels[IMAGES:]))
    return train, validation.batch(BATCH)


def fit(run, model, args, callbacks=(), validate=True):
    """Train up to epoch `args.epochs`; the callbacks in a list of their own are not watched."""
    watched = [c for c in callbacks if not isinstance(c, list)]
    run.watch(model, *watched)
    train, validation = make_data(args.seed, run.initial_epoch)
    model.fit(
        train,
        epochs=args.epochs,
        initial_epoch=run.initial_epoch,
        steps_per_epoch=STEPS,
        validation_data=validation if validate else None,
        shuffle=False,
        callbacks=[*callbacks, run],
        verbose=run.verbose,
    )


def main(argv=None, strategy=None):
    """Train the toy."""
    args = parse(argv)
    from kerascv_d2l import cli

    strategy = strategy or cli.set_up(args)
    import keras
    import numpy as np

    from kerascv_d2l.training import run as run_module

    run_module.draw_history = children.draw_nothing
    keras.utils.set_random_seed(args.seed)
    run = cli.start_run(args, strategy, TASK, settings={"num_classes": CLASSES})
    with strategy.scope():
        model = make_model(args)
    callbacks = []
    if args.model != "gan":
        callbacks = [
            keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=0.05),
            keras.callbacks.EarlyStopping(patience=30, restore_best_weights=True),
        ]
        if args.schedule == "cosine":
            del callbacks[0]
    if kill := os.environ.get("TOY_KILL"):
        callbacks.append([_killer(keras, kill)])
    fit(run, model, args, callbacks, validate=args.model != "gan")
    variables = model.get_weights()
    if args.model == "gan":
        variables += [v.numpy() for v in model.d_optimizer.variables + model.g_optimizer.variables]
    np.savez(run.path("weights.npz"), *variables)
    metrics = {name: values[-1] for name, values in run.history.items() if "loss" in name}
    return run.finish(metrics, next_command=["python", "predict.py", str(run.out)])


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
    """Make the next checkpoint die half written, before or after it becomes the newest."""
    import tensorflow as tf

    manager = tf.train.CheckpointManager
    record = manager._record_state

    def half(self):
        path = f"{self.latest_checkpoint}.data-00000-of-00001"
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        _die()

    def before(self):
        _die()

    def after(self):
        record(self)
        _die()

    if moment in ("half", "before", "after"):
        manager._record_state = {"half": half, "before": before, "after": after}[moment]


def _serve(jobs):
    from kerascv_d2l import cli

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import kerascv_d2l.training.run  # noqa: F401 (once for all forks)

    results = []
    for job in json.loads(jobs):
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                os.environ["TOY_KILL"] = job.get("kill", "")
                os.chdir(job.get("folder", "."))
                sys.argv = ["toy.py", *job["argv"]]
                try:
                    cli.run_main(main)
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


def cluster(folder, *flags):
    """As one of several workers: train to the end, then again; or, resumed, only the second."""
    from kerascv_d2l import cli

    argv = ["--epochs", "3", "--out"]
    if "--resume" in flags:
        main([*argv, f"{folder}/killed", *flags])
        return
    args = parse(argv + [f"{folder}/whole", *flags])
    strategy = cli.set_up(args)
    kill = os.environ.pop("TOY_KILL", "")
    main([*argv, f"{folder}/whole", *flags], strategy)
    os.environ["TOY_KILL"] = kill
    main([*argv, f"{folder}/killed", *flags], strategy)


if __name__ == "__main__":
    if sys.argv[1:2] == ["cluster"]:
        from kerascv_d2l.cli import run_main

        run_main(lambda: cluster(*sys.argv[2:]))
    else:
        _serve(sys.argv[1])
