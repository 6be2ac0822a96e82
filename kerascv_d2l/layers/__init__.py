"""Keras layers."""

from kerascv_d2l.layers.batch_norm import BatchNorm, BatchNormalization
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.layers.depthwise import DepthwiseConv2D
from kerascv_d2l.layers.detection_decoder import DetectionDecoder
from kerascv_d2l.layers.group_norm import GroupNormalization
