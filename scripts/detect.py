"""Find objects in pictures with an exported detector.

    python scripts/detect.py runs/train_ssd/saved_model IMAGE…

writes each picture with boxes drawn into it, and detections.json. The SavedModel brings all it
needs: of this package only the reading and drawing of pictures is used, no model class.
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
from kerascv_d2l.plotting import class_color, draw_boxes
from kerascv_d2l.training import arguments, import_tensorflow, run_main


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="SAVED_MODEL", help="folder that train_ssd.py wrote")
    add("images", nargs="+", metavar="IMAGE", help="picture files of any size")
    add(
        "--score-threshold",
        type=arguments.fraction,
        default=0.5,
        metavar="SCORE",
        help="report detections at least this certain, 0 to 1 (default: %(default)s)",
    )
    add(
        "--out",
        default="runs/detect",
        metavar="FOLDER",
        help="folder for pictures and detections.json (default: %(default)s)",
    )
    add("--skip-bad", action="store_true", help="leave out unreadable pictures and count them")
    return parser.parse_args(argv)


def detect(function, image, class_names, score_threshold):
    """Detections in one picture, as plain values, best first."""
    found = {name: value[0].numpy() for name, value in function(image[None]).items()}
    return [
        {
            "class": class_names[found["classes"][i]],
            "score": round(float(found["scores"][i]), 4),
            "box": [round(float(x), 5) for x in found["boxes"][i]],
            "box_px": [round(float(x), 1) for x in found["boxes_px"][i]],
        }
        for i in range(found["num_valid"])
        if found["scores"][i] >= score_threshold
    ]


def draw(path, image, detections, class_names):
    draw_boxes(
        path,
        image,
        [found["box"] for found in detections],
        [f"{found['class']} {found['score']:.2f}" for found in detections],
        [class_color(class_names.index(found["class"])) for found in detections],
    )


def main(argv=None):
    """Detect, draw, and write down.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `detections.json`.
    """
    args = parse(argv)
    import_tensorflow()
    function, class_names = load_exported(args.model, "detect", "train_ssd.py")
    out = Path(args.out)
    report, skipped = [], []
    for name, drawn in zip(args.images, output_names(args.images), strict=True):
        try:
            image = read_picture(name)
        except InputError as error:
            if not args.skip_bad:
                if report:
                    _write(out, args.model, class_names, report, skipped)
                raise
            skipped.append(str(error))
            continue
        detections = detect(function, image, class_names, args.score_threshold)
        draw(out / drawn, image, detections, class_names)
        height, width = image.shape[:2]
        entry = {"image": str(name), "height": height, "width": width, "drawn": str(out / drawn)}
        report.append({**entry, "detections": detections})
        best = ", ".join(f"{d['class']} {d['score']:.2f}" for d in detections[:5])
        print(f"{name}: {len(detections)} object(s) {best}", flush=True)
    return _write(out, args.model, class_names, report, skipped)


def output_names(images):
    """A file name for each drawn picture; a number tells equal names apart."""
    names, taken = [], set()
    for image in images:
        stem, number = Path(image).stem, 1
        while (name := f"{stem}{'' if number == 1 else f'-{number}'}.png") in taken:
            number += 1
        taken.add(name)
        names.append(name)
    return names


def _write(out, model, class_names, report, skipped):
    result = {"model": str(model), "class_names": class_names, "images": report, "skipped": skipped}
    write_json(out / "detections.json", result)
    if skipped:
        print(f"left out {len(skipped)} unreadable picture(s), such as: {skipped[0]}")
    print(f"written: {len(report)} picture(s) and detections.json in {out}")
    return result


if __name__ == "__main__":
    run_main(main)
