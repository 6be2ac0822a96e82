"""One data set, written in every layout, is read as the same images, boxes, classes and parts."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l.data.layouts import LAYOUTS
from kerascv_d2l.data.load import load
from kerascv_d2l.data.splits import DETECTION
from kerascv_d2l.errors import InputError

pytestmark = pytest.mark.quick
CLASSES = ("ant", "bee", "cat")
SIZES = ((20, 40), (33, 25), (48, 64))  # height, width
# part -> name of an image -> its size, and objects: class and edges in pixels, from 0
PARTS = {
    "train": {
        "a.png": (SIZES[0], [("bee", 4, 2, 20, 10), ("ant", 0, 0, 40, 20)]),
        "b.JPG": (SIZES[1], []),
        "c d.png": (SIZES[2], [("cat", 10, 12, 30, 40)]),
    },
    "val": {"e.jpeg": (SIZES[1], [("ant", 5, 6, 20, 30)]), "f.png": (SIZES[0], [])},
    "test": {"g.png": (SIZES[2], [("cat", 1, 2, 3, 47), ("cat", 20, 2, 64, 48)])},
}
VALID = {"train": "train", "val": "valid", "test": "test"}  # Roboflow's


def save(path, size, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (10, 200, 30)).save(path, **options)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def images():
    for part, entries in PARTS.items():
        for name, (size, objects) in entries.items():
            yield part, name, size, objects


def voc_xml(name, size, objects, namespace="", wrapped=False):
    inside = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for kind, left, top, right, bottom in objects
    )
    inside = f"<objects>{inside}</objects>" if wrapped else inside
    return (
        f"<annotation{namespace}><filename>{name}</filename><size><width>{size[1]}</width>"
        f"<height>{size[0]}</height></size>{inside}</annotation>"
    )


def write_voc(root, lists=("train", "val", "test"), **xml):
    for _, name, size, objects in images():
        save(root / "JPEGImages" / name, size)
        stem = name.rsplit(".", 1)[0]
        write(root / "Annotations" / f"{stem}.xml", voc_xml(name, size, objects, **xml))
    for part in lists:
        stems = [name.rsplit(".", 1)[0] for name in PARTS[part]]
        write(root / "ImageSets" / "Main" / f"{part}.txt", "\n".join(stems))


def write_voc_with_namespace(root):
    write_voc(root, namespace=' xmlns="http://example.com/voc"', wrapped=True)


def write_voc_wrapped(root):
    """Inside <annotations>; val is what `trainval.txt` has more than `train.txt`."""
    write_voc(root, lists=("train", "test"))
    for file in root.rglob("*.xml"):
        file.write_text(f"<annotations>{file.read_text()}</annotations>")
    stems = [name.rsplit(".", 1)[0].upper() for part in ("train", "val") for name in PARTS[part]]
    write(root / "ImageSets" / "Main" / "trainval.txt", "\n".join(stems))


def write_voc_trainval(root):
    write_voc(root, lists=("test",))
    stems = [name.rsplit(".", 1)[0] for part in ("train", "val") for name in PARTS[part]]
    write(root / "ImageSets" / "Main" / "trainval.txt", "\n".join(stems))


def write_voc_roboflow(root):
    for part, name, size, objects in images():
        save(root / VALID[part] / name, size)
        stem = name.rsplit(".", 1)[0]
        write(root / VALID[part] / f"{stem}.XML", voc_xml(name, size, objects))


def write_voc_subfolders(root):
    for part, name, size, objects in images():
        save(root / "images" / part / "deep" / name, size)
        stem = name.rsplit(".", 1)[0]
        write(root / "annots" / part / "deep" / f"{stem}.xml", voc_xml(name, size, objects))


def coco(entries, file_name=str, polygons=False, roboflow=False):
    content = {"images": [], "annotations": [], "categories": []}
    names = ("insects", *CLASSES) if roboflow else CLASSES
    for number, name in enumerate(names):
        parent = "none" if name == "insects" or not roboflow else "insects"
        content["categories"].append({"id": number, "name": name, "supercategory": parent})
    for number, (name, (size, objects)) in enumerate(entries.items()):
        content["images"].append(
            {"id": number, "file_name": file_name(name), "height": size[0], "width": size[1]}
        )
        for kind, left, top, right, bottom in objects:
            box = [left, top, right - left, bottom - top]
            annotation = {"image_id": number, "category_id": names.index(kind), "bbox": box}
            annotation |= {"id": len(content["annotations"]), "iscrowd": "0"}
            if polygons:
                annotation["segmentation"] = [corners(left, top, right, bottom)]
            content["annotations"].append(annotation)
    return content


def corners(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def write_coco(root):
    for part, name, size, _ in images():
        save(root / f"{part}2017" / name, size)
    for part, entries in PARTS.items():
        write(root / "annotations" / f"instances_{part}2017.json", coco(entries, polygons=True))


def write_coco_short_names(root):
    for part, name, size, _ in images():
        save(root / "images" / name, size)
        write(root / "annotations" / f"{part}.json", coco(PARTS[part]))


def write_coco_trainval(root):
    for _, name, size, _ in images():
        save(root / "images" / name, size)
    both = PARTS["train"] | PARTS["val"]
    write(root / "annotations" / "instances_trainval2007.json", coco(both))
    write(root / "annotations" / "instances_test2007.json", coco(PARTS["test"]))


def write_coco_roboflow(root):
    for part, name, size, _ in images():
        save(root / VALID[part] / name, size)
    for part, entries in PARTS.items():
        write(root / VALID[part] / "_annotations.coco.json", coco(entries, roboflow=True))


def write_coco_single(root):
    """A file for each image, with numbers of its own; names are written in capitals."""
    for part, name, size, objects in images():
        save(root / part / "images" / name, size)
        content = coco({name.upper(): (size, objects)})
        write(root / part / "annotations" / f"{name.rsplit('.', 1)[0]}.json", content)


def write_label_studio(root):
    def file_name(name):
        folder = "..\\..\\label-studio\\media\\upload\\1\\" if name < "c" else "images/"
        return folder + name.replace(" ", "%20")

    for _, name, size, _ in images():
        save(root / "images" / name, size)
    write(root / "result.json", coco(entries_of_all(), file_name))


def write_label_studio_tasks(root):
    """Label Studio's own JSON: one rectangle's label is a result of its own, one is a polygon."""
    for part, name, size, _ in images():
        save(root / part / name, size)
    for part, entries in PARTS.items():
        tasks = [{"data": {"image": "/data/upload/1/none.jpg"}, "annotations": []}]
        for name, (size, objects) in entries.items():
            results, (height, width) = [], size
            for k, (kind, left, top, right, bottom) in enumerate(objects):
                value = {"x": 100 * left / width, "y": 100 * top / height, "rotation": 0}
                value |= {"width": 100 * (right - left) / width}
                value |= {"height": 100 * (bottom - top) / height}
                more = {"id": f"r{k}", "original_width": width, "original_height": height}
                if kind == "ant":
                    results += [{"type": "rectangle", "value": value} | more]
                    results += [{"type": "labels", "value": value | {"labels": [kind]}} | more]
                elif kind == "bee":
                    points = np.reshape(corners(left, top, right, bottom), (4, 2))
                    points = (points * 100 / [width, height]).tolist()
                    value = {"points": points, "polygonlabels": [kind]}
                    results += [{"type": "polygonlabels", "value": value} | more]
                else:  # turned by a quarter around the first corner
                    value |= {"rotation": 90, "x": 100 * right / width}
                    value |= {"width": 100 * (bottom - top) / width}
                    value |= {"height": 100 * (right - left) / height, "rectanglelabels": [kind]}
                    results += [{"type": "rectanglelabels", "value": value} | more]
            results += [{"type": "choices", "value": {"choices": ["good"]}}]
            address = f"/data/upload/1/0a1b2c3d-{name.replace(' ', '%20')}"
            if name > "e":
                address = f"/data/local-files/?d={part}/{name}"
            cancelled = {"was_cancelled": True, "result": []}
            annotations = [cancelled, {"result": results}]
            tasks.append({"data": {"image": address}, "annotations": annotations})
        write(root / f"{part}.json", tasks)


def entries_of_all():
    return {name: entry for entries in PARTS.values() for name, entry in entries.items()}


def yolo_lines(size, objects, polygons):
    lines = []
    for kind, left, top, right, bottom in objects:
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        if polygons:
            values = corners(left, top, right, bottom)
        shares = (value / size[1 - n % 2] for n, value in enumerate(values))
        lines.append(" ".join([str(CLASSES.index(kind)), *(f"{share:.9f}" for share in shares)]))
    return "\n".join(lines)


def write_yolo(root, polygons=False, image="images/{part}/{name}", label="labels/{part}/{stem}"):
    for part, name, size, objects in images():
        names = {"part": part, "name": name, "stem": name.rsplit(".", 1)[0], "valid": VALID[part]}
        save(root / image.format(**names), size)
        if objects:
            text = yolo_lines(size, objects, polygons)
            write(root / f"{label.format(**names)}.txt", text)
    parts = "train: images/train\nval: images/val\ntest: images/test\n"
    write(root / "data.yaml", f"path: ../datasets/it\n{parts}nc: 3\nnames: [ant, bee, cat]\n")


def write_yolo_polygons(root):
    write_yolo(root, polygons=True)


def write_yolo_roboflow(root):
    write_yolo(root, image="{valid}/images/{name}", label="{valid}/labels/{stem}")
    parts = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    write(root / "data.yaml", parts + "names:\n  0: ant\n  1: bee\n  2: cat\n")


def write_yolo_beside(root):
    write_yolo(root, image="{part}/{name}", label="{part}/{stem}")
    (root / "data.yaml").unlink()
    write(root / "train" / "classes.txt", "ant\nbee\ncat\n")


def write_yolo_lists(root):
    write_yolo(root)
    for part in PARTS:
        names = [f"/home/somebody/it/images/{part}/{name}" for name in PARTS[part]]
        write(root / f"{part}.txt", "\n".join(names))
    parts = "train: train.txt\nval: [val.txt]\ntest: ./test.txt\n"
    write(root / "data.yaml", parts + "names: [ant, bee, cat]\n")


def write_labelme(root, polygons=False, folder="{part}"):
    for part, name, size, objects in images():
        save(root / "images" / name, size)
        shapes = []
        for kind, left, top, right, bottom in objects:
            points = [(right, top), (left, bottom)]  # any two opposite corners
            if polygons:
                points = np.reshape(corners(left, top, right, bottom), (-1, 2)).tolist()
            shape = "polygon" if polygons else "rectangle"
            shapes.append({"label": kind, "shape_type": shape, "points": points})
        stem = name.rsplit(".", 1)[0]
        content = {"shapes": shapes, "imagePath": f"..\\..\\images\\{name}"}
        content |= {"imageHeight": size[0], "imageWidth": size[1], "imageData": None}
        write(root / "labels" / part / f"{stem}.json", content)


def write_labelme_polygons(root):
    write_labelme(root, polygons=True)


def write_cvat(root, polygons=False):
    subsets = {"train": "Train", "val": "Validation", "test": "Test"}
    text = ""
    for part, name, size, objects in images():
        save(root / "images" / subsets[part] / name, size)
        shapes = ""
        for kind, left, top, right, bottom in objects:
            box = f'xtl="{left}.0" ytl="{top}.0" xbr="{right}.0" ybr="{bottom}.0"'
            points = ";".join(
                f"{x},{y}" for x, y in np.reshape(corners(left, top, right, bottom), (-1, 2))
            )
            shape = f'polygon points="{points}"' if polygons else f"box {box}"
            shapes += f'<{shape} label="{kind}" occluded="0"/>'
        text += (
            f'<image id="0" name="{name}" subset="{subsets[part]}" width="{size[1]}" '
            f'height="{size[0]}">{shapes}<tag label="ant"/></image>'
        )
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    write(root / "annotations.xml", f"<?xml version='1.0'?><annotations>{meta}{text}</annotations>")


def write_cvat_polygons(root):
    write_cvat(root, polygons=True)


def write_tables(root):
    tables = dict.fromkeys(PARTS, "filename,width,height,class,xmin,ymin,xmax,ymax\n")
    for part, name, size, objects in images():
        save(root / "images" / part / name, size)
        for kind, *box in objects:
            values = [name, size[1], size[0], kind, *box]
            tables[part] += ",".join(map(str, values)) + "\n"
        if not objects:
            tables[part] += f"{name},,,,,,,\n"
    for part, text in tables.items():
        write(root / f"{part}_labels.csv", text)


def write_tables_without_endings(root):
    write_tables(root)
    for file in root.glob("*.csv"):
        text = file.read_text()
        for _, name, _, _ in images():
            text = text.replace(name, name.rsplit(".", 1)[0])
        file.write_text(text)


def write_bananas(root):
    for part, name, size, _ in images():
        save(root / f"bananas_{part}" / "images" / name, size)
    for part, entries in PARTS.items():
        lines = ["img_name,label,xmin,ymin,xmax,ymax"]
        for name, (_, objects) in entries.items():
            lines += [",".join(map(str, (name, *item))) for item in objects] or [f"{name},,,,,"]
        write(root / f"bananas_{part}" / "label.csv", "\n".join(lines))


# Those in which train and val are one part, or all are.
UNSPLIT = {write_voc_trainval: ("train", "val"), write_coco_trainval: ("train", "val")}
UNSPLIT |= {write_label_studio: tuple(PARTS)}
WRITERS = [
    write_voc,
    write_voc_with_namespace,
    write_voc_wrapped,
    write_voc_trainval,
    write_voc_roboflow,
    write_voc_subfolders,
    write_coco,
    write_coco_short_names,
    write_coco_trainval,
    write_coco_roboflow,
    write_coco_single,
    write_label_studio,
    write_label_studio_tasks,
    write_yolo,
    write_yolo_polygons,
    write_yolo_roboflow,
    write_yolo_beside,
    write_yolo_lists,
    write_labelme,
    write_labelme_polygons,
    write_cvat,
    write_cvat_polygons,
    write_tables,
    write_tables_without_endings,
    write_bananas,
]
layouts = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__[6:])


def contents(split, class_names):
    """Dict from the name of an image to its size and objects, as `PARTS` has them."""
    found = {}
    for k, name in enumerate(split.names):
        height, width = split.sizes[k]
        boxes = (split.targets["boxes"][k] * [width, height, width, height]).round(4)
        kinds = [class_names[index] for index in split.targets["classes"][k]]
        objects = [(kind, *box) for kind, box in zip(kinds, boxes.tolist(), strict=True)]
        found[name.rsplit("/", 1)[-1]] = ((height, width), objects)
        assert np.array_equal(Image.open(split.images[k]).size, (width, height))
    return found


def check(data, writer):
    assert data.class_names == CLASSES
    found = {part: contents(split, CLASSES) for part, split in data.splits.items()}
    for one in UNSPLIT.get(writer, ()):
        if one != "train":
            assert 1 <= len(found["val"]) < len(entries_of_all())
    if joined := UNSPLIT.get(writer):
        wanted = {name: entry for part in joined for name, entry in PARTS[part].items()}
        assert found["train"] | found["val"] == wanted
        assert not set(found["train"]) & set(found["val"])
    else:
        assert (found["train"], found["val"]) == (PARTS["train"], PARTS["val"])
    if not joined or "test" not in joined:
        assert found["test"] == PARTS["test"]  # and in no other split
    else:
        assert data.test is None


@layouts
def test_every_layout_is_read_as_the_same(tmp_path, writer):
    writer(tmp_path / "set")
    data = load(tmp_path / "set", DETECTION)
    check(data, writer)
    assert data.skipped == []


@layouts
def test_litter_is_passed_over(tmp_path, writer):
    writer(tmp_path / "set")
    files = [file for file in (tmp_path / "set").rglob("*") if file.is_file()]
    for file in files:
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (file.parent / name).write_bytes(b"\0")
        copy = tmp_path / "__MACOSX" / file.relative_to(tmp_path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    check(load(tmp_path, DETECTION), writer)


@layouts
def test_names_that_are_not_utf8_are_named(tmp_path, writer):
    writer(tmp_path)
    image = next(file for file in tmp_path.rglob("a.png"))
    image.rename(os.fsdecode(os.fsencode(image.parent) + b"/caf\xe9.png"))
    with pytest.raises(InputError, match=r"b'caf\\xe9\.png' is not UTF-8 .*: rename it"):
        load(tmp_path, DETECTION)


@layouts
def test_one_damaged_image_is_named_or_left_out(tmp_path, writer):
    writer(tmp_path)
    image = next(file for file in tmp_path.rglob("a.png"))
    image.write_bytes(image.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"a\.png: damaged"):
        load(tmp_path, DETECTION)
    data = load(tmp_path, DETECTION, skip_bad=True)
    assert "a.png: damaged" in data.skipped[0]
    assert not any("a.png" in name for split in data.splits.values() for name in split.names)


@layouts
def test_an_image_in_two_parts_is_refused(tmp_path, writer):
    if writer is write_label_studio:
        pytest.skip("it has one part")
    writer(tmp_path)
    first, second = (next(tmp_path.rglob(name)) for name in ("a.png", "g.png"))
    second.unlink()
    second.symlink_to(first)
    with pytest.raises(InputError, match=r"(g|a)\.png is the same image as in .*(and test)"):
        load(tmp_path, DETECTION)


def test_other_names_are_counted(tmp_path):
    """What is found in spite of its name is said, and what may be two images is refused."""
    for writer, note in (
        (write_coco_single, "6 names that differ .* in upper and lower case: .*A.PNG (a.png)"),
        (write_tables_without_endings, "6 names of images without an ending: .*a (a.png)"),
        (write_voc_wrapped, "val is what trainval.txt has and train.txt has not"),
        (write_label_studio_tasks, "1 of 4 tasks are not labelled"),
    ):
        writer(root := tmp_path / writer.__name__)
        notes = " ".join(load(root, DETECTION).notes)
        assert re.search(note.replace("(", "\\(").replace(")", "\\)"), notes), notes
    save(tmp_path / "write_tables_without_endings" / "images" / "train" / "a.gif", SIZES[0])
    with pytest.raises(InputError, match=r"a may be .*a\.gif, .*a\.png"):
        load(tmp_path / "write_tables_without_endings", DETECTION)
    save(tmp_path / "write_coco_single" / "train" / "images" / "A.png", SIZES[0])
    with pytest.raises(InputError, match=r"A\.PNG may be .*A\.png, .*a\.png"):
        load(tmp_path / "write_coco_single", DETECTION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"result": []}] * 2}, "2 annotations, as of several people"),
        ({"annotations": [{"result": [{"type": "brushlabels"}]}]}, "a brushlabels, where rect"),
        ({"data": {"image": "/data/upload/1/0a1b2c3d-x.png"}}, "the image .*x.png does not exist"),
        ({"data": {"front": "a.png", "back": "b.png"}}, "which is the image"),
    ],
)
def test_tasks_that_cannot_be_read(tmp_path, change, message):
    write_label_studio_tasks(tmp_path)
    tasks = json.loads((tmp_path / "train.json").read_text())
    write(tmp_path / "train.json", [tasks[0], tasks[1] | change, *tasks[2:]])
    with pytest.raises(InputError, match=rf"train\.json, tasks\[1\].*{message}"):
        load(tmp_path, DETECTION)


def test_one_file_of_several_annotations_says_what_to_do(tmp_path):
    write_voc_wrapped(tmp_path)
    file = tmp_path / "Annotations" / "a.xml"
    text = file.read_text().replace("<annotations>", "").replace("</annotations>", "")
    file.write_text(f"<annotations>{text * 2}</annotations>")
    with pytest.raises(InputError, match=r"a\.xml: it has 2 <annotation>; save each as a file"):
        load(tmp_path, DETECTION)


def test_all_layouts_say_what_they_are():
    for layout in LAYOUTS:
        assert layout.TITLE and layout.LOOKS and layout.TASKS and layout.__doc__


@pytest.mark.parametrize(
    "writer", [write_coco, write_yolo_polygons, write_labelme_polygons, write_cvat_polygons]
)
def test_polygons_are_masks_unless_boxes_are_asked_for(tmp_path, writer):
    from pycocotools import mask as coco_mask

    writer(tmp_path)
    split = load(tmp_path, DETECTION, masks=True).train
    assert [len(masks) for masks in split.targets["masks"]] == [2, 0, 1]
    pixels = np.zeros(SIZES[2], np.uint8)
    pixels[12:40, 10:30] = 1
    np.testing.assert_array_equal(coco_mask.decode(split.targets["masks"][2][0]), pixels)
    assert load(tmp_path, DETECTION).train.has_masks
    assert not load(tmp_path, DETECTION, masks=False).train.has_masks


def test_masks_that_are_not_there_are_missed(tmp_path):
    write_voc(tmp_path)
    with pytest.raises(InputError, match="masks=True, but none of the"):
        load(tmp_path, DETECTION, masks=True, skip_bad=True)
