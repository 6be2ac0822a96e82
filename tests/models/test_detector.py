"""What every detector gets from its base class, shown on a toy that is one file and one line."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import children
import keras
import numpy as np
import pytest
import tensorflow as tf
from scenes import BAD_ROWS, bright_rectangles
from small_networks import add_tiny
from toy_detector import GridDetector

from kerascv_d2l import (
    DETR,
    YOLO1,
    DetectionDecoder,
    FastRCNN,
    InputError,
    MeanAveragePrecisionCallback,
    TinySSD,
    draw_detections,
    evaluate_detections,
    resize,
)
from kerascv_d2l.export import save_lite
from kerascv_d2l.models import registry
from kerascv_d2l.models.backbones import backbone as build_backbone
from kerascv_d2l.models.common import settle_batch_norm

NAMES = ("even", "odd")
EVERY = (*registry.DETECTORS, "fast_rcnn")


def some_long(names, *long):
    """Parameters for all detectors; some, much like another one, in a long run only."""
    return [pytest.param(name, marks=[pytest.mark.long] * (name in long)) for name in names]


@pytest.fixture
def eager():
    """Trace no graphs, which takes longer than a batch or two."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def as_dict(rows, ignore=None):
    ignore = np.zeros(rows.shape[:2], bool) if ignore is None else ignore
    return {"boxes": rows[..., 1:], "classes": rows[..., 0].astype(np.int32), "ignore": ignore}


def train(y, epochs=60, dataset=False):
    keras.utils.set_random_seed(0)
    model = registry.create_detector("toy", NAMES, (64, 96), width=8)
    model.compile(keras.optimizers.Adam(model.RECIPES["default"].learning_rate))
    images, _ = bright_rectangles(16)
    if dataset:
        batches = tf.data.Dataset.from_tensor_slices((images, y)).batch(16).repeat()
        model.fit(batches, epochs=epochs, steps_per_epoch=1, verbose=0)
    else:
        model.fit(images, y, batch_size=16, epochs=epochs, verbose=0, shuffle=False)
    return model


@pytest.fixture(scope="module")
def trained():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.DETECTORS, "toy", "toy_detector:GridDetector")
        yield train(as_dict(bright_rectangles(16)[1]))


def test_toy_learns_and_is_measured(trained, tmp_path):
    images, rows = bright_rectangles(16)
    found = trained.detect(images)
    for i, (kind, *box) in enumerate(rows[:, 1]):
        assert found["classes"][i, 0] == kind
        np.testing.assert_allclose(found["boxes"][i, 0], box, atol=0.1)
    batches = tf.data.Dataset.from_tensor_slices((images, as_dict(rows))).batch(5)
    metrics = evaluate_detections(trained, batches)
    assert metrics["map_50"] > 0.9 and metrics["ap_50_by_class"].keys() == {0, 1}
    y = as_dict(rows[:4]) | {"masks": np.zeros((4, 3, 64, 96), np.uint8)}
    small = {name: value[:4] for name, value in found.items()}
    draw_detections(tmp_path / "drawn.png", images[:4], small, y, NAMES)


def test_rows_dicts_and_data_sets_train_alike(trained, monkeypatch):
    monkeypatch.setitem(registry.DETECTORS, "toy", "toy_detector:GridDetector")
    rows = bright_rectangles(16)[1]
    models = [train(rows, 3), train(as_dict(rows), 3), train(rows, 3, dataset=True)]
    for model in models[1:]:
        for a, b in zip(model.weights, models[0].weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_toy_is_saved_and_loaded_with_its_optimizer(trained, tmp_path):
    images, rows = bright_rectangles(16)
    trained.save(tmp_path / "toy.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.models.load_model(tmp_path / "toy.keras")
    assert (loaded.class_names, loaded.image_size, loaded.width) == (NAMES, (64, 96), 8)
    for name, value in trained.detect(images).items():
        np.testing.assert_array_equal(loaded.detect(images)[name], value)
    assert int(loaded.optimizer.iterations) == 60
    loaded.train_on_batch(images, rows)


def test_endpoints_take_any_size_and_type(trained):
    ((name, (function, signature)),) = trained.endpoints().items()
    assert name == "detect" and signature[0].shape.as_list() == [None, None, None, 3]
    images = np.random.default_rng(0).integers(0, 256, (2, 70, 131, 3))
    expected = trained.detect(images.astype(np.float32))
    for dtype in (tf.uint8, tf.float32, tf.float64):
        found = tf.function(function)(tf.constant(images, dtype))
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-6)
        np.testing.assert_allclose(found["boxes_px"], expected["boxes"] * [131, 70, 131, 70], 1e-5)


@pytest.mark.quick
def test_images_are_resized_to_the_model_s_size():
    model = TinySSD(1, image_size=(64, 64))
    images = np.random.default_rng(0).uniform(0, 255, (2, 100, 80, 3)).astype(np.float32)
    whole = model.detect(images)
    for name, value in model.detect(resize(images, (64, 64))).items():
        np.testing.assert_allclose(whole[name], value, atol=1e-5)


# ---------------------------------------------------------------- the decoder


@pytest.mark.quick
def test_another_decoder_is_used_at_once_and_saved(tmp_path):
    model = TinySSD(1, decoder=DetectionDecoder(max_detections=7))
    images = np.zeros((1, 64, 64, 3), np.float32)
    assert model.detect(images)["boxes"].shape == (1, 7, 4)
    model.decoder = DetectionDecoder(score_threshold=0.6, max_detections=5)
    assert model.detect(images)["boxes"].shape == (1, 5, 4)
    model.decoder.max_detections = 3
    assert model.detect(images)["boxes"].shape == (1, 3, 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.decoder.score_threshold, loaded.decoder.max_detections) == (0.6, 3)
    assert loaded.detect(images)["boxes"].shape == (1, 3, 4)


# ---------------------------------------------------------------- metrics in one pass


def test_one_pass_gives_what_evaluate_and_detect_give():
    images, rows = bright_rectangles(7)
    y = as_dict(rows, ignore=np.arange(21).reshape(7, 3) % 9 == 1)
    batches = tf.data.Dataset.from_tensor_slices((images, y)).batch(4)
    model = TinySSD(2)
    model.compile("sgd")
    expected = model.evaluate(batches, verbose=0, return_dict=True)
    together = evaluate_detections(model, batches)
    assert {k: together[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    assert {"loss", "class_error", "bbox_mae"} == set(expected)
    # For a full batch and a smaller one, and other numbers of objects: more take time to trace.
    evaluate_detections(model, batches.map(lambda x, y: (x, {k: v[:, :2] for k, v in y.items()})))
    assert model._evaluate_batch.experimental_get_tracing_count() == 1
    bare = evaluate_detections(GridDetector(2, width=2), batches)  # not compiled: no loss
    assert "loss" not in bare and "map" in bare


@pytest.mark.parametrize("name", some_long(EVERY, "mask_rcnn", "retinanet", "tinyssd"))
def test_parts_of_a_loss_are_weighed_as_their_sum(monkeypatch, eager, name):
    """By images, where the last batch has fewer; and what is not compiled is measured, too."""
    model = small_detector(name, monkeypatch)
    images, rows = bright_rectangles(3)
    rows[2, 0] = [0, 0.1, 0.2, 0.4, 0.5]
    y = as_dict(rows) | {"masks": np.ones((3, 3, 64, 96), np.uint8)}
    if name == "fast_rcnn":
        images = {"images": images, "proposals": rows[:, 1:, 1:].clip(0)}
    batches = tf.data.Dataset.from_tensor_slices((images, y)).batch(2)
    bare = evaluate_detections(model, batches)
    model.compile("sgd", run_eagerly=True)
    found = evaluate_detections(model, batches)
    bare.pop("ap_50_by_class")
    assert {k: found[k] for k in bare} == pytest.approx(bare, nan_ok=True) and "loss" not in bare
    expected = model.evaluate(batches, verbose=0, return_dict=True)
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    parts = [value for key, value in found.items() if key.startswith("loss_")]
    assert sum(parts) == pytest.approx(found["loss"], rel=1e-5) or "ssd" in name


def test_callback_measures_all_in_fit():
    images, rows = bright_rectangles(6)
    batches = tf.data.Dataset.from_tensor_slices((images, rows)).batch(4)
    model = GridDetector(2, width=2)
    model.compile(keras.optimizers.SGD(0.0))
    callback = MeanAveragePrecisionCallback(batches, every=2)
    history = model.fit(images, rows, epochs=3, verbose=0, callbacks=[callback]).history
    assert np.isnan(history["val_map"]).tolist() == [True, False, False]
    metrics = model.evaluate(batches, verbose=0, return_dict=True)
    for name, value in metrics.items():
        assert history[f"val_{name}"][-1] == callback.result[name] == pytest.approx(value, rel=1e-4)
        assert np.isfinite(history[f"val_{name}"]).all()


# ---------------------------------------------------------------- labels that are wrong


@pytest.fixture(scope="module", params=[False, True], ids=["graph", "xla"])
def small(request):
    model = GridDetector(2, (64, 64), width=2)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=request.param)
    return model


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS)
def test_fit_refuses_wrong_labels(small, row):
    images = np.zeros((4, 64, 64, 3), np.float32)
    rows = np.full((4, 2, 5), -1, np.float32)
    rows[2, 1] = row
    with pytest.raises(InputError, match=r"labels: every object.*Row 1 of image 2"):
        small.fit(images, rows, verbose=0)
    for y in (rows, {"boxes": rows[..., 1:], "classes": rows[..., 0]}):
        batches = tf.data.Dataset.from_tensor_slices((images, y)).batch(4)
        with pytest.raises(tf.errors.InvalidArgumentError, match="labels: every object"):
            small.fit(batches, verbose=0)


def test_what_an_own_loss_has_no_use_for_is_refused():
    images, rows = np.zeros((2, 64, 64, 3), np.float32), np.full((2, 1, 5), -1, np.float32)
    model = GridDetector(2, (64, 64), width=2)
    with pytest.raises(InputError, match="loss='mse': GridDetector has a loss of its own"):
        model.compile("sgd", "mse")
    model.compile("sgd")
    weighed = tf.data.Dataset.from_tensors((images, rows, np.ones(2, np.float32)))
    for data in ((images, rows), (weighed,)):
        options = {"sample_weight": np.ones(2)} if len(data) == 2 else {}
        with pytest.raises(InputError, match="sample_weight: the loss of GridDetector weighs"):
            model.fit(*data, verbose=0, **options)
    assert not DETR.XLA and not FastRCNN.XLA and FastRCNN.has_own_loss()
    assert TinySSD.XLA and not TinySSD.has_own_loss()


@pytest.mark.parametrize("name", registry.DETECTORS)
def test_images_without_rows_are_as_those_with_padding_only(monkeypatch, name):
    if name == "detr":
        monkeypatch.setitem(NARROW, name, NARROW[name] | {"denoising": 2})
    model = small_detector(name, monkeypatch)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)

    outputs = model(images, training=True)
    model.compile("sgd")
    losses = []
    for rows in (0, 3):
        if hasattr(model, "seeds"):  # of what is sampled
            model.seeds.state.assign([1, 0])
        y = as_dict(np.full((2, rows, 5), -1, np.float32))
        y["masks"] = np.zeros((2, rows, 64, 96), np.uint8)
        losses.append(float(model.compute_loss(x=images, y=y, y_pred=outputs)))
    assert np.isfinite(losses).all() and losses[0] > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# ---------------------------------------------------------------- by name


@pytest.mark.quick
def test_detectors_by_name():
    model = registry.create_detector("tinyssd", ("cat", "dog"), (64, 96))
    assert isinstance(model, TinySSD) and model.class_names == ("cat", "dog")
    assert model.make_loss("book").settings["normalizer"] == "anchors"
    assert model.make_loss() is None
    for name in registry.DETECTORS:
        cls = registry.detector_class(name)
        for recipe in cls.RECIPES.values():
            cls.make_loss(recipe.loss)
    assert registry.detector_recipe("tinyssd", "book")["learning_rate"] == 0.2
    own = registry.detector_recipe("detr", "denoising", on_folder=True)
    assert own["options"]["denoising"] and own["augment"] == registry.ON_FOLDERS["augment"]
    with pytest.raises(InputError, match="recipe must be one of default, book; got 'boook'"):
        registry.detector_recipe("ssd", "boook")
    with pytest.raises(InputError, match=r"model must be one of tinyssd, ssd.*got 'sdd'.*'ssd'"):
        registry.create_detector("sdd", ("cat",))
    with pytest.raises(InputError, match=r"backbone='vgg16'.*of its own.*or use ssd"):
        registry.create_detector("tinyssd", ("cat",), backbone="vgg16")
    with pytest.raises(InputError, match="loss must be one of ssd, book, focal; got 'focl'"):
        model.make_loss("focl")
    with pytest.raises(InputError, match="loss='focal': FCOS has a loss of its own"):
        registry.detector_class("fcos").make_loss("focal")
    code = "import sys, kerascv_d2l.models.registry as r; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "name,rate", [("faster_rcnn", 0.02), ("mask_rcnn", 0.02), ("retinanet", 0.01), ("fcos", 0.01)]
)
def test_recipes_of_torchvision(name, rate):
    """What its reference scripts have, as far as a recipe can say it."""
    recipe = registry.detector_recipe(name, "torchvision", on_folder=True)
    given = ("sgd", rate, 0.9, 26, 16, "flip")
    names = ("optimizer", "learning_rate", "momentum", "epochs", "batch_size", "augment")
    assert tuple(recipe[k] for k in names) == given
    assert recipe["warmup"] * 26 * 117266 / 16 == pytest.approx(1000, rel=0.05)
    width = {"channels": 256, "depth": 4}
    assert width.items() <= recipe["options"].items() or "rcnn" in name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcos", {"depth": -1}),
        ("retinanet", {"channels": 0}),
        ("yolo1", {"boxes_of_a_cell": 0}),
        ("detr", {"decoder_layers": 0}),
        ("detr", {"heads": 0}),
        ("detr", {"num_queries": 2.5}),
    ],
)
def test_numbers_out_of_range_are_named(name, options):
    ((argument, value),) = options.items()
    with pytest.raises(InputError, match=rf"{argument}={value}: expected a whole number"):
        registry.detector_class(name)(2, **options)


# ---------------------------------------------------------------- several devices


QUICK = ("toy", "localizer")
LONG = ("fcos", "ssd", "fast_rcnn", "faster_rcnn", "mask_rcnn", "detr", "retinanet", "yolo1")


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.long) for n in LONG)])
def test_two_devices_compute_what_one_does(name):
    """With objects, ignored ones and images without any spread unevenly over the devices.

    So are the images of the last batch of an evaluation.
    """
    done = children.run(Path(__file__).with_name("replicas_child.py"), name)
    assert done.returncode == 0, done.stderr[-3000:]
    replicas = json.loads(done.stdout.splitlines()[-1])
    assert replicas["sampled"]
    one, two = replicas[name]
    for figure, value in one.items():
        # Anchors on the edge of two classes may fall to either.
        rounding = 2e-3 if "error" in figure or "map" in figure else 2e-5
        assert two[figure] == pytest.approx(value, rel=5e-4, abs=rounding), figure
    assert replicas["uneven"] > 1.2  # a mean on each device would be another loss


@pytest.mark.parametrize("freeze", [None, False, True])
@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("weights", [None, "file"])
def test_batch_norms_learn_where_they_have_statistics(freeze, mean, weights):
    network = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.BatchNormalization()])
    network.layers[0].moving_mean.assign([0, mean, 0])
    wanted = freeze if freeze is not None else weights is not None
    wanted |= weights is not None and mean == 0  # folded into scales and offsets
    assert settle_batch_norm(network, weights, freeze) == wanted
    assert network.layers[0].trainable != wanted


def test_statistics_are_averaged_as_slowly_as_the_weights():
    model = TinySSD(2, image_size=(64, 64))
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    usual = norms[0].momentum
    model.compile("adam")
    assert norms and {layer.momentum for layer in norms} == {usual}
    for optimizer in (
        keras.optimizers.Adam(use_ema=True, ema_momentum=0.995),
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(use_ema=True, ema_momentum=0.995)
        ),
    ):
        for layer in norms:
            layer.momentum = usual
        model.compile(optimizer)
        assert {layer.momentum for layer in norms} == {0.995}


# ---------------------------------------------------------------- files


FEW = {"test_before_nms": 100, "test_proposals": 100}
NARROW = {name: {"channels": 8, "depth": 1} for name in ("fcos", "retinanet")}
NARROW["fast_rcnn"] = {"channels": 8, "head_width": 8}
NARROW["faster_rcnn"] = NARROW["fast_rcnn"] | {"rpn": FEW}
NARROW["mask_rcnn"] = NARROW["faster_rcnn"] | {"mask_channels": 8}
NARROW["detr"] = {"width": 32, "num_queries": 9}


def small_detector(name, monkeypatch):
    """A detector for images of any size, whose scores and boxes are apart from each other."""
    add_tiny(monkeypatch, "small")  # SSD's "tiny" is the book's
    monkeypatch.setitem(registry.DETECTORS, "fast_rcnn", "kerascv_d2l.models.fast_rcnn:FastRCNN")
    keras.utils.set_random_seed(1)
    backbone = None if name == "tinyssd" else "small"
    model = registry.create_detector(name, 2, None, backbone, **NARROW.get(name, {}))
    for weight in model.trainable_weights:
        weight.assign_add(0.03 * keras.random.normal(weight.shape, seed=len(weight.path)))
    return model


@pytest.mark.parametrize("name", registry.DETECTORS)
def test_what_is_frozen_stays_so_in_a_file(tmp_path, monkeypatch, name):
    """Batch norms without statistics are frozen, and so are they in a model that is loaded."""
    add_tiny(monkeypatch, "small")
    pretrained = ()
    if name != "tinyssd":  # which has none
        pretrained = "small", tmp_path / "small.weights.h5"
        build_backbone("small").save_weights(pretrained[1])
    model = registry.create_detector(name, 2, None, *pretrained, **NARROW.get(name, {}))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    wanted, found = ([tuple(w.shape) for w in m.trainable_weights] for m in (model, loaded))
    assert found == wanted and wanted
    norms = [w.path for w in loaded.features.trainable_weights if re.search(r"bn\d", w.path)]
    assert norms == [] and loaded.get_config() == model.get_config()
    if name == "ssd":  # in older files it is missing
        config = model.get_config()
        del config["freeze_norm"]
        assert len(type(model).from_config(config).trainable_weights) > len(wanted)


@pytest.mark.parametrize("name", ["ssd", "yolo1", "detr", "retinanet", "fcos"])
def test_maps_cover_just_the_image_whatever_its_size(monkeypatch, name):
    """Cells, anchors and places stand for the pixels below them, where 32 divides no side, too."""
    model = small_detector(name, monkeypatch)
    image = np.random.default_rng(0).uniform(0, 255, (1, 70, 100, 3)).astype(np.float32)
    if name in ("retinanet", "fcos"):  # which count in pixels
        covered = np.pad(image, ((0, 0), (0, 26), (0, 28), (0, 0)), mode="edge")
    else:
        covered = tf.image.resize(image, (96, 128))
    found, wanted = (keras.tree.flatten(model(x)) for x in (image, covered))
    for a, b in zip(found, wanted, strict=True):
        if a.dtype == tf.float32:  # the others are sizes
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["ssd", "yolo1", "detr", "retinanet", "fcos", "faster_rcnn"])
def test_room_for_crowds(monkeypatch, name):
    """Where training images have more than 66 objects, more than 100 can be found."""
    model = small_detector(name, monkeypatch)
    settings = model.get_config()
    if name == "faster_rcnn":
        settings["rpn"] |= {"test_before_nms": 200, "test_proposals": 200}
    if name == "detr":
        settings["num_queries"] = 100  # in fifties
    assert model.make_room(66) == 100
    assert model.get_config() == settings
    assert model.make_room(101) == 200
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    assert getattr(copy.decoder, "max_candidates", 2000) == 2000  # SSD's: ten for each
    copy.decoder.score_threshold = 0.0
    image = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3), np.uint8)
    found = copy.detect(image)
    assert found["boxes"].shape == (1, 200, 4) and found["num_valid"][0] > 100


@pytest.mark.parametrize("name", some_long(registry.DETECTORS, "mask_rcnn", "retinanet", "tinyssd"))
def test_a_setting_that_changes_shows_in_the_next_detection(monkeypatch, name):
    """Whether it is the decoder's or the detector's own, as numbers of queries and proposals."""
    model = small_detector(name, monkeypatch)
    model.decoder.score_threshold = 0.0
    image = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), np.uint8)
    first = model.detect(image)
    model.score_threshold = 0.25  # matters to those who draw
    model.detect(image)
    assert model._detect.experimental_get_tracing_count() == 1
    model.make_room(66)
    found = model.detect(image)
    changed = name in ("detr", "faster_rcnn", "mask_rcnn")
    assert model._detect.experimental_get_tracing_count() == 1 + changed
    assert np.array_equal(found["boxes"], first["boxes"]) != changed
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    expected = copy.detect_batch(image)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-4, err_msg=key)


def test_a_grid_has_room_for_its_cells():
    model = YOLO1(2, image_size=(64, 70))
    assert model.make_room(101) == 2 * 3 * 2


@pytest.mark.parametrize("name", ["fcos", "yolo1", pytest.param("detr", marks=pytest.mark.long)])
def test_lite_of_a_model_without_an_image_size(tmp_path, monkeypatch, name):
    """Sizes are unknown in its graph then, and TensorFlow Lite lacks operators for that."""
    model = small_detector(name, monkeypatch)
    model.decoder.score_threshold = 1e-3  # random weights find objects hardly anywhere
    images = np.random.default_rng(0).uniform(0, 255, (1, 70, 100, 3)).astype(np.float32)
    save_lite(model, tmp_path / "model.tflite", images.shape[1:3])
    run = tf.lite.Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
    wanted, found = model.detect(images), run(images=images)
    assert int(wanted["num_valid"][0]) > 3
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, atol=1e-5, err_msg=key)
