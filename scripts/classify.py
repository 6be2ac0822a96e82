"""Say what is on pictures, with an exported classifier.

    python scripts/classify.py runs/finetune/saved_model IMAGE…

prints the most probable classes of each picture and writes predictions.json. The SavedModel brings
all it needs: of this package only the reading of pictures is used, no model class.
"""

import argparse

from kerascv_d2l.exported import load_exported
from kerascv_d2l.inference import add_inference_arguments, run_inference
from kerascv_d2l.training import arguments, import_tensorflow, run_main


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_inference_arguments(
        parser, trainer="finetune.py", out="runs/classify", written="predictions.json"
    )
    parser.add_argument(
        "--top",
        type=arguments.positive_int,
        default=3,
        metavar="N",
        help="classes to print for each picture (default: %(default)s)",
    )
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

    def answer(image, stem):
        probabilities = classify(function, image, class_names)
        shown = list(probabilities.items())[: args.top]
        entry = {"class": next(iter(probabilities)), "probabilities": probabilities}
        return entry, ", ".join(f"{label} {p:.3f}" for label, p in shown)

    return run_inference(args, "predictions.json", answer, class_names)


if __name__ == "__main__":
    run_main(main)
