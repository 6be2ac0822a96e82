"""Models of every task as files: the same numbers as in Python, with and without the package."""

import functools
import json

import children
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_networks import small_backbone

from kerascv_d2l import (
    FCN,
    Classifier,
    InputError,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Segmenter,
    TinySSD,
    TransformerNet,
    UNet,
    load_model,
)
from kerascv_d2l.errors import WriteError
from kerascv_d2l.export import load, save, save_lite

NAMES, COLORS = ("sky", "road", "tree"), [[1, 2, 3], [250, 0, 9], [7, 99, 3]]
SEGMENTER = {"window": (32, 64), "overlap": 16, "windows_at_a_time": 2, "flip": True}
SIZES = ((50, 70), (97, 40))  # of images: two shapes that are no multiples of a stride
TWO_DEVICES = """
import keras, numpy as np, tensorflow as tf
from small_networks import small_backbone
from kerascv_d2l import Classifier
from kerascv_d2l.export import save
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
with tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"]).scope():
    pixels = keras.Input((None, None, 3))
    maps = keras.layers.BatchNormalization()(small_backbone(32)(pixels)[0])
    model = Classifier(keras.Model(pixels, maps), 3, image_size=(8, 16))
    model.compile("sgd", "mse", jit_compile=False)
draw = np.random.default_rng(0)
model.fit(draw.uniform(0, 255, (4, 8, 16, 3)), draw.normal(size=(4, 3)), 4, verbose=0)
save(model, "two")
model.save("two.keras")
np.save("answer.npy", model.classify(np.load("images.npy"))["probabilities"])
"""
# Loads all exports in a process that knows TensorFlow and nothing else.
LONELY = """
import json, pathlib, sys, numpy as np, tensorflow as tf
report = {}
for folder in sorted(pathlib.Path(".").glob("*/")):
    model = tf.saved_model.load(str(folder))
    signatures = model.signatures
    facts = {n: signatures[n]() for n in ("info", "class_names", "colors") if n in signatures}
    facts = {n: {k: np.asarray(v).tolist() for k, v in f.items()} for n, f in facts.items()}
    functions = [name.decode() for name in facts["info"]["functions"]]
    answers = {}
    for size in range(2):
        images = np.load(f"images{size}.npy")
        for i, name in enumerate(functions):
            for dtype in ("uint8", "float64"):
                for k, v in getattr(model, name)(images.astype(dtype)).items():
                    answers[f"{size} {name} {dtype} {k}"] = v
            signature = name if i else "serving_default"
            for k, v in signatures[signature](images=tf.constant(images)).items():
                answers[f"{size} {name} serving {k}"] = v
            signature = f"float_{name}" if i else "float"
            for k, v in signatures[signature](images=tf.constant(images, tf.float32)).items():
                answers[f"{size} {name} float {k}"] = v
        for k, v in model(images).items():
            answers[f"{size} {functions[0]} call {k}"] = v
    answers = {k: v.numpy().astype("U") if v.dtype == tf.string else v for k, v in answers.items()}
    np.savez(f"{folder}.npz", **answers)
    report[folder.name] = facts
assert not [name for name in sys.modules if name.startswith("kerascv_d2l")]
json.dump(report, sys.stdout, default=lambda text: text.decode())
"""


def spread(model):
    """Weights that make the answers differ from class to class and place to place."""
    for weight in model.weights:
        weight.assign(weight + 0.1 * keras.random.normal(weight.shape, seed=len(weight.shape)))
    return model


def detector():
    """Random, but with predictions far from each other: batch norm has seen images."""
    model = TinySSD(NAMES, image_size=(64, 96))
    for _ in range(5):
        model(np.random.default_rng(0).uniform(0, 255, (8, 64, 96, 3)), training=True)
    return model


def mixed(build):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return spread(build())
    finally:
        keras.config.set_dtype_policy("float32")


def augmented_backbone():
    """Layers of augmentation in a model: off in what is exported."""
    pixels = keras.Input((None, None, 3))
    x = RandomVerticalFlip()(RandomHorizontalFlip()(pixels))
    return keras.Model(pixels, small_backbone(32)(x))


def encoder():
    return small_backbone(2, 4, 8, 16, 32)


CASES = {
    "detector": detector,
    "classifier": lambda: spread(Classifier(augmented_backbone(), NAMES, image_size=(32, 64))),
    "fcn": lambda: spread(
        FCN(NAMES, small_backbone(8, 16, 32), stride=8, colors=COLORS, segmenter_options=SEGMENTER)
    ),
    "unet_16_bits": lambda: mixed(lambda: UNet(NAMES, encoder(), filters=(2, 4, 4, 6, 6))),
    "style": lambda: spread(TransformerNet(width=4, residual_blocks=1)),
}
LITE = ("detector", "classifier", "fcn", "unet_16_bits")


@pytest.fixture(scope="module")
def models():
    keras.utils.set_random_seed(3)
    return {name: build() for name, build in CASES.items()}


def images_of(size, batch=2):
    small = np.random.default_rng(sum(size)).integers(0, 256, (batch, 9, 7, 3), np.uint8)
    return np.stack([Image.fromarray(image).resize(size[::-1]) for image in small])


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    """Folder with all exports, and what a process without the package says of them."""
    folder = tmp_path_factory.mktemp("exports")
    for name, model in models.items():
        save(model, folder / name)
        model.save(folder / f"{name}.keras")
    for k, size in enumerate(SIZES):
        np.save(folder / f"images{k}.npy", images_of(size))
    (folder / "lonely.py").write_text(LONELY)
    done = children.run(folder / "lonely.py", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def loaded(exported):
    """What `load` gives of each export, and of its .keras file."""
    folder, _ = exported
    return {case: [load(folder / case), load(folder / f"{case}.keras")] for case in CASES}


@pytest.fixture(scope="module")
def answers_in_python(models):
    """Function of a case and a size: the answers of every endpoint, without a graph around it."""
    return functools.cache(lambda case, size: _answers(models[case], images_of(size)))


def _answers(model, images):
    return {
        name: {k: v.numpy() for k, v in function(tf.constant(images)).items()}
        for name, (function, _) in model.endpoints().items()
    }


def assert_same(found, wanted, case, what):
    found, wanted = (np.asarray(x) for x in (found, wanted))
    if wanted.dtype == object:  # names, which NumPy keeps as text
        np.testing.assert_array_equal(found.astype("U"), wanted.astype("U"), err_msg=what)
        return
    assert found.dtype == wanted.dtype and found.shape == wanted.shape, what
    if wanted.dtype.kind == "f":
        # bfloat16 rounds elsewhere in another order of operations
        scale = np.abs(wanted).max() * (1e-2 if case == "unet_16_bits" else 1e-5)
        np.testing.assert_allclose(found, wanted, atol=max(scale, 1e-5), err_msg=what)
    else:
        off = np.abs(found.astype(int) - wanted)
        assert (off > (case == "style")).mean() < 0.02, what  # pixels round, and classes tie


@pytest.mark.parametrize("case", CASES)
def test_the_same_everywhere(answers_in_python, exported, loaded, case, request):
    """Python, the SavedModel alone in a new process, `load` of it, and of the .keras file."""
    if case in ("classifier", "fcn"):
        request.getfixturevalue("optimized_graphs")
    folder, _ = exported
    lonely, loaded, compared = np.load(folder / f"{case}.npz"), loaded[case], 0
    for k, size in enumerate(SIZES):
        images = images_of(size)
        for number, (name, wanted) in enumerate(answers_in_python(case, size).items()):
            for key, value in wanted.items():
                kinds = ["uint8", "float64", "serving", "float"] + ["call"][: not number]
                for kind in kinds:
                    assert_same(lonely[f"{k} {name} {kind} {key}"], value, case, f"{kind} {key}")
                    compared += 1
                for model in loaded:
                    found = getattr(model, name)(images.astype(("uint8", "float32")[k]))[key]
                    assert_same(found, value, case, key)
        names = set(answers_in_python(case, size))
        assert set(loaded[0].functions) == set(loaded[1].functions) == names
    assert compared == len(lonely.files)


def test_new_sizes_are_not_traced_anew(loaded):
    """What TensorFlow restores is traced for each new size, up to a second; its traces are not."""
    model, _ = loaded["detector"]
    for size in SIZES:
        model.detect(images_of(size))
    assert model.detect.model.detect.experimental_get_tracing_count() == 0


def test_the_same_after_training_on_two_devices(tmp_path):
    images = images_of(SIZES[0])
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "two_devices.py").write_text(TWO_DEVICES)
    done = children.run(tmp_path / "two_devices.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("two", "two.keras"):
        found = load(tmp_path / name).classify(images)["probabilities"]
        np.testing.assert_allclose(found, np.load(tmp_path / "answer.npy"), atol=1e-5)


def test_answers_vary(answers_in_python):
    """One class everywhere would hide mistakes."""
    for case in ("fcn", "unet_16_bits"):
        assert len(np.unique(answers_in_python(case, SIZES[0])["segment"]["class_map"])) > 1
    found = answers_in_python("detector", SIZES[0])["detect"]
    assert found["num_valid"].min() > 5
    np.testing.assert_allclose(found["boxes_px"], found["boxes"] * [70, 50, 70, 50], atol=1e-4)


def test_what_an_export_tells(exported, loaded):
    _, report = exported
    tasks = {"detector": "detection", "classifier": "classification", "style": "style"}
    for case in CASES:
        task = tasks.get(case, "segmentation")
        assert report[case]["info"]["task"] == task
        for model in loaded[case]:
            assert model.task == task
            names = () if case == "style" else NAMES
            assert model.class_names == names
            assert (model.colors is not None) == (task == "segmentation")
    assert report["fcn"]["colors"]["colors"] == loaded["fcn"][0].colors.tolist() == COLORS
    assert "class_names" not in report["style"]


def interpret(path):
    interpreter = tf.lite.Interpreter(
        str(path),
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not [op for op in operators if op.startswith(("Flex", "CUSTOM"))]
    return interpreter


@pytest.mark.parametrize("case", LITE)
def test_lite_is_the_same_with_builtin_operators(models, tmp_path, case):
    model, size = models[case], (48, 80)
    if case == "detector":
        model.detect(images_of((30, 70)))  # traces of other images must not get into the file
    save_lite(model, tmp_path / "model.tflite", size)
    interpreter = interpret(tmp_path / "model.tflite")
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, *size, 3]
    run = interpreter.get_signature_runner()
    fixed = hasattr(model, "lite_endpoint")
    for height, width in [size] if fixed else [size, (97, 40)]:
        images = images_of((height, width), batch=1).astype(np.float32)
        endpoints = model.endpoints()
        function = endpoints.get("scores", next(iter(endpoints.values())))[0]
        wanted = {k: v.numpy() for k, v in function(images).items() if v.dtype != tf.string}
        found = run(images=images)
        assert set(found) == set(wanted)
        for key, value in wanted.items():
            scale = 0.1 if case == "unet_16_bits" else 1e-4
            if value.dtype.kind == "f":
                atol = scale * max(1, np.abs(value).max())
                np.testing.assert_allclose(found[key], value, atol=atol, err_msg=key)
            elif case != "unet_16_bits":
                assert (found[key] == value).mean() > 0.99


@pytest.mark.parametrize("size", [(20, 100), (64, 32)])
def test_lite_has_the_windows_of_the_export(models, tmp_path, size):
    """Also of sides below its stride."""
    model = models["fcn"]
    save_lite(model, tmp_path / "model.tflite", size)
    images = images_of(size, batch=1).astype(np.float32)
    found = interpret(tmp_path / "model.tflite").get_signature_runner()(images=images)
    classes, scores = Segmenter(model, **SEGMENTER)(images, return_scores=True)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-4 * np.abs(scores).max())
    assert (found["class_map"] == classes.numpy()).mean() > 0.99


def test_lite_starts_with_the_size_of_the_model(models, tmp_path):
    save_lite(models["classifier"], tmp_path / "model.tflite")
    interpreter = interpret(tmp_path / "model.tflite")
    details = interpreter.get_input_details()[0]
    assert details["shape"].tolist() == [1, 32, 64, 3]
    interpreter.allocate_tensors()
    images = images_of((32, 64), batch=1).astype(np.float32)
    interpreter.set_tensor(details["index"], images)
    interpreter.invoke()
    wanted = models["classifier"].classify(images)["probabilities"].numpy()
    outputs = [interpreter.get_tensor(out["index"]) for out in interpreter.get_output_details()]
    assert any(o.shape == wanted.shape and np.allclose(o, wanted, atol=1e-4) for o in outputs)
    with pytest.raises(InputError, match="image_size=None, and the model has none"):
        save_lite(models["fcn"], tmp_path / "model.tflite")


def test_a_full_disk_names_the_folder(models, tmp_path, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(WriteError, match=r"here: cannot be written \(No space left on device\)"):
        save(models["classifier"], tmp_path / "here")
    with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\)"):
        save_lite(models["classifier"], tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_path_that_tensorflow_takes_for_a_pattern(models, tmp_path):
    with pytest.raises(InputError, match=r"TensorFlow takes \* in a path"):
        save(next(iter(models.values())), tmp_path / "a*")
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "saved_model.pb").touch()
    with pytest.raises(InputError, match=r"TensorFlow takes \[ in a path"):
        load(tmp_path / "a[1]")


def test_what_is_no_model(exported, tmp_path):
    folder, _ = exported
    (tmp_path / "run" / "saved_model").mkdir(parents=True)
    (tmp_path / "run" / "saved_model" / "saved_model.pb").write_bytes(b"not what the name says")
    (tmp_path / "broken.keras").write_bytes(b"not what the name says")
    (tmp_path / "notes.txt").write_text("?")
    other = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    plain = tf.Module()
    plain.double = tf.function(lambda x: 2 * x, [tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(plain, str(tmp_path / "other"))
    for name, message in {
        "nowhere": "there is no such file or folder",
        "run": r"is a folder without a model .*: give the folder .*run/saved_model",
        ".": r"is a folder without a model .*: give saved_model/ or model\.keras",
        "run/saved_model": "no SavedModel that this package wrote",
        "other": "no SavedModel that this package wrote",
        "broken.keras": "no Keras model that can be loaded",
        "other.keras": r"other\.keras is a model without a task",
        "notes.txt": r"expected a SavedModel \(a folder\) or a \.keras file",
    }.items():
        with pytest.raises(InputError, match=message):
            load(tmp_path / name)
    with pytest.raises(InputError, match="no Keras model that can be loaded"):
        load_model(tmp_path / "nowhere.keras")
    with pytest.raises(InputError, match="Sequential is a model without a task"):
        save(keras.Sequential([]), tmp_path / "x")
    assert type(load_model(folder / "fcn.keras")) is FCN
