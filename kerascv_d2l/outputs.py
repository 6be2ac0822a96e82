"""Tell what this package wrote from a user's own files."""

import os
import re

DRAWN = ".drawn.png"  # how the names of drawings end that may lie beside the data
SETTINGS = "settings.json"  # in the folder of a training run
_RUN = re.compile(rb'\{\s*"task": "\w+",\s*"settings": \{')  # how it begins
_MOST_READ = 1000  # bytes
MARK = ".kerascv_d2l"  # a file in the other folders that this package made for its outputs
ABOUT_MARK = "kerascv_d2l made this folder for its outputs, and never reads it as data.\n"


def is_output(entry):
    """Whether this package wrote a file or folder, or all that is in the folder.

    Args:
        entry: `os.DirEntry` or `Path`.
    """
    if entry.name.endswith(DRAWN):
        return True
    # What a link leads to was put there by the user.
    if entry.is_symlink() or not entry.is_dir():
        return False
    marked = os.path.lexists(os.path.join(entry, MARK))
    return marked or holds_run(entry) or _has_only_outputs(entry)


def holds_run(folder):
    """Whether there are the settings of a training run in a folder."""
    try:
        with open(os.path.join(folder, SETTINGS), "rb") as file:
            return _RUN.match(file.read(_MOST_READ)) is not None
    except OSError:  # nearly always: there is none
        return False


def _has_only_outputs(folder):
    """Whether there is something in a folder, and all of it is written by this package."""
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not is_output(entry):  # nearly always: the first image
                    return False
                found = True
    except OSError:  # said when it is read
        return False
    return found
