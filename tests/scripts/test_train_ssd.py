"""The detection scripts from end to end, on pictures that the tests draw."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from kerascv_d2l.exported import load_exported
from PIL import Image

from kerascv_d2l import InputError, generate_detection

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
KEYS = {"map", "map_50", "map_75", "voc07_map", "voc_map", "class_error", "bbox_mae"}


def load(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated pictures, on disk as the banana data set is."""
    root = tmp_path_factory.mktemp("bananas")
    data = generate_detection(24, 8, seed=5, image_size=(64, 96))
    for part, split in (("bananas_train", data.train), ("bananas_val", data.val)):
        (root / part / "images").mkdir(parents=True)
        rows = ["img_name,label,xmin,ymin,xmax,ymax"]
        for i, (image, labels) in enumerate(zip(split.images, split.labels, strict=True)):
            Image.fromarray(image).save(root / part / "images" / f"{i}.png")
            boxes = np.round(labels[:, 1:] * [96, 64, 96, 64]).astype(int)
            rows += [f"{i}.png,0,{','.join(map(str, box))}" for box in boxes]
            if not len(labels):
                rows.append(f"{i}.png,,,,,")
        (root / part / "label.csv").write_text("\n".join(rows) + "\n")
    return root


def arguments(folder, out, *more):
    return ["--data", str(folder), "--image-size", "64x96", "--epochs", "2", "--batch-size", "8",
            "--map-every", "1", "--out", str(out), *more]  # fmt: skip


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "ssd"
    return load("train_ssd").main(arguments(folder, out)), out


def test_writes_what_it_says(run):
    metrics, out = run
    stored = json.loads((out / "metrics.json").read_text())
    assert {*KEYS, "images_per_second"} <= set(metrics) <= set(stored)
    assert stored["settings"]["batch_size"] == 8 and stored["settings"]["class_names"] == ["banana"]
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert len(rows) == 2
    assert float(rows[-1]["val_map_50"]) == pytest.approx(metrics["map_50"])
    assert float(rows[-1]["val_class_error"]) == pytest.approx(metrics["class_error"], rel=1e-4)
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    for name in ("history.png", "detections.png"):
        assert Image.open(out / name).size > (300, 300)
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


def test_saved_model_and_keras_file_agree(run, folder):
    _, out = run
    model = keras.models.load_model(out / "model.keras")
    picture = np.array(Image.open(folder / "bananas_val" / "images" / "0.png"))
    detect, names = load_exported(out / "saved_model", "detect", "train_ssd.py")
    assert names == ["banana"]
    found = detect(picture[None])
    for name, value in model.detect(picture[None]).items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_a_taken_folder_is_refused_and_other_settings_are_named(run, folder):
    _, out = run
    with pytest.raises(InputError, match="already holds a run"):
        load("train_ssd").main(arguments(folder, out))
    with pytest.raises(InputError, match="--box-loss was 'l1' and is now 'smooth_l1'"):
        load("train_ssd").main(arguments(folder, out, "--resume", "--box-loss", "smooth_l1"))


def test_killed_and_resumed_ends_as_if_undisturbed(run, folder, tmp_path):
    metrics, _ = run
    out = tmp_path / "ssd"
    command = [sys.executable, str(SCRIPTS / "train_ssd.py"), *arguments(folder, out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (out / "metrics.json").exists()
    resumed = load("train_ssd").main(arguments(folder, out, "--resume"))
    for name in KEYS:
        assert resumed[name] == pytest.approx(metrics[name], rel=1e-4), name


def test_trains_on_mosaics(folder, tmp_path):
    """Four times as many rows of labels as the pictures have."""
    flags = ["--augment", "mosaic", "--epochs", "1"]
    metrics = load("train_ssd").main([*arguments(folder, tmp_path / "ssd"), *flags])
    assert np.isfinite(metrics["loss"])
    stored = json.loads((tmp_path / "ssd" / "metrics.json").read_text())
    assert stored["settings"]["augment"] == "mosaic"


def test_augmentation_by_default():
    script = load("train_ssd")
    assert script.parse([]).augment == script.GENERATED_AUGMENTATION == "none"
    assert script.parse(["--data", str(SCRIPTS)]).augment == script.FOLDER_AUGMENTATION
    assert script.augmentation(script.parse(["--augment", "none"])) == {}
    assert script.augmentation(script.parse(["--augment", "ssd"]))["partners"] == 0
    assert script.augmentation(script.parse(["--augment", "mosaic"]))["partners"] == 3


def test_loss_flags_reach_the_loss():
    script = load("train_ssd")
    flags = "--class-loss focal --alpha .25 --gamma 1.5 --box-loss smooth_l1 --sigma 3"
    flags += " --class-weight 2 --box-weight .5 --negatives 0 --normalizer anchors"
    model = script.build_model(script.parse(flags.split()), ("star",), steps=10)
    assert model.loss.settings == {
        "class_loss": "focal",
        "box_loss": "smooth_l1",
        "class_weight": 2.0,
        "box_weight": 0.5,
        "sigma": 3.0,
        "alpha": 0.25,
        "gamma": 1.5,
        "negatives_per_positive": None,
        "normalizer": "anchors",
    }


def test_recipe_of_the_book():
    script = load("train_ssd")
    model = script.build_model(script.parse(["--recipe", "book"]), ("banana",), steps=10)
    assert type(model.optimizer) is keras.optimizers.SGD
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2)
    assert model.optimizer.weight_decay == 5e-4
    assert model.loss.settings["box_loss"] == "l1"
    assert model.loss.settings["negatives_per_positive"] is None
    assert model.loss.settings["normalizer"] == "anchors"


def test_detect_draws_and_writes(run, folder, tmp_path):
    _, out = run
    pictures = [folder / "bananas_val" / "images" / f"{i}.png" for i in (0, 1)]
    tall = tmp_path / "0.png"  # another picture of the same name
    Image.fromarray(np.zeros((200, 80, 3), np.uint8)).save(tall)
    command = [str(out / "saved_model"), *map(str, [*pictures, tall])]
    result = load("detect").main(
        [*command, "--out", str(tmp_path / "found"), "--score-threshold", "0"]
    )
    stored = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert stored == result
    assert [entry["image"] for entry in stored["images"]] == list(map(str, [*pictures, tall]))
    names = sorted(p.name for p in (tmp_path / "found").iterdir())
    assert names == ["0-2.png", "0.png", "1.png", "detections.json"]
    assert Image.open(tmp_path / "found" / "0-2.png").size == (80, 200)
    last = stored["images"][2]
    assert (last["height"], last["width"]) == (200, 80)
    box, box_px = (np.array(last["detections"][0][k]) for k in ("box", "box_px"))
    np.testing.assert_allclose(box_px, box * [80, 200, 80, 200], atol=0.2)


def test_detect_without_the_package_s_models(run, folder, tmp_path):
    """Only reading and drawing pictures is used of the package, and no Keras."""
    _, out = run
    code = f"""
import sys
for name in ("models", "layers", "ops", "losses", "metrics"):
    sys.modules["kerascv_d2l." + name] = None
sys.path.insert(0, {str(SCRIPTS)!r})
import detect
detect.main([{str(out / "saved_model")!r}, {str(folder / "bananas_val" / "images" / "2.png")!r},
             "--out", {str(tmp_path)!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2.png").exists()


def test_detect_names_bad_input(run, tmp_path):
    _, out = run
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    detect = load("detect")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        detect.main([str(out / "saved_model"), str(broken), "--out", str(tmp_path / "a")])
    with pytest.raises(InputError, match=r"is no SavedModel \(it has no saved_model\.pb\)"):
        detect.main([str(tmp_path), str(broken)])
    command = [str(out / "saved_model"), str(broken), "--out", str(tmp_path / "b"), "--skip-bad"]
    result = detect.main(command)
    assert result["images"] == [] and "broken.jpg" in result["skipped"][0]
