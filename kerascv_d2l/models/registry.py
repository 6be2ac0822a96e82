"""Detectors by name, and how each is trained.

To add a detector, write a module with a subclass of `kerascv_d2l.models.detector.Detector`
and add one line to `DETECTORS`. Nothing here imports TensorFlow before a detector is made.
"""

import dataclasses
import difflib
import importlib
import math
from pathlib import Path

from kerascv_d2l.errors import InputError

# Name, as `--model` takes it -> "module:class".
DETECTORS = {
    "tinyssd": "kerascv_d2l.models.ssd:TinySSD",
    "ssd": "kerascv_d2l.models.ssd:SSD",
    "retinanet": "kerascv_d2l.models.retinanet:RetinaNet",
    "fcos": "kerascv_d2l.models.fcos:FCOS",
    "yolo1": "kerascv_d2l.models.yolo1:YOLO1",
    "detr": "kerascv_d2l.models.detr:DETR",
    "faster_rcnn": "kerascv_d2l.models.faster_rcnn:FasterRCNN",
    "mask_rcnn": "kerascv_d2l.models.mask_rcnn:MaskRCNN",
}


USUAL_SIDE = 256  # pixels, for which updates are counted

# How a training on a folder of images differs from a class's default recipe, which is for
# generated images and random weights: docs/experiments.md has what was tried.
ON_FOLDERS = {
    "backbone": "mobilenet_0.75",
    "weights": "imagenet",
    "backbone_rate": 0.3,
    "updates": 2000,
    "batch_size": 8,
    "augment": "ssd",
    "plain_epochs": 0.2,
    "warmup": 0.05,
    "clip_norm": 10.0,
    "averaging": 0.99,
}
# Recipes that they change: the others are as somebody published them.
OWN_RECIPES = ("default", "denoising")
# And from the weights of a whole detector of torchvision. No such weights could be had to try it.
WHOLE = {"backbone": "resnet50_v1.5", "learning_rate": 1e-4, "backbone_rate": 1.0}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings for training that suit a model; a class has several, by name, in `RECIPES`.

    Attributes:
        optimizer: "adam", "adamw" or "sgd".
        learning_rate: float, the highest.
        momentum: float, of SGD.
        schedule: "constant" or "cosine" (to 0 at the end of the training).
        warmup: float, share of the updates in which the rate of a cosine first rises.
        weight_decay: float.
        clip_norm: float, largest norm of the gradients; None for no limit.
        averaging: float, momentum of a running mean of the weights; None for none.
        backbone_rate: float, rate of a pretrained backbone, in terms of the learning rate.
        updates: int, at 256 x 256 pixels, for which `epochs` are counted by the images; None: as
            many as `epochs` say.
        epochs: int; with `updates` the fewest.
        batch_size: int, images in a step, on all devices together.
        augment: str, what the training images go through.
        plain_epochs: float in [0, 1), share of the epochs, the last, without mosaics and with
            batches of one size, that of the images that the detector will see.
        multi_scale: float in [0, 1): batches are from 1 - this to 1 + this times as large as the
            images that the detector will see; 0 for one size.
        loss: str, one of the class's `LOSSES`, or None if it has none.
        backbone: str, the network under the detector; None for the class's default.
        weights: its weights, as for `create_detector`.
        options: dict of further arguments of the class.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = None
    averaging: float = None
    backbone_rate: float = 1.0
    updates: int = None
    epochs: int = 13
    batch_size: int = 32
    augment: str = "none"
    plain_epochs: float = 0.0
    multi_scale: float = 0.0
    loss: str = None
    backbone: str = None
    weights: str = None
    options: dict = dataclasses.field(default_factory=dict)


def detector_class(name):
    """Import the class of a detector.

    Args:
        name: str, a key of `DETECTORS`.

    Returns:
        Subclass of `kerascv_d2l.models.detector.Detector`.

    Raises:
        InputError: if there is no such detector.
    """
    module, attribute = DETECTORS[one_of(DETECTORS, name, "model")].split(":")
    return getattr(importlib.import_module(module), attribute)


def create_detector(name, class_names, image_size=None, backbone=None, weights=None, **options):
    """Make a detector by name.

    Args:
        name: str, a key of `DETECTORS`.
        class_names: sequence of str.
        image_size: `(height, width)`, see `Detector`.
        backbone: str, the network under the detector, or None for its default.
        weights: weights of the backbone, or None for random ones.
        **options: further arguments of the class.

    Returns:
        `kerascv_d2l.models.detector.Detector`, not compiled.

    Raises:
        InputError: if there is no such detector, or it takes no backbone, or its arguments
            are wrong.
    """
    check_network(name, backbone, weights)
    given = {"backbone": backbone, "weights": weights}
    given = {argument: value for argument, value in given.items() if value is not None}
    return detector_class(name)(class_names=class_names, image_size=image_size, **given, **options)


def check_network(name, backbone=None, weights=None):
    """Check that a detector takes the network that it is given.

    Args:
        name: str, a key of `DETECTORS`.
        backbone: as for `create_detector`.
        weights: likewise.

    Raises:
        InputError: if there is no such detector, or it has a network of its own.
    """
    given = {"backbone": backbone, "weights": weights}
    given = {argument: value for argument, value in given.items() if value is not None}
    if given and detector_class(name).BACKBONE is None:
        takers = [other for other in DETECTORS if detector_class(other).BACKBONE]
        given = ", ".join(f"{argument}={str(value)!r}" for argument, value in given.items())
        raise InputError(
            f"{given}: the model {name} has a network of its own. Leave it out, or use "
            f"{' or '.join(takers)}."
        )


def detector_recipe(name, recipe="default", on_folder=False, whole=False):
    """Look up how to train a detector.

    Args:
        name: str, a key of `DETECTORS`.
        recipe: str, a key of the class's `RECIPES`.
        on_folder: whether to change one of `OWN_RECIPES` as `ON_FOLDERS`, and what the class has
            of that name, say.
        whole: whether it starts from the weights of torchvision's whole detector: the default
            recipe then has torchvision's network, and a rate that is small for all of it.

    Returns:
        dict of the attributes of `Recipe`.

    Raises:
        InputError: if there is no such detector, or it has no such recipe.
    """
    cls = detector_class(name)
    found = cls.RECIPES[one_of(cls.RECIPES, recipe, "recipe")]
    if on_folder and recipe in OWN_RECIPES:
        changes = ON_FOLDERS | cls.ON_FOLDERS
        changes["options"] = found.options | changes.get("options", {})
        found = dataclasses.replace(found, **changes)
    if whole and recipe == "default":
        found = dataclasses.replace(found, **WHOLE, options=cls.RECIPES["torchvision"].options)
    if cls.BACKBONE is None:
        found = dataclasses.replace(found, backbone=None, weights=None)
    return dataclasses.asdict(found)


def backbone_of(weights):
    """Tell whose weights a file has.

    Args:
        weights: as for `create_detector`.

    Returns:
        Name of a network, or None if that cannot be told: the file is of a whole detector,
        unknown, or missing, which is found out where it is read.
    """
    path = Path(weights)
    if not path.is_file():
        return None
    from kerascv_d2l.models.weights import identify

    return identify(path)


def epochs_for(recipe, steps_per_epoch, image_size):
    """Count the epochs of a training.

    Args:
        recipe: dict with `epochs` and `updates`, see `Recipe`.
        steps_per_epoch: int.
        image_size: `(height, width)`, pixels. Updates with larger images take longer, and so
            there are fewer.

    Returns:
        int, at least 1.
    """
    if recipe["updates"] is None:
        return recipe["epochs"]
    updates = recipe["updates"] * USUAL_SIDE / math.sqrt(math.prod(image_size))
    return max(recipe["epochs"], round(updates / steps_per_epoch), 1)


def one_of(table, name, argument):
    """Return `name` if it is a key of `table`, else raise `InputError` with the closest keys."""
    if name in table:
        return name
    close = difflib.get_close_matches(str(name), table, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{argument} must be one of {', '.join(table)}; got {name!r}.{hint}")
