"""Short texts that tell whether data or a file of weights are the same as before."""

import hashlib
import os

import numpy as np


def fingerprint(split):
    """Make a short text that changes where the images or labels of a split are others.

    It covers names, sizes in pixels and, of files, in bytes, their order, and all labels; not
    the pixels.

    Args:
        split: `Split`.

    Returns:
        str, as `"1600 images, 3f9a4c…"`.
    """
    digest = hashlib.sha256()

    def add(value):
        if isinstance(value, np.ndarray) and value.dtype != object:
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        elif isinstance(value, (list, tuple, np.ndarray)):
            digest.update(str(len(value)).encode())
            for item in value:
                add(item)
        else:
            digest.update(value if isinstance(value, bytes) else repr(value).encode())
            digest.update(b"\0")

    add(list(map(str, split.names)))
    add(np.asarray(split.sizes, np.int64))
    if not isinstance(split.images, np.ndarray):
        add([len(i) if isinstance(i, bytes) else os.path.getsize(i) for i in split.images])
    for name in sorted(split.targets):
        add(name)
        add(split.targets[name])
    return f"{len(split)} images, {digest.hexdigest()[:16]}"


def content_of(path):
    """Make a short text that changes with the content of a file, such as weights.

    Args:
        path: anything; None for what is no absolute path of a file.

    Returns:
        str, as `"102973672 bytes, 3f9a4c…"`, or None.
    """
    if not os.path.isabs(str(path)) or not os.path.isfile(str(path)):
        return None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{os.path.getsize(path)} bytes, {digest[:16]}"
