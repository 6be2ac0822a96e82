"""Records torchvision's box coder, overlaps, losses, anchors, matching and feature pyramid.

    /usr/bin/python3 tests/recording/record_regions.py    # needs torchvision; writes regions.npz

Inputs are those of region_inputs.py. `…_gradient` is that of the sum by the first argument.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import region_inputs as given
import torch
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

tensor = torch.from_numpy


def coding():
    boxes, anchors = tensor(given.boxes(12, 1)), tensor(given.boxes(12, 2))
    offsets = tensor(given.offsets(12, 3))
    found = {}
    for i, weights in enumerate(given.WEIGHTS):
        coder = BoxCoder(weights)
        found[f"encoded_{i}"] = coder.encode_single(boxes, anchors)
        found[f"decoded_{i}"] = coder.decode_single(offsets, anchors).reshape(12, 3, 4)
    return found


def overlaps():
    boxes1, boxes2 = tensor(given.boxes(9, 3)), tensor(given.boxes(7, 4))
    found = {
        "giou": ops.generalized_box_iou(boxes1, boxes2),
        "ciou": ops.complete_box_iou(boxes1, boxes2),
    }
    losses = {"giou": ops.generalized_box_iou_loss, "ciou": ops.complete_box_iou_loss}
    for name, loss in losses.items():
        first = boxes1[:7].clone().requires_grad_()
        values = loss(first, boxes2)
        values.sum().backward()
        found |= {f"{name}_loss": values, f"{name}_loss_gradient": first.grad}
    return found


def focal():
    logits, targets = (tensor(array) for array in given.logits())
    found = {}
    for i, (alpha, gamma) in enumerate(given.FOCAL):
        inputs = logits.clone().requires_grad_()
        values = ops.sigmoid_focal_loss(inputs, targets, -1 if alpha is None else alpha, gamma)
        values.sum().backward()
        found |= {f"focal_{i}": values, f"focal_{i}_gradient": inputs.grad}
    return found


def anchors():
    image = ImageList(torch.zeros(1, 3, *given.IMAGE_SIZE), [given.IMAGE_SIZE])
    maps = [torch.zeros(1, 1, *size) for size in given.MAP_SIZES]
    return {
        f"anchors_{name}": AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3)(image, maps)[0]
        for name, sizes in given.ANCHOR_SIZES.items()
    }


def matching():
    objects, anchors = given.matching()
    found = {}
    for name, (high, low, allow) in given.MATCHES.items():
        matcher = Matcher(high, low, allow_low_quality_matches=allow)
        rows = [matcher(ops.box_iou(tensor(o), tensor(anchors))) for o in objects]
        found[f"match_{name}"] = torch.stack(rows).to(torch.int8)
    return found


def pyramid():
    maps, weights = given.pyramid()
    named = OrderedDict((str(i), tensor(m).permute(0, 3, 1, 2)) for i, m in enumerate(maps))
    extras = {"pool": LastLevelMaxPool(), "p6p7": LastLevelP6P7(given.CHANNELS, given.CHANNELS)}
    found = {}
    for name, extra in extras.items():
        network = ops.FeaturePyramidNetwork(list(given.MAP_CHANNELS), given.CHANNELS, extra)
        names = {"inner_": "inner_blocks.{}.0", "layer_": "layer_blocks.{}.0"}
        state = {}
        for layer, (kernel, bias) in weights.items():
            theirs = names.get(layer[:-1], "extra_blocks." + layer).format(layer[-1])
            state[f"{theirs}.weight"] = tensor(kernel).permute(3, 2, 0, 1)
            state[f"{theirs}.bias"] = tensor(bias)
        own = network.state_dict()
        assert name == "pool" or set(own) == set(state)
        network.load_state_dict({key: state[key] for key in own})
        for i, output in enumerate(network(named).values()):
            found[f"fpn_{name}_{i}"] = output.permute(0, 2, 3, 1)
    return found


def main():
    found = coding() | overlaps() | focal() | anchors() | matching() | pyramid()
    path = Path(__file__).with_name("regions.npz")
    np.savez_compressed(path, **{name: value.detach().numpy() for name, value in found.items()})
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
