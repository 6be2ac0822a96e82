"""torchvision's weights in our detectors: which tensor is which layer's."""

import functools
import re
import types
from pathlib import Path

from kerascv_d2l.models.weights import load_state_dict, read_safetensors

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
}
# The towers of one-stage detectors.
_TOWERS = {"class_tower": "head.classification_head", "box_tower": "head.regression_head"}
_FIRST_DENSE = "roi_heads.box_head.fc6.weight"


def load_torchvision(model, weights):
    """Load the weights of a detector of torchvision with a ResNet and FPN, or raise.

    Args:
        model: `FasterRCNN`, `MaskRCNN`, `RetinaNet` or `FCOS` with the backbone
            "resnet50_v1.5" (or another of torchvision's ResNets) and as many classes.
        weights: path of a safetensors file, or dict name -> NumPy array.

    Raises:
        InputError: if the tensors do not fit; the message lists names and shapes,
            and nothing was loaded.
    """
    source = "state dict" if isinstance(weights, dict) else Path(weights)
    tensors = weights if isinstance(weights, dict) else read_safetensors(source)
    tensors = {_renamed(name, _OLD_NAMES) or name: array for name, array in tensors.items()}
    if _FIRST_DENSE in tensors:
        # torchvision lays the pooled features out channel by channel.
        kernel = tensors[_FIRST_DENSE]
        channels = model.channels
        kernel = kernel.reshape(len(kernel), channels, -1).swapaxes(1, 2)
        tensors[_FIRST_DENSE] = kernel.reshape(len(kernel), -1)
    layers = model.torchvision_layers()
    key = functools.partial(torchvision_module, norm=getattr(model, "norm", False))
    network = types.SimpleNamespace(layers=[layer for layer in layers if layer.weights])
    load_state_dict(network, tensors, key=key, source=source)


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
