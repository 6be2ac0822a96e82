"""`scripts/train_fcn.py` and `scripts/segment.py` on small scenes and a tiny network."""

import csv
import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from kerascv_d2l.exported import load_segmenter
from PIL import Image
from small_networks import small_backbone

import kerascv_d2l
from kerascv_d2l import InputError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NAMES = ["background", "star", "ring"]
SIZE = (48, 72)


def load(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def small_networks():
    """A few convolutions in place of the backbone that is named: quick to trace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "kerascv_d2l.models.fcn.build_backbone",
            lambda name, weights, strides: small_backbone(*strides),
        )
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated scenes, as pictures and masks of colours; the ring is given as void too."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    data = kerascv_d2l.generate_segmentation(16, 4, seed=5, num_classes=2, image_size=SIZE)
    colors = np.array([[0, 0, 0], [200, 30, 40], [30, 90, 220]], np.uint8)
    for split, part in (("train", data.train), ("val", data.val)):
        names = []
        for i, (image, mask) in enumerate(zip(part.images, part.masks, strict=True)):
            names.append(f"{split}{i}")
            Image.fromarray(image).save(root / "images" / f"{names[-1]}.png")
            Image.fromarray(colors[mask]).save(root / "masks" / f"{names[-1]}.png")
        (root / f"{split}.txt").write_text("\n".join(names))
    lines = [f"{r} {g} {b} {n}" for (r, g, b), n in zip(colors.tolist(), NAMES, strict=True)]
    (root / "palette.txt").write_text("\n".join(lines))
    return root


def flags(folder, out, *more):
    return ["--data", str(folder), "--out", str(out), "--crop-size", "32x64",
            "--batch-size", "8", "--epochs", "2", *more]  # fmt: skip


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "fcn"
    return load("train_fcn").main(flags(folder, out)), out


def slow_figures(model_path, folder):
    """Mean IoU and pixel accuracy of the saved model, counted pixel by pixel in NumPy."""
    segment = kerascv_d2l.Segmenter(keras.models.load_model(model_path))
    data = kerascv_d2l.read_segmentation_folder(folder)
    predicted, truth = [], []
    for k, file in enumerate(data.val.images):
        predicted.append(segment(kerascv_d2l.read_image(file)).numpy().ravel())
        truth.append(data.val.mask(k).ravel())
    predicted, truth = np.concatenate(predicted), np.concatenate(truth)
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    iou = []
    for c in range(len(data.class_names)):
        either = ((predicted == c) | (truth == c)).sum()
        if either:
            iou.append(((predicted == c) & (truth == c)).sum() / either)
    return np.mean(iou), (predicted == truth).mean()


def test_writes_what_it_says(run, folder):
    metrics, out = run
    stored = json.loads((out / "metrics.json").read_text())
    assert {"mean_iou", "pixel_accuracy", "iou_by_class", "images_per_second"} <= set(stored)
    assert list(stored["iou_by_class"]) == NAMES
    assert stored["settings"]["class_names"] == NAMES
    assert stored["settings"]["crop_size"] == [32, 64]
    mean_iou, accuracy = slow_figures(out / "model.keras", folder)
    assert metrics["mean_iou"] == pytest.approx(mean_iou)
    assert metrics["pixel_accuracy"] == pytest.approx(accuracy)
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert len(rows) == 2 and float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert rows[1]["val_mean_iou"]
    for name in ("history.png", "segmentation.png"):
        assert Image.open(out / name).size > (300, 300)
    assert (out / "model.tflite").stat().st_size > 1000


class StopAtSecond(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_resumed_run_ends_as_an_undisturbed_one(run, folder, tmp_path, capsys, monkeypatch):
    metrics, whole = run
    script = load("train_fcn")
    for name in ("export_segmenter", "export_segmenter_lite"):  # seen above, and slow
        monkeypatch.setattr(kerascv_d2l, name, lambda *args, **options: None)
    # The rate falls along the epochs of the whole run: stopped after one of two.
    original = kerascv_d2l.Run.fit
    with monkeypatch.context() as patch:
        patch.setattr(
            kerascv_d2l.Run,
            "fit",
            lambda *args, **options: original(*args, **options, callbacks=[StopAtSecond()]),
        )
        with pytest.raises(KeyboardInterrupt):
            script.main(flags(folder, tmp_path))
    resumed = script.main(flags(folder, tmp_path, "--resume"))
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert resumed["mean_iou"] == metrics["mean_iou"]
    np.testing.assert_array_equal(resumed["confusion"], metrics["confusion"])
    with pytest.raises(InputError, match="--augment was 'scale' and is now 'none'"):
        script.main(flags(folder, whole, "--resume", "--augment", "none"))


def test_segment(run, folder, tmp_path, capsys):
    _, out = run
    picture = folder / "images" / "val1.png"
    odd = tmp_path / "val1.png"  # another picture of the same name, of an odd size
    Image.fromarray(np.asarray(Image.open(picture))[:33, :51]).save(odd)
    found = tmp_path / "found"
    command = [str(out / "saved_model"), str(picture), str(odd), "--out", str(found)]
    segment = load("segment")
    result = segment.main(command)
    assert json.loads((found / "segmentation.json").read_text()) == result
    assert result["class_names"] == NAMES
    names = sorted(path.name for path in found.iterdir())
    assert names == ["segmentation.json", "val1-2_classes.png", "val1-2_overlay.png",
                     "val1_classes.png", "val1_overlay.png"]  # fmt: skip
    function, _, colors = load_segmenter(out / "saved_model")
    for entry, path in zip(result["images"], (picture, odd), strict=True):
        pixels = kerascv_d2l.read_image(path)
        wanted = function(pixels[None])[0].numpy()
        stored = Image.open(entry["class_map"])
        assert stored.mode == "P"
        np.testing.assert_array_equal(np.asarray(stored), wanted)
        np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), colors[wanted])
        assert (entry["height"], entry["width"]) == pixels.shape[:2] == wanted.shape
        for name, share in entry["shares"].items():
            assert share == pytest.approx((wanted == NAMES.index(name)).mean(), abs=1e-4)
        drawn = np.asarray(Image.open(entry["overlay"]))
        np.testing.assert_array_equal(drawn[wanted == 0], pixels[wanted == 0])
    assert "background" in capsys.readouterr().out

    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(InputError, match=r"bad\.png: not a picture"):
        segment.main([str(out / "saved_model"), str(bad), "--out", str(tmp_path / "x")])
    with pytest.raises(InputError, match=r"is no SavedModel .*that train_fcn\.py wrote"):
        segment.main([str(tmp_path), str(picture)])


def test_a_crop_larger_than_every_picture(folder, tmp_path):
    with pytest.raises(InputError, match=r"crop_size 64 x 64 .*larger than every picture"):
        load("train_fcn").main(flags(folder, tmp_path / "out", "--crop-size", "64"))
    assert not (tmp_path / "out").exists()


class Scenes:
    class_names = ("a", "b", "c")

    def balancing_weights(self):
        return [1.0, 2.0, 3.0]


def built(*more):
    script = load("train_fcn")
    return script.build_model(script.parse(list(more)), Scenes(), 10)


def test_flags_reach_model_loss_and_optimizer():
    model = built("--model", "fcn32", "--recipe", "book")
    assert model.name == "fcn32" and type(model.optimizer) is keras.optimizers.SGD
    assert float(model.optimizer.learning_rate) == pytest.approx(3.2e-2)
    assert model.optimizer.weight_decay == 3.1e-5 and model.optimizer.momentum == 0
    assert model.loss.class_weight is None and model.loss.ignore_label == 255
    model = built("--model", "fcn16", "--fixed-upsampling", "--class-weights", "balanced")
    assert model.name == "fcn16" and type(model.optimizer) is keras.optimizers.Adam
    assert model.loss.class_weight == [1, 2, 3]
    assert not any("enlarge" in weight.path for weight in model.trainable_weights)
    model = built("--model", "unet", "--optimizer", "sgd", "--momentum", ".9", "--schedule",
                  "constant", "--learning-rate", ".5", "--weight-decay", "0")  # fmt: skip
    assert model.name == "unet" and model.optimizer.momentum == 0.9
    assert float(model.optimizer.learning_rate) == 0.5


@pytest.mark.quick
def test_defaults_and_flags_that_do_not_go_together(folder, capsys):
    parse = load("train_fcn").parse
    args = parse([])
    assert (args.crop_size, args.augment, args.model) == ((96, 96), "flip", "fcn8")
    args = parse(["--data", str(folder)])
    assert (args.crop_size, args.augment) == ((320, 480), "scale")
    with pytest.raises(SystemExit):
        parse(["--void", "11"])
    assert "--classes and --void are for a folder's masks" in capsys.readouterr().err
    with pytest.raises(InputError, match="'nowhere' is neither a folder nor a data set"):
        parse(["--data", "nowhere"])
    with pytest.raises(InputError, match=r"--archive x\.tar: only with --data voc2012"):
        parse(["--data", str(folder), "--archive", "x.tar"])
