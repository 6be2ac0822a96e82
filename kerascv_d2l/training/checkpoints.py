"""Everything a run needs to go on where it was, in one file.

Why not `keras.callbacks.BackupAndRestore`: it writes weights and epoch number
as two files in place, one after the other, so a process killed between them
resumes with the weights of one epoch and the number of another (its `.bkp`
copies are only looked at when the weights file cannot be opened). It keeps
neither the history nor the state of callbacks (`ReduceLROnPlateau` and
`EarlyStopping` start counting anew), and it restores through `load_weights`,
which leaves out an optimizer that does not fit with no more than a warning.
"""

import json
import zipfile

import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.files import whole

_FORMAT = 1


def save_checkpoint(path, variables, state):
    """Write variables and progress as one file, whole.

    Args:
        path: file to write, ending in `.npz`.
        variables: list of Keras or TensorFlow variables, or arrays.
        state: progress as plain Python values that JSON can hold (NaN allowed).
            May hold `np.ndarray` values at any depth.
    """
    arrays, names = {}, []
    for i, variable in enumerate(variables):
        value = _to_numpy(variable)
        names.append([_name(variable, i), list(value.shape), str(value.dtype)])
        arrays[f"variable_{i}"] = _storable(value)
    state = _pull_out_arrays(state, arrays)
    arrays["header"] = np.array(json.dumps({"format": _FORMAT, "variables": names, "state": state}))
    with whole(path) as temporary:
        np.savez(temporary, **arrays)


def load_checkpoint(path, variables=None):
    """Read a file of `save_checkpoint`, and put its values into `variables`.

    Variables are matched by position; number, shapes and dtypes must agree.

    Args:
        path: the file.
        variables: the same list as when saving, or `None` to read only the
            state.

    Returns:
        The state.

    Raises:
        InputError: if the file is no checkpoint or belongs to another model;
            nothing is assigned then.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file) if variables is not None else _all_but_variables(file)
        header = json.loads(str(arrays["header"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint ({error}): delete the folder to start anew"
        ) from error
    if variables is not None:
        _check_fit(path, header["variables"], variables)
        for i, variable in enumerate(variables):
            dtype = _to_numpy(variable).dtype
            value = arrays[f"variable_{i}"]
            variable.assign(value.view(dtype) if value.dtype != dtype else value)
    return _put_in_arrays(header["state"], arrays)


def _check_fit(path, stored, variables):
    present = []
    for i, variable in enumerate(variables):
        value = _to_numpy(variable)
        present.append([_name(variable, i), list(value.shape), str(value.dtype)])
    # Names may differ by a running number (dense, dense_1), so they are only shown.
    wrong = [
        f"{now[0]} {tuple(now[1])} {now[2]} (stored: {was[0]} {tuple(was[1])} {was[2]})"
        for was, now in zip(stored, present, strict=False)
        if was[1:] != now[1:]
    ]
    if wrong or len(stored) != len(present):
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise InputError(
            f"{path} belongs to another model or optimizer: it holds {len(stored)} variables, "
            f"this one has {len(present)}{': ' if shown else ''}{shown}. Resume with the flags "
            "the run was started with, or start a new one in another --out"
        )


def _name(variable, i):
    return getattr(variable, "path", None) or getattr(variable, "name", None) or f"variable {i}"


def _to_numpy(variable):
    return variable.numpy() if hasattr(variable, "numpy") else np.asarray(variable)


def _storable(value):
    # NumPy files know no bfloat16 or float8 (kind V): keep the bits as integers.
    return value.view(f"u{value.dtype.itemsize}") if value.dtype.kind == "V" else value


def _all_but_variables(file):
    return {name: file[name] for name in file.files if not name.startswith("variable_")}


def _pull_out_arrays(value, arrays):
    """Replace arrays in nested dicts and lists by references, and collect them."""
    if isinstance(value, np.ndarray):
        name = f"array_{len(arrays)}"
        arrays[name] = _storable(value)
        return {"__array__": name, "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _pull_out_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pull_out_arrays(item, arrays) for item in value]
    return value


def _put_in_arrays(value, arrays):
    if isinstance(value, dict):
        if "__array__" in value:
            array = arrays[value["__array__"]]
            if str(array.dtype) == value["dtype"]:
                return array
            import ml_dtypes  # comes with TensorFlow

            return array.view(getattr(ml_dtypes, value["dtype"]))
        return {key: _put_in_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_in_arrays(item, arrays) for item in value]
    return value
