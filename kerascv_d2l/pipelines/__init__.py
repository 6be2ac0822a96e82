"""Examples to batches: the one place where files and labels become tensors."""

from kerascv_d2l.pipelines.batches import steps_per_epoch
from kerascv_d2l.pipelines.cifar10 import augmentation, cifar10_batches
from kerascv_d2l.pipelines.classification import classification_batches, resized_size
from kerascv_d2l.pipelines.detection import detection_batches
from kerascv_d2l.pipelines.segmentation import segmentation_batches, whole_pictures

__all__ = [
    "augmentation",
    "cifar10_batches",
    "classification_batches",
    "detection_batches",
    "resized_size",
    "segmentation_batches",
    "steps_per_epoch",
    "whole_pictures",
]
