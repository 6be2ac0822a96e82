"""COCO JSON.

    annotations*.json                        one file, of which a share is set apart; or
    annotations/instances_train*.json and
    annotations/instances_val*.json          (also without the folder, or `annotations_train.json`)

Pictures lie in `images/`, in a folder named as the JSON file is after
`instances_` (`train2017/`), in one of that name in `images/`, beside the JSON
file, or in the folder of the data set. Boxes are `[x, y, width, height]` in pixels, counted from
0. Crowds (`iscrowd`) are left out. Pictures without an annotation are kept as
pictures without objects.
"""

import json
from pathlib import PurePosixPath

from kerascv_d2l.data.layouts.records import LabelledObject, LabelledPicture, split_by_name
from kerascv_d2l.errors import InputError

TITLE = "COCO JSON"
LOOKS = (
    "annotations.json and images/, or annotations/instances_train*.json and "
    "instances_val*.json with pictures in folders of the same names"
)
PREFIXES = ("instances", "annotations")


def recognises(root):
    """Whether a folder has this layout."""
    return bool(_label_files(root))


def read(root, faults, val_fraction, seed, classes):
    """Read the labels.

    Args:
        root: `Path` for which `recognises` holds.
        faults: dict from "train" and "val" to `Faults`.
        val_fraction: float in (0, 1), where there is one file only.
        seed: int, likewise.
        classes: tuple of names, or None for the categories in order of their ids.

    Returns:
        `(class_names, class_of, pictures)`: the names in order, a dict from
        name to class index, and a dict from "train" and "val" to lists of
        `LabelledPicture`.

    Raises:
        InputError: for a bad file or annotation, unless `faults` skips it.
    """
    files = _label_files(root)
    splits = {
        split: [file for file in files if split in file.stem.lower()] for split in ("train", "val")
    }
    names = {}
    if len(splits["train"]) == len(splits["val"]) == 1:
        pictures = {
            split: _read_json(file, root, faults[split], names) for split, (file,) in splits.items()
        }
    elif len(files) == 1:
        pictures = split_by_name(
            _read_json(files[0], root, faults["train"], names),
            lambda picture: picture.name,
            val_fraction,
            seed,
            files[0],
        )
    else:
        raise InputError(
            f"{root}: which files are to be read? Found {', '.join(str(file) for file in files)}; "
            "wanted one, or one with train and one with val in its name"
        )
    if classes is None:
        classes = list(dict.fromkeys(names[number] for number in sorted(names)))
    return classes, {name: index for index, name in enumerate(classes)}, pictures


def _label_files(root):
    return sorted(
        file
        for folder in (root, root / "annotations")
        for prefix in PREFIXES
        for file in folder.glob(f"{prefix}*.json")
    )


def _read_json(file, root, faults, names):
    """List of `LabelledPicture` of a file; adds its categories to `names` (id -> name)."""
    content = _parse(file)
    _read_categories(content["categories"], file, names)
    pictures, seen = {}, {}
    folders = _picture_folders(file, root)
    for number, entry in enumerate(content["images"]):
        where = f"{file}, images[{number}]"
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not _is_key(entry.get("id")):
            faults.add(f"{where}: no id or no file_name")
            continue
        if entry["id"] in pictures:
            faults.add(f"{where} ({name}): the id {entry['id']} has already been given")
            continue
        if name in seen:
            faults.add(f"{where} ({name}): the same picture as {seen[name]}")
            continue
        seen[name] = where
        size = entry.get("height"), entry.get("width")
        pictures[entry["id"]] = LabelledPicture(
            path=_find(name, folders),
            name=name,
            where=f"{where} (id {entry['id']})",
            objects=[],
            stated_size=size if all(isinstance(side, int) for side in size) else None,
        )
    unusable = set()
    for number, entry in enumerate(content["annotations"]):
        where = f"{file}, annotations[{number}]"
        if isinstance(entry, dict) and "id" in entry:
            where += f" (id {entry['id']})"
        problem = _problem(entry, pictures, names)
        if problem:
            faults.add(f"{where}: {problem}")
            if isinstance(entry, dict) and _is_key(entry.get("image_id")):
                unusable.add(entry.get("image_id"))
        elif not entry.get("iscrowd"):
            x, y, width, height = entry["bbox"]
            item = LabelledObject(names[entry["category_id"]], (x, y, x + width, y + height), where)
            pictures[entry["image_id"]].objects.append(item)
    for key in unusable & set(pictures):
        if not pictures[key].objects:
            path = pictures.pop(key).path
            faults.reasons.append(f"{path}: left out, for none of its objects is usable")
    return list(pictures.values())


def _parse(file):
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not a text file in UTF-8 ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{file}: no list {key!r} at its top, as COCO files have")
    return content


def _read_categories(categories, file, names):
    for number, entry in enumerate(categories):
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("id"), int)
            or "name" not in entry
        ):
            raise InputError(
                f"{file}, categories[{number}]: no whole number id or no name: {entry}"
            )
        known = names.setdefault(entry["id"], str(entry["name"]))
        if known != str(entry["name"]):
            raise InputError(
                f"{file}, categories[{number}]: id {entry['id']} is {entry['name']!r}, "
                f"but stands for {known!r} already"
            )


def _problem(entry, pictures, names):
    """What is wrong with an annotation, or None."""
    if not isinstance(entry, dict):
        return f"not an annotation: {entry!r}"
    if not _is_key(entry.get("image_id")) or entry.get("image_id") not in pictures:
        return f"image_id {entry.get('image_id')!r} names no picture"
    if not _is_key(entry.get("category_id")) or entry.get("category_id") not in names:
        return f"unknown class: category_id {entry.get('category_id')!r} is in no category"
    box = entry.get("bbox")
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, int | float) for value in box)
    ):
        return f"bbox is not four numbers [x, y, width, height]: {box!r}"
    return None


def _is_key(value):
    return isinstance(value, int | str)


def _picture_folders(file, root):
    name = file.stem
    for prefix in PREFIXES:
        name = name.removeprefix(f"{prefix}_")
    return (root / "images", root / name, root / "images" / name, file.parent, root)


def _find(name, folders):
    paths = [folder / PurePosixPath(name.replace("\\", "/")) for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])
