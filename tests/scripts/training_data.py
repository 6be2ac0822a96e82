"""Small folders of data on disk, one for each training script, and how to call the scripts."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import small_networks
from PIL import Image

import kerascv_d2l as d2l
from kerascv_d2l import export, generate_classification, generate_detection, generate_segmentation
from kerascv_d2l.models import registry

TESTS = Path(__file__).resolve().parents[1]
SCRIPTS = TESTS.parent / "scripts"
SIZE = (64, 96)
# Quick to trace, and no size in common that could hide a mistake.
FLAGS = {
    "train_detector": [
        "--model",
        "tinyssd",
        "--image-size",
        "64x96",
        "--map-every",
        "1",
        "--no-mixed-precision",
    ],
    "train_classifier": ["--backbone", "tiny", "--weights", "none", "--image-size", "64"],
    "train_segmenter": [
        "--backbone",
        "tiny",
        "--model",
        "fcn16",
        "--crop-size",
        "64x32",
        "--learning-rate",
        "0.01",
    ],
}


# One large step. Later ones cannot be compared: batch norm over few images lets rounding grow, by
# 13 % of the second loss on one device with other kernels (TF_ENABLE_ONEDNN_OPTS=0).
ONE_STEP = ["--epochs", "1", "--batch-size", "24", "--sync-batch-norm", "--recipe", "book",
            "--learning-rate", "0.2"]  # fmt: skip
# An SSD on two devices takes long to trace; tests/models/test_detector.py has it.
DEVICES_FLAGS = {
    "train_detector": ["--model", "toy", *ONE_STEP, "--learning-rate", "0.01"],
    "train_classifier": ONE_STEP,
    "train_segmenter": ONE_STEP,
}  # fmt: skip


def add_tiny(patch):
    """Let the scripts know `--backbone tiny`, `--model toy`, while a `pytest.MonkeyPatch` lasts."""
    small_networks.add_tiny(patch)
    patch.syspath_prepend(str(TESTS / "models"))
    patch.setitem(registry.DETECTORS, "toy", "toy_detector:GridDetector")


def without_results(patch):
    """Let the scripts export and draw nothing, as long as a `pytest.MonkeyPatch` lasts."""
    for module, name in (
        (export, "save"), (export, "save_lite"), (d2l, "draw_curves"), (d2l, "draw_confusion"),
    ):  # fmt: skip
        patch.setattr(module, name, lambda *arguments: None)
    patch.setitem(globals(), "_draws", False)


_draws = True  # whether scripts shall


def copy_when(patch, epoch, batch):
    """Let runs copy their folder to OUT-killed when SIGKILL could come: after a step of an epoch.

    Epochs and steps are counted from 0. tests/training kills processes indeed.
    """
    step = d2l.Run.on_train_batch_end

    def step_and_copy(self, index, logs=None):
        step(self, index, logs)
        if (self._epoch, index) == (epoch, batch):
            shutil.copytree(self.out, f"{self.out}-killed")

    patch.setattr(d2l.Run, "on_train_batch_end", step_and_copy)


def load_script(name):
    """Import a script of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for part in [part for part in vars(module) if part.startswith("draw") and not _draws]:
        setattr(module, part, lambda *arguments: None)
    return module


def write_data(name, root):
    """Write a folder of data for a training script: 24 images to train on and 10 to validate on."""
    {
        "train_detector": write_boxes,
        "train_classifier": write_classes,
        "train_segmenter": write_masks,
    }[name](root)
    return root


def write_boxes(root):
    data = generate_detection(24, 10, seed=5, num_classes=2, image_size=SIZE)
    for part, split in (("train", data.train), ("val", data.val)):
        (root / "images" / part).mkdir(parents=True)
        (root / "labels" / part).mkdir(parents=True)
        rows = zip(split.images, split.targets["boxes"], split.targets["classes"], strict=True)
        for i, (image, boxes, classes) in enumerate(rows):
            Image.fromarray(image).save(root / "images" / part / f"{part}{i}.png")
            centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            lines = np.concatenate([classes[:, None], centres, sizes], axis=1)
            np.savetxt(root / "labels" / part / f"{part}{i}.txt", lines, "%g")
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(data.class_names))
    text = f"train: images/train\nval: images/val\nnames:\n{names}"
    (root / "data.yaml").write_text(text)


def write_classes(root):
    data = generate_classification(24, 10, seed=5, num_classes=3, image_size=SIZE)
    for part, split in (("train", data.train), ("val", data.val)):
        for i, (image, label) in enumerate(zip(split.images, split.targets["label"], strict=True)):
            folder = root / part / data.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{part}{i}.png")


def write_masks(root):
    data = generate_segmentation(24, 10, seed=5, num_classes=2, image_size=SIZE)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for part, split in (("train", data.train), ("val", data.val)):
        names = [f"{part}{i}" for i in range(len(split))]
        for i, name in enumerate(names):
            mask = split.mask(i).copy()
            mask[: 9 * (i % 3)] = 255  # ignored, in two of three images
            Image.fromarray(split.images[i]).save(root / "images" / f"{name}.png")
            Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        (root / f"{part}.txt").write_text("\n".join(names) + "\n")
    (root / "classes.txt").write_text("\n".join(data.class_names) + "\n")


def assert_same_weights(*folders):
    """That runs ended with the same model, to the last bit."""
    weights = [d2l.load_model(folder / "model.keras").get_weights() for folder in folders]
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def arguments(name, folder, out, *more):
    """Arguments of a short run: two epochs of three batches."""
    return ["--data", str(folder), "--epochs", "2", "--batch-size", "8", "--out", str(out),
            *FLAGS[name], *more]  # fmt: skip
