"""Occlusion: what the score loses where the image is covered."""

import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.explain.gradients import BATCH
from kerascv_d2l.explain.progress import with_progress
from kerascv_d2l.explain.subject import look

_PATCHES = 7  # along the shorter side


def occlusion(model, image, target=None, patch=None, stride=None, fill=None):
    """Slide a patch over the image, and map by how much the score falls.

    Args:
        model: as for `saliency`; an export serves too.
        image: as for `saliency`.
        target: as for `saliency`.
        patch: int, side of the patch in pixels of the network's image; None for a seventh of
            its shorter side.
        stride: int, pixels between two places; None for half a patch. The last place of each
            row and column touches the border.
        fill: number or one for each channel, 0-255; None for the mean colour of the image.

    Returns:
        float32 `(h, w)` of the network's image: the fall of the score, as the mean over the
        patches that cover a pixel. Negative where the score rises.

    Raises:
        InputError: as for `saliency`, or if patch or stride are out of range.

    Source:
        Zeiler, Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    """
    subject, pixels, target = look(model, image, target)
    pixels = np.asarray(pixels[0])
    height, width = pixels.shape[:2]
    patch = patch or max(1, min(height, width) // _PATCHES)
    stride = stride or max(1, patch // 2)
    if not 1 <= stride <= patch <= min(height, width):
        raise InputError(
            f"patch={patch}, stride={stride}: expected 1 <= stride <= patch <= "
            f"{min(height, width)}, the shorter side."
        )
    fill = pixels.mean(axis=(0, 1)) if fill is None else np.asarray(fill, np.float32)
    places = np.stack(
        np.meshgrid(_starts(height, patch, stride), _starts(width, patch, stride), indexing="ij"),
        axis=-1,
    ).reshape(-1, 2)  # (places, 2): top, left
    falls = [
        target.score - subject.scores(_covered(pixels, part, patch, fill), target)
        for part in with_progress(
            [places[i : i + BATCH] for i in range(0, len(places), BATCH)], "occlusion"
        )
    ]
    falls = np.concatenate(falls)
    total, times = (
        sum_patches(places, patch, values, (height, width))
        for values in (falls, np.ones(len(falls)))
    )
    return (total / times).astype(np.float32)


def _starts(side, patch, stride):
    return np.append(np.arange(0, side - patch, stride), side - patch)


def _covered(pixels, places, patch, fill):
    """Copies of an image `(h, w, 3)`, each with one patch: `(places, h, w, 3)`."""
    rows = np.arange(pixels.shape[0]) - places[:, :1]  # (places, h), from the top of the patch
    columns = np.arange(pixels.shape[1]) - places[:, 1:]
    rows, columns = ((x >= 0) & (x < patch) for x in (rows, columns))
    return np.where((rows[:, :, None] & columns[:, None])[..., None], fill, pixels)


def sum_patches(places, patch, values, size):
    """Add a value to all pixels of its patch: at the corners of a map whose sums are taken.

    Args:
        places: int `(n, 2)`: top and left of each patch, inside the map.
        patch: int or `(height, width)`, sides of all patches.
        values: float `(n,)`.
        size: `(height, width)` of the map.

    Returns:
        float64 `(height, width)`.
    """
    corners = np.zeros((size[0] + 1, size[1] + 1))
    (top, left), (bottom, right) = places.T, (places + patch).T
    for row, column, sign in (
        (top, left, 1), (bottom, left, -1), (top, right, -1), (bottom, right, 1)
    ):  # fmt: skip
        np.add.at(corners, (row, column), sign * values)
    return corners.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
