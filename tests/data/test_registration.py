"""Importing the data sets registers them, and costs no TensorFlow."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.quick

CODE = """
import sys
import kerascv_d2l.data
assert "tensorflow" not in sys.modules
import tensorflow_datasets as tfds
for name in ("banana_detection", "hotdog", "voc2012_segmentation"):
    assert tfds.builder_cls(name).name == name
assert "tensorflow" not in sys.modules
"""


def test_registered_without_tensorflow():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
