"""CVAT for images: one XML file for all images.

    annotations.xml               <image name="a.jpg" width= height=> with <box> and <polygon>
    images/                       the images (or beside the XML file)

An image's `subset` (Train, Validation, Test) is its part, else the name of the file or folder;
otherwise a share of the images is set apart. Classes are in the order of the task's labels.
"""

import math
import re

import numpy as np

from kerascv_d2l.data.layouts.files import (
    ImageFiles,
    files_by_part,
    part_of,
    read_xml,
    size_of,
    walk,
)
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels, hull
from kerascv_d2l.data.splits import DETECTION
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.rle import circle, encode_masks

TITLE = "CVAT XML"
LOOKS = "annotations.xml (CVAT for images) and images/"
TASKS = (DETECTION,)
ROOT_TAG = re.compile(rb"<(\w+:)?annotations[\s>](?!.*<(\w+:)?annotation[\s>])", re.S)
BOX = ("xtl", "ytl", "xbr", "ybr")


def recognises(root):
    """Whether a folder has this layout."""
    return bool(_label_files(root))


def read(root, faults):
    """Read the labels."""
    images, labels, names = ImageFiles(root, faults), {}, []
    for file_part, file in files_by_part(_label_files(root), root).items():
        tree = read_xml(file)
        if tree.find("track") is not None:
            raise InputError(f"{file}: tracks of a video: export the task as CVAT for images")
        if tree.find("image") is None:
            raise InputError(f"{file}: no <image> in it, as CVAT for images has")
        names += [(name.text or "").strip() for name in tree.findall("meta//labels/label/name")]
        for element in tree.findall("image"):
            part = part_of(element.get("subset") or "") or file_part
            if image := _read_image(element, file, root, images, faults):
                labels.setdefault(part, []).append(image)
    return Labels(labels, list(dict.fromkeys(names)) or None)


def _label_files(root):
    found = []
    for file in walk(root, (".xml",)):
        if len(found) < 10 and ROOT_TAG.search(file.read_bytes()[:1000]):
            found.append(file)
        elif not found:
            return []  # a folder of many other files need not be read through
    return found


def _read_image(element, file, root, images, faults):
    where = f"{file}, image {element.get('name')!r}"
    inside = [file.parent / "images", root / "images", file.parent, root]
    subset = element.get("subset")
    folders = [folder / subset for folder in inside] if subset else []
    path, problem = images.find(element.get("name") or "", folders + inside)
    if problem:
        faults.add(f"{where}: {problem}")
        return None
    shapes = [shape for shape in element if shape.tag != "tag"]
    size = size_of(element.get("height"), element.get("width"))
    objects = [_read_shape(s, f"{where}, shape {n}", size) for n, s in enumerate(shapes, start=1)]
    return LabelledImage(path, where, objects, size)


def _read_shape(shape, where, size):
    item = LabelledObject(shape.get("label") or "", None, where)
    if not item.kind:
        item.problem = "no label"
        return item
    try:
        if shape.tag == "box":
            item.box = tuple(float(shape.get(name)) for name in BOX)
            if angle := float(shape.get("rotation") or 0):
                item.outline = [_rotated(item.box, math.radians(angle))]
                item.box = hull(item.outline[0])
        elif shape.tag == "polygon":
            values = shape.get("points").replace(";", ",").split(",")
            item.outline = [[float(value) for value in values]]
            item.box = hull(item.outline[0])
        elif shape.tag == "ellipse":
            x, y, rx, ry = (float(shape.get(name)) for name in ("cx", "cy", "rx", "ry"))
            angle = math.radians(float(shape.get("rotation") or 0))
            item.outline = [circle(x, y, rx, ry, angle)]
            sine, cosine = math.sin(angle), math.cos(angle)
            rx, ry = math.hypot(rx * cosine, ry * sine), math.hypot(rx * sine, ry * cosine)
            item.box = (x - rx, y - ry, x + rx, y + ry)
        elif shape.tag == "mask":
            left, top, width, height = (
                float(shape.get(name)) for name in ("left", "top", "width", "height")
            )
            item.box = (left, top, left + width, top + height)
            if size and shape.get("rle"):
                item.outline = _mask(shape.get("rle"), item.box, size)
        else:
            item.problem = f"a <{shape.tag}>, where boxes, polygons, ellipses and masks are read"
    except (TypeError, ValueError, AttributeError):
        item.problem = f"its numbers cannot be read: {dict(shape.attrib)}"
    return item


def _mask(runs, box, size):
    """Encode run lengths of the rows inside a box, the first of pixels without the object."""
    left, top, right, bottom = map(int, box)
    runs = [int(run) for run in runs.split(",")]
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).reshape(bottom - top, right - left)
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = pixels
    return encode_masks([mask])[0]


def _rotated(box, angle):
    """Corners `[x, y, …]` of a box turned clockwise around its centre."""
    x_min, y_min, x_max, y_max = box
    x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
    sine, cosine = math.sin(angle), math.cos(angle)
    corners = ((x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max))
    moved = ((a - x, b - y) for a, b in corners)
    return [v for a, b in moved for v in (x + a * cosine - b * sine, y + a * sine + b * cosine)]
