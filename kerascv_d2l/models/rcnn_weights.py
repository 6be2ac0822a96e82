"""torchvision's weights in our detectors: which tensor is which layer's, and where files lie."""

import functools
import json
import os
import re
import types
from pathlib import Path

from kerascv_d2l.errors import InputError
from kerascv_d2l.models.weights import load_state_dict, read_safetensors

COCO = "coco"
# The 90 classes of torchvision's detectors: COCO's numbers, of which ten stand for nothing.
_COCO_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, N/A 12, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow,
elephant, bear, zebra, giraffe, N/A 26, backpack, umbrella, N/A 29, N/A 30, handbag, tie,
suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
skateboard, surfboard, tennis racket, bottle, N/A 45, wine glass, cup, fork, knife, spoon,
bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair,
couch, potted plant, bed, N/A 66, dining table, N/A 68, N/A 69, toilet, N/A 71, tv, laptop,
mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, N/A 83,
book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""
COCO_CLASSES = tuple(name.strip() for name in _COCO_NAMES.split(","))

_BACKBONE = "backbone.body."
# Our layer's name -> torchvision's module, by regular expressions.
_MODULES = {
    r"fpn_inner_(\d)": r"backbone.fpn.inner_blocks.\1.0",
    r"fpn_layer_(\d)": r"backbone.fpn.layer_blocks.\1.0",
    r"fpn_(p\d)": r"backbone.fpn.extra_blocks.\1",
    r"cls_logits": r"head.classification_head.cls_logits",
    r"(bbox_reg|bbox_ctrness)": r"head.regression_head.\1",
    r"rpn_conv": r"rpn.head.conv.0.0",
    r"rpn_(cls_logits|bbox_pred)": r"rpn.head.\1",
    r"(fc\d)": r"roi_heads.box_head.\1",
    r"(cls_score|bbox_pred)": r"roi_heads.box_predictor.\1",
    r"mask_head_(\d)": r"roi_heads.mask_head.\1.0",
    r"(conv5_mask|mask_fcn_logits)": r"roi_heads.mask_predictor.\1",
}
# Names in files of torchvision before 0.13 -> those since.
_OLD_NAMES = {
    r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)": r"\1.0.\2",
    r"rpn\.head\.conv\.(weight|bias)": r"rpn.head.conv.0.0.\1",
    **{
        rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.(weight|bias)": rf"roi_heads.mask_head.{i}.0.\1"
        for i in range(4)
    },
}
# What depends on the classes.
_PREDICTORS = (
    r"roi_heads\.(box_predictor\..*|mask_predictor\.mask_fcn_logits\..*)"
    r"|head\.classification_head\.cls_logits\..*"
)
_WHOLE = ("roi_heads.", "head.classification_head.")  # what files of whole detectors have
# The towers of one-stage detectors.
_TOWERS = {"class_tower": "head.classification_head", "box_tower": "head.regression_head"}
_LOGITS = "head.classification_head.cls_logits"
_FIRST_DENSE = "roi_heads.box_head.fc6.weight"


def find_weights(weights, name):
    """Find the file of a whole detector's weights.

    Args:
        weights: "coco" for `NAME_coco.safetensors` in the folder in which Keras keeps weights
            (`~/.keras/models`); or what else a detector's `weights` may be.
        name: str, torchvision's name of the detector.

    Returns:
        `Path`, or None if the weights are those of a backbone, or there are none.

    Raises:
        InputError: if "coco" is not there.
    """
    if weights == COCO:
        home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
        path = home / "models" / f"{name}_coco.safetensors"
        if not path.is_file():
            raise InputError(
                f'weights="coco": there is no {path}. Fetch {name}_coco-….pth, whose address '
                "torchvision's documentation has, and convert it once: "
                f"python scripts/convert_weights.py FILE.pth --out {path}"
            )
        return path
    path = Path(weights or "")
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    return path if any(name.startswith(_WHOLE) for name in _header(path)) else None


def _header(path):
    """Names of the tensors of a safetensors file, and `__metadata__`."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            return json.loads(file.read(length) if length < 2**27 else "{}")
        except ValueError:
            return {}


def predicts_same(path, class_names, logits=None):
    """Whether a file's predictors are those of these classes, as far as it tells.

    Args:
        path: of a safetensors file.
        class_names: sequence of str.
        logits: int, what a one-stage detector predicts at a place; None for an R-CNN.
    """
    header = _header(path)
    names = header.get("__metadata__", {}).get("class_names")
    if names is not None:
        return json.loads(names) == list(class_names)
    place = "roi_heads.box_predictor.cls_score" if logits is None else _LOGITS
    shape = header.get(f"{place}.weight", {}).get("shape", [0])
    return shape[0] == (len(class_names) + 1 if logits is None else logits)


def load_torchvision(model, weights, new_classes=False):
    """Load the weights of a detector of torchvision with a ResNet and FPN, or raise.

    Args:
        model: `FasterRCNN`, `MaskRCNN`, `RetinaNet` or `FCOS` with the backbone
            "resnet50_v1.5" (or another of torchvision's ResNets) and as many classes.
        weights: path of a safetensors file, or dict name -> NumPy array.
        new_classes: whether to leave alone what predicts classes, and in an R-CNN boxes and
            masks of them.

    Raises:
        InputError: if the tensors do not fit; the message lists names and shapes,
            and nothing was loaded.
    """
    source = "state dict" if isinstance(weights, dict) else Path(weights)
    tensors = weights if isinstance(weights, dict) else read_safetensors(source)
    tensors = with_new_names(tensors)
    if _FIRST_DENSE in tensors:
        # torchvision lays the pooled features out channel by channel.
        kernel = tensors[_FIRST_DENSE]
        channels = model.channels
        kernel = kernel.reshape(len(kernel), channels, -1).swapaxes(1, 2)
        tensors[_FIRST_DENSE] = kernel.reshape(len(kernel), -1)
    key = functools.partial(torchvision_module, norm=getattr(model, "norm", False))
    unused = _PREDICTORS if new_classes else None
    layers = [
        layer
        for layer in model.torchvision_layers()
        if layer.weights and not (unused and re.fullmatch(unused, f"{key(layer.name)}.weight"))
    ]
    network = types.SimpleNamespace(layers=layers)
    load_state_dict(network, tensors, key=key, unused=unused, source=source)


def with_new_names(tensors):
    """Give tensors of files of torchvision before 0.13 the names that they have since."""
    return {_renamed(name, _OLD_NAMES) or name: array for name, array in tensors.items()}


def torchvision_module(name, norm=False):
    """Name torchvision's module: `layer1_0_conv1` is `backbone.body.layer1.0.conv1`.

    Args:
        name: str, of our layer.
        norm: whether the towers of a one-stage detector have norms between their convolutions.

    Returns:
        str.
    """
    if match := re.fullmatch(r"(class_tower|box_tower)_(conv|norm)_(\d)", name):
        tower, kind, i = match.groups()
        # FCOS counts convolution, norm and ReLU; RetinaNet blocks of convolution and ReLU.
        place = f"{3 * int(i) + (kind == 'norm')}" if norm else f"{i}.0"
        return f"{_TOWERS[tower]}.conv.{place}"
    return _renamed(name, _MODULES) or _BACKBONE + name.replace("_", ".")


def _renamed(name, table):
    for pattern, new in table.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return None
