"""Writing files so that a name never stands for something half written."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


@contextlib.contextmanager
def whole(path):
    """Give a temporary path beside `path`, which becomes `path` when the block ends well.

    The block may create a file or a folder there. If it raises, or the process
    is killed, `path` is left as it was.

    Args:
        path: the final name. Missing parent folders are made.

    Yields:
        `Path` with the same file-name ending as `path`, in a scratch folder of
        the same parent (so that the final rename never crosses file systems).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        temporary = scratch / path.name
        yield temporary
        _flush_to_disk(temporary)
        if path.is_dir():
            # os.replace cannot replace a folder with content: move it aside first.
            os.replace(path, scratch / (path.name + ".old"))
        os.replace(temporary, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush_to_disk(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
