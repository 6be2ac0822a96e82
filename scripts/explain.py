"""Look inside a trained model: which pixels speak for its answer, and what its layers hold.

    python scripts/explain.py runs/train_classifier/model.keras IMAGE…
    python scripts/explain.py mobilenetv2 IMAGE… --weights imagenet --target 281

MODEL is a file model.keras of a training script, any other .keras file, the name of a network of
keras.applications or resnet18, or a SavedModel, for what needs no inner layers. It may be a
classifier, a detector (what is explained is one detection) or a segmentation network (one class).
IMAGE is a file, a folder or a pattern. The methods:

    grad-cam, grad-cam++, cam,       cells of a feature map that speak for the class
    layer-cam                        the same for places: one detection, a class of pixels
    saliency, smooth-grad,           pixels, by the derivatives of the score
    integrated-gradients
    occlusion                        what the score loses where the image is covered
    attention                        where a DETR looks for the detection
    feature-maps, filters            what a layer answers; the first layer's kernels
    class                            the image that the network takes most for --target
    neighbours, pca, tsne            images of --data that the network takes for alike
    windows                          the class in every window at --scales, and boxes merged
                                     from them

Writes NAME_maps.png and the like, and explanations.json with the share of each map inside each
--box. Files that are there already are never overwritten: new ones get a number.
"""

import math
import os
from pathlib import Path

from kerascv_d2l import cli
from kerascv_d2l.data.images import find_images, read_image
from kerascv_d2l.errors import InputError, first_of
from kerascv_d2l.files import NewFiles, plain, writing

MAPS = {  # method: function of kerascv_d2l, the flags that it takes
    "grad-cam": ("grad_cam", ("layer",)),
    "grad-cam++": ("grad_cam_plus_plus", ("layer",)),
    "layer-cam": ("layer_cam", ("layer",)),
    "cam": ("cam", ()),
    "saliency": ("saliency", ()),
    "smooth-grad": ("smooth_grad", ("samples", "noise", "seed")),
    "integrated-gradients": ("integrated_gradients", ("steps", "baseline")),
    "occlusion": ("occlusion", ("patch", "stride")),
    "attention": ("attention_map", ()),
}
IMAGE_METHODS = ("feature-maps", "windows", "neighbours")
MODEL_METHODS = ("filters", "class")
DATA_METHODS = ("neighbours", "pca", "tsne")
METHODS = (*MAPS, *IMAGE_METHODS, *MODEL_METHODS, "pca", "tsne")
NEED_LAYERS = (
    "grad-cam", "grad-cam++", "layer-cam", "cam", "attention", "feature-maps", "windows", "filters",
    *DATA_METHODS,
)  # fmt: skip
NEIGHBOURS = 5  # of each image
DEFAULT = ("grad-cam", "saliency", "smooth-grad", "occlusion")
# Of a detection and of a class of pixels, whose scores are of some places only.
DEFAULT_OF_PLACES = ("layer-cam", *DEFAULT[1:])
TASKS = ("classification", "detection", "segmentation")  # of data, in this order


def methods(text):
    """Read `METHOD,METHOD,…`."""
    names = cli.comma_list(text)
    if unknown := [name for name in names if name not in METHODS] or not names:
        raise InputError(f"method {text!r}: {unknown} not among {', '.join(METHODS)}")
    return names


def scales(text):
    """Read `NUMBER,NUMBER,…`."""
    return tuple(cli.positive_float(number) for number in cli.comma_list(text))


def parse(argv=None):
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="model.keras, saved_model/ or the name of a network")
    add("images", nargs="*", metavar="IMAGE", help="image files, folders, patterns")
    add(
        "--method",
        default=",".join(DEFAULT),
        metavar="NAME,…",
        help="see above (default: %(default)s; of detectors and segmentation networks "
        "layer-cam for grad-cam; of a SavedModel those that need no layers)",
    )
    add(
        "--target",
        metavar="CLASS|N",
        help="class, by name or number; of a detector the number of a detection, 0 for the best "
        "(default: the most probable class, the best detection, the class with most pixels)",
    )
    add("--layer", metavar="NAME", help="layer of the feature maps (default: the last, or widest)")
    add(
        "--box",
        action="append",
        default=[],
        type=cli.named_box,
        metavar="NAME,X0,Y0,X1,Y1",
        help="box in pixels of the image: measure the share of each map inside (may be repeated; "
        "a detection's own box is measured, too)",
    )
    add(
        "--sanity",
        action="store_true",
        help="compare each map with those of the network with shuffled weights: it must change",
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--weights",
        type=cli.existing_path(("imagenet", "none")),
        default="imagenet",
        metavar="FILE",
        help="of a network by name: a file with the classifier, imagenet, or none "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--image-size",
        type=cli.image_size,
        default=(224, 224),
        metavar="PIXELS",
        help="of a network by name, and of --method class (default: 224)",
    )
    group.add_argument(
        "--pixel-range",
        choices=("0,255", "0,1", "-1,1"),
        default="0,255",
        help="what a .keras file of others takes for black and white (default: %(default)s)",
    )
    group = parser.add_argument_group("methods")
    for flag, kind, default, metavar, text in (
        ("--samples", cli.positive_int, 50, "N", "smooth-grad: noisy copies"),
        ("--noise", cli.fraction, 0.15, "SHARE", "smooth-grad: noise, of the image's range"),
        ("--steps", cli.positive_int, None, "N", "integrated-gradients: points of the path "
         "(default: until the sum is within 1 %%, at most 1024); class: steps (default: 200)"),
        ("--baseline", cli.non_negative_float, 0.0, "GREY",
         "integrated-gradients: where the path begins, 0-255"),
        ("--patch", cli.positive_int, None, "PIXELS",
         "occlusion: side (default: a seventh of the shorter side)"),
        ("--stride", cli.positive_int, None, "PIXELS",
         "occlusion: from one place to the next (default: half a patch)"),
        ("--scales", scales, (1.0, 1.5, 2.0), "NUMBER,…",
         "windows: shorter sides of the image over the window's, each at least 1"),
        ("--data", str, None, "FOLDER|NAME",
         "neighbours, pca, tsne: images to compare, its validation split"),
        ("--seed", cli.seed, 0, "N", "random seed"),
    ):  # fmt: skip
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else "%(default)s"
        text += "" if default is None else f" (default: {shown})"
        group.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    add("--skip-bad", action="store_true", help="leave out unreadable images and count them")
    add("--out", metavar="FOLDER", help="output folder (default: runs/explain, runs/explain-2, …)")
    args = parser.parse_args(argv)
    args.given = args.method != parser.get_default("method")
    args.method = methods(args.method)
    return args


def check(args):
    """Refuse flags that do not go together, before anything is loaded."""
    wanted = set(args.method)
    if wanted & set(DATA_METHODS) and args.data is None:
        raise InputError("data is missing: neighbours, pca and tsne compare the images of a folder")
    if "class" in wanted and args.target is None:
        raise InputError("target is missing: the class that --method class draws")
    if wanted & {*MAPS, *IMAGE_METHODS} and not args.images:
        raise InputError(f"no IMAGE is given, and {', '.join(args.method)} look at one")
    if args.box and not wanted & set(MAPS):
        raise InputError(
            f"box: {', '.join(args.method)} give no map to measure in it. Leave it out, or add one "
            f"of {', '.join(MAPS)}"
        )


def load_subject(args):
    """Load what `MODEL` names."""
    from kerascv_d2l import export
    from kerascv_d2l.explain.subject import Subject
    from kerascv_d2l.models.backbones import imagenet_classifier

    if Path(args.model).is_dir():
        model = export.load(args.model)
    elif Path(args.model).exists():
        model = export.load_model(args.model, compile=False)
    else:
        weights = None if args.weights == "none" else args.weights
        try:
            model = imagenet_classifier(args.model, weights, args.image_size)
        except InputError as error:
            raise InputError(f"{args.model}: no such file, and as a network: {error}") from error
    subject = Subject(model, tuple(map(float, args.pixel_range.split(","))))
    if subject.task in ("detection", "segmentation") and not args.given:
        args.method = list(DEFAULT_OF_PLACES)
    if subject.exported:
        needing = [name for name in args.method if name in NEED_LAYERS]
        if args.given and needing:
            subject.check_layers(needing[0])
        args.method = [name for name in args.method if name not in NEED_LAYERS]
    return subject


def compute_maps(subject, name, image, target, args):
    """Compute the maps of an image, brought onto it.

    Returns:
        dict from titles to pairs of a float map `(height, width)` and an entry for the JSON file.
    """
    import kerascv_d2l as d2l

    found = {}
    for method in (name for name in args.method if name in MAPS):
        function, flags = MAPS[method]
        function, options = getattr(d2l, function), {flag: getattr(args, flag) for flag in flags}
        if args.sanity:
            rows = d2l.sanity_check(function, subject, image, target, args.seed, **options)
        else:
            rows = [{"stage": "trained", "map": function(subject, image, target, **options)}]
        for row in rows:
            heat, entry = d2l.onto_image(subject, image, row.pop("map")), row
            title = method
            if args.sanity:
                title += f", {row['stage']}: {row['correlation']:.2f}"
            found[title] = heat, {"method": method, **entry}
    return found


def boxes_of(args, subject, image, target):
    """The boxes to measure: dict from names to corners in pixels."""
    boxes = dict(args.box)
    if target.box is not None:
        height, width = image.shape[:2]
        boxes["detection"] = tuple(target.box * [width, height, width, height])
    return boxes


def shares_in_words(inside):
    """List the share of a map in each box, in words, of dict from names of boxes to shares."""
    if any(map(math.isnan, inside.values())):
        return ["is nowhere above 0"]
    return [f"{100 * share:.0f} % in {box}" for box, share in inside.items()]


def explain(subject, name, output, args):
    """Explain one image: draw its maps, and give the entry for the JSON file."""
    import kerascv_d2l as d2l

    image, stem = read_image(name), Path(name).stem
    pixels = subject.prepare(image)
    target = subject.target(pixels, args.target)
    boxes = boxes_of(args, subject, image, target)
    entry = {"image": name, "target": target.name, "score": target.score, "boxes": boxes}
    print(f"{name}: {target.name}, score {target.score:.3g}", flush=True)
    maps = compute_maps(subject, name, image, target, args)
    entry["maps"], drawn = [], {}
    for title, (heat, row) in maps.items():
        row["inside"] = {box: d2l.share_inside(heat, corners) for box, corners in boxes.items()}
        shares = shares_in_words(row["inside"])
        drawn["\n".join([title, *shares])] = heat
        entry["maps"].append(row)
        print(f"  {title} {', '.join(shares)}".rstrip(), flush=True)
    if drawn:
        (entry["drawn"],) = output.paths(stem, "_maps.png")
        with writing(entry["drawn"]):
            columns = 4 if args.sanity or len(drawn) > 2 else 3
            d2l.draw_maps(entry["drawn"], image, drawn, boxes, columns)
    if "feature-maps" in args.method:
        (entry["feature_maps"],) = output.paths(stem, "_feature_maps.png")
        with writing(entry["feature_maps"]):
            maps = d2l.feature_maps(subject, image, args.layer)
            d2l.draw_feature_maps(entry["feature_maps"], maps)
    if "windows" in args.method:
        entry["windows"] = explain_windows(subject, image, stem, target, output, args)
    return entry


def explain_images(subject, names, output, args):
    """Explain images; those on which a detector finds nothing are passed over.

    Returns:
        dict of `images`, the entries for the JSON file, and `skipped`, why others have none.

    Raises:
        InputError: if there is a bad image without `--skip-bad`, or nothing at all to draw.
    """
    from kerascv_d2l.explain.subject import NothingFound

    found = {"images": [], "skipped": []}
    empty = []
    for name in names:
        try:
            found["images"].append(explain(subject, name, output, args))
        except NothingFound:
            empty.append(name)
            found["skipped"].append(f"nothing is found in {name}")
            print(found["skipped"][-1], flush=True)
        except InputError as error:
            if not args.skip_bad:
                raise
            found["skipped"].append(str(error))
            print(f"left out: {error}", flush=True)
    others = set(args.method) & {*MODEL_METHODS, *DATA_METHODS}
    if empty and not found["images"] and not others:
        raise InputError(
            f"nothing is found in {first_of(empty, 3)}, so there is no detection to explain: give "
            "other images"
        )
    return found


def explain_windows(subject, image, stem, target, output, args):
    """Classify every window, draw where the target's are, and give the entry for the JSON file."""
    import kerascv_d2l as d2l

    height, width = image.shape[:2]
    found = d2l.slide(subject.model, image, args.scales)
    index = subject.class_index(target.name)
    maps = {
        f"{target.name}, scale {scale:g}: {heat[..., index].max():.2f}": heat[..., index]
        for scale, heat in zip(args.scales, found["maps"], strict=True)
    }
    boxes = found["boxes"] * [width, height, width, height]
    (path,) = output.paths(stem, "_windows.png")
    with writing(path):
        d2l.draw_maps(path, image, maps, boxes[found["classes"] == index][:1])  # the best one
    objects = [
        {"class": subject.class_names[k], "score": score, "box_px": box}
        for k, score, box in zip(found["classes"], found["scores"], boxes, strict=True)
    ]
    return {"drawn": path, "objects": objects}


def explain_model(subject, output, args):
    """Draw what needs no image: filters and classes."""
    import kerascv_d2l as d2l

    drawn = {}
    if "filters" in args.method:
        (drawn["filters"],) = output.paths("filters", ".png")
        with writing(drawn["filters"]):
            d2l.draw_filters(drawn["filters"], d2l.first_layer_filters(subject))
    if "class" in args.method:
        (drawn["class"],) = output.paths("class", ".png")
        image = d2l.class_visualization(
            subject, args.target, args.steps or 200, size=args.image_size, seed=args.seed
        )
        name = subject.class_names[subject.class_index(args.target)]
        with writing(drawn["class"]):
            d2l.draw_images(drawn["class"], [image], [name])
    return drawn


def load_data(args):
    """Load `--data` for whatever task it is."""
    from kerascv_d2l.data.load import load

    errors = []
    for task in TASKS:
        try:
            return load(args.data, task, skip_bad=args.skip_bad)
        except InputError as error:
            errors.append(error)
    raise errors[0]


def compare(subject, names, output, args):
    """Lay out the validation images of `--data` by their features, and find neighbours in them."""
    import kerascv_d2l as d2l

    data = load_data(args)
    print(data.describe(), flush=True)
    split, drawn = data.val, {}
    images = _Images(split)
    vectors = d2l.image_features(subject, images, args.layer)
    labels = split.targets.get("label")
    queries = (
        d2l.image_features(subject, [read_image(n) for n in names], args.layer) if names else None
    )
    for method in (name for name in args.method if name in ("pca", "tsne")):
        (drawn[method],) = output.paths(method, ".png")
        title = f"{len(vectors)} images by t-SNE"
        if method == "pca":
            points, shares = d2l.pca(vectors)
            title = f"{len(vectors)} images by PCA: {shares.sum():.0%} of the variance"
        else:
            points = d2l.tsne(vectors, args.seed)
        class_names = data.class_names if labels is not None else ()
        with writing(drawn[method]):
            d2l.draw_points(drawn[method], points, labels, class_names, title=title)
    if "neighbours" in args.method:
        drawn["neighbours"] = {}
        order, cosines = d2l.nearest_neighbours(vectors, queries, NEIGHBOURS + 1)
        for name, row, near in zip(names, order, cosines, strict=True):
            # An image of the split itself is no neighbour of its own.
            pairs = [p for p in zip(row, near, strict=True) if not _same_file(name, split, p[0])]
            (path,) = output.paths(Path(name).stem, "_neighbours.png")
            draw_neighbours(path, name, images, split.names, pairs[:NEIGHBOURS])
            drawn["neighbours"][name] = [split.names[k] for k, _ in pairs[:NEIGHBOURS]]
    return drawn


def draw_neighbours(path, name, images, names, pairs):
    """Draw an image beside others; `pairs` has their numbers and their cosines to it."""
    import kerascv_d2l as d2l

    titles = [Path(name).name, *(f"{Path(names[k]).name} {cosine:.2f}" for k, cosine in pairs)]
    with writing(path):
        d2l.draw_images(path, [read_image(name), *(images[k] for k, _ in pairs)], titles, 6)


def _same_file(name, split, index):
    other = split.images[index]
    return isinstance(other, str) and os.path.samefile(name, other)


class _Images:
    """The images of a split as a sequence that decodes them one by one."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split.image(index)


def main(argv=None):
    """Explain, draw and write down.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in explanations.json.
    """
    args = parse(argv)
    check(args)
    names = find_images(args.images)
    output = NewFiles(cli.output_folder(args.out, "explain"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    subject = load_subject(args)
    result = {"model": args.model, "task": subject.task}
    looking = {*MAPS, "feature-maps", "windows"} & set(args.method)
    result |= explain_images(subject, names if looking else (), output, args)
    result["drawn"] = explain_model(subject, output, args)
    if set(args.method) & set(DATA_METHODS):
        result["drawn"] |= compare(subject, names, output, args)
    (path,) = output.paths("explanations", ".json")
    output.save_json(path, result)
    print(f"written: {path}", flush=True)
    return plain(result)


if __name__ == "__main__":
    cli.run_main(main)
