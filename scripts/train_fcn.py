"""Train a network that gives a class to every pixel, measure it, draw and export it.

    python scripts/train_fcn.py

trains FCN-8s on generated scenes, which need no network. `--data FOLDER` takes pictures of your
own: images/, masks/ with class indices or colours, train.txt and val.txt; or VOC2012. `--data
voc2012_segmentation` is the book's data set. `--model fcn32` is the book's network, `--backbone
mobilenet --weights imagenet` a pretrained one. README.md says how long it takes and what to expect.
"""

import argparse

import kerascv_d2l
from kerascv_d2l.data.generated import CLASS_NAMES, SceneSettings
from kerascv_d2l.training import add_run_arguments, arguments, run_main, set_up

TASK = "train_fcn"
GENERATED = "generated"
PREPARED = ("voc2012_segmentation",)
AUGMENTATIONS = ("none", "flip", "scale")
MODELS = ("fcn32", "fcn16", "fcn8", "unet")
# Enough to learn from, few enough for four minutes on two cores.
GENERATED_TRAIN, GENERATED_VAL, GENERATED_SIZE, GENERATED_EPOCHS = 1500, 100, (96, 96), 5
# One or two large things, turned little: from random weights a network learns no others in minutes.
SCENES = SceneSettings(
    max_objects=2,
    object_size=(0.5, 0.85),
    empty=0.0,
    clutter=0,
    occlusion=0.15,
    min_visible=0.6,
    texture=0.5,
    turn=0.125,
)
FOLDER_SIZE, FOLDER_EPOCHS = (320, 480), 20  # the size is the book's
NUM_DRAWN = 8
# What the optimizer flags are where they are not given.
RECIPES = {
    "adam": {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "momentum": 0.0,
        "weight_decay": 1e-4,
        "schedule": "cosine",
    },
    # D2L 1.0.3, section 14.11: 1e-3 and 1e-3 for the sum of a batch of 32, here for their mean.
    "book": {
        "optimizer": "sgd",
        "learning_rate": 3.2e-2,
        "momentum": 0.0,
        "weight_decay": 3.1e-5,
        "schedule": "constant",
    },
}


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_arguments(parser)
    add = parser.add_argument_group("model").add_argument
    add(
        "--model",
        choices=MODELS,
        default="fcn8",
        help="fcn32 is the book's; 16 and 8 add finer feature maps; unet concatenates all of "
        "them (default: %(default)s)",
    )
    arguments.add_backbone_arguments(add, "resnet18")
    add(
        "--fixed-upsampling",
        action="store_true",
        help="enlarge scores by bilinear interpolation that does not learn",
    )
    add(
        "--flip-test",
        action="store_true",
        help="measure and export with each window's scores averaged with those of its mirror "
        "image, at twice the time",
    )
    add_optimizer_arguments(parser)
    add_run_arguments(
        parser,
        epochs=None,
        batch_size=8,
        learning_rate=None,
        learning_rate_help="step size of the optimizer, at the start (default: by --recipe)",
        out="runs/train_fcn",
    )
    args = parser.parse_args(argv)
    arguments.check_data(args, PREPARED, [GENERATED])
    generated = args.data == GENERATED
    arguments.fill_in(args, RECIPES[args.recipe])
    if args.crop_size is None:
        args.crop_size = GENERATED_SIZE if generated else FOLDER_SIZE
    if args.epochs is None:
        args.epochs = GENERATED_EPOCHS if generated else FOLDER_EPOCHS
    if args.augment is None:
        args.augment = "flip" if generated else "scale"
    if (args.classes or args.void) and (generated or args.data in PREPARED):
        parser.error("--classes and --void are for a folder's masks")
    return args


def add_data_arguments(parser):
    add = parser.add_argument_group("data").add_argument
    add(
        "--data",
        default=GENERATED,
        metavar="NAME|FOLDER",
        help=f"a folder with images/ and masks/ (README.md), or {' or '.join(PREPARED)}, which is "
        "downloaded where it is not at hand (default: generated scenes)",
    )
    arguments.add_archive_arguments(add)
    add(
        "--classes",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="NAME,NAME,…",
        help="names of the indices 0, 1, … in the masks, instead of classes.txt in the folder",
    )
    add(
        "--void",
        action="append",
        default=[],
        metavar="INDEX|NAME",
        help="a class of the masks that counts for nothing, as index 255 does (may be repeated)",
    )
    add(
        "--num-classes",
        type=arguments.positive_int,
        default=4,
        metavar="N",
        help=f"kinds of objects in generated scenes, up to {len(CLASS_NAMES)} (default: "
        "%(default)s)",
    )
    add(
        "--crop-size",
        type=arguments.image_size,
        metavar="PIXELS",
        help="windows to train on: 320, or HEIGHTxWIDTH (default: "
        f"{GENERATED_SIZE[0]} for generated scenes, else {FOLDER_SIZE[0]}x{FOLDER_SIZE[1]})",
    )
    add(
        "--augment",
        choices=AUGMENTATIONS,
        help="flip: mirror by chance; scale: enlarge by .5 to 2 as well (default: flip for "
        "generated scenes, else scale)",
    )

    add(
        "--validate-every",
        type=arguments.positive_int,
        default=1,
        metavar="N",
        help="epochs between measurements on the validation pictures (default: %(default)s)",
    )


def add_optimizer_arguments(parser):
    add = parser.add_argument_group("loss and optimizer (defaults by --recipe)").add_argument
    add(
        "--recipe",
        choices=sorted(RECIPES),
        default="adam",
        help="adam: Adam along a cosine; book: plain SGD at a constant rate (default: %(default)s)",
    )
    arguments.add_optimizer_arguments(add, "by --recipe")
    add(
        "--class-weights",
        choices=("none", "balanced"),
        default="none",
        help="balanced: pixels of rare classes weigh more in the loss (default: %(default)s)",
    )


def load_data(args):
    if args.data == GENERATED:
        return kerascv_d2l.generate_segmentation(
            GENERATED_TRAIN, GENERATED_VAL, args.seed, args.num_classes, args.crop_size, SCENES
        )
    if args.data in PREPARED:
        return kerascv_d2l.read_segmentation(
            args.data, data_dir=args.data_dir, archive=args.archive, skip_bad=args.skip_bad
        )
    return kerascv_d2l.read_segmentation_folder(
        args.data, seed=args.seed, skip_bad=args.skip_bad, classes=args.classes, void=args.void
    )


def build_model(args, data, steps):
    """A compiled network; `steps` is the length of the whole training."""
    from kerascv_d2l.devices import resolve_jit_compile
    from kerascv_d2l.training import optimizer_class, scheduled_rate

    count = len(data.class_names)
    if args.model == "unet":
        upsampling = "bilinear" if args.fixed_upsampling else "learned"
        model = kerascv_d2l.UNet(count, args.backbone, args.weights, upsampling=upsampling)
    else:
        model = kerascv_d2l.FCN(
            count,
            args.backbone,
            args.weights,
            stride=int(args.model.removeprefix("fcn")),
            trainable_upsampling=not args.fixed_upsampling,
        )
    make_optimizer, settings = optimizer_class(args)
    rate = scheduled_rate(args.learning_rate, args.schedule, steps)
    weights = data.balancing_weights() if args.class_weights == "balanced" else None
    model.compile(
        make_optimizer(rate, weight_decay=args.weight_decay, **settings),
        kerascv_d2l.SegmentationCrossEntropy(class_weight=weights),
        metrics=[kerascv_d2l.SegmentationMetrics(count, ignored_as=None)],
        jit_compile=resolve_jit_compile("auto"),
    )
    return model


def measure(segment, data):
    """Figures on the whole validation pictures, as in `metrics.json`."""
    from kerascv_d2l.metrics.segmentation import pixel_accuracy

    pictures = kerascv_d2l.whole_pictures(data.val)
    metrics = kerascv_d2l.evaluate_segmentation(segment, pictures, data.class_names)
    if data.class_names[0] == "background" and data.val.pixels[kerascv_d2l.VOC_VOID]:
        # The book counts void pixels as background.
        metrics["pixel_accuracy_book"] = float(pixel_accuracy(metrics["confusion"]))
    return metrics


def draw(path, segment, data):
    """Draw some validation pictures from all over the list: neighbours are often alike."""
    count = len(data.val)
    chosen = [k * count // NUM_DRAWN for k in range(NUM_DRAWN)] if count > NUM_DRAWN else None
    pairs = kerascv_d2l.whole_pictures(data.val, chosen).as_numpy_iterator()
    images, truths = zip(*pairs, strict=True)
    predictions = [segment(image).numpy() for image in images]
    kerascv_d2l.draw_segmentation(path, images, predictions, truths, data.class_names, data.colors)


def main(argv=None):
    """Train, measure, draw, export.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    strategy = set_up(args)
    from kerascv_d2l.models.segmenter import WINDOW
    from kerascv_d2l.pipelines.segmentation import check_crop_size, count_windows

    data = load_data(args)
    print(data.describe(), flush=True)
    check_crop_size(data.train, args.crop_size)
    plan = kerascv_d2l.plan_epoch(len(data.train), args.batch_size, strategy)
    run = kerascv_d2l.Run.start(
        args, TASK, {"class_names": data.class_names, "num_train": len(data.train)}
    )
    with strategy.scope():
        model = build_model(args, data, plan.steps * args.epochs)

    run.fit(
        model,
        lambda epoch: kerascv_d2l.segmentation_batches(
            data.train,
            args.crop_size,
            args.batch_size,
            training=True,
            seed=args.seed,
            initial_epoch=epoch,
            drop_remainder=plan.drop_remainder,
            augment=args.augment,
        ),
        steps_per_epoch=plan.steps,
        epochs=args.epochs,
        images_per_epoch=plan.images,
        validation_data=kerascv_d2l.segmentation_batches(
            data.val,
            WINDOW,
            kerascv_d2l.evaluation_batch_size(
                count_windows(data.val, WINDOW), args.batch_size, strategy
            ),
        ),
        validation_freq=[
            *range(args.validate_every, args.epochs, args.validate_every),
            args.epochs,
        ],
    )

    print("measuring, drawing, exporting …", flush=True)
    segment = kerascv_d2l.Segmenter(model, flip=args.flip_test)
    metrics = measure(segment, data)
    draw(run.path("segmentation.png"), segment, data)
    run.save_model(model)
    kerascv_d2l.export_segmenter(
        model, run.path("saved_model"), data.class_names, data.colors, flip=args.flip_test
    )
    kerascv_d2l.export_segmenter_lite(model, run.path("model.tflite"), args.crop_size)
    command = ["python", "scripts/segment.py", str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    run_main(main)
