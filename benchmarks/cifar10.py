"""Time CIFAR-10's input pipeline against the training step that eats what it gives.

    python benchmarks/cifar10.py

Prints a Markdown table: for each `small_augmentation` (`--augment` of scripts/train_classifier.py)
the seconds of a batch, those of a step of the book's ResNet-18 on one, and how many times as fast
the pipeline is. The images are noise in the number and size of CIFAR-10's; the step's batch lies in
memory. Each side has both cores to itself while it is its turn, so a ratio of 10 means that data
take about a tenth of what they could when both share them.

Takes about 4 minutes on two free cores with the book's batch of 256.
"""

import argparse
import sys

import numpy as np
import timing

COUNT, CLASSES, SIZE = 50_000, 10, (32, 32)
BATCHES = 20  # a turn of the pipeline
GOAL = "≥ 10 ×"


def serve_pipeline(batch_size, count):
    import tensorflow as tf

    from kerascv_d2l import small_augmentation
    from kerascv_d2l.data.batches import batches
    from kerascv_d2l.data.splits import Split
    from kerascv_d2l.layers.augmentation.compose import SMALL_AUGMENTATIONS

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SIZE, 3)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, count)
    split = Split(images, {"label": labels}, [str(k) for k in range(count)])

    def case(name):
        transform = small_augmentation(name)
        iterator = iter(batches(split, SIZE, batch_size, training=True, transform=transform))

        def work():
            for _ in range(BATCHES):
                next(iterator)

        return work

    return {name: case(name) for name in SMALL_AUGMENTATIONS}, {"TensorFlow": tf.__version__}


def serve_step(batch_size, count):
    import keras

    from kerascv_d2l import resnet18
    from kerascv_d2l.devices import resolve_jit_compile

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *SIZE, 3)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, batch_size)
    model = resnet18(CLASSES)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=resolve_jit_compile("auto"),
    )
    return {"step": lambda: model.train_on_batch(images, labels)}, {"Keras": keras.__version__}


SIDES = {"pipeline": serve_pipeline, "step": serve_step}


def main(argv=None):
    """Run the benchmark; return for each augmentation how many times as fast its pipeline is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--batch-size", type=int, default=256, help="default 256, the book's")
    parser.add_argument("--count", type=int, default=COUNT, help=f"images (default {COUNT})")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(*SIDES[args.serve](args.batch_size, args.count))
        return None

    def command(side):
        sizes = [f"--batch-size={args.batch_size}", f"--count={args.count}"]
        return [sys.executable, __file__, "--serve", side, *sizes]

    ratios = {}
    with timing.Worker(command("pipeline")) as pipeline, timing.Worker(command("step")) as step:
        print(timing.machine({"pipeline": pipeline, "step": step}))
        sides = {name: (pipeline, name) for name in pipeline.cases}
        times = timing.interleave({**sides, "step": (step, "step")}, args.rounds)
        steps = times.pop("step")
        print(timing.HEADER)
        for name, seconds in times.items():
            batches = [s / BATCHES for s in seconds]
            title = f"a batch of {args.batch_size}, --augment {name}"
            print(timing.row(title, "a training step", steps, batches, GOAL), flush=True)
            ratios[name] = timing.ratio(steps, batches)[1]
    return ratios


if __name__ == "__main__":
    main()
