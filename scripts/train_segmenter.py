"""Train a network that gives a class to every pixel, measure it, draw and export it.

    python scripts/train_segmenter.py --data FOLDER

trains FCN-8s on a folder with images/ and masks/ (docs/data.md lists the layouts). `--data
voc2012_segmentation` is the book's data set, `--model fcn32` the book's network, `--recipe book`
its training, `--backbone mobilenet --weights imagenet` a pretrained network. Without --data it
trains on generated scenes, which needs no network.
"""

import kerascv_d2l as d2l
from kerascv_d2l import cli

TASK = "train_segmenter"
GENERATED = "generated"
NAMES = (GENERATED, "voc2012_segmentation")
AUGMENTATIONS = ("none", "flip", "scale")
MODELS = ("fcn32", "fcn16", "fcn8", "unet")
# Enough to learn from, few enough for four minutes on two cores.
GENERATED_SIZE, GENERATED_EPOCHS = (96, 96), 5
GENERATED_OPTIONS = {"num_train": 1500, "num_val": 100, "num_classes": 4, "scenes": "large"}
FOLDER_SIZE, FOLDER_EPOCHS = (320, 480), 20  # the size is the book's
NUM_DRAWN = 8
RECIPES = {
    "default": {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "momentum": 0.0,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "batch_size": 8,
    },
    # D2L 1.0.3, section 14.11.
    "book": {
        "optimizer": "sgd",
        "momentum": 0.0,
        "schedule": "constant",
        "batch_size": 32,
        "epochs": 5,
        "augment": "none",
    },
}
BOOK_RATE, BOOK_DECAY = 1e-3, 1e-3  # for the sum of the losses of a batch


def parse(argv=None):
    parser = cli.parser(__doc__)
    group = cli.add_data_arguments(
        parser,
        NAMES,
        GENERATED,
        help_text=f"a folder with images/ and masks/, or {NAMES[1]}, which is downloaded if needed "
        "(default: generated scenes)",
    )
    cli.add_classes_argument(group)
    cli.add_ignore_argument(group)
    group.add_argument(
        "--crop-size",
        type=cli.image_size,
        metavar="PIXELS",
        help="random crops for training: 320, or HEIGHTxWIDTH (default: "
        f"{GENERATED_SIZE[0]} for generated scenes, else {FOLDER_SIZE[0]}x{FOLDER_SIZE[1]})",
    )
    group.add_argument(
        "--augment",
        choices=AUGMENTATIONS,
        help="flip: random flip; scale: random scale of 0.5 to 2 as well (default: flip for "
        "generated scenes, else scale; none with --recipe book)",
    )
    group = cli.add_model_arguments(parser, "resnet18")
    group.add_argument(
        "--model",
        choices=MODELS,
        default="fcn8",
        help="fcn32 is the book's; 16 and 8 add finer feature maps; unet concatenates all of "
        "them (default: %(default)s)",
    )
    group = cli.add_optimizer_arguments(
        parser,
        RECIPES,
        "default",
        help_text="default: Adam along a cosine; book: plain SGD at a constant rate, "
        "which is converted from the sum of the losses to their mean",
    )
    group.add_argument(
        "--class-weights",
        choices=("none", "balanced"),
        default="none",
        help="balanced: pixels of rare classes weigh more in the loss (default: %(default)s)",
    )
    cli.add_training_arguments(parser, TASK, defaults="by --data and --recipe")
    args = parser.parse_args(argv)
    generated = args.data == GENERATED
    cli.fill_in(
        args,
        {
            "crop_size": GENERATED_SIZE if generated else FOLDER_SIZE,
            "epochs": GENERATED_EPOCHS if generated else FOLDER_EPOCHS,
            "augment": "flip" if generated else "scale",
        }
        | RECIPES[args.recipe],
    )
    if args.data in NAMES and (args.classes or args.ignore):
        parser.error("--classes and --ignore are for the masks of a folder")
    return args


def fill_in_rates(args):
    """Choose the rates that depend on the batch size, once that is known."""
    if args.recipe == "book":
        rate, decay = d2l.mean_loss_rates(BOOK_RATE, BOOK_DECAY, args.batch_size)
        cli.fill_in(args, {"learning_rate": rate, "weight_decay": decay})


def load_data(args):
    options = {"classes": args.classes, "ignore": args.ignore}
    if args.data == GENERATED:
        options = {"image_size": args.crop_size, **GENERATED_OPTIONS}
    elif args.data in NAMES:
        options = {}
    return d2l.load(
        args.data,
        "segmentation",
        seed=args.split_seed,
        val_fraction=args.val_fraction,
        skip_bad=args.skip_bad,
        archive=args.archive,
        data_dir=args.data_dir,
        **options,
    )


def build_model(args, data, steps):
    """Build and compile a network; `steps` is the length of the whole training."""
    network = d2l.UNet if args.model == "unet" else d2l.FCN
    stride = {} if args.model == "unet" else {"stride": int(args.model.removeprefix("fcn"))}
    model = network(data.class_names, args.backbone, args.weights, colors=data.colors, **stride)
    optimizer = d2l.make_optimizer(
        args.optimizer,
        args.learning_rate,
        schedule=args.schedule,
        steps=steps,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
    )
    weights = data.balancing_weights() if args.class_weights == "balanced" else None
    model.compile(
        optimizer,
        d2l.SegmentationCrossEntropy(class_weight=weights),
        metrics=[d2l.SegmentationMetrics(len(data.class_names), ignored_as=None)],
        jit_compile=d2l.resolve_jit_compile("auto"),
    )
    return model


def draw(path, segment, data):
    """Draw validation images from all over the list: neighbours are often alike."""
    count = min(NUM_DRAWN, len(data.val))
    shown = [k * len(data.val) // count for k in range(count)]
    pairs = d2l.whole_images(data.val, shown).as_numpy_iterator()
    images, truths = zip(*pairs, strict=True)
    predictions = [segment(image).numpy() for image in images]
    d2l.draw_segmentation(path, images, predictions, truths, data.class_names, data.colors)


def main(argv=None):
    """Train, measure, draw, export.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    if args.weights == "none":
        args.weights = None
    strategy = cli.set_up(args)
    d2l.check_weights(args.backbone, args.weights)
    data = load_data(args)
    print(data.describe(), flush=True)
    cli.fit_batch_size(args, data.train, strategy)
    fill_in_rates(args)
    d2l.check_crop_size(data.train, args.crop_size)
    run = cli.start_run(args, strategy, TASK, data)
    steps = d2l.steps_per_epoch(data.train, args.batch_size)
    with strategy.scope():
        model = build_model(args, data, steps * args.epochs)
        run.watch(model)

    train = run.batches(
        data.train,
        args.crop_size,
        args.batch_size,
        transform=d2l.segmentation_augmentation(args.crop_size, args.augment),
        seed=args.seed,
    )
    # The same windows of whole images for validation, for metrics.json and in the export.
    segment = d2l.Segmenter(model)
    validation = d2l.whole_images(data.val)
    model.fit(
        train,
        epochs=args.epochs,
        initial_epoch=run.initial_epoch,
        steps_per_epoch=steps,
        shuffle=False,  # the data does it
        verbose=run.verbose,
        callbacks=[
            d2l.SegmentationCallback(segment, validation, data.class_names),
            run,
        ],
    )
    run.save_model(model)

    metrics = d2l.evaluate_segmentation(segment, validation, data.class_names, loss=model.loss)
    if data.class_names[0] == "background" and data.val.num_ignored:
        # The book counts ignored pixels as background.
        metrics["pixel_accuracy_book"] = float(d2l.pixel_accuracy(metrics["confusion"]))
    d2l.export.save(model, run.path("saved_model"))
    d2l.export.save_lite(model, run.path("model.tflite"), args.crop_size)
    with run.drawing("segmentation.png") as path:
        draw(path, segment, data)
    command = ["python", cli.script("predict.py"), str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    cli.run_main(main)
