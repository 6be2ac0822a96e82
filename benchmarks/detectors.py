"""Time RetinaNet and FCOS, and the detector that a folder gets, against torchvision's detectors.

    python benchmarks/detectors.py --torchvision-python PYTHON

RetinaNet and FCOS are torchvision's, ResNet-50 with FPN, 91 classes, frozen batch norm, every
layer trained, random weights. A step is forward, the losses, backward and SGD with momentum, at
320 x 320, batch 2, eight objects an image; RetinaNet's also in bfloat16 (PyTorch's autocast, Keras'
mixed_bfloat16), in which torchvision 0.14's FCOS fails. Inference is one image of 480 x 640. All
scores count, so both sides select, decode and suppress as many candidates.

The detector that `train_detector.py --data FOLDER` trains is timed at 320 x 320 in batches of 1
and 16 against torchvision's `ssdlite320_mobilenet_v3_large`, both for 20 classes. Then, ours
alone: its step beside a batch with the default augmentation from images in memory, and beside the
step without averaged weights and clipping.

Needs benchmarks/README.md's set-up. Takes 6 minutes.
"""

import argparse
import contextlib
import sys

import numpy as np
import timing
from mask_rcnn import CLASSES, INFERENCE, RATE, TRAINING, make_batch

LITE_CLASSES, LITE_SIZE, LITE_BATCHES = 20, 320, (1, 16)
STEP_SIZE = (256, 256)
LOADED = 16  # batches, more than are made ahead while the other side works
UPDATES = 6  # in a row, as `fit` makes them
FAMILIES = ("retinanet", "fcos")
HALF = "retinanet step, bfloat16"


def ours():
    """Serve this package's detectors."""
    import keras
    import tensorflow as tf

    import kerascv_d2l as d2l

    def family(name, dtype=None):
        size = {"backbone": "resnet50_v1.5", "channels": 256, "depth": 4, "freeze_norm": True}
        own = {"norm": False} if name == "retinanet" else {"assignment": "centre"}
        own["dtype"] = dtype
        model = d2l.create_detector(name, CLASSES, frozen_stride=0, **size, **own)
        model.decoder.score_threshold = 0.0
        model.compile(d2l.make_optimizer("sgd", RATE, momentum=0.9))
        return model

    def labels(boxes, classes, size):
        height, width = size
        y = {"boxes": boxes / np.float32([width, height, width, height]), "classes": classes}
        y = {name: tf.constant(value) for name, value in y.items()}
        return y | {"ignore": tf.zeros(classes.shape, bool)}

    cases = {}
    images, *objects, _ = make_batch(TRAINING)
    images, y = tf.constant(images), labels(*objects, TRAINING[1:])
    image = tf.constant(make_batch(INFERENCE)[0])
    for name in FAMILIES:
        model, network = family(name), family(name)
        cases[f"{name} step"] = lambda m=model: m.train_on_batch(images, y)
        cases[f"{name} inference"] = lambda m=network: m.detect(image)["boxes"].numpy()
    half = family("retinanet", "mixed_bfloat16")
    cases[HALF] = lambda: half.train_on_batch(images, y)

    recipe = d2l.detector_recipe("fcos", on_folder=True)

    def default(classes, averaging=None, clip_norm=None):
        model = d2l.create_detector(
            "fcos", classes, STEP_SIZE, recipe["backbone"], **recipe["options"], frozen_stride=4
        )
        optimizer = d2l.make_optimizer("adam", RATE, averaging=averaging, clip_norm=clip_norm)
        model.compile(optimizer)
        return model

    lite = default(LITE_CLASSES)
    lite.decoder.score_threshold = 0.0
    for batch in LITE_BATCHES:
        x = tf.constant(make_batch((batch, LITE_SIZE, LITE_SIZE))[0])
        cases[f"lite {batch}"] = lambda x=x: lite.detect(x)["boxes"].numpy()

    shape = (recipe["batch_size"], *STEP_SIZE)
    photographs, boxes, classes, _ = make_batch(shape)
    photographs = tf.constant(photographs)
    objects = labels(boxes, classes % LITE_CLASSES, STEP_SIZE)
    plain, full = (
        default(LITE_CLASSES),
        default(LITE_CLASSES, recipe["averaging"], recipe["clip_norm"]),
    )
    same = tf.data.Dataset.from_tensors((photographs, objects)).repeat()
    for name, model in {"plain step": plain, "full step": full}.items():
        model.make_train_function()
        update = (model.train_function, iter(same))
        cases[name] = lambda one=update: [one[0](one[1]) for _ in range(UPDATES)]
    cases["loader"] = loader(shape)
    return cases, {"tensorflow": tf.__version__, "keras": keras.__version__}


def loader(shape):
    """Give a function that takes the next batches of augmented photographs of 375 x 500."""
    import kerascv_d2l as d2l

    data = d2l.generate_detection(128, 8, image_size=(375, 500))
    transform = d2l.mosaic_augmentation(shape[1:])  # the default's on a folder
    stream = iter(
        d2l.batches(data.train, shape[1:], shape[0], training=True, transform=transform).repeat()
    )
    return lambda: [next(stream) for _ in range(LOADED)]


def torchvision():
    """Serve torchvision's detectors."""
    import torch
    import torchvision
    from torchvision.models.detection import FCOS, RetinaNet, ssdlite320_mobilenet_v3_large
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.set_num_threads(timing.THREADS)
    torch.manual_seed(0)

    def family(name, height, width):
        body = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d)
        pyramid = _resnet_fpn_extractor(
            body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
        )
        sizes = {"min_size": min(height, width), "max_size": max(height, width)}
        kind = {"retinanet": RetinaNet, "fcos": FCOS}[name]
        return kind(pyramid, CLASSES + 1, score_thresh=0.0, **sizes)

    def tensors(images):
        return [torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images]

    def step(name, half=False):
        images, boxes, classes, _ = make_batch(TRAINING)
        x, model = tensors(images), family(name, *TRAINING[1:]).train()
        trainer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
        parts = zip(boxes, classes + 1, strict=True)
        y = [dict(zip(("boxes", "labels"), map(torch.from_numpy, p), strict=True)) for p in parts]

        def run():
            trainer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = sum(model(x, y).values())
            loss.backward()
            trainer.step()
            return loss.item()

        return run

    def inference(model, images):
        model.eval()

        def run():
            with torch.inference_mode():
                return model(images)[0]["boxes"].numpy()

        return run

    cases = {}
    image = tensors(make_batch(INFERENCE)[0])
    for name in FAMILIES:
        cases[f"{name} step"] = step(name)
        cases[f"{name} inference"] = inference(family(name, *INFERENCE[1:]), image)
    cases[HALF] = step("retinanet", half=True)
    lite = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=LITE_CLASSES + 1
    )
    for batch in LITE_BATCHES:
        images = tensors(make_batch((batch, LITE_SIZE, LITE_SIZE))[0])
        cases[f"lite {batch}"] = inference(lite, images)
    return cases, {"torch": torch.__version__, "torchvision": torchvision.__version__}


SIDES = {"torchvision": torchvision, "ours": ours}
ROWS = [(f"{name} {part}", "≥ 1.3x") for name in FAMILIES for part in ("step", "inference")]
ROWS += [(HALF, "≥ 1.3x")]
ROWS += [(f"lite {batch}", "≥ 1.0x") for batch in LITE_BATCHES]


def main(argv=None):
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--torchvision-python", default=sys.executable)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(*SIDES[args.serve]())
        return
    pythons = {"torchvision": args.torchvision_python, "ours": sys.executable}
    with contextlib.ExitStack() as stack:
        workers = {
            side: stack.enter_context(timing.Worker([python, __file__, "--serve", side]))
            for side, python in pythons.items()
        }
        print(timing.machine(workers) + "\n\n" + timing.HEADER, flush=True)
        for case, goal in ROWS:
            sides = {side: (worker, case) for side, worker in workers.items()}
            times = timing.interleave(sides, args.rounds)
            theirs, here = times["torchvision"], times["ours"]
            print(timing.row(case, "torchvision", theirs, here, goal), flush=True)
        ours_alone(workers["ours"], args.rounds)


def ours_alone(worker, rounds):
    """Print what the loader, averaging and clipping cost."""
    cases = ("full step", "plain step", "loader")
    times = timing.interleave({case: (worker, case) for case in cases}, rounds)
    batch = [seconds / LOADED for seconds in times["loader"]]
    step = [seconds / UPDATES for seconds in times["full step"]]
    print(timing.row("a batch", "the step", step, batch, "≥ 2x"))
    low, middle, high = timing.ratio(times["full step"], times["plain step"])
    print(f"\nclipping and averaging: {middle:.3f}x a step ({low:.3f}-{high:.3f}); goal < 1.03x")


if __name__ == "__main__":
    main()
