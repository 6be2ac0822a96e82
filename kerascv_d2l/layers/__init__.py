"""Keras layers."""

from kerascv_d2l.layers.batch_norm import BatchNorm
from kerascv_d2l.layers.detection_decoder import DetectionDecoder
