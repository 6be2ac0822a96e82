"""Train a single-shot detector, measure it, draw what it finds and export it.

    python scripts/train_ssd.py

trains the book's TinySSD on generated pictures, which need no network. `--data FOLDER` takes
pictures of your own: Pascal VOC XML, COCO JSON, or the layout of the banana data set; `--data
banana_detection` and `--data voc2012_segmentation` are the book's own data sets. `--backbone
mobilenet --weights imagenet` puts the same head on a pretrained network. README.md says how long
it takes and what to expect.
"""

import argparse

import kerascv_d2l
from kerascv_d2l.data.generated import CLASS_NAMES
from kerascv_d2l.training import add_run_arguments, arguments, run_main, set_up

TASK = "train_ssd"
GENERATED = "generated"
PREPARED = ("banana_detection", "voc2012_segmentation")
# Enough to learn from, few enough for four minutes on two cores.
GENERATED_TRAIN, GENERATED_VAL, GENERATED_SIZE = 1600, 200, (128, 128)
FOLDER_SIZE = (256, 256)  # the book's
AUGMENTATIONS = ("none", "ssd", "mosaic")
# Generated pictures are new scenes already, and are kept in memory.
GENERATED_AUGMENTATION, FOLDER_AUGMENTATION = "none", "none"
NUM_DRAWN, DRAWN_SCORE = 16, 0.5
# What the loss and optimizer flags are where they are not given.
RECIPES = {
    # Liu et al. 2016, "SSD", section 2.2, but Adam and a falling rate in place of tuned steps,
    # and L1, which here gives tighter boxes than smooth L1 (mAP.50:.95 .57 against .55).
    "ssd": {
        "optimizer": "adam",
        "learning_rate": 2e-3,
        "momentum": 0.0,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "class_loss": "cross_entropy",
        "box_loss": "l1",
        "negatives": 3.0,
        "normalizer": "positives",
    },
    # D2L 1.0.3, section 14.7.2.
    "book": {
        "optimizer": "sgd",
        "learning_rate": 0.2,
        "momentum": 0.0,
        "schedule": "constant",
        "weight_decay": 5e-4,
        "class_loss": "cross_entropy",
        "box_loss": "l1",
        "negatives": 0.0,
        "normalizer": "anchors",
    },
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
        help=f"a folder with pictures and boxes, or {' or '.join(PREPARED)}, which are downloaded "
        "where they are not at hand (default: generated pictures)",
    )
    arguments.add_archive_arguments(add)
    add(
        "--num-classes",
        type=arguments.positive_int,
        default=1,
        metavar="N",
        help=f"classes of generated pictures, up to {len(CLASS_NAMES)} (default: %(default)s)",
    )
    add(
        "--image-size",
        type=arguments.image_size,
        metavar="PIXELS",
        help="what pictures are brought to: 256, or HEIGHTxWIDTH (default: "
        f"{GENERATED_SIZE[0]} for generated pictures, else {FOLDER_SIZE[0]})",
    )
    arguments.add_backbone_arguments(add, "tiny", own="tiny, which is the book's; ")
    add(
        "--map-every",
        type=arguments.positive_int,
        default=5,
        metavar="N",
        help="epochs between measurements of mean average precision (default: %(default)s)",
    )
    add(
        "--augment",
        choices=AUGMENTATIONS,
        help="ssd: zoom out, crop, mirror and change colours at random; mosaic: the same for half "
        "of the pictures, mosaics of four for the other half; none: pictures as they are (default: "
        f"{GENERATED_AUGMENTATION} for generated pictures, else {FOLDER_AUGMENTATION})",
    )
    add_loss_arguments(parser)
    add_run_arguments(
        parser,
        epochs=13,
        batch_size=32,
        learning_rate=None,
        learning_rate_help="step size of the optimizer, at the start (default: by --recipe)",
        out="runs/train_ssd",
    )
    args = parser.parse_args(argv)
    arguments.check_data(args, PREPARED, [GENERATED])
    arguments.fill_in(args, RECIPES[args.recipe])
    if args.image_size is None:
        args.image_size = GENERATED_SIZE if args.data == GENERATED else FOLDER_SIZE
    if args.augment is None:
        generated = args.data == GENERATED
        args.augment = GENERATED_AUGMENTATION if generated else FOLDER_AUGMENTATION
    return args


def add_loss_arguments(parser):
    group = parser.add_argument_group("loss and optimizer (defaults by --recipe)")
    group.add_argument(
        "--recipe",
        choices=sorted(RECIPES),
        default="ssd",
        help="ssd: Adam along a cosine, the hardest 3 negatives for each positive; "
        "book: SGD at a constant 0.2, all anchors (default: %(default)s)",
    )
    arguments.add_optimizer_arguments(group.add_argument, "by --recipe")
    group.add_argument("--class-loss", choices=("cross_entropy", "focal"))
    group.add_argument("--box-loss", choices=("l1", "smooth_l1"))
    group.add_argument(
        "--negatives",
        type=arguments.non_negative_float,
        metavar="N",
        help="background anchors to learn from for each anchor with an object, the hardest "
        "first; 0 for all",
    )
    group.add_argument(
        "--normalizer",
        choices=("anchors", "positives"),
        help="divide the losses by the number of all anchors, or of those with an object",
    )
    for name, default, what in (
        ("class-weight", 1.0, "weight of the class loss"),
        ("box-weight", 1.0, "weight of the box loss"),
        ("sigma", 1.0, "σ of smooth L1: the larger, the closer to L1"),
        ("alpha", 1.0, "α of the focal loss"),
        ("gamma", 2.0, "γ of the focal loss"),
    ):
        kind = arguments.positive_float if name == "sigma" else arguments.non_negative_float
        text = f"{what} (default: {default:g})"
        group.add_argument(f"--{name}", type=kind, default=default, metavar="X", help=text)


def load_data(args):
    if args.data == GENERATED:
        return kerascv_d2l.generate_detection(
            GENERATED_TRAIN, GENERATED_VAL, args.seed, args.num_classes, args.image_size
        )
    if args.data in PREPARED:
        return kerascv_d2l.read_detection(
            args.data,
            image_size=args.image_size,
            data_dir=args.data_dir,
            archive=args.archive,
            skip_bad=args.skip_bad,
        )
    return kerascv_d2l.read_detection_folder(args.data, seed=args.seed, skip_bad=args.skip_bad)


def augmentation(args):
    """What `detection_batches` needs for `--augment`."""
    if args.augment == "none":
        return {}
    if args.augment == "ssd":
        transform, partners = kerascv_d2l.ssd_transform(args.image_size), 0
    else:
        transform, partners = kerascv_d2l.mosaic_transform(args.image_size), 3
    return {"transform": transform, "full_resolution": True, "partners": partners}


def build_model(args, class_names, steps):
    """A compiled detector; `steps` is the length of the whole training."""
    from kerascv_d2l.training import optimizer_class, scheduled_rate

    model = kerascv_d2l.SSD(
        len(class_names),
        base=args.backbone,
        weights=args.weights,
        image_size=args.image_size,
        class_names=class_names,
    )
    loss = kerascv_d2l.SSDLoss(
        class_loss=args.class_loss,
        box_loss=args.box_loss,
        class_weight=args.class_weight,
        box_weight=args.box_weight,
        sigma=args.sigma,
        alpha=args.alpha,
        gamma=args.gamma,
        negatives_per_positive=args.negatives or None,
        normalizer=args.normalizer,
    )
    make_optimizer, settings = optimizer_class(args)
    rate = scheduled_rate(args.learning_rate, args.schedule, steps)
    model.compile(make_optimizer(rate, weight_decay=args.weight_decay, **settings), loss)
    return model


def draw(path, model, batches, class_names):
    """Draw the first pictures of a data set, with what the model finds in them."""
    images, labels = next(iter(batches.unbatch().batch(NUM_DRAWN)))
    kerascv_d2l.draw_detections(
        path, images.numpy(), model.detect(images), labels.numpy(), class_names, DRAWN_SCORE
    )


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
    run = kerascv_d2l.Run.start(args, TASK, {"class_names": data.class_names})
    with strategy.scope():
        model = build_model(args, data.class_names, plan.steps * args.epochs)

    def train_batches(epoch):
        return kerascv_d2l.detection_batches(
            data.train,
            args.image_size,
            args.batch_size,
            training=True,
            seed=args.seed,
            initial_epoch=epoch,
            drop_remainder=plan.drop_remainder,
            **augmentation(args),
        )

    validation = kerascv_d2l.detection_batches(
        data.val,
        args.image_size,
        kerascv_d2l.evaluation_batch_size(len(data.val), args.batch_size, strategy),
    )
    run.fit(
        model,
        train_batches,
        steps_per_epoch=plan.steps,
        epochs=args.epochs,
        images_per_epoch=plan.images,
        validation_data=validation,
        callbacks=[kerascv_d2l.MeanAveragePrecisionCallback(validation, every=args.map_every)],
    )

    print("measuring, drawing, exporting …", flush=True)
    metrics = kerascv_d2l.evaluate_detections(model, validation)
    by_class = metrics.pop("ap_50_by_class")
    metrics["ap_50_by_class"] = {data.class_names[k]: ap for k, ap in by_class.items()}
    figures = model.evaluate(validation, verbose=0, return_dict=True)
    metrics |= {name: figures[name] for name in ("loss", "class_error", "bbox_mae")}
    draw(run.path("detections.png"), model, validation, data.class_names)
    run.save_model(model)
    kerascv_d2l.export_detector(model, run.path("saved_model"))
    kerascv_d2l.export_detector_lite(model, run.path("model.tflite"))
    return run.finish(
        metrics, next_command=["python", "scripts/detect.py", str(run.path("saved_model")), "IMAGE"]
    )


if __name__ == "__main__":
    run_main(main)
