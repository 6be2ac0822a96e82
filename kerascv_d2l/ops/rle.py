"""Run-length encodings of instance masks, as COCO has them.

An encoding is a dict `{"size": [height, width], "counts": bytes}`: pycocotools' compressed
form of a mask in column order. It takes some hundred bytes, where the mask takes a byte a pixel.
"""

import numpy as np
from pycocotools import mask as coco

from kerascv_d2l.errors import InputError

MIN_CORNERS = 3  # of a polygon
CIRCLE_CORNERS = 64


def encode_masks(masks):
    """Encode masks.

    Args:
        masks: bool or uint8 `(n, height, width)`, 0 where an object is not.

    Returns:
        list of n encodings.
    """
    # One by one: pycocotools wants columns one behind the other, which is a copy.
    return [coco.encode(np.asfortranarray(np.asarray(mask) != 0, np.uint8)) for mask in masks]


def decode_masks(encodings, size, part=None, place=None):
    """Decode a window of masks at another size, without their whole images in memory.

    Never interpolated: a new pixel has the value of the old one in which its centre lies, as
    `ops.geometry.crop_mask` takes it.

    Args:
        encodings: list of n encodings of one size.
        size: `(height, width)` of the result.
        part: `(top, left, height, width)` of the window, pixels of the masks, inside them; None
            for the whole.
        place: where the window lies in the result; zeros are around it. None for the whole.

    Returns:
        uint8 `(n, height, width)`, 0 and 1.
    """
    found = np.zeros((len(encodings), *size), np.uint8)
    if not len(encodings):
        return found
    part = (0, 0, *encodings[0]["size"]) if part is None else part
    place = (0, 0, *size) if place is None else place
    old = [_sources(part[axis], part[2 + axis], place[2 + axis]) for axis in (0, 1)]
    for target, encoding in zip(found, encodings, strict=True):
        box = mask_box(encoding)
        # Only the rows and columns that have a pixel of the object: most objects are small.
        rows, columns = (
            slice(*np.searchsorted(old[axis], (box[1 - axis], box[3 - axis]))) for axis in (0, 1)
        )
        if rows.start < rows.stop and columns.start < columns.stop:
            pixels = coco.decode(encoding)  # (mask height, mask width)
            target[
                place[0] + rows.start : place[0] + rows.stop,
                place[1] + columns.start : place[1] + columns.stop,
            ] = pixels[np.ix_(old[0][rows], old[1][columns])]
    return found


def _sources(start, length, count):
    """Index of the old pixel under the centre of each of `count` new ones, int64 `(count,)`."""
    # Half a pixel is whole where everything counts twice.
    return (2 * np.arange(count) + 1) * int(length) // (2 * int(count)) + int(start)


def mask_box(encoding):
    """Give the edges of a mask, ints `(x_min, y_min, x_max, y_max)`, pixels; zeros if empty."""
    x, y, width, height = coco.toBbox(encoding).astype(int).tolist()
    return (x, y, x + width, y + height)


def mask_area(encoding):
    """Count the pixels of a mask: int."""
    return int(coco.area(encoding))


def share_inside(encoding, box):
    """Say which share of a mask's pixels lies in a box.

    Args:
        encoding: encoding of a mask that is not empty.
        box: floats `(x_min, y_min, x_max, y_max)`, pixels; those that it touches count.

    Returns:
        float in [0, 1].
    """
    x_min, y_min = (int(np.floor(edge)) for edge in box[:2])
    x_max, y_max = (int(np.ceil(edge)) for edge in box[2:])
    edges = mask_box(encoding)
    if x_min <= edges[0] and y_min <= edges[1] and edges[2] <= x_max and edges[3] <= y_max:
        return 1.0
    window = coco.decode(encoding)[max(y_min, 0) : max(y_max, 0), max(x_min, 0) : max(x_max, 0)]
    return float(np.count_nonzero(window) / mask_area(encoding))


def encode_outline(outline, size):
    """Encode an object's mask as label files have it.

    Args:
        outline: list of polygons `[x, y, x, y, …]`, pixels; or a run-length encoding whose
            counts are a list, or compressed as str or bytes.
        size: `(height, width)` of the image.

    Returns:
        An encoding.

    Raises:
        InputError: for a polygon of fewer than three points, numbers that are none, counts
            that are not those of an image of this size, or a mask without a pixel; says what
            is wrong, for a message that names the object.
    """
    height, width = size
    if isinstance(outline, dict):
        found = _checked(outline, height, width)
    elif isinstance(outline, list) and all(isinstance(polygon, list) for polygon in outline):
        if not outline:
            raise InputError("its mask has no polygon")
        for polygon in outline:
            _check_polygon(polygon)
        # Far away corners are as good as near ones outside, and do not overflow.
        reach = 10 * max(height, width)
        polygons = [np.clip(polygon, -reach, reach).tolist() for polygon in outline]
        found = coco.merge(coco.frPyObjects(polygons, height, width))
    else:
        raise InputError("its mask is neither polygons nor a run-length encoding")
    if not mask_area(found):
        raise InputError("its mask is empty: no pixel's centre is inside")
    return found


def _check_polygon(polygon):
    # pycocotools takes four numbers for a box.
    if len(polygon) < 2 * MIN_CORNERS or len(polygon) % 2:
        raise InputError(
            f"a polygon of its mask has {len(polygon) / 2:g} point(s); wanted {MIN_CORNERS} or more"
        )
    if not all(isinstance(value, int | float) and np.isfinite(value) for value in polygon):
        raise InputError("a polygon of its mask has a value that is no number")


def _checked(outline, height, width):
    """An encoding in the form of COCO, `counts` in any of its forms, as a sound one."""
    counts, size = outline.get("counts"), outline.get("size")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        shown = " x ".join(map(str, size[::-1])) if isinstance(size, list | tuple) else size
        raise InputError(f"its mask is of {shown} pixels (width x height), not {width} x {height}")
    counts = counts.encode() if isinstance(counts, str) else counts
    runs = _runs(counts) if isinstance(counts, bytes) else counts
    # pycocotools trusts them, and writes beyond the image or leaves memory as it was.
    if (
        not isinstance(runs, list)
        or not all(isinstance(run, int) and run >= 0 for run in runs)
        or sum(runs) != height * width
    ):
        raise InputError(
            f"its mask is damaged: its run lengths are not those of {width} x {height} pixels"
        )
    if isinstance(counts, bytes):
        return {"size": [height, width], "counts": counts}
    return coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)


def _runs(text):
    """Run lengths of compressed counts: list of int, or None where the text ends too early.

    Each number has five bits a character, the low ones first; from the fourth on it is the
    difference from the one before the last.
    """
    runs, number, shift = [], 0, 0
    for code in text:
        code -= 48
        number |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, shift = 0, 0
    return None if shift else runs


def circle(x, y, radius_x, radius_y=None, angle=0.0):
    """Give the corners `[x, y, x, y, …]` of a polygon for a circle or ellipse.

    Args:
        x: float, of the centre.
        y: float, of the centre.
        radius_x: float.
        radius_y: float; None for a circle.
        angle: float, radians that it is turned, clockwise as images are seen.

    Returns:
        list of floats.
    """
    turns = np.arange(CIRCLE_CORNERS) * (2 * np.pi / CIRCLE_CORNERS)
    across = radius_x * np.cos(turns)
    down = (radius_x if radius_y is None else radius_y) * np.sin(turns)
    corners = (
        x + across * np.cos(angle) - down * np.sin(angle),
        y + across * np.sin(angle) + down * np.cos(angle),
    )
    return np.stack(corners, -1).ravel().tolist()
