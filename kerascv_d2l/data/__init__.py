"""Data sets: generated ones, readers of a user's folders, and the chapter's own.

Importing this registers the chapter's data sets with tensorflow-datasets
(`banana_detection`, `hotdog`, `voc2012_segmentation`), which takes 0.3 s and
does not import TensorFlow.
"""

from kerascv_d2l.data import builders
