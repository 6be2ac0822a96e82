"""Say what is on pictures, with an exported classifier.

    python scripts/classify.py runs/finetune/saved_model IMAGE…

prints the most probable classes of each picture and writes predictions.json. The SavedModel brings
all it needs: of this package only the reading of pictures is used, no model class.
"""

import argparse
import sys
from pathlib import Path

# A clone that is not installed will do.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kerascv_d2l.errors import InputError
from kerascv_d2l.exported import load_exported
from kerascv_d2l.files import write_json
from kerascv_d2l.pictures import read_picture
from kerascv_d2l.training import arguments, import_tensorflow, run_main


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="SAVED_MODEL", help="folder that finetune.py wrote")
    add("images", nargs="+", metavar="IMAGE", help="picture files of any size")
    add(
        "--top",
        type=arguments.positive_int,
        default=3,
        metavar="N",
        help="classes to print for each picture (default: %(default)s)",
    )
    add(
        "--out",
        default="runs/classify",
        metavar="FOLDER",
        help="folder for predictions.json (default: %(default)s)",
    )
    add("--skip-bad", action="store_true", help="leave out unreadable pictures and count them")
    return parser.parse_args(argv)


def classify(function, image, class_names):
    """Probabilities of one picture, `{class: probability}`, most probable first."""
    probabilities = function(image[None])["probabilities"][0].numpy()
    order = (-probabilities).argsort(kind="stable")
    return {class_names[k]: round(float(probabilities[k]), 5) for k in order}


def main(argv=None):
    """Classify, print, and write down.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `predictions.json`.
    """
    args = parse(argv)
    import_tensorflow()
    function, class_names = load_exported(args.model, "classify", "finetune.py")
    result = {"model": str(args.model), "class_names": class_names, "images": [], "skipped": []}
    for name in args.images:
        try:
            image = read_picture(name)
        except InputError as error:
            if not args.skip_bad:
                if result["images"]:
                    _write(args.out, result)
                raise
            result["skipped"].append(str(error))
            continue
        probabilities = classify(function, image, class_names)
        best = next(iter(probabilities))
        result["images"].append({"image": str(name), "class": best, "probabilities": probabilities})
        shown = list(probabilities.items())[: args.top]
        print(f"{name}: {', '.join(f'{label} {p:.3f}' for label, p in shown)}", flush=True)
    return _write(args.out, result)


def _write(out, result):
    path = Path(out) / "predictions.json"
    write_json(path, result)
    skipped = result["skipped"]
    if skipped:
        print(f"left out {len(skipped)} unreadable picture(s), such as: {skipped[0]}")
    print(f"written: {path}")
    return result


if __name__ == "__main__":
    run_main(main)
