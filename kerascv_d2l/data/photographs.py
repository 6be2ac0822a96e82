"""A folder of photographs, of which nothing is known."""

from pathlib import Path

import numpy as np
from PIL import Image

from kerascv_d2l.data.classification import LITTER, ClassificationSplit
from kerascv_d2l.data.images import check_images
from kerascv_d2l.errors import InputError


def read_photographs(path, skip_bad=False):
    """Find all pictures in a folder and the folders in it.

    A picture is a file with the ending of one (`.jpg`, `.png`, …); others and hidden files are
    passed over. Every picture is decoded once, to find damaged ones now and not in the middle
    of training.

    Args:
        path: the folder.
        skip_bad: bool: go on without files that cannot be read; `skipped` says which and why.

    Returns:
        `ClassificationSplit` of a single class, sorted by name.

    Raises:
        InputError: if there is no such folder, it has no picture, or one is damaged.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    endings = {
        ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN
    }
    files = [
        str(file)
        for file in sorted(root.rglob("*"))
        if file.suffix.lower() in endings and _is_visible(file.relative_to(root)) and file.is_file()
    ]
    infos, reasons = check_images(files, skip_bad)
    kept = [i for i, info in enumerate(infos) if info is not None]
    if not kept:
        why = f"; the first that was left out: {reasons[0]}" if reasons else ""
        raise InputError(f"{root}: no picture in it, nor in a folder in it{why}")
    prefix = len(str(root)) + 1
    return ClassificationSplit(
        [files[i] for i in kept],
        np.zeros(len(kept), np.int32),
        [files[i][prefix:] for i in kept],
        np.array([infos[i][:2] for i in kept]),
        np.array([infos[i].plain for i in kept]),
        reasons,
    )


def _is_visible(file):
    return not any(part.startswith(".") or part.lower() in LITTER for part in file.parts)
