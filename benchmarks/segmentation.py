"""Time segmentation: the enlargement of scores, a training step, mean IoU, windows.

    python benchmarks/segmentation.py
    python benchmarks/segmentation.py --only windows,memory

- the stride-32, kernel-64, 21-class transposed convolution on 10 x 15 maps, batch 8, forward and
  back, against PyTorch's (in its own memory order and in channels-last), trainable and fixed;
- a training step of FCN-32s ResNet-18, batch 8 at 320 x 480, against the book's;
- mean IoU of a batch of 32 x 320 x 480 pixels of 21 classes, against `keras.metrics.MeanIoU` on
  class maps; and from scores, against argmax and that;
- a 2000 x 3000 image in windows, against the same number of windows in plain batches;
- peak memory of one image of 1, 6 and 24 megapixels in windows, each in a new process.

Takes about 8 minutes on two free cores. Needs benchmarks/README.md's set-up.
"""

import argparse
import resource
import subprocess
import sys

import numpy as np
import timing

CLASSES = 21
BATCH = 8
CROP = (320, 480)
IOU_BATCH = 32
IMAGE = (2000, 3000)
WINDOW = (512, 512)
AT_A_TIME = 4
PARTS = ("enlarge", "step", "iou", "windows", "memory")
MEGAPIXELS = {1: (1000, 1000), 6: (2000, 3000), 24: (4000, 6000)}
# The book's, for summed losses; ours for their mean over the batch.
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-3


def make_batch(batch, size):
    """Return pixels uint8 `(batch, h, w, 3)` and classes uint8 `(batch, h, w)`."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, *size, 3)).astype(np.uint8)
    return images, rng.integers(0, CLASSES, (batch, *size)).astype(np.uint8)


def book_side():
    """Give the cases of the book and PyTorch."""
    import book_fcn
    import torch

    torch.set_num_threads(timing.THREADS)
    cases = {}
    for name, order in (
        ("enlarge", torch.contiguous_format),
        ("enlarge channels-last", torch.channels_last),
    ):
        layer = torch.nn.ConvTranspose2d(CLASSES, CLASSES, 64, padding=16, stride=32)
        layer = layer.to(memory_format=order)
        x = torch.randn(BATCH, CLASSES, CROP[0] // 32, CROP[1] // 32).to(memory_format=order)
        gradient = torch.randn(BATCH, CLASSES, *CROP).to(memory_format=order)
        x.requires_grad_()

        def enlarge(layer=layer, x=x, gradient=gradient):
            layer.zero_grad()
            x.grad = None
            layer(x).backward(gradient)

        cases[name] = enlarge
    net = book_fcn.fcn32(CLASSES)
    trainer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    images, labels = make_batch(BATCH, CROP)
    images = torch.tensor(images).permute(0, 3, 1, 2).contiguous() / 255.0
    labels = torch.tensor(labels).long()
    cases["step"] = lambda: book_fcn.train_step(net, trainer, images, labels)
    return cases, {"PyTorch": torch.__version__, "threads": torch.get_num_threads()}


def our_side(parts):
    """Give the cases of this package and of Keras."""
    import keras
    import tensorflow as tf

    from kerascv_d2l import FCN, SegmentationCrossEntropy, SegmentationMetrics
    from kerascv_d2l.layers.upsampling import BilinearUpsampling, TransposedUpsampling

    cases = {}
    for name, layer in (
        ("enlarge", TransposedUpsampling(CLASSES, 32)),
        ("enlarge fixed", BilinearUpsampling(32)),
        ("enlarge keras", keras.layers.Conv2DTranspose(CLASSES, 64, strides=32, padding="same")),
    ):
        x = tf.random.normal((BATCH, CROP[0] // 32, CROP[1] // 32, CLASSES))
        gradient = tf.random.normal((BATCH, *CROP, CLASSES))
        layer.build(x.shape)

        @tf.function
        def enlarge(layer=layer, x=x, gradient=gradient):
            with tf.GradientTape() as tape:
                tape.watch(x)
                enlarged = layer(x)
            gradients = tape.gradient(enlarged, [x, *layer.trainable_weights], gradient)
            return [tf.reshape(g, [-1])[0] for g in gradients]

        cases[name] = lambda enlarge=enlarge: tf.nest.map_structure(np.array, enlarge())

    if "step" in parts:
        images, labels = make_batch(BATCH, CROP)
        images, labels = tf.constant(images), tf.constant(labels)
        for name, trainable in (("step", True), ("step fixed", False)):
            model = FCN(CLASSES, trainable_upsampling=trainable)
            model.compile(
                keras.optimizers.SGD(LEARNING_RATE * BATCH, weight_decay=WEIGHT_DECAY / BATCH),
                SegmentationCrossEntropy(),
                metrics=[SegmentationMetrics(CLASSES)],
                jit_compile=False,
            )
            cases[name] = lambda model=model: model.train_on_batch(images, labels)

    if "iou" in parts:
        scores = tf.random.normal((IOU_BATCH, *CROP, CLASSES))
        classes = tf.argmax(scores, -1)
        truth = tf.constant(make_batch(IOU_BATCH, CROP)[1])
        theirs, ours = keras.metrics.MeanIoU(CLASSES), SegmentationMetrics(CLASSES)
        # In a graph, as `fit` runs them, with the state read so that the work is done.
        update_theirs, update_ours = (
            tf.function(theirs.update_state),
            tf.function(ours.update_state),
        )

        def measure(metric, update, prepare=lambda: None):
            def case():
                update(truth, prepare())
                tf.nest.map_structure(np.array, metric.result())

            return case

        cases["iou keras"] = measure(theirs, update_theirs, lambda: classes)
        cases["iou"] = measure(ours, update_ours, lambda: classes)
        cases["iou keras from scores"] = measure(
            theirs, update_theirs, lambda: tf.argmax(scores, -1)
        )
        cases["iou from scores"] = measure(ours, update_ours, lambda: scores)

    if "windows" in parts:
        segment = segmenter()
        image = make_batch(1, IMAGE)[0][0]
        number = window_count(segment)
        model = tf.function(
            segment.model, input_signature=[tf.TensorSpec([None, *WINDOW, 3], tf.uint8)]
        )
        windows = tf.constant(make_batch(AT_A_TIME, WINDOW)[0])

        def plain():
            for start in range(0, number, AT_A_TIME):
                model(windows[: min(AT_A_TIME, number - start)])[0, 0, 0, 0].numpy()

        cases["windows plain"] = plain
        cases["windows"] = lambda: segment(image).numpy()
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return cases, {"TensorFlow": tf.__version__, "threads": threads or timing.THREADS}


def segmenter():
    """Build the network and windows that are timed."""
    from kerascv_d2l import FCN, Segmenter

    return Segmenter(FCN(CLASSES, trainable_upsampling=False), WINDOW, windows_at_a_time=AT_A_TIME)


def window_count(segment):
    """Count the windows of the image that is timed."""
    from kerascv_d2l import window_starts

    down, across = (
        window_starts(side, window, segment.overlap).shape[0]
        for side, window in zip(IMAGE, WINDOW, strict=True)
    )
    return down * across


def peak_memory(megapixels):
    """Segment one image and print the growth of the peak memory, in MiB."""
    segment = segmenter()
    np.array(segment(make_batch(1, WINDOW)[0][0]))  # the network, its buffers and libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = make_batch(1, MEGAPIXELS[megapixels])[0][0]
    np.array(segment(image))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(before // 1024, after // 1024)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, of " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--book-python", default=sys.executable, help="Python that has PyTorch")
    parser.add_argument("--serve", choices=["book", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    parts = args.only.split(",")
    if args.memory:
        return peak_memory(args.memory)
    if args.serve:
        return timing.serve(*(book_side() if args.serve == "book" else our_side(parts)))

    def worker(side, python=sys.executable):
        return timing.Worker([python, __file__, "--serve", side, "--only", args.only])

    with worker("book", args.book_python) as book, worker("ours") as ours:
        print(timing.machine({"book": book, "ours": ours}), "\n")
        print(timing.HEADER, flush=True)

        def compare(work, against, theirs, mine, goal):
            times = timing.interleave({"theirs": theirs, "ours": (ours, mine)}, args.rounds)
            print(timing.row(work, against, times["theirs"], times["ours"], goal), flush=True)

        if "enlarge" in parts:
            for order in ("enlarge", "enlarge channels-last"):
                against = order.replace("enlarge", "PyTorch")
                compare("enlarge 32 x, trainable", against, (book, order), "enlarge", "1.5")
                compare("enlarge 32 x, fixed", against, (book, order), "enlarge fixed", "5")
            keras_side = (ours, "enlarge keras")
            compare("enlarge 32 x, trainable", "Conv2DTranspose", keras_side, "enlarge", "")
        if "step" in parts:
            compare("FCN-32s step", "the book", (book, "step"), "step", "1.5")
            compare("FCN-32s step, fixed", "the book", (book, "step"), "step fixed", "")
        if "iou" in parts:
            compare("mean IoU of class maps", "Keras", (ours, "iou keras"), "iou", "20")
            from_scores = (ours, "iou keras from scores")
            compare("mean IoU of scores", "argmax and Keras", from_scores, "iou from scores", "")
        if "windows" in parts:
            plain = (ours, "windows plain")
            compare("2000 x 3000 in windows", "plain batches", plain, "windows", "> 1 / 1.2")
    if "memory" in parts:
        print("\n| megapixels | peak before, MiB | peak after, MiB |\n|---|---|---|")
        for megapixels in MEGAPIXELS:
            command = [sys.executable, __file__, "--memory", str(megapixels)]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            before, after = result.stdout.split()
            print(f"| {megapixels} | {before} | {after} |", flush=True)


if __name__ == "__main__":
    main()
