"""Random changes of images, boxes and masks, as Keras layers."""

from kerascv_d2l.layers.augmentation.color_jitter import ColorJitter
from kerascv_d2l.layers.augmentation.compose import (
    Compose,
    classification_augmentation,
    flip_augmentation,
    flip_color_augmentation,
    mosaic_augmentation,
    segmentation_augmentation,
    small_augmentation,
    ssd_augmentation,
)
from kerascv_d2l.layers.augmentation.flips import RandomHorizontalFlip, RandomVerticalFlip
from kerascv_d2l.layers.augmentation.iou_crop import RandomIoUCrop
from kerascv_d2l.layers.augmentation.mosaic import Mosaic
from kerascv_d2l.layers.augmentation.resized_crop import RandomResizedCrop
from kerascv_d2l.layers.augmentation.scale_crop import RandomScaleCrop, RandomShift
from kerascv_d2l.layers.augmentation.zoom_out import RandomZoomOut
