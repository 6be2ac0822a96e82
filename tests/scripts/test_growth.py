"""A detector and a layout that are one file and one line each go through all scripts."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from training_data import assert_same_weights, copy_when, load_script, without_results

import kerascv_d2l as d2l
from kerascv_d2l.data import layouts
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels
from kerascv_d2l.models import registry

SIZE = (64, 96)
MOST_LINES = 75  # of the toy detector, its docstrings included


# ---------------------------------------------------------------- the additions


def read_sidecars(root, faults):
    """A layout: `NAME.box` beside each `NAME.png`, lines `class x_min y_min x_max y_max`, pixels.

    Images whose names begin with v are for validation.
    """
    found, names = {"train": [], "val": []}, set()
    for image in sorted(root.glob("*.png")):
        objects = []
        for line in image.with_suffix(".box").read_text().splitlines():
            kind, *box = line.split()
            names.add(kind)
            objects.append(LabelledObject(kind, tuple(map(float, box)), line))
        part = "val" if image.name.startswith("v") else "train"
        found[part].append(LabelledImage(image, image.name, objects))
    return Labels(found, tuple(sorted(names)), named_in=str(root))


@pytest.fixture(scope="module")
def grown():
    """One line for the detector of tests/models/toy_detector.py, one for the layout above."""
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(__file__).parents[1] / "models"
        patch.syspath_prepend(str(folder))
        patch.setitem(registry.DETECTORS, "toy", "toy_detector:GridDetector")
        layout = ModuleType("sidecars")
        layout.TITLE, layout.LOOKS, layout.TASKS = "sidecars", "a .box beside .png", ("detection",)
        layout.recognises = lambda root: any(root.glob("*.box"))
        layout.read = read_sidecars
        patch.setattr(layouts, "LAYOUTS", (*layouts.LAYOUTS, layout))
        yield folder / "toy_detector.py"
        sys.modules.pop("toy_detector", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sidecars")
    data = d2l.generate_detection(24, 8, seed=3, num_classes=2, image_size=SIZE)
    for letter, split in (("t", data.train), ("v", data.val)):
        rows = zip(split.images, split.targets["boxes"], split.targets["classes"], strict=True)
        for i, (image, boxes, classes) in enumerate(rows):
            Image.fromarray(image).save(folder / f"{letter}{i}.png")
            lines = [
                " ".join(map(str, [data.class_names[k], *(box * [96, 64, 96, 64])]))
                for k, box in zip(classes, boxes, strict=True)
            ]
            (folder / f"{letter}{i}.box").write_text("\n".join(lines))
    return folder


def train(folder, out, *more):
    flags = ["--model", "toy", "--data", str(folder), "--image-size", "64x96", "--out", str(out)]
    flags += ["--epochs", "4", "--batch-size", "8", "--map-every", "4", "--no-mixed-precision"]
    flags += ["--multi-scale", "0.5"]  # a resumed run draws the same sizes
    return load_script("train_detector").main([*flags, *more])


@pytest.fixture(scope="module")
def run(grown, folder, tmp_path_factory):
    """Metrics and folder of a run of the training script, which knows of neither.

    It is copied in the middle of epoch 2.
    """
    out = tmp_path_factory.mktemp("runs") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        copy_when(patch, epoch=1, batch=1)
        return train(folder, out), out


# ---------------------------------------------------------------- the detector


def test_the_detector_is_small(grown):
    assert len(grown.read_text().splitlines()) <= MOST_LINES


def test_it_trains_is_measured_drawn_and_exported(run):
    metrics, out = run
    assert {"map", "map_50", "voc_map", "ap_50_by_class", "loss"} <= set(metrics)
    stored = json.loads((out / "metrics.json").read_text())
    assert stored["settings"]["model"] == "toy" and stored["settings"]["learning_rate"] == 3e-3
    assert min(Image.open(out / "detections.png").size) > 100
    model = d2l.load_model(out / "model.keras")
    assert type(model).__name__ == "GridDetector"
    image = np.random.default_rng(0).integers(0, 256, (1, 80, 50, 3), np.uint8)
    expected = model.detect(image)
    exported = d2l.export.load(out / "saved_model")
    assert exported.class_names == model.class_names
    threshold = metrics["score_threshold"]
    assert exported.score_threshold == model.score_threshold == threshold != 0.5
    for name, value in expected.items():
        np.testing.assert_allclose(exported.detect(image)[name], value, atol=1e-4, err_msg=name)
    assert (out / "model.tflite").stat().st_size > 1000


def test_killed_and_resumed_ends_as_if_undisturbed(run, folder, monkeypatch):
    metrics, out = run
    without_results(monkeypatch)
    killed = out.with_name("toy-killed")
    assert train(folder, killed, "--resume")["map_50"] == metrics["map_50"]
    assert_same_weights(out, killed)


@pytest.mark.parametrize("name", ["saved_model", "model.keras"])
def test_predict_uses_it(run, folder, tmp_path, name):
    _, out = run
    flags = [str(out / name), str(folder / "v0.png"), "--out", str(tmp_path)]
    result = load_script("predict").main([*flags, "--score-threshold", "0.05"])
    (image,) = result["images"]
    assert result["task"] == "detection" and Path(image["drawn"]).exists()
    pixels = np.array(Image.open(folder / "v0.png"))[None]
    found = d2l.load_model(out / "model.keras").detect(pixels)
    wanted = [float(score) for score in found["scores"][0] if score >= 0.05]
    assert [d["score"] for d in image["detections"]] == pytest.approx(wanted, abs=2e-4)


def test_evaluate_measures_it(run, folder, tmp_path):
    metrics, out = run
    flags = [str(out / "model.keras"), str(folder), "--out", str(tmp_path / "evaluated")]
    assert load_script("evaluate").main(flags)["map_50"] == pytest.approx(metrics["map_50"])


# ---------------------------------------------------------------- the layout


def test_inspect_data_reads_the_layout(grown, folder, tmp_path):
    flags = [str(folder), "--task", "detection", "--out", str(tmp_path)]
    report = load_script("inspect_data").main(flags)
    assert {name: split["images"] for name, split in report["splits"].items()} == {
        "train": 24,
        "val": 8,
    }
    assert sum(report["splits"]["train"]["objects_by_class"].values()) >= 24
    assert min(Image.open(report["sheet"]).size) > 100


def test_train_detector_reads_the_layout(run):
    _, out = run
    validated = (out / "validation.txt").read_text().split()
    assert len(validated) == 8 and all(name.startswith("v") for name in validated)
