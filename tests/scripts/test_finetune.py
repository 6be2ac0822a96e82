"""`scripts/finetune.py` and `scripts/classify.py` on small pictures and a tiny network."""

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
COLORS = {"amber": (230, 160, 30), "moss": (60, 120, 50), "wine": (110, 20, 60)}
# At a constant rate the first epochs of a run do not depend on how many follow.
SGD = ("--optimizer", "sgd", "--schedule", "constant")
# Smaller batches or fewer steps leave batch norm's statistics behind, on some machines.
SCRATCH = ("--from-scratch", "--learning-rate", ".01", "--batch-size", "16", *SGD)
EPOCHS = 24


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def finetune():
    return load_script("finetune")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures whose colour tells their class, of different sizes and kinds."""
    root = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for name, color in COLORS.items():
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                size = (40 + 3 * k, 60 - k, 3)
                pixels = np.clip(color + rng.normal(0, 25, size), 0, 255).astype(np.uint8)
                ending = ("png", "jpg", "gif")[k % 3]
                Image.fromarray(pixels).save(root / split / name / f"{k}.{ending}")
    return root


def flags(folder, out, *more):
    tiny = ["--backbone", "mobilenet_0.25", "--image-size", "32x40", "--batch-size", "8"]
    return ["--data", str(folder), "--out", str(out), *tiny, "--devices", "cpu", *more]


@pytest.fixture(scope="module")
def run(finetune, folder, tmp_path_factory):
    """A finished run: its folder and what `main` returned."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, finetune.main(flags(folder, out, *SCRATCH, "--epochs", str(EPOCHS)))


def history(out):
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_learns_and_reports(run):
    out, metrics = run
    assert metrics["accuracy"] > 0.6 and metrics["train_accuracy"] > 0.7  # chance: 1/3
    record = json.loads((out / "metrics.json").read_text())
    for name in ("accuracy", "loss", "train_accuracy", "images_per_second"):
        assert record[name] == metrics[name]
    assert record["settings"]["class_names"] == list(COLORS)
    assert record["settings"]["head_multiplier"] == 1 and record["settings"]["weights"] is None
    matrix = np.array(record["confusion"])
    assert matrix.sum(axis=1).tolist() == [6, 6, 6]
    assert np.trace(matrix) / 18 == pytest.approx(metrics["accuracy"])
    assert record["accuracy_by_class"]["moss"] == pytest.approx(matrix[1, 1] / 6)
    worst = record["worst"]
    assert len(worst) == 16 and worst[0]["picture"].startswith(worst[0]["class"] + "/")
    assert [w["probability"] for w in worst] == sorted(w["probability"] for w in worst)
    rows = history(out)
    assert len(rows) == EPOCHS
    last = {name: float(rows[-1][name]) for name in rows[-1]}
    assert last["val_accuracy"] == pytest.approx(metrics["accuracy"])
    assert last["val_loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    for name in ("confusion.png", "worst.png", "history.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) >= 300


def test_model_file_loads_and_agrees(run, folder):
    out, metrics = run
    model = keras.models.load_model(out / "model.keras")
    data = kerascv_d2l.read_classification_folder(folder)
    batches = kerascv_d2l.classification_batches(data.val, (32, 40), 16)
    figures = model.evaluate(batches, verbose=0, return_dict=True)
    assert figures["accuracy"] == pytest.approx(metrics["accuracy"])


def test_saved_model_takes_raw_pictures(run, folder):
    """The same probabilities as the model on the cut pictures; any size, uint8 and float."""
    out, _ = run
    loaded = tf.saved_model.load(str(out / "saved_model"))
    model = keras.models.load_model(out / "model.keras")
    data = kerascv_d2l.read_classification_folder(folder)
    cut, _ = next(iter(kerascv_d2l.classification_batches(data.val, (32, 40), 18)))
    wanted = tf.nn.softmax(model(cut, training=False)).numpy()
    for k in (0, 2, 7):  # png, gif, jpg
        image = kerascv_d2l.read_image(data.val.images[k])[None]
        for pixels in (image, image.astype(np.float32)):
            answer = loaded(pixels)
            np.testing.assert_allclose(answer["probabilities"][0], wanted[k], atol=1e-4)
            best = int(answer["classes"][0])
            assert best == wanted[k].argmax() and answer["names"][0] == list(COLORS)[best].encode()
    served = loaded.signatures["serving_default"](images=tf.constant(np.repeat(image, 3, axis=0)))
    assert served["probabilities"].shape == (3, 3)
    float_served = loaded.signatures["float"](images=tf.constant(image, tf.float32))
    np.testing.assert_allclose(float_served["probabilities"], answer["probabilities"], atol=1e-5)


def test_classify(run, folder, tmp_path, capsys):
    classify = load_script("classify")
    out, _ = run
    model = str(out / "saved_model")
    pictures = [str(folder / "val" / name / "0.png") for name in COLORS]
    result = classify.main([model, *pictures, "--out", str(tmp_path), "--top", "2"])
    assert [Path(entry["image"]).parent.name for entry in result["images"]] == list(COLORS)
    for entry in result["images"]:
        assert set(entry["probabilities"]) == set(COLORS)
        assert entry["class"] == max(entry["probabilities"], key=entry["probabilities"].get)
        assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert json.loads((tmp_path / "predictions.json").read_text()) == result
    assert capsys.readouterr().out.count(", ") == 3  # two classes a picture

    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(InputError, match=r"bad\.png: not a picture"):
        classify.main([model, str(bad), "--out", str(tmp_path)])
    result = classify.main([model, str(bad), pictures[0], "--out", str(tmp_path), "--skip-bad"])
    assert len(result["skipped"]) == len(result["images"]) == 1
    with pytest.raises(InputError, match=r"is no SavedModel .*that finetune.py wrote"):
        classify.main([str(tmp_path), pictures[0]])


def test_resumed_run_ends_as_an_undisturbed_one(finetune, folder, run, tmp_path, capsys):
    whole, metrics = run
    finetune.main(flags(folder, tmp_path, *SCRATCH, "--epochs", "1"))
    resumed = finetune.main(flags(folder, tmp_path, *SCRATCH, "--epochs", str(EPOCHS), "--resume"))
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert resumed["accuracy"] == metrics["accuracy"] and resumed["loss"] == metrics["loss"]
    timed = ("seconds", "images_per_second")
    for a, b in zip(history(whole), history(tmp_path), strict=True):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network with classes of its own, whose classifier is not zero anywhere."""
    path = tmp_path_factory.mktemp("weights") / "source.weights.h5"
    network = keras.applications.MobileNet(alpha=0.25, weights=None)
    network.layers[-3].set_weights([w + 0.25 for w in network.layers[-3].get_weights()])
    network.save_weights(path)
    return path


def built(finetune, *more):
    args = finetune.parse(flags(ROOT, "unused", *more))
    return finetune.build_model(args, list(COLORS), 10)


def test_rates_are_printed_and_converted(finetune, weights, capsys):
    given = ("--weights", str(weights))
    model = built(finetune, *given)
    rates = kerascv_d2l.group_rates(model.optimizer)
    assert rates == pytest.approx({"base": 3e-5, "head": 3e-3})
    assert "for the mean of the losses, x 100 for the output layer" in capsys.readouterr().out

    model = built(finetune, *given, "--sum-loss", "--batch-size", "128")
    assert kerascv_d2l.group_rates(model.optimizer) == pytest.approx(
        {"base": 6.4e-3, "head": 6.4e-2}
    )
    assert model.optimizer.weight_decay == pytest.approx(7.8125e-6)
    assert model.optimizer.momentum == 0
    assert type(model.optimizer.learning_rate).__name__ != "CosineDecay"
    out = capsys.readouterr().out
    assert "5e-05 for the sum of 128 losses is 0.0064 for their mean" in out

    model = built(finetune, "--from-scratch", "--sum-loss", "--batch-size", "128")
    assert kerascv_d2l.group_rates(model.optimizer) == pytest.approx(
        {"base": 6.4e-2, "head": 6.4e-2}
    )
    model = built(finetune, *given, "--learning-rate", ".5", "--head-multiplier", "3")
    assert kerascv_d2l.group_rates(model.optimizer) == pytest.approx({"base": 0.5, "head": 1.5})


def test_optimizer_and_schedule(finetune, capsys):
    args = finetune.parse(["--optimizer", "sgd", "--from-scratch", "--schedule", "constant"])
    assert (args.learning_rate, args.momentum, args.weight_decay) == (1e-2, 0.9, 1e-4)
    model = finetune.build_model(args, list(COLORS), 10)
    assert isinstance(model.optimizer, keras.optimizers.SGD) and model.optimizer.momentum == 0.9
    model = built(finetune, "--from-scratch")
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    model.optimizer.iterations.assign(5)  # half way: a cosine is at half its height
    assert kerascv_d2l.group_rates(model.optimizer)["base"] == pytest.approx(5e-4)
    with pytest.raises(SystemExit):
        finetune.parse(["--sum-loss", "--optimizer", "adam"])
    assert "Adam's steps do not grow with the loss" in capsys.readouterr().err


def test_freeze(finetune):
    scratch = "--from-scratch"
    model = built(finetune, scratch, "--freeze", "(?!head).*")
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"head"}
    with pytest.raises(InputError, match=r"'layer9' matches no layer"):
        built(finetune, scratch, "--freeze", "layer9")
    with pytest.raises(InputError, match="nothing is left to learn"):
        built(finetune, scratch, "--freeze", ".*")


def test_batch_norm_is_frozen_where_it_has_learnt(finetune, weights):
    def learning(*more):
        norms = [la for la in built(finetune, *more).layers if "_bn" in la.name]
        return {layer.trainable for layer in norms}

    given = ("--weights", str(weights))
    assert learning(*given) == {False}
    assert learning(*given, "--no-freeze-batch-norm") == {True}
    assert learning(*given, "--sum-loss") == learning("--from-scratch") == {True}
    parse = finetune.parse
    assert parse(["--weights", "x"]).batch_size == 8
    assert (
        parse(["--from-scratch"]).batch_size == parse(["--weights", "x", "--sum-loss"]).batch_size
    )
    assert parse(["--weights", "x", "--optimizer", "sgd"]).head_multiplier == 10


def test_head_init(finetune, weights, capsys):
    model = built(finetune, "--weights", str(weights), "--head-init", "moss=7")
    source = keras.applications.MobileNet(alpha=0.25, weights=None)
    source.load_weights(weights)
    kernel = source.layers[-3].get_weights()[0].reshape(-1, 1000)
    np.testing.assert_array_equal(model.get_layer("head").kernel[:, 1], kernel[:, 7])
    with pytest.raises(InputError, match="--head-init rose=7: the classes are amber, moss, wine"):
        built(finetune, "--weights", str(weights), "--head-init", "rose=7")
    for wrong in ("moss", "moss=x", "=7"):
        with pytest.raises(SystemExit):
            built(finetune, "--head-init", wrong)
        assert "expected CLASS=INDEX" in capsys.readouterr().err


def test_defaults_of_weights_and_sizes(finetune, capsys):
    parse = finetune.parse
    assert parse(["--data", "."]).weights == "imagenet"
    assert parse(["--data", "."]).image_size == (224, 224)
    assert parse(["--data", ".", "--from-scratch"]).weights is None
    assert parse([]).weights is None and parse([]).image_size == (64, 64)
    assert (parse([]).epochs, parse([]).crop_area) == (8, 0.5)
    assert (parse(["--data", "."]).epochs, parse(["--data", "."]).crop_area) == (5, 0.08)
    with pytest.raises(SystemExit):
        parse(["--from-scratch", "--weights", "imagenet"])
    assert "leave --weights out" in capsys.readouterr().err
