"""From the objects of a label file to the targets of an image."""

import math

import numpy as np

from kerascv_d2l.data.images import SIDEWAYS, UPRIGHT
from kerascv_d2l.data.layouts.mask_classes import read_numbers
from kerascv_d2l.data.splits import first_of
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.rle import decode_masks, encode_masks, encode_outline, share_inside

# Labelling tools round, count from 0 or from 1, and put the last edge on or behind the last
# pixel: a box may exceed its image by this much, and is clipped without a word.
ROUNDING_PX = 1.0
THIN_PX = 1.0  # in a note
# Of a box that exceeds its image by more, this share must lie inside; and of every mask in its box.
MIN_INSIDE = 0.5
# No side of a box in pixels ends here; that of a box in shares of the image does.
LARGEST_SHARE = 1.01
STORED, BOXES_UPRIGHT = "stored", "upright"


class ObjectTargets:
    """Turn the objects of an image into its targets: the `targets` of `Labels` for detection.

    Args:
        labels: `Labels`.
        classes: names of the classes in their order; None for those of `labels`, or else
            those that the objects have, sorted. Where objects have numbers, number k is
            `classes[k]`.
        boxes_on: for images stored turned (EXIF), whether boxes were drawn on the
            `"stored"` pixels or on the `"upright"` image, where labels do not tell.
        masks: bool: whether to give `masks`, too, which each object but those that are ignored
            must have then; None: if each has one.

    Attributes:
        class_names: list of str.
        clipped: list of str: where boxes were that exceeded their images, and were clipped.
        thin: list of str: where boxes were of a pixel or less in height or width.

    Raises:
        InputError: for other `classes` or `boxes_on`, or if `masks` and no object has one.
    """

    def __init__(self, labels, classes=None, boxes_on=None, masks=None):
        if boxes_on not in (None, STORED, BOXES_UPRIGHT):
            raise InputError(f"boxes_on is {boxes_on!r}; wanted {STORED!r} or {BOXES_UPRIGHT!r}")
        self.boxes_on, self.clipped, self.thin = boxes_on, [], []
        self.masks, self._note = _with_masks(labels, masks)
        kinds = labels.class_names
        if kinds is None:
            kinds = sorted({o.kind for o in _objects(labels) if o.problem is None})
        if classes is not None:
            classes = self.class_names = list(classes)
            if not classes or len(set(classes)) != len(classes):
                raise InputError(f"classes are {classes}; wanted one or more different names")
            numbers = all(isinstance(kind, int) for kind in kinds)
            if not (labels.unnamed and len(kinds) == len(classes)):
                kinds = range(len(self.class_names)) if numbers else self.class_names
        else:
            self.class_names = [str(kind) for kind in kinds]
        self.class_of = {kind: index for index, kind in enumerate(kinds)}

    def notes(self):
        """Say what was read otherwise than it stands there, or looks wrong: a list of str."""
        found = (
            (self.clipped, "reached more than a pixel over the border, and were clipped"),
            (self.thin, "are a pixel or less high or wide: drawn by mistake?"),
        )
        boxes = [
            f"{len(places)} box(es) {what}: {first_of(sorted(places), 3)}"
            for places, what in found
            if places
        ]
        return boxes + ([self._note] if self._note else [])

    def __call__(self, image, info):
        """Give `(targets, problems)` of a `LabelledImage` and its `ImageInfo`: `Labels.targets`."""
        turned, problem = self._is_turned(image, info)
        if problem:
            return None, [f"{image.where}: {problem}"]
        rows, problems = [], []
        for item in image.objects:
            problem, row = self._row(item, info, turned)
            if problem:
                problems.append(f"{item.where}: {problem}")
            else:
                rows.append(row)
        if image.objects and not rows:
            problems.append(f"{image.path}: left out, for none of its objects is usable")
            return None, problems
        boxes, classes, ignore, masks = zip(*rows, strict=True) if rows else ((), (), (), ())
        targets = {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "classes": np.array(classes, np.int32),
            "ignore": np.array(ignore, bool),
        }
        return targets | ({"masks": list(masks)} if self.masks else {}), problems

    def _row(self, item, info, turned):
        """`(what is wrong or None, (box, class, ignore, mask))` of an object."""
        if item.problem:
            return item.problem, None
        if item.kind not in self.class_of:
            known = first_of(self.class_of, 100)
            return f"unknown class {item.kind!r}; known: {known}", None
        size = stored_size(info) if turned else (info.height, info.width)
        scale = (*size[::-1], *size[::-1]) if item.shares else (1, 1, 1, 1)
        box = tuple(value * side for value, side in zip(item.box, scale, strict=True))
        problem, box, is_clipped = _fitted(box, size, item)
        if problem:
            return problem, None
        if is_clipped:
            self.clipped.append(item.where)
        if min(box[2] - box[0], box[3] - box[1]) <= THIN_PX:
            self.thin.append(item.where)
        stored_box = box
        if turned:
            box = _turn(box, size, info.orientation)
        sides = (info.width, info.height, info.width, info.height)
        box = np.array(box, np.float64) / sides
        if not (np.float32(box[:2]) < np.float32(box[2:])).all():
            return f"{_shown(item.box)} is thinner than float32 resolves", None
        mask = None
        if self.masks:
            try:
                mask = _encoded(item, size, stored_box, info.orientation if turned else UPRIGHT)
            except InputError as error:
                return str(error), None
        return None, (box, self.class_of[item.kind], item.ignore, mask)

    def _is_turned(self, image, info):
        """`(whether boxes are on the stored pixels, what is wrong or None)`."""
        upright, stored = (info.height, info.width), stored_size(info)
        if not image.objects:
            return False, None
        stated = image.stated_size
        if stated is not None and stated not in (upright, stored):
            return False, (
                f"its labels are for an image of {stated[1]} x {stated[0]} pixels (width x "
                f"height), but {image.path} has {info.width} x {info.height}: was it resized?"
            )
        if info.orientation == UPRIGHT or (stated == upright != stored):
            return False, None
        boxes = [o.box for o in image.objects if o.box is not None and not o.shares]
        fits = [
            all(_excess(box, size) <= ROUNDING_PX for box in boxes) for size in (upright, stored)
        ]
        if fits[0] != fits[1]:
            return fits[1], None
        if self.boxes_on is None:
            return False, (
                f"{image.path} is stored turned (EXIF orientation {info.orientation}), and nothing "
                "says whether its boxes were drawn on the stored pixels or on the upright image: "
                f"say which by boxes_on={BOXES_UPRIGHT!r} (most tools) or {STORED!r} (--boxes-on)"
            )
        return self.boxes_on == STORED, None


def _objects(labels):
    return (item for part in labels.images.values() for image in part for item in image.objects)


def stored_size(info):
    """`(height, width)` of an image before its EXIF rotation."""
    sideways = info.orientation in SIDEWAYS
    return (info.width, info.height) if sideways else (info.height, info.width)


def _shown(box):
    # Edges count from 0 here, whatever the label file counts from.
    x_min, y_min, x_max, y_max = box
    return f"the box with edges x {x_min:g} to {x_max:g} and y {y_min:g} to {y_max:g}"


def _looks_like_shares(box):
    """Whether a box that should be in pixels is in shares of the image.

    The pixel in the corner, (0, 0, 1, 1), is taken as such: it is as thin as few are, and noted.
    """
    whole = all(float(value).is_integer() for value in box)
    return max(box[2:]) <= LARGEST_SHARE and not whole


def _excess(box, size):
    x_min, y_min, x_max, y_max = box
    return max(-x_min, -y_min, x_max - size[1], y_max - size[0])


def _fitted(box, size, item):
    """`(what is wrong or None, box inside the image, whether it was clipped)`, in pixels."""
    height, width = size
    x_min, y_min, x_max, y_max = box
    shown = _shown(item.box)
    if not all(math.isfinite(value) for value in box):
        return f"{shown} is not finite", None, False
    if x_max < x_min or y_max < y_min:
        return f"{shown} is inside out", None, False
    if x_max == x_min or y_max == y_min:
        return f"{shown} is empty", None, False
    if not item.shares and _looks_like_shares(box):
        return f"{shown} is in shares of the image, 0 to 1; pixels are wanted", None, False
    left, right = (min(max(x, 0), width) for x in (x_min, x_max))
    top, bottom = (min(max(y, 0), height) for y in (y_min, y_max))
    inside = (right - left) * (bottom - top) / ((x_max - x_min) * (y_max - y_min))
    excess = _excess(box, size)
    if inside == 0 or (excess > ROUNDING_PX and inside < MIN_INSIDE):
        unit = "; shares from 0 to 1 are wanted" if item.shares else ""
        size = f"{width} x {height} pixels (width x height)"
        return f"{shown} is outside the image of {size}{unit}", None, False
    return None, (left, top, right, bottom), excess > ROUNDING_PX


def _turn(box, size, orientation):
    """A box on the stored pixels, `size` = (height, width), -> on the upright image."""
    x_min, y_min, x_max, y_max = box
    if orientation in (2, 3, 7, 8):
        x_min, x_max = size[1] - x_max, size[1] - x_min
    if orientation in (3, 4, 6, 7):
        y_min, y_max = size[0] - y_max, size[0] - y_min
    return (y_min, x_min, y_max, x_max) if orientation in SIDEWAYS else (x_min, y_min, x_max, y_max)


def _with_masks(labels, masks):
    """`(whether masks are read, a note or None)`."""
    items = [item for item in _objects(labels) if not (item.ignore or item.problem)]
    without = [item.where for item in items if not item.outline]
    if masks and len(without) == len(items):
        raise InputError(
            f"masks=True, but none of the {len(items)} objects has a mask. A model that predicts "
            "masks learns from polygons or run lengths of COCO, polygons of labelme, YOLO or "
            "CVAT, VOC's SegmentationObject, or a PNG of each instance (docs/data.md); for boxes "
            "alone take a model that predicts no masks, such as --model faster_rcnn"
        )
    if masks is not None or not 0 < len(without) < len(items):
        return masks or (masks is None and not without and bool(items)), None
    return False, (
        f"{len(without)} of {len(items)} objects have no mask, so masks are not read: "
        f"{first_of(without, 3)}"
    )


def _encoded(item, size, box, orientation):
    """Run-length encoding of an object's mask, upright; `box`: inside the image, stored, pixels.

    Raises:
        InputError: says what is wrong with it.
    """
    height, width = size
    outline = item.outline
    if not outline and not item.ignore:
        raise InputError("it has no mask (a polygon or run lengths)")
    if not outline:  # an ignored object without a mask
        x_min, y_min, x_max, y_max = box
        outline = [[x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max]]
    elif isinstance(outline, tuple):
        file, number = outline
        (outline,) = encode_masks([read_numbers(file)[0] == number])
    elif item.shares:
        outline = [(np.reshape(p, (-1, 2)) * (width, height)).ravel().tolist() for p in outline]
    encoded = encode_outline(outline, size)
    if (share := share_inside(encoded, box)) < MIN_INSIDE:
        raise InputError(f"only {share:.0%} of its mask lies in its box")
    if orientation == UPRIGHT:
        return encoded
    (pixels,) = decode_masks([encoded], size)
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return encode_masks([pixels.T if orientation in SIDEWAYS else pixels])[0]
