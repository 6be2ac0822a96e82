"""Segmentation networks as files: the same numbers as in Python, without the package."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import small_backbone

from kerascv_d2l import FCN, InputError, Segmenter, UNet, export_segmenter, export_segmenter_lite
from kerascv_d2l.exported import load_exported, load_segmenter

NAMES, COLORS = ("sky", "road", "tree"), [[1, 2, 3], [250, 0, 9], [7, 99, 3]]
WINDOW = {"window": (64, 96), "overlap": 16, "windows_at_a_time": 2}
LONELY = """
import sys, json, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
answer = []
for k in range(int(sys.argv[2])):
    images = np.load(f"{k}.npy")
    found = model.scores(images)
    same = model.signatures["float_scores"](images=tf.constant(images, tf.float32))
    np.testing.assert_allclose(found["scores"], same["scores"], atol=1e-5)
    for name, dtype in (("serving_default", tf.uint8), ("float", tf.float32)):
        classes = model.signatures[name](images=tf.cast(images, dtype))["class_map"]
        assert classes.dtype == tf.int32
        np.testing.assert_array_equal(classes, found["class_map"])
    np.testing.assert_array_equal(model(images)["class_map"], found["class_map"])
    np.save(f"answer{k}.npy", found["scores"])
names = model.signatures["class_names"]()["class_names"].numpy().tolist()
colors = model.signatures["colors"]()["colors"].numpy().tolist()
modules = [name for name in sys.modules if name.startswith("kerascv_d2l")]
json.dump({"names": [n.decode() for n in names], "colors": colors, "modules": modules}, sys.stdout)
"""


def spread(model):
    """Weights that make classes differ from place to place."""
    for weight in model.weights:
        weight.assign(weight + 0.1 * keras.random.normal(weight.shape, seed=len(weight.shape)))
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = spread(FCN(3, small_backbone(8, 16, 32), stride=8))
    bias = model.get_layer("enlarge_to1").bias
    bias.assign(bias - tf.reduce_mean(model(picture(150, 201)), axis=[0, 1, 2]))
    return model


def picture(*size, batch=1):
    small = np.random.default_rng(sum(size)).uniform(0, 255, (batch, 5, 7, 3))
    return tf.cast(tf.image.resize(small, size), tf.uint8).numpy()


def test_saved_model_alone_in_a_new_process(model, tmp_path):
    export_segmenter(model, tmp_path / "saved", NAMES, COLORS, **WINDOW)
    pictures = [picture(64, 96), picture(150, 201, batch=2), picture(1, 2), picture(33, 70)]
    for k, images in enumerate(pictures):
        np.save(tmp_path / f"{k}.npy", images)
    (tmp_path / "lonely.py").write_text(LONELY)
    command = [sys.executable, "-I", "lonely.py", "saved", str(len(pictures))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer == {"names": list(NAMES), "colors": COLORS, "modules": []}
    segment = Segmenter(model, **WINDOW)
    seen = set()
    for k, images in enumerate(pictures):
        classes, scores = segment(images, return_scores=True)
        found = np.load(tmp_path / f"answer{k}.npy")
        scale = np.abs(scores).max()
        np.testing.assert_allclose(found, scores, atol=1e-5 * max(1, scale))
        assert (found.argmax(-1) == classes.numpy()).mean() > 0.999
        seen |= set(np.unique(classes))
    assert len(seen) > 1, "one class everywhere would hide mistakes"


def test_loading_for_scripts(model, tmp_path):
    export_segmenter(model, tmp_path / "saved", NAMES, COLORS, **WINDOW)
    segment, names, colors = load_segmenter(tmp_path / "saved")
    images = picture(70, 40)
    np.testing.assert_array_equal(segment(images), Segmenter(model, **WINDOW)(images))
    assert names == list(NAMES) and colors.dtype == np.uint8
    np.testing.assert_array_equal(colors, COLORS)
    export_segmenter(model, tmp_path / "flipped", NAMES, COLORS, **WINDOW, flip=True)
    flipped, _ = load_exported(tmp_path / "flipped", "scores", "train_fcn.py")
    scores = flipped(images)["scores"]
    _, wanted = Segmenter(model, **WINDOW, flip=True)(images, return_scores=True)
    np.testing.assert_allclose(scores, wanted, atol=1e-5 * np.abs(wanted).max())
    _, plain = Segmenter(model, **WINDOW)(images, return_scores=True)
    assert np.abs(wanted - plain).max() > 1e-3 * np.abs(plain).max()
    with pytest.raises(InputError, match=r"no model that train_ssd\.py exported"):
        load_exported(tmp_path / "saved", "detect", "train_ssd.py")
    with pytest.raises(InputError, match="is no SavedModel"):
        load_segmenter(tmp_path)


def interpret(path, images):
    interpreter = tf.lite.Interpreter(
        str(path),
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not [op for op in operators if op.startswith(("Flex", "CUSTOM"))]
    return interpreter.get_signature_runner()(images=images)


def test_lite_gives_the_same_with_builtin_operators(model, tmp_path):
    for network, size in ((model, (50, 70)), (spread(UNet(3, filters=(4, 6, 8))), (24, 30))):
        export_segmenter_lite(network, tmp_path / "model.tflite", size)
        images = picture(*size).astype(np.float32)
        found = interpret(tmp_path / "model.tflite", images)
        scores = network(images).numpy()
        np.testing.assert_allclose(found["scores"], scores, atol=1e-4 * np.abs(scores).max())
        assert found["class_map"].shape == (1, *size) and found["class_map"].dtype == np.int32
        np.testing.assert_array_equal(found["class_map"], found["scores"].argmax(-1))


def test_lite_of_a_network_trained_in_16_bits(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = UNet(3, small_backbone(2, 4, 8, 16, 32), filters=(2, 4, 4, 6, 6))
        export_segmenter_lite(network, tmp_path / "model.tflite", (32, 64))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    images = picture(32, 64).astype(np.float32)
    found = interpret(tmp_path / "model.tflite", images)
    scores = network(images).numpy()
    np.testing.assert_allclose(found["scores"], scores, atol=0.05 * np.abs(scores).max())
