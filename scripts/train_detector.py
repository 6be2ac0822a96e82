"""Train an object detector, measure it, draw what it finds and export it.

    python scripts/train_detector.py --data FOLDER

trains on a folder of images with boxes (docs/data.md lists the layouts: Pascal VOC, COCO, YOLO and
others). `--data banana_detection` and `--data voc2012_segmentation` are the book's data sets.
Without --data it trains on generated images, which needs no network: 2 minutes on two cores, mAP
at IoU 0.5 about 0.97. `--model` chooses the detector, `--recipe book` is the book's training.
"""

import numpy as np

import kerascv_d2l as d2l
from kerascv_d2l import cli

TASK = "train_detector"
# Enough to learn from, few enough for four minutes on two cores; and scenes on which the models
# differ, for ten.
GENERATED = {
    "generated": {"num_train": 1600, "num_val": 200, "num_classes": 1},
    "generated_scenes": {"num_train": 1600, "num_val": 200},
}
NAMES = (*GENERATED, "banana_detection", "voc2012_segmentation")
GENERATED_SIZE = {"generated": (128, 128), "generated_scenes": (192, 192)}
BOOK_SIZE = (256, 256)
FOLDER_MODEL = "fcos"  # what measured best on small sets of photographs, see docs/experiments.md
MEASUREMENTS = 20  # of mean average precision in a training, about
AUGMENTATIONS = {
    "flip": "flip_augmentation",
    "flip-color": "flip_color_augmentation",
    "ssd": "ssd_augmentation",
    "mosaic": "mosaic_augmentation",
}
AT_THE_END = {"mosaic": "ssd"}  # the augmentation of the last epochs, where it is another one
NUM_DRAWN = 16


def parse(argv=None):
    parser = cli.parser(__doc__)
    group = cli.add_data_arguments(
        parser,
        NAMES,
        NAMES[0],
        help_text="a folder of images with boxes; generated_scenes, many small objects of four "
        "classes; banana_detection or voc2012_segmentation, which is downloaded if needed "
        "(default: generated images)",
    )
    cli.add_classes_argument(group)
    cli.add_boxes_on_argument(group)
    group = cli.add_model_arguments(
        parser,
        None,
        own="of all models but tinyssd, by default what suits the model and the weights: ",
        weights_default="imagenet for a folder, none for generated images and tinyssd",
    )
    group.add_argument(
        "--model",
        choices=sorted(d2l.DETECTORS),
        help="detector (default: fcos; for generated images and --recipe book tinyssd, the book's)",
    )
    group.add_argument(
        "--image-size",
        type=cli.image_size,
        metavar="PIXELS",
        help="size that images are resized to: 256, or HEIGHTxWIDTH (default: "
        f"{GENERATED_SIZE[NAMES[0]][0]} for generated images, {BOOK_SIZE[0]} for --recipe book, "
        "else by the size of the objects)",
    )
    group = cli.add_optimizer_arguments(
        parser,
        ("default", "book", "torchvision", "denoising"),
        "default",
        help_text="default: what suits the model; book (SSD): SGD at a constant 0.2, L1, all "
        "anchors; torchvision (R-CNN, RetinaNet, FCOS): its width, and its SGD for 16 images, with "
        "a cosine; denoising (DETR): noised objects as further queries",
    )
    group.add_argument(
        "--loss",
        choices=("ssd", "book", "focal"),
        help="loss: the hardest 3 negatives for each positive; all anchors; focal (default: by "
        "--recipe)",
    )
    group.add_argument(
        "--augment",
        choices=("none", *AUGMENTATIONS),
        help="flip: random flip; flip-color: and colours; ssd: random zoom out and crop, too; "
        "mosaic: the same, and mosaics of four for half of the images; on a folder the last fifth "
        "of the epochs has none (default: by --recipe)",
    )
    group.add_argument(
        "--multi-scale",
        type=cli.fraction_below_1,
        metavar="F",
        help="train on batches from 1 - F to 1 + F times as large as --image-size (default: by "
        "--recipe)",
    )
    group = cli.add_training_arguments(parser, TASK, defaults="by --recipe")
    parser.set_defaults(mixed_precision=None)
    group.add_argument(
        "--map-every",
        type=cli.positive_int,
        metavar="N",
        help="epochs between measurements of mean average precision; the best of them is kept "
        f"(default: some {MEASUREMENTS} in all)",
    )
    group.add_argument(
        "--patience",
        type=cli.positive_int,
        metavar="EPOCHS",
        help="stop after so many epochs without a better mean average precision (default: never)",
    )
    return parser.parse_args(argv)


def fill_in(args):
    """Choose what was not given: the model by the data, the rest but `epochs` by its recipe.

    Returns:
        dict, the recipe.
    """
    generated, book = args.data in GENERATED, args.recipe == "book"
    if args.model is None:
        args.model = "tinyssd" if args.backbone is None else "ssd"
        if not generated and not book:
            args.model = FOLDER_MODEL
    d2l.check_network(args.model, args.backbone, None if args.weights == "none" else args.weights)
    if args.image_size is None and (generated or book):
        args.image_size = GENERATED_SIZE.get(args.data, BOOK_SIZE)
    whole = d2l.detector_class(args.model).takes_whole(args.weights)
    recipe = d2l.detector_recipe(args.model, args.recipe, not generated, whole)
    if args.backbone is None and args.weights is not None:
        args.backbone = d2l.backbone_of(args.weights)
    cli.fill_in(args, {name: value for name, value in recipe.items() if name != "epochs"})
    args.backbone = args.backbone or d2l.detector_class(args.model).BACKBONE
    if args.weights == "none":
        args.weights = None
    published = args.recipe in ("book", "torchvision")
    if args.mixed_precision is None and (args.data == NAMES[0] or published):
        args.mixed_precision = False
    return recipe


def load_data(args):
    generated = {"image_size": args.image_size, **GENERATED.get(args.data, {})}
    return d2l.load(
        args.data,
        "detection",
        seed=args.split_seed,
        val_fraction=args.val_fraction,
        skip_bad=args.skip_bad,
        archive=args.archive,
        data_dir=args.data_dir,
        masks=d2l.detector_class(args.model).predicts_masks,
        classes=args.classes,
        boxes_on=args.boxes_on,
        **(generated if args.data in GENERATED else {}),
    )


def choose_by_labels(args, data, recipe):
    """Choose by the training images what was not given: their size, the epochs, the anchors.

    Returns:
        int, objects in the image with most.
    """
    rows = zip(*(data.train.targets[name] for name in ("boxes", "classes", "ignore")), strict=True)
    objects = [(boxes[~ignore], classes[~ignore]) for boxes, classes, ignore in rows]
    most = max(len(boxes) for boxes, _ in objects)
    boxes, classes = (np.concatenate(part) for part in zip(*objects, strict=True))
    if args.image_size is None:
        args.image_size = d2l.choose_image_size(boxes, classes, data.train.sizes)
        print(f"image size by the labels: {args.image_size}", flush=True)
    if args.epochs is None:
        steps = d2l.steps_per_epoch(data.train, args.batch_size)
        args.epochs = d2l.epochs_for(recipe, steps, args.image_size)
    if args.recipe == "book" or d2l.detector_class(args.model).takes_whole(args.weights):
        return most  # with anchors of their own
    chosen = d2l.detector_class(args.model).anchor_options(boxes, args.image_size)
    for name, value in chosen.items():
        print(f"{name.replace('_', ' ')} by the labels: {value}", flush=True)
    args.options = {**args.options, **chosen}
    return most


def build_model(args, class_names, steps):
    """Build and compile a detector; `steps` is the length of the whole training."""
    model = d2l.create_detector(
        args.model, class_names, args.image_size, args.backbone, args.weights, **args.options
    )
    optimizer = d2l.make_optimizer(
        args.optimizer,
        args.learning_rate,
        schedule=args.schedule,
        steps=steps,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        warmup=args.warmup,
        clip_norm=args.clip_norm,
        averaging=args.averaging,
        model=model,
        multipliers=model.backbone_multipliers(args.backbone_rate) if args.weights else None,
    )
    model.compile(optimizer, model.make_loss(args.loss))
    return model


def make_augmentation(name, image_size):
    return None if name == "none" else getattr(d2l, AUGMENTATIONS[name])(image_size)


def draw(path, model, data, image_size, masks):
    """Draw the first validation images with what the model finds in them."""
    shown = data.val.subset(range(min(NUM_DRAWN, len(data.val))))
    images, targets = next(iter(d2l.batches(shown, image_size, len(shown), masks=masks)))
    found = model.detect(images)
    d2l.draw_detections(
        path, images.numpy(), found, targets, data.class_names, model.score_threshold
    )


def training_batches(args, run, split, masks):
    """Batches of all epochs; mosaics and several sizes end with the plain epochs."""
    sizes = d2l.sizes_around(args.image_size, args.multi_scale)
    largest = tuple(sizes[0].tolist())
    end = make_augmentation(AT_THE_END.get(args.augment, args.augment), args.image_size)
    changes = {"image_size": args.image_size, "sizes": None, "transform": end}
    changing = args.augment in AT_THE_END or args.multi_scale
    return run.batches(
        split,
        largest,
        args.batch_size,
        sizes=sizes,
        transform=make_augmentation(args.augment, largest),
        last=(changes, round(args.plain_epochs * args.epochs)) if changing else None,
        seed=args.seed,
        masks=masks,
    )


def finish(args, run, model, data, validation, truth):
    """Measure what was trained, save and export it, and draw what it finds.

    Returns:
        dict of what was measured.
    """
    if args.mixed_precision:
        print("measured in float32, as the exported model computes", flush=True)
    model, loss = d2l.in_float32(model), model.loss
    model.compile(loss=loss)
    metrics = d2l.evaluate_detections(model, validation, truth)
    if np.isfinite(metrics["score_threshold"]):
        model.score_threshold = metrics["score_threshold"]
    run.save_model(model)
    d2l.export.save(model, run.path("saved_model"))
    d2l.export.save_lite(model, run.path("model.tflite"), args.image_size)
    with run.drawing("detections.png") as path:
        draw(path, model, data, args.image_size, model.predicts_masks)
    by_class = metrics["ap_50_by_class"]
    return metrics | {"ap_50_by_class": {data.class_names[k]: ap for k, ap in by_class.items()}}


def main(argv=None):
    """Train, measure, draw, export.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    recipe = fill_in(args)
    strategy = cli.set_up(args)
    d2l.detector_class(args.model).make_loss(args.loss)  # refused before anything is read
    if not d2l.detector_class(args.model).takes_whole(args.weights):
        d2l.check_weights(args.backbone, args.weights)
    data = load_data(args)
    print(data.describe(), flush=True)
    cli.fit_batch_size(args, data.train, strategy)
    most = choose_by_labels(args, data, recipe)
    steps = d2l.steps_per_epoch(data.train, args.batch_size)
    run = cli.start_run(args, strategy, TASK, data)
    product = "val_mask_map" if d2l.detector_class(args.model).predicts_masks else "val_map"
    averaged, best = d2l.AverageWeights(), d2l.KeepBest(product, args.patience)
    with strategy.scope():
        model = build_model(args, data.class_names, steps * args.epochs)
        rows = model.make_room(most)
        run.watch(model, averaged, best)

    text = f"detections: at most {rows} an image; of training images one has {most} objects"
    print(text, flush=True)

    masks = model.predicts_masks
    train = training_batches(args, run, data.train, masks)
    validation = d2l.evaluation_batches(
        data.val, args.image_size, args.batch_size, strategy, masks=masks
    )
    truth = data.val if masks else None
    every = args.map_every or max(1, args.epochs // MEASUREMENTS)
    measured = d2l.MeanAveragePrecisionCallback(validation, every, truth)
    run.announce(model, train, steps, len(data.val) * (args.epochs // every + 1))
    model.fit(
        train,
        epochs=args.epochs,
        initial_epoch=run.initial_epoch,
        steps_per_epoch=steps,
        shuffle=False,  # the data does it
        verbose=run.verbose,
        callbacks=[averaged, measured, best, run],
    )
    metrics = finish(args, run, model, data, validation, truth)
    command = ["python", cli.script("predict.py"), str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    cli.run_main(main)
