"""Say what a data set holds, what was left out of it and why, and what to mind; draw examples.

    python scripts/inspect_data.py path/to/folder --task detection
    python scripts/inspect_data.py hotdog --task classification --archive hotdog.zip

Reads whatever the training scripts read: a folder in any known layout, a prepared data set by
name, or `generated`. Look at the sheet: boxes and masks lie on their objects, or training is in
vain. Nothing is trained; 300 photographs take a few seconds.
"""

import os
from pathlib import Path

from kerascv_d2l import cli
from kerascv_d2l.data.inspect import COUNTED, find_problems, summarize
from kerascv_d2l.data.load import NAMES, PREPARED, load
from kerascv_d2l.errors import InputError
from kerascv_d2l.files import NewFiles, write_json, writing
from kerascv_d2l.outputs import DRAWN

NUM_DRAWN = 12


def parse(argv=None):
    """Read the command line; see the module's docstring."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "source",
        type=cli.existing_path(NAMES),
        metavar="SOURCE",
        help=f"a folder, {', '.join(NAMES)}, or a name of tensorflow-datasets",
    )
    parser.add_argument("--task", choices=sorted(COUNTED), required=True)
    group = cli.add_data_arguments(parser, PREPARED, help_text="", without=("--data",))
    cli.add_classes_argument(group)
    cli.add_ignore_argument(group)
    cli.add_boxes_on_argument(group)
    parser.add_argument(
        "--image-size",
        type=cli.image_size,
        default=(256, 256),
        metavar="N|HxW",
        help="detection: size to train at, for warnings of small objects (default: 256)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the same numbers there, to a new file"
    )
    parser.add_argument(
        "--out", default="runs/inspect_data", metavar="FOLDER", help="(default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Inspect a data set.

    Args:
        argv: list of str, the command line's arguments; None for `sys.argv`.

    Returns:
        dict: `splits`, `left_out`, `warnings`, and `sheet`, the file with the examples.

    Raises:
        InputError: for a source that cannot be read, or a file that cannot be written or is
            there already.
    """
    args = parse(argv)
    if args.json and os.path.lexists(args.json):
        raise InputError(f"json: {args.json} is there already; give another name, or remove it")
    options = {name: getattr(args, name) or None for name in ("classes", "ignore", "boxes_on")}
    data = load(
        args.source,
        args.task,
        seed=args.split_seed,
        val_fraction=args.val_fraction,
        skip_bad=args.skip_bad,
        archive=args.archive,
        data_dir=args.data_dir,
        **options,
    )
    print(data.describe())
    report = {
        "splits": summarize(data),
        "left_out": data.skipped,
        "warnings": data.notes + find_problems(data, args.image_size),
    }
    show(report, args.task)
    if args.json:
        with writing(args.json):
            write_json(args.json, report)
    name = f"{Path(args.source).resolve().name}-{args.task}"
    (sheet,) = NewFiles(args.out).paths(name, DRAWN)
    with writing(sheet):
        draw(sheet, data)
    print(f"examples drawn: {sheet}")
    return report | {"sheet": str(sheet)}


def show(report, task):
    """Print counts by class and split, what was left out, and warnings."""
    counts = {title: split[COUNTED[task]] for title, split in report["splits"].items()}
    names = list(counts["train"])
    width = max(map(len, (*names, "class")))
    print(f"\n  {'class':{width}}" + "".join(f"{title:>12}" for title in counts))
    for name in names:
        print(f"  {name:{width}}" + "".join(f"{split[name]:12,}" for split in counts.values()))
    for title in ("left_out", "warnings"):
        if report[title]:
            print(f"\n{title.replace('_', ' ')}:")
            print("".join(f"  - {text}\n" for text in report[title]), end="")


def draw(path, data):
    """Draw some images of every class with their labels."""
    import numpy as np

    from kerascv_d2l.plotting.segmentation import background_of
    from kerascv_d2l.plotting.sheets import draw_examples

    split = data.train
    chosen = examples(split, len(data.class_names))
    names = [split.names[k] for k in chosen]
    drawing = {}
    if "label" in split.targets:
        labels = split.targets["label"][chosen]
        names = [f"{n}: {data.class_names[k]}" for n, k in zip(names, labels, strict=True)]
    elif "mask" in split.targets:
        drawing = {"masks": [split.mask(k) for k in chosen], "colormap": data.colors}
        drawing["background"] = background_of(data.class_names)
    else:
        ignored = [f"{name} (ignored)" for name in data.class_names]
        drawing["class_names"] = [*data.class_names, *ignored]
        drawing["labels"] = [
            np.column_stack(
                [
                    split.targets["classes"][k] + len(ignored) * split.targets["ignore"][k],
                    split.targets["boxes"][k],
                ]
            )
            for k in chosen
        ]
        if split.has_masks:
            drawing["instances"] = [split.instance_masks(k) for k in chosen]
    draw_examples(path, [split.image(k) for k in chosen], names, **drawing)


def examples(split, num_classes):
    """Choose images that show all classes, the rarest first; then some in between."""
    import numpy as np

    has = split.counts_by_image(num_classes) > 0  # (n, classes)
    chosen = []
    for k in np.argsort(has.sum(0)):
        found = [i for i in np.flatnonzero(has[:, k]) if i not in chosen]
        if found and not has[chosen, k].any():
            chosen.append(int(found[0]))
    spread = np.linspace(0, len(split) - 1, min(len(split), 4 * NUM_DRAWN)).astype(int).tolist()
    return list(dict.fromkeys([*chosen[:NUM_DRAWN], *spread[::4], *spread]))[:NUM_DRAWN]


if __name__ == "__main__":
    cli.run_main(main)
