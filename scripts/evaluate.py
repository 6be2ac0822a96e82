"""Measure a trained model on labelled images, of its own run or of any other data.

    python scripts/evaluate.py runs/train_detector/saved_model FOLDER

MODEL is a SavedModel or a .keras file of a training script; it knows its task. SOURCE is whatever
the training scripts take: a folder in any layout, a prepared data set's name, or generated. Its
classes are matched by name. Where it has no validation split, the images of validation.txt beside
MODEL are measured on, if they are in it. Writes metrics.json (mAP, of masks too; accuracy and
confusion; mean IoU, each with its figure by class; for models that make images the scores of their
run), curves, and the images with the worst answers. Files that are there already are never
overwritten: new ones get a number.
"""

import collections
import dataclasses
import functools
import json
import os
import time
from pathlib import Path

import numpy as np

from kerascv_d2l import cli
from kerascv_d2l.data.load import NAMES
from kerascv_d2l.errors import InputError
from kerascv_d2l.files import NewFiles, plain
from kerascv_d2l.training.run_folder import SETTINGS

NUM_DRAWN = 8  # of the images with the worst answers
BATCH_SIZE = 16  # where all images have one size; others go one by one
MOST_SCORED = 1000  # images, for models that make them
IGNORED = 255  # label of mask pixels
ALL = "all"  # splits together
LABELLED = ("classification", "detection", "localization", "segmentation")
FOR_TASKS = {
    "classes": LABELLED,
    "ignore": LABELLED,
    "boxes_on": LABELLED,
    "score_threshold": ("detection",),
    "features": ("generation",),
}  # the data says which of the first three it takes


def parse(argv=None):
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder saved_model/ or file model.keras of a run")
    add(
        "source",
        type=cli.existing_path(NAMES),
        metavar="SOURCE",
        help="folder, name of a prepared data set, or generated",
    )
    add(
        "--split",
        choices=("train", "val", "test", ALL),
        default="val",
        help=f"the images to measure on; {ALL}: of all splits together (default: %(default)s)",
    )
    group = cli.add_data_arguments(parser, (), help_text="", without=("--data",))
    cli.add_classes_argument(group)
    cli.add_ignore_argument(group)
    cli.add_boxes_on_argument(group)
    add("--out", metavar="FOLDER", help="output folder (default: runs/evaluate, …-2, …)")
    add(
        "--score-threshold",
        type=cli.fraction,
        metavar="SCORE",
        help="detection: what is drawn, and counts in the choice of the worst images (default: "
        "the model's own, which training finds)",
    )
    add(
        "--features",
        metavar="FILE",
        help="generation: features.keras of a run (default: that beside MODEL)",
    )
    return parser.parse_args(argv)


def in_classes_of(model, data, split):
    """Number the classes of a split as the model does, by their names.

    Args:
        model: `LoadedModel`.
        data: `DataSet`, for the names.
        split: `Split`, one of its.

    Returns:
        `Split`; and for masks a table, uint8 `(256,)`, from a label to that of the model.

    Raises:
        InputError: if the data has a class that the model does not know.
    """
    names, theirs = data.class_names, model.class_names
    if set(names) != set(theirs) and len(names) == len(theirs) and _only_one_named(names, theirs):
        order = np.arange(len(names))
    elif unknown := [name for name in names if name not in theirs]:
        raise InputError(
            f"{data.source}: the model does not know {', '.join(unknown)}; it knows "
            f"{', '.join(theirs)} (--classes names the classes of data that has no names)"
        )
    else:
        order = np.array([theirs.index(name) for name in names])
    table = np.full(256, IGNORED, np.uint8)
    table[: len(order)] = order[:256]
    targets = dict(split.targets)
    if "label" in targets:
        targets["label"] = order[targets["label"]]
    elif "classes" in targets:
        targets["classes"] = [order[classes] for classes in targets["classes"]]
    return dataclasses.replace(split, targets=targets), table


def _only_one_named(one, other):
    """Whether one list of classes has names and the other numbers, or just 0, 1, 2 for none."""
    numbers = [all(name.isdecimal() for name in names) for names in (one, other)]
    counted = [str(k) for k in range(len(one))]
    return sum(numbers) == 1 or counted in (list(one), list(other))


def splits_of(data, model_path, name):
    """Give the splits of data with the validation images of the run that a model is of.

    Where the data has no validation split, which images are one is up to the flags of a training.
    Drawn anew by others, it has images that the model was trained on.

    Args:
        data: `DataSet`.
        model_path: path of the model; the run's list of images lies beside it.
        name: str, the name or folder of the data. Where it is not the one that was trained on, all
            of the list's images must be there: other data may have some of the names, too.

    Returns:
        dict as `DataSet.splits`; without `train` if nothing else is there.

    Raises:
        InputError: if the model was trained on this data, and none of the list's images is there.
    """
    path = Path(model_path).parent / cli.VALIDATION_FILE
    if not data.drawn or not path.is_file():
        return data.splits
    names = set(path.read_text(encoding="utf-8").split("\n")) - {""}
    images = data.train.joined(data.val)
    chosen = rows_called(names, images.names)
    own = _is_own(path, name)
    of_all = f"of the {len(names)} images of {path}"
    if own and len(chosen) == 0:
        raise InputError(
            f"{data.source}: none {of_all} is there, so which images the model was not trained on "
            f"is not known. Add them again, or measure on all images: --split {ALL}"
        )
    missing = len(names) - len(chosen)
    if len(chosen) == 0 or (missing and own is False):
        if len(chosen) or own is None:
            print(
                f"warning: {len(chosen)} {of_all} are in {data.source}, which is taken for other "
                "data than that of the training. If it is not, the model was trained on some of "
                "the images that are measured"
            )
        return data.splits
    print(f"val: the {len(chosen)} images of {path}, which the model was not trained on")
    if missing:
        print(f"warning: {missing} {of_all} are not in {data.source}")
    parts = {"train": np.setdiff1d(np.arange(len(images)), chosen), "val": chosen}
    splits = {name: images.subset(rows) for name, rows in parts.items() if len(rows)}
    return {**splits, "test": data.test} if data.test is not None else splits


def rows_called(listed, names):
    """Find the images of a list, whose names may begin in another folder.

    Names begin in the innermost folder that all images are in. An image more in another folder
    gives all names a beginning, `2.jpg` is now `images/2.jpg`; one less may take it away. So one
    beginning is added to all names of the list, or taken from all: that with which most are found,
    if it is the only one.

    Args:
        listed: set of str.
        names: list of str, of all images.

    Returns:
        int `(n,)`, the places of the images in `names`, in order.
    """
    rows = {name: k for k, name in enumerate(names)}
    found = collections.defaultdict(list)  # (beginning of the names, of the list's) -> rows
    for name, row in rows.items():
        for start, rest in _cuts(name):
            if rest in listed:
                found[start, ""].append(row)
    for name in listed:
        for start, rest in _cuts(name)[1:]:
            if rest in rows:
                found["", start].append(rows[rest])
    most = max(map(len, found.values()), default=0)
    best = [start for start, some in found.items() if len(some) == most]
    if ("", "") in best:
        best = [("", "")]
    return np.sort(found[best[0]] if len(best) == 1 else []).astype(int)


def _cuts(name):
    """Pairs of beginning and rest of a path, cut before each of its parts: `("a/b/", "c.jpg")`."""
    parts = name.split("/")
    return [("/".join(parts[:k] + [""]), "/".join(parts[k:])) for k in range(len(parts))]


def _is_own(path, name):
    """Whether the run of a file trained on the data at `name`; None if that is not known."""
    settings = path.with_name(SETTINGS)
    if not settings.is_file():
        return None
    trained_on = json.loads(settings.read_bytes())["settings"].get("data")
    return trained_on in (name, str(Path(name).resolve()))


def batches_of(split, masks=False):
    """Batches of images at their own sizes; `masks`: one by one, for those of a batch are large."""
    from kerascv_d2l.data.batches import batches

    same = not masks and (split.sizes == split.sizes[0]).all()
    return batches(split, None, BATCH_SIZE if same else 1, cache=False)


def worst_of(badness):
    """Indices of the highest values of float `(n,)`, the highest first."""
    return np.argsort(-np.asarray(badness), kind="stable")[:NUM_DRAWN]


def pixels_of(split):
    """List of the images of a split, uint8 `(height, width, 3)`."""
    return [split.image(k) for k in range(len(split))]


def padded(targets):
    """Objects of several images in arrays of one shape: rows of class -1 are none."""
    rows = max(1, *(len(boxes) for boxes in targets["boxes"]))

    def fill(values, value):
        return np.stack([np.concatenate([v, [value] * (rows - len(v))]) for v in values])

    boxes = [np.concatenate([b, np.full((rows - len(b), 4), -1.0)]) for b in targets["boxes"]]
    return {
        "boxes": np.stack(boxes).astype(np.float32),  # (n, rows, 4)
        "classes": fill(targets["classes"], -1).astype(np.int32),  # (n, rows)
        "ignore": fill(targets["ignore"], False).astype(bool),
    }


def evaluate_detector(model, split, table, args):
    """Measure a detector.

    Returns:
        Tuple of the metrics, a dict; names of the worst images, a list of str; and functions
        that draw, `{name of the file: function of its path}`.
    """
    from kerascv_d2l.metrics.detection import DetectionEvaluator
    from kerascv_d2l.plotting.detections import draw_detections
    from kerascv_d2l.plotting.evaluation import draw_precision_recall

    masks = model.predicts_masks and split.has_masks
    evaluator = DetectionEvaluator(split if masks else None)
    for images, labels in batches_of(split, model.predicts_masks):
        evaluator.update(labels, model.detect(images))
    metrics = evaluator.result()
    names = model.class_names
    metrics["ap_50_by_class"] = {names[k]: ap for k, ap in metrics["ap_50_by_class"].items()}
    least = model.score_threshold if args.score_threshold is None else args.score_threshold
    missed, false = evaluator.errors_by_image(least)  # (n,) each
    metrics |= {"missed": int(missed.sum()), "false_detections": int(false.sum())}
    part = split.subset(worst_of(missed + false))

    def draw_worst(path):
        images = pixels_of(part)
        found = [model.detect(image[None]) for image in images]
        labels, drawn = padded(part.targets), {}
        if masks:
            labels["masks"] = [list(part.instance_masks(k)) for k in range(len(part))]
        if model.predicts_masks:
            drawn["masks"] = [f["masks"][0] for f in found]
        found = {k: np.concatenate([f[k] for f in found]) for k in ("boxes", "scores", "classes")}
        draw_detections(path, images, found | drawn, labels, names, least)

    curves = {names[k]: curve[:2] for k, curve in evaluator.precision_recall().items()}
    drawings = {"worst": draw_worst}
    if curves:
        drawings["precision_recall"] = lambda path: draw_precision_recall(path, curves)
    return metrics, part.names, drawings


def evaluate_classifier(model, split, table, args):
    """Measure a classifier; see `evaluate_detector`."""
    from kerascv_d2l.metrics.classification import classification_metrics, precision_recall
    from kerascv_d2l.plotting.classification import draw_confusion, draw_mistakes
    from kerascv_d2l.plotting.evaluation import draw_precision_recall

    names, labels = model.class_names, split.targets["label"]
    answers = [model.classify(images)["probabilities"] for images, _ in batches_of(split)]
    probabilities = np.concatenate(answers)  # (n, classes)
    metrics = classification_metrics(probabilities, labels, names)
    truth = probabilities[np.arange(len(labels)), labels]
    worst = worst_of(1 - truth)
    part = split.subset(worst)
    curves = {
        names[k]: precision_recall(probabilities[:, k], labels == k, np.sum(labels == k))[:2]
        for k in np.unique(labels)
    }
    return (
        metrics,
        part.names,
        {
            "worst": lambda path: draw_mistakes(
                path, pixels_of(part), part.names, labels[worst], probabilities[worst], names
            ),
            "confusion": lambda path: draw_confusion(path, metrics["confusion"], names),
            "precision_recall": lambda path: draw_precision_recall(path, curves),
        },
    )


def evaluate_localizer(model, split, table, args):
    """Measure a localizer; see `evaluate_detector`."""
    from kerascv_d2l.metrics.localization import evaluate_localization
    from kerascv_d2l.plotting.classification import draw_confusion
    from kerascv_d2l.plotting.detections import draw_detections

    names = model.class_names
    metrics, answers = evaluate_localization(model.localize, batches_of(split), names)
    worst = worst_of(1 - answers["ious"])
    part = split.subset(worst)

    def draw_worst(path):
        found = {
            "boxes": answers["boxes"][worst, None],
            "scores": answers["probabilities"][worst].max(axis=1, keepdims=True),
            "classes": answers["probabilities"][worst].argmax(axis=1)[:, None],
        }
        draw_detections(path, pixels_of(part), found, padded(part.targets), names, 0)

    return (
        metrics,
        part.names,
        {
            "worst": draw_worst,
            "confusion": lambda path: draw_confusion(path, metrics["confusion"], names),
        },
    )


def evaluate_segmenter(model, split, table, args):
    """Measure a segmentation network; see `evaluate_detector`."""
    from kerascv_d2l.data.batches import whole_images
    from kerascv_d2l.metrics.segmentation import segmentation_results
    from kerascv_d2l.ops.segmentation import confusion_matrix
    from kerascv_d2l.plotting.evaluation import draw_bars
    from kerascv_d2l.plotting.segmentation import draw_segmentation

    names = model.class_names

    def segment(image):
        return model.segment(image[None])["class_map"][0].numpy()

    confusions = []
    for image, mask in whole_images(split):
        confusions.append(confusion_matrix(table[mask], segment(image), len(names)).numpy())
    metrics = segmentation_results(np.sum(confusions, axis=0, dtype=np.int64), names)
    known = np.array(confusions)[:, :-1]  # (n, classes, classes), without the ignored pixels
    right = np.trace(known, axis1=1, axis2=2) / np.maximum(known.sum(axis=(1, 2)), 1)
    part = split.subset(worst_of(1 - right))

    def draw_worst(path):
        images = pixels_of(part)
        masks = [table[part.mask(k)] for k in range(len(part))]
        draw_segmentation(path, images, map(segment, images), masks, names, model.colors)

    drawings = {
        "worst": draw_worst,
        "iou_by_class": lambda path: draw_bars(path, metrics["iou_by_class"], "IoU by class"),
    }
    return metrics, part.names, drawings


def evaluate_generator(model, split, table, args):
    """Score samples, and measure reconstructions where there is an encoder.

    See `evaluate_detector`.
    """
    from kerascv_d2l.plotting.generation import draw_tiles
    from kerascv_d2l.training.features import FEATURES_FILE, feature_scores, load_features

    path = Path(args.model).parent / FEATURES_FILE if args.features is None else args.features
    features = load_features(path)
    images = model.sample(max(2, min(len(split), MOST_SCORED)), 0)["images"].numpy()
    grey = images.shape[-1] == 1
    part = split.spread(MOST_SCORED).fitted(images.shape[1:3], grey)
    real = part.images[..., :1] if grey else part.images
    metrics = {"num_scored": len(part)} | feature_scores(features, part.images)(images)
    drawings = {"samples": lambda path: draw_tiles(path, images[:64])}
    if "reconstruct" not in model.functions:
        return metrics, [], drawings
    starts = range(0, len(real), BATCH_SIZE)
    again = [model.reconstruct(part.images[k : k + BATCH_SIZE])["images"] for k in starts]
    again = np.concatenate(again)  # (n, h, w, channels)
    errors = np.sqrt(((again / 255.0 - real / 255.0) ** 2).mean((1, 2, 3)))  # (n,)
    metrics["reconstruction_error"] = float(errors.mean())
    worst = worst_of(errors)
    pairs = np.stack([real[worst], again[worst]], 1).reshape(-1, *real.shape[1:])
    drawings["worst"] = lambda path: draw_tiles(path, pairs)
    return metrics, part.subset(worst).names, drawings


EVALUATIONS = {
    "detection": evaluate_detector,
    "classification": evaluate_classifier,
    "localization": evaluate_localizer,
    "segmentation": evaluate_segmenter,
    "generation": evaluate_generator,
}


def read_data(model, args):
    """Read the data as a model of its task needs it: a `DataSet`."""
    from kerascv_d2l.data.generated import FOR_GENERATORS
    from kerascv_d2l.data.load import is_prepared, load
    from kerascv_d2l.data.splits import keep_largest_object

    options = {"classes": args.classes, "ignore": args.ignore or None, "boxes_on": args.boxes_on}
    if model.task == "detection" and not model.predicts_masks:
        options["masks"] = False
    if model.task == "generation" and args.source == "generated":
        options = FOR_GENERATORS | {"image_size": 32, "num_train": 1}
    elif model.task == "generation":
        options = {} if is_prepared(args.source) else {"validate": True}
    data = load(
        args.source,
        {"generation": "unlabelled", "localization": "detection"}.get(model.task, model.task),
        seed=args.split_seed,
        val_fraction=args.val_fraction,
        skip_bad=args.skip_bad,
        archive=args.archive,
        data_dir=args.data_dir,
        **options,
    )
    return keep_largest_object(data) if model.task == "localization" else data


def choose_split(data, args):
    """Give the `Split` that `--split` names."""
    from kerascv_d2l.data.splits import Split

    if args.split == ALL:
        labelled = [split for split in data.splits.values() if split.task == data.task]
        return functools.reduce(Split.joined, labelled)
    drawn = args.split in ("train", "val")
    splits = splits_of(data, args.model, args.source) if drawn else data.splits
    if args.split not in splits:
        raise InputError(f"split {args.split}: {args.source} has {', '.join(splits)}, {ALL}")
    if splits[args.split].task != data.task:
        raise InputError(f"split {args.split}: its images have no labels; predict.py predicts them")
    return splits[args.split]


def draw(output, drawings):
    """Draw; what fails is a warning, for the metrics are written already."""
    for name, function in drawings.items():
        (path,) = output.paths(name, ".png")
        try:
            function(path)
            print(f"  {path}", flush=True)
        except Exception as error:
            print(f"warning: {path} was not drawn ({type(error).__name__}: {error})", flush=True)


def main(argv=None):
    """Measure, write down, and draw.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in metrics.json.
    """
    args = parse(argv)
    output = NewFiles(cli.output_folder(args.out, "evaluate"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from kerascv_d2l.export import load as load_model

    model = load_model(args.model)
    if model.task not in EVALUATIONS:
        raise InputError(f"{args.model}: there is no metric for models of the task {model.task}")
    cli.check_task(args, model.task, FOR_TASKS)
    data = read_data(model, args)
    print(data.describe(), flush=True)
    split, table = choose_split(data, args), None
    if model.task != "generation":
        split, table = in_classes_of(model, data, split)
    print(f"measuring on split {args.split}: {len(split)} images", flush=True)
    begin = time.perf_counter()
    metrics, worst, drawings = EVALUATIONS[model.task](model, split, table, args)
    seconds = time.perf_counter() - begin
    result = {
        "task": model.task,
        "model": args.model,
        "source": data.source,
        "split": args.split,
        "num_images": len(split),
        "images_per_second": len(split) / seconds,
        "class_names": model.class_names,
        **metrics,
        "worst": worst,
        "skipped": data.skipped,
    }
    for name, value in result.items():
        if isinstance(value, (int, float)):
            shown = value if isinstance(value, int) else f"{value:.4g}"
            print(f"  {name:20} {shown}")
    (path,) = output.paths("metrics", ".json")
    output.save_json(path, result)
    print(f"written:\n  {path}", flush=True)
    draw(output, drawings)
    return plain(result)


if __name__ == "__main__":
    cli.run_main(main)
