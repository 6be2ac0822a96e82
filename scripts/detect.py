"""Find objects in pictures with an exported detector.

    python scripts/detect.py runs/train_ssd/saved_model IMAGE…

writes each picture with boxes drawn into it, and detections.json. The SavedModel brings all it
needs: of this package only the reading and drawing of pictures is used, no model class.
"""

import argparse
from pathlib import Path

from kerascv_d2l.exported import load_exported
from kerascv_d2l.inference import add_inference_arguments, run_inference
from kerascv_d2l.plotting.common import class_color
from kerascv_d2l.plotting.detections import draw_boxes
from kerascv_d2l.training import arguments, import_tensorflow, run_main


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_inference_arguments(
        parser, trainer="train_ssd.py", out="runs/detect", written="pictures and detections.json"
    )
    parser.add_argument(
        "--score-threshold",
        type=arguments.fraction,
        default=0.5,
        metavar="SCORE",
        help="report detections at least this certain, 0 to 1 (default: %(default)s)",
    )
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

    def answer(image, stem):
        detections = detect(function, image, class_names, args.score_threshold)
        drawn = Path(args.out) / f"{stem}.png"
        draw(drawn, image, detections, class_names)
        height, width = image.shape[:2]
        best = ", ".join(f"{d['class']} {d['score']:.2f}" for d in detections[:5])
        entry = {"height": height, "width": width, "drawn": str(drawn), "detections": detections}
        return entry, f"{len(detections)} object(s) {best}"

    return run_inference(args, "detections.json", answer, class_names)


if __name__ == "__main__":
    run_main(main)
