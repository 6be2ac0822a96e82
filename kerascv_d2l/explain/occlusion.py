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
    total = _sums(places, patch, falls, (height, width))
    return (total / _sums(places, patch, np.ones(len(places)), (height, width))).astype(np.float32)


def _starts(side, patch, stride):
    return np.append(np.arange(0, side - patch, stride), side - patch)


def _covered(pixels, places, patch, fill):
    """Copies of an image `(h, w, 3)`, each with one patch: `(places, h, w, 3)`."""
    rows = np.arange(pixels.shape[0]) - places[:, :1]  # (places, h), from the top of the patch
    columns = np.arange(pixels.shape[1]) - places[:, 1:]
    rows, columns = ((x >= 0) & (x < patch) for x in (rows, columns))
    return np.where((rows[:, :, None] & columns[:, None])[..., None], fill, pixels)


def _sums(places, patch, values, size):
    """Add a value to all pixels of its patch: at the corners of a map whose sums are taken."""
    corners = np.zeros((size[0] + 1, size[1] + 1))
    (top, left), end = places.T, places.T + patch
    for row, column, sign in (
        (top, left, 1), (end[0], left, -1), (top, end[1], -1), (end[0], end[1], 1),
    ):  # fmt: skip
        np.add.at(corners, (row, column), sign * values)
    return corners.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
