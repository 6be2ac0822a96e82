"""Label Studio's own JSON: a list of tasks, with rectangles, polygons and ellipses.

    export.json                   [{"data": {"image": …}, "annotations": [{"result": […]}]}, …]
    images/                       the images (or beside the JSON file)

Numbers are hundredths of the image. Images have the names that Label Studio gave them when they
were uploaded (`8a1b2c3d-a.jpg`) or those from before (`a.jpg`). Tasks that nobody has labelled
are passed over; one with an empty result is an image without objects.
"""

import json
import math
import re
import urllib.parse

from kerascv_d2l.data.layouts.files import (
    ImageFiles,
    files_by_part,
    image_folders,
    read_text,
    size_of,
    walk,
)
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels, hull
from kerascv_d2l.data.splits import DETECTION
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.rle import circle

TITLE = "Label Studio JSON"
LOOKS = "a .json file with a list of tasks (`annotations` with a `result`, and `data`) and images/"
TASKS = (DETECTION,)
MOST_TRIED = 10  # files are looked into to recognise the layout
BEGINNING = re.compile(r"\s*\[\s*(\{|\])")
UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
NO_OBJECTS = ("choices", "taxonomy", "textarea", "rating", "number", "datetime", "relation")
KINDS = ("rectangle", "polygon", "ellipse")


def recognises(root):
    """Whether a folder has this layout."""
    return bool(_label_files(root))


def read(root, faults):
    """Read the labels."""
    images, labels = ImageFiles(root, faults), {}
    for part, file in files_by_part(_label_files(root), root).items():
        try:
            tasks = json.loads(read_text(file))
        except ValueError as error:
            raise InputError(f"{file}: not JSON ({error})") from error
        folders, unlabelled = image_folders(file, root, part), []
        for number, task in enumerate(tasks):
            where = f"{file}, tasks[{number}]"
            results, problem = _results(task, where, unlabelled)
            if not problem and results is not None:
                path, problem = _find(task, images, folders, part)
            if problem:
                faults.add(f"{where}: {problem}")
            elif results is not None:
                labels.setdefault(part, []).append(_image(path, where, results))
        if unlabelled:
            faults.notes.append(
                f"{file}: {len(unlabelled)} of {len(tasks)} tasks are not labelled, and not read"
            )
    return Labels(labels)


def _label_files(root):
    files = walk(root, (".json",))
    return [file for file in files if _is_export(file)] if len(files) <= MOST_TRIED else []


def _is_export(file):
    text = read_text(file)
    return bool(BEGINNING.match(text)) and '"annotations"' in text and '"result"' in text


def _results(task, where, unlabelled):
    """`(list of results or None if nobody labelled the task, what is wrong or None)`."""
    if not isinstance(task, dict) or not isinstance(task.get("annotations"), list):
        return None, "no `annotations`, as tasks of Label Studio have"
    done = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
    if not done:
        unlabelled.append(where)
        return None, None
    if len(done) > 1:
        return None, f"{len(done)} annotations, as of several people: keep the one that counts"
    results = done[0].get("result")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        return None, f"result is no list of objects: {results!r}"
    return results, None


def _find(task, images, folders, part):
    """`(path of the task's image or None, what is wrong or None)`."""
    data = task.get("data")
    names = [v for v in data.values() if isinstance(v, str)] if isinstance(data, dict) else []
    if isinstance(data, dict) and isinstance(data.get("image"), str):
        names = [data["image"]]
    if len(names) != 1:
        return None, f"which is the image? data is {data!r}; wanted `image` in it"
    address = urllib.parse.urlsplit(names[0].replace("\\", "/"))
    query = urllib.parse.parse_qs(address.query)
    name = query["d"][0] if "d" in query else urllib.parse.unquote(address.path)
    path, problem = images.find(name, folders, part)
    last = name.rsplit("/", 1)[-1]
    if path is None and (match := UPLOADED.fullmatch(last)):
        path, _ = images.find(match[1], folders, part)
    return path, None if path else problem


def _image(path, where, results):
    """`LabelledImage` of a task."""
    regions = {}  # of one id, a shape and its label may be results of their own
    for number, result in enumerate(results):
        if str(result.get("type")).lower() not in NO_OBJECTS:
            key = str(result.get("id") or number)
            merged = regions.setdefault(key, {"value": {}, "types": []} | {"number": number})
            merged["value"] |= result.get("value") if isinstance(result.get("value"), dict) else {}
            merged["types"].append(str(result.get("type")).lower())
            merged |= {k: v for k, v in result.items() if k not in ("value", "type")}
    objects, stated = [], None
    for region in regions.values():
        item = LabelledObject("", None, f"{where}, result[{region['number']}]")
        size = size_of(region.get("original_height"), region.get("original_width"))
        stated = stated or size
        item.problem = _read_region(region, size, item)
        objects.append(item)
    return LabelledImage(path, where, objects, stated)


def _read_region(region, size, item):
    """Fill in an object; returns what is wrong with it, or None."""
    value, types = region["value"], region["types"]
    shape = next((kind for kind in KINDS if any(t.startswith(kind) for t in types)), None)
    if shape is None:
        return f"a {types[0]}, where rectangles, polygons and ellipses are read"
    labels = [names for key, names in value.items() if key.endswith("labels") and names]
    if len(labels) != 1 or not isinstance(labels[0], list) or len(labels[0]) != 1:
        return f"its labels are {labels}; wanted one"
    item.kind = str(labels[0][0])
    if size is None:
        return "no original_width and original_height"
    if region.get("image_rotation"):
        return f"the image was turned by {region['image_rotation']} degrees while it was labelled"
    try:
        points = _points(shape, value, size)
    except (KeyError, TypeError, ValueError):
        return f"its numbers cannot be read: {value!r}"
    if len(points) < 6 or not all(map(math.isfinite, points)):
        return f"a {shape} of {len(points) // 2} points: {value!r}"
    item.box = hull(points)
    if shape == "ellipse":
        item.outline = [circle(*_ellipse(value, size))]
    elif shape == "polygon" or value.get("rotation"):
        item.outline = [points]
    return None


def _points(shape, value, size):
    """Corners `[x, y, x, y, …]` in pixels; of an ellipse those of the box around it."""
    height, width = size
    if shape == "polygon":
        return [
            float(v) * s / 100 for x, y in value["points"] for v, s in ((x, width), (y, height))
        ]
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    angle = math.radians(float(value.get("rotation") or 0))
    sine, cosine = math.sin(angle), math.cos(angle)
    if shape == "ellipse":  # around its centre
        x, y, a, b, _ = _ellipse(value, size)
        a, b = math.hypot(a * cosine, b * sine), math.hypot(a * sine, b * cosine)
        return [x - a, y - b, x + a, y - b, x + a, y + b, x - a, y + b]
    w, h = float(value["width"]) * width / 100, float(value["height"]) * height / 100
    corners = ((0, 0), (w, 0), (w, h), (0, h))  # turned clockwise around the first
    return [v for a, b in corners for v in (x + a * cosine - b * sine, y + a * sine + b * cosine)]


def _ellipse(value, size):
    """Centre x and y and radii, pixels, and the angle in radians."""
    height, width = size
    x, a = (float(value[name]) * width / 100 for name in ("x", "radiusX"))
    y, b = (float(value[name]) * height / 100 for name in ("y", "radiusY"))
    return x, y, a, b, math.radians(float(value.get("rotation") or 0))
