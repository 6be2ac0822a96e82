"""Fine-tune a classifier on pictures in class folders, measure it, and export it.

    python scripts/finetune.py --data FOLDER

takes ResNet-18 with its ImageNet weights and a new output layer, which learns at a hundred times
the rate of the rest; batch norm keeps its statistics. FOLDER holds train/CLASS/PICTURE and
val/CLASS/PICTURE (or test/); `--data hotdog` is the book's data set. Without --data it learns
generated shapes from random weights, which needs no network. README.md says how long it takes and
what to expect.
"""

import argparse
import re

import kerascv_d2l
from kerascv_d2l.errors import InputError
from kerascv_d2l.training import add_run_arguments, arguments, run_main, set_up

TASK = "finetune"
GENERATED = "generated"
PREPARED = ("hotdog",)
GENERATED_TRAIN, GENERATED_VAL, GENERATED_SIZE = 2000, 400, (64, 64)
EPOCHS, GENERATED_EPOCHS = 5, 8
# Share of a picture in a training window, at least: the book's; and what leaves a shape its form.
CROP_AREA, GENERATED_CROP_AREA = 0.08, 0.5
IMAGENET_SIZE = (224, 224)
HEAD = "head"
# The new layer starts from nothing. The book's factor, and what goes with Adam's lower rate.
BOOK_HEAD_MULTIPLIER, HEAD_MULTIPLIER = 10.0, 100.0
# Pretrained statistics of batch norm stay as they are, so small batches do no harm.
BATCH_SIZE, SCRATCH_BATCH_SIZE = 8, 32
NUM_DRAWN = 16
# (fine-tuning, from scratch). Of the mean loss, measured: README.md. Of the summed one: D2L 1.0.3,
# section 14.2.
MEAN_LOSS_RATES = {"adam": (3e-5, 1e-3), "sgd": (1e-3, 1e-2)}
SUM_LOSS_RATES = (5e-5, 5e-4)
MEAN_LOSS_RECIPE = {
    "optimizer": "adam",
    "schedule": "cosine",
    "momentum": 0.9,
    "weight_decay": 1e-4,
}
SUM_LOSS_RECIPE = {
    "optimizer": "sgd",
    "schedule": "constant",
    "momentum": 0.0,
    "weight_decay": 1e-3,
}


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("data and model").add_argument
    add(
        "--data",
        default=GENERATED,
        metavar="NAME|FOLDER",
        help="a folder with train/ and val/ (or test/), in each a folder of pictures for every "
        f"class; or {' or '.join(PREPARED)}, which is downloaded where it is not at hand (default: "
        "generated shapes)",
    )
    arguments.add_archive_arguments(add)
    add(
        "--image-size",
        type=arguments.image_size,
        metavar="PIXELS",
        help="what the network gets: 224, or HEIGHTxWIDTH. Test pictures are resized to 256/224 "
        f"of it and their middle is taken (default: {IMAGENET_SIZE[0]}, {GENERATED_SIZE[0]} for "
        "generated shapes)",
    )
    add(
        "--crop-area",
        type=arguments.fraction,
        metavar="SHARE",
        help="least share of a picture that a training window shows (default: "
        f"{CROP_AREA:g}; {GENERATED_CROP_AREA:g} for generated shapes)",
    )
    arguments.add_backbone_arguments(
        add, "resnet18", weights_default="imagenet; random for generated shapes"
    )
    add("--from-scratch", action="store_true", help="start from random weights, at one rate")
    add(
        "--head-init",
        action="append",
        type=_class_index,
        default=[],
        metavar="CLASS=INDEX",
        help="start the output unit of a class as unit INDEX of the network the weights are of: "
        "hotdog=934 (may be repeated)",
    )
    add = parser.add_argument_group("optimizer").add_argument
    add(
        "--head-multiplier",
        type=arguments.positive_float,
        metavar="FACTOR",
        help="learning rate of the new output layer, as a multiple of the others' (default: "
        f"{HEAD_MULTIPLIER:g}; {BOOK_HEAD_MULTIPLIER:g} with sgd; 1 from scratch)",
    )
    add(
        "--freeze",
        action="append",
        default=[],
        metavar="PATTERN",
        help="layers that do not learn, as a regular expression of whole names: 'conv1|layer1_.*'; "
        f"'(?!{HEAD}).*' is all but the output layer (may be repeated)",
    )
    add(
        "--freeze-batch-norm",
        action=argparse.BooleanOptionalAction,
        help="keep the statistics, scales and offsets that batch norm has learnt (default: where "
        "there are weights, but not with --sum-loss)",
    )
    add(
        "--sum-loss",
        action="store_true",
        help="the book's recipe: plain SGD at a constant rate; rate and weight decay are for "
        "the sum of a batch's losses and converted to the mean: rate x batch, decay / batch",
    )
    arguments.add_optimizer_arguments(add, "adam; sgd with --sum-loss")
    mean, total = MEAN_LOSS_RATES["adam"], SUM_LOSS_RATES
    add_run_arguments(
        parser,
        epochs=None,
        epochs_help=f"passes over the training set (default: {EPOCHS}; {GENERATED_EPOCHS} for "
        "generated shapes)",
        batch_size=None,
        batch_size_help="images in a step, on all devices together (default: "
        f"{BATCH_SIZE}; {SCRATCH_BATCH_SIZE} from scratch and with --sum-loss)",
        learning_rate=None,
        learning_rate_help="step size of the optimizer at the start, for the mean of a batch's "
        f"losses (default of adam: {mean[0]:g}; from scratch {mean[1]:g}), or for their sum with "
        "--sum-loss "
        f"(default: {total[0]:g}; from scratch {total[1]:g})",
        out="runs/finetune",
    )
    args = parser.parse_args(argv)
    arguments.check_data(args, PREPARED, [GENERATED])
    if args.from_scratch and args.weights:
        parser.error("--from-scratch starts from random weights: leave --weights out")
    if args.weights is None and not args.from_scratch and args.data != GENERATED:
        args.weights = "imagenet"
    scratch = args.weights is None
    generated = args.data == GENERATED
    if args.image_size is None:
        args.image_size = GENERATED_SIZE if generated else IMAGENET_SIZE
    if args.epochs is None:
        args.epochs = GENERATED_EPOCHS if generated else EPOCHS
    if args.crop_area is None:
        args.crop_area = GENERATED_CROP_AREA if generated else CROP_AREA
    if args.sum_loss and args.optimizer == "adam":
        parser.error("--sum-loss converts rates of SGD: Adam's steps do not grow with the loss")
    arguments.fill_in(args, SUM_LOSS_RECIPE if args.sum_loss else MEAN_LOSS_RECIPE)
    if args.learning_rate is None:
        rates = SUM_LOSS_RATES if args.sum_loss else MEAN_LOSS_RATES[args.optimizer]
        args.learning_rate = rates[scratch]
    if args.head_multiplier is None:
        factor = HEAD_MULTIPLIER if args.optimizer == "adam" else BOOK_HEAD_MULTIPLIER
        args.head_multiplier = 1.0 if scratch else factor
    if args.freeze_batch_norm is None:
        args.freeze_batch_norm = not (scratch or args.sum_loss)
    if args.batch_size is None:
        args.batch_size = BATCH_SIZE if args.freeze_batch_norm else SCRATCH_BATCH_SIZE
    return args


def _class_index(text):
    name, _, index = text.rpartition("=")
    if not name or not index.isdecimal():
        raise argparse.ArgumentTypeError(f"expected CLASS=INDEX, as hotdog=934, got {text!r}")
    return name, int(index)


def load_data(args):
    if args.data == GENERATED:
        return kerascv_d2l.generate_classification(
            GENERATED_TRAIN, GENERATED_VAL, args.seed, image_size=2 * args.image_size[0]
        )
    if args.data in PREPARED:
        return kerascv_d2l.read_classification(
            args.data, data_dir=args.data_dir, archive=args.archive, skip_bad=args.skip_bad
        )
    return kerascv_d2l.read_classification_folder(args.data, skip_bad=args.skip_bad)


def build_model(args, class_names, steps):
    """A compiled classifier; says what it learns at which rates. `steps`: of the whole training."""
    import keras

    from kerascv_d2l.devices import resolve_jit_compile
    from kerascv_d2l.training import optimizer_class, scheduled_rate

    head_init = {}
    for name, index in args.head_init:
        if name not in class_names:
            raise InputError(
                f"--head-init {name}={index}: the classes are {', '.join(class_names)}"
            )
        head_init[class_names.index(name)] = index
    model = kerascv_d2l.classifier(
        args.backbone,
        len(class_names),
        weights=args.weights,
        input_shape=(*args.image_size, 3),
        head_init=head_init,
    )
    frozen = list(args.freeze)
    if args.freeze_batch_norm:
        norms = (la for la in model.layers if isinstance(la, keras.layers.BatchNormalization))
        frozen += [re.escape(layer.name) for layer in norms]
    if frozen:
        kerascv_d2l.freeze(model, frozen)
    if not model.trainable_variables:
        raise InputError(f"--freeze {' '.join(args.freeze)}: nothing is left to learn")
    rate, decay = args.learning_rate, args.weight_decay
    if args.sum_loss:
        rate, decay = kerascv_d2l.mean_loss_rates(rate, decay, args.batch_size)
    make_optimizer, settings = optimizer_class(args)
    optimizer = kerascv_d2l.layer_rates(
        model,
        scheduled_rate(rate, args.schedule, steps),
        {HEAD: args.head_multiplier},
        make_optimizer,
        weight_decay=decay,
        **settings,
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=resolve_jit_compile("auto"),
    )
    learning = sum(v.shape.num_elements() for v in model.trainable_variables)
    given = (
        f"{args.learning_rate:g} for the sum of {args.batch_size} losses is {rate:g} for their mean"
        if args.sum_loss
        else f"{rate:g} for the mean of the losses"
    )
    print(
        f"{args.backbone}, weights {args.weights or 'random'}: {learning:,} of "
        f"{model.count_params():,} parameters learn; learning rate {given}, "
        f"x {args.head_multiplier:g} for the output layer; {args.optimizer}, {args.schedule} rate, "
        f"weight decay {decay:.2g}",
        flush=True,
    )
    return model


def measure(model, batches, split, class_names):
    """Measure a classifier on a split.

    Returns:
        Tuple of the metrics, the confusion matrix `(classes, classes)` with true
        classes in rows, and the probabilities `(n, classes)`.
    """
    import numpy as np
    import tensorflow as tf

    logits = model.predict(batches, verbose=0)  # (n, classes)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(split.labels, logits)
    probabilities = tf.nn.softmax(logits).numpy()
    predicted = probabilities.argmax(axis=1)
    count = len(class_names)
    matrix = np.bincount(split.labels * count + predicted, minlength=count**2)
    matrix = matrix.reshape(count, count)
    found = np.diag(matrix) / np.maximum(matrix.sum(axis=1), 1)
    metrics = {
        "accuracy": float(np.mean(predicted == split.labels)),
        "loss": float(np.mean(losses)),
        "accuracy_by_class": dict(zip(class_names, found, strict=True)),
    }
    return metrics, matrix, probabilities


def draw_worst(path, data, probabilities, image_size):
    """Draw the test pictures whose true class it gives the least probability.

    Returns:
        list of dicts: name, true class, predicted class, probability of both.
    """
    import numpy as np

    split, names = data.val, data.class_names
    truth = probabilities[np.arange(len(split)), split.labels]
    worst = np.argsort(truth, kind="stable")[:NUM_DRAWN]
    part, probabilities = split.subset(worst), probabilities[worst]
    images, labels = next(iter(kerascv_d2l.classification_batches(part, image_size, NUM_DRAWN)))
    kerascv_d2l.draw_mistakes(path, images.numpy(), part.names, labels, probabilities, names)
    return [
        {
            "picture": name,
            "class": names[label],
            "probability": float(row[label]),
            "predicted": names[row.argmax()],
            "predicted_probability": float(row.max()),
        }
        for name, label, row in zip(part.names, part.labels, probabilities, strict=True)
    ]


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
    print(data.describe(), flush=True)
    plan = kerascv_d2l.plan_epoch(len(data.train), args.batch_size, strategy)
    run = kerascv_d2l.Run.start(
        args, TASK, {"class_names": data.class_names, "num_train": len(data.train)}
    )
    with strategy.scope():
        model = build_model(args, data.class_names, plan.steps * args.epochs)

    test = kerascv_d2l.classification_batches(
        data.val,
        args.image_size,
        kerascv_d2l.evaluation_batch_size(len(data.val), args.batch_size, strategy),
    )

    def train_batches(epoch):
        return kerascv_d2l.classification_batches(
            data.train,
            args.image_size,
            args.batch_size,
            training=True,
            crop_area=(args.crop_area, 1.0),
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
        callbacks=[kerascv_d2l.LogRates()],
    )

    print("measuring, drawing, exporting …", flush=True)
    metrics, matrix, probabilities = measure(model, test, data.val, data.class_names)
    # Of the last epoch: while it learnt, on pictures cut at random.
    metrics["train_accuracy"] = run.history["accuracy"][-1]
    kerascv_d2l.draw_confusion(run.path("confusion.png"), matrix, data.class_names)
    metrics["confusion"] = matrix
    metrics["worst"] = draw_worst(run.path("worst.png"), data, probabilities, args.image_size)
    run.save_model(model)
    kerascv_d2l.export_classifier(
        model,
        run.path("saved_model"),
        data.class_names,
        args.image_size,
        kerascv_d2l.resized_size(args.image_size),
    )
    command = ["python", "scripts/classify.py", str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    run_main(main)
