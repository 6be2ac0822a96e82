"""Train an image classifier, measure it and export it.

    python scripts/train_classifier.py --data FOLDER

fine-tunes ResNet-18 with its ImageNet weights on a folder with a folder of images for each class.
The new output layer learns at a hundred times the rate of the rest; batch norm keeps its
statistics. `--data hotdog` is the book's data set. `--data cifar10` trains the book's small
ResNet-18 on CIFAR-10, from scratch. Without --data it learns generated shapes from random weights,
which needs no network; `--backbone resnet18_small` learns ten of them at 32 x 32 pixels.

    python scripts/train_classifier.py --boxes --data FOLDER

learns class and box of the one object of each image, from data with boxes as detectors take it.
"""

import re

import kerascv_d2l as d2l
from kerascv_d2l import cli
from kerascv_d2l.errors import InputError

TASK = "train_classifier"
GENERATED, CIFAR10 = "generated", "cifar10"
NAMES = (GENERATED, "hotdog", CIFAR10)
SMALL_BACKBONE, SMALL_SIZE = "resnet18_small", (32, 32)
IMAGENET_SIZE, GENERATED_SIZE = (224, 224), (64, 64)
AUGMENTATIONS = ("crop", "none", "flip", "crop-flip", "color", "all")
# Least share of an image in a random crop: the book's; and what leaves a shape its form.
CROP_AREA, GENERATED_CROP_AREA = 0.08, 0.5
HEAD, BOX = "head", "box.*"  # the output layer; the layers that find a box
BOX_EPOCHS = 25  # of fine-tuning: places take longer to learn than names
NUM_DRAWN = 16

# What is not given, by kind of training. Rates are for the mean loss; measured, see
# docs/experiments.md. Pretrained batch norm keeps its statistics, so small batches work.
FINE_TUNING = {
    "optimizer": "adam",
    "learning_rate": 3e-5,
    "schedule": "cosine",
    "momentum": 0.0,
    "weight_decay": 1e-4,
    "head_multiplier": 100.0,
    "freeze_batch_norm": True,
    "batch_size": 8,
    "epochs": 5,
}
FROM_SCRATCH = FINE_TUNING | {
    "learning_rate": 1e-3,
    "head_multiplier": 1.0,
    "freeze_batch_norm": False,
    "batch_size": 32,
}
# The book's of section 14.1 but for the batch. Adam takes the rate of a sum for that of a mean.
SMALL = FROM_SCRATCH | {"schedule": "constant", "weight_decay": None, "epochs": 10}
SMALL_BOOK = SMALL | {"batch_size": 256}
# The book's rates are for the sum of the losses of a batch: D2L 1.0.3, section 14.2.
BOOK = {
    "optimizer": "sgd",
    "schedule": "constant",
    "momentum": 0.0,
    "freeze_batch_norm": False,
    "batch_size": 128,
    "epochs": 5,
}
BOOK_RATE, BOOK_SCRATCH_RATE, BOOK_DECAY, BOOK_MULTIPLIER = 5e-5, 5e-4, 1e-3, 10.0


def parse(argv=None):
    parser = cli.parser(__doc__)
    group = cli.add_data_arguments(
        parser,
        NAMES,
        GENERATED,
        help_text="a folder with a folder of images for each class, in train/ and val/ or without "
        f"a split; or {' or '.join(NAMES[1:])}, which is downloaded if needed (default: generated "
        "shapes)",
    )
    cli.add_boxes_on_argument(group)
    group = cli.add_model_arguments(
        parser,
        None,
        own=f"resnet18 (default); {SMALL_BACKBONE} (default for {CIFAR10}); ",
        weights_default="imagenet; none, which is random, for generated shapes and "
        f"{SMALL_BACKBONE}",
    )
    group.add_argument(
        "--image-size",
        type=cli.image_size,
        metavar="PIXELS",
        help="size of the network's input: 224, or HEIGHTxWIDTH. Images for validation are resized "
        f"to 256/224 of it and cropped (default: {IMAGENET_SIZE[0]}; {GENERATED_SIZE[0]} for "
        f"generated shapes; {SMALL_SIZE[0]}, without a crop, for {SMALL_BACKBONE})",
    )
    group.add_argument(
        "--freeze",
        action="append",
        default=[],
        metavar="PATTERN",
        help="layers that do not learn, as a regular expression of whole names: 'conv1|layer1_.*'; "
        f"'(?!{HEAD}).*' is all but the output layer (may be repeated); none for not even batch "
        "norm, which keeps its statistics, scales and offsets with weights, but not with --recipe "
        "book",
    )
    group.add_argument(
        "--boxes",
        action="store_true",
        help="localisation: learn from data with boxes where the object of an image is, too; of "
        "several the largest counts",
    )
    group = cli.add_optimizer_arguments(
        parser,
        ("default", "book"),
        "default",
        help_text="default: Adam, along a cosine; book: the book's, plain SGD, of which rate and "
        "weight decay are converted from the sum of the losses to their mean; for "
        f"{SMALL_BACKBONE} Adam at a constant rate, batch {SMALL_BOOK['batch_size']}",
    )
    group.add_argument(
        "--head-multiplier",
        type=cli.positive_float,
        metavar="FACTOR",
        help="learning rate of the output layer, as a multiple of the others' (default: "
        f"{FINE_TUNING['head_multiplier']:g}; {BOOK_MULTIPLIER:g} with --recipe book; 1 from "
        "random weights)",
    )
    group.add_argument(
        "--augment",
        choices=AUGMENTATIONS,
        help="crop: random resized crop and flip; of the whole image: none; flip; crop-flip, moved "
        "by up to 4 pixels; color; all of these (default: crop; flip, the book's, for "
        f"{SMALL_BACKBONE})",
    )
    group.add_argument(
        "--class-weights",
        choices=("none", "balanced"),
        default="none",
        help="balanced: rare classes weigh more in the loss (default: %(default)s)",
    )
    cli.add_training_arguments(parser, TASK, defaults="by --data and --recipe")
    args = parser.parse_args(argv)
    if args.boxes and args.class_weights == "balanced":
        raise InputError("class_weights balanced: not with --boxes")
    if args.boxes_on and not args.boxes:
        raise InputError(f"boxes_on {args.boxes_on}: only with --boxes")
    if "none" in args.freeze:
        args.freeze = [pattern for pattern in args.freeze if pattern != "none"]
        args.freeze_batch_norm = False
    fill_in_data(args)
    fill_in_training(args)
    return args


def fill_in_data(args):
    """Choose the network and the sizes that suit `--data`."""
    if args.backbone is None:
        args.backbone = SMALL_BACKBONE if args.data == CIFAR10 else "resnet18"
    args.small = args.backbone == SMALL_BACKBONE
    if args.weights is None:
        args.weights = "none" if args.small or args.data == GENERATED else "imagenet"
    if args.image_size is None:
        generated = GENERATED_SIZE if args.data == GENERATED else IMAGENET_SIZE
        args.image_size = SMALL_SIZE if args.small else generated
    if args.augment is None:
        args.augment = "flip" if args.small else "crop"


def fill_in_training(args):
    """Choose what is not given of the training, by kind."""
    scratch = args.weights == "none"
    generated = args.data == GENERATED
    if args.recipe == "book" and not args.small:
        cli.fill_in(args, BOOK | {"head_multiplier": 1.0 if scratch else BOOK_MULTIPLIER})
    elif args.small and (args.recipe == "book" or args.data == CIFAR10):
        cli.fill_in(args, SMALL_BOOK)
    elif args.small:  # on few images more and smaller batches learn
        few = {"epochs": 4, "schedule": "cosine"} if generated else {}
        cli.fill_in(args, SMALL | few)
    else:
        more = {"epochs": 16 if args.boxes else 8} if generated else {}
        if args.boxes and not (generated or scratch):
            more = {"epochs": BOX_EPOCHS}
        cli.fill_in(args, (FROM_SCRATCH if scratch else FINE_TUNING) | more)


def fill_in_rates(args):
    """Choose the rates that depend on the batch size, once that is known."""
    if args.recipe == "book" and not args.small:
        sum_rate = BOOK_SCRATCH_RATE if args.weights == "none" else BOOK_RATE
        rate, decay = d2l.mean_loss_rates(sum_rate, BOOK_DECAY, args.batch_size)
        cli.fill_in(args, {"learning_rate": rate, "weight_decay": decay})


def load_data(args):
    generated = {"num_train": 2000, "num_val": 400}
    if args.small:
        generated |= {"num_val": 500, "num_classes": 10, "scenes": "one-light"}
        generated["image_size"] = args.image_size
    else:
        generated["image_size"] = (2 * args.image_size[0],) * 2
    if args.boxes:
        generated |= {"scenes": "one", "num_classes": 4}
    data = d2l.load(
        args.data,
        "detection" if args.boxes else "classification",
        seed=args.split_seed,
        val_fraction=args.val_fraction,
        skip_bad=args.skip_bad,
        archive=args.archive,
        data_dir=args.data_dir,
        boxes_on=args.boxes_on,
        **(generated if args.data == GENERATED else {}),
    )
    return d2l.keep_largest_object(data) if args.boxes else data


def weights_of(args):
    """`--weights` as the library takes it."""
    return None if args.weights == "none" else args.weights


def crop(args):
    """How images for validation are cropped: those of the small network, or with boxes, are not."""
    return {"crop_pct": 1.0} if args.small or args.boxes else {}


def build_model(args, data, steps):
    """Build and compile a classifier, and say what learns; `steps`: of the whole training."""
    import keras

    model = (d2l.Localizer if args.boxes else d2l.Classifier)(
        args.backbone,
        data.class_names,
        weights=weights_of(args),
        image_size=args.image_size,
        **crop(args),
    )
    frozen = list(args.freeze)
    if args.freeze_batch_norm:
        norms = (la for la in model.layers if isinstance(la, keras.layers.BatchNormalization))
        frozen += [re.escape(layer.name) for layer in norms]
    if frozen:
        d2l.freeze(model, frozen)
    if not model.trainable_variables:
        raise InputError(f"freeze {' '.join(args.freeze)}: nothing is left to learn")
    new = dict.fromkeys([HEAD, BOX] if args.boxes else [HEAD], args.head_multiplier)
    optimizer = d2l.make_optimizer(
        args.optimizer,
        args.learning_rate,
        schedule=args.schedule,
        steps=steps,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        model=model,
        multipliers=None if args.head_multiplier == 1 else new,
    )
    loss = {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }  # a localizer has its own
    jit_compile = d2l.resolve_jit_compile("auto")
    model.compile(optimizer, **({} if args.boxes else loss), jit_compile=jit_compile)
    learning = sum(v.shape.num_elements() for v in model.trainable_variables)
    print(
        f"{args.backbone}, weights {args.weights}: {learning:,} of {model.count_params():,} "
        f"parameters learn; {args.optimizer}, {args.schedule} rate {args.learning_rate:g} for the "
        f"mean loss, x {args.head_multiplier:g} for the output layer, weight decay "
        f"{args.weight_decay or 0:.2g}",
        flush=True,
    )
    return model


def train_batches(args, data, run):
    """Endless augmented batches of the training images."""
    if args.augment == "crop":
        # With boxes, too, the object should be in the crop.
        area = GENERATED_CROP_AREA if args.data == GENERATED or args.boxes else CROP_AREA
        transform = d2l.classification_augmentation(args.image_size, (area, 1.0))
    else:
        transform = d2l.small_augmentation(args.augment)
    return run.batches(
        data.train, args.image_size, args.batch_size, transform=transform, seed=args.seed
    )


def draw_worst(path, args, data, worst, probabilities):
    """Draw the validation images whose true class got the least probability."""
    part = data.val.subset(worst)
    images, labels = next(iter(d2l.batches(part, args.image_size, len(part), **crop(args))))
    d2l.draw_mistakes(
        path, images.numpy(), part.names, labels, probabilities[worst], data.class_names
    )


def draw_boxes(path, args, data, answers):
    """Draw the first validation images with the box that is found and the true one."""
    part = data.val.subset(range(min(NUM_DRAWN, len(data.val))))
    images, labels = next(iter(d2l.batches(part, args.image_size, len(part))))
    probabilities = answers["probabilities"][: len(part)]
    found = {
        "boxes": answers["boxes"][: len(part), None],
        "scores": probabilities.max(axis=1, keepdims=True),
        "classes": probabilities.argmax(axis=1)[:, None],
    }
    d2l.draw_detections(path, images.numpy(), found, labels, data.class_names, 0)


def main(argv=None):
    """Train, measure, draw, export.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    strategy = cli.set_up(args)
    d2l.check_weights(args.backbone, weights_of(args))
    data = load_data(args)
    print(data.describe(), flush=True)
    cli.fit_batch_size(args, data.train, strategy)
    fill_in_rates(args)
    run = cli.start_run(args, strategy, TASK, data)
    steps = d2l.steps_per_epoch(data.train, args.batch_size)
    with strategy.scope():
        model = build_model(args, data, steps * args.epochs)
        run.watch(model)

    validation = d2l.evaluation_batches(
        data.val, args.image_size, args.batch_size, strategy, **crop(args)
    )
    balanced = args.class_weights == "balanced"
    model.fit(
        train_batches(args, data, run),
        epochs=args.epochs,
        initial_epoch=run.initial_epoch,
        steps_per_epoch=steps,
        validation_data=validation,
        class_weight=dict(enumerate(data.balancing_weights())) if balanced else None,
        shuffle=False,  # the data does it
        verbose=run.verbose,
        callbacks=[d2l.LiveCurves(run.history), run],
    )
    run.save_model(model)

    if args.boxes:
        metrics, answers = d2l.evaluate_localization(model.localize, validation, data.class_names)
        probabilities, labels = answers["probabilities"], answers["labels"]
    else:
        metrics, probabilities = d2l.evaluate_classification(model, validation, data.class_names)
        labels = data.val.targets["label"]
    # Of the last epoch, while it learned, on augmented images.
    metrics["train_accuracy"] = run.history["accuracy"][-1]
    metrics["train_loss"] = run.history["loss"][-1]
    d2l.export.save(model, run.path("saved_model"))
    with run.drawing("curves.png") as path:
        d2l.draw_curves(path, run.history)
    with run.drawing("confusion.png") as path:
        d2l.draw_confusion(path, metrics["confusion"], data.class_names)
    worst, metrics["worst"] = d2l.worst_images(
        probabilities, labels, data.val.names, data.class_names, NUM_DRAWN
    )
    if args.boxes:
        with run.drawing("boxes.png") as path:
            draw_boxes(path, args, data, answers)
    else:
        with run.drawing("worst.png") as path:
            draw_worst(path, args, data, worst, probabilities)
    command = ["python", cli.script("predict.py"), str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    cli.run_main(main)
