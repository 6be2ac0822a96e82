"""A style transfer, undisturbed, and killed and resumed; run by `test_style_transfer.py`.

`python style_child.py WHOLE KILLED KILL_AT FLAGS` paints into the folder WHOLE; then into KILLED,
which is killed at step KILL_AT; then into KILLED again, with `--resume` and without the images
so far, so that there will be those that it makes itself.
"""

import os
import signal
import sys
from pathlib import Path

from pytest import MonkeyPatch
from training_data import add_tiny, load_script

import kerascv_d2l.style_transfer  # noqa: F401 - once, for all of the forks

add_tiny(MonkeyPatch())
whole, killed, kill_at, *flags = sys.argv[1:]


def paint(kill=False):
    """Run the script."""
    script = load_script("style_transfer")
    script.CHECKPOINT_SECONDS, script.CHECKPOINT_SHARE = 0, 1e9  # after every step

    class Killer(script.Watcher):
        def __call__(self, transfer):
            if kill and len(transfer.history) == int(kill_at):
                os.kill(os.getpid(), signal.SIGKILL)
            super().__call__(transfer)

    script.Watcher = Killer
    script.main(flags)


for folder, kill, more in ((whole, False, []), (killed, True, []), (killed, False, ["--resume"])):
    if os.fork() == 0:
        flags += ["--out", folder, *more]
        paint(kill)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    if status != (-signal.SIGKILL if kill else 0):
        sys.exit(f"{folder} {more}: status {status}")
    if kill:
        for image in Path(folder, "steps").iterdir():
            image.unlink()
