"""Train a single-shot detector, measure it, draw what it finds and export it.

    python scripts/train_ssd.py

trains the book's TinySSD on generated pictures. `--data FOLDER` takes your own: the banana
data set's layout, Pascal VOC XML or COCO JSON. `--base mobilenet --weights imagenet` puts the
same head on a pretrained network. Everything lands in `--out`; see README.md.
"""

import argparse

from kerascv_d2l.datasets.generated import CLASS_NAMES, generate_detection
from kerascv_d2l.errors import InputError
from kerascv_d2l.training import add_run_arguments, arguments, run_main

TASK = "train_ssd"
# Of the generated data: enough to learn from, few enough for four minutes on two cores.
GENERATED_TRAIN, GENERATED_VAL = 800, 200
GENERATED_SIZE, FOLDER_SIZE = (128, 128), (256, 256)
# What is drawn: as many pictures, and detections that are at least this certain.
NUM_DRAWN, DRAWN_SCORE = 16, 0.5


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument_group("data and model").add_argument
    add("--data", default="generated", metavar="FOLDER", help='a folder, or "generated"')
    add("--num-classes", type=arguments.positive_int, default=1, metavar="N",
        help=f"classes of the generated data, up to {len(CLASS_NAMES)}")  # fmt: skip
    add("--image-size", type=arguments.image_size, metavar="PIXELS",
        help="size of the network's input: 256, or HEIGHTxWIDTH; "
        "default 128 for generated data, 256 for folders")  # fmt: skip
    add("--base", default="tiny", metavar="NAME",
        help='"tiny", the book\'s, or a network of keras.applications (mobilenet, resnet50 …)')  # fmt: skip
    add("--weights", metavar="FILE", help='weights of that network: a file, or "imagenet"')
    add_run_arguments(parser, epochs=20, batch_size=32, learning_rate=0.2, out="runs/train_ssd")
    return parser.parse_args(argv)
