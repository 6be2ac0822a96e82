"""A run of every training script on two devices, in one process, for `test_training_scripts.py`.

`python devices_child.py FOLDER` trains on FOLDER/NAME/data into FOLDER/NAME/two for each NAME.
"""

import sys
from pathlib import Path

from training_data import FLAGS, arguments, load_script

root = Path(sys.argv[1])
for name in FLAGS:
    flags = ["--devices", "cpu:2", "--sync-batch-norm", "--recipe", "book"]
    load_script(name).main(arguments(name, root / name / "data", root / name / "two", *flags))
