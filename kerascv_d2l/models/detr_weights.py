"""The published weights of the original DETR."""

import re
from pathlib import Path

from kerascv_d2l.models.weights import load_state_dict, read_safetensors

# Our layer's name -> the module in the published weights, by regular expressions.
_MODULES = {
    r"input_projection": "model.input_projection",
    r"queries": "model.query_position_embeddings",
    r"(encoder|decoder)_(\d)_(self_attn|encoder_attn)_(\w+_proj)": r"model.\1.layers.\2.\3.\4",
    r"(encoder|decoder)_(\d)_(\w+)": r"model.\1.layers.\2.\3",
    r"layernorm": "model.decoder.layernorm",
    r"class_labels_classifier": "class_labels_classifier",
    r"bbox_predictor_(\d)": r"bbox_predictor.layers.\1",
}
_BACKBONE = "model.backbone.conv_encoder.model."


def load_published(model, weights):
    """Load the weights of "facebook/detr-resnet-50", or raise.

    Args:
        model: `DETR` with the backbone "resnet50_v1.5", `num_queries=100, width=256,
            encoder_layers=6, decoder_layers=6, feedforward=2048, reference_boxes=False` and 91
            classes.
        weights: path of a safetensors file, or dict name -> NumPy array.

    Raises:
        InputError: if the tensors do not fit; the message lists names and shapes, and
            nothing was loaded.
    """
    source = "state dict" if isinstance(weights, dict) else Path(weights)
    tensors = weights if isinstance(weights, dict) else read_safetensors(source)
    load_state_dict(_Leaves(model), tensors, key=published_module, source=source)


def published_module(name):
    """Name the published module: `decoder_0_self_attn_q_proj`, `layer1_0_conv1` …."""
    for pattern, module in _MODULES.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(module)
    return _BACKBONE + name.replace("_", ".")


class _Leaves:
    """The layers with weights of a DETR, as `load_state_dict` takes a model's."""

    def __init__(self, model):
        blocks = [*model.encoder_layers, *model.decoder_layers]
        heads = [model.layernorm, model.classifier, *model.box_layers, model.queries]
        inner = [layer for block in blocks for layer in block.leaves()]
        everything = [*model.features.layers, model.input_projection, *inner, *heads]
        self.layers = [layer for layer in everything if layer.weights]
