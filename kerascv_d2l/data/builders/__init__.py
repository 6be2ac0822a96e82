"""The chapter's data sets as tensorflow-datasets builders.

Importing this registers them, so that `tfds.load("banana_detection")` and the
other two names work. It does not import TensorFlow.
"""

from kerascv_d2l.data.builders.banana_detection import BananaDetection
from kerascv_d2l.data.builders.hotdog import Hotdog
from kerascv_d2l.data.builders.voc2012_segmentation import Voc2012Segmentation

__all__ = ["BananaDetection", "Hotdog", "Voc2012Segmentation"]
