"""CIFAR-10 and what can stand in for it: 32 x 32 pictures in memory.

From the archive as it is published, from tensorflow-datasets, from a folder of pictures by class,
or, where none of these is there, generated: ten shapes, light on dark, that a network learns and
a linear classifier tells apart badly.
"""

import dataclasses
import io
import pickle
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from kerascv_d2l.data.classification import (
    ClassificationData,
    ClassificationSplit,
    read_classification_folder,
)
from kerascv_d2l.data.generated import ONE_LIGHT_OBJECT, generate_classification
from kerascv_d2l.data.images import decode_image
from kerascv_d2l.data.loaders import check_batch_size, prepare, to_uint8
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.prefetching import prefetched

CIFAR10, GENERATED = "cifar10", "generated"
NUM_CLASSES = 10
SIZE = (32, 32)
GENERATED_TRAIN, GENERATED_VAL = 2000, 500
_PIXELS = SIZE[0] * SIZE[1] * 3
_DECODED_AT_ONCE = 500


class _Form(NamedTuple):
    """Names of the files of a published form, without what comes before in a path."""

    train: list
    test: str
    meta: str  # the class names

    def names(self):
        return {*self.train, self.test, self.meta}


_BINARY = _Form([f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", "batches.meta.txt")
_PYTHON = _Form([f"data_batch_{i}" for i in range(1, 6)], "test_batch", "batches.meta")


def read_cifar10(
    data=None,
    *,
    archive=None,
    data_dir=None,
    skip_bad=False,
    seed=0,
    num_train=GENERATED_TRAIN,
    num_val=GENERATED_VAL,
):
    """Read CIFAR-10, or what stands in for it, into memory.

    Args:
        data: `"cifar10"`; the name of a folder (`read_classification_folder`
            says its layout), whose pictures are resized to 32 x 32, whatever
            their shape; `"generated"`; or None for `"cifar10"` where it is at hand (`archive`,
            or prepared in `data_dir`) and `"generated"` elsewhere. None never downloads.
        archive: for `"cifar10"`: `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz`, or the
            folder unpacked from one. None for tensorflow-datasets, which downloads
            the data set (170 MB) unless it is prepared.
        data_dir: TFDS' folder; None for its default.
        skip_bad: bool: leave out damaged pictures of a folder.
        seed: int, for generated pictures.
        num_train: int: generated pictures to train on.
        num_val: int: generated pictures to test on.

    Returns:
        `ClassificationData` of uint8 arrays `(n, 32, 32, 3)`.

    Raises:
        InputError: if `data` is no folder, or cannot be read, prepared or
            downloaded; if `archive` is not there, or is something else.
    """
    start = time.perf_counter()
    source = _open(data, archive, data_dir, skip_bad, seed, num_train, num_val)
    return ClassificationData(
        source.class_names,
        source.read(True),
        source.read(False),
        source.description,
        time.perf_counter() - start,
    )


def load_cifar10(is_train, augs, batch_size, *, data=None, archive=None, data_dir=None, seed=None):
    """Batches of CIFAR-10, or what stands in for it, decoded once and kept in memory.

    Says on screen where the pictures come from, if `data` leaves it open or they
    have to be downloaded.

    Args:
        is_train: bool: the 50,000 training pictures, shuffled, or the 10,000
            test pictures.
        augs: function of a batch of pictures, `(batch, 32, 32, 3)` uint8, to
            a batch of pictures: an augmentation layer, or several in a
            `keras.Sequential`. `None` for none.
        batch_size: int.
        data: as `read_cifar10`: where CIFAR-10 is not at hand, generated pictures.
        archive: as `read_cifar10`.
        data_dir: as `read_cifar10`.
        seed: int: the same order in every run. Layers have seeds of their own.

    Returns:
        `tf.data.Dataset` of `(images, labels)`, `(batch, 32, 32, 3)` as `augs`
        gives it (uint8 without) and int32 `(batch,)`. The last batch may be smaller.

    Raises:
        InputError: as `read_cifar10`, or for a batch size below 1.

    Source:
        D2L 1.0.3, section 14.1.
    """
    check_batch_size(batch_size)
    source = _open(data, archive, data_dir)
    if data is None:
        print(source.description, flush=True)
    split = source.read(is_train)
    images, labels = tf.constant(split.images), tf.constant(split.labels)

    def several(indices):
        pictures = tf.gather(images, indices)  # (batch, 32, 32, 3)
        return pictures if augs is None else augs(pictures), tf.gather(labels, indices)

    indices = tf.data.Dataset.range(len(split))
    if is_train:
        indices = indices.shuffle(len(split), seed)
    return prefetched(indices.batch(batch_size).map(several, tf.data.AUTOTUNE))


@dataclasses.dataclass
class _Source:
    """A data set that is there; each split is read when it is asked for."""

    class_names: tuple
    description: str
    read: Callable  # is_train -> ClassificationSplit


def _open(
    data,
    archive,
    data_dir,
    skip_bad=False,
    seed=0,
    num_train=GENERATED_TRAIN,
    num_val=GENERATED_VAL,
):
    if data not in (None, CIFAR10) and (archive is not None or data_dir is not None):
        raise InputError(f"archive and data_dir are for {CIFAR10}, not for data={data!r}")
    if data in (None, CIFAR10) and archive is not None:
        return _of_archive(Path(archive).expanduser())
    if data == CIFAR10 or (data is None and _is_prepared(data_dir)):
        return _of_tfds(data_dir)
    if data is None or data == GENERATED:
        return _generated(seed, num_train, num_val, asked_for=data is not None)
    return _of_folder(data, skip_bad)


def _generated(seed, num_train, num_val, asked_for):
    data = generate_classification(num_train, num_val, seed, NUM_CLASSES, SIZE, ONE_LIGHT_OBJECT)
    text = data.source
    if not asked_for:
        text += f" ({CIFAR10} is not prepared on this machine, and nothing is downloaded unasked)"
    return _Source(data.class_names, text, lambda is_train: data.train if is_train else data.val)


def _of_folder(path, skip_bad):
    if not Path(path).is_dir():
        raise InputError(
            f"{path!r} is neither a folder nor a data set; the data sets are {GENERATED}, {CIFAR10}"
        )
    data = read_classification_folder(path, skip_bad=skip_bad)

    def read(is_train):
        split = data.train if is_train else data.val
        paths = tf.data.Dataset.from_tensor_slices((split.images, split.plain))
        pictures = paths.map(
            lambda name, plain: to_uint8(resize(decode_image(name, plain), SIZE)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        images = np.concatenate([*pictures.batch(_DECODED_AT_ONCE).as_numpy_iterator()])
        return dataclasses.replace(split, images=images, plain=np.ones(len(images), bool))

    return _Source(data.class_names, data.source, read)


# ---------------------------------------------------------------- tensorflow-datasets


def _is_prepared(data_dir):
    return tfds.builder(CIFAR10, data_dir=data_dir).is_prepared()


def _of_tfds(data_dir):
    if not _is_prepared(data_dir):
        print(f"{CIFAR10}: downloading 170 MB by tensorflow-datasets …", flush=True)
    builder = prepare(CIFAR10, data_dir=data_dir)
    names = tuple(builder.info.features["label"].names)

    def read(is_train):
        config = tfds.ReadConfig(try_autocache=False)
        examples = builder.as_dataset(
            split="train" if is_train else "test",
            batch_size=_DECODED_AT_ONCE,
            shuffle_files=False,
            read_config=config,
        )
        parts = [(e["image"], e["label"]) for e in examples.as_numpy_iterator()]
        images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _split(images, labels, names)

    return _Source(names, f"{CIFAR10} {builder.version} in {builder.data_dir}", read)


def _split(images, labels, class_names):
    names = [f"{class_names[label]}/{i}" for i, label in enumerate(labels)]
    return ClassificationSplit(images, labels, names)


# ---------------------------------------------------------------- the published archives


def _of_archive(path):
    files = _members(path)
    form = next((form for form in (_BINARY, _PYTHON) if files.keys() >= form.names()), None)
    if form is None:
        raise InputError(
            f"{path}: neither cifar-10-binary.tar.gz nor cifar-10-python.tar.gz, nor unpacked from "
            f"one: {_BINARY.train[0]} or {_PYTHON.train[0]}, or another of its files, is missing"
        )
    parse = _parse_binary if form is _BINARY else _parse_pickle
    names = _class_names(path, files[form.meta], form.meta)
    parsed = {name: parse(f"{path}: {name}", files[name]) for name in (*form.train, form.test)}

    def read(is_train):
        parts = [parsed[name] for name in (form.train if is_train else [form.test])]
        images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _split(images, labels, names)

    return _Source(names, f"{CIFAR10} in {path}", read)


def _members(path):
    """Content of the data set's files in an archive or folder, by their bare names."""
    wanted = _BINARY.names() | _PYTHON.names()
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
        raise InputError(
            f"{path}: no such file or folder; give cifar-10-binary.tar.gz, or the folder unpacked "
            "from it"
        ) from None
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path}: no tar file, or damaged ({error}): get it again") from error


def _parse_binary(where, content):
    """Rows of one byte of label and 3 x 32 x 32 of pixels, channels first."""
    if not content or len(content) % (1 + _PIXELS):
        raise InputError(
            f"{where}: {len(content)} bytes are no rows of {1 + _PIXELS}: get it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return _checked(where, rows[:, 1:], rows[:, 0])


def _parse_pickle(where, content):
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
        data, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
        if data.dtype != np.uint8 or data.shape != (len(labels), _PIXELS):
            raise ValueError(f"pixels of {data.dtype}, {data.shape}")
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    # Whatever else a damaged or foreign pickle makes of itself.
    except Exception as error:
        raise InputError(f"{where}: damaged or something else ({error}): get it again") from error
    return _checked(where, data, labels)


def _checked(where, pixels, labels):
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        raise InputError(f"{where}: labels {labels.min()} to {labels.max()}; wanted 0 to 9")
    images = pixels.reshape(-1, 3, *SIZE).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    return np.ascontiguousarray(images), labels.astype(np.int32)


def _class_names(path, content, meta):
    if meta == _BINARY.meta:
        names = content.decode("utf-8", "replace").split()
    else:
        try:
            found = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
            names = [str(name) for name in found["label_names"]]
        except Exception as error:
            raise InputError(f"{path}: {meta}: damaged or something else ({error})") from error
    if len(names) != NUM_CLASSES:
        raise InputError(f"{path}: {meta}: {len(names)} class names; wanted {NUM_CLASSES}")
    return tuple(names)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of lists, text and arrays; nothing else in a file gets to run."""

    _ALLOWED = ("_reconstruct", "ndarray", "dtype", "encode")

    def find_class(self, module, name):
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = "numpy._core.multiarray"  # where NumPy 2 has it
        if (
            module not in ("numpy._core.multiarray", "numpy", "_codecs")
            or name not in self._ALLOWED
        ):
            raise InputError(f"asks for {module}.{name}, which no CIFAR-10 batch needs")
        return super().find_class(module, name)
