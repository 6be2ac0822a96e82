"""Checkpoints: all variables of a training, and what else it needs to go on, in one.

`tf.train.CheckpointManager` writes new files under a new number, then the small file that names
the newest, in one step, then deletes the old ones: a process killed at any moment leaves a whole
checkpoint behind. A power cut or a copy that broke off may damage the small file:
`recover_checkpoint` writes it anew. The variables are stored as a *list*, not as Keras' objects,
because these leave out the seed generators of random layers.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError, first_of
from kerascv_d2l.training import cluster

_INDEX = "checkpoint"  # TensorFlow's name for the file that names the newest
_NAME = "state"  # files are state-1.index, state-1.data-00000-of-00001
# Without a time later than 0 the manager would keep it for ever.
_INDEX_TEXT = """\
model_checkpoint_path: "{name}"
all_model_checkpoint_paths: "{name}"
all_model_checkpoint_timestamps: 1
"""
_MOST_SHOWN = 5  # variables in an error message
_ARRAY = "__array__"  # stands in the state for an array, with its number
# What TensorFlow raises for damaged files, and JSON for a checkpoint of another program.
_DAMAGE = (tf.errors.OpError, ValueError, LookupError, TypeError)


def has_checkpoint(folder):
    """Whether a folder holds a checkpoint that counts. Its data may still be damaged."""
    return _latest(folder) is not None


def is_damaged(folder):
    """Whether a folder says which checkpoint counts, but that is unreadable or not there."""
    return (Path(folder) / _INDEX).exists() and not has_checkpoint(folder)


def recover_checkpoint(folder):
    """Make the newest whole checkpoint count, where none does.

    The file that names the newest may be damaged, or lost in copying. Call it only while no other
    process writes there.

    Args:
        folder: as for `save_checkpoint`; it may be missing.
    """
    if has_checkpoint(folder):
        return
    found = [re.fullmatch(rf"{_NAME}-(\d+)\.index", p.name) for p in Path(folder).glob("*")]
    for number in sorted((int(match[1]) for match in found if match), reverse=True):
        name = f"{_NAME}-{number}"
        if _is_whole(Path(folder) / name):
            temporary = Path(folder) / f"{_INDEX}.tmp"
            temporary.write_text(_INDEX_TEXT.format(name=name))
            os.replace(temporary, Path(folder) / _INDEX)
            return


def _latest(folder):
    """Path of the checkpoint that counts, as str without an ending, or None."""
    try:
        return tf.train.latest_checkpoint(str(folder))
    except ValueError:  # the file that names it is empty or no text
        return None


def _is_whole(path):
    """Whether all of a checkpoint can be read: TensorFlow compares a checksum of each tensor."""
    try:
        reader = tf.train.load_checkpoint(str(path))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except _DAMAGE:
        return False
    return True


def save_checkpoint(folder, variables, state):
    """Write variables and state as one checkpoint, and delete the one before.

    Args:
        folder: folder for checkpoints alone; made if missing.
        variables: list of Keras or TensorFlow variables. Of one that several devices hold, the
            first device's value is stored.
        state: what JSON can hold (NaN allowed), with arrays and variables at any depth.
    """
    arrays = []

    def store(value):  # what JSON does not know: NumPy's and TensorFlow's
        value = value.numpy() if hasattr(value, "numpy") else value
        if not isinstance(value, np.ndarray):
            return value.item()
        arrays.append(value)
        return {_ARRAY: len(arrays) - 1}

    header = {
        "state": json.dumps(state, default=store),
        "variables": [[_name(v, i), list(v.shape), _dtype(v)] for i, v in enumerate(variables)],
        "arrays": [["", list(array.shape), str(array.dtype)] for array in arrays],
    }
    with tf.device("CPU:0"):
        checkpoint = tf.train.Checkpoint(
            variables=[_local(variable) for variable in variables],
            arrays=[tf.Variable(array) for array in arrays],
            header=tf.Variable(json.dumps(header)),
        )
    manager = tf.train.CheckpointManager(checkpoint, str(folder), 1, checkpoint_name=_NAME)
    # Never the number of the one before: files of the same name are replaced one by one.
    last = re.search(r"-(\d+)$", manager.latest_checkpoint or "-0")
    manager.save(checkpoint_number=int(last[1]) + 1)


def remove_remains(folder):
    """Delete what a full disk or a killed process left of checkpoints that do not count.

    The one that counts stays, and so does everything where it is damaged. A folder in which nothing
    is left goes, too. Call it only while no other process writes there.

    Args:
        folder: as for `save_checkpoint`; it may be missing.
    """
    if is_damaged(folder):
        return
    folder, latest = Path(folder), _latest(folder)
    kept = None if latest is None else os.path.basename(latest)
    for path in [*folder.glob(f"{_NAME}-*"), *folder.glob(f"{_INDEX}.tmp*")]:
        if kept is not None and path.name.startswith(f"{kept}."):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if kept is None:
        with contextlib.suppress(OSError):  # missing, or something else is in it
            folder.rmdir()


class Checkpoint:
    """A checkpoint that was saved, to be read.

    With several machines every worker reads what worker 0 has in its folder: all of them must
    make the same calls.

    Attributes:
        state: as it was saved; None if there is no checkpoint.
    """

    def __init__(self, folder, strategy=None):
        """Read the state of the newest checkpoint.

        Args:
            folder: as for `save_checkpoint`; None for a worker other than the first.
            strategy: `tf.distribute.Strategy` of several machines, or None.

        Raises:
            InputError: if the files are damaged.
        """
        self._folder, self._strategy = folder, strategy
        self._reader, self.state, text = None, None, b""
        latest = _latest(folder) if folder is not None else None
        # What the workers share is none of it: that one is lost is no damage.
        if latest is not None:
            with self._reading():
                self._reader = tf.train.load_checkpoint(latest)
                text = self._reader.get_tensor(_key("header"))
        if strategy is not None:
            text = cluster.share_bytes(strategy, text)
        if not text:
            return
        with self._reading():
            self._header = json.loads(text)
        arrays = list(self._values("arrays"))
        with self._reading():
            self.state = json.loads(
                self._header["state"],
                object_hook=lambda d: arrays[d[_ARRAY]] if _ARRAY in d else d,
            )

    @contextlib.contextmanager
    def _reading(self):
        """Say of damaged files what can be done."""
        try:
            yield
        except _DAMAGE as error:
            raise InputError(
                f"{self._folder} cannot be read as a checkpoint ({error}): copy it again if there "
                "is a copy; to start from the beginning, give another out or delete the run's "
                "folder"
            ) from error

    def restore(self, variables):
        """Put the stored values into variables.

        They are matched by position; number, shapes and dtypes must agree. Call it in the scope
        of the strategy that the variables were made in.

        Args:
            variables: the same list as when saving.

        Raises:
            InputError: if they belong to another model (nothing is assigned then), or the files
                are damaged.
        """
        self._check_fit(variables)
        for variable, value in zip(variables, self._values("variables"), strict=True):
            variable.assign(value)

    def _values(self, kind):
        """Iterate over the stored arrays of a kind, `"variables"` or `"arrays"`."""
        for i, (_, shape, dtype) in enumerate(self._header[kind]):
            if self._reader is not None:
                with self._reading():
                    value = self._reader.get_tensor(_key(f"{kind}/{i}"))
            else:
                value = np.zeros(shape, tf.as_dtype(dtype).as_numpy_dtype)
            yield value if self._strategy is None else cluster.share(self._strategy, value)

    def _check_fit(self, variables):
        stored = self._header["variables"]
        present = [[_name(v, i), list(v.shape), _dtype(v)] for i, v in enumerate(variables)]
        # Names may differ by a running number (dense, dense_1), so they are only shown.
        wrong = [
            f"{now[0]} {tuple(now[1])} {now[2]} (stored: {was[0]} {tuple(was[1])} {was[2]})"
            for was, now in zip(stored, present, strict=False)
            if was[1:] != now[1:]
        ]
        if wrong or len(stored) != len(present):
            raise InputError(
                f"{self._folder} belongs to another model or optimizer: it holds {len(stored)} "
                f"variables, this one has {len(present)}{': ' if wrong else ''}"
                f"{first_of(wrong, _MOST_SHOWN)}. Resume with the settings the run was "
                "started with, or start a new one in another folder"
            )


def _key(name):
    return f"{name}/.ATTRIBUTES/VARIABLE_VALUE"


def _local(variable):
    """The TensorFlow variable of a Keras one; of several devices', that of the first."""
    value = getattr(variable, "value", variable)
    value = variable if callable(value) else value  # a method of TensorFlow's own
    return getattr(value, "values", (value,))[0]


def _name(variable, i):
    return getattr(variable, "path", None) or getattr(variable, "name", None) or f"variable {i}"


def _dtype(variable):
    return tf.as_dtype(variable.dtype).name
