"""Paint one picture in the manner of another, or of several.

    python scripts/style_transfer.py CONTENT STYLE

takes VGG-19 with torchvision's ImageNet weights, which are downloaded at first use. `--weights
none` needs none, `--network keras_vgg19` and `--network mobilenet` take Keras' own. The result, at
CONTENT's own size, and a picture of content, style and result side by side go to --out. README.md
says how long it takes and what to expect.
"""

import argparse
import re
import time
from pathlib import Path

import kerascv_d2l
from kerascv_d2l.errors import InputError
from kerascv_d2l.training import add_common_arguments, arguments, run_main, set_up

TASK = "style_transfer"
LONGER_SIDE = 450  # the book's 300 x 450, for a picture of these proportions
# Below it the coarse layers of a network see next to nothing; such pictures are enlarged.
LEAST_SIDE = 32
FULL = "full"
NONE = "none"
# The state is saved so often, and less often where saving takes more than a share of the time.
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 10.0, 0.05
COMPARISON_INCHES = 6.0


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("content", metavar="CONTENT", help="the picture to paint")
    parser.add_argument("style", nargs="+", metavar="STYLE", help="pictures in whose manner")
    arguments.add_feature_network_arguments(
        parser.add_argument_group("network").add_argument, None, ", with --book-weights max"
    )
    add = parser.add_argument_group("losses").add_argument
    arguments.add_loss_weight_arguments(add, also="; see --book-weights")
    add(
        "--book-weights",
        action="store_true",
        help="the book's plain losses, weights, pooling and optimizer, which suit torchvision's "
        "VGG-19 only",
    )
    add(
        "--style-weights",
        nargs="+",
        type=arguments.positive_float,
        metavar="SHARE",
        help="how much each of several styles counts (default: all the same)",
    )
    add(
        "--style-mask",
        nargs="+",
        metavar="FILE",
        help="for each style a grey picture of its size, white where it shows the style, or none",
    )
    add(
        "--style-scale",
        type=arguments.positive_float,
        default=1.0,
        metavar="FACTOR",
        help="size of the brush: side of the style picture in units of the result's "
        "(default: %(default)s)",
    )
    add(
        "--preserve-color",
        action="store_true",
        help="keep CONTENT's colours: only light and dark are painted",
    )
    _add_optimization(parser.add_argument_group("optimization").add_argument)
    args = parser.parse_args(argv)
    if args.optimizer is None:
        args.optimizer = "adam" if args.book_weights else "lbfgs"
    if args.pooling is None:
        args.pooling = "max" if args.book_weights else "average"
    for flag, values in (
        ("--style-weights", args.style_weights),
        ("--style-mask", args.style_mask),
    ):
        if values is not None and len(values) != len(args.style):
            parser.error(f"{flag} has {len(values)} values for {len(args.style)} style picture(s)")
    if args.levels > args.steps:
        parser.error(f"--levels {args.levels} needs at least as many --steps, not {args.steps}")
    return args


def _add_optimization(add):
    add(
        "--steps",
        type=arguments.positive_int,
        default=500,
        metavar="N",
        help="evaluations of the loss (default: %(default)s)",
    )
    add(
        "--image-size",
        type=_working_size,
        default=LONGER_SIDE,
        metavar="PIXELS",
        help="size to paint at: its longer side, HEIGHTxWIDTH, or full for CONTENT's own; the "
        "result is resized to CONTENT's (default: %(default)s, never larger than CONTENT)",
    )
    add(
        "--optimizer",
        choices=("adam", "lbfgs"),
        help="lbfgs needs fewer steps and looks cleaner, and takes 160 bytes more for every "
        "colour value (default: lbfgs, with --book-weights adam)",
    )
    add(
        "--learning-rate",
        type=arguments.positive_float,
        metavar="RATE",
        help="step size of adam, in units of the normalised image (default: 0.1, with "
        "--book-weights 0.3)",
    )
    add(
        "--schedule",
        choices=("cosine", "steps"),
        help="of adam's step size: down to 0 along half a cosine, or times 0.8 ten times over "
        "(default: cosine, with --book-weights steps)",
    )
    add(
        "--levels",
        type=arguments.positive_int,
        default=1,
        metavar="N",
        help="from coarse to fine: sizes to paint at, each twice the one before, with equal "
        "shares of the steps (default: %(default)s)",
    )
    add(
        "--init",
        choices=("content", "style", "noise"),
        default="content",
        help="what to start from (default: %(default)s)",
    )
    add(
        "--tile",
        type=_tile,
        default="auto",
        metavar="PIXELS",
        help="bound memory by working in tiles with cores of this side; none: all at once; auto: "
        "512 above 1.5 megapixels (default: %(default)s)",
    )
    add(
        "--save-every",
        type=_interval,
        metavar="N",
        help="write the picture so far every N steps, or, as 30s, every so many seconds",
    )
    add_common_arguments(
        add,
        out="runs/style_transfer",
        written="pictures and figures",
        kept="where it was killed",
        devices=False,
    )


def _working_size(text):
    if text == FULL:
        return text
    if "x" not in str(text).lower():
        return arguments.positive_int(text)
    return arguments.image_size(text)


def _tile(text):
    return text if text in ("auto", NONE) else arguments.positive_int(text)


def _interval(text):
    """`"50"` -> (50, "steps"), `"30s"` -> (30.0, "seconds")."""
    if found := re.fullmatch(r"(.+)s", text):
        return arguments.positive_float(found[1]), "seconds"
    return arguments.positive_int(text), "steps"


def read_styles(args):
    """The style pictures with their weights and masks, as a list of `Style`'s arguments."""
    weights = args.style_weights or [1.0] * len(args.style)
    masks = args.style_mask or [NONE] * len(args.style)
    styles = []
    for name, weight, mask_name in zip(args.style, weights, masks, strict=True):
        image, mask = kerascv_d2l.read_image(name), None
        if mask_name != NONE:
            mask = kerascv_d2l.read_image(mask_name).mean(axis=2) / 255  # (h, w)
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
    """`(height, width)` to paint at."""
    if isinstance(size, tuple):
        return size
    height, width = content_shape[:2]
    scale = 1.0 if size == FULL else min(1.0, size / max(height, width))
    # A side of a very long picture may be enlarged alone: the result is resized back.
    return tuple(max(LEAST_SIDE, round(side * scale)) for side in (height, width))


def loss_weights(args):
    """`LossWeights` of the flags."""
    from kerascv_d2l.style_transfer import BOOK_WEIGHTS, LossWeights, weights_of

    return weights_of(args, BOOK_WEIGHTS if args.book_weights else LossWeights())


class Watcher:
    """What happens between steps: the line on screen, pictures so far, checkpoints."""

    def __init__(self, run, transfer, save_every):
        from kerascv_d2l.training import StatusLine

        self._run, self._transfer, self._save_every = run, transfer, save_every
        self._line = StatusLine()
        self._began = self._saved = self._drawn = time.perf_counter()
        self._share = transfer.share_done()
        self._saving_seconds = 0.0
        self._saved_steps = len(transfer.history)

    def __call__(self, transfer):
        now, steps = time.perf_counter(), len(transfer.history)
        if self._line.due():
            self._show()
        if self._save_every is not None:
            interval, unit = self._save_every
            if steps % interval == 0 if unit == "steps" else now - self._drawn >= interval:
                self.draw()
                self._drawn = time.perf_counter()
        pause = max(CHECKPOINT_SECONDS, self._saving_seconds / CHECKPOINT_SHARE)
        if now - self._saved >= pause:
            self.save()

    def _show(self, end=False):
        from kerascv_d2l.training import bar

        transfer = self._transfer
        share = transfer.share_done()
        seconds = time.perf_counter() - self._began
        left = seconds / max(share - self._share, 1e-9) * (1 - share)
        figures = dict(zip(_names(), transfer.history[-1], strict=True))
        # The last line search of L-BFGS may take an evaluation more.
        done = min(len(transfer.history), transfer.steps)
        self._line.draw(bar(done, transfer.steps, left, figures), end)

    def draw(self):
        """Write the picture so far."""
        path = self._run.path("steps") / f"{len(self._transfer.history):05}.png"
        with kerascv_d2l.whole(path) as temporary:
            self._transfer.image().save(temporary)

    def save(self):
        """Write the state to go on from, unless there is nothing new in it."""
        begin = time.perf_counter()
        state = self._transfer.state()
        steps = int(state["steps"])
        if steps > self._saved_steps or bool(state["done"]):
            history = dict(zip(_names(), state["history"].T.tolist(), strict=True))
            self._run.save_progress([], state, done=steps, history=history)
            self._saved_steps = steps
            self._saving_seconds = time.perf_counter() - begin
        self._saved = time.perf_counter()

    def end(self):
        """Show the last figures and save the finished run."""
        if self._transfer.history:
            self._show(end=True)
        self.save()


def _names():
    from kerascv_d2l.style_transfer import LOSS_NAMES

    return [f"{name}_loss" if name != "loss" else name for name in LOSS_NAMES]


def transfer_style(run, transfer, save_every):
    """Do all steps, going on from what the folder holds.

    Returns:
        seconds that this process took for its steps.
    """
    progress = run.load_progress([])
    if progress is not None:
        transfer.set_state(progress)
    watcher = Watcher(run, transfer, save_every)
    if save_every is not None and not transfer.history:
        watcher.draw()
    begin = time.perf_counter()
    try:
        transfer.run(watcher)
    except KeyboardInterrupt:
        watcher.save()
        raise
    seconds = time.perf_counter() - begin
    watcher.end()
    return seconds


def write_results(run, args, content, styles, image):
    """Write the picture as painted, at the content's own size, and beside content and styles."""
    import numpy as np
    from PIL import Image

    from kerascv_d2l.plotting.sheets import draw_examples
    from kerascv_d2l.style_transfer.images import with_colors_of

    height, width = content.shape[:2]
    result = image
    if image.size != (width, height):
        with kerascv_d2l.whole(run.path(f"painted_{image.height}x{image.width}.png")) as path:
            image.save(path)
        result = image.resize((width, height), Image.Resampling.LANCZOS)
        if args.preserve_color:  # the content's own colours are finer than enlarged ones
            result = Image.fromarray(with_colors_of(np.asarray(result), content))
    with kerascv_d2l.whole(run.path("result.png")) as path:
        result.save(path)
    pictures = [content, *(style[0] for style in styles), np.asarray(result)]
    titles = ["content", *(f"style: {Path(name).name}" for name in args.style)]
    draw_examples(
        run.path("comparison.png"),
        pictures,
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
    set_up(args)
    from kerascv_d2l.style_transfer import network_of

    run = kerascv_d2l.Run.start(args, TASK, {"image_shape": shape}, unit="step")
    network = network_of(args)
    transfer = kerascv_d2l.StyleTransfer(
        content,
        [kerascv_d2l.Style(*style) for style in styles],
        network,
        image_shape=shape,
        steps=args.steps,
        weights=loss_weights(args),
        optimizer=args.optimizer,
        lr=args.learning_rate,
        schedule=args.schedule,
        start=args.init,
        levels=args.levels,
        preserve_color=args.preserve_color,
        style_scale=args.style_scale,
        tile=None if args.tile == NONE else args.tile,
        seed=args.seed,
    )
    print(
        f"{args.network}, weights {args.weights}: {args.steps} steps of "
        f"{args.optimizer or 'adam'} at {shape[0]} x {shape[1]}; the content has "
        f"{content.shape[0]} x {content.shape[1]} (height x width)",
        flush=True,
    )
    seconds = transfer_style(run, transfer, args.save_every)
    write_results(run, args, content, styles, transfer.image())
    names = _names()
    metrics = dict(zip(names, transfer.losses(), strict=True))
    metrics["first"] = dict(zip(names, transfer.history[0], strict=True))
    metrics["seconds"] = round(seconds, 1)  # of this process: those before a kill are not known
    command = ["python", "scripts/train_fast_style.py", args.style[0]]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    run_main(main)
