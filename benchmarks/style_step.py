"""Style transfer here against the book's PyTorch loop: a step, the way to its loss, memory.

    python benchmarks/style_step.py --torch-python PATH                     # steps, feed-forward
    python benchmarks/style_step.py --torch-python PATH --record-book FILE  # its loss at step 500
    python benchmarks/style_step.py --time-to-loss FILE                     # our time to that loss
    python benchmarks/style_step.py --memory                                # 0.1, 1, 6 megapixels

PATH is an interpreter that has PyTorch. Both sides have the same VGG-19 of random weights and the
same two pictures, made up, or those of --content and --style. --record-book takes some 20 minutes
on two cores, once. Ratios are medians of rounds in turns (`timing.py`).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import timing

SHAPE, BOOK_STEPS = (300, 450), 500
MEMORY_SHAPES = ((300, 450), (816, 1224), (2000, 3000))
TILE = 512
STEPS_BETWEEN_LOSSES = 10  # in the record of the book's loop
# What gets to the book's loss soonest of what was tried (README.md): `StyleTransfer`'s arguments.
RECOMMENDED = {"optimizer": "adam", "lr": 0.1, "levels": 3, "steps": 200}
RECOMMENDED_DTYPE = "mixed_bfloat16"
LOOK_EVERY = 5  # steps between two looks at the plain loss, for which the clock is stopped
GOALS = {"step": ">= 1.8x", "loss": ">= 3x", "feed-forward": ">= 200x"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "recording"))


def pixels(args, kind):
    """The picture of both sides, uint8 `(height, width, 3)`; needs NumPy, and Pillow for files."""
    import numpy as np
    import style_inputs as given

    if file := getattr(args, kind):
        from PIL import Image

        picture = Image.open(file).convert("RGB")
        return np.asarray(picture.resize(args.shape[::-1], Image.Resampling.BILINEAR))
    picture = given.picture(kind, args.shape)[0]
    return np.rint(np.clip(0.45 + 0.225 * picture, 0, 1) * 255).astype(np.uint8)


# ---------------------------------------------------------------- the book's side


def book_start(args):
    """`record_style`, the content, its features and the style's."""
    import numpy as np
    import record_style as book
    import torch

    torch.set_num_threads(timing.THREADS)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def tensor(kind):
        picture = ((pixels(args, kind) / 255 - mean) / std).astype(np.float32)
        return torch.from_numpy(picture.transpose(2, 0, 1)[None].copy())

    content, style = tensor("content"), tensor("style")
    layers = book.given.CONTENT_LAYERS, book.given.STYLE_LAYERS
    return book, content, book.extract_features(content, *layers)[0], style, layers


def book_cases(args):
    import torch

    book, content, contents, style, layers = book_start(args)
    styles = book.extract_features(style, *layers)[1]
    # `train` sets up Adam and the Gram matrices, a few ms, besides the one step.
    work = {"step": lambda: book.train(content, contents, styles, 0.3, 1, 50)}
    return work, {"torch": torch.__version__}


def record_book(args):
    """Run the book's loop to its end and write the loss that it has there."""
    import torch

    book, content, contents, style, layers = book_start(args)
    styles = book.extract_features(style, *layers)[1]
    begin = time.perf_counter()
    image, losses = book.train(content, contents, styles, 0.3, args.steps, 50)
    seconds = time.perf_counter() - begin
    with torch.no_grad():  # of the picture that comes out, after the last step
        features = book.extract_features(image, *layers)
        grams = [book.gram(features) for features in styles]
        parts = book.compute_loss(image, *features, contents, grams)
        final = [float(sum(parts[0])), float(sum(parts[1])), float(parts[2])]
    record = {
        "shape": list(args.shape),
        "pictures": [args.content, args.style],
        "steps": args.steps,
        "loss": sum(final),
        "content_style_tv": final,
        "seconds": round(seconds, 1),
        "losses": losses[::STEPS_BETWEEN_LOSSES],
        "torch": torch.__version__,
    }
    Path(args.record_book).write_text(json.dumps(record) + "\n")
    print(json.dumps({name: record[name] for name in ("loss", "seconds")}))


# ---------------------------------------------------------------- our side


def network(dtype):
    """VGG-19 with the weights of the book's side."""
    import style_inputs as given

    from kerascv_d2l import style_transfer as st

    network = st.torchvision_vgg19(dtype=dtype)
    for index, weights in given.vgg19_weights().items():
        network.model.get_layer(f"features_{index}").set_weights(weights)
    return network


def objective(args, dtype):
    """The book's plain loss of an image, and the content to start from."""
    from kerascv_d2l import style_transfer as st

    content, style = (
        st.preprocess(pixels(args, kind), args.shape) for kind in ("content", "style")
    )
    styles = [(style, 1.0, None)]
    return st.Objective(network(dtype), content, styles, st.BOOK_WEIGHTS), content


def our_step(args, dtype):
    import tensorflow as tf

    from kerascv_d2l.style_transfer.adam import Adam

    loss, content = objective(args, dtype)
    image = tf.Variable(content)
    adam = Adam(image, 0.3)

    @tf.function
    def step():
        losses, gradient = loss(image.value())
        adam.apply(gradient)
        return losses

    return lambda: step().numpy()


def feed_forward(args, width):
    import tensorflow as tf

    from kerascv_d2l.models.transformer_net import transformer_net

    net = transformer_net(width)
    paint = tf.function(lambda images: net(images, training=False))
    images = tf.constant(pixels(args, "content")[None])
    return lambda: paint(images).numpy()


def our_cases(args):
    import tensorflow as tf

    cases = {
        "float32": our_step(args, "float32"),
        "bfloat16": our_step(args, "mixed_bfloat16"),
        "feed-forward 16": feed_forward(args, 16),
        "feed-forward 32": feed_forward(args, 32),
    }
    return cases, {"tensorflow": tf.__version__}


def worker(args, side):
    """A worker process of a side."""
    python = args.torch_python if side == "book" else sys.executable
    command = [python, __file__, "--serve", side, "--image-size", "x".join(map(str, args.shape))]
    for kind in ("content", "style"):
        if getattr(args, kind):
            command += [f"--{kind}", getattr(args, kind)]
    return timing.Worker(command)


def measure_steps(args):
    """Steps and feed-forward networks in turns."""
    with worker(args, "ours") as ours, worker(args, "book") as book:
        print(timing.machine({"the book": book, "here": ours}))
        sides = {name: (ours, name) for name in ours.cases}
        seconds = timing.interleave({"book": (book, "step"), **sides}, args.rounds, warm_up=1)
    print(timing.HEADER)
    size = "x".join(map(str, args.shape))
    for name in ("float32", "bfloat16"):
        print(
            timing.row(
                f"one step, {size}, {name}", "book", seconds["book"], seconds[name], GOALS["step"]
            )
        )
    for name in ("feed-forward 16", "feed-forward 32"):
        for against in ("book", "float32", "bfloat16"):
            run = [BOOK_STEPS * value for value in seconds[against]]
            work, other = f"{name} channels, {size}", f"{BOOK_STEPS} steps, {against}"
            print(timing.row(work, other, run, seconds[name], GOALS["feed-forward"]))


def time_to_loss(args):
    """Run the recommended settings until the plain loss is below the book's at its last step."""
    from kerascv_d2l import style_transfer as st

    record = json.loads(Path(args.time_to_loss).read_text())
    args.shape = tuple(record["shape"])
    args.content, args.style = record["pictures"]
    evaluate, _ = objective(args, "float32")
    settings = {**RECOMMENDED, **json.loads(args.settings)}
    dtype = settings.pop("dtype", RECOMMENDED_DTYPE)
    begin = time.perf_counter()
    network_here = network(dtype)  # building it and tracing are part of our time
    transfer = st.StyleTransfer(
        pixels(args, "content"),
        pixels(args, "style"),
        network_here,
        image_shape=args.shape,
        weights=st.BOOK_WEIGHTS,
        **settings,
    )
    looking, reached = [0.0], {}

    def look(transfer):
        if transfer.level_shapes[transfer.level] != args.shape:
            return False
        if len(transfer.history) % LOOK_EVERY:
            return False
        start = time.perf_counter()
        loss = float(evaluate(transfer.normalised)[0][3])
        if loss <= record["loss"]:
            reached.update(
                loss=loss,
                steps=len(transfer.history),
                seconds=round(start - begin - looking[0], 1),
            )
        looking[0] += time.perf_counter() - start
        return bool(reached)

    transfer.run(look)
    seconds = record["seconds"]
    row = {"settings": {**settings, "dtype": dtype}, "book": {"loss": record["loss"]}}
    row["book"]["seconds"] = seconds
    if reached:
        row["ours"] = reached
        row["times_sooner"] = round(seconds / reached["seconds"], 2)
        row["goal"] = GOALS["loss"]
    else:
        last = float(evaluate(transfer.normalised)[0][3])
        row["ours"] = f"not reached: {last:.4g} after {len(transfer.history)} steps"
    print(json.dumps(row), flush=True)
    return row


# ---------------------------------------------------------------- memory


def measure_memory(shapes=MEMORY_SHAPES, tile_side=TILE):
    """Peak memory of two steps, each setting in its own process."""
    for shape in shapes:
        for tile in (0, tile_side):
            if tile == 0 and shape == MEMORY_SHAPES[-1]:
                continue  # beyond the memory of most machines, which is the point
            for dtype in ("float32", "mixed_bfloat16"):
                for optimizer in ("adam", "lbfgs"):
                    setting = [*map(str, (*shape, tile)), dtype, optimizer]
                    subprocess.run([sys.executable, __file__, "--one", *setting], check=True)


def measure_one(height, width, tile, dtype, optimizer):
    import numpy as np
    import tensorflow  # noqa: F401 - its own memory is not the step's

    from kerascv_d2l import style_transfer as st

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    random = np.random.RandomState(0)
    content, style = (random.randint(0, 256, (height, width, 3)).astype(np.uint8) for _ in "ab")
    times = []
    begin = time.perf_counter()
    transfer = st.StyleTransfer(
        content,
        style,
        st.torchvision_vgg19(dtype=dtype, seed=0),
        steps=2,
        optimizer=optimizer,
        tile=tile or None,
    )
    transfer.run(lambda _: times.append(time.perf_counter()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {"shape": [height, width], "tile": tile or None, "dtype": dtype, "optimizer": optimizer}
    row["peak_gb"] = round((peak - before) / 1e6, 2)
    row["targets_and_first_step_s"] = round(times[0] - begin, 1)
    row["step_s"] = round(statistics.median(np.diff(times)), 1)
    print(json.dumps(row), flush=True)


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--torch-python", help="interpreter that has PyTorch, for the book's loop")
    add("--rounds", type=int, default=5, help="of all variants (default: %(default)s)")
    add("--image-size", default="x".join(map(str, SHAPE)), help="HEIGHTxWIDTH (default 300x450)")
    add("--content", help="a picture file instead of a made-up picture")
    add("--style", help="likewise")
    add("--record-book", metavar="FILE", help="run the book's loop and write its loss to FILE")
    add("--steps", type=int, default=BOOK_STEPS, help="of --record-book (default: %(default)s)")
    add("--time-to-loss", metavar="FILE", help="what --record-book wrote")
    add("--settings", default="{}", help="JSON that changes --time-to-loss's settings, and dtype")
    add("--memory", action="store_true", help="measure memory instead of time")
    add("--serve", choices=("book", "ours", "record"), help=argparse.SUPPRESS)
    add("--one", nargs=5, metavar="", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.shape = tuple(int(side) for side in args.image_size.split("x"))
    wants_book = not (args.serve or args.one or args.memory or args.time_to_loss)
    if wants_book and not args.torch_python:
        parser.error("--torch-python is missing: the interpreter that has PyTorch")
    return args


def main(argv=None):
    args = parse(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if args.serve == "record":
        record_book(args)
    elif args.serve:
        timing.serve(*(book_cases if args.serve == "book" else our_cases)(args))
    elif args.one:
        measure_one(*(int(n) for n in args.one[:3]), *args.one[3:])
    elif args.memory:
        measure_memory()
    elif args.time_to_loss:
        time_to_loss(args)
    elif args.record_book:
        arguments = sys.argv[1:] if argv is None else list(argv)
        subprocess.run([args.torch_python, __file__, *arguments, "--serve", "record"], check=True)
    else:
        measure_steps(args)


if __name__ == "__main__":
    main()
