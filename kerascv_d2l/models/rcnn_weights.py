"""torchvision's weights in our R-CNNs: which tensor is which layer's."""

import re
import types
from pathlib import Path

from kerascv_d2l.models.weights import load_state_dict, read_safetensors

_BACKBONE = "backbone.body."
# Our layer's name -> torchvision's module, by regular expressions.
_MODULES = {
    r"fpn_inner_(\d)": r"backbone.fpn.inner_blocks.\1.0",
    r"fpn_layer_(\d)": r"backbone.fpn.layer_blocks.\1.0",
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
_FIRST_DENSE = "roi_heads.box_head.fc6.weight"


def load_torchvision(model, weights):
    """Load the weights of torchvision's Faster R-CNN with a ResNet and FPN, or raise.

    Args:
        model: `FasterRCNN` with the backbone "resnet50_v1.5" (or another of
            torchvision's ResNets) and as many classes.
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
    layers = [
        *model.features.layers,
        *(model.rpn.conv, model.rpn.cls_logits, model.rpn.bbox_pred),
        *(model.box_head.fc6, model.box_head.fc7),
        *(model.box_head.cls_score, model.box_head.bbox_pred),
    ]
    if model.predicts_masks:
        head = model.mask_head
        layers += [*head.convs, head.conv5_mask, head.mask_fcn_logits]
    network = types.SimpleNamespace(layers=[layer for layer in layers if layer.weights])
    load_state_dict(network, tensors, key=torchvision_module, source=source)


def torchvision_module(name):
    """Name torchvision's module: `layer1_0_conv1` is `backbone.body.layer1.0.conv1`."""
    return _renamed(name, _MODULES) or _BACKBONE + name.replace("_", ".")


def _renamed(name, table):
    for pattern, new in table.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return None
