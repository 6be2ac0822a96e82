"""Train the book's small ResNet-18 on pictures of 32 x 32 pixels, measure it, and export it.

    python scripts/train_cifar10.py --data cifar10

learns CIFAR-10 as the book does: Adam at 1e-3, batch 256, 10 epochs, pictures mirrored by chance.
It is downloaded by tensorflow-datasets unless it is prepared; --archive FILE takes
cifar-10-binary.tar.gz or cifar-10-python.tar.gz. --data FOLDER learns from a folder with
train/CLASS/PICTURE and test/CLASS/PICTURE. Without --data it learns ten generated shapes, which
needs no network. README.md says how long it takes and what to expect.
"""

import argparse

import kerascv_d2l
from kerascv_d2l.training import (
    add_run_arguments,
    add_schedule_argument,
    arguments,
    run_main,
    set_up,
)

TASK = "train_cifar10"
CIFAR10, GENERATED = "cifar10", "generated"
AUGMENTATIONS = ("none", "flip", "crop-flip", "color", "all")
SIZE = (32, 32)
# The book's, and what fits into some minutes on two cores: few pictures, so small batches for
# as many updates as there is time for, and a rate that falls, so that the last ones settle.
RECIPE = {"epochs": 10, "batch_size": 256, "schedule": "constant"}
GENERATED_RECIPE = {"epochs": 4, "batch_size": 32, "schedule": "cosine"}
GENERATED_TRAIN, GENERATED_VAL = 2000, 500
LEARNING_RATE = 1e-3


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("data").add_argument
    add(
        "--data",
        default=GENERATED,
        metavar="FOLDER",
        help="a folder with train/ and val/ (or test/), in each a folder of pictures for every "
        "class, which are resized to 32 x 32; or cifar10 (default: generated shapes)",
    )
    arguments.add_archive_arguments(add)
    add(
        "--augment",
        choices=AUGMENTATIONS,
        default="flip",
        help="what is done to training pictures: mirrored by chance (flip, the book's); moved by "
        "up to 4 pixels and mirrored (crop-flip); brightness, contrast, saturation and hue drawn "
        "(color); all of it (default: %(default)s)",
    )
    defaults = {
        name: f"{value}; {GENERATED_RECIPE[name]} for generated shapes"
        for name, value in RECIPE.items()
    }
    group = add_run_arguments(
        parser,
        epochs=None,
        epochs_help=f"passes over the training set (default: {defaults['epochs']})",
        batch_size=None,
        batch_size_help="images in a step, on all devices together (default: "
        f"{defaults['batch_size']})",
        learning_rate=LEARNING_RATE,
        out="runs/train_cifar10",
    )
    add_schedule_argument(group.add_argument, defaults["schedule"])
    args = parser.parse_args(argv)
    arguments.check_data(args, (CIFAR10,), (GENERATED,))
    arguments.fill_in(args, GENERATED_RECIPE if args.data == GENERATED else RECIPE)
    return args


def load_data(args):
    data = kerascv_d2l.read_cifar10(
        args.data,
        archive=args.archive,
        data_dir=args.data_dir,
        skip_bad=args.skip_bad,
        seed=args.seed,
        num_train=GENERATED_TRAIN,
        num_val=GENERATED_VAL,
    )
    print(data.describe(), flush=True)
    if args.data == GENERATED:
        print(
            f"  a run to try things out, of {args.epochs} epochs of {len(data.train)} pictures in "
            f"batches of {args.batch_size}; --data {CIFAR10} is the book's, of {RECIPE['epochs']} "
            f"epochs of 50000 in batches of {RECIPE['batch_size']}",
            flush=True,
        )
    return data


def build_model(args, num_classes, steps):
    """A compiled network; `steps` is the length of the whole training."""
    import keras

    from kerascv_d2l.devices import resolve_jit_compile
    from kerascv_d2l.training import scheduled_rate

    model = kerascv_d2l.resnet18(num_classes)
    model.compile(
        keras.optimizers.Adam(scheduled_rate(args.learning_rate, args.schedule, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=resolve_jit_compile("auto"),
    )
    return model


def main(argv=None):
    """Train, measure, draw, export.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    strategy = set_up(args)
    data = load_data(args)
    plan = kerascv_d2l.plan_epoch(len(data.train), args.batch_size, strategy)
    run = kerascv_d2l.Run.start(
        args, TASK, {"class_names": data.class_names, "num_train": len(data.train)}
    )
    with strategy.scope():
        model = build_model(args, len(data.class_names), plan.steps * args.epochs)

    test = kerascv_d2l.cifar10_batches(
        data.val, kerascv_d2l.evaluation_batch_size(len(data.val), args.batch_size, strategy)
    )

    def train_batches(epoch):
        return kerascv_d2l.cifar10_batches(
            data.train,
            args.batch_size,
            training=True,
            augment=args.augment,
            seed=args.seed,
            initial_epoch=epoch,
            drop_remainder=plan.drop_remainder,
        )

    run.fit(
        model,
        train_batches,
        steps_per_epoch=plan.steps,
        epochs=args.epochs,
        images_per_epoch=plan.images,
        validation_data=test,
        callbacks=[kerascv_d2l.LiveCurves(run.history)],
    )

    print("measuring, drawing, exporting …", flush=True)
    tested = model.evaluate(test, verbose=0, return_dict=True)
    metrics = {
        "accuracy": tested["accuracy"],
        "loss": tested["loss"],
        # Of the last epoch: while it learnt, on augmented pictures.
        "train_accuracy": run.history["accuracy"][-1],
        "train_loss": run.history["loss"][-1],
    }
    kerascv_d2l.draw_curves(run.path("curves.png"), run.history)
    run.save_model(model)
    kerascv_d2l.export_classifier(model, run.path("saved_model"), data.class_names, SIZE, SIZE)
    command = ["python", "scripts/classify.py", str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    run_main(main)
