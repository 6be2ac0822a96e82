"""`scripts/train_fast_style.py` with tiny networks."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from training_data import add_tiny, copy_when

from kerascv_d2l import InputError, Split, batches, export

SCRIPT = Path(__file__).parents[2] / "scripts/train_fast_style.py"


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        yield


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_fast_style_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.RandomState(0)
    for k in range(6):
        pixels = random.randint(0, 256, (4, 5 + k, 3)).repeat(9, 0).repeat(9, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{k}.png")
    return root


def flags(folder, out, *more):
    tiny = ["--network", "tiny", "--weights", "none", "--image-size", "32x40"]
    tiny += ["--width", "2", "--blocks", "1", "--style-size", "40", "--batch-size", "2"]
    data = ["--data", str(folder), "--out", str(out), "--devices", "cpu"]
    return [str(folder / "0.png"), *data, *tiny, *more]


@pytest.fixture(scope="module")
def run(script, folder, tmp_path_factory):
    """Folder and metrics of a run on images by another path, copied in the middle of epoch 2."""
    root = tmp_path_factory.mktemp("runs")
    (root / "same").symlink_to(folder)
    with pytest.MonkeyPatch.context() as patch:
        copy_when(patch, epoch=1, batch=1)
        return root / "whole", script.main(flags(root / "same", root / "whole", "--epochs", "3"))


def test_trains_draws_and_exports(run, folder):
    out, metrics = run
    record = json.loads((out / "metrics.json").read_text())
    parts = [metrics[name] for name in ("content_loss", "style_loss", "tv_loss")]
    assert record["loss"] == metrics["loss"] == pytest.approx(sum(parts), rel=1e-3)
    assert record["epochs"] == 3
    assert Image.open(out / "painted.png").width > 1000

    net = export.load_model(out / "model.keras")
    assert net.task == "style"
    image = np.asarray(Image.open(folder / "3.png"))[None, :, :-3]
    wanted = np.rint(net(image).numpy())
    for path in (out / "saved_model", out / "model.keras"):
        loaded = export.load(path)
        assert (loaded.task, loaded.class_names, loaded.colors) == ("style", (), None)
        for pixels in (image, image.astype(np.float32)):
            painted = loaded.stylize(pixels)["pictures"]
            assert painted.dtype == tf.uint8 and painted.shape == image.shape
            assert np.abs(painted.numpy().astype(int) - wanted).max() <= 1
    served = tf.saved_model.load(str(out / "saved_model")).signatures["serving_default"]
    assert served(images=tf.constant(image.repeat(2, 0)))["pictures"].shape[0] == 2


def test_resumed_run_ends_as_an_undisturbed_one(script, folder, run, capsys, monkeypatch):
    undisturbed, metrics = run
    out = undisturbed.with_name("whole-killed")
    for module, name in ((export, "save"), (script, "draw")):  # as `run` has done
        monkeypatch.setattr(module, name, lambda *arguments: None)
    resumed = script.main(flags(folder, out, "--epochs", "3", "--resume"))
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert resumed["loss"] == metrics["loss"]
    _, *others = flags(folder, out, "--epochs", "3", "--resume")
    with pytest.raises(InputError, match="style_pixels was"):
        script.main([str(folder / "1.png"), *others])


@pytest.mark.quick
def test_generated_images_without_a_folder(script, folder, monkeypatch):
    monkeypatch.setattr(script, "GENERATED_TRAIN", 8)
    args = script.parse([str(folder / "0.png"), "--image-size", "16"])
    data = script.load_photographs(args)
    assert len(data.train) == 8 and data.task == "unlabelled"
    assert data.train.sizes.tolist() == [[32, 32]] * 8
    with pytest.raises(InputError, match="absent: no such folder"):
        script.load_photographs(script.parse(["style.png", "--data", "absent"]))
    assert script.read_style(script.parse([str(folder / "0.png")])).shape == (360, 450, 3)


@pytest.mark.quick
def test_crops_keep_the_proportions(script):
    """A grey ramp as steep down as across is so in a crop twice as wide as high."""
    ramp = np.add.outer(np.arange(100), np.arange(120))[..., None].repeat(3, -1).astype(np.uint8)
    split = Split(ramp[None], {}, ["ramp"])
    make = batches(split, (16, 32), 1, training=True, transform=script.augmentation((16, 32)))
    for images in make.take(4):
        down, across = (np.abs(np.diff(images[0, 2:-2, 2:-2, 0], axis=k)).mean() for k in (0, 1))
        assert down == pytest.approx(across, rel=0.1)


@pytest.mark.quick
def test_number_of_flags(script, capsys):
    with pytest.raises(SystemExit):
        script.parse(["--help"])
    assert len(re.findall(r"(?m)^  (--[\w-]+)", capsys.readouterr().out)) <= 24
