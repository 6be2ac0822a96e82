"""A folder of photographs, of which nothing is known."""

from kerascv_d2l.data.layouts.files import ALL, walk
from kerascv_d2l.data.layouts.records import LabelledImage, Labels
from kerascv_d2l.data.splits import UNLABELLED

TITLE = "photographs"
LOOKS = "image files, in folders or not"
TASKS = (UNLABELLED,)


def recognises(root):
    """Whether there is an image in `root` or in a folder in it."""
    return bool(walk(root))


def read(root, faults, validate=False):
    """List the images; of what is hidden or no image there is no word.

    Args:
        root: `Path`.
        faults: `records.Faults`.
        validate: bool: set a share of the images apart to validate on.
    """
    images = {ALL: [LabelledImage(file, str(root)) for file in walk(root)]}
    return Labels(images, targets=(lambda image, info: ({}, [])) if validate else None)
