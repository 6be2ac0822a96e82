"""Paint an image in the style of another, or of several.

    python scripts/style_transfer.py CONTENT STYLE

takes VGG-19 with torchvision's ImageNet weights, which are downloaded at first use. `--weights
none` needs none, `--network keras_vgg19`, `vgg16` and `mobilenet` take Keras' own. The result, at
CONTENT's own size, and a sheet of content, style and result go to --out. docs/style.md says how
long it takes and what to expect.
"""

import hashlib
import re
import sys
import time
from pathlib import Path

import kerascv_d2l
from kerascv_d2l import cli
from kerascv_d2l.data.images import BLACK
from kerascv_d2l.errors import InputError

TASK = "style_transfer"
LONGER_SIDE = 450  # the book's 300 x 450, for an image of these proportions
# Below it the coarse layers of a network see next to nothing; such images are enlarged.
LEAST_SIDE = 32
FULL, NONE = "full", "none"
RECIPES = {
    "default": {"optimizer": "lbfgs", "pooling": "average", "steps": 200},
    "book": {"optimizer": "adam", "pooling": "max", "steps": 500},
}
# The state is saved so often, and less often where saving takes more than a share of the time.
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 10.0, 0.05
COMPARISON_INCHES = 6.0


def parse(argv=None):
    parser = cli.parser(__doc__)
    add, path = parser.add_argument, cli.existing_path()
    add("content", type=path, metavar="CONTENT", help="the image to paint")
    add("style", type=path, nargs="+", metavar="STYLE", help="images whose style to take")
    cli.add_style_arguments(parser, "; see --recipe")
    add_loss_arguments(parser)
    add_optimizer_arguments(parser)
    cli.add_run_arguments(parser, TASK, kept="its last checkpoint", without=("--devices",))
    args = parser.parse_args(argv)
    cli.fill_in(args, RECIPES[args.recipe])
    for flag, values in (
        ("--style-weights", args.style_weights),
        ("--style-mask", args.style_mask),
    ):
        if values is not None and len(values) != len(args.style):
            parser.error(f"{flag} has {len(values)} values for {len(args.style)} style image(s)")
    if args.levels > args.steps:
        parser.error(f"--levels {args.levels} needs at least as many --steps, not {args.steps}")
    return args


def add_loss_arguments(parser):
    add = parser.add_argument_group("recipe and styles").add_argument
    add(
        "--recipe",
        choices=sorted(RECIPES),
        default="default",
        help="default: losses that suit any network, L-BFGS; book: the book's losses, weights "
        "(1, 1e4, 10), max pooling and Adam, which suit torchvision's VGG-19 only "
        "(default: %(default)s)",
    )
    add(
        "--style-weights",
        nargs="+",
        type=cli.positive_float,
        metavar="SHARE",
        help="weights of several styles (default: equal)",
    )
    add(
        "--style-mask",
        type=cli.existing_path((NONE,)),
        nargs="+",
        metavar="FILE",
        help="for each style a grey image of its size, white where it shows the style, or none",
    )
    add(
        "--style-scale",
        type=cli.positive_float,
        default=1.0,
        metavar="FACTOR",
        help="size of the brush: side of the style image in units of the result's "
        "(default: %(default)s)",
    )
    add(
        "--preserve-color",
        action="store_true",
        help="keep CONTENT's colours: only the luminance is painted",
    )


def add_optimizer_arguments(parser):
    add = parser.add_argument_group("optimization").add_argument
    add(
        "--steps",
        type=cli.positive_int,
        metavar="N",
        help="evaluations of the loss (default: 200; 500 with --recipe book)",
    )
    add(
        "--image-size",
        type=_working_size,
        default=LONGER_SIDE,
        metavar="PIXELS",
        help="size to paint at, always in CONTENT's proportions: the longer side, "
        "HEIGHTxWIDTH to fit into, or full for CONTENT's own; the result is resized to "
        "CONTENT's (default: %(default)s, never larger than CONTENT)",
    )
    add(
        "--optimizer",
        choices=("adam", "lbfgs"),
        help="lbfgs needs fewer steps and looks cleaner, and takes 160 bytes more for every "
        "colour value (default: by --recipe)",
    )
    add(
        "--learning-rate",
        type=cli.positive_float,
        metavar="RATE",
        help="learning rate of adam at the start, in units of the normalised image "
        "(default: 0.1, with --recipe book 0.3)",
    )
    add(
        "--levels",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="coarse to fine: sizes to paint at, each twice the one before, with equal "
        "shares of the steps (default: %(default)s)",
    )
    add(
        "--init",
        choices=("content", "style", "noise"),
        default="content",
        help="image to start from (default: %(default)s)",
    )
    add(
        "--tile",
        type=_tile,
        default="auto",
        metavar="PIXELS",
        help="bound memory by working in tiles of this side; none: all at once; auto: "
        "512 above 1.5 megapixels (default: %(default)s)",
    )
    add(
        "--save-every",
        type=_interval,
        metavar="N",
        help="write the image so far every N steps, or, as 30s, every so many seconds",
    )


def _working_size(text):
    if text == FULL:
        return text
    return cli.image_size(text) if "x" in str(text).lower() else cli.positive_int(text)


def _tile(text):
    return text if text in ("auto", NONE) else cli.positive_int(text)


def _interval(text):
    """`"50"` -> (50, "steps"), `"30s"` -> (30.0, "seconds")."""
    if found := re.fullmatch(r"(.+)s", text):
        return cli.positive_float(found[1]), "seconds"
    return cli.positive_int(text), "steps"


def read_styles(args):
    """Read the style images with their weights and masks: a list of `Style`'s arguments."""
    weights = args.style_weights or [1.0] * len(args.style)
    masks = args.style_mask or [NONE] * len(args.style)
    styles = []
    for name, weight, mask_name in zip(args.style, weights, masks, strict=True):
        image, mask = kerascv_d2l.read_image(name), None
        if mask_name != NONE:
            mask = kerascv_d2l.read_image(mask_name, behind=BLACK).mean(axis=2) / 255  # (h, w)
            if mask.shape != image.shape[:2]:
                raise InputError(
                    f"--style-mask {mask_name}: {mask.shape[1]} x {mask.shape[0]} pixels, but its "
                    f"style {name} has {image.shape[1]} x {image.shape[0]}: make it of that size"
                )
            if not mask.any():
                raise InputError(
                    f"--style-mask {mask_name}: black all over, so nothing shows the style; white "
                    "it where it does"
                )
        styles.append((image, weight, mask))
    return styles


def working_shape(size, content_shape):
    """Choose `(height, width)` to paint at, in the proportions of the content."""
    height, width = content_shape[:2]
    if isinstance(size, tuple):
        scale = min(size[0] / height, size[1] / width)
    else:
        scale = 1.0 if size == FULL else min(1.0, size / max(height, width))
    # A side of a very long image may be enlarged alone: the result is resized back.
    return tuple(max(LEAST_SIDE, round(side * scale)) for side in (height, width))


def loss_weights(args):
    """`LossWeights` of the flags."""
    from kerascv_d2l import style_transfer as st

    weights = st.BOOK_WEIGHTS if args.recipe == "book" else st.LossWeights()
    return weights.replaced(args.content_weight, args.style_weight, args.tv_weight)


def fingerprint(content, styles):
    """Digest of all pixels, by which `--resume` notices other images in the same files."""
    digest = hashlib.sha256(repr(content.shape).encode() + content.tobytes())
    for image, _, mask in styles:
        digest.update(repr(image.shape).encode() + image.tobytes())
        digest.update(b"" if mask is None else mask.tobytes())
    return digest.hexdigest()[:16]


class Watcher:
    """What happens between steps: progress on screen, images so far, checkpoints."""

    def __init__(self, run, transfer, save_every):
        import keras

        self._run, self._save_every = run, save_every
        self._saved = self._drawn = time.perf_counter()
        self._saving_seconds = 0.0
        self._saved_steps = len(transfer.history)
        interval = 0.5 if sys.stdout.isatty() else 10.0
        self._bar = keras.utils.Progbar(
            transfer.steps, interval=interval, stateful_metrics=_names(), unit_name="step"
        )

    def __call__(self, transfer):
        now, steps = time.perf_counter(), len(transfer.history)
        losses = list(zip(_names(), map(float, transfer.history[-1]), strict=True))
        # The last line search of L-BFGS may take an evaluation more.
        self._bar.update(min(steps, transfer.steps), losses, finalize=steps == transfer.steps)
        if self._save_every is not None:
            interval, unit = self._save_every
            if steps % interval == 0 if unit == "steps" else now - self._drawn >= interval:
                self.draw(transfer)
                self._drawn = time.perf_counter()
        if now - self._saved >= max(CHECKPOINT_SECONDS, self._saving_seconds / CHECKPOINT_SHARE):
            self.save(transfer)

    def draw(self, transfer):
        """Write the image so far."""
        with self._run.writing(f"steps/{len(transfer.history):05}.png") as path:
            transfer.image().save(path)

    def save(self, transfer):
        """Write the state to go on from, unless there is nothing new in it."""
        begin = time.perf_counter()
        state = transfer.state()
        steps = int(state["steps"])
        if steps > self._saved_steps or bool(state["done"]):
            history = dict(zip(_names(), state["history"].T.tolist(), strict=True))
            self._run.save(steps, state, history)
            self._saved_steps = steps
            self._saving_seconds = time.perf_counter() - begin
        self._saved = time.perf_counter()


def _names():
    from kerascv_d2l.style_transfer import LOSS_NAMES

    return [f"{name}_loss" if name != "loss" else name for name in LOSS_NAMES]


def paint(run, transfer, save_every):
    """Do all steps, going on from what the folder holds.

    Returns:
        seconds that this process took for its steps.
    """
    if run.progress is not None:
        transfer.set_state(run.progress)
    watcher = Watcher(run, transfer, save_every)
    if save_every is not None and not transfer.history:
        watcher.draw(transfer)
    begin = time.perf_counter()
    try:
        transfer.run(watcher)
    finally:
        seconds = time.perf_counter() - begin
        watcher.save(transfer)
    return seconds


def write_results(run, args, content, styles, image):
    """Write the image as painted, at the content's own size, and beside content and styles."""
    import numpy as np
    from PIL import Image

    from kerascv_d2l.plotting.sheets import draw_examples
    from kerascv_d2l.style_transfer.images import with_colors_of

    height, width = content.shape[:2]
    result = image
    if image.size != (width, height):
        with run.writing(f"painted_{image.height}x{image.width}.png") as path:
            image.save(path)
        result = image.resize((width, height), Image.Resampling.LANCZOS)
        if args.preserve_color:  # the content's own colours are finer than enlarged ones
            result = Image.fromarray(with_colors_of(np.asarray(result), content))
    with run.writing("result.png") as path:
        result.save(path)
    titles = ["content", *(f"style: {Path(name).name}" for name in args.style)]
    with run.drawing("comparison.png") as path:
        draw_examples(
            path,
            [content, *(style[0] for style in styles), np.asarray(result)],
            [*titles, f"result after {args.steps} steps"],
            columns=3,
            inches=COMPARISON_INCHES,
        )


def main(argv=None):
    """Read, optimise, draw.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    content, styles = kerascv_d2l.read_image(args.content), read_styles(args)
    shape = working_shape(args.image_size, content.shape)
    strategy = cli.set_up(args)
    from kerascv_d2l import style_transfer as st

    settings = {"image_shape": shape, "pixels": fingerprint(content, styles)}
    run = cli.start_run(args, strategy, TASK, settings=settings, unit="step")
    transfer = st.StyleTransfer(
        content,
        [st.Style(*style) for style in styles],
        st.named_network(args.network, args.weights, pooling=args.pooling),
        image_shape=shape,
        steps=args.steps,
        weights=loss_weights(args),
        optimizer=args.optimizer,
        lr=args.learning_rate,
        start=args.init,
        levels=args.levels,
        preserve_color=args.preserve_color,
        style_scale=args.style_scale,
        tile=None if args.tile == NONE else args.tile,
        seed=args.seed,
    )
    print(
        f"{args.network}, weights {args.weights}: {args.steps} steps of {args.optimizer} at "
        f"{shape[0]} x {shape[1]}; the content has {content.shape[0]} x {content.shape[1]} "
        "(height x width)",
        flush=True,
    )
    seconds = paint(run, transfer, args.save_every)
    write_results(run, args, content, styles, transfer.image())
    metrics = dict(zip(_names(), transfer.losses(), strict=True))
    metrics["first"] = dict(zip(_names(), transfer.history[0], strict=True))
    metrics["seconds"] = round(seconds, 1)  # of this process: those before a kill are not known
    return run.finish(metrics, ["python", cli.script("train_fast_style.py"), args.style[0]])


if __name__ == "__main__":
    cli.run_main(main)
