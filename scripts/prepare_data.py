"""Prepare one of the chapter's data sets, and draw some of its examples with their labels.

    python scripts/prepare_data.py banana_detection
    python scripts/prepare_data.py voc2012_segmentation --archive VOCtrainval_11-May-2012.tar

Downloads the archive unless it is at hand, checks its SHA-1, and stores the examples as records,
which `tfds.load` and the training scripts then read. `--archive` takes the archive or the folder
unpacked from it (as the book leaves it in ../data), so that no network is needed. Prepared once,
a data set is found again; the examples are drawn in any case: look at them.

Bananas take about 5 seconds to prepare after the download, VOC about 20 on two cores.
"""

import argparse
import time
from pathlib import Path

from kerascv_d2l.errors import InputError
from kerascv_d2l.training import add_archive_arguments, import_tensorflow, run_main

NAMES = ("banana_detection", "hotdog", "voc2012_segmentation", "cifar10")
NUM_DRAWN = 12


def main(argv=None):
    """Prepare a data set; return the number of examples of each split, and what else was written.

    Args:
        argv: list of str, the command line's arguments; `None` for `sys.argv`.

    Returns:
        dict: `name`, `splits` (name -> number of examples), `skipped` (number
        of examples left out in this run), `data_dir`, `sheet` (the picture's file).

    Raises:
        InputError: for an archive that is not there, is damaged or is something
            else; a damaged file in it; a network that cannot be reached.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    add_archive_arguments(parser.add_argument)
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out damaged examples and count them, instead of stopping",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="folder for the sheet of examples (default: runs/prepare_data/NAME)",
    )
    args = parser.parse_args(argv)
    own = args.name != "cifar10"
    if not own and (args.archive or args.skip_bad):
        raise InputError("cifar10 is tensorflow-datasets' own: --archive and --skip-bad are not")

    import_tensorflow()
    import tensorflow_datasets as tfds

    from kerascv_d2l.data import loaders
    from kerascv_d2l.plotting.sheets import draw_examples

    start = time.perf_counter()
    builder = loaders.prepare(
        args.name, data_dir=args.data_dir, archive=args.archive, skip_bad=args.skip_bad
    )
    seconds = time.perf_counter() - start
    skipped = list(getattr(builder, "skipped", ()))
    print(loaders.describe(builder, seconds))
    if skipped:
        print(f"  left out: {len(skipped)}, the first because of: {skipped[0]}")

    split = next(iter(builder.info.splits))
    examples = list(tfds.as_numpy(builder.as_dataset(split=split).take(NUM_DRAWN)))
    sheet = Path(args.out or Path("runs", "prepare_data", args.name)) / "examples.png"
    draw_examples(sheet, **_drawing(builder, examples))
    print(f"{len(examples)} examples of {split} drawn: {sheet}")
    return {
        "name": args.name,
        "splits": {name: info.num_examples for name, info in builder.info.splits.items()},
        "skipped": len(skipped),
        "data_dir": str(builder.data_dir),
        "sheet": str(sheet),
    }


def _drawing(builder, examples):
    """Arguments of `draw_examples` for examples of any of the data sets."""
    from kerascv_d2l.data.loaders import label_rows

    features = builder.info.features
    drawing = {"images": [example["image"] for example in examples]}
    titles = [
        example["file_name"].decode() if "file_name" in example else str(i)
        for i, example in enumerate(examples)
    ]
    if "label" in features:
        names = features["label"].names
        titles = [f"{t}: {names[e['label']]}" for t, e in zip(titles, examples, strict=True)]
    if "segmentation_mask" in features:
        drawing["masks"] = [example["segmentation_mask"][..., 0] for example in examples]
    if "objects" in features:
        drawing["labels"] = [label_rows(example["objects"]).numpy() for example in examples]
        drawing["class_names"] = features["objects"].feature["label"].names
    return {**drawing, "titles": titles}


if __name__ == "__main__":
    run_main(main)
