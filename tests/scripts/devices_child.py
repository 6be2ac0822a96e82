"""A run of every training script on two devices, for `test_training_scripts.py`.

`python devices_child.py FOLDER` trains on FOLDER/NAME/data into FOLDER/NAME/two for each NAME.
"""

import os
import sys
from pathlib import Path

import tensorflow  # noqa: F401 - once, for all of the forks
from pytest import MonkeyPatch
from training_data import DEVICES_FLAGS, add_tiny, arguments, load_script, without_results

add_tiny(MonkeyPatch())
without_results(MonkeyPatch())
root = Path(sys.argv[1])
for name, flags in DEVICES_FLAGS.items():
    # A process each: TensorFlow's collectives remember the shapes of an earlier strategy.
    if os.fork() == 0:
        data, out = root / name / "data", root / name / "two"
        load_script(name).main(arguments(name, data, out, "--devices", "cpu:2", *flags))
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{name} failed")
