"""`scripts/train_fast_style.py` and `scripts/stylize.py` with tiny networks."""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerascv_d2l import InputError
from kerascv_d2l.style_transfer import LossWeights
from kerascv_d2l.training.arguments import LOSS_WEIGHT_DEFAULTS

pytestmark = pytest.mark.quick
ROOT = Path(__file__).parents[2]


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trainer():
    return load_script("train_fast_style")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.RandomState(0)
    for k in range(6):
        pixels = random.randint(0, 256, (4, 5 + k, 3)).repeat(9, 0).repeat(9, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{k}.png")
    return root


def flags(folder, out, *more):
    tiny = ["--network", "mobilenet_0.25", "--weights", "none", "--image-size", "32x40"]
    tiny += ["--width", "2", "--blocks", "1", "--style-size", "40", "--batch-size", "2"]
    data = ["--data", str(folder), "--out", str(out), "--devices", "cpu"]
    return [str(folder / "0.png"), *data, *tiny, *more]


@pytest.fixture(scope="module")
def run(trainer, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, trainer.main(flags(folder, out, "--epochs", "3"))


def test_trains_draws_and_exports(run, folder):
    out, metrics = run
    record = json.loads((out / "metrics.json").read_text())
    parts = [metrics[name] for name in ("content_loss", "style_loss", "tv_loss")]
    assert record["loss"] == metrics["loss"] == pytest.approx(sum(parts), rel=1e-3)
    assert record["epochs"] == 3 and record["settings"]["num_train"] == 6
    assert Image.open(out / "painted.png").width > 1000

    net = keras.models.load_model(out / "model.keras")
    loaded = tf.saved_model.load(str(out / "saved_model"))
    image = np.asarray(Image.open(folder / "3.png"))[None, :, :-3]
    wanted = np.rint(net(image).numpy())
    for pixels in (image, image.astype(np.float32)):
        painted = loaded(pixels)["pictures"]
        assert painted.dtype == tf.uint8 and painted.shape == image.shape
        assert np.abs(painted.numpy().astype(int) - wanted).max() <= 1
    served = loaded.signatures["serving_default"](images=tf.constant(image.repeat(2, 0)))
    assert served["pictures"].shape == (2, *image.shape[1:])
    float_served = loaded.signatures["float"](images=tf.constant(image, tf.float32))
    np.testing.assert_array_equal(float_served["pictures"], painted)


def test_resumed_run_ends_as_an_undisturbed_one(trainer, folder, run, tmp_path, capsys):
    _, metrics = run
    trainer.main(flags(folder, tmp_path, "--epochs", "1"))
    resumed = trainer.main(flags(folder, tmp_path, "--epochs", "3", "--resume"))
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert resumed["loss"] == metrics["loss"]


def test_stylize(run, folder, tmp_path):
    stylize = load_script("stylize")
    model = str(run[0] / "saved_model")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    names = [str(folder / "2.png"), str(tmp_path / "dot.png")]
    result = stylize.main([model, *names, "--out", str(tmp_path / "own")])
    for name, entry in zip(names, result["images"], strict=True):
        with Image.open(name) as before, Image.open(entry["painted"]) as after:
            assert after.size == before.size == (entry["width"], entry["height"])
            assert after.mode == "RGB"
    painted = tf.saved_model.load(model)(np.asarray(Image.open(names[0]))[None])["pictures"][0]
    np.testing.assert_array_equal(Image.open(tmp_path / "own/2.png"), painted)
    small = stylize.main([model, names[0], "--out", str(tmp_path / "b"), "--image-size", "20"])
    assert Image.open(small["images"][0]["painted"]).size == Image.open(names[0]).size
    (tmp_path / "bad.png").touch()
    with pytest.raises(InputError, match=r"bad\.png: empty file"):
        stylize.main([model, str(tmp_path / "bad.png"), "--out", str(tmp_path / "c")])
    with pytest.raises(InputError, match=r"is no SavedModel.*train_fast_style\.py wrote"):
        stylize.main([str(tmp_path), names[0]])


def test_generated_pictures_without_a_folder(trainer, folder, monkeypatch):
    monkeypatch.setattr(trainer, "GENERATED_COUNT", 8)
    args = trainer.parse([str(folder / "0.png"), "--image-size", "16"])
    split, described = trainer.load_photographs(args)
    assert len(split) == 8 and "8 generated pictures of 32 x 32" in described
    with pytest.raises(InputError, match="absent: no such folder"):
        trainer.load_photographs(trainer.parse(["style.png", "--data", "absent"]))
    assert trainer.read_style(trainer.parse([str(folder / "0.png")])).shape == (205, 256, 3)


def test_help_tells_the_weights_that_hold():
    defaults = LossWeights()
    for name, value in LOSS_WEIGHT_DEFAULTS.items():
        assert getattr(defaults, name) == value
