"""Starting a script: TensorFlow without its chatter, seeds, devices, and how errors end it."""

import contextlib
import importlib.util
import os
import shlex
import subprocess
import sys

from kerascv_d2l.distribution import check_batch_size, describe_strategy, make_strategy
from kerascv_d2l.errors import InputError

EXIT_BAD_INPUT = 2  # what argparse uses too
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

# What TensorFlow 2.21 says while it is imported and looks for devices. Nothing it says before its
# logging is set up obeys TF_CPP_MIN_LOG_LEVEL. Errors stay, but for those that only mean "no GPU
# driver here" (303 is the error of the stub that stands in for a missing libcuda).
_NOISE = (
    r"(WARNING: All log messages before absl::InitializeLog"
    r"|[IW]\d{4} \d\d:\d\d:\d+\.\d+ "
    r"|E\d{4} .*failed call to cuInit: .*\(303\)"
    r"|E\d{4} .*Unable to register cu\w+ factory)"
)

# Runs as a process of its own, so that what TensorFlow says when it dies still comes through.
_FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
noise = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not noise.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""

current_run = None  # the `Run` of this process, for what to say when the user interrupts it


def import_tensorflow():
    """Import TensorFlow without the lines that it prints about itself.

    Only known chatter is dropped; errors come through. Set
    `TF_CPP_MIN_LOG_LEVEL=0` in the environment to see everything. Nothing
    happens if TensorFlow is imported already.

    Returns:
        The module `tensorflow`.
    """
    wants_all = os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1")
    if "tensorflow" not in sys.modules and not wants_all:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with _without_lines(_NOISE):
            import tensorflow as tf

            tf.config.list_physical_devices()  # the search for a GPU driver speaks up here
    import tensorflow as tf

    return tf


@contextlib.contextmanager
def _without_lines(pattern):
    """Drop lines that start with `pattern` from what this process writes to stderr."""
    try:
        stderr = os.dup(2)
        cleaner = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _FILTER, pattern], stdin=subprocess.PIPE
        )
    except (OSError, ValueError):  # no stderr, or no interpreter to start: let it chatter
        yield
        return
    sys.stderr.flush()
    os.dup2(cleaner.stdin.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        cleaner.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            cleaner.wait(timeout=5)


def set_up(args):
    """Import TensorFlow quietly, set seeds and precision, and choose devices.

    Call it right after parsing, before anything that uses TensorFlow. Says on
    screen what it chose.

    Args:
        args: namespace with the flags of `add_run_arguments`, or of
            `add_common_arguments` alone.

    Returns:
        `tf.distribute.Strategy`: build and compile the model in its `scope()`.
        Without a flag `--devices` the default one, on a single device.

    Raises:
        InputError: if `--devices`, `--batch-size` or `--tensorboard` cannot be
            had on this machine.
    """
    if getattr(args, "tensorboard", False) and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard needs the package tensorboard, which is not installed: "
            "pip install tensorboard, or leave the flag out (history.csv and history.png are "
            "written anyway)"
        )
    tf = import_tensorflow()
    import keras

    strategy = _strategy(args) if "devices" in args else tf.distribute.get_strategy()
    batch = ""
    if "batch_size" in args:
        check_batch_size(args.batch_size, strategy)
        batch = f", batch {args.batch_size}"
    keras.utils.set_random_seed(args.seed)
    policy = "float32"
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


def _strategy(args):
    """The strategy of `--devices`, or of a cluster of machines if there is one."""
    from kerascv_d2l.multi_worker import make_multi_worker_strategy, read_cluster

    index, count = read_cluster()
    if count == 1:
        return make_strategy(args.devices)
    if args.devices != "auto":
        raise InputError(
            f"--devices {args.devices}: with TF_CONFIG each worker uses all it has; leave it out"
        )
    if index:
        # All workers compute the same and write it; the first one's is the result.
        args.out = os.path.join(args.out, f"worker-{index}")
    return make_multi_worker_strategy()


def run_main(main):
    """Run a script's `main()` as a program: `if __name__ == "__main__": run_main(main)`.

    `InputError` becomes one line on stderr and exit status 2, Ctrl-C a line
    that says how to go on and exit status 130. Any other exception is a defect
    and keeps its traceback.

    Args:
        main: `main(argv=None)`; what it returns is not used.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print(f"\n{_interrupted()}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _interrupted():
    if current_run is None or not current_run.can_resume:
        return "interrupted; nothing to resume"
    command = ["python", *sys.argv]
    if "--resume" not in command:
        command.append("--resume")
    return f"interrupted; {current_run.progress} is kept. Go on with:\n  {shlex.join(command)}"
