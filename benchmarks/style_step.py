"""One step of style transfer here against the book's PyTorch loop, and the memory it takes.

    python benchmarks/style_step.py                        # steps, each variant beside the others
    python benchmarks/style_step.py --torch-python PATH    # an interpreter that has PyTorch
    python benchmarks/style_step.py --memory               # peak memory at 0.1, 1 and 6 megapixels

Prints one line of JSON a variant. The ratio is that of the fastest steps, in turns in one run,
since other work on the machine slows single steps down.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SHAPE = (300, 450)
MEMORY_SHAPES = ((300, 450), (816, 1224), (2000, 3000))
# The book's loop, without its animation. Run by an interpreter of its own: two frameworks'
# threads in one process get in each other's way.
BOOK = """
import sys, time
sys.path.insert(0, sys.argv[1])
import record_style as book, torch
given = book.given
height, width, steps = (int(a) for a in sys.argv[2:5])
content = book.tensor("content", (height, width))
style = book.tensor("style", (height, width))
contents_Y, _ = book.extract_features(content, given.CONTENT_LAYERS, given.STYLE_LAYERS)
_, styles_Y = book.extract_features(style, given.CONTENT_LAYERS, given.STYLE_LAYERS)
times = []
for _ in range(steps):
    begin = time.perf_counter()
    book.train(content, contents_Y, styles_Y, 0.3, 1, 50)
    times.append(time.perf_counter() - begin)
print(min(times))
"""


def seconds_of_book(python, shape, steps):
    recording = Path(__file__).resolve().parents[1] / "tests" / "recording"
    command = [python, "-c", BOOK, str(recording), *(str(n) for n in (*shape, steps))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def prepare(shape, dtype, jit_compile=False, tile=None):
    """A function that does one step of Adam on the book's losses."""
    import numpy as np
    import tensorflow as tf

    from kerascv_d2l import style_transfer as st
    from kerascv_d2l.style_transfer.adam import Adam

    random = np.random.RandomState(0)
    content, style = (
        tf.constant(random.standard_normal((1, *shape, 3)), tf.float32) for _ in range(2)
    )
    network = st.torchvision_vgg19(dtype=dtype, seed=0)
    objective = st.Objective(network, content, [(style, 1.0, None)], st.BOOK_WEIGHTS, tile)
    image = tf.Variable(content)
    adam = Adam(image, 0.3)
    apply = tf.function(adam.apply)

    def step():
        losses, gradient = objective(image.value())
        apply(gradient)
        return losses

    if tile is None:
        step = tf.function(step, jit_compile=jit_compile)
    return lambda: step().numpy()


def measure_steps(arguments):
    variants = {
        "float32": prepare(SHAPE, "float32"),
        "float32, XLA": prepare(SHAPE, "float32", jit_compile=True),
        "mixed_bfloat16": prepare(SHAPE, "mixed_bfloat16"),
    }
    best = dict.fromkeys(variants, float("inf"))
    book = float("inf")
    for turn in range(arguments.turns):
        if arguments.torch_python:
            book = min(book, seconds_of_book(arguments.torch_python, SHAPE, 3))
        for name, step in variants.items():
            if turn == 0:
                step()  # traces
            for _ in range(2):
                begin = time.perf_counter()
                step()
                best[name] = min(best[name], time.perf_counter() - begin)
    if arguments.torch_python:
        print(json.dumps({"variant": "book's PyTorch loop", "seconds": round(book, 3)}))
    for name, seconds in best.items():
        row = {"variant": name, "seconds": round(seconds, 3)}
        if arguments.torch_python:
            row["times_faster"] = round(book / seconds, 2)
        print(json.dumps(row), flush=True)


def measure_memory():
    """Peak memory of one step, each in its own process."""
    for shape in MEMORY_SHAPES:
        for tile in (None, 512):
            if tile is None and shape == MEMORY_SHAPES[-1]:
                continue  # beyond the memory of most machines, which is the point
            for dtype in ("float32", "mixed_bfloat16"):
                subprocess.run(
                    [
                        sys.executable,
                        __file__,
                        "--one",
                        *(str(n) for n in (*shape, tile or 0)),
                        dtype,
                    ]
                )


def measure_one(height, width, tile, dtype):
    import tensorflow  # noqa: F401 - its own memory is not the step's

    import kerascv_d2l.style_transfer  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    prepare((height, width), dtype, tile=tile or None)()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {"shape": [height, width], "tile": tile or None, "dtype": dtype}
    row.update(peak_gb=round((peak - before) / 1e6, 2), seconds=round(time.perf_counter() - begin))
    print(json.dumps(row), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter that has PyTorch, for the book's loop")
    parser.add_argument("--turns", type=int, default=3, help="of all variants (default 3)")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--one", nargs=4, metavar="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if arguments.one:
        measure_one(*(int(n) for n in arguments.one[:3]), arguments.one[3])
    elif arguments.memory:
        measure_memory()
    else:
        measure_steps(arguments)


if __name__ == "__main__":
    main()
