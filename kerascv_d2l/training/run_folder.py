"""The folder of a training run: what is in it, whose it is, and how large that is."""

import math
import os
from pathlib import Path

from kerascv_d2l.errors import InputError
from kerascv_d2l.outputs import SETTINGS, holds_run
from kerascv_d2l.training.checkpoint import has_checkpoint, is_damaged

CHECKPOINT, METRICS = "checkpoint", "metrics.json"
# A folder that holds one of these holds a run.
_RESULTS = (CHECKPOINT, METRICS, "model.keras", "saved_model")
# What else runs write.
_WRITTEN = (SETTINGS, "*.csv", "*.png", "*.gif", "*.keras", "*.tflite", "validation.txt")
_WRITTEN += ("samples", "steps")


class FolderInUse(InputError):  # noqa: N818 (a state of the folder, not a defect)
    """Another process writes to the folder of the run."""


def results_in(folder):
    """List the names of a run's results that are in a folder."""
    return [name for name in _RESULTS if (Path(folder) / name).exists()]


def others_in(folder):
    """List the files in a folder that a run might write over, where they are of no run."""
    folder = Path(folder)
    if holds_run(folder):
        return []
    return sorted({p.name for name in _WRITTEN for p in folder.glob(name)})


def is_finished(folder):
    """Whether a folder holds a run that came to its end."""
    return (Path(folder) / METRICS).exists()


def is_resumable(folder):
    """Whether a folder holds a checkpoint of a run, if only a damaged one, which is then said."""
    folder = Path(folder) / CHECKPOINT
    return has_checkpoint(folder) or is_damaged(folder)


def lock_folder(folder):
    """Hold a lock on a folder until it is closed or the process ends, however it ends.

    Args:
        folder: a folder.

    Returns:
        int, a descriptor for `os.close`, or None where there are no locks.

    Raises:
        FolderInUse: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FolderInUse(
            f"out {folder} is in use: another process is training into it. Wait for it, stop "
            "it, or give another out"
        ) from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def size_in_words(path):
    """Say how large a file, or all files in a folder, are, as `"1.5 MB"`."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = float(sum(p.stat().st_size for p in files))
    if size < 1000:
        return f"{size:.0f} bytes"
    exponent = min(int(math.log10(size) // 3), 3)
    return f"{size / 1000**exponent:.1f} {('kB', 'MB', 'GB')[exponent - 1]}"
