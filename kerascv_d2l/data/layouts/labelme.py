"""labelme: a JSON file for each image, with rectangles and polygons.

    a.jpg, a.json …               in one folder, in subfolders, or in `train/` and `val/`

The image is the one that `imagePath` names, seen from the JSON file, or the one of the JSON
file's name. Polygons of one label and `group_id` are parts of one object.
"""

from kerascv_d2l.data.layouts.files import ImageFiles, part_of_path, read_json, size_of, walk
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels, hull
from kerascv_d2l.data.splits import DETECTION
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.rle import circle

TITLE = "labelme JSON"
LOOKS = "a .json file with `shapes` and `imagePath` for each image, beside it or in a folder"
TASKS = (DETECTION,)
MOST_TRIED = 10  # files are looked into to recognise the layout
SHAPES = ("rectangle", "polygon", "circle", "mask")


def recognises(root):
    """Whether a folder has this layout."""
    files = walk(root, (".json",))[:MOST_TRIED]
    return any(b'"shapes"' in file.read_bytes() for file in files)


def read(root, faults):
    """Read the labels."""
    images, labels = ImageFiles(root, faults), {}
    for file in walk(root, (".json",)):
        try:
            image = _read_file(file, root, images)
        except InputError as error:
            faults.add(str(error))
            continue
        labels.setdefault(part_of_path(file, root), []).append(image)
    return Labels(labels)


def _read_file(file, root, images):
    content = read_json(file, ("shapes",), "labelme")
    folders = (file.parent, file.parent.parent / "images", root / "images", root)
    folders = [folder for folder in folders if folder == root or root in folder.parents]
    part = part_of_path(file, root)
    name = str(content.get("imagePath") or "")
    path, problem = images.find(name, folders, part) if name else (None, "no imagePath")
    if path is None:
        path, _ = images.find(file.stem, folders, part, stem=True)
    if path is None:
        raise InputError(f"{file}: {problem}")
    stated = size_of(content.get("imageHeight"), content.get("imageWidth"))
    return LabelledImage(path, str(file), _read_shapes(content["shapes"], file), stated)


def _read_shapes(shapes, file):
    objects, groups = [], {}
    for number, shape in enumerate(shapes):
        item = LabelledObject("", None, f"{file}, shapes[{number}]")
        item.problem = _read_shape(shape, item)
        group = None if item.problem or not item.outline else shape.get("group_id")
        # `group` may be anything that JSON has.
        first = groups.setdefault((item.kind, str(group)), item) if group is not None else item
        if first is item:
            objects.append(item)
        else:
            first.outline += item.outline
            first.box = hull([value for polygon in first.outline for value in polygon])
    return objects


def _read_shape(shape, item):
    """Fill in an object; returns what is wrong with the shape, or None."""
    if not isinstance(shape, dict) or shape.get("label") in (None, ""):
        return f"no label: {shape!r}"
    item.kind = str(shape["label"])
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind not in SHAPES:
        return f"a {kind}, where {', '.join(SHAPES[:-1])} are read"
    try:
        points = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError, OverflowError):
        return f"points are not pairs of numbers: {points!r}"
    if len(points) < 2 + (kind == "polygon"):
        return f"a {kind} of {len(points)} points"
    if kind == "circle":
        (x, y), (x_edge, y_edge) = points[:2]
        radius = ((x - x_edge) ** 2 + (y - y_edge) ** 2) ** 0.5
        item.box = (x - radius, y - radius, x + radius, y + radius)
        item.outline = [circle(x, y, radius)]
        return None
    values = [value for point in points for value in point]
    item.box = hull(values)
    if kind == "polygon":
        item.outline = [values]
    return None
