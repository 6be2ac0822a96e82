"""`train_classifier.py --boxes` from end to end."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from training_data import FLAGS, SCRIPTS, add_tiny, load_script, write_boxes

import kerascv_d2l as d2l

RUN = ["--boxes", "--batch-size", "8", "--epochs", "2", *FLAGS["train_classifier"]]


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("localization")
    write_boxes(folder / "data")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    train = load_script("train_classifier")
    return train.main(["--data", str(folder / "data"), "--out", str(folder / "run"), *RUN])


def test_what_is_trained_is_used(folder, run):
    out = folder / "run"
    assert {"accuracy", "mean_iou", "iou_50", "localized"} <= set(run)
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert float(rows[1]["val_mean_iou"]) == pytest.approx(run["mean_iou"], rel=1e-4)
    assert float(rows[1]["val_localized"]) == pytest.approx(run["localized"])
    assert min(Image.open(out / "boxes.png").size) > 100

    photo = next((folder / "data" / "images" / "val").glob("*.png"))
    found = load_script("predict").main(
        [str(out / "model.keras"), str(photo), "--out", str(folder / "predicted")]
    )
    (entry,) = found["images"]
    assert entry["class"] in found["class_names"]
    assert Image.open(entry["drawn"]).size == (96, 64)
    box = np.array(entry["box"])
    np.testing.assert_allclose(entry["box_px"], box * [96, 64, 96, 64], atol=0.1)

    measured = load_script("evaluate").main(
        [str(out / "saved_model"), str(folder / "data"), "--out", str(folder / "measured")]
    )
    for name in ("accuracy", "mean_iou", "iou_50", "localized"):
        assert measured[name] == pytest.approx(run[name], abs=1e-4), name


def test_flags_for_boxes():
    """Of a turned photograph the loader says that `--boxes-on` is needed."""
    for name in ("train_classifier", "train_detector"):
        script, asked = load_script(name), {}
        boxes = name == "train_classifier"
        more = ["--boxes"] if boxes else ["--model", "fcos", "--classes", "a,b"]
        args = script.parse(["--data", "x", "--boxes-on", "stored", *more])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(d2l, "load", lambda *_, asked=asked, **options: asked.update(options))
            patch.setattr(d2l, "keep_largest_object", lambda data: data)
            script.load_data(args)
        assert asked["boxes_on"] == "stored", name
        assert boxes or asked["classes"] == ["a", "b"]
    with pytest.raises(d2l.InputError, match="boxes_on stored: only with --boxes"):
        load_script("train_classifier").parse(["--boxes-on", "stored"])


@pytest.mark.parametrize("name", ["generated", "hotdog"])
def test_what_is_for_folders_is_refused_for_other_data(name):
    with pytest.raises(d2l.InputError, match=f"unknown option boxes_on for {name}"):
        d2l.load(name, "classification", boxes_on="stored")


def test_class_weights_are_refused(folder):
    with pytest.raises(d2l.InputError, match="class_weights balanced"):
        load_script("train_classifier").parse([*RUN, "--class-weights", "balanced"])


@pytest.mark.long
def test_resumed_is_as_undisturbed(folder, run, monkeypatch):
    save, argv = d2l.Run.on_epoch_end, ["--data", str(folder / "data"), *RUN]

    def interrupt(self, epoch, logs=None):
        save(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(d2l.Run, "on_epoch_end", interrupt)
        load_script("train_classifier").main([*argv, "--out", str(folder / "again")])
    load_script("train_classifier").main([*argv, "--out", str(folder / "again"), "--resume"])
    weights = [d2l.load_model(folder / k / "model.keras").get_weights() for k in ("run", "again")]
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.long
def test_two_devices_compute_what_one_does(folder):
    """One step; later ones let rounding grow."""
    losses = []
    for k in (1, 2):
        out = folder / f"devices-{k}"
        # A process of its own, which does not know the tests' tiny network.
        argv = ["mobilenet_0.25" if flag == "tiny" else flag for flag in RUN]
        argv += ["--epochs", "1", "--batch-size", "16", "--sync-batch-norm", "--recipe", "book"]
        argv += ["--data", str(folder / "data"), "--out", str(out), "--devices", f"cpu:{k}"]
        script = SCRIPTS / "train_classifier.py"
        subprocess.run([sys.executable, script, *argv], check=True)
        row = next(csv.DictReader((out / "history.csv").open()))
        losses.append([float(row[name]) for name in ("loss", "val_loss", "mean_iou")])
    np.testing.assert_allclose(*losses, rtol=1e-3)
