"""Time a training step of TinySSD against the book's, and say where the time goes.

    python benchmarks/ssd_step.py

A step is batch 32 at 256 x 256: forward, targets, loss, backward, SGD with weight decay, and the
running class error and bbox MAE, as the book's loop does and as `train_on_batch` does. Prints

- the step against the book's, with one box an image;
- our step as boxes go from 1 to 100 an image, and with 1 box among 99 padding rows;
- the floating-point operations of the network, counted from its layers, the rate that a plain
  float32 matrix product reaches on the same cores, and the share of it that the step reaches;
- the parts of the step: targets, forward, and forward and backward of the bare backbone with and
  without batch norm, ReLU and pooling.

Takes about 5 minutes on two free cores. Needs benchmarks/README.md's set-up.
"""

import argparse
import contextlib
import statistics
import sys

import numpy as np
import timing

BATCH = 32
IMAGE_SIZE = 256
NUM_CLASSES = 1
BOXES = (1, 5, 20, 100)  # An image.
MATRIX = 2048  # Side of the product that stands for what the machine can do.
NUM_ANCHORS = 4  # A pixel of a feature map.
# Input channels, output channels, side of the feature map, of TinySSD's 3 x 3 convolutions.
BACKBONE = (
    (3, 16, 256),
    (16, 16, 256),
    (16, 32, 128),
    (32, 32, 128),
    (32, 64, 64),
    (64, 64, 64),
    (64, 128, 32),
    (128, 128, 32),
    (128, 128, 16),
    (128, 128, 16),
    (128, 128, 8),
    (128, 128, 8),
)
HEADS = ((64, 32), (128, 16), (128, 8), (128, 4), (128, 1))  # Channels and side of each map.


def make_batch(batch, boxes, rows=None):
    """Return images float32 `(batch, h, w, 3)` 0-255 and labels `(batch, rows, 5)`.

    Args:
        batch: number of images.
        boxes: real boxes an image.
        rows: label rows an image, the rest padding; None means `boxes`.
    """
    rng = np.random.default_rng(boxes)
    images = rng.integers(0, 256, (batch, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)
    labels = np.full((batch, rows or boxes, 5), -1, np.float32)
    center = rng.uniform(0.1, 0.9, (batch, boxes, 2))
    half = rng.uniform(0.05, 0.5, (batch, boxes, 2)) / 2
    corners = np.concatenate([center - half, center + half], axis=-1).clip(0, 1)
    labels[:, :boxes, 0] = 0
    labels[:, :boxes, 1:] = corners
    return images, labels


def operations(batch):
    """Count a step's multiplications and additions, convolutions only.

    Returns:
        `(forward, step, backbone)`: of the whole network forward, of the whole network forward and
        backward, and of its backbone forward and backward. Backward is twice forward (the gradients
        of the input and of the kernel), but for the first layer, whose input needs none.
    """
    backbone = [2 * 9 * i * o * side * side for i, o, side in BACKBONE]
    outputs = NUM_ANCHORS * (NUM_CLASSES + 1 + 4)
    heads = [2 * 9 * channels * outputs * side * side for channels, side in HEADS]
    forward, first = batch * sum(backbone + heads), batch * backbone[0]
    return forward, 3 * forward - first, 3 * batch * sum(backbone) - first


def ours(options):
    """Serve this package's TinySSD, and the parts of it in plain Keras."""
    import keras
    import tensorflow as tf

    from kerascv_d2l.models.ssd import TinySSD
    from kerascv_d2l.ops.matching import multibox_target

    keras.utils.set_random_seed(0)
    model = TinySSD(num_classes=NUM_CLASSES)
    optimizer = keras.optimizers.SGD(0.2, weight_decay=5e-4)
    model.compile(optimizer=optimizer, jit_compile=options.jit)

    def step(boxes, rows=None):
        images, labels = map(tf.constant, make_batch(options.batch, boxes, rows))
        return lambda: model.train_on_batch(images, labels)

    cases = {f"step_{boxes}": step(boxes) for boxes in BOXES}
    cases["step_padded"] = step(1, BOXES[-1])
    images = tf.constant(make_batch(options.batch, 1)[0])
    forward = tf.function(model)
    anchors = forward(images)[0]
    cases["forward"] = lambda: forward(images)[1].numpy()
    target = tf.function(multibox_target)
    for boxes in BOXES:
        some = tf.constant(make_batch(options.batch, boxes)[1])
        cases[f"target_{boxes}"] = lambda some=some: target(anchors, some)[0].numpy()

    def backbone(convolutions_only):
        """Forward and backward of the backbone as plain Keras layers."""
        layers = [keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))]
        for number, (_, channels, _) in enumerate(BACKBONE):
            # Without pooling layers, a stride brings the maps to their sizes.
            shrink = number % 2 == 0 and number > 0
            if convolutions_only:
                if shrink:
                    layers.append(keras.layers.Lambda(lambda x: x[:, ::2, ::2]))
                layers.append(keras.layers.Conv2D(channels, 3, padding="same"))
                continue
            if shrink:
                layers.append(keras.layers.MaxPooling2D())
            layers.append(keras.layers.Conv2D(channels, 3, padding="same"))
            layers += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
        net = keras.Sequential(layers)

        @tf.function(jit_compile=options.jit)
        def gradients():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(net(images, training=True))
            return tape.gradient(loss, net.trainable_variables)

        return lambda: gradients()[0].numpy()

    cases["backbone"] = backbone(convolutions_only=False)
    cases["convolutions"] = backbone(convolutions_only=True)
    a, b = (tf.random.normal((MATRIX, MATRIX)) for _ in range(2))
    cases["matrix"] = lambda: tf.matmul(a, b).numpy()
    jit = {"jit_compile": options.jit}
    return cases, {"tensorflow": tf.__version__, "keras": keras.__version__, **jit}


def book(options):
    """Serve the book's TinySSD."""
    import book_ssd
    import torch

    torch.set_num_threads(timing.THREADS)
    torch.manual_seed(0)
    net = book_ssd.TinySSD(NUM_CLASSES)
    trainer = book_ssd.make_trainer(net)
    net.train()

    def step(boxes):
        images, labels = map(torch.from_numpy, make_batch(options.batch, boxes))
        images = images.permute(0, 3, 1, 2).contiguous()
        return lambda: book_ssd.train_step(net, trainer, images, labels)

    cases = {f"step_{boxes}": step(boxes) for boxes in BOXES}
    a, b = (torch.randn(MATRIX, MATRIX) for _ in range(2))
    cases["matrix"] = lambda: a @ b
    return cases, {"torch": torch.__version__, "d2l": "1.0.3"}


SIDES = {"ours": ours, "book": book}


def median(times):
    """Return the median of a list of seconds."""
    return statistics.median(times)


def compare_steps(ours_, book_, rounds, batch, all_boxes):
    """Print our step against the book's."""
    print(timing.HEADER)
    for boxes in BOXES if all_boxes else BOXES[:1]:
        case = f"step_{boxes}"
        # The first steps trace, and settle the libraries' choice of algorithms.
        times = timing.interleave({"book": (book_, case), "ours": (ours_, case)}, rounds)
        goal = "≥ 2.5x" if boxes == 1 else ""
        work = f"training step, {boxes} box{'es' * (boxes > 1)} an image"
        print(timing.row(work, "the book", times["book"], times["ours"], goal), flush=True)
        if boxes == 1:
            rates = [batch / median(times[side]) for side in ("book", "ours")]
    print("\nimages a second: book {:.1f}, ours {:.1f}\n".format(*rates))


def compare_boxes(ours_, rounds):
    """Print how our step's time grows with the number of boxes."""
    cases = [f"step_{boxes}" for boxes in BOXES] + ["step_padded"]
    times = timing.interleave({case: (ours_, case) for case in cases}, rounds)
    names = [f"{b} an image" for b in BOXES] + [f"1 and {BOXES[-1] - 1} padding rows"]
    print("| boxes | our step | times the step with 1 (quartiles) | goal |\n|---|---|---|---|")
    for case, name in zip(cases, names, strict=True):
        low, middle, high = timing.ratio(times[case], times[cases[0]])
        goal = "< 1.3x" if case == f"step_{BOXES[-1]}" else ""
        seconds = timing.show_seconds(median(times[case]))
        print(f"| {name} | {seconds} | {middle:.3f}x ({low:.3f}-{high:.3f}) | {goal} |")
    print(flush=True)


def show_parts(ours_, book_, rounds, batch):
    """Print the rate of the step and of its parts beside that of a matrix product."""
    cases = ["step_1", "forward", "backbone", "convolutions", "target_1", f"target_{BOXES[-1]}"]
    sides = {case: (ours_, case) for case in [*cases, "matrix"]}
    sides["book's step"] = (book_, "step_1")
    sides["book's matrix"] = (book_, "matrix")
    times = {k: median(v) for k, v in timing.interleave(sides, rounds).items()}
    forward, step, backbone = operations(batch)
    rates = [2 * MATRIX**3 / times[case] for case in ("matrix", "book's matrix")]
    best = max(rates)
    print(
        f"The network's convolutions: {forward / 1e9:.1f} GFLOP forward, {step / 1e9:.1f} a step "
        f"of {batch}. Matrix product {MATRIX} x {MATRIX}, float32: TensorFlow "
        f"{rates[0] / 1e9:.0f}, PyTorch {rates[1] / 1e9:.0f} GFLOP/s.\n"
    )
    print("| part | time | GFLOP/s | share of the better matrix product |\n|---|---|---|---|")
    for name, case, work in (
        ("the book's step", "book's step", step),
        ("our step, 1 box an image", "step_1", step),
        ("backbone, forward and backward", "backbone", backbone),
        ("the same, convolutions only", "convolutions", backbone),
        ("whole network, forward, inference", "forward", forward),
        ("targets, 1 box an image", "target_1", None),
        (f"targets, {BOXES[-1]} boxes an image", f"target_{BOXES[-1]}", None),
    ):
        rate = f"{work / times[case] / 1e9:.0f}" if work else ""
        share = f"{work / times[case] / best:.1%}" if work else ""
        print(f"| {name} | {timing.show_seconds(times[case])} | {rate} | {share} |")


def main(argv=None):
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="turns of each side")
    parser.add_argument("--batch", type=int, default=BATCH, help="the goals are for 32")
    parser.add_argument("--jit", action="store_true", help="compile our step with XLA")
    parser.add_argument("--book-python", default=sys.executable, help="a Python with torch, d2l")
    parser.add_argument("--all-boxes", action="store_true", help="the book's step with many boxes")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(*SIDES[args.serve](args))
        return
    options = ["--batch", str(args.batch)] + ["--jit"] * args.jit
    pythons = {"ours": sys.executable, "book": args.book_python}
    with contextlib.ExitStack() as stack:
        workers = {
            side: stack.enter_context(timing.Worker([python, __file__, "--serve", side, *options]))
            for side, python in pythons.items()
        }
        print(timing.machine(workers) + "\n")
        compare_steps(workers["ours"], workers["book"], args.rounds, args.batch, args.all_boxes)
        compare_boxes(workers["ours"], args.rounds)
        show_parts(workers["ours"], workers["book"], args.rounds, args.batch)


if __name__ == "__main__":
    main()
