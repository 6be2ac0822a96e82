"""Reading weights files into models: all of them or, with an error that lists the names, none."""

import tempfile
from pathlib import Path

import h5py
import keras

from kerascv_d2l.errors import InputError

_MOST_LISTED = 12  # names in an error message; a wrong file can hold hundreds


def load_keras_weights(model, path):
    """Load a file that Keras wrote into a model, or raise and change nothing.

    The file may hold more than the model, such as the classifier on top of a
    trunk; a tensor that the model has and the file lacks, or that has another
    shape there, is an error.

    Args:
        model: built `keras.Model`.
        path: `.weights.h5` (matched by structure), `.keras` or `.h5` (matched
            by layer name or, where names differ, by order).

    Raises:
        InputError: if the file is missing or cannot be read, or its tensors do
            not fit; the message lists names and shapes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights {path}: there is no such file.")
    try:
        if path.name.endswith(".weights.h5"):
            _load_by_structure(model, path)
        elif path.suffix == ".keras":
            _load_by_layer(model, _arrays_of(_read_model(path)), path)
        elif path.suffix in (".h5", ".hdf5"):
            _load_by_layer(model, _read_legacy(path), path)
        else:
            raise InputError(
                f"weights {path}: expected a file ending in .weights.h5, .keras or .h5."
            )
    except (OSError, KeyError) as error:
        raise InputError(f"weights {path}: not a readable Keras weights file ({error}).") from error


def _read_model(path):
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError) as error:  # Keras raises these for all that a file can be
        raise InputError(f"weights {path}: not a readable Keras model ({error}).") from error


def _load_by_structure(model, path):
    with tempfile.TemporaryDirectory() as folder:
        wanted_path = Path(folder) / "wanted.weights.h5"
        model.save_weights(wanted_path)
        wanted = _shapes(wanted_path)
    check_tensors(path, wanted, _shapes(path), extra_allowed=True)
    model.load_weights(path)


def _shapes(path):
    """Dict name -> shape of every data set of an HDF5 file."""
    shapes = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            shapes[name] = item.shape

    with h5py.File(path) as file:
        file.visititems(visit)
    return shapes


def _layers_with_weights(model):
    """List of the innermost layers that own weights, in the order of the model."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found.extend(_layers_with_weights(layer))
        elif layer.weights:
            found.append(layer)
    return found


def _arrays_of(model):
    """Dict layer name -> list of arrays."""
    return {layer.name: layer.get_weights() for layer in _layers_with_weights(model)}


def _read_legacy(path):
    """Dict layer name -> list of arrays, in the order of the file."""
    with h5py.File(path) as file:
        group = file["model_weights"] if "layer_names" not in file.attrs else file
        return {
            name: [group[name][weight][()] for weight in group[name].attrs["weight_names"]]
            for name in group.attrs["layer_names"]
            if len(group[name].attrs["weight_names"])
        }


def _load_by_layer(model, source, path):
    layers = _layers_with_weights(model)
    if not all(layer.name in source for layer in layers):
        # Layers that nobody named are numbered through one process: "conv2d_17".
        by_order = list(source.values())[: len(layers)]
        if [_layer_shapes(layer) for layer in layers] == [
            [tuple(array.shape) for array in arrays] for arrays in by_order
        ]:
            source = {layer.name: a for layer, a in zip(layers, by_order, strict=True)}
    wanted = {
        f"{layer.name}/{i}": shape
        for layer in layers
        for i, shape in enumerate(_layer_shapes(layer))
    }
    present = {
        f"{name}/{i}": tuple(array.shape)
        for name, arrays in source.items()
        for i, array in enumerate(arrays)
    }
    check_tensors(path, wanted, present, extra_allowed=True)
    for layer in layers:
        layer.set_weights(source[layer.name])


def _layer_shapes(layer):
    return [tuple(variable.shape) for variable in layer.weights]


def check_tensors(path, wanted, present, extra_allowed=False):
    """Compare what a model wants with what a file holds.

    Args:
        path: the file, for the message.
        wanted: dict name -> shape.
        present: dict name -> shape.
        extra_allowed: whether the file may hold tensors that nobody wants.

    Raises:
        InputError: if they differ; the message lists names and shapes.
    """
    missing = [f"{name} {shape}" for name, shape in wanted.items() if name not in present]
    extra = [f"{name} {shape}" for name, shape in present.items() if name not in wanted]
    misshapen = [
        f"{name} {present[name]}, expected {shape}"
        for name, shape in wanted.items()
        if name in present and tuple(present[name]) != tuple(shape)
    ]
    faults = {"missing": missing, "of another shape": misshapen}
    if not extra_allowed:
        faults["not part of the network"] = extra
    faults = {fault: found for fault, found in faults.items() if found}
    if faults:
        text = "; ".join(f"{len(found)} {fault}: {_some(found)}" for fault, found in faults.items())
        raise InputError(f"weights {path}: nothing was loaded, its tensors do not fit. {text}.")


def _some(entries):
    more = len(entries) - _MOST_LISTED
    return ", ".join(entries[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
