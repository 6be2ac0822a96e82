"""The archive of CIFAR-10 as it is published: 32 x 32 images as rows of bytes."""

import tarfile
import time
from pathlib import Path

import numpy as np

from kerascv_d2l.data.splits import DataSet, Split
from kerascv_d2l.errors import InputError

NAME = "cifar10"
NUM_CLASSES = 10
SIZE = (32, 32)
_PIXELS = SIZE[0] * SIZE[1] * 3
_TRAIN = [f"data_batch_{i}.bin" for i in range(1, 6)]
_TEST = "test_batch.bin"
_CLASS_NAMES = "batches.meta.txt"


def read_archive(path):
    """Read CIFAR-10 from `cifar-10-binary.tar.gz`, or from a folder unpacked from it.

    Args:
        path: name of the file or folder.

    Returns:
        `DataSet` of uint8 arrays `(n, 32, 32, 3)`: 50,000 images to train on, and the 10,000
        of the test batch to validate on.

    Raises:
        InputError: if there is no such file or folder, or it is damaged or something else.
    """
    start = time.perf_counter()
    path = Path(path).expanduser()
    files = _members(path)
    if missing := [name for name in (*_TRAIN, _TEST, _CLASS_NAMES) if name not in files]:
        raise InputError(
            f"{path}: no {missing[0]} in it; wanted cifar-10-binary.tar.gz (the form for Python is "
            "not read), or the folder unpacked from it"
        )
    names = tuple(files[_CLASS_NAMES].decode("utf-8", "replace").split())
    if len(names) != NUM_CLASSES:
        raise InputError(f"{path}: {_CLASS_NAMES}: {len(names)} class names; wanted {NUM_CLASSES}")

    def split(members):
        parts = [_parse(f"{path}: {name}", files[name]) for name in members]
        images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        titles = [f"{names[label]}/{i}" for i, label in enumerate(labels)]
        return Split(images, {"label": labels}, titles)

    return DataSet(
        names,
        split(_TRAIN),
        split([_TEST]),
        f"{NAME} in {path}",
        seconds=time.perf_counter() - start,
    )


def _members(path):
    """Content of the data set's files in an archive or folder, by their bare names."""
    wanted = {*_TRAIN, _TEST, _CLASS_NAMES}
    if path.is_dir():
        found = (p for p in sorted(path.rglob("*")) if p.name in wanted and p.is_file())
        return {p.name: p.read_bytes() for p in found}
    try:
        # Once through from the front: a compressed file has no other way.
        with tarfile.open(path) as archive:
            return {
                Path(member.name).name: archive.extractfile(member).read()
                for member in archive
                if member.isreg() and Path(member.name).name in wanted
            }
    except FileNotFoundError:
        wanted = "cifar-10-binary.tar.gz, or the folder unpacked from it"
        raise InputError(f"{path}: no such file or folder; give {wanted}") from None
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path}: no tar file, or damaged ({error}): get it again") from error


def _parse(where, content):
    """`(images (n, 32, 32, 3), labels (n,))` of rows: a byte of label, 3 x 32 x 32 of pixels."""
    if not content or len(content) % (1 + _PIXELS):
        raise InputError(
            f"{where}: {len(content)} bytes are no rows of {1 + _PIXELS}: get it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    labels = rows[:, 0].astype(np.int32)
    if labels.max() >= NUM_CLASSES:
        raise InputError(f"{where}: labels {labels.min()} to {labels.max()}; wanted 0 to 9")
    images = rows[:, 1:].reshape(-1, 3, *SIZE).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    return np.ascontiguousarray(images), labels
