"""Train R-CNN, Fast R-CNN and Faster R-CNN on the same generated scenes: how good, how fast.

    python benchmarks/rcnn_family.py    # needs scikit-image and scikit-learn; 10 minutes

Prints a Markdown table: mAP of the validation images, seconds of training, and milliseconds for
an image, of which proposals. R-CNN and Fast R-CNN get the boxes of selective search, Faster
R-CNN makes its own. Fast and Faster R-CNN start from the same random weights of the same
backbone, and see the images as often; R-CNN has a small network of its own, since it runs on
every proposal. `--rounds` repeats all with other seeds.
"""

import argparse
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

import kerascv_d2l as d2l

SIZE, BATCH = (128, 128), 8
BACKBONE = {"backbone": "resnet18", "channels": 64, "head_width": 256, "canonical_size": 56}
ANCHORS = tuple((size,) for size in (16, 24, 32, 48, 64))


class Timed:
    """A detector for `evaluate_detections` that measures itself.

    Args:
        detect: function from a batch of images to detections.
    """

    def __init__(self, detect):
        self.call, self.seconds, self.images = detect, 0.0, 0

    def detect(self, images):
        start = time.perf_counter()
        found = {name: np.asarray(value) for name, value in self.call(images).items()}
        self.seconds += time.perf_counter() - start
        self.images += len(images)
        return found


class Proposals:
    """Selective search of images, remembered by their pixels, and the time that it took."""

    def __init__(self):
        self.known, self.seconds = {}, 0.0

    def of(self, image):
        """Boxes in pixels `(n, 4)` of a uint8 image."""
        key = np.asarray(image, np.uint8).tobytes()
        if key not in self.known:
            start = time.perf_counter()
            self.known[key] = d2l.selective_search(np.asarray(image, np.uint8))
            self.seconds += time.perf_counter() - start
        return self.known[key]

    def normalised(self, images, most=400):
        """Of a batch: float32 `(batch, most, 4)`; rows without area are padding."""
        boxes = np.zeros((len(images), most, 4), np.float32)
        for row, image in zip(boxes, images, strict=True):
            found = self.of(image)[:most]
            row[: len(found)] = found / np.tile(image.shape[1::-1], 2)
        return boxes


def rcnn(data, epochs, seed):
    """R-CNN of 2014: seconds of training, and what detects."""
    proposals = Proposals()
    model = d2l.RCNN(data.class_names, propose=proposals.of, seed=seed)
    start = time.perf_counter()
    model.fit(d2l.batches(data.train, SIZE, BATCH), fine_tune_epochs=4)
    return time.perf_counter() - start, Timed(model.detect), proposals


def fast_rcnn(data, epochs, seed):
    """Fast R-CNN on the same proposals."""
    proposals = Proposals()
    model = d2l.FastRCNN(data.class_names, seed=seed, **BACKBONE)
    compile_for(model, data, epochs)

    def with_proposals(images, y):
        boxes = tf.numpy_function(proposals.normalised, [images], tf.float32)
        boxes.set_shape([images.shape[0], None, 4])
        return {"images": images, "proposals": boxes}, y

    start = time.perf_counter()
    train = d2l.batches(data.train, SIZE, BATCH, training=True, seed=seed).map(with_proposals)
    fit(model, train, data, epochs)

    def detect(images):
        return model.detect(images, proposals.normalised(images.numpy()))

    return time.perf_counter() - start, Timed(detect), proposals


def faster_rcnn(data, epochs, seed):
    """Faster R-CNN, which has no proposals from elsewhere."""
    model = d2l.FasterRCNN(data.class_names, anchor_sizes=ANCHORS, seed=seed, **BACKBONE)
    compile_for(model, data, epochs)
    start = time.perf_counter()
    fit(model, d2l.batches(data.train, SIZE, BATCH, training=True, seed=seed), data, epochs)
    return time.perf_counter() - start, Timed(model.detect), Proposals()


def compile_for(model, data, epochs):
    steps = epochs * d2l.steps_per_epoch(data.train, BATCH)
    model.compile(d2l.make_optimizer("adam", 1e-3, schedule="cosine", steps=steps))


def fit(model, train, data, epochs):
    steps = d2l.steps_per_epoch(data.train, BATCH)
    model.fit(train, epochs=epochs, steps_per_epoch=steps, verbose=2, shuffle=False)


def measure(build, data, epochs, seed):
    """mAP@0.5, mAP, seconds of training, and milliseconds an image, in all and for proposals."""
    keras.utils.set_random_seed(seed)
    seconds, timed, proposals = build(data, epochs, seed)
    batches = d2l.batches(data.val, SIZE, BATCH)
    d2l.evaluate_detections(timed, batches.take(1))  # traces, and does not count
    timed.seconds = timed.images = proposals.seconds = 0
    proposals.known.clear()
    found = d2l.evaluate_detections(timed, batches)
    each = [1000 * s / timed.images for s in (timed.seconds, proposals.seconds)]
    return found["map_50"], found["map"], seconds, *each


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=300, help="to train on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    data = d2l.load(
        "generated", "detection", num_train=args.images, num_val=60, image_size=SIZE, num_classes=3
    )
    print("| | mAP@0.5 | mAP | training, s | an image, ms | of these proposals |\n|" + "---|" * 6)
    for name, build in (
        ("R-CNN", rcnn),
        ("Fast R-CNN", fast_rcnn),
        ("Faster R-CNN", faster_rcnn),
    ):
        rows = [measure(build, data, args.epochs, seed) for seed in range(args.rounds)]
        best50, best, seconds, total, proposals = map(statistics.median, zip(*rows, strict=True))
        print(
            f"| {name} | {best50:.3f} | {best:.3f} | {seconds:.0f} | {total:.1f} | "
            f"{proposals:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
