"""What the scripts that use an exported model share: their flags, and the loop over pictures."""

from pathlib import Path

from kerascv_d2l.data.images import read_image
from kerascv_d2l.errors import InputError
from kerascv_d2l.files import write_json


def add_inference_arguments(parser, *, trainer, out, written):
    """Add `SAVED_MODEL`, `IMAGE…`, `--out` and `--skip-bad`.

    Args:
        parser: `argparse.ArgumentParser`.
        trainer: str: the script that writes such models.
        out: default of `--out`.
        written: str: what goes there, for the help text.
    """
    add = parser.add_argument
    add("model", metavar="SAVED_MODEL", help=f"folder that {trainer} wrote")
    add("images", nargs="+", metavar="IMAGE", help="picture files of any size")
    add(
        "--out",
        default=out,
        metavar="FOLDER",
        help=f"folder for {written} (default: %(default)s)",
    )
    add("--skip-bad", action="store_true", help="leave out unreadable pictures and count them")


def run_inference(args, report, answer, class_names=None):
    """Read each picture, answer, print a line, and write everything down.

    What was answered before an unreadable picture ends the run is written.

    Args:
        args: namespace with the flags of `add_inference_arguments`.
        report: str: name of the JSON file in `args.out`.
        answer: function `(image, stem)` -> `(entry, line)` of a picture, uint8
            `(height, width, 3)`: `stem` is a name for files about it, different
            for every picture, `entry` what is written about it, a dict, and
            `line` what is printed.
        class_names: list of str, or None: to be written as well.

    Returns:
        dict, as in the report: `model`, `class_names`, `images` (the entries,
        with the name of each file) and `skipped` (messages).

    Raises:
        InputError: for an unreadable picture, without `--skip-bad`.
    """
    result = {"model": str(args.model), "class_names": class_names, "images": [], "skipped": []}
    if class_names is None:
        del result["class_names"]
    path = Path(args.out) / report
    for name, stem in zip(args.images, _stems(args.images), strict=True):
        try:
            image = read_image(name)
        except InputError as error:
            if not args.skip_bad:
                if result["images"]:
                    _write(path, result)
                raise
            result["skipped"].append(str(error))
            continue
        entry, line = answer(image, stem)
        result["images"].append({"image": str(name), **entry})
        print(f"{name}: {line}", flush=True)
    return _write(path, result)


def _stems(images):
    """File names without ending; a number tells equal ones apart."""
    stems, taken = [], set()
    for image in images:
        plain, number = Path(image).stem, 1
        while (stem := plain if number == 1 else f"{plain}-{number}") in taken:
            number += 1
        taken.add(stem)
        stems.append(stem)
    return stems


def _write(path, result):
    write_json(path, result)
    if skipped := result["skipped"]:
        print(f"left out {len(skipped)} unreadable picture(s), such as: {skipped[0]}")
    print(f"written: {path} ({len(result['images'])} pictures)", flush=True)
    return result
