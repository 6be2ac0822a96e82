"""Time RoI align, with and without gradient, and mask pasting against torchvision's compiled code.

    python benchmarks/roi.py --torchvision-python /usr/bin/python3

Prints a Markdown table. Work: 512 boxes on a map of 50 x 50 with 256 channels (an image of 800 x
800 at stride 16), 7 x 7 bins, 2 x 2 samples each; 100 masks of 28 x 28 into an image of 480 x 640.
Boxes have sides from 32 pixels to the image's height, log-uniform. The gradient is that of the
features. torchvision cuts masks' boxes to whole pixels, ours are pasted as they are.

Before anything is timed, the sides' answers are compared; the script stops if they differ.
Takes half a minute on two free cores (`--rounds 3` for a quick look). benchmarks/README.md says
what to install.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing

BOXES, CHANNELS, MAP_SIDE, STRIDE, BINS = 512, 256, 50, 16, 7
MASKS, MASK_SIDE, IMAGE_SIZE = 100, 28, (480, 640)
GOALS = {"align": 3, "align with gradient": 6, "paste": 10}


def write_inputs(folder):
    """Write what both sides work on into `folder`, as inputs.npz."""
    random = np.random.default_rng(0)

    def boxes(count, height, width):
        size = np.exp(random.uniform(np.log(32), np.log(height), (count, 2)))
        low = random.uniform(0, 1, (count, 2)) * ((width, height) - size)
        return np.concatenate([low, low + size], axis=1).astype(np.float32)

    shape = (BOXES, BINS, BINS, CHANNELS)
    np.savez(
        Path(folder) / "inputs.npz",
        features=random.normal(size=(1, MAP_SIDE, MAP_SIDE, CHANNELS)).astype(np.float32),
        boxes=boxes(BOXES, MAP_SIDE * STRIDE, MAP_SIDE * STRIDE),
        upstream=random.normal(size=shape).astype(np.float32),
        masks=random.uniform(size=(MASKS, MASK_SIDE, MASK_SIDE)).astype(np.float32),
        mask_boxes=boxes(MASKS, *IMAGE_SIZE),
    )


def ours(folder):
    """Serve this package's functions, as graphs."""
    import tensorflow as tf

    from kerascv_d2l import paste_masks, roi_align

    data = {k: tf.constant(v) for k, v in np.load(Path(folder) / "inputs.npz").items()}
    images = tf.zeros([BOXES], tf.int32)

    @tf.function
    def align(features, boxes):
        return roi_align(features, boxes, images, BINS, 1 / STRIDE)

    @tf.function
    def gradient(features, boxes, upstream):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_align(features, boxes, images, BINS, 1 / STRIDE)
        return pooled, tape.gradient(pooled, features, upstream)

    paste = tf.function(lambda masks, boxes: paste_masks(masks, boxes, IMAGE_SIZE))
    cases = {
        "align": lambda: align(data["features"], data["boxes"]),
        "align with gradient": lambda: gradient(data["features"], data["boxes"], data["upstream"]),
        "paste": lambda: paste(data["masks"], data["mask_boxes"]),
    }
    truncated = paste_masks(data["masks"], data["mask_boxes"], IMAGE_SIZE, truncate=True)
    np.savez(
        Path(folder) / "ours.npz",
        align=cases["align"](),
        gradient=cases["align with gradient"]()[1],
        paste=truncated,
    )
    return cases, {"tensorflow": tf.__version__}


def torchvision(folder):
    """Serve torchvision's functions."""
    import torch
    import torchvision
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    torch.set_num_threads(timing.THREADS)
    data = {k: torch.from_numpy(v) for k, v in np.load(Path(folder) / "inputs.npz").items()}
    features = data["features"].permute(0, 3, 1, 2).contiguous()
    upstream = data["upstream"].permute(0, 3, 1, 2).contiguous()
    rois = torch.cat([torch.zeros(BOXES, 1), data["boxes"]], dim=1)
    masks = data["masks"][:, None]

    def align(features):
        return torchvision.ops.roi_align(features, rois, BINS, 1 / STRIDE, 2)

    def gradient():
        inputs = features.clone().requires_grad_()
        align(inputs).backward(upstream)
        return inputs.grad

    cases = {
        "align": lambda: align(features),
        "align with gradient": gradient,
        "paste": lambda: paste_masks_in_image(masks, data["mask_boxes"], IMAGE_SIZE),
    }
    np.savez(
        Path(folder) / "torchvision.npz",
        align=cases["align"]().permute(0, 2, 3, 1),
        gradient=cases["align with gradient"]().permute(0, 2, 3, 1),
        paste=cases["paste"]()[:, 0],
    )
    return cases, {"torch": torch.__version__, "torchvision": torchvision.__version__}


SIDES = {"ours": ours, "torchvision": torchvision}


def check_answers(folder):
    """Stop if the sides' answers differ by more than float32 rounding explains."""
    answers = [np.load(Path(folder) / f"{side}.npz") for side in SIDES]
    for name in ("align", "gradient", "paste"):
        mine, theirs = (answer[name] for answer in answers)
        difference = np.abs(mine - theirs).max() / np.abs(theirs).max()
        if difference > 1e-4:
            raise SystemExit(f"the sides disagree on {name} by {difference}, relative")


def main(argv=None):
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side")
    parser.add_argument("--torchvision-python", default=sys.executable)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(*SIDES[args.serve](args.folder))
        return
    pythons = {"ours": sys.executable, "torchvision": args.torchvision_python}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_inputs(folder)
        workers = {
            side: stack.enter_context(
                timing.Worker([python, __file__, "--serve", side, "--folder", folder])
            )
            for side, python in pythons.items()
        }
        print(timing.machine(workers) + "\n")
        check_answers(folder)
        print(timing.HEADER)
        for case, goal in GOALS.items():
            sides = {side: (worker, case) for side, worker in workers.items()}
            times = timing.interleave(sides, args.rounds)
            row = timing.row(
                case, "torchvision", *(times[s] for s in reversed(SIDES)), f"≥ {goal}x"
            )
            print(row, flush=True)


if __name__ == "__main__":
    main()
