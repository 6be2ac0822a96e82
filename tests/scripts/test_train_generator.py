"""`scripts/train_generator.py` from end to end, with tiny networks; predict.py and evaluate.py."""

import csv
import json
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from training_data import copy_when, load_script

import kerascv_d2l as d2l
from kerascv_d2l import InputError, cli, export
from kerascv_d2l.data.generated import FOR_GENERATORS

SIZE = ["--image-size", "16x32", "--width", "4", "--latent-size", "5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of several sizes and kinds: RGB, grey, with a palette."""
    root = tmp_path_factory.mktemp("images")
    data = d2l.load("generated", "unlabelled", num_train=30, num_val=1, image_size=(32, 48))
    for k, image in enumerate(data.train.images):
        image = Image.fromarray(image[: 32 - k % 5, : 40 + k % 9])
        image.convert(("RGB", "L", "P")[k % 3]).save(root / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def script():
    return load_script("train_generator")


def flags(folder, out, model, *more):
    short = ["--epochs", "2", "--batch-size", "8", "--out", str(out), "--devices", "cpu"]
    return ["--model", model, "--data", str(folder), *short, *SIZE, *more]


MORE = {"ae": ["--loss", "gaussian"], "vae": ["--grey"], "gan": []}
MODELS = [pytest.param("ae", marks=pytest.mark.long), "vae", "gan"]


@pytest.fixture(scope="module")
def runs(script, folder, tmp_path_factory):
    """Metrics and folder of a run of each model that is asked for, the VAE of grey images.

    Each is copied in the middle of epoch 2.
    """
    root = tmp_path_factory.mktemp("runs")

    class Runs(dict):
        def __missing__(self, model):
            out = root / model
            with pytest.MonkeyPatch.context() as patch:
                copy_when(patch, epoch=1, batch=1)
                self[model] = script.main(flags(folder, out, model, *MORE[model])), out
            return self[model]

    return Runs()


@pytest.mark.parametrize("model", MODELS)
def test_writes_what_it_says(runs, model):
    _, out = runs[model]
    stored = json.loads((out / "metrics.json").read_text())
    parts = {
        "ae": {"loss", "reconstruction_loss"},
        "vae": {"loss", "reconstruction_loss", "kl_loss"},
        "gan": {"discriminator_loss", "generator_loss", "real_score", "fake_score"},
    }[model]
    scores = {"fid_turns", "kid_turns", "fid_turns_of_training_images"}
    assert parts | scores | {"images_per_second"} <= set(stored)
    assert not any(name.startswith("is_") for name in stored)  # turns are no classes
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert len(rows) == 2 and parts <= set(rows[0])
    if model == "vae":
        total = stored["reconstruction_loss"] + stored["kl_loss"]
        assert stored["loss"] == pytest.approx(total, rel=1e-5)
    if model != "ae":
        assert float(rows[1]["val_fid_turns"]) == pytest.approx(stored["fid_turns"])
    assert {p.name for p in (out / "samples").iterdir()} == {"epoch-0001.png", "epoch-0002.png"}
    with Image.open(out / "samples.gif") as animation:
        assert animation.n_frames == 2
    drawings = ["samples.png", "walk.png", "history.png"]
    drawings += ["reconstructions.png"] * (model != "gan")
    for name in drawings:
        assert min(Image.open(out / name).size) > 100, name


@pytest.mark.parametrize("model", MODELS)
def test_exports_sample_encode_and_decode_alike(runs, model, folder):
    _, out = runs[model]
    lonely = tf.saved_model.load(str(out / "saved_model"))
    loaded = [export.load(out / name) for name in ("saved_model", "model.keras")]
    channels = 1 if model == "vae" else 3
    wanted = lonely.sample(tf.constant(3), tf.constant(7))
    assert wanted["images"].shape == (3, 16, 32, channels) and wanted["codes"].shape == (3, 5)
    assert wanted["images"].dtype == tf.uint8
    other = lonely(tf.constant(3), tf.constant(8))
    assert np.abs(other["codes"] - wanted["codes"]).min() > 0
    served = lonely.signatures["serving_default"](n=tf.constant(3), seed=tf.constant(7))
    np.testing.assert_array_equal(served["images"], wanted["images"])
    decoded = lonely.decode(wanted["codes"])["images"]
    np.testing.assert_array_equal(decoded, wanted["images"])
    image = np.asarray(Image.open(folder / "0.png"))[None]
    for one in loaded:
        assert (one.task, one.class_names) == ("generation", ())
        again = one.sample(3, 7)
        assert np.abs(again["images"].numpy().astype(int) - wanted["images"]).max() <= 1
        if model == "gan":
            assert set(one.functions) == {"sample", "decode"}
            continue
        for pixels in (image, image.astype(np.float32)):
            codes = one.encode(pixels)["codes"]
            np.testing.assert_allclose(codes, lonely.encode(pixels)["codes"], atol=1e-4)
            assert one.reconstruct(pixels)["images"].shape == (1, 16, 32, channels)


def test_predict_samples_and_reconstructs(runs, folder, tmp_path):
    predict = load_script("predict")
    _, out = runs["gan"]
    argv = [str(out / "saved_model"), "--num-samples", "5", "--seed", "2", "--out", str(tmp_path)]
    result = predict.main(argv)
    assert result["num_samples"] == 5 and min(Image.open(result["samples"]).size) > 60
    with pytest.raises(InputError, match="has no encoder"):
        predict.main([str(out / "saved_model"), str(folder / "0.png"), "--out", str(tmp_path)])
    _, out = runs["vae"]
    result = predict.main([str(out / "model.keras"), str(folder / "0.png"), "--out", str(tmp_path)])
    (image,) = result["images"]
    assert len(image["codes"]) == 5 and Image.open(image["reconstructed"]).size == (32, 16)


def test_predict_needs_images_for_other_tasks(tmp_path):
    model = d2l.TransformerNet(1, 1)
    model.save(tmp_path / "model.keras")
    with pytest.raises(InputError, match="images is empty"):
        load_script("predict").main([str(tmp_path / "model.keras"), "--out", str(tmp_path / "o")])


def test_evaluate_gives_the_scores_of_the_run(runs, folder, tmp_path, monkeypatch):
    evaluate = load_script("evaluate")
    for model in ("gan", "vae"):
        metrics, out = runs[model]
        argv = [str(out / "saved_model"), str(folder), "--out", str(tmp_path / model)]
        found = evaluate.main(argv)
        assert found["fid_turns"] == pytest.approx(metrics["fid_turns"], rel=1e-3)
        assert ("reconstruction_error" in found) == (model == "vae")
        assert (tmp_path / model / "samples.png").exists()
    monkeypatch.setitem(FOR_GENERATORS, "num_val", 10)
    argv = [str(out / "saved_model"), "generated", "--out", str(tmp_path / "generated")]
    monkeypatch.setattr(evaluate, "MOST_SCORED", 4)
    found = evaluate.main(argv)
    assert (found["num_images"], found["num_scored"]) == (10, 4)
    (tmp_path / "alone").mkdir()
    (out / "saved_model").rename(tmp_path / "alone/saved_model")
    with pytest.raises(InputError, match=r"features\.keras"):
        evaluate.main([str(tmp_path / "alone/saved_model"), str(folder), "--out", str(tmp_path)])


def test_killed_and_resumed_gives_the_same_bits(script, runs, folder):
    wanted, out = runs["gan"]
    killed = out.with_name("gan-killed")
    assert len((killed / "history.csv").read_text().splitlines()) == 2
    argv = flags(folder, killed, "gan")
    metrics = script.main([*argv, "--resume"])
    assert {k: v for k, v in metrics.items() if k != "images_per_second"} == {
        k: v for k, v in wanted.items() if k != "images_per_second"
    }
    one, two = (d2l.load_model(path / "model.keras") for path in (out, killed))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.quick
def test_flags(script, capsys):
    with pytest.raises(SystemExit):
        script.parse(["--help"])
    assert len(re.findall(r"(?m)^  (--[\w-]+)", capsys.readouterr().out)) <= 24
    assert script.LOSSES["vae"] == d2l.RECONSTRUCTION_LOSSES
    assert set(script.LOSSES["gan"]) == set(d2l.ADVERSARIAL_LOSSES)
    with pytest.raises(SystemExit):
        script.parse(["--model", "vae", "--loss", "hinge"])
    assert "--model vae has bce, gaussian" in capsys.readouterr().err
    for flags, message in (
        (["--weights", "imagenet"], "--weights imagenet: give the network, too: --backbone"),
        (["--model", "gan", "--beta", "3"], "--beta 3: only for --model vae, not gan"),
    ):
        with pytest.raises(SystemExit):
            script.parse(flags)
        assert message in capsys.readouterr().err
    assert script.parse(["--backbone", "mobilenet"]).weights == "imagenet"
    assert script.parse(["--model", "vae"]).beta == 1


@pytest.mark.quick
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], r"no known layout for unlabelled. It holds notes.txt"),
        (["one.png"], r"1 labelled image\(s\); a split needs at least 2"),
        (["one.png", "two.jpg"], r"two.jpg: not an image"),
        (["one.png", "three.png"], r"has 1 image to measure with; wanted at least 2"),
        ([f"{k}.png" for k in range(10)], r"--batch-size is 32; wanted at most 8, the images"),
    ],
)
def test_bad_folders_are_named(script, tmp_path, monkeypatch, capsys, more, message):
    (tmp_path / "notes.txt").write_text("no image")
    for name in more:
        if name.endswith("jpg"):
            (tmp_path / name).write_text("no image")
        else:
            Image.new("RGB", (40, 30)).save(tmp_path / name)
    argv = ["train_generator.py", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*argv, "--batch-size", "32"])
    with pytest.raises(SystemExit) as ended:
        cli.run_main(script.main)
    assert ended.value.code == 2 and re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
