"""Time Mask R-CNN's training step and inference against torchvision, and its peak memory.

    python benchmarks/mask_rcnn.py --torchvision-python PYTHON

ResNet-50 with FPN as torchvision has it, 91 classes, frozen batch norm, every layer trained. A step
is forward, the five losses, backward and SGD with momentum, at 320 x 320, batch 2, eight objects
an image. Inference is one image of 480 x 640 with 100 detections and their masks, pasted. Both
sides start from the same random weights, with scores spread so that there are detections.

Then, ours alone, the step with 1 and with 100 objects an image, of that network and of the one that
`train_detector.py --model mask_rcnn --data FOLDER` trains (batch 8, 256 x 256). Peak memory is that
of a process that makes the model and does three steps, and nothing else; what the libraries take
before that is printed beside it.

Needs benchmarks/README.md's set-up.
"""

import argparse
import contextlib
import functools
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing

CLASSES = 90
TRAINING, INFERENCE = (2, 320, 320), (1, 480, 640)
ON_FOLDERS = (8, 256, 256)  # the script's own batch, and its size for objects that are not small
OBJECTS = 8
RATE = 1e-4
WEIGHTS = "mask_rcnn.npz"


def make_batch(shape, objects=OBJECTS):
    """Images uint8, boxes in pixels `(batch, objects, 4)`, classes from 0, and masks uint8."""
    batch, height, width = shape
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, height, width, 3)).astype(np.uint8)
    size = random.uniform(0.1, 0.5, (batch, objects, 2)) * (width, height)
    low = random.uniform(0, 1, (batch, objects, 2)) * ((width, height) - size)
    boxes = np.concatenate([low, low + size], axis=2).astype(np.float32)
    x_min, y_min, x_max, y_max = np.moveaxis(boxes[..., None, None], 2, 0)
    y, x = np.mgrid[:height, :width] + 0.5
    u, v = (2 * x - x_min - x_max) / (x_max - x_min), (2 * y - y_min - y_max) / (y_max - y_min)
    return (
        images,
        boxes,
        random.integers(0, CLASSES, (batch, objects)),
        (u**2 + v**2 < 1).astype(np.uint8),
    )


def ours(folder):
    """Serve this package's Mask R-CNN."""
    import keras
    import tensorflow as tf

    from kerascv_d2l import MaskRCNN, detector_recipe, make_optimizer
    from kerascv_d2l.models.rcnn_weights import load_torchvision

    def make():
        model = MaskRCNN(CLASSES, "resnet50_v1.5", freeze_norm=True)
        if folder:
            load_torchvision(model, dict(np.load(Path(folder) / WEIGHTS)))
        model.compile(make_optimizer("sgd", RATE, momentum=0.9))
        return model

    model, network = make(), make() if folder else None  # without a folder: the step alone

    @functools.cache
    def on_folders():
        recipe = detector_recipe("mask_rcnn", on_folder=True)
        narrow = MaskRCNN(CLASSES, recipe["backbone"], **recipe["options"])
        narrow.compile(make_optimizer(recipe["optimizer"], recipe["learning_rate"]))
        return narrow

    @functools.cache  # made when it is asked for: 100 masks take more memory than a step may
    def batch(objects=OBJECTS, shape=TRAINING):
        images, boxes, classes, masks = make_batch(shape, objects)
        _, height, width = shape
        y = {"boxes": boxes / np.float32([width, height, width, height]), "classes": classes}
        return tf.constant(images), {name: tf.constant(value) for name, value in y.items()} | {
            "masks": tf.constant(masks),
            "ignore": tf.zeros(classes.shape, bool),
        }

    def step(objects=OBJECTS):
        return lambda: model.train_on_batch(*batch(objects))

    def step_on_folders(objects):
        return lambda: on_folders().train_on_batch(*batch(objects, ON_FOLDERS))

    image = tf.constant(make_batch(INFERENCE)[0])

    cases = {
        "step": step(),
        "inference": lambda: network.detect(image)["masks"].numpy(),
        "1 object": step(1),
        "100 objects": step(100),
        "1 object, on folders": step_on_folders(1),
        "100 objects, on folders": step_on_folders(100),
    }
    return cases, {"tensorflow": tf.__version__, "keras": keras.__version__}


def torchvision(folder):
    """Serve torchvision's Mask R-CNN."""
    import torch
    import torchvision
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import FrozenBatchNorm2d

    torch.set_num_threads(timing.THREADS)
    torch.manual_seed(0)

    def make(height, width):
        body = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d)
        sizes = {"min_size": min(height, width), "max_size": max(height, width)}
        return MaskRCNN(_resnet_fpn_extractor(body, 5), CLASSES + 1, **sizes)

    model = make(*TRAINING[1:])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "cls_score.weight" in name:
                weight *= 30  # or no class would stand out
        for name, buffer in model.named_buffers():
            if ".bn3.weight" in name:
                buffer *= 0.3  # or features would grow from block to block
    if folder:
        network = make(*INFERENCE[1:])
        network.load_state_dict(model.state_dict())
        state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        np.savez(Path(folder) / WEIGHTS, **state)
    trainer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    images, boxes, classes, masks = make_batch(TRAINING)
    x = [torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images]
    parts = zip(boxes, classes + 1, masks, strict=True)
    names = ("boxes", "labels", "masks")
    y = [dict(zip(names, map(torch.from_numpy, part), strict=True)) for part in parts]
    image = torch.from_numpy(make_batch(INFERENCE)[0][0]).permute(2, 0, 1) / 255

    def step():
        model.train()
        trainer.zero_grad()
        loss = sum(model(x, y).values())
        loss.backward()
        trainer.step()
        return loss.item()

    def inference():
        network.eval()
        with torch.inference_mode():
            found = network([image])[0]
        return (found["masks"] >= 0.5).numpy()

    cases = {"step": step, "inference": inference}
    return cases, {"torch": torch.__version__, "torchvision": torchvision.__version__}


SIDES = {"torchvision": torchvision, "ours": ours}  # in this order: the weights


def peak(side):
    """Print mebibytes at most: with the libraries alone, and after three training steps."""
    if side == "ours":
        import kerascv_d2l.models.mask_rcnn  # noqa: F401
    else:
        import torchvision.models.detection  # noqa: F401
    libraries = mebibytes()
    cases, _ = SIDES[side](None)  # of its own random weights
    for _ in range(3):
        cases["step"]()
    print(libraries, mebibytes())


def mebibytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(argv=None):
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--torchvision-python", default=sys.executable)
    parser.add_argument("--only", choices=("step", "inference", "objects", "memory"))
    for flag in ("--serve", "--peak"):
        parser.add_argument(flag, choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(*SIDES[args.serve](args.folder))
        return
    if args.peak:
        peak(args.peak)
        return
    pythons = {"torchvision": args.torchvision_python, "ours": sys.executable}
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            side: [python, __file__, "--folder", folder] for side, python in pythons.items()
        }
        if args.only != "memory":
            compare(commands, args.rounds, args.only)
        if args.only in (None, "memory"):
            compare_memory(commands)


def compare_memory(commands):
    """Print how much memory the training step needs."""
    peaks = {}
    for side, command in commands.items():
        answer = subprocess.check_output([*command, "--peak", side]).split()
        libraries, peaks[side] = (int(number) for number in answer[-2:])
        print(f"peak memory of the step, {side}: {peaks[side]} MiB, libraries {libraries} MiB")
    print(f"ours to torchvision's: {peaks['ours'] / peaks['torchvision']:.2f}x; goal ≤ 1.0x")


def compare(commands, rounds, only):
    """Print what takes how long."""
    with contextlib.ExitStack() as stack:
        workers = {
            side: stack.enter_context(timing.Worker([*command, "--serve", side]))
            for side, command in commands.items()
        }
        print(timing.machine(workers) + "\n\n" + timing.HEADER, flush=True)
        for case in ("step", "inference"):
            if only in (None, case):
                sides = {side: (worker, case) for side, worker in workers.items()}
                times = timing.interleave(sides, rounds)
                row = timing.row(case, "torchvision", times["torchvision"], times["ours"], "≥ 1.3x")
                print(row, flush=True)
        if only in (None, "objects"):
            for network in ("", ", on folders"):
                one, hundred = f"1 object{network}", f"100 objects{network}"
                sides = {case: (workers["ours"], case) for case in (one, hundred)}
                times = timing.interleave(sides, rounds)
                low, middle, high = timing.ratio(times[hundred], times[one])
                print(f"\n{hundred} against 1: {middle:.2f}x ({low:.2f}-{high:.2f}); goal < 1.3x")


if __name__ == "__main__":
    main()
