"""Time the labelling of anchors and the decoding of predictions against the book and torchvision.

    python benchmarks/detection_ops.py --torchvision-python /usr/bin/python3

Prints a Markdown table. Work: batches of 32 images with TinySSD's 5444 anchors at 256 x 256.

- `multibox_target`, 1 and 20 boxes an image, as a graph and compiled, against the book's.
- `multibox_detection`, all 5444 rows of every image, against the book's.
- The decoder (at most 100 detections an image) against the book's `multibox_detection`, its only
  way from raw predictions to detections, and against torchvision's compiled `batched_nms`.

Two kinds of predictions: those of a trained network (a few anchors around one to three objects
score high, the rest are far below the threshold) and of one that knows nothing (the softmax of
noise: every anchor passes the threshold), which is the worst case for NMS.

torchvision has `batched_nms` and nothing else of this work, so it is given the decoder's own
selection: softmax taken, offsets applied, scores below the threshold dropped, the same number of
best candidates an image. It is timed with this selection written in PyTorch ("whole"), and alone on
candidates that were selected before the clock started ("nms", which no whole decoder has to beat,
but ours is compared with it too). NMS may take the whole batch in one call of `batched_nms` or an
image a call, with one thread or two: the fastest of these is the one in the table.

Before anything is timed, the sides' answers are compared; the script stops if they differ.

Takes about 5 minutes on two free cores (the book's part is slow; `--rounds 3` for a quick look).
Needs benchmarks/README.md's set-up. Without `--torchvision-python` that comparison is left out.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing

BATCH = 32
NUM_CLASSES = 1
SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = (1.0, 2.0, 0.5)
FEATURE_MAPS = (32, 16, 8, 4, 1)  # Sides of TinySSD's feature maps at 256 x 256.
BOXES = (1, 20)  # An image, in `multibox_target`.
MODES = ("graph", "compiled")  # Of `multibox_target`: tf.function, without and with jit_compile.
KINDS = ("trained", "noise")  # Predictions: of a trained network, of one that knows nothing.

NMS_THRESHOLD = 0.5
SCORE_THRESHOLD = 0.01  # As the book's `pos_threshold` but for the last bits.
MAX_CANDIDATES = 400  # Best scores of an image that go into NMS.
MAX_DETECTIONS = 100


# ---------------------------------------------------------------- the inputs, for every side


def make_anchors():
    """Return TinySSD's anchors at 256 x 256, float32 `(1, 5444, 4)`."""
    maps = []
    for side, sizes in zip(FEATURE_MAPS, SIZES, strict=True):
        pairs = [(s, RATIOS[0]) for s in sizes] + [(sizes[0], r) for r in RATIOS[1:]]
        half = np.array([(s * r**0.5, s / r**0.5) for s, r in pairs]) / 2  # (4, 2): x, y
        y, x = np.meshgrid(*(((np.arange(side) + 0.5) / side,) * 2), indexing="ij")
        centers = np.stack([x, y], axis=-1)[:, :, None]  # (side, side, 1, 2)
        maps.append(np.concatenate([centers - half, centers + half], axis=-1).reshape(-1, 4))
    return np.concatenate(maps)[None].astype(np.float32)


def make_boxes(rng, count):
    """Return `count` random boxes inside the image, float32 `(count, 4)`."""
    center = rng.uniform(0.1, 0.9, (count, 2))
    half = rng.uniform(0.05, 0.5, (count, 2)) / 2
    corners = np.concatenate([center - half, center + half], axis=1)
    return np.clip(corners, 0, 1).astype(np.float32)


def iou(boxes, others):
    """Return the IoU of `(n, 4)` with `(m, 4)`, `(n, m)`."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])  # (n, m, 2)
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])  # (n, m, 2)
    inter = np.prod(np.clip(high - low, 0, None), axis=-1)  # (n, m)
    area = [np.prod(b[:, 2:] - b[:, :2], axis=-1) for b in (boxes, others)]
    return inter / (area[0][:, None] + area[1] - inter)


def softmax(logits):
    """Return the softmax of `logits` along the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def make_predictions(rng, kind, anchors, batch):
    """Return `(cls_preds (batch, A, 2), offset_preds (batch, 4A))`, float32, of a kind in KINDS."""
    num_anchors = anchors.shape[1]
    logits = rng.normal(size=(batch, num_anchors, NUM_CLASSES + 1))
    offsets = rng.normal(size=(batch, num_anchors, 4))
    if kind == "trained":
        # Background wins by e^7 far from objects; 14 more by IoU puts its defeat at IoU 0.5.
        center = (anchors[0, :, :2] + anchors[0, :, 2:]) / 2
        size = anchors[0, :, 2:] - anchors[0, :, :2]
        logits *= 0.5
        offsets *= 0.3
        for image in range(batch):
            boxes = make_boxes(rng, rng.integers(1, 4))
            overlap = iou(anchors[0], boxes)  # (A, boxes)
            logits[image, :, 1] += 14 * overlap.max(axis=1) - 7
            best = boxes[overlap.argmax(axis=1)]  # (A, 4)
            near = overlap.max(axis=1) > 0.3
            move = ((best[:, :2] + best[:, 2:]) / 2 - center) / size * 10  # 1 / 0.1
            grow = np.log((best[:, 2:] - best[:, :2]) / size) * 5  # 1 / 0.2
            offsets[image, near] += np.concatenate([move, grow], axis=1)[near]
    return logits.astype(np.float32), offsets.reshape(batch, -1).astype(np.float32)


def write_inputs(folder, batch=BATCH):
    """Write what every side works on into `folder`, as inputs.npz."""
    rng = np.random.default_rng(0)
    arrays = {"anchors": make_anchors()}
    for count in BOXES:
        boxes = np.stack([make_boxes(rng, count) for _ in range(batch)])
        classes = np.zeros((batch, count, 1), np.float32)
        arrays[f"labels_{count}"] = np.concatenate([classes, boxes], axis=-1)
    for kind in KINDS:
        logits, offsets = make_predictions(rng, kind, arrays["anchors"], batch)
        arrays[f"logits_{kind}"], arrays[f"offsets_{kind}"] = logits, offsets
        probabilities = softmax(logits).transpose(0, 2, 1)  # (batch, classes + 1, A)
        arrays[f"probs_{kind}"] = np.ascontiguousarray(probabilities)
    np.savez(Path(folder) / "inputs.npz", **arrays)


# ---------------------------------------------------------------- the sides, one process each


def ours(folder):
    """Serve this package's functions."""
    import tensorflow as tf

    from kerascv_d2l.layers import DetectionDecoder
    from kerascv_d2l.ops.matching import multibox_target
    from kerascv_d2l.ops.nms import multibox_detection

    data = {k: tf.constant(v) for k, v in np.load(Path(folder) / "inputs.npz").items()}
    decoder = DetectionDecoder(
        score_threshold=SCORE_THRESHOLD,
        nms_threshold=NMS_THRESHOLD,
        max_candidates=MAX_CANDIDATES,
        max_detections=MAX_DETECTIONS,
    )
    targets = {mode: tf.function(multibox_target, jit_compile=mode == "compiled") for mode in MODES}
    detection = tf.function(multibox_detection)
    decode = tf.function(decoder)

    def run(function, *names):
        return tf.nest.map_structure(lambda t: t.numpy(), function(*(data[n] for n in names)))

    cases = {}
    for count in BOXES:
        labels = f"labels_{count}"
        for mode in MODES:
            cases[f"target_{count}_{mode}"] = lambda labels=labels, mode=mode: run(
                targets[mode], "anchors", labels
            )
    for kind in KINDS:
        full = f"probs_{kind}", f"offsets_{kind}", "anchors"
        short = "anchors", f"logits_{kind}", f"offsets_{kind}"
        cases[f"full_{kind}"] = lambda names=full: run(detection, *names)
        cases[f"decode_{kind}"] = lambda names=short: run(decode, *names)
    answers = {
        f"target_{n}_{i}": a for n in BOXES for i, a in enumerate(cases[f"target_{n}_graph"]())
    }
    for kind in KINDS:
        answers[f"full_{kind}"] = cases[f"full_{kind}"]()
        found = cases[f"decode_{kind}"]()
        answers[f"decode_{kind}"] = found["boxes"]
        answers[f"decode_{kind}_counts"] = found["num_valid"]
    np.savez(Path(folder) / "ours.npz", **answers)
    return cases, {"tensorflow": tf.__version__}


def book(folder):
    """Serve the book's functions."""
    import torch
    from book_ssd import import_d2l

    d2l = import_d2l()
    torch.set_num_threads(timing.THREADS)
    data = {k: torch.from_numpy(v) for k, v in np.load(Path(folder) / "inputs.npz").items()}
    anchors = data["anchors"]
    cases = {}
    for count in BOXES:
        labels = data[f"labels_{count}"]
        cases[f"target_{count}"] = lambda labels=labels: d2l.multibox_target(anchors, labels)
    for kind in KINDS:
        arguments = data[f"probs_{kind}"], data[f"offsets_{kind}"], anchors
        cases[f"full_{kind}"] = lambda arguments=arguments: d2l.multibox_detection(*arguments)
    answers = {f"target_{n}_{i}": a for n in BOXES for i, a in enumerate(cases[f"target_{n}"]())}
    answers.update({f"full_{kind}": cases[f"full_{kind}"]() for kind in KINDS})
    maps = [torch.zeros(1, 1, side, side) for side in FEATURE_MAPS]
    prior = [d2l.multibox_prior(m, s, RATIOS) for m, s in zip(maps, SIZES, strict=True)]
    answers["anchors"] = torch.cat(prior, dim=1)
    np.savez(Path(folder) / "book.npz", **{k: v.numpy() for k, v in answers.items()})
    return cases, {"torch": torch.__version__, "d2l": "1.0.3"}


def torchvision(folder):
    """Serve torchvision's compiled `batched_nms`, alone and with the selection before it."""
    import torch
    import torchvision
    from torchvision.ops import batched_nms, nms

    data = {k: torch.from_numpy(v) for k, v in np.load(Path(folder) / "inputs.npz").items()}
    anchors, batch = data["anchors"][0], len(data["logits_noise"])
    size = anchors[:, 2:] - anchors[:, :2]
    center = anchors[:, :2] + size / 2

    def select(kind):
        """Apply offsets, and keep the best candidates above the threshold of every image."""
        # Over a short last axis PyTorch's softmax is ten times slower than over this one.
        logits = data[f"logits_{kind}"].permute(0, 2, 1).contiguous()  # (batch, classes + 1, A)
        scores, classes = torch.softmax(logits, dim=1)[:, 1:].max(dim=1)  # (batch, A)
        scores, index = scores.topk(MAX_CANDIDATES, dim=1)  # (batch, candidates)
        offsets = data[f"offsets_{kind}"].reshape(batch, -1, 4)
        offsets = offsets.gather(1, index[:, :, None].expand(-1, -1, 4))  # (batch, candidates, 4)
        middle = offsets[..., :2] * size[index] / 10 + center[index]  # (batch, candidates, 2)
        half = torch.exp(offsets[..., 2:] / 5) * size[index] / 2
        boxes = torch.cat([middle - half, middle + half], dim=2)  # (batch, candidates, 4)
        boxes = boxes.clamp(0, 1)  # first, as torchvision's own detectors do
        valid = (scores > SCORE_THRESHOLD) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
        return boxes, scores, classes.gather(1, index), valid

    def flatten(boxes, scores, _, valid):
        images = torch.arange(batch)[:, None].expand_as(valid)
        return boxes[valid], scores[valid], images[valid]

    def batch_nms(boxes, scores, images):
        return batched_nms(boxes, scores, images, NMS_THRESHOLD)

    def single_nms(boxes, scores, _, valid):
        return [
            nms(b[v], s[v], NMS_THRESHOLD)[:MAX_DETECTIONS]
            for b, s, v in zip(boxes, scores, valid, strict=True)
        ]

    def pad(boxes, scores, classes, valid):
        """Do the whole work: NMS image by image, and arrays of one shape as the decoder gives."""
        kept = single_nms(boxes, scores, classes, valid)
        out_boxes = torch.zeros(batch, MAX_DETECTIONS, 4)
        out_scores = torch.zeros(batch, MAX_DETECTIONS)
        out_classes = torch.full((batch, MAX_DETECTIONS), -1)
        for image, index in enumerate(kept):
            rows = valid[image].nonzero()[index, 0]
            out_boxes[image, : len(index)] = boxes[image, rows]
            out_scores[image, : len(index)] = scores[image, rows]
            out_classes[image, : len(index)] = classes[image, rows]
        counts = torch.tensor([len(index) for index in kept])
        return out_boxes, out_scores, out_classes, counts

    def whole_batch(boxes, scores, classes, valid):
        """Do the whole work with one call of `batched_nms`, in the same arrays."""
        flat = flatten(boxes, scores, classes, valid)
        kept = batch_nms(*flat)  # Best first, over all images together.
        kept = kept[torch.argsort(flat[2][kept], stable=True)]  # By image, best first.
        images = flat[2][kept]
        counts = torch.bincount(images, minlength=batch)
        rank = torch.arange(len(kept)) - (counts.cumsum(0) - counts)[images]
        kept, images, rank = (t[rank < MAX_DETECTIONS] for t in (kept, images, rank))
        out_boxes = torch.zeros(batch, MAX_DETECTIONS, 4)
        out_scores = torch.zeros(batch, MAX_DETECTIONS)
        out_classes = torch.full((batch, MAX_DETECTIONS), -1)
        out_boxes[images, rank] = flat[0][kept]
        out_scores[images, rank] = flat[1][kept]
        out_classes[images, rank] = classes[valid][kept]
        return out_boxes, out_scores, out_classes, counts.clamp(max=MAX_DETECTIONS)

    def with_threads(threads, work):
        def run():
            torch.set_num_threads(threads)
            return work()

        return run

    cases, answers = {}, {}
    for kind in KINDS:
        chosen = select(kind)
        flat = flatten(*chosen)
        works = {
            "nms, one call": lambda flat=flat: batch_nms(*flat),
            "nms, call an image": lambda chosen=chosen: single_nms(*chosen),
            "whole, one call": lambda kind=kind: whole_batch(*select(kind)),
            "whole, call an image": lambda kind=kind: pad(*select(kind)),
        }
        for name, work in works.items():
            for threads in (1, timing.THREADS):
                cases[f"{name}, {threads} threads, {kind}"] = with_threads(threads, work)
        for way, name in enumerate(list(works)[2:]):
            found = works[name]()
            answers[f"decode_{kind}_{way}"] = found[0].numpy()
            answers[f"decode_{kind}_{way}_counts"] = found[3].numpy()
    np.savez(Path(folder) / "torchvision.npz", **answers)
    return cases, {"torch": torch.__version__, "torchvision": torchvision.__version__}


SIDES = {"ours": ours, "book": book, "torchvision": torchvision}


# ---------------------------------------------------------------- comparison


def check(condition, message):
    """Stop with `message` unless `condition` holds."""
    if not condition:
        raise SystemExit(f"the sides disagree, so there is nothing to time: {message}")


def check_answers(folder, sides):
    """Compare what the sides answered; print how many detections there were.

    Raises:
        SystemExit: if answers differ by more than float32 rounding explains.
    """
    answers = {side: dict(np.load(Path(folder) / f"{side}.npz")) for side in sides}
    own = answers.get("ours", {})
    if "book" in sides:
        theirs = answers["book"]
        difference = np.abs(theirs["anchors"] - make_anchors()).max()
        check(difference < 1e-6, f"anchors by up to {difference}")
        for kind in KINDS:
            rows = theirs[f"full_{kind}"]
            print(f"{kind}: the book keeps {(rows[..., 0] >= 0).sum(1).mean():.1f} rows an image")
    if "book" in sides and "ours" in sides:
        for count in BOXES:
            mine, other = ([a[f"target_{count}_{i}"] for i in range(3)] for a in (own, theirs))
            wrong = (mine[2] != other[2]).sum()
            check(wrong == 0, f"multibox_target with {count} boxes, {wrong} class labels")
            check((mine[1] == other[1]).all(), f"multibox_target with {count} boxes, masks")
            check(np.allclose(mine[0], other[0], atol=1e-3), f"offsets with {count} boxes")
        for kind in KINDS:
            mine, other = own[f"full_{kind}"], theirs[f"full_{kind}"]
            close = np.isclose(mine, other, atol=1e-4).all(axis=2)  # (batch, A)
            # Two IoUs or scores that differ in the last bit may swap rows or decide otherwise.
            share = close.mean()
            check(share > 0.999, f"multibox_detection, {kind}: {share:.4%} of the rows agree")
    for kind in KINDS if "torchvision" in sides else ():
        theirs = answers["torchvision"]
        counts = theirs[f"decode_{kind}_0_counts"]
        print(f"{kind}: torchvision detects {counts.mean():.1f} objects an image")
        check(
            np.allclose(theirs[f"decode_{kind}_0"], theirs[f"decode_{kind}_1"], atol=1e-5),
            f"torchvision's two ways, {kind}",
        )
        if "ours" in sides:
            mine = own[f"decode_{kind}_counts"]
            check(np.abs(mine - counts).mean() < 0.1, f"counts, {kind}: {mine} and {counts}")
            boxes = own[f"decode_{kind}"], theirs[f"decode_{kind}_0"]
            share = np.isclose(*boxes, atol=1e-4).all(axis=2).mean()
            check(share > 0.99, f"the decoder, {kind}: {share:.4%} of the boxes agree")


def compare(workers, rounds):
    """Time every pair of sides, and print the rows of the table."""
    print(timing.HEADER)
    ours_, book_ = workers["ours"], workers["book"]
    vision = workers.get("torchvision")
    for count, goal in zip(BOXES, ("≥ 3x", "≥ 10x"), strict=True):
        case = f"target_{count}"
        for mode in MODES:
            sides = {"book": (book_, case), "ours": (ours_, f"{case}_{mode}")}
            times = timing.interleave(sides, rounds)
            work = f"`multibox_target`, {count} box{'es' * (count > 1)} an image, {mode}"
            print(timing.row(work, "the book", times["book"], times["ours"], goal), flush=True)
    for kind in KINDS:
        full, decode = f"full_{kind}", f"decode_{kind}"
        times = timing.interleave({"book": (book_, full), "ours": (ours_, full)}, rounds, 1)
        work = f"`multibox_detection`, {kind} scores"
        print(timing.row(work, "the book", times["book"], times["ours"], "≥ 8x"), flush=True)
        times = timing.interleave({"book": (book_, full), "ours": (ours_, decode)}, rounds, 1)
        work = f"decoder, {MAX_DETECTIONS} detections, {kind} scores"
        print(timing.row(work, "the book", times["book"], times["ours"], "≥ 100x"), flush=True)
        for what in ("whole", "nms") if vision else ():
            names = [c for c in vision.cases if c.startswith(what) and c.endswith(kind)]
            sides = {name: (vision, name) for name in names}
            times = timing.interleave({**sides, "ours": (ours_, decode)}, max(rounds, 10))
            best = min(sides, key=lambda name: timing.quartiles(times[name])[1])
            against = f"torchvision, {best.rsplit(', ', 1)[0]}"
            print(timing.row(work, against, times[best], times["ours"], "≥ 1x"), flush=True)


def main(argv=None):
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side")
    parser.add_argument("--batch", type=int, default=BATCH, help="the goals are for 32")
    parser.add_argument("--torchvision-python", help="a Python with compiled torchvision")
    parser.add_argument("--book-python", default=sys.executable, help="a Python with torch, d2l")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(*SIDES[args.serve](args.folder))
        return
    pythons = {"ours": sys.executable, "book": args.book_python}
    if args.torchvision_python:
        pythons["torchvision"] = args.torchvision_python
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_inputs(folder, args.batch)
        workers = {
            side: stack.enter_context(
                timing.Worker([python, __file__, "--serve", side, "--folder", folder])
            )
            for side, python in pythons.items()
        }
        print(timing.machine(workers) + f"\n\nBatch {args.batch}.")
        check_answers(folder, list(workers))
        compare(workers, args.rounds)


if __name__ == "__main__":
    main()
