"""Use a trained model: detect, classify, localize, segment, stylize or make images, as it learnt.

    python scripts/predict.py runs/train_detector/saved_model IMAGE…

MODEL is a SavedModel or a .keras file of a training script; it knows its task. IMAGE is a file, a
folder or a pattern such as 'photos/*.jpg'. Draws what is found (NAME_detections.png,
NAME_classes.png and NAME_overlay.png, NAME_stylized.png, NAME_reconstructed.png) and writes
predictions.json. A detector that predicts masks writes NAME_instances.png, too: pixel k belongs to
detection k, counted from 1. A model that makes images needs no IMAGE, and writes samples.png. Files
that are there already are never overwritten: new ones get a number.
"""

import os
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from kerascv_d2l import cli
from kerascv_d2l.data.images import find_images, read_image
from kerascv_d2l.errors import InputError, first_of
from kerascv_d2l.files import NewFiles, plain, writing

NUM_SAMPLES = 64
FOR_TASKS = {
    "score_threshold": ("detection",),
    "image_size": ("style",),
    "num_samples": ("generation",),
    "seed": ("generation",),
}
MOST_SHOWN = 5  # detections or classes in the line of an image
MOST_COLOURS = 255  # of a palette beside black; more objects are a PNG of 16 bits


def parse(argv=None):
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder saved_model/ or file model.keras of a run")
    add("images", nargs="*", metavar="IMAGE", help="image files, folders, patterns")
    add("--out", metavar="FOLDER", help="output folder (default: runs/predict, runs/predict-2, …)")
    add(
        "--score-threshold",
        type=cli.fraction,
        metavar="SCORE",
        help="detection: report objects of at least this score (default: the model's own, which "
        "training finds)",
    )
    add(
        "--image-size",
        type=cli.positive_int,
        metavar="PIXELS",
        help="style: paint at this longer side and enlarge: larger strokes, and less memory "
        "(default: the size of each image)",
    )
    add(
        "--num-samples",
        type=cli.positive_int,
        metavar="N",
        help=f"generation: how many images to make, without IMAGE (default: {NUM_SAMPLES})",
    )
    add(
        "--seed",
        type=cli.seed,
        metavar="N",
        help="generation: random seed of these (default: 0)",
    )
    add("--skip-bad", action="store_true", help="leave out unreadable images and count them")
    add(
        "--allow-large",
        action="store_true",
        help="read images of more than 179 megapixels, too, which Pillow takes for an attack",
    )
    return parser.parse_args(argv)


class BadImageError(InputError):
    """An image that cannot be read, or that the model cannot take."""


def _readable(name):
    """A file name as text that can be printed, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def detect(model, image, stem, output, args):
    """Detect objects in an image, uint8 `(h, w, 3)`, and draw them.

    Returns:
        Tuple of the entry for predictions.json, a dict, and a line to print.
    """
    from kerascv_d2l.plotting.common import class_color
    from kerascv_d2l.plotting.detections import draw_boxes

    found = {name: value[0].numpy() for name, value in model.detect(image[None]).items()}
    least = model.score_threshold if args.score_threshold is None else args.score_threshold
    rows = [i for i in range(found["num_valid"]) if found["scores"][i] >= least]
    detections = [
        {
            "class": model.class_names[found["classes"][i]],
            "score": round(float(found["scores"][i]), 4),
            "box": [round(float(x), 5) for x in found["boxes"][i]],
            "box_px": [round(float(x), 1) for x in found["boxes_px"][i]],
        }
        for i in rows
    ]
    masks = found["masks"][rows] if "masks" in found else None
    (path,) = output.paths(stem, "_detections.png")
    with writing(path):
        draw_boxes(
            path,
            image,
            [d["box"] for d in detections],
            [f"{d['class']} {d['score']:.2f}" for d in detections],
            [class_color(found["classes"][i]) for i in rows],
            masks,
        )
    scores = [f"{d['class']} {d['score']:.2f}" for d in detections]
    best = first_of(scores, MOST_SHOWN)
    height, width = image.shape[:2]
    entry = {"height": height, "width": width, "drawn": path, "detections": detections}
    if "masks" in found:
        entry["instances"] = write_masks(masks, detections, image.shape[:2], stem, output)
    return entry, f"{len(detections)} object(s) {best}"


def write_masks(masks, detections, size, stem, output):
    """Add the masks, uint8 `(n, h, w)`, to n detections, and write a PNG of their numbers.

    Returns:
        str: the file.
    """
    from kerascv_d2l.ops.rle import encode_masks
    from kerascv_d2l.plotting.common import class_color

    numbers = np.zeros(size, np.uint16)
    for k in reversed(range(len(masks))):  # the best is on top
        numbers[masks[k] != 0] = k + 1
        (encoding,) = encode_masks(masks[k : k + 1])
        counts = encoding["counts"].decode()
        detections[k] |= {"id": k + 1, "mask": {"size": list(size), "counts": counts}}
    (path,) = output.paths(stem, "_instances.png")
    if len(masks) > MOST_COLOURS:
        output.save_image(path, Image.fromarray(numbers))
        return path
    drawn = Image.fromarray(numbers.astype(np.uint8)).convert("P")
    colours = [class_color(k) for k in range(len(masks))]
    drawn.putpalette(sum(map(ImageColor.getrgb, ["#000000", *colours]), ()))
    output.save_image(path, drawn)
    return path


def classify(model, image, stem, output, args):
    """Classify an image; see `detect`."""
    probabilities = model.classify(image[None])["probabilities"][0].numpy()
    order = (-probabilities).argsort(kind="stable")
    probabilities = {model.class_names[k]: round(float(probabilities[k]), 5) for k in order}
    shown = list(probabilities.items())[:MOST_SHOWN]
    entry = {"class": next(iter(probabilities)), "probabilities": probabilities}
    return entry, ", ".join(f"{name} {p:.3f}" for name, p in shown)


def localize(model, image, stem, output, args):
    """Say what the one object of an image is, and where; see `detect`."""
    from kerascv_d2l.plotting.common import class_color
    from kerascv_d2l.plotting.detections import draw_boxes

    found = {name: value[0].numpy() for name, value in model.localize(image[None]).items()}
    index, probabilities = int(found["classes"]), found["probabilities"]
    name = model.class_names[index]
    (path,) = output.paths(stem, "_object.png")
    line = f"{name} {probabilities[index]:.2f}"
    with writing(path):
        draw_boxes(path, image, [found["boxes"]], [line], [class_color(index)])
    height, width = image.shape[:2]
    entry = {
        "height": height,
        "width": width,
        "drawn": path,
        "class": name,
        "probabilities": {
            model.class_names[k]: round(float(probabilities[k]), 5)
            for k in (-probabilities).argsort(kind="stable")
        },
        "box": [round(float(x), 5) for x in found["boxes"]],
        "box_px": [round(float(x), 1) for x in found["boxes_px"]],
    }
    return entry, f"{line} at {', '.join(f'{x:.0f}' for x in found['boxes_px'])}"


def segment(model, image, stem, output, args):
    """Find the class of every pixel of an image, and draw them; see `detect`."""
    from kerascv_d2l.plotting.segmentation import background_of, overlay

    names = model.class_names
    classes = model.segment(image[None])["class_map"][0].numpy().astype(np.uint8)
    class_map, drawn = output.paths(stem, "_classes.png", "_overlay.png")
    indices = Image.fromarray(classes).convert("P")
    indices.putpalette(model.colors.tobytes())
    output.save_image(class_map, indices)
    shown = overlay(image, classes, model.colors, background_of(names))
    output.save_image(drawn, Image.fromarray(shown))
    # Not `bincount`, which would take eight bytes for each pixel.
    shares = np.array([np.count_nonzero(classes == k) for k in range(len(names))]) / classes.size
    order = np.argsort(-shares, kind="stable")
    shares = {names[k]: round(float(shares[k]), 5) for k in order if shares[k]}
    height, width = image.shape[:2]
    entry = {"height": height, "width": width, "class_map": class_map, "overlay": drawn}
    most = list(shares.items())[:MOST_SHOWN]
    return {**entry, "shares": shares}, ", ".join(f"{name} {p:.1%}" for name, p in most)


def stylize(model, image, stem, output, args):
    """Paint an image in the style that the model has learnt; see `detect`."""
    begin = time.perf_counter()
    height, width = image.shape[:2]
    scale = (args.image_size or max(height, width)) / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    painted = Image.fromarray(model.stylize(image[None])["pictures"][0].numpy())
    if painted.size != (width, height):
        painted = painted.resize((width, height), Image.Resampling.LANCZOS)
    seconds = time.perf_counter() - begin
    (path,) = output.paths(stem, "_stylized.png")
    output.save_image(path, painted)
    entry = {"painted": path, "height": height, "width": width, "seconds": round(seconds, 3)}
    return entry, f"{path}, {seconds:.2f} s"


def reconstruct(model, image, stem, output, args):
    """Make a code of an image, and the image of the code; see `detect`."""
    codes = model.encode(image[None])["codes"]
    (path,) = output.paths(stem, "_reconstructed.png")
    found = model.decode(codes)["images"][0].numpy()
    output.save_image(path, Image.fromarray(found[..., 0] if found.shape[-1] == 1 else found))
    entry = {"reconstructed": path, "codes": [round(float(x), 4) for x in codes[0].numpy()]}
    return entry, str(path)


ANSWERS = {
    "detection": detect,
    "classification": classify,
    "localization": localize,
    "segmentation": segment,
    "style": stylize,
    "generation": reconstruct,
}


def answer(model, name, output, args):
    """Answer for one image file.

    Raises:
        BadImageError: if it cannot be read, or the model cannot take it.
        InputError: if the answer cannot be written.
    """
    import tensorflow as tf

    try:
        image = read_image(name)
    except InputError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise BadImageError(f"{error}, or use --allow-large") from error
        raise BadImageError(str(error)) from error
    try:
        stem = _readable(Path(name).stem)
        return ANSWERS[model.task](model, image, stem, output, args)
    except tf.errors.ResourceExhaustedError as error:
        raise BadImageError(f"{name}: too large for the memory of this machine") from error
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
        reason = str(error).splitlines()[0][:200]
        raise BadImageError(f"{name}: the model cannot take this image ({reason})") from error


def predict(model, names, output, args):
    """Answer for every image, and write that down whatever happens.

    Returns:
        dict, as in predictions.json.

    Raises:
        InputError: at the end, if there were bad images and `args.skip_bad` is not set.
    """
    result = {
        "task": model.task,
        "model": args.model,
        "class_names": model.class_names,
        "images": [],
        "skipped": [],
    }
    try:
        for name in names:
            try:
                entry, line = answer(model, name, output, args)
            except BadImageError as error:
                result["skipped"].append(_readable(str(error)))
                continue
            result["images"].append({"image": _readable(name), **entry})
            print(f"{_readable(name)}: {line}", flush=True)
    finally:
        if result["images"] or result["skipped"]:
            (path,) = output.paths("predictions", ".json")
            output.save_json(path, result)
            if skipped := result["skipped"]:
                print(f"left out {len(skipped)} image(s), such as: {skipped[0]}")
            print(f"written: {path} ({len(result['images'])} images)", flush=True)
    if result["skipped"] and not args.skip_bad:
        raise InputError(
            f"{result['skipped'][0]}. {len(result['skipped'])} of {len(names)} images could not be "
            "answered for; with --skip-bad that is no error"
        )
    return plain(result)


def sample(model, output, args):
    """Make new images and draw them as a sheet.

    Returns:
        dict, as in predictions.json.
    """
    from kerascv_d2l.plotting.generation import tile

    images = model.sample(args.num_samples, args.seed)["images"].numpy()
    drawn, written = *output.paths("samples", ".png"), *output.paths("predictions", ".json")
    output.save_image(drawn, Image.fromarray(tile(images)))
    result = {"task": model.task, "model": args.model, "samples": drawn}
    result |= {"num_samples": args.num_samples, "seed": args.seed}
    output.save_json(written, result)
    print(f"written: {drawn}, {written}", flush=True)
    return plain(result)


def main(argv=None):
    """Answer for images, draw, and write down.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in predictions.json.
    """
    args = parse(argv)
    names = find_images(args.images)
    output = NewFiles(cli.output_folder(args.out, "predict"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from kerascv_d2l.export import load

    model = load(args.model)
    if model.task not in ANSWERS:
        raise InputError(f"{args.model}: its task {model.task} is none of {', '.join(ANSWERS)}")
    cli.check_task(args, model.task, FOR_TASKS)
    if not names and model.task != "generation":
        raise InputError(f"images is empty: a model for {model.task} needs at least one")
    if not names:
        cli.fill_in(args, {"num_samples": NUM_SAMPLES, "seed": 0})
        return sample(model, output, args)
    for name in ("num_samples", "seed"):
        if getattr(args, name) is not None:
            raise InputError(f"{name} {getattr(args, name)}: only without images")
    if model.task == "generation" and "encode" not in model.functions:
        raise InputError(f"{args.model} has no encoder: it makes images, and takes none")
    limit = Image.MAX_IMAGE_PIXELS
    if args.allow_large:
        Image.MAX_IMAGE_PIXELS = None
    try:
        return predict(model, names, output, args)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


if __name__ == "__main__":
    cli.run_main(main)
