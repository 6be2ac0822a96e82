"""Train a network that paints any picture in the manner of one, in a single pass.

    python scripts/train_fast_style.py STYLE --data FOLDER_OF_PHOTOS

FOLDER holds photographs of any kind and size, also in folders in it; without --data it learns on
generated pictures. What it learns is the style: photographs only stand for what will be painted.
`scripts/stylize.py` paints with the result. README.md says how long it takes and what to expect.
"""

import argparse
from pathlib import Path

from kerascv_d2l.exported import load_stylizer

import kerascv_d2l
from kerascv_d2l.training import add_run_arguments, arguments, run_main, set_up

TASK = "train_fast_style"
GENERATED, GENERATED_COUNT = "generated", 400
IMAGE_SIZE, STYLE_SIZE = 128, 256
WIDTH, BLOCKS = 16, 5
NUM_DRAWN = 5
DRAWN_SIDE = 450  # pixels, longer side of the drawn photographs
DRAWN_INCHES = 4.5


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("style", metavar="STYLE", help="the picture in whose manner")
    add = parser.add_argument_group("data and model").add_argument
    add(
        "--data",
        default=GENERATED,
        metavar="FOLDER",
        help="a folder of photographs (default: generated pictures)",
    )
    add(
        "--image-size",
        type=arguments.image_size,
        default=(IMAGE_SIZE, IMAGE_SIZE),
        metavar="PIXELS",
        help="windows of photographs to learn on: 128, or HEIGHTxWIDTH "
        f"(default: {IMAGE_SIZE}); what is painted later may have any size",
    )
    add(
        "--style-size",
        type=arguments.positive_int,
        default=STYLE_SIZE,
        metavar="PIXELS",
        help="longer side of STYLE as it is learnt: larger makes larger strokes "
        "(default: %(default)s)",
    )
    add(
        "--width",
        type=arguments.positive_int,
        default=WIDTH,
        metavar="N",
        help="channels of the network at full size (default: %(default)s)",
    )
    add(
        "--blocks",
        type=arguments.positive_int,
        default=BLOCKS,
        metavar="N",
        help="residual blocks of the network (default: %(default)s)",
    )
    arguments.add_feature_network_arguments(add)
    arguments.add_loss_weight_arguments(parser.add_argument_group("losses").add_argument)
    add_run_arguments(
        parser, epochs=8, batch_size=4, learning_rate=2e-3, out="runs/train_fast_style"
    )
    return parser.parse_args(argv)


def load_photographs(args):
    """A `ClassificationSplit`, and a line about it."""
    if args.data == GENERATED:
        size = 2 * max(args.image_size)
        data = kerascv_d2l.generate_classification(
            GENERATED_COUNT, NUM_DRAWN, args.seed, image_size=size
        )
        return data.train, f"{GENERATED_COUNT} generated pictures of {size} x {size}"
    split = kerascv_d2l.read_photographs(args.data, args.skip_bad)
    left_out = ""
    if split.skipped:
        left_out = f", {len(split.skipped)} left out, such as {split.skipped[0]}"
    return split, f"{len(split)} photographs in {args.data}{left_out}"


def read_style(args):
    """The style picture at the size it is learnt at, uint8 `(h, w, 3)`."""
    from kerascv_d2l.style_transfer.images import resize
    from kerascv_d2l.style_transfer.transfer import LEAST_STYLE_SIDE

    image = kerascv_d2l.read_image(args.style)
    scale = args.style_size / max(image.shape[:2])
    return resize(image, [max(LEAST_STYLE_SIDE, round(n * scale)) for n in image.shape[:2]])


def build_trainer(args, style):
    """The trainer, compiled and built."""
    import keras
    import tensorflow as tf

    from kerascv_d2l import style_transfer as st
    from kerascv_d2l.devices import resolve_jit_compile

    net = kerascv_d2l.TransformerNet(args.width, args.blocks)
    weights = st.weights_of(args, st.LossWeights())
    trainer = st.FastStyleTrainer(net, st.network_of(args), [st.Style(style)], weights)
    trainer.compile(
        keras.optimizers.Adam(args.learning_rate), jit_compile=resolve_jit_compile("auto")
    )
    trainer(tf.zeros((1, *args.image_size, 3)))  # builds it
    print(
        f"{args.network}, weights {args.weights}, teach a network of "
        f"{net.count_params():,} parameters",
        flush=True,
    )
    return trainer


def draw(path, args, style, split, stylize):
    """Write a sheet of the style and some photographs, each beside how it is painted."""
    import numpy as np
    from kerascv_d2l.pipelines.batches import picture_loader
    from PIL import Image

    from kerascv_d2l.plotting.sheets import draw_examples

    load = picture_loader(split)
    pictures, titles = [style], [f"style: {Path(args.style).name}"]
    for i in np.linspace(0, len(split) - 1, min(NUM_DRAWN, len(split))).astype(int):
        photograph = Image.fromarray(load(i).numpy())
        photograph.thumbnail((DRAWN_SIDE, DRAWN_SIDE))
        pictures.append(np.asarray(photograph))
        titles.append(str(split.names[i]))
    painted = [stylize(picture[None])["pictures"][0].numpy() for picture in pictures]
    both = [picture for pair in zip(pictures, painted, strict=True) for picture in pair]
    titles = [title for name in titles for title in (name, "painted")]
    draw_examples(path, both, titles, inches=DRAWN_INCHES)


def main(argv=None):
    """Train, draw, export.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    strategy = set_up(args)
    import tensorflow as tf

    style = read_style(args)
    photographs, described = load_photographs(args)
    print(described, flush=True)
    run = kerascv_d2l.Run.start(args, TASK, {"num_train": len(photographs)})
    with strategy.scope():
        trainer = build_trainer(args, style)

    plan = kerascv_d2l.plan_epoch(len(photographs), args.batch_size, strategy)

    def batches(initial_epoch):
        return kerascv_d2l.classification_batches(
            photographs,
            args.image_size,
            args.batch_size,
            training=True,
            seed=args.seed,
            initial_epoch=initial_epoch,
            drop_remainder=plan.drop_remainder,
        ).map(tf.autograph.experimental.do_not_convert(lambda images, labels: images))

    run.fit(
        trainer,
        batches,
        steps_per_epoch=plan.steps,
        epochs=args.epochs,
        images_per_epoch=plan.images,
    )

    print("drawing, exporting …", flush=True)
    run.save_model(trainer.net)
    kerascv_d2l.export_stylizer(trainer.net, run.path("saved_model"))
    stylize = load_stylizer(run.path("saved_model"))
    draw(run.path("painted.png"), args, style, photographs, stylize)
    names = ("content_loss", "style_loss", "tv_loss", "loss")
    metrics = {name: run.history[name][-1] for name in names}
    command = ["python", "scripts/stylize.py", str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    run_main(main)
