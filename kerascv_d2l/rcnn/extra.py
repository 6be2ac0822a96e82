"""Packages that only R-CNN needs."""

import importlib

from kerascv_d2l.errors import InputError


def optional(name):
    """Import a module of scikit-image or scikit-learn.

    Args:
        name: str, such as "skimage.segmentation".

    Returns:
        The module.

    Raises:
        InputError: if the package is not installed; it says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"R-CNN needs {name.split('.')[0]} ({error}). Install it with "
            "pip install 'kerascv-d2l[rcnn]', or pip install scikit-image scikit-learn."
        ) from error
