"""Tell what this package wrote from a user's own files."""

import os
import re

DRAWN = ".drawn.png"  # how the names of drawings end that may lie beside the data
SETTINGS = "settings.json"  # of a training run
# What is in every folder of outputs: a JSON file and how it begins.
_RUN = re.compile(rb'\{\s*"task": "\w+",\s*"settings": \{')
_RESULT = re.compile(rb'\{\s*("task": "\w+",\s*"model": |"model": .*\s*"task": ")')
_MARKS = {
    SETTINGS: _RUN,
    "predictions.json": _RESULT,
    "explanations.json": _RESULT,
    "metrics.json": _RESULT,
}
_MOST_READ = 10_000  # bytes; the name of a model may be long


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
    return _is_marked(entry) or _has_only_outputs(entry)


def holds_run(folder):
    """Whether there are the settings of a training run in a folder."""
    return _begins(os.path.join(folder, SETTINGS), _RUN)


def _is_marked(folder):
    return any(_begins(os.path.join(folder, name), mark) for name, mark in _MARKS.items())


def _begins(file, pattern):
    try:
        with open(file, "rb") as opened:
            return pattern.match(opened.read(_MOST_READ)) is not None
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
