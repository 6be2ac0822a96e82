"""Names and shapes of the tensors of torchvision's networks, to tell whether a file is whole.

They were compared with those of torchvision 0.14, all of them.
"""

import json

from kerascv_d2l.errors import InputError
from kerascv_d2l.models.rcnn_weights import COCO_CLASSES
from kerascv_d2l.models.weights import check_tensors

_BASIC, _BOTTLENECK = 1, 4  # channels that come out of a block over those inside
_RESNETS = {
    "resnet18": (_BASIC, (2, 2, 2, 2)),
    "resnet34": (_BASIC, (3, 4, 6, 3)),
    "resnet50": (_BOTTLENECK, (3, 4, 6, 3)),
    "resnet101": (_BOTTLENECK, (3, 4, 23, 3)),
    "resnet152": (_BOTTLENECK, (3, 8, 36, 3)),
}
_VGG16 = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512}
_VGG19 = dict.fromkeys((0, 2), 64) | dict.fromkeys((5, 7), 128)
_VGG19 |= dict.fromkeys((10, 12, 14, 16), 256)
_VGG19 |= dict.fromkeys((19, 21, 23, 25, 28, 30, 32, 34), 512)
# A tensor with as many rows as the network has classes, times anchors: name, anchors.
_OF_CLASSES = {
    "maskrcnn_resnet50_fpn": ("roi_heads.mask_predictor.mask_fcn_logits.bias", 1),
    "fasterrcnn_resnet50_fpn": ("roi_heads.box_predictor.cls_score.bias", 1),
    "retinanet_resnet50_fpn": ("head.classification_head.cls_logits.bias", 9),
    "ssd300_vgg16": ("head.classification_head.module_list.0.bias", 4),
    "fcn_resnet50": ("classifier.4.bias", 1),
    "vgg19": ("classifier.6.bias", 1),
    "resnet": ("fc.bias", 1),
}
_COUNTER = "num_batches_tracked"  # which inference does not use


def check_state_dict(tensors, source):
    """Tell which network's weights these are, and check that they are all there.

    Args:
        tensors: dict name -> array.
        source: where they come from, for messages.

    Returns:
        str, torchvision's name of the network.

    Raises:
        InputError: if it is no network known here, or tensors are missing, too many or of
            another shape; the message names them.
    """
    present = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    present = {name: shape for name, shape in present.items() if not name.endswith(_COUNTER)}
    network = next((n for n, (name, _) in _OF_CLASSES.items() if name in present), None)
    if network is None:
        raise InputError(
            f"{source}: of no network that is known here ({', '.join(_OF_CLASSES)}); it has "
            f"{len(present)} tensors, the first of which are {', '.join(list(present)[:5])}."
        )
    name, anchors = _OF_CLASSES[network]
    classes = present[name][0] // anchors
    if network == "resnet":

        def fitting(network):
            wanted = layout(network, classes).keys()
            return len(present.keys() & wanted) - len(present.keys() ^ wanted)

        network = max(_RESNETS, key=fitting)
    check_tensors(source, layout(network, classes, "aux_classifier.4.bias" in present), present)
    return network


def metadata(network, tensors):
    """Give what a converted file tells of itself: dict of str."""
    found = {"network": network}
    if "rcnn" in network and len(tensors[_OF_CLASSES[network][0]]) == len(COCO_CLASSES) + 1:
        found["class_names"] = json.dumps(COCO_CLASSES)
    return found


def layout(network, classes, auxiliary=False):
    """List the tensors of a network, without counters.

    Args:
        network: str, torchvision's name, one that `check_state_dict` gives.
        classes: int, rows of what predicts classes, background included.
        auxiliary: bool, whether an FCN has its second classifier.

    Returns:
        dict name -> shape.
    """
    if network in _RESNETS:
        width = 512 * _RESNETS[network][0]
        return _resnet("", network) | _layer("fc", classes, width)
    if network == "vgg19":
        shapes = _vgg("features", _VGG19)
        shapes |= _layer("classifier.0", 4096, 512 * 49) | _layer("classifier.3", 4096, 4096)
        return shapes | _layer("classifier.6", classes, 4096)
    if network == "fcn_resnet50":
        shapes = _resnet("backbone.", "resnet50") | _fcn_head("classifier", 2048, classes)
        return shapes | (_fcn_head("aux_classifier", 1024, classes) if auxiliary else {})
    if network == "ssd300_vgg16":
        return _ssd(classes)
    shapes = _resnet("backbone.body.", "resnet50")
    if network == "retinanet_resnet50_fpn":
        return shapes | _pyramid((512, 1024, 2048)) | _retina_heads(classes)
    shapes |= _pyramid((256, 512, 1024, 2048)) | _layer("rpn.head.conv.0.0", 256, 256, 3, 3)
    shapes |= _layer("rpn.head.cls_logits", 3, 256, 1, 1)
    shapes |= _layer("rpn.head.bbox_pred", 12, 256, 1, 1)
    heads = "roi_heads."
    shapes |= _layer(f"{heads}box_head.fc6", 1024, 12544) | _layer(
        f"{heads}box_head.fc7", 1024, 1024
    )
    shapes |= _layer(f"{heads}box_predictor.cls_score", classes, 1024)
    shapes |= _layer(f"{heads}box_predictor.bbox_pred", 4 * classes, 1024)
    if network == "maskrcnn_resnet50_fpn":
        for i in range(4):
            shapes |= _layer(f"{heads}mask_head.{i}.0", 256, 256, 3, 3)
        shapes |= _layer(f"{heads}mask_predictor.conv5_mask", 256, 256, 2, 2)
        shapes |= _layer(f"{heads}mask_predictor.mask_fcn_logits", classes, 256, 1, 1)
    return shapes


def _layer(name, out, *rest):
    """A convolution or dense layer with a bias."""
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def _norm(name, channels):
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts}


def _resnet(prefix, network):
    """All but the classifier."""
    expansion, blocks = _RESNETS[network]
    shapes = {f"{prefix}conv1.weight": (64, 3, 7, 7)} | _norm(f"{prefix}bn1", 64)
    entering = 64
    for stage, count in enumerate(blocks):
        inner = 64 * 2**stage
        leaving = inner * expansion
        for block in range(count):
            name = f"{prefix}layer{stage + 1}.{block}"
            kernels = [(inner, entering, 3), (inner, inner, 3)]
            if expansion == _BOTTLENECK:
                kernels = [(inner, entering, 1), (inner, inner, 3), (leaving, inner, 1)]
            for i, (out, into, side) in enumerate(kernels, 1):
                shapes[f"{name}.conv{i}.weight"] = (out, into, side, side)
                shapes |= _norm(f"{name}.bn{i}", out)
            if block == 0 and (stage > 0 or expansion > 1):
                shapes[f"{name}.downsample.0.weight"] = (leaving, entering, 1, 1)
                shapes |= _norm(f"{name}.downsample.1", leaving)
            entering = leaving
    return shapes


def _vgg(prefix, channels):
    shapes, entering = {}, 3
    for i, out in channels.items():
        shapes |= _layer(f"{prefix}.{i}", out, entering, 3, 3)
        entering = out
    return shapes


def _fcn_head(prefix, entering, classes):
    shapes = {f"{prefix}.0.weight": (entering // 4, entering, 3, 3)}
    shapes |= _norm(f"{prefix}.1", entering // 4)
    return shapes | _layer(f"{prefix}.4", classes, entering // 4, 1, 1)


def _pyramid(entering):
    shapes = {}
    for i, channels in enumerate(entering):
        shapes |= _layer(f"backbone.fpn.inner_blocks.{i}.0", 256, channels, 1, 1)
        shapes |= _layer(f"backbone.fpn.layer_blocks.{i}.0", 256, 256, 3, 3)
    return shapes


def _retina_heads(classes):
    shapes = {}
    for level in ("p6", "p7"):
        shapes |= _layer(f"backbone.fpn.extra_blocks.{level}", 256, 256, 3, 3)
    for kind, last, rows in (
        ("classification", "cls_logits", 9 * classes),
        ("regression", "bbox_reg", 36),
    ):
        for i in range(4):
            shapes |= _layer(f"head.{kind}_head.conv.{i}.0", 256, 256, 3, 3)
        shapes |= _layer(f"head.{kind}_head.{last}", rows, 256, 3, 3)
    return shapes


def _ssd(classes):
    shapes = {"backbone.scale_weight": (512,)} | _vgg("backbone.features", _VGG16)
    for i in (1, 3, 5):
        shapes |= _layer(f"backbone.extra.0.{i}", 512, 512, 3, 3)
    shapes |= _layer("backbone.extra.0.7.1", 1024, 512, 3, 3)
    shapes |= _layer("backbone.extra.0.7.3", 1024, 1024, 1, 1)
    entering = 1024
    for i, (inner, out) in enumerate(((256, 512), (128, 256), (128, 256), (128, 256)), 1):
        shapes |= _layer(f"backbone.extra.{i}.0", inner, entering, 1, 1)
        shapes |= _layer(f"backbone.extra.{i}.2", out, inner, 3, 3)
        entering = out
    maps = zip((512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4), strict=True)
    for i, (channels, anchors) in enumerate(maps):
        for kind, rows in (("classification", classes), ("regression", 4)):
            name = f"head.{kind}_head.module_list.{i}"
            shapes |= _layer(name, anchors * rows, channels, 3, 3)
    return shapes
