"""Give every pixel of pictures a class, with an exported segmentation network.

    python scripts/segment.py runs/train_fcn/saved_model IMAGE…

writes for each picture its class map (NAME_classes.png, class indices with a palette), the picture
with the classes' colours over it (NAME_overlay.png), and segmentation.json with the share of each
class. The SavedModel brings all it needs and takes pictures of any size: of this package only the
reading and drawing of pictures is used, no model class.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from kerascv_d2l.exported import load_segmenter
from kerascv_d2l.files import whole
from kerascv_d2l.inference import add_inference_arguments, run_inference
from kerascv_d2l.plotting.segmentation import overlay
from kerascv_d2l.training import import_tensorflow, run_main

BACKGROUND = "background"  # the class of this name leaves the overlay clear


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_inference_arguments(
        parser,
        trainer="train_fcn.py",
        out="runs/segment",
        written="class maps, overlays and segmentation.json",
    )
    return parser.parse_args(argv)


def save_class_map(path, classes, colors):
    """Write classes, uint8 `(height, width)`, as a PNG of indices with a palette."""
    picture = Image.fromarray(classes).convert("P")
    picture.putpalette(colors.tobytes())
    with whole(path) as temporary:
        picture.save(temporary)


def main(argv=None):
    """Segment, draw, and write down.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `segmentation.json`.
    """
    args = parse(argv)
    import_tensorflow()
    function, class_names, colors = load_segmenter(args.model)
    background = class_names.index(BACKGROUND) if BACKGROUND in class_names else None
    out = Path(args.out)

    def answer(image, stem):
        classes = function(image[None])[0].numpy().astype(np.uint8)
        paths = {"class_map": out / f"{stem}_classes.png", "overlay": out / f"{stem}_overlay.png"}
        save_class_map(paths["class_map"], classes, colors)
        with whole(paths["overlay"]) as path:
            Image.fromarray(overlay(image, classes, colors, background)).save(path)
        # Not `bincount`, which would take eight bytes for each pixel.
        counts = np.array([np.count_nonzero(classes == k) for k in range(len(class_names))])
        shares = counts / classes.size
        order = np.argsort(-shares, kind="stable")
        shares = {class_names[k]: round(float(shares[k]), 5) for k in order if shares[k]}
        height, width = image.shape[:2]
        entry = {"height": height, "width": width}
        entry |= {name: str(path) for name, path in paths.items()} | {"shares": shares}
        most = list(shares.items())[:5]
        return entry, ", ".join(f"{name} {share:.1%}" for name, share in most)

    return run_inference(args, "segmentation.json", answer, class_names)


if __name__ == "__main__":
    run_main(main)
