"""The three training scripts from end to end: the same promises, held by one test each."""

import csv
import dataclasses
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import children
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from training_data import (
    DEVICES_FLAGS,
    FLAGS,
    ONE_STEP,
    add_tiny,
    arguments,
    assert_same_weights,
    copy_when,
    load_script,
    without_results,
    write_data,
)

import kerascv_d2l as d2l
from kerascv_d2l import InputError, cli
from kerascv_d2l.metrics import callbacks

MAIN_METRIC = {
    "train_detector": "map_50",
    "train_classifier": "accuracy",
    "train_segmenter": "mean_iou",
}
DRAWINGS = {
    "train_detector": ["detections.png"],
    "train_classifier": ["confusion.png", "curves.png", "worst.png"],
    "train_segmenter": ["segmentation.png"],
}
MOST_FLAGS = {"train_detector": 30, "train_classifier": 25, "train_segmenter": 24}


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        yield


@pytest.fixture
def no_results(monkeypatch):
    """What `run` has drawn and exported need not be drawn and exported by every other run."""
    without_results(monkeypatch)


@pytest.fixture(scope="module", params=sorted(FLAGS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("scripts")
    for name in FLAGS:
        write_data(name, root / name / "data")
    return root


@pytest.fixture(scope="module")
def run(name, root):
    """Metrics and folder of a run on one device, which is copied in the middle of epoch 2."""
    out = root / name / "one"
    with pytest.MonkeyPatch.context() as patch:
        copy_when(patch, epoch=1, batch=1)
        return load_script(name).main(arguments(name, root / name / "data", out)), out


def history(out):
    return list(csv.DictReader((out / "history.csv").open()))


def test_writes_what_it_says(name, run):
    metrics, out = run
    stored = json.loads((out / "metrics.json").read_text())
    assert {MAIN_METRIC[name], "loss", "images_per_second"} <= set(metrics) <= set(stored)
    assert 0 <= metrics[MAIN_METRIC[name]] <= 1
    assert stored["settings"]["batch_size"] == 8
    rows = history(out)
    assert len(rows) == 2
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    # A detector keeps its best epoch.
    main = f"val_{MAIN_METRIC[name]}"
    kept = max(rows, key=lambda row: float(row[main])) if name == "train_detector" else rows[1]
    assert float(kept[main]) == pytest.approx(metrics[MAIN_METRIC[name]])
    assert float(kept["val_loss"]) == pytest.approx(metrics["loss"], rel=1e-4)
    for drawing in ["history.png", *DRAWINGS[name]]:
        assert min(Image.open(out / drawing).size) > 100, drawing
    validated = (out / "validation.txt").read_text().split()
    assert len(validated) == 10 and all("val" in line for line in validated)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_keras_file_and_saved_model_give_the_same(name, run):
    _, out = run
    model, exported = d2l.load_model(out / "model.keras"), d2l.export.load(out / "saved_model")
    assert exported.task == model.task and exported.class_names == model.class_names
    image = np.random.default_rng(0).integers(0, 256, (1, 80, 50, 3), np.uint8)
    endpoint, (function, _) = next(iter(model.endpoints().items()))
    found = getattr(exported, endpoint)(image)
    for key, value in function(tf.constant(image)).items():
        if value.dtype == tf.string:
            assert value.numpy().tolist() == found[key].numpy().tolist()
        else:
            np.testing.assert_allclose(found[key], value, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", ["train_classifier", "train_segmenter"], indirect=True)
def test_killed_and_resumed_ends_as_if_undisturbed(name, run, root, no_results):
    """tests/training kills processes; here the scripts' own state must come back.

    That of train_detector.py is in test_growth.py, whose detector is made quicker.
    """
    metrics, undisturbed = run
    out, data = undisturbed.with_name("one-killed"), root / name / "data"
    assert len(history(out)) == 1
    resumed = load_script(name).main(arguments(name, data, out, "--resume"))
    assert resumed[MAIN_METRIC[name]] == metrics[MAIN_METRIC[name]]
    assert_same_weights(undisturbed, out)


@pytest.mark.long
def test_a_killed_r_cnn_draws_the_same_samples_when_resumed(
    root, tmp_path, no_results, monkeypatch
):
    """Its losses are of samples by chance, which the seed and the step decide."""
    copy_when(monkeypatch, epoch=1, batch=0)
    monkeypatch.setattr(callbacks, "evaluate_detections", lambda *_: {"ap_50_by_class": {}})
    small = {"channels": 8, "head_width": 16, "head": {"samples": 16}}
    recipe = dataclasses.replace(d2l.FasterRCNN.RECIPES["default"], options=small)
    monkeypatch.setitem(d2l.FasterRCNN.RECIPES, "default", recipe)
    flags = ["--model", "faster_rcnn", "--backbone", "tiny", "--weights", "none"]
    train, data = load_script("train_detector").main, root / "train_detector" / "data"
    undisturbed, killed = tmp_path / "run", tmp_path / "run-killed"
    train(arguments("train_detector", data, undisturbed, *flags, "--batch-size", "12"))
    assert len(history(killed)) == 1
    train(arguments("train_detector", data, killed, *flags, "--batch-size", "12", "--resume"))
    assert_same_weights(undisturbed, killed)
    (_, one), (_, two) = history(undisturbed), history(killed)
    assert one["loss_classes"] == two["loss_classes"] and one["loss"] == two["loss"]


@pytest.fixture(scope="module")
def two_devices(root):
    child = Path(__file__).with_name("devices_child.py")
    done = children.run(child, root)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.long  # models and `--devices` are compared elsewhere, and this is all of it
def test_two_devices_compute_what_one_does(name, root, two_devices, no_results):
    """The validation loss shows what a step did to the weights."""
    one, two = root / name / "one_book", two_devices / name / "two"
    load_script(name).main(arguments(name, root / name / "data", one, *DEVICES_FLAGS[name]))
    (row,), (other,) = history(one), history(two)
    assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)
    assert float(row["val_loss"]) == pytest.approx(float(other["val_loss"]), rel=1e-2)


@pytest.mark.long
def test_a_network_of_keras(root, tmp_path, no_results):
    """The others train a tiny one."""
    flags = ["--backbone", "mobilenet_0.25", *ONE_STEP]
    data = root / "train_classifier" / "data"
    load_script("train_classifier").main(arguments("train_classifier", data, tmp_path, *flags))
    backbone = d2l.load_model(tmp_path / "model.keras").backbone
    assert "conv_pw_13_relu" in [layer.name for layer in backbone.layers]


def test_a_folder_given_by_hand_is_refused_where_it_holds_a_run(name, run, root):
    _, out = run
    with pytest.raises(InputError, match="already holds a run"):
        load_script(name).main(arguments(name, root / name / "data", out))


def test_data_that_is_not_there_is_named_before_weights_are_fetched(name, root, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "data.zip").touch()
    for data, message in (
        ("nowhere", "nowhere: no such folder"),
        ("data.zip", "zip: a file, where"),
    ):
        with pytest.raises(InputError, match=message):
            load_script(name).main(["--data", str(tmp_path / data), "--out", str(out)])
    assert not out.exists()


def test_other_settings_are_refused(name, run, root):
    _, out = run
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        load_script(name).main(
            arguments(name, root / name / "data", out, "--resume", "--seed", "1")
        )


@pytest.mark.quick
def test_flags_are_few_and_mean_the_same_everywhere(capsys):
    texts = {}
    for name in FLAGS:
        with pytest.raises(SystemExit):
            load_script(name).parse(["--help"])
        shown = capsys.readouterr().out
        flags = re.findall(r"^  (--[\w-]+)(.*(?:\n {10,}.*)*)", shown, re.MULTILINE)
        assert 10 < len(flags) <= MOST_FLAGS[name], name
        for flag, text in flags:
            texts.setdefault(flag, set()).add(" ".join(text.split()).split("(default")[0])
    shared = ("--archive", "--data-dir", "--skip-bad", "--split-seed", "--val-fraction", "--seed",
              "--mixed-precision", "--devices", "--resume", "--epochs", "--batch-size",
              "--sync-batch-norm", "--learning-rate")  # fmt: skip
    for flag in shared:
        assert len(texts[flag]) == 1, (flag, texts[flag])


@pytest.mark.quick
@pytest.mark.parametrize("name", sorted(FLAGS))
def test_bad_input_ends_with_a_line_and_status_2(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        monkeypatch.setattr(sys, "argv", [name, "--data", folder, "--weights", "none"])
        with pytest.raises(SystemExit) as ended:
            cli.run_main(load_script(name).main)
        assert ended.value.code == 2
        assert f"{folder}" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.quick
def test_recipes_of_the_book():
    detector = load_script("train_detector")
    args = detector.parse(["--recipe", "book", "--data", "x"])
    recipe = detector.fill_in(args)
    assert args.model == "tinyssd" and args.image_size == (256, 256) and args.weights is None
    assert d2l.epochs_for(recipe, 7, (64, 64)) == 20 and args.batch_size == 32
    assert (args.optimizer, args.learning_rate, args.weight_decay) == ("sgd", 0.2, 5e-4)
    assert (args.loss, args.schedule) == ("book", "constant")
    segmenter = load_script("train_segmenter")
    for data in ([], ["--data", "x"]):
        args = segmenter.parse(["--recipe", "book", *data])
        assert (args.optimizer, args.schedule, args.batch_size) == ("sgd", "constant", 32)
        assert (args.epochs, args.augment) == (5, "none")
    classifier = load_script("train_classifier")
    args = classifier.parse(["--recipe", "book", "--weights", "x.h5"])
    classifier.fill_in_rates(args)
    # 5e-5 and 1e-3 for the sum of 128 losses.
    assert (args.optimizer, args.batch_size, args.head_multiplier) == ("sgd", 128, 10)
    assert args.learning_rate == pytest.approx(6.4e-3)
    assert args.weight_decay == pytest.approx(7.8125e-6)
    assert not args.freeze_batch_norm
    for data in ([], ["--data", "x"]):  # another section's
        args = classifier.parse(["--recipe", "book", "--backbone", "resnet18_small", *data])
        assert (args.optimizer, args.learning_rate, args.schedule) == ("adam", 1e-3, "constant")
        assert (args.batch_size, args.epochs, args.augment) == (256, 10, "flip")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "sum_rate"), [("train_classifier", 5e-4), ("train_segmenter", 1e-3)]
)
def test_the_rates_of_the_book_are_for_the_batch_that_is_trained_on(name, sum_rate):
    script, one = load_script(name), SimpleNamespace(num_replicas_in_sync=1)
    for flags, size in (([], 24), (["--batch-size", "4"], 4)):
        args = script.parse(["--recipe", "book", "--weights", "none", *flags])
        cli.fit_batch_size(args, range(24), one)
        script.fill_in_rates(args)
        assert args.batch_size == size
        assert args.learning_rate == pytest.approx(sum_rate * size)
        assert args.weight_decay == pytest.approx(1e-3 / size)
    args = script.parse(["--recipe", "book", "--learning-rate", "0.5"])
    script.fill_in_rates(args)
    assert args.learning_rate == 0.5


@pytest.mark.quick
@pytest.mark.parametrize("recipe", ["default", "book"])
def test_room_is_made_for_the_training_image_with_most_objects(recipe):
    """Without those that are ignored."""
    script = load_script("train_detector")
    model = ["--model", "tinyssd"] if recipe == "book" else []
    args = script.parse(["--data", "x", "--epochs", "1", "--recipe", recipe, *model])
    chosen, counts = script.fill_in(args), (2, 7, 1)
    boxes = [np.tile([[0.1, 0.1, 0.4, 0.4]], (n, 1)) for n in counts]
    classes, ignore = [np.zeros(n, int) for n in counts], [np.zeros(n, bool) for n in counts]
    ignore[1][:3] = True
    targets = {"boxes": boxes, "classes": classes, "ignore": ignore}
    data = SimpleNamespace(train=SimpleNamespace(targets=targets, sizes=np.full((3, 2), 256)))
    assert script.choose_by_labels(args, data, chosen) == 4


@pytest.mark.quick
def test_kinds_of_training_by_data():
    parse = load_script("train_classifier").parse
    tuned, cifar, shapes = parse(["--data", "x"]), parse(["--data", "cifar10"]), parse([])
    small = parse(["--backbone", "resnet18_small"])
    assert (tuned.backbone, tuned.weights, tuned.image_size) == ("resnet18", "imagenet", (224, 224))
    assert (tuned.learning_rate, tuned.head_multiplier, tuned.batch_size) == (3e-5, 100, 8)
    free = parse(["--data", "x", "--freeze", "none"])
    assert (free.freeze, free.freeze_batch_norm) == ([], False)
    assert tuned.freeze_batch_norm and tuned.augment == "crop" and tuned.epochs == 5
    assert (cifar.backbone, cifar.batch_size, cifar.epochs) == ("resnet18_small", 256, 10)
    assert (cifar.schedule, cifar.learning_rate, cifar.augment) == ("constant", 1e-3, "flip")
    assert cifar.weight_decay is None and cifar.weights == "none"
    assert (shapes.weights, shapes.batch_size, shapes.epochs) == ("none", 32, 8)
    assert (small.batch_size, small.epochs, small.schedule) == (32, 4, "cosine")


@pytest.mark.quick
def test_kinds_of_detectors_by_data(monkeypatch):
    script = load_script("train_detector")

    def choose(*flags):
        args = script.parse(list(flags))
        return args, script.fill_in(args)

    args, recipe = choose()
    assert (args.model, args.image_size, args.weights) == ("tinyssd", (128, 128), None)
    assert d2l.epochs_for(recipe, 50, (64, 64)) == 13
    assert choose("--backbone", "mobilenet")[0].model == "ssd"
    args, recipe = choose("--data", "x")
    assert (args.model, args.weights, args.augment) == ("fcos", "imagenet", "mosaic")
    # As many updates for few images as for some more, and each image often enough.
    updates = d2l.ON_FOLDERS["updates"]
    assert d2l.epochs_for(recipe, 20, (256, 256)) == updates // 20
    assert d2l.epochs_for(recipe, 20, (1024, 256)) == updates // 40
    assert d2l.epochs_for(recipe, 10 * updates, (256, 256)) == recipe["epochs"] >= 10
    none = choose("--data", "x", "--weights", "none", "--epochs", "3")[0]
    assert none.weights is None and none.epochs == 3
    assert choose("--data", "x", "--model", "tinyssd")[0].weights is None
    # A file of weights tells the backbone.
    monkeypatch.setattr("kerascv_d2l.models.weights.identify", lambda path: "mobilenet_0.5")
    assert choose("--data", "x", "--weights", __file__)[0].backbone == "mobilenet_0.5"


class _StartedError(Exception):
    """Thrown with the size of a batch where a run would begin."""


@pytest.mark.quick
@pytest.mark.parametrize("title", [*sorted(FLAGS), "train_generator"])
def test_a_batch_is_no_larger_than_the_images_unless_it_was_given(title, tmp_path, monkeypatch):
    script, flags = load_script(title), FLAGS.get(title, ["--model", "vae"])
    folder = write_data(title if title in FLAGS else "train_detector", tmp_path)
    folder = folder if title in FLAGS else folder / "images" / "train"
    load = script.load_data

    def of_five(args):
        data = load(args)
        return dataclasses.replace(data, train=data.train.subset(np.arange(5)))

    def start_run(args, *rest, **more):
        raise _StartedError(args.batch_size)

    monkeypatch.setattr(script, "load_data", of_five)
    monkeypatch.setattr(cli, "start_run", start_run)
    flags = ["--data", str(folder), *flags, "--no-mixed-precision"]
    with pytest.raises(_StartedError, match="5"):
        script.main(flags)
    with pytest.raises((_StartedError, InputError), match="8"):
        script.main([*flags, "--batch-size", "8"])
    two = SimpleNamespace(num_replicas_in_sync=2)
    args = SimpleNamespace(batch_size=8)
    script.parse(flags)  # without --batch-size
    cli.fit_batch_size(args, range(5), two)
    assert args.batch_size == 4


@pytest.mark.quick
def test_a_backbone_for_the_book_s_detector_is_refused(tmp_path):
    script = load_script("train_detector")
    with pytest.raises(InputError, match="ssd"):
        d2l.create_detector("tinyssd", ("a",), (64, 64), backbone="mobilenet")
    assert script.parse(["--model", "tinyssd", "--backbone", "mobilenet"]).backbone == "mobilenet"
