"""Train a network that paints any image in the style of one, in a single pass.

    python scripts/train_fast_style.py STYLE --data FOLDER_OF_PHOTOS

FOLDER holds photographs of any kind and size, also in folders in it; without --data it learns on
generated images. What it learns is the style: photographs only stand for what will be painted.
`scripts/predict.py` paints with the result. docs/style.md says how long it takes and what to
expect.
"""

import dataclasses
import hashlib
from pathlib import Path

import kerascv_d2l
from kerascv_d2l import cli

TASK = "train_fast_style"
GENERATED, GENERATED_TRAIN = "generated", 280
# Strokes are as large as those of STYLE at this size: the same as in style_transfer.py. Of one crop
# a step there are more steps in the same time than of several. Smaller crops show less of the large
# strokes, and what is learned of them are ripples.
IMAGE_SIZE, STYLE_SIZE = 256, 450
WIDTH, BLOCKS, LEARNING_RATE, WARMUP = 16, 5, 2e-3, 0.05
UPDATES = 280
AVERAGING = 0.99  # the network that is kept is a running mean: single photographs sway it less
# More content and smoothness than where an image is optimised: a network lowers the style loss by
# ripples in all that is flat.
CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 2.0, 10.0, 8.0
CLIP_NORM = 1.0  # some photographs have gradients of many times those of the others
CROP_AREA = (0.25, 1.0)  # share of a photograph: smaller ones are mostly flat and blurred
NUM_DRAWN = 5
DRAWN_SIDE = 450  # pixels, longer side of the drawn photographs
DRAWN_INCHES = 4.5


def parse(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument(
        "style", type=cli.existing_path(), metavar="STYLE", help="the image whose style to learn"
    )
    group = cli.add_data_arguments(
        parser,
        (GENERATED,),
        help_text="a folder of photographs (default: generated images)",
        without=("--archive", "--data-dir", "--split-seed", "--val-fraction"),
    )
    group.add_argument(
        "--image-size",
        type=cli.image_size,
        default=(IMAGE_SIZE, IMAGE_SIZE),
        metavar="PIXELS",
        help=f"size of the random crops to train on: {IMAGE_SIZE}, or HEIGHTxWIDTH "
        f"(default: {IMAGE_SIZE}); what is painted later may have any size",
    )
    group.add_argument(
        "--style-size",
        type=cli.positive_int,
        default=STYLE_SIZE,
        metavar="PIXELS",
        help="longer side of STYLE in training: larger makes larger strokes (default: %(default)s)",
    )
    add = parser.add_argument_group("model").add_argument
    add(
        "--width",
        type=cli.positive_int,
        default=WIDTH,
        metavar="N",
        help="channels of the network at full size (default: %(default)s)",
    )
    add(
        "--blocks",
        type=cli.positive_int,
        default=BLOCKS,
        metavar="N",
        help="residual blocks of the network (default: %(default)s)",
    )
    cli.add_style_arguments(parser, weights=(CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT))
    group = cli.add_training_arguments(
        parser,
        TASK,
        defaults=f"some {UPDATES} updates, on as many images of a large folder",
        batch_size=1,
        without=("--sync-batch-norm",),
    )
    group.add_argument(
        "--learning-rate",
        type=cli.positive_float,
        default=LEARNING_RATE,
        metavar="RATE",
        help="learning rate of Adam at the start of a cosine (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    cli.fill_in(args, {"pooling": "average"})
    return args


def load_photographs(args):
    """Load the `DataSet` of photographs."""
    options = {}
    if args.data == GENERATED:
        side = 2 * max(args.image_size)
        options = {"num_train": GENERATED_TRAIN, "num_val": NUM_DRAWN, "image_size": side}
    return kerascv_d2l.load(args.data, "unlabelled", skip_bad=args.skip_bad, **options)


def augmentation(image_size):
    """Make random crops of the proportions of `image_size`, so that nothing is squeezed; flip."""
    height, width = image_size
    crop = kerascv_d2l.RandomResizedCrop(image_size, CROP_AREA, ratio=(width / height,) * 2)
    return kerascv_d2l.Compose([crop, kerascv_d2l.RandomHorizontalFlip()])


def read_style(args):
    """Read the style image at the size of training, uint8 `(h, w, 3)`."""
    from kerascv_d2l.style_transfer.images import resize
    from kerascv_d2l.style_transfer.transfer import LEAST_STYLE_SIDE

    image = kerascv_d2l.read_image(args.style)
    scale = args.style_size / max(image.shape[:2])
    return resize(image, [max(LEAST_STYLE_SIDE, round(n * scale)) for n in image.shape[:2]])


def build_trainer(args, style, steps):
    """Build and compile the trainer, for so many updates."""
    import tensorflow as tf

    from kerascv_d2l import style_transfer as st
    from kerascv_d2l.devices import resolve_jit_compile

    net = kerascv_d2l.TransformerNet(args.width, args.blocks)
    weights = st.LossWeights(CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT).replaced(
        args.content_weight, args.style_weight, args.tv_weight
    )
    network = st.named_network(args.network, args.weights, pooling=args.pooling)
    trainer = st.FastStyleTrainer(net, network, [st.Style(style)], weights)
    optimizer = kerascv_d2l.make_optimizer(
        "adam",
        args.learning_rate,
        schedule="cosine",
        steps=steps,
        warmup=WARMUP,
        clip_norm=CLIP_NORM,
        averaging=AVERAGING,
    )
    trainer.compile(optimizer, jit_compile=resolve_jit_compile("auto"))
    trainer(tf.zeros((1, *args.image_size, 3)))  # builds it
    print(
        f"{args.network}, weights {args.weights}, train a network of "
        f"{net.count_params():,} parameters",
        flush=True,
    )
    return trainer


def draw(path, args, style, split, stylize):
    """Write a sheet of the style and some photographs, each beside how it is painted."""
    import numpy as np
    from PIL import Image

    from kerascv_d2l.plotting.sheets import draw_examples

    images, titles = [style], [f"style: {Path(args.style).name}"]
    for i in np.linspace(0, len(split) - 1, min(NUM_DRAWN, len(split))).astype(int):
        photograph = Image.fromarray(split.image(i))
        photograph.thumbnail((DRAWN_SIDE, DRAWN_SIDE))
        images.append(np.asarray(photograph))
        titles.append(str(split.names[i]))
    painted = [stylize(image[None])["pictures"][0].numpy() for image in images]
    both = [image for pair in zip(images, painted, strict=True) for image in pair]
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
    strategy = cli.set_up(args)
    import numpy as np

    from kerascv_d2l import export

    style, data = read_style(args), load_photographs(args)
    print(data.describe(), flush=True)
    if args.epochs is None and len(data.train) > UPDATES * args.batch_size:
        some = np.linspace(0, len(data.train) - 1, UPDATES * args.batch_size).astype(int)
        data = dataclasses.replace(data, train=data.train.subset(some))
    steps = kerascv_d2l.steps_per_epoch(data.train, args.batch_size)
    args.epochs = args.epochs or max(1, round(UPDATES / steps))
    settings = {"style_pixels": hashlib.sha256(style.tobytes()).hexdigest()[:16]}
    run = cli.start_run(args, strategy, TASK, data, settings)
    with strategy.scope():
        trainer = build_trainer(args, style, args.epochs * steps)
    averaged = kerascv_d2l.AverageWeights()
    run.watch(trainer, averaged)
    trainer.fit(
        run.batches(
            data.train,
            args.image_size,
            args.batch_size,
            seed=args.seed,
            transform=augmentation(args.image_size),
        ),
        steps_per_epoch=steps,
        epochs=args.epochs,
        initial_epoch=run.initial_epoch,
        callbacks=[averaged, run],
        shuffle=False,  # the data does it
        verbose=run.verbose,
    )

    print("drawing, exporting …", flush=True)
    run.save_model(trainer.net)
    export.save(trainer.net, run.path("saved_model"))
    split = data.train if data.val is None else data.val
    with run.drawing("painted.png") as path:
        draw(path, args, style, split, trainer.net.stylize)
    names = ("content_loss", "style_loss", "tv_loss", "loss")
    metrics = {name: run.history[name][-1] for name in names}
    command = ["python", cli.script("predict.py"), str(run.path("saved_model")), "IMAGE"]
    return run.finish(metrics, command)


if __name__ == "__main__":
    cli.run_main(main)
