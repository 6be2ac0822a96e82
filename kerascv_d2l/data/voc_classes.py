"""The classes and colours of Pascal VOC; plain lists, without TensorFlow."""

from kerascv_d2l.colors import default_colors

# Index k of both lists is class k; 0 is background.
VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv/monitor",
]
VOC_COLORMAP = default_colors(len(VOC_CLASSES)).tolist()

VOC_IGNORE_COLOR = [224, 224, 192]  # of the borders drawn around objects: no class at all
