"""Paint pictures in the manner that a network has learnt, in a single pass.

    python scripts/stylize.py runs/train_fast_style/saved_model IMAGE…

writes each picture as PNG, at its own size, and pictures.json. The SavedModel brings all it needs:
of this package only the reading and writing of pictures is used, no model class.
"""

import argparse
import time
from pathlib import Path

from PIL import Image

from kerascv_d2l.exported import load_stylizer
from kerascv_d2l.files import whole
from kerascv_d2l.inference import add_inference_arguments, run_inference
from kerascv_d2l.training import arguments, import_tensorflow, run_main


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_inference_arguments(
        parser, trainer="train_fast_style.py", out="runs/stylize", written="the painted pictures"
    )
    parser.add_argument(
        "--image-size",
        type=arguments.positive_int,
        metavar="PIXELS",
        help="paint at this longer side and enlarge: larger strokes, and less memory "
        "(default: at each picture's own size)",
    )
    return parser.parse_args(argv)


def paint(function, image, longest):
    """Paint one picture, uint8 `(h, w, 3)`; a `PIL.Image` of the same size."""
    import numpy as np

    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    if longest is not None and longest < max(height, width):
        scale = longest / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    painted = function(np.asarray(picture)[None])["pictures"][0].numpy()
    painted = Image.fromarray(painted)
    if painted.size == (width, height):
        return painted
    return painted.resize((width, height), Image.Resampling.LANCZOS)


def main(argv=None):
    """Paint, and write down.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `pictures.json`.
    """
    args = parse(argv)
    import_tensorflow()
    function = load_stylizer(args.model)

    def answer(image, stem):
        begin = time.perf_counter()
        painted = paint(function, image, args.image_size)
        seconds = time.perf_counter() - begin
        path = Path(args.out) / f"{stem}.png"
        with whole(path) as temporary:
            painted.save(temporary)
        entry = {"painted": str(path), "height": painted.height, "width": painted.width}
        return {**entry, "seconds": round(seconds, 3)}, f"{path}, {seconds:.2f} s"

    return run_inference(args, "pictures.json", answer)


if __name__ == "__main__":
    run_main(main)
