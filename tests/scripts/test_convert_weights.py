"""Weights of torchvision's layout, converted and loaded; PyTorch itself is not needed."""

import math
import sys
import types

import numpy as np
import pytest
from training_data import load_script

from kerascv_d2l import InputError
from kerascv_d2l.models.rcnn_weights import COCO_CLASSES
from kerascv_d2l.models.torchvision_layouts import check_state_dict, layout
from kerascv_d2l.models.weights import read_safetensors

# Classes, and numbers in the tensors of torchvision's networks, statistics included.
SIZES = {
    "fasterrcnn_resnet50_fpn": (91, 41_861_526),
    "maskrcnn_resnet50_fpn": (91, 44_507_633),
    "retinanet_resnet50_fpn": (91, 34_121_239),
    "ssd300_vgg16": (91, 35_641_826),
    "fcn_resnet50": (21, 33_011_157),
    "resnet18": (1000, 11_699_112),
    "resnet152": (1000, 60_344_232),
    "vgg19": (1000, 143_667_240),
}


class Tensor:
    """As much of a PyTorch tensor as the script uses, of zeros that take no memory."""

    def __init__(self, shape):
        self.shape = shape

    def contiguous(self):
        return self

    def numpy(self):
        return np.zeros(self.shape, np.float32)


@pytest.mark.quick
@pytest.mark.parametrize("network", SIZES)
def test_layouts_are_those_of_torchvision(network):
    classes, _ = SIZES[network]
    shapes = layout(network, classes)
    tensors = {name: Tensor(shape) for name, shape in shapes.items()}
    tensors["bn1.num_batches_tracked"] = Tensor(())
    assert check_state_dict(tensors, "file") == network
    assert sum(math.prod(shape) for shape in shapes.values()) == SIZES[network][1]
    name = next(iter(tensors))
    tensors[f"old.{name}"] = tensors.pop(name)
    with pytest.raises(InputError, match=rf"1 missing: {name}.*1 not part.*old\.{name}"):
        check_state_dict(tensors, "file")


@pytest.mark.quick
def test_script_writes_what_is_loaded(tmp_path, monkeypatch):
    found = {name: Tensor(shape) for name, shape in layout("resnet18", 2).items()}
    found["bn1.num_batches_tracked"] = Tensor(())
    asked = {}

    def load(path, **options):
        asked.update(options)
        return found

    torch = types.ModuleType("torch")
    torch.load, torch.is_tensor = load, lambda value: isinstance(value, Tensor)
    monkeypatch.setitem(sys.modules, "torch", torch)
    source = tmp_path / "resnet18-f37072fd.pth"
    script = load_script("convert_weights")
    with pytest.raises(InputError, match="there is no such file"):
        script.main([str(source)])
    source.touch()
    out = script.main([str(source)])
    assert asked["weights_only"] and out == source.with_suffix(".safetensors")
    assert read_safetensors(out).keys() == found.keys() - {"bn1.num_batches_tracked"}
    with pytest.raises(InputError, match="is there already"):
        script.main([str(source)])
    del found["fc.weight"]
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth.*1 missing: fc\.weight"):
        script.main([str(source), "--out", str(tmp_path / "other.safetensors")])
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] == []


@pytest.mark.quick
def test_class_names_are_those_of_coco():
    assert len(set(COCO_CLASSES)) == 90
    assert COCO_CLASSES[0] == "person" and COCO_CLASSES[89] == "toothbrush"
    assert COCO_CLASSES[16] == "cat" and sum("N/A" in name for name in COCO_CLASSES) == 10
