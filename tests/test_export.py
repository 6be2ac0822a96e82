import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import TinySSD, export_detector, export_detector_lite

# Loads the export in a process that knows TensorFlow and nothing else.
LONELY = """
import sys, json, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
answer = {}
for name, array in (("uint8", images), ("float", images.astype(np.float32))):
    found = model.detect(array)
    answer[name] = {k: v.numpy().tolist() for k, v in found.items()}
names = model.signatures["class_names"]()["class_names"].numpy().tolist()
answer["names"] = [n.decode() for n in names]
answer["modules"] = [m for m in ("keras", "kerascv_d2l") if m in sys.modules and m != "keras"]
json.dump(answer, sys.stdout)
"""


@pytest.fixture(scope="module")
def detector():
    """Random, but with predictions far from each other: batch norm has seen pictures."""
    keras.utils.set_random_seed(3)
    model = TinySSD(2, image_size=(64, 96), class_names=("cat", "dog"))
    for _ in range(5):
        model(np.random.default_rng(0).uniform(0, 255, (8, 64, 96, 3)), training=True)
    return model


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).integers(0, 256, (3, 150, 110, 3), np.uint8)


def test_saved_model_alone_in_a_new_process(detector, pictures, tmp_path):
    export_detector(detector, tmp_path / "saved")
    np.save(tmp_path / "images.npy", pictures)
    (tmp_path / "lonely.py").write_text(LONELY)
    command = [sys.executable, "-I", "lonely.py", "saved", "images.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["names"] == ["cat", "dog"]
    assert answer["modules"] == []
    expected = detector.detect(pictures)
    assert expected["num_valid"].numpy().min() > 5
    for kind in ("uint8", "float"):
        for name, value in expected.items():
            np.testing.assert_allclose(answer[kind][name], value, atol=1e-5, err_msg=name)
        in_pixels = expected["boxes"].numpy() * [110, 150, 110, 150]
        np.testing.assert_allclose(answer[kind]["boxes_px"], in_pixels, atol=2e-3)


def test_signatures(detector, pictures, tmp_path):
    export_detector(detector, tmp_path / "saved")
    signatures = tf.saved_model.load(str(tmp_path / "saved")).signatures
    expected = detector.detect(pictures[:1])
    for name, dtype in (("serving_default", tf.uint8), ("float", tf.float32)):
        found = signatures[name](images=tf.cast(pictures[:1], dtype))
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-5)
        np.testing.assert_array_equal(found["classes"], expected["classes"])


def test_lite_gives_the_same_with_builtin_operators(detector, pictures, tmp_path):
    detector.detect(pictures)  # traces of other batches must not get into the file
    detector.detect(pictures[:2])
    export_detector_lite(detector, tmp_path / "model.tflite")
    interpreter = tf.lite.Interpreter(
        str(tmp_path / "model.tflite"),
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not [op for op in operators if op.startswith(("Flex", "CUSTOM"))]
    run = interpreter.get_signature_runner()
    for size in ((150, 110), (64, 96)):
        image = pictures[:1, : size[0], : size[1]].astype(np.float32)
        image = np.ascontiguousarray(np.resize(image, (1, *size, 3)))
        found = run(images=image)
        expected = detector.detect(image)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(
            found["boxes_px"],
            expected["boxes"] * [size[1], size[0], size[1], size[0]],
            atol=1e-2,
        )
