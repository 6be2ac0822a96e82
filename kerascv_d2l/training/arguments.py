"""The flags that every training script has, and the types that check their values."""

import argparse
import math
from pathlib import Path

from kerascv_d2l.distribution import DEVICES_HELP, parse_devices
from kerascv_d2l.errors import InputError


def _number(convert, accept, wanted):
    """An argparse type: its error names the flag, what was wanted and what arrived."""

    def check(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return value

    return check


positive_int = _number(int, lambda v: v >= 1, "a whole number of at least 1")
non_negative_int = _number(int, lambda v: v >= 0, "a whole number of at least 0")
positive_float = _number(float, lambda v: 0 < v < math.inf, "a number greater than 0")
non_negative_float = _number(float, lambda v: 0 <= v < math.inf, "a number of at least 0")
fraction = _number(float, lambda v: 0 <= v <= 1, "a number from 0 to 1")


def image_size(text):
    """Argparse type for `256` (a square) or `320x480` (height x width), in pixels.

    Returns:
        `(height, width)`.
    """
    parts = str(text).lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(
            f"expected pixels, as 256 or HEIGHTxWIDTH (320x480), got {text!r}"
        )
    return int(parts[0]), int(parts[-1])


def _devices(text):
    try:
        parse_devices(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--devices: ")) from error
    return text


def add_backbone_arguments(add, default, *, own="", weights_default="random"):
    """Add `--backbone` and `--weights`.

    Args:
        add: `add_argument` of a parser or of a group.
        default: default of `--backbone`.
        own: str: what the script knows beside the networks of
            `models.backbones`, for the help text.
        weights_default: str: what `--weights` is where it is not given.
    """
    add(
        "--backbone",
        default=default,
        metavar="NAME",
        help=f"{own}resnet18, resnet34, or a network of keras.applications: mobilenet, "
        "mobilenet_0.75, resnet50, … (default: %(default)s)",
    )
    add(
        "--weights",
        metavar="FILE",
        help=f"weights of that network: a file, or imagenet (default: {weights_default})",
    )


def add_optimizer_arguments(add, defaults):
    """Add `--optimizer`, `--momentum`, `--schedule` and `--weight-decay`, None where not given.

    `optimization.optimizer_class` and `scheduled_rate` make of them what Keras takes.

    Args:
        add: `add_argument` of a parser or of a group.
        defaults: str: what they are by default, for the help text.
    """
    add("--optimizer", choices=("adam", "sgd"), help=f"default: {defaults}")
    add("--momentum", type=fraction, metavar="X", help="of --optimizer sgd")
    add_schedule_argument(add)
    add("--weight-decay", type=non_negative_float, metavar="X", help="rate x X comes off a weight")


def add_schedule_argument(add, defaults=None):
    """Add `--schedule`, None where not given, for `optimization.scheduled_rate`.

    Args:
        add: `add_argument` of a parser or of a group.
        defaults: str: what it is by default, for the help text.
    """
    add(
        "--schedule",
        choices=("constant", "cosine"),
        help="of the learning rate: the same all the time, or down to 0 along half a cosine"
        + (f" (default: {defaults})" if defaults else ""),
    )


def fill_in(args, recipe):
    """Give flags that are None their values of a recipe, `{name: value}`."""
    for name, value in recipe.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def add_archive_arguments(add):
    """Add `--archive` and `--data-dir`, which say where a data set by name comes from and goes.

    Args:
        add: `add_argument` of a parser or of a group.
    """
    add(
        "--archive",
        metavar="FILE",
        help="the data set's archive at hand, or the folder unpacked from it: no download",
    )
    add(
        "--data-dir",
        metavar="DIR",
        help="where records are kept (default: TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )


def check_data(args, prepared, others=()):
    """Check `--data`, and that `--archive` and `--data-dir` go with it.

    A data set's name wins over a folder of the same name, which `./NAME` means.

    Args:
        args: parsed arguments, with those of `add_archive_arguments`.
        prepared: names of data sets that can be prepared from an archive.
        others: further names that the script knows.

    Raises:
        InputError: if `--data` is neither a name nor a folder, or one of the
            other two is given without a name in `prepared`.
    """
    if args.data in prepared:
        return
    names = ", ".join([*others, *prepared])
    if args.data not in others and not Path(args.data).is_dir():
        raise InputError(
            f"--data: {args.data!r} is neither a folder nor a data set; the data sets are {names}"
        )
    for flag, value in (("--archive", args.archive), ("--data-dir", args.data_dir)):
        if value is not None:
            raise InputError(
                f"{flag} {value}: only with --data {' or '.join(prepared)}, not {args.data}"
            )


def add_common_arguments(
    add,
    *,
    out,
    written="the model, figures and pictures",
    kept="its last finished epoch",
    devices=True,
):
    """Add the flags of everything that computes for long: training, and other runs.

    Adds `--seed --mixed-precision --devices --out --resume`.

    Args:
        add: `add_argument` of a parser or of a group.
        out: default of `--out`, a folder.
        written: str: what goes there, for the help text.
        kept: str: where `--resume` goes on, for the help text.
        devices: False for a script that never uses more than one, and takes the
            first GPU if there is one.
    """
    add(
        "--seed",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="start of every random draw: same seed, same result (default: %(default)s)",
    )
    add(
        "--mixed-precision",
        action="store_true",
        help="compute in 16 bits, keep weights in 32: float16 on a GPU, bfloat16 on a CPU",
    )
    if devices:
        help_text = f"{DEVICES_HELP} (default: %(default)s)"
        add("--devices", type=_devices, default="auto", help=help_text)
    add(
        "--out",
        default=out,
        metavar="FOLDER",
        help=f"folder for {written} (default: %(default)s)",
    )
    add("--resume", action="store_true", help=f"go on with the run in --out from {kept}")


def add_run_arguments(
    parser,
    *,
    epochs,
    batch_size,
    learning_rate,
    out,
    epochs_help=None,
    batch_size_help=None,
    learning_rate_help=None,
    skip_bad=True,
):
    """Add the flags that all training scripts share.

    Adds `--epochs --batch-size --learning-rate --seed --mixed-precision
    --sync-batch-norm --devices --out --resume --tensorboard` and `--skip-bad`.

    Args:
        parser: `argparse.ArgumentParser`.
        epochs: default of `--epochs`. `None` for a script that works it out
            from other flags; say how in `epochs_help`. The same holds for the next two.
        batch_size: default of `--batch-size`, images on all devices together.
        learning_rate: default of `--learning-rate`.
        out: default of `--out`, a folder.
        epochs_help: text instead of the standard one.
        batch_size_help: text instead of the standard one.
        learning_rate_help: text instead of the standard one.
        skip_bad: False for a script that reads no files of the user's.

    Returns:
        The argument group, for flags that belong with these.
    """
    group = parser.add_argument_group("training")
    add = group.add_argument
    add(
        "--epochs",
        type=positive_int,
        default=epochs,
        metavar="N",
        help=epochs_help or "passes over the training set (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=positive_int,
        default=batch_size,
        metavar="N",
        help=batch_size_help or "images in a step, on all devices together (default: %(default)s)",
    )
    add(
        "--learning-rate",
        type=positive_float,
        default=learning_rate,
        metavar="RATE",
        help=learning_rate_help or "step size of the optimizer (default: %(default)s)",
    )
    add_common_arguments(add, out=out)
    add(
        "--sync-batch-norm",
        action="store_true",
        help="several devices: batch norm takes its statistics over all of them, not each alone",
    )
    add(
        "--tensorboard",
        action="store_true",
        help="write logs for TensorBoard as well (needs the package tensorboard)",
    )
    if skip_bad:
        add(
            "--skip-bad",
            action="store_true",
            help="leave out unreadable files and bad labels and count them, instead of stopping",
        )
    return group


def add_feature_network_arguments(add, pooling="average", also=""):
    """Add `--network`, `--weights` and `--pooling` of the frozen network of style transfer.

    Args:
        add: `add_argument` of a parser or of a group.
        pooling: str, the default of `--pooling`, or None where it depends on other flags.
        also: str, what to say beside that default.
    """
    add(
        "--network",
        default="vgg19",
        metavar="NAME",
        help="vgg19 (torchvision's, the book's), keras_vgg19, mobilenet, mobilenet_0.75, or "
        "another network of keras.applications (default: %(default)s)",
    )
    add(
        "--weights",
        default="imagenet",
        metavar="FILE",
        help="its weights: a file, imagenet (downloaded at first use), or none for random ones "
        "(default: %(default)s)",
    )
    add(
        "--pooling",
        choices=("average", "max"),
        default=pooling,
        help="what the network pools by: average makes a smoother picture, max is what it was "
        f"trained with (default: average{also})",
    )


# The numbers stand in `style_transfer.LossWeights` too, behind TensorFlow, which --help must not
# wait for; a test holds the two together.
LOSS_WEIGHT_DEFAULTS = {"content": 1.0, "style": 10.0, "tv": 3.0}


def add_loss_weight_arguments(add, also=""):
    """Add `--content-weight`, `--style-weight` and `--tv-weight`, `None` where not given.

    Args:
        add: `add_argument` of a parser or of a group.
        also: str, what to say beside the default.
    """
    for name, text in (
        ("content", "how much the content counts"),
        ("style", "how much the style counts"),
        ("tv", "how much total variation counts: more is smoother"),
    ):
        add(
            f"--{name}-weight",
            type=non_negative_float,
            metavar="WEIGHT",
            help=f"{text} (default: {LOSS_WEIGHT_DEFAULTS[name]:g}{also})",
        )
