"""Detectors by name, and how each is trained.

To add a detector, write a module with a subclass of `kerascv_d2l.models.detector.Detector`
and add one line to `DETECTORS`. Nothing here imports TensorFlow before a detector is made.
"""

import dataclasses
import difflib
import importlib

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


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings for training that suit a model; a class has several, by name, in `RECIPES`.

    Attributes:
        optimizer: "adam" or "sgd".
        learning_rate: float, at the start.
        momentum: float, of SGD.
        schedule: "constant" or "cosine" (to 0 at the end of the training).
        weight_decay: float.
        epochs: int.
        batch_size: int, images in a step, on all devices together.
        augment: str, what the training images go through.
        loss: str, one of the class's `LOSSES`, or None if it has none.
        options: dict of further arguments of the class.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    schedule: str = "cosine"
    weight_decay: float = 0.0
    epochs: int = 13
    batch_size: int = 32
    augment: str = "none"
    loss: str = None
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
    cls = detector_class(name)
    chosen = {"backbone": backbone, "weights": weights}
    chosen = {argument: value for argument, value in chosen.items() if value is not None}
    if chosen and cls.BACKBONE is None:
        takers = [other for other in DETECTORS if detector_class(other).BACKBONE]
        given = ", ".join(f"{argument}={str(value)!r}" for argument, value in chosen.items())
        raise InputError(
            f"{given}: the model {name} has a network of its own. Leave it out, or use "
            f"{' or '.join(takers)}."
        )
    return cls(class_names=class_names, image_size=image_size, **chosen, **options)


def detector_recipe(name, recipe="default"):
    """Look up how to train a detector.

    Args:
        name: str, a key of `DETECTORS`.
        recipe: str, a key of the class's `RECIPES`.

    Returns:
        dict of the attributes of `Recipe`.

    Raises:
        InputError: if there is no such detector, or it has no such recipe.
    """
    recipes = detector_class(name).RECIPES
    return dataclasses.asdict(recipes[one_of(recipes, recipe, "recipe")])


def one_of(table, name, argument):
    """Return `name` if it is a key of `table`, else raise `InputError` with the closest keys."""
    if name in table:
        return name
    close = difflib.get_close_matches(str(name), table, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{argument} must be one of {', '.join(table)}; got {name!r}.{hint}")
