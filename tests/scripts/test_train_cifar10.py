"""`scripts/train_cifar10.py` on a few pictures and a tiny network."""

import csv
import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerascv_d2l
from kerascv_d2l import InputError

ROOT = Path(__file__).parents[2]
CLASSES = ("amber", "moss", "wine")
COLORS = ((230, 160, 30), (60, 120, 50), (110, 20, 60))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "train_cifar10", ROOT / "scripts/train_cifar10.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(num_classes):
    """Scaling and batch norm as in `resnet18`, and hardly any weights."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, strides=2),
            kerascv_d2l.BatchNorm(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(num_classes),
        ]
    )


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(kerascv_d2l, "resnet18", tiny, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures whose colour tells their class."""
    root = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for split, count in (("train", 15), ("test", 5)):
        for name, color in zip(CLASSES, COLORS, strict=True):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = np.clip(color + rng.normal(0, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{k}.png")
    return root


def flags(folder, out, *more):
    small = ["--batch-size", "8", "--learning-rate", ".02", "--devices", "cpu"]
    return ["--data", str(folder), "--out", str(out), *small, *more]


@pytest.fixture(scope="module")
def run(script, folder, tmp_path_factory):
    """A finished run: its folder and what `main` returned."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kerascv_d2l, "resnet18", tiny, raising=False)
        metrics = script.main(flags(folder, out, "--epochs", "5", "--augment", "crop-flip"))
    return out, metrics


def history(out):
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_learns_and_reports(run):
    out, metrics = run
    assert metrics["accuracy"] > 0.6 and metrics["train_accuracy"] > 0.6  # chance: 1/3
    record = json.loads((out / "metrics.json").read_text())
    for name in ("accuracy", "train_accuracy", "loss", "images_per_second"):
        assert record[name] == metrics[name]
    assert record["settings"]["augment"] == "crop-flip"
    assert record["settings"]["class_names"] == list(CLASSES)
    assert record["settings"]["num_train"] == 45
    rows = history(out)
    assert len(rows) == 5
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(metrics["accuracy"])
    assert float(rows[-1]["accuracy"]) == pytest.approx(metrics["train_accuracy"])
    for name in ("curves.png", "history.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) >= 300


def test_what_is_saved_agrees(run, folder):
    out, metrics = run
    model = keras.models.load_model(out / "model.keras")
    data = kerascv_d2l.read_cifar10(str(folder))
    logits = model.predict(kerascv_d2l.cifar10_batches(data.val, 4), verbose=0)
    assert np.mean(logits.argmax(1) == data.val.labels) == pytest.approx(metrics["accuracy"])
    loaded = tf.saved_model.load(str(out / "saved_model"))
    answer = loaded(data.val.images)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), atol=1e-5)
    assert answer["names"][0].numpy().decode() in CLASSES


def test_resumed_run_ends_as_an_undisturbed_one(script, folder, run, tmp_path, capsys):
    whole, metrics = run
    more = ("--augment", "crop-flip")
    script.main(flags(folder, tmp_path, *more, "--epochs", "2"))
    resumed = script.main(flags(folder, tmp_path, *more, "--epochs", "5", "--resume"))
    assert "resuming after epoch 2" in capsys.readouterr().out
    for name in ("accuracy", "loss", "train_accuracy"):
        assert resumed[name] == metrics[name]
    timed = ("seconds", "images_per_second")
    for a, b in zip(history(whole), history(tmp_path), strict=True):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


def test_default_run(script, tmp_path, monkeypatch, capsys):
    """Generated shapes, fewer of them; says what it does instead of the book's run."""
    monkeypatch.setattr(script, "GENERATED_TRAIN", 40)
    monkeypatch.setattr(script, "GENERATED_VAL", 20)
    metrics = script.main(["--out", str(tmp_path), "--epochs", "1", "--devices", "cpu"])
    out = capsys.readouterr().out
    assert "generated shapes" in out and "1 epochs of 40 pictures in batches of 32" in out
    assert "classify.py" in out
    assert set(metrics) >= {"accuracy", "train_accuracy", "loss", "images_per_second"}


def test_flags(script, tmp_path, capsys):
    args = script.parse([])
    assert (args.epochs, args.batch_size, args.learning_rate) == (4, 32, 1e-3)
    assert args.schedule == "cosine"
    args = script.parse(["--data", "cifar10"])
    assert (args.epochs, args.batch_size, args.learning_rate) == (10, 256, 1e-3)
    assert (args.augment, args.schedule) == ("flip", "constant")
    with pytest.raises(InputError, match="--archive x: only with --data cifar10"):
        script.parse(["--archive", "x"])
    with pytest.raises(InputError, match="neither a folder nor a data set"):
        script.parse(["--data", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit):
        script.parse(["--augment", "blur"])
    assert "invalid choice: 'blur'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.parse(["--help"])
    shown = capsys.readouterr().out
    assert "default: 10; 4 for generated" in " ".join(shown.split()) and "None" not in shown
