"""Record torchvision's ResNets as small numbers that tests compare with: resnet_recorded.json.

    PYTHONPATH=torchvision_folder python tests/models/record_resnet.py

Needs torch and the Python files of torchvision, of which only
`torchvision.models.resnet` is imported. Two minutes on two cores. The weights
are drawn by name, so that the tests can draw them again without torch.
"""

import json
import sys
import types
import zlib
from functools import partial
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_name("resnet_recorded.json")
SIZES = ((224, 224), (225, 225), (320, 480))
STAGES = ("layer1", "layer2", "layer3", "layer4")
SAMPLES = 24  # values kept of each feature map and of the logits
# Small, so that the deepest maps have 2 x 2 x 3 values a channel: dividing by 12 or 11 shows.
TRAINING_SHAPE = (2, 64, 96, 3)


def draw(name, shape):
    """Draw numbers from a stream that NumPy has promised never to change.

    Args:
        name: str that stands for the stream.
        shape: tuple of int.

    Returns:
        float64 array, standard normal.
    """
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def draw_state_dict(shapes):
    """Draw weights and batch norm statistics that keep features at a scale of about 1.

    Args:
        shapes: dict name of a tensor in a state dict of torchvision -> shape.

    Returns:
        dict name -> float32 array; counters are left out.
    """
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = draw(name, shape)
        if len(shape) > 1:
            noise *= np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            noise = 1 + 0.5 * np.tanh(noise)
        elif name.endswith("weight"):
            # the last norm of a block adds little, or the sums grow from block to block
            noise = (0.3 if ".bn2" in name else 1.0) * (1 + 0.3 * np.tanh(noise))
        else:
            noise *= 0.1
        tensors[name] = noise.astype("float32")
    return tensors


def draw_images(shape):
    """Draw standardised images `(batch, h, w, 3)`, float32."""
    return draw(f"images {shape}", shape).astype("float32")


def sample(array):
    """Pick values of an array, the same places for the same shape.

    Args:
        array: `(batch, h, w, c)`, `(batch, classes)` or `(channels,)`.

    Returns:
        float64 `(SAMPLES,)`, with repetition.
    """
    flat = np.asarray(array, "float64").reshape(-1)
    places = np.random.RandomState(zlib.crc32(str(np.shape(array)).encode()))
    return flat[places.randint(0, flat.size, SAMPLES)]


def _torchvision_resnet():
    """Import `torchvision.models.resnet` without torchvision's compiled operations."""
    import importlib.util

    import torch

    spec = importlib.util.find_spec("torchvision")
    folder = Path(spec.origin).parent
    for name in ("torchvision", "torchvision.models"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder / Path(*name.split(".")[1:]))]
        sys.modules[name] = package
    transforms = types.ModuleType("torchvision.transforms._presets")
    transforms.ImageClassification = lambda **arguments: None
    sys.modules["torchvision.transforms._presets"] = transforms
    module = importlib.import_module("torchvision.models.resnet")
    return torch, module


def _keep(features, stage, module, inputs, output):
    features[stage] = output


def main():
    torch, resnet = _torchvision_resnet()
    recorded = {}
    for name in ("resnet18", "resnet34"):
        network = getattr(resnet, name)(weights=None)
        shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        tensors = draw_state_dict(shapes)
        state = {key: torch.from_numpy(tensor) for key, tensor in tensors.items()}
        network.load_state_dict(state, strict=False)
        features = {}
        for stage in STAGES:
            getattr(network, stage).register_forward_hook(partial(_keep, features, stage))
        entry = {"shapes": shapes, "inference": {}, "statistics": {}}
        network.eval()
        with torch.no_grad():
            for height, width in SIZES:
                images = draw_images((1, height, width, 3))
                features["logits"] = network(torch.from_numpy(images.transpose(0, 3, 1, 2)))
                entry["inference"][f"{height}x{width}"] = {
                    key: sample(
                        tensor.numpy() if tensor.ndim == 2 else tensor.permute(0, 2, 3, 1).numpy()
                    ).tolist()
                    for key, tensor in features.items()
                }
        network.train()
        network(
            torch.from_numpy(draw_images(TRAINING_SHAPE).transpose(0, 3, 1, 2))
        ).sum().backward()
        for key, tensor in network.state_dict().items():
            if "running" in key:
                entry["statistics"][key] = sample(tensor.numpy())[:3].tolist()
        recorded[name] = entry
    text = json.dumps(recorded, separators=(",", ":"), default=float)
    recorded = json.loads(text, parse_float=lambda number: float(f"{float(number):.6g}"))
    RECORDED.write_text(json.dumps(recorded, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
