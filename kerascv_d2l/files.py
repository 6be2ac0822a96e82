"""Writing files so that a name never stands for something half written."""

import contextlib
import itertools
import json
import math
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from kerascv_d2l.errors import InputError, WriteError, first_of
from kerascv_d2l.outputs import ABOUT_MARK, MARK

_SCRATCH_PREFIX = ".writing-"
_PATTERNS = "*?["
_FULL = "ResourceExhaustedError"  # TensorFlow's for a full disk; to import it takes seconds


@contextlib.contextmanager
def whole(path):
    """Give a temporary path beside `path`, which becomes `path` when the block ends well.

    The block may create a file or a folder there. If it raises, or the process
    is killed, `path` is left as it was. For a file that holds at any moment. A
    folder that replaces a folder takes two renames: a process killed between
    them leaves no `path` (and never a half-written one).

    Args:
        path: the final name. Missing parent folders are made.

    Yields:
        `Path` with the same file-name ending as `path`, in a scratch folder of
        the same parent (so that the final rename never crosses file systems).

    Raises:
        FileNotFoundError: if the block ends without having written anything.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=path.parent))
    try:
        temporary = scratch / path.name
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {path}")
        _flush_to_disk(temporary)
        _rename(temporary, path, aside=scratch / (path.name + ".old"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def scratch_folder(folder):
    """Make a folder in `folder` that is gone after a `with` block: `remove_leftovers` knows it."""
    return tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH_PREFIX)


def remove_leftovers(folder):
    """Remove the scratch folders that a killed process left behind in `folder`.

    Call it only while no other process writes there.
    """
    for scratch in Path(folder).glob(f"{_SCRATCH_PREFIX}*"):
        shutil.rmtree(scratch, ignore_errors=True)


def plain(value):
    """Turn a value into what JSON knows.

    NumPy and TensorFlow numbers and arrays become numbers and lists, paths
    become text, NaN and infinities become `None`: JSON has no word for them.
    """
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def write_json(path, value):
    """Write `plain(value)` as indented JSON, whole."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with whole(path) as temporary:
        # A file's name may be no UTF-8; JSON writes such a letter as an escape.
        temporary.write_bytes((text + "\n").encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def writing(path):
    """Turn errors of the file system, such as a full disk, into a `WriteError` that names `path`.

    Those of Python and that of TensorFlow are known; a `WriteError` of a part passes unchanged.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    except Exception as error:
        if type(error).__name__ != _FULL:
            raise
        # "{{node …}} PATH of a temporary file; No space left on device [Op:SaveV2]"
        reason = str(error).splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]
        raise WriteError(f"{path}: cannot be written ({reason})") from error


def check_for_tensorflow(path):
    """Refuse a path of which TensorFlow would not find again what it writes there.

    It takes some characters for a pattern: a checkpoint is then found neither to restore nor to
    delete it, nor are the variables of a SavedModel.

    Args:
        path: file or folder.

    Raises:
        InputError: if there is such a character in it.
    """
    if found := [c for c in _PATTERNS if c in str(path)]:
        raise InputError(
            f"{path}: TensorFlow takes {first_of(found)} in a path for a pattern, and would not "
            "find its files again; give a folder without it"
        )


def make_folder(folder):
    """Make a folder if it is missing, and try out whether it can be written to.

    Raises:
        WriteError: if it cannot.
    """
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


class NewFiles:
    """A folder in which nothing that was there before is overwritten.

    If it is missing, it gets a mark, too: what is written there is never read as data.

    Args:
        folder: it is made if it is missing, and tried out: what cannot be written to is found
            before anything is computed. If nothing is written there, it is taken away again.

    Raises:
        WriteError: if it cannot be written to.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        above = [self.folder, *self.folder.absolute().parents]
        made = list(itertools.takewhile(lambda folder: not folder.exists(), above))
        make_folder(self.folder)
        if made:
            with writing(self.folder):
                (self.folder / MARK).write_text(ABOUT_MARK)
            weakref.finalize(self, _remove_empty, made)

    def paths(self, stem, *endings):
        """Give the path `STEM + ENDING` for each ending; all numbered if one of them is taken."""
        number = 1
        while True:
            name = stem if number == 1 else f"{stem}-{number}"
            paths = [self.folder / f"{name}{ending}" for ending in endings]
            if not any(os.path.lexists(path) for path in paths):
                return paths
            number += 1

    def save_image(self, path, image):
        """Write a `PIL.Image`, whole."""
        with writing(path), whole(path) as temporary:
            image.save(temporary)

    def save_json(self, path, value):
        """Write JSON as `write_json` does."""
        with writing(path):
            write_json(path, value)


def _remove_empty(folders):
    """Take away folders, the innermost first, up to one that has something in it."""
    with contextlib.suppress(OSError):
        if os.listdir(folders[0]) == [MARK]:
            (folders[0] / MARK).unlink()
        for folder in folders:
            folder.rmdir()


def _rename(temporary, path, aside):
    # os.replace puts a file over a file in one step, but nothing over a folder with content:
    # that has to be moved aside first.
    if not path.is_dir():
        os.replace(temporary, path)
        return
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(aside, path)
        raise


def _flush_to_disk(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
