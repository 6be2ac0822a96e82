"""Reading weights files into models: all of them or, with an error that lists the names, none."""

import contextlib
import io
import json
import math
import re
import tempfile
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from kerascv_d2l.classes import register_classes
from kerascv_d2l.errors import InputError, first_of

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".pth.tar")
_SUFFIXES = (".safetensors", ".keras", ".h5", ".hdf5")
_HUB_FILE = "model.safetensors"
# PyTorch's name of a tensor of a layer -> Keras' name of the variable
_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_DENSE_OR_CONV = {"weight": "kernel", "bias": "bias"}
_COUNTER = "num_batches_tracked"  # PyTorch's count of steps, which inference does not use
# Networks by their numbers of parameters, without and with the classifier of ImageNet.
_PARAMETERS = """
    convnextbase 87566464 88591464, convnextlarge 196230336 197767336,
    convnextsmall 49454688 50223688, convnexttiny 27820128 28589128,
    convnextxlarge 348147968 350196968, densenet121 7037504 8062504,
    densenet169 12642880 14307880, densenet201 18321984 20242984, efficientnetb0 4049571 5330571,
    efficientnetb1 6575239 7856239, efficientnetb2 7768569 9177569,
    efficientnetb3 10783535 12320535, efficientnetb4 17673823 19466823,
    efficientnetb5 28513527 30562527, efficientnetb6 40960143 43265143,
    efficientnetb7 64097687 66658687, efficientnetv2b0 5919312 7200312,
    efficientnetv2b1 6931124 8212124, efficientnetv2b2 8769374 10178374,
    efficientnetv2b3 12930622 14467622, efficientnetv2l 117746848 119027848,
    efficientnetv2m 53150388 54431388, efficientnetv2s 20331360 21612360,
    inceptionresnetv2 54336736 55873736, inceptionv3 21802784 23851784,
    mobilenet 3228864 4253864, mobilenet_0.25 218544 475544, mobilenet_0.5 829536 1342536,
    mobilenet_0.75 1832976 2601976, mobilenetv2 2257984 3538984, mobilenetv2_0.35 410208 1691208,
    mobilenetv2_0.5 706224 1987224, mobilenetv2_0.75 1382064 2663064,
    mobilenetv2_1.3 3766048 5431048, mobilenetv2_1.4 4363712 6156712,
    mobilenetv3large 2996352 5507432, mobilenetv3large_0.75 1808736 4012616,
    mobilenetv3small 939120 2554968, mobilenetv3small_0.75 583160 2051552,
    nasnetlarge 84916818 88949818, nasnetmobile 4269716 5326716, resnet101 42658176 44707176,
    resnet101v2 42626560 44675560, resnet152 58370944 60419944, resnet152v2 58331648 60380648,
    resnet18 11186112 11699112, resnet34 21301696 21814696, resnet50 23587712 25636712,
    resnet50_v1.5 23561152 25610152,
    resnet50v2 23564800 25613800, vgg16 14714688 138357544, vgg19 20024384 143667240,
    xception 20861480 22910480
"""


def load_weights(model, weights, hub_name=None, key=None, unused=None):
    """Load a weights file into a model, or raise and change nothing.

    Args:
        model: built `keras.Model`.
        weights: path of a file, or "imagenet" for the one of `hub_name`.
            `.safetensors` holds a PyTorch state dict. `.weights.h5` (matched
            by structure), `.keras` and `.h5` (matched by layer name or, where
            names differ, by order) are Keras' own; they may hold more than
            the model has, such as the classifier on top of a backbone. Pickles
            (`.pth`, `.pt`, `.bin`) are never opened: they can run any code.
        hub_name: repository on the Hugging Face Hub that "imagenet" stands for.
        key: for a state dict, function of a layer's name that gives the name
            of its module there, or None for a layer that is not in it;
            default: "_" becomes "." (`layer1_0_conv1`: `layer1.0.conv1`).
        unused: regular expression of the tensors of a state dict that the
            model need not have, such as those of a classifier.

    Raises:
        InputError: if the file is missing, is a pickle or cannot be read, or
            its tensors do not fit; the message says which network the file is
            of, or lists names and shapes.
    """
    path = fetch(hub_name) if weights == "imagenet" and hub_name else Path(weights)
    check_kind(path)
    with _readable(path):
        if path.suffix == ".safetensors":
            load_state_dict(model, read_safetensors(path), key=key, unused=unused, source=path)
        elif path.name.endswith(".weights.h5"):
            _load_by_structure(model, path)
        elif path.suffix == ".keras":
            _load_by_layer(model, _arrays_of(_read_model(path)), path)
        else:
            _load_by_layer(model, _read_legacy(path), path)


def check_kind(path):
    """Check that a weights file is there and is of a kind that `load_weights` opens.

    Args:
        path: `Path`.

    Raises:
        InputError: if it is not.
    """
    if not path.is_file():
        raise InputError(f"weights {path}: there is no such file.")
    if path.name.endswith(_PICKLES):
        raise InputError(
            f"weights {path}: a pickle can run any code when it is opened, so it is not. Convert "
            "it once, where you trust it: "
            "safetensors.torch.save_file(torch.load(PATH, weights_only=True), "
            '"weights.safetensors")'
        )
    if path.suffix not in _SUFFIXES:
        raise InputError(
            f"weights {path}: expected a file ending in .safetensors, .weights.h5, .keras or .h5."
        )


def identify(path):
    """Tell which network of `models.backbones` a weights file is of.

    A detector's `model.keras` names its backbone, of others the number of parameters tells.

    Args:
        path: `Path` of a file as `load_weights` takes it.

    Returns:
        Name of the network, such as "mobilenet_0.75"; None if it is of no known one.

    Raises:
        InputError: if the file cannot be read.
    """
    with _readable(path):
        if name := _backbone_named_in(path):
            return name
        shapes = _shapes_in(path)
    count = sum(math.prod(shape) for shape in shapes)
    for entry in _PARAMETERS.split(","):
        name, *counts = entry.split()
        if str(count) in counts:
            return name
    return None


def _backbone_named_in(path):
    if path.suffix != ".keras":
        return None
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json")).get("config", {})
    name = config.get("backbone")
    return name if isinstance(name, str) else None  # others hold a network as a whole


def _shapes_in(path):
    """List of the shapes of a file's weights, without those of an optimizer."""
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)
        return [tensor.shape for name, tensor in tensors.items() if not name.endswith(_COUNTER)]
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        shapes = _shapes(content)
    else:
        shapes = _shapes(path)
    return [shape for name, shape in shapes.items() if not name.startswith("optimizer")]


@contextlib.contextmanager
def _readable(path):
    """Turn the errors of damaged files into `InputError`."""
    try:
        yield
    except (OSError, KeyError, json.JSONDecodeError, zipfile.BadZipFile) as error:
        raise InputError(f"weights {path}: not a readable weights file ({error}).") from error


def fetch(hub_name):
    """Find the weights of a repository of the Hugging Face Hub, downloading them at first use.

    Args:
        hub_name: "owner/name".

    Returns:
        `Path` of the file in the cache of `huggingface_hub`.

    Raises:
        InputError: if the file is not in the cache and cannot be fetched.
    """
    import huggingface_hub  # takes a second to import, and only downloads need it

    try:
        # The cache first: no network is asked for what is already there.
        return Path(huggingface_hub.hf_hub_download(hub_name, _HUB_FILE, local_files_only=True))
    except (huggingface_hub.errors.LocalEntryNotFoundError, FileNotFoundError):
        pass
    try:
        return Path(huggingface_hub.hf_hub_download(hub_name, _HUB_FILE))
    except Exception as error:  # many kinds, of several HTTP libraries
        raise InputError(
            f'weights="imagenet": {_HUB_FILE} of {hub_name} is not in the cache of '
            f"huggingface_hub ({huggingface_hub.constants.HF_HUB_CACHE}) and could not be fetched "
            f"({type(error).__name__}: {error}). Fetch it where there is a network, with\n"
            f"    hf download {hub_name} {_HUB_FILE}\n"
            "and give its path as weights, or start from random weights with weights=None "
            "(--weights none)."
        ) from error


def read_safetensors(path):
    """Read all tensors of a safetensors file.

    Args:
        path: the file.

    Returns:
        dict name -> NumPy array.

    Raises:
        InputError: if it is not a safetensors file.
    """
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise InputError(f"weights {path}: not a readable safetensors file ({error}).") from error


def load_state_dict(model, tensors, key=None, unused=None, source="state dict"):
    """Copy a PyTorch state dict into the convolutions, dense layers and batch norms of a model.

    Args:
        model: built `keras.Model`.
        tensors: dict name -> array, in PyTorch's layouts: kernels of
            convolutions `(out, in / groups, h, w)`, of dense layers `(out, in)`.
        key: as for `load_weights`.
        unused: as for `load_weights`.
        source: where the tensors come from, for messages.

    Raises:
        InputError: if they do not fit; the message lists names and shapes, and
            the model is as it was.
    """
    targets = _targets(model, key or (lambda name: name.replace("_", ".")))
    wanted = {name: _torch_shape(layer, variable) for name, (layer, variable) in targets.items()}
    present = {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if not name.endswith(_COUNTER)
        and (name in wanted or unused is None or not re.fullmatch(unused, name))
    }
    check_tensors(source, wanted, present)
    for name, (layer, variable) in targets.items():
        variable.assign(np.transpose(tensors[name], _torch_axes(layer, variable)))


def _targets(model, key):
    """Dict name in the state dict -> (layer, variable)."""
    targets = {}
    for layer in _layers_with_weights(model):
        prefix = key(layer.name)
        if prefix is None:
            continue
        norms = (
            keras.layers.BatchNormalization,
            keras.layers.GroupNormalization,
            keras.layers.LayerNormalization,
        )
        names = _BATCH_NORM if isinstance(layer, norms) else _DENSE_OR_CONV
        for torch_name, name in names.items():
            variable = getattr(layer, name, None)
            if variable is not None:
                targets[f"{prefix}.{torch_name}"] = (layer, variable)
    return targets


def _torch_axes(layer, variable):
    """Transposition from PyTorch's layout to Keras'."""
    if len(variable.shape) == 4 and isinstance(layer, keras.layers.DepthwiseConv2D):
        return (2, 3, 0, 1)  # (in, multiplier = 1, h, w) -> (h, w, in, multiplier)
    return {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[len(variable.shape)]


def _torch_shape(layer, variable):
    axes = _torch_axes(layer, variable)
    return tuple(variable.shape[axes.index(i)] for i in range(len(axes)))


def _read_model(path):
    register_classes()  # it may be a model of another class than the one that is built
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
    if not faults:
        return
    # The right network without its classifier lacks little.
    another = misshapen or 2 * len(missing) > len(wanted)
    if another and (network := _network_of(path)) is not None:
        raise InputError(f"weights {path}: this file is {network}; nothing was loaded.")
    text = "; ".join(f"{len(found)} {fault}: {first_of(found)}" for fault, found in faults.items())
    raise InputError(f"weights {path}: nothing was loaded, its tensors do not fit. {text}.")


def _network_of(path):
    """Name of the network that a file is of; None for one of another, or for no file."""
    return identify(path) if isinstance(path, Path) else None
