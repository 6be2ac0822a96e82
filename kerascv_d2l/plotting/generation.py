"""Sheets of generated images, pixel for pixel, and how they change while a model trains."""

import math

import numpy as np
from PIL import Image

from kerascv_d2l.errors import InputError
from kerascv_d2l.files import whole
from kerascv_d2l.plotting.common import to_uint8

GAP, PAPER = 2, 255  # pixels between images, and their grey level
LEAST_SHOWN = 64  # pixels: smaller images are enlarged by whole factors
FRAME_MILLISECONDS = 400


def tile(images, columns=8):
    """Lay images of one size side by side.

    Args:
        images: sequence of `(h, w, 3)` or `(h, w, 1)`, as `to_uint8` takes them.
        columns: int, images a row.

    Returns:
        uint8 `(height, width, 3)`; small images are enlarged.

    Raises:
        InputError: if there is no image, or their sizes differ.
    """
    images = [to_uint8(image) for image in images]
    if not images or len({image.shape for image in images}) > 1:
        shapes = sorted({image.shape for image in images})
        raise InputError(f"images have the shapes {shapes}: wanted at least one image, all alike")
    factor = max(1, math.ceil(LEAST_SHOWN / min(images[0].shape[:2])))
    images = [image.repeat(factor, 0).repeat(factor, 1) for image in images]
    height, width = (side + GAP for side in images[0].shape[:2])
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * height + GAP, columns * width + GAP, 3), PAPER, np.uint8)
    for k, image in enumerate(images):
        top, left = GAP + k // columns * height, GAP + k % columns * width
        sheet[top : top + height - GAP, left : left + width - GAP] = image
    return sheet


def draw_tiles(path, images, columns=8):
    """Write `tile(images, columns)` as a file, `.png`."""
    with whole(path) as temporary:
        Image.fromarray(tile(images, columns)).save(temporary)


def draw_animation(path, files):
    """Write a `.gif` that shows image files of one size one after the other, the last for longer.

    Raises:
        InputError: if there is no file.
    """
    if not files:
        raise InputError("files is empty: wanted at least one image")
    frames = []
    for file in files:
        with Image.open(file) as frame:
            frames.append(frame.convert("RGB").quantize(128))
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [5 * FRAME_MILLISECONDS]
    with whole(path) as temporary:
        frames[0].save(
            temporary, save_all=True, append_images=frames[1:], duration=durations, loop=0
        )
