"""The command line that the scripts share: flags, set-up, the output folder, how errors end.

The only module that knows argparse. A script's `main` begins

    args = parse(argv)              # parser(), the groups of flags below, fill_in()
    strategy = set_up(args)         # seeds, precision, devices
    data = load(args.data, …)
    run = start_run(args, strategy, "train_detector", data)

TensorFlow is imported by `set_up`, so that `--help` does not wait for it.
"""

import argparse
import itertools
import math
import os
import re
import shlex
import sys
from pathlib import Path

from kerascv_d2l.errors import InputError, WriteError
from kerascv_d2l.training.devices import (
    DEVICES_HELP,
    check_batch_size,
    describe_strategy,
    has_bfloat16,
    make_strategy,
    parse_devices,
)

EXIT_BAD_INPUT = 2  # argparse's too
EXIT_LOST_WORKER = 75  # "try again later" in sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in a shell
EXIT_UNREAD = 141  # 128 + SIGPIPE
VALIDATION_FILE = "validation.txt"  # of a run: names of the images that it validates on
RUNS = "runs"  # folder of the default output folders

_flags = {}  # argument -> flag of the parser in use, for error messages
_given = set()  # arguments of `_Noted` flags that the command line has
_run = None  # the `Run` of this process, for what to say when the user interrupts it


# Types of flags


def _number(convert, accept, wanted):
    """Make an argparse type whose error says what was wanted and what arrived."""

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
# What every generator of random numbers takes: the batches draw by 32 bits with a sign.
seed = _number(int, lambda v: 0 <= v < 2**31, f"a whole number from 0 to {2**31 - 1}")
positive_float = _number(float, lambda v: 0 < v < math.inf, "a number greater than 0")
non_negative_float = _number(float, lambda v: 0 <= v < math.inf, "a number of at least 0")
fraction = _number(float, lambda v: 0 <= v <= 1, "a number from 0 to 1")
fraction_below_1 = _number(float, lambda v: 0 <= v < 1, "a number from 0 to less than 1")
proper_fraction = _number(float, lambda v: 0 < v < 1, "a number between 0 and 1")


def image_size(text):
    """Read `256` (a square) or `320x480` (height x width), in pixels, as `(height, width)`."""
    parts = str(text).lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(
            f"expected pixels, as 256 or HEIGHTxWIDTH (320x480), got {text!r}"
        )
    return int(parts[0]), int(parts[-1])


def named_box(text):
    """Read `NAME,X0,Y0,X1,Y1`, pixels, as `(name, (x0, y0, x1, y1))`."""
    name, *corners = text.split(",")
    try:
        x0, y0, x1, y1 = (float(corner) for corner in corners)
    except ValueError:
        x0 = x1 = 0
    if not name or not x0 < x1 or not y0 < y1:
        raise argparse.ArgumentTypeError(
            f"expected NAME,X0,Y0,X1,Y1, as dog,60,45,378,516, got {text!r}"
        )
    return name, (x0, y0, x1, y1)


def comma_list(text):
    """Read `NAME,NAME,…` as a list of str."""
    return [name.strip() for name in text.split(",") if name.strip()]


def existing_path(names=()):
    """Make an argparse type that resolves the paths of files and folders that exist.

    The same folder by another path is then the same value, which `--resume` compares. A file keeps
    its own name, whose ending tells what it is: in a cache it may be a link to one without.

    Args:
        names: texts that are no paths, whatever files there are.
    """

    def check(text):
        path = Path(text)
        if text in names or not text or not path.exists():
            return text
        return str(path.resolve() if path.is_dir() else path.parent.resolve() / path.name)

    return check


def devices(text):
    """Check the value of `--devices`."""
    try:
        parse_devices(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("devices: ")) from error
    return text


# Parser and groups of flags


def _at_home(text):
    """Expand a `~`, which a shell leaves in quotes and after `=`: else it would be a folder's name.

    The name of a file that begins so is still `./~name`.
    """
    flag, equals, value = text.partition("=") if text.startswith("--") else ("", "", text)
    return flag + equals + os.path.expanduser(value)


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args=None, namespace=None):
        _flags.clear()
        _given.clear()
        for action in self._actions:
            for flag in action.option_strings:
                if flag.startswith("--"):  # the first: others are its --no- form
                    _flags.setdefault(action.dest, flag)
        args = [_at_home(text) for text in (sys.argv[1:] if args is None else args)]
        # Flags may stand among the arguments that have none: MODEL --out DIR IMAGE.
        return self.parse_intermixed_args(args, namespace)


def parser(doc):
    """Make the parser of a script.

    Args:
        doc: str, the module's docstring: what `--help` begins with.

    Returns:
        `argparse.ArgumentParser`. After parsing, `run_main` writes the flag's name for the
        argument's in error messages of the library.
    """
    return _Parser(
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # `--data` is not `--data-dir` where there is no `--data`
    )


def _adder(group, without):
    """`add_argument` of a group, that passes over the flags in `without`."""

    def add(flag, **options):
        if flag not in without:
            group.add_argument(flag, **options)

    return add


def add_data_arguments(parser, names, default="generated", *, help_text, without=()):
    """Add `--data --archive --data-dir --skip-bad --split-seed --val-fraction`.

    Args:
        parser: `argparse.ArgumentParser`.
        names: names of data sets that `--data` takes; anything else is a folder.
        default: default of `--data`.
        help_text: str, the help of `--data`.
        without: flags to leave out.

    Returns:
        The argument group, for flags that belong with these.
    """
    group = parser.add_argument_group("data")
    add = _adder(group, without)
    add("--data", type=existing_path(names), default=default, metavar="NAME|FOLDER", help=help_text)
    add(
        "--archive",
        metavar="FILE",
        help="archive of a data set given by name, or the folder unpacked from it: no download",
    )
    add(
        "--data-dir",
        metavar="DIR",
        help="folder for prepared data sets (default: TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    add(
        "--skip-bad",
        action="store_true",
        help="leave out unreadable images and bad labels and count them, instead of stopping",
    )
    add(
        "--split-seed",
        type=seed,
        default=0,
        metavar="N",
        help="random seed of the validation split, where the data has none (default: %(default)s)",
    )
    add(
        "--val-fraction",
        type=proper_fraction,
        default=0.2,
        metavar="SHARE",
        help="share of the images for validation, where the data has no split "
        "(default: %(default)s)",
    )
    return group


def add_classes_argument(group):
    """Add `--classes`, a list of str, to the group of `add_data_arguments`."""
    group.add_argument(
        "--classes",
        type=comma_list,
        metavar="NAME,NAME,…",
        help="names of the classes 0, 1, …, for labels of a folder that have none, or instead of "
        "its classes.txt",
    )


def add_boxes_on_argument(group):
    """Add `--boxes-on` to the group of `add_data_arguments`, for data with boxes."""
    group.add_argument(
        "--boxes-on",
        choices=("stored", "upright"),
        help="images with an EXIF rotation: whether boxes were drawn on the stored or on the "
        "upright pixels, where the labels do not tell",
    )


def add_ignore_argument(group):
    """Add `--ignore`, a list of str, to the group of `add_data_arguments`, for data with masks."""
    group.add_argument(
        "--ignore",
        action="extend",
        type=comma_list,
        default=[],
        metavar="CLASS,CLASS",
        help="classes of the masks to ignore, by index or name, as index 255 is ignored (may be "
        "repeated)",
    )


def add_model_arguments(parser, default, *, own="", weights_default="none"):
    """Add `--backbone --weights`.

    Args:
        parser: `argparse.ArgumentParser`.
        default: default of `--backbone`; None where `own` says it.
        own: str, what the script knows besides `models.backbones`, for the help text.
        weights_default: str, what `--weights` is where it is not given.

    Returns:
        The argument group, for flags that belong with these.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--backbone",
        default=default,
        metavar="NAME",
        help=f"{own}resnet18, resnet34, or a network of keras.applications: mobilenet, "
        "mobilenet_0.75, resnet50, …" + (" (default: %(default)s)" if default else ""),
    )
    group.add_argument(
        "--weights",
        type=existing_path(("imagenet", "none")),
        metavar="FILE",
        help="weights of the backbone: a file, imagenet (downloaded at first use), or none for "
        f"random ones (default: {weights_default})",
    )
    return group


def add_style_arguments(parser, recipe="", weights=(1, 10, 5)):
    """Add `--network --weights --pooling --content-weight --style-weight --tv-weight`.

    All but the first two are None where not given.

    Args:
        parser: `argparse.ArgumentParser`.
        recipe: str, what else the defaults depend on, for the help text.
        weights: three numbers, the weights where none are given, for the help text.
    """
    add = parser.add_argument_group("network and losses").add_argument
    add(
        "--network",
        default="vgg19",
        metavar="NAME",
        help="frozen feature network: vgg19 (torchvision's, the book's), keras_vgg19, vgg16, "
        "mobilenet, mobilenet_0.75, or another of keras.applications (default: %(default)s)",
    )
    add(
        "--weights",
        type=existing_path(("imagenet", "none")),
        default="imagenet",
        metavar="FILE",
        help="its weights: a file, imagenet (downloaded at first use), or none for random ones "
        "(default: %(default)s)",
    )
    add(
        "--pooling",
        choices=("average", "max"),
        help="pooling of the network: average makes a smoother image, max is what it was trained "
        f"with (default: average{recipe})",
    )
    texts = ("content loss", "style loss", "total variation: more is smoother")
    for name, default, text in zip(("content", "style", "tv"), weights, texts, strict=True):
        add(
            f"--{name}-weight",
            type=non_negative_float,
            metavar="WEIGHT",
            help=f"weight of the {text} (default: {default:g}{recipe})",
        )


def add_optimizer_arguments(parser, recipes, default, *, help_text):
    """Add `--recipe --learning-rate`.

    The rate is None where not given; `fill_in` takes it from the recipe, and with it what has no
    flag, as momentum.

    Args:
        parser: `argparse.ArgumentParser`.
        recipes: names of the recipes.
        default: default of `--recipe`.
        help_text: str, what the recipes are.

    Returns:
        The argument group, for flags that belong with these.
    """
    group = parser.add_argument_group("loss and optimizer (defaults by --recipe)")
    group.add_argument(
        "--recipe",
        choices=sorted(recipes),
        default=default,
        help=f"{help_text} (default: %(default)s)",
    )
    group.add_argument(
        "--learning-rate",
        type=positive_float,
        metavar="RATE",
        help="learning rate at the start, for the mean of the losses of a batch",
    )
    return group


def add_training_arguments(parser, task, *, epochs=None, batch_size=None, defaults="", without=()):
    """Add `--epochs --batch-size --sync-batch-norm` and the flags of any run.

    Args:
        parser: `argparse.ArgumentParser`.
        task: str, as for `add_run_arguments`.
        epochs: default of `--epochs`; None where the script works it out from other flags.
        batch_size: default of `--batch-size`; None as above.
        defaults: str, how the script works out what is None, as `by --data`.
        without: flags to leave out.

    Returns:
        The argument group, for flags that belong with these.
    """
    group = add_run_arguments(parser, task, title="training", without=without)
    add = _adder(group, without)

    def text(value):
        return f"(default: {defaults if value is None else value})"

    add(
        "--epochs",
        type=positive_int,
        default=epochs,
        metavar="N",
        help=f"passes over the training images {text(epochs)}",
    )
    add(
        "--batch-size",
        type=positive_int,
        action=_Noted,
        default=batch_size,
        metavar="N",
        help=f"images in a step, on all devices together {text(batch_size)}",
    )
    add(
        "--sync-batch-norm",
        action="store_true",
        help="several devices: batch norm takes its statistics over all of them together",
    )
    return group


class _Noted(argparse.Action):
    """Store a value, and that it was given."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        _given.add(self.dest)


def add_run_arguments(parser, task, *, title="run", kept="its last finished epoch", without=()):
    """Add the flags of everything that computes for long.

    Adds `--seed --mixed-precision --devices --out --resume`.

    Args:
        parser: `argparse.ArgumentParser`.
        task: str, names the default folder `runs/TASK`. Pass it to `start_run` too.
        title: str, title of the group.
        kept: str, where `--resume` goes on, for the help text.
        without: flags to leave out. Without `--devices` the script uses one device: the first
            GPU if there is one.

    Returns:
        The argument group, for flags that belong with these.
    """
    group = parser.add_argument_group(title)
    add = _adder(group, without)
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="random seed of training: same seed, same result (default: %(default)s)",
    )
    add(
        "--mixed-precision",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="compute in 16 bits, keep weights in 32: float16 on a GPU, bfloat16 on a CPU",
    )
    add("--devices", type=devices, default="auto", help=f"{DEVICES_HELP} (default: %(default)s)")
    first = default_folder(task, 1)
    add(
        "--out",
        metavar="FOLDER",
        help=f"output folder (default: {first}, or where it is taken {default_folder(task, 2)}, …)",
    )
    add(
        "--resume",
        action="store_true",
        help=f"go on with the run in --out, or the newest unfinished one, from {kept}",
    )
    return group


def fill_in(args, recipe):
    """Give arguments that are None, or have no flag, the values of a recipe.

    Args:
        args: namespace, changed in place.
        recipe: dict `{argument: value}`.
    """
    for name, value in recipe.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def check_task(args, task, tasks):
    """Refuse flags that a model of a task has no use for.

    Args:
        args: namespace; an argument that is not given is None or empty.
        task: str, of the model.
        tasks: dict `{argument: tuple of the tasks that it is for}`.

    Raises:
        InputError: if one is given that is for other tasks.
    """
    for name, meant in tasks.items():
        value = getattr(args, name)
        if value is not None and value != [] and task not in meant:
            shown = ",".join(value) if isinstance(value, list) else value
            raise InputError(f"{name} {shown}: only for {' and '.join(meant)} models, not {task}")


def fit_batch_size(args, split, strategy):
    """Make a batch no larger than there are images, unless `--batch-size` was given.

    Args:
        args: namespace with `batch_size`, changed in place.
        split: training images, anything with a length.
        strategy: `tf.distribute.Strategy`; every device gets an image.
    """
    count = strategy.num_replicas_in_sync
    most = max(count, len(split) // count * count)
    if args.batch_size > most and "batch_size" not in _given:
        args.batch_size = most
        print(f"batch {most}: there are no more images to train on", flush=True)


# Start of a script


def set_up(args):
    """Import TensorFlow, set seeds and precision, and choose devices; say what was chosen.

    Call it right after parsing, before anything that uses TensorFlow.

    Args:
        args: namespace with `seed` and `mixed_precision`, None for where a CPU has arithmetic
            for it; with `devices` and `batch_size` if the script has these flags.

    Returns:
        `tf.distribute.Strategy`: build and compile the model in its `scope()`. Without a flag
        `--devices` the default one, on a single device.

    Raises:
        InputError: if there is no data of that name, or devices or batch size cannot be had on
            this machine.
    """
    if getattr(args, "data", None) is not None:  # before weights are fetched
        from kerascv_d2l.data.load import check_source

        check_source(args.data)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    strategy = make_strategy(args.devices) if "devices" in args else tf.distribute.get_strategy()
    batch = ""
    if "batch_size" in args:
        check_batch_size(args.batch_size, strategy)
        batch = f", batch {args.batch_size}"
    keras.utils.set_random_seed(args.seed)
    policy = "float32"
    if args.mixed_precision is None:
        args.mixed_precision = has_bfloat16() and not tf.config.get_visible_devices("GPU")
    if args.mixed_precision:
        # CPUs have bfloat16 arithmetic at best; GPUs of every age have float16.
        gpu = tf.config.get_visible_devices("GPU")
        policy = "mixed_float16" if gpu else "mixed_bfloat16"
    keras.config.set_dtype_policy(policy)
    print(
        f"{'training' if batch else 'computing'} on {describe_strategy(strategy)}, {policy}"
        f"{batch}, seed {args.seed}",
        flush=True,
    )
    return strategy


def default_folder(task, number):
    """Name a default output folder: `runs/TASK`, `runs/TASK-2` and so on."""
    return Path(RUNS) / (task if number == 1 else f"{task}-{number}")


def start_run(args, strategy, task, data=None, settings=None, *, free=(), unit="epoch"):
    """Take the output folder for a run, or go on with the run that is there.

    Without `--out` that is the first of `runs/TASK`, `runs/TASK-2`, … that holds no run; with
    `--resume`, the newest that is unfinished.

    Args:
        args: namespace with `out`, `resume` and the other flags, which `--resume` compares (a
            file of `weights` by its content).
        strategy: what `set_up` returned.
        task: str, as `"train_detector"`.
        data: `DataSet`, or None. Its class names and `fingerprint`s go into the settings; the
            names of the images that it validates on into `validation.txt`.
        settings: dict of what else decides the result and is no flag.
        free: arguments that may change with `--resume`, besides those that `Run` knows.
        unit: `"epoch"`, or `"step"` where there are none.

    Returns:
        `Run`.

    Raises:
        InputError: if the folder holds a run and `--resume` is not given, the run there had
            other settings, or another process is writing to it.
    """
    global _run
    from kerascv_d2l.training.fingerprints import content_of, fingerprint
    from kerascv_d2l.training.run import Run
    from kerascv_d2l.training.run_folder import FolderInUse, others_in, results_in

    flags = {k: v for k, v in vars(args).items() if not callable(v)}
    if data is not None:
        flags["class_names"] = data.class_names
        flags["images"] = {name: fingerprint(split) for name, split in data.splits.items()}
    if content := content_of(flags.get("weights")):
        flags["weights_content"] = content
    if _run is not None:
        _run.close()  # one at a time in a process
    options = {"task": task, "resume": args.resume, "free": free, "unit": unit}
    options["strategy"] = strategy
    flags |= settings or {}
    if args.out is not None:
        _run = Run(args.out, flags, **options)
    else:
        if strategy.cluster_resolver is not None:
            raise InputError("out: with several machines, give each worker the same folder")
        new = (f for f in _default_folders(task) if not (results_in(f) or others_in(f)))
        for folder in [resumable_folder(task)] if args.resume else new:
            try:
                _run = Run(folder, flags, **options)
                break
            except FolderInUse:
                if args.resume:
                    raise
        args.out = str(folder)
    if data is not None and data.val is not None:
        with _run.writing(VALIDATION_FILE) as path:
            path.write_text("".join(f"{name}\n" for name in data.val.names), encoding="utf-8")
    return _run


def output_folder(out, task):
    """Give `out`, or if it is None the first of `runs/TASK`, `runs/TASK-2`, … that is not there."""
    if out is not None:
        return Path(out)
    return next(folder for folder in _default_folders(task) if not folder.exists())


def _default_folders(task):
    return (default_folder(task, number) for number in itertools.count(1))


def resumable_folder(task):
    """Find what `--resume` without `--out` goes on with.

    Returns:
        `Path` of the newest default folder with an unfinished run, or, if there is no run at
        all, of the first default folder.

    Raises:
        InputError: if there are only finished runs.
    """
    from kerascv_d2l.training.run_folder import is_finished, is_resumable

    found = re.compile(rf"{re.escape(task)}(?:-(\d+))?")
    matches = [found.fullmatch(path.name) for path in Path(RUNS).glob(f"{task}*")]
    numbers = sorted((int(match[1] or 1) for match in matches if match), reverse=True)
    folders = [default_folder(task, number) for number in numbers]
    unfinished = [folder for folder in folders if not is_finished(folder)]
    for folder in [*filter(is_resumable, unfinished), *unfinished]:
        return folder  # one without a checkpoint starts from the beginning
    if folders:
        raise InputError(
            f"resume: no unfinished run; the newest, {folders[0]}, is finished. Start a new run "
            f"without --resume, or name a folder: --out {folders[0]}"
        )
    return default_folder(task, 1)


# End of a script


def run_main(main):
    """Run a script's `main()` as a program: `if __name__ == "__main__": run_main(main)`.

    `InputError` becomes one line on stderr and exit status 2 (and `WriteError` another one, where
    a run can go on once there is room), Ctrl-C a line that says how to go
    on and exit status 130. A lost worker of several machines is a line as well. Where nobody reads
    the output any more, as behind `| head`, the script ends silently, and where a run was begun
    with a line that says how to go on. Any other exception is a defect and keeps its traceback.

    Args:
        main: `main(argv=None)`; what it returns is not used.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # the names of files and classes may be in any script
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except InputError as error:
        print(f"error: {with_flags(str(error))}", file=sys.stderr)
        if isinstance(error, WriteError) and _run is not None and _run.can_resume:
            print(f"once there is room: {_how_to_go_on()}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {_how_to_go_on()}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        if _is_read(sys.stdout, "\n"):  # a pipe or connection of something else
            raise
        if _run is not None:
            print(f"\nnobody reads the output; {_how_to_go_on()}", file=sys.stderr)
        sys.exit(EXIT_UNREAD)
    except Exception as error:
        if "tensorflow" not in sys.modules:
            raise
        from kerascv_d2l.training.cluster import is_lost_worker

        if not is_lost_worker(error):
            raise
        print(
            f"error: another worker is gone ({type(error).__name__}), and none can train alone. "
            f"Start all of them again; {_how_to_go_on()}",
            file=sys.stderr,
        )
        sys.exit(EXIT_LOST_WORKER)
    finally:
        for stream in (sys.stdout, sys.stderr):
            if not _is_read(stream):  # else Python tries again at its end, and complains
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_read(stream, text=""):
    """Whether a text, and what was written before it, arrives where a standard stream leads."""
    try:
        if stream is not None:  # the process was started without it
            stream.write(text)
            stream.flush()
    except BrokenPipeError:
        return False
    return True


def with_flags(message):
    """Write flags for the arguments that an error message names.

    `batch_size 5 is …` becomes `--batch-size 5 is …`: at the start of the message, where
    something `was … and is now …`, and wherever a name has an underscore. A part of a path that
    is called like an argument stays as it is.
    """
    for name, flag in _flags.items():
        word = rf"(?<![\w./\\-]){re.escape(name)}\b(?![/\\-]|\.\w)"
        places = [rf"^{word}(?=[:= ])", rf"{word}(?= was )"] + [word] * ("_" in name)
        message = re.sub("|".join(places), flag, message)
    return message


def script(name):
    """Path of a script of this project, by which it can be called from the current folder."""
    beside = Path(sys.argv[0]).with_name(name)
    return str(beside if beside.is_file() else Path("scripts") / name)


def _how_to_go_on():
    if _run is None or not _run.can_resume:
        return "nothing to resume"
    command = ["python", *sys.argv]
    if "--resume" not in command:
        command.append("--resume")
    if not any(word.split("=")[0] == "--out" for word in command):
        command += ["--out", str(_run.out)]
    return f"{_run.where} is kept. Go on with:\n  {shlex.join(command)}"
