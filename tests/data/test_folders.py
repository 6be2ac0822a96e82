"""Users' folders: boxes come out right, and what is wrong is named."""

import json

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l.data.images import EXIF_ORIENTATION, read_image
from kerascv_d2l.data.layouts.records import split_by_name
from kerascv_d2l.data.load import load
from kerascv_d2l.errors import InputError

pytestmark = pytest.mark.quick
HEIGHT, WIDTH = 20, 40
SIZE = [WIDTH, HEIGHT, WIDTH, HEIGHT]


def save_image(path, size=(HEIGHT, WIDTH), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (10, 200, 30)).save(path, **options)


def read(path, **options):
    return load(path, "detection", **options)


def rows(split, k):
    """Rows `[class, x_min, y_min, x_max, y_max]` of image k, boxes normalised."""
    return np.column_stack([split.targets["classes"][k], split.targets["boxes"][k]])


def pixels(split, k):
    """Rows of image k with the boxes in pixels."""
    return (rows(split, k) * [1, *np.tile(split.sizes[k][::-1], 2)]).round(4).tolist()


# --- the three layouts, each with images a, b, … of 20 x 40 pixels


HEADER = "img_name,label,xmin,ymin,xmax,ymax\n"


def write_banana(root, train, val=None, names=("a.png", "b.png")):
    for part, text in (("bananas_train", train), ("bananas_val", val)):
        if text is not None:
            for name in names:
                save_image(root / part / "images" / name)
            (root / part / "label.csv").write_text(HEADER + text)
    return root


def voc_object(name="cat", box=(5, 3, 20, 12), extra=""):
    tags = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def write_voc(root, objects, folders=("annotations", "images"), size=None):
    """`objects`: image stem -> XML of its objects."""
    for stem, content in objects.items():
        save_image(root / folders[1] / f"{stem}.jpg")
        (root / folders[0]).mkdir(parents=True, exist_ok=True)
        stated = "" if size is None else "<size><width>{}</width><height>{}</height></size>"
        stated = stated.format(*(size or ()))
        (root / folders[0] / f"{stem}.xml").write_text(
            f"<annotation><filename>{stem}.jpg</filename>{stated}{content}</annotation>"
        )
    return root


CATEGORIES = ((7, "dog"), (3, "cat"))


def coco_content(boxes, **changes):
    """`boxes`: list of (image number, category id, bbox)."""
    return {
        "images": [
            {"id": 100 + k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH}
            for k in range(3)
        ],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES],
        "annotations": [
            {"id": 50 + n, "image_id": 100 + k, "category_id": category, "bbox": box}
            for n, (k, category, box) in enumerate(boxes)
        ],
    } | changes


def write_coco(root, content, file="annotations.json", folder="images"):
    for k in range(3):
        save_image(root / folder / f"{k}.png")
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return root


# --- banana


def test_banana(tmp_path):
    root = write_banana(
        tmp_path, "a.png,0,4,2,20,10\nb.png,0,0,0,40,20\na.png,0,1,1,3,5\n", "b.png,0,8,5,12,15\n"
    )
    for path in (root, str(root)):
        data = read(path)
        assert data.class_names == ("banana",)
        assert data.train.names == ["a.png", "b.png"]
        assert pixels(data.train, 0) == [[0, 4, 2, 20, 10], [0, 1, 1, 3, 5]]
        assert pixels(data.train, 1) == [[0, 0, 0, 40, 20]]
        np.testing.assert_allclose(rows(data.val, 0), [[0, 0.2, 0.25, 0.3, 0.75]])
        assert data.val.targets["boxes"][0].dtype == np.float32
        assert data.train.sizes.tolist() == [[HEIGHT, WIDTH]] * 2
        assert data.train.plain.all() and data.train.skipped == []
        assert read_image(data.train.images[1]).shape == (HEIGHT, WIDTH, 3)
    text = data.describe()
    assert "CSV" in text
    assert (
        "train: 2 images (20 x 40 pixels), 3 objects, 0 ignored, 0 images without objects" in text
    )


def test_a_folder_around_the_folder_is_entered(tmp_path):
    write_banana(tmp_path / "outer" / "inner", "a.png,0,4,2,20,10\n", "b.png,0,8,5,12,15\n")
    (tmp_path / "outer" / ".hidden").mkdir()
    assert len(read(tmp_path / "outer").train) == 1


def test_banana_without_validation_part_with_negatives_and_classes(tmp_path):
    root = write_banana(tmp_path, "a.png,7,4,2,20,10\nb.png,,,,,\nc.png,2,1,1,9,9\n")
    save_image(root / "bananas_train" / "images" / "c.png")
    data = read(root, val_fraction=0.34)
    assert data.class_names == ("2", "7")
    assert len(data.train) == 2 and len(data.val) == 1
    classes = dict(
        zip(
            data.train.names + data.val.names,
            data.train.targets["classes"] + data.val.targets["classes"],
            strict=True,
        )
    )
    assert {name: found.tolist() for name, found in classes.items()} == {
        "a.png": [1],
        "b.png": [],
        "c.png": [0],
    }
    # Given names stand for the labels 0, 1, 2 …
    with pytest.raises(InputError, match=r"label\.csv, line 2: unknown class 7; known: 0, 1, 2"):
        read(root, classes=["x", "y", "z"])
    (root / "bananas_train" / "label.csv").write_text(
        HEADER + "a.png,pear,4,2,20,10\nb.png,apple,1,1,5,5\nc.png,pear,1,1,5,5\n"
    )
    assert read(root).class_names == ("apple", "pear")
    assert read(root, classes=["pear", "fig", "apple"]).class_names[1] == "fig"


BAD_LINES = {
    "a.png,0,30,2,60.5,10": "edges x 30 to 60.5 and y 2 to 10 is outside the image of 40 x 20",
    "a.png,0,-19,2,18,10": "outside the image",
    "a.png,0,-0.9,2,0,10": "outside the image",
    "a.png,0,0.1,0.2,0.5,0.9": "in shares of the image, 0 to 1; pixels are wanted",
    "a.png,0,5,5,5.0000001,10": "thinner than float32 resolves",
    "a.png,0,4,30,20,35": "outside the image",
    "a.png,0,20,2,4,10": "inside out",
    "a.png,0,4,2,4,10": "is empty",
    "a.png,0,nan,2,4,10": "is not finite",
    "a.png,0,4,2,inf,10": "is not finite",
    "a.png,0,4,2,x,10": "not four numbers: xmin '4', ymin '2', xmax 'x', ymax '10'",
    "a.png,0,4,2,20": "not four numbers: .* ymax ''",
    "a.png,,4,2,20,10": "label is empty",
    "a.png,0,4,2,20,10,9,9": "2 more fields than columns",
    ",0,4,2,20,10": "img_name is empty",
    "zebra.png,0,4,2,20,10": "the image .*zebra.png does not exist",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_line_of_a_csv_file(tmp_path, line):
    root = write_banana(tmp_path, f"b.png,0,1,1,5,5\n{line}\n", "a.png,0,1,1,5,5\n")
    with pytest.raises(InputError, match=rf"bananas_train.label\.csv, line 3: .*{BAD_LINES[line]}"):
        read(root)
    data = read(root, skip_bad=True)
    assert data.train.names == ["b.png"]
    assert "line 3" in data.train.skipped[0] and data.val.skipped == []
    assert "left out: " in data.describe() and "line 3" in data.describe()


def test_skipping_an_object_keeps_the_others(tmp_path):
    root = write_banana(tmp_path, "a.png,0,1,1,5,5\na.png,0,9,9,2,2\n", "b.png,0,1,1,5,5\n")
    data = read(root, skip_bad=True)
    assert pixels(data.train, 0) == [[0, 1, 1, 5, 5]]
    assert len(data.train.skipped) == 1 and "line 3" in data.train.skipped[0]


def test_rounding_pixel_is_clipped(tmp_path):
    root = write_banana(tmp_path, "a.png,0,-1,-0.5,41,20.9\n", "b.png,0,1,1,5,5\n")
    assert rows(read(root).train, 0).tolist() == [[0, 0, 0, 1, 1]]


def test_box_over_the_border_is_clipped_and_counted(tmp_path):
    root = write_banana(tmp_path, "a.png,0,-3,2,20,25\n", "b.png,0,1,1,5,5\n")
    data = read(root)
    assert pixels(data.train, 0) == [[0, 0, 2, 20, 20]]
    assert "1 box(es) reached more than a pixel over the border" in data.notes[-1]
    assert "label.csv, line 2" in data.notes[-1] and data.notes[-1] in data.describe()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"img_name,label,xmin\na.png,0,1\n",
            r"line 1: no column ymin, xmax, ymax; it has img_name",
        ),
        (b"", "line 1: no column name"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
    ],
)
def test_bad_csv_file(tmp_path, content, message):
    root = write_banana(tmp_path, "", "b.png,0,1,1,5,5\n")
    (root / "bananas_train" / "label.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"label\.csv.*{message}"):
        read(root, skip_bad=True)
    (root / "bananas_train" / "label.csv").unlink()
    with pytest.raises(InputError, match=r"label\.csv: no such file"):
        read(root)


@pytest.mark.parametrize("kind", ["truncated", "text", "empty"])
def test_bad_image(tmp_path, kind):
    root = write_banana(tmp_path, "a.png,0,1,1,5,5\nb.png,0,1,1,5,5\n", "b.png,0,1,1,5,5\n")
    file = root / "bananas_train" / "images" / "a.png"
    whole = file.read_bytes()
    file.write_bytes({"truncated": whole[:-30], "text": b"<html>", "empty": b""}[kind])
    message = {"truncated": "damaged or truncated", "text": "not an image", "empty": "empty file"}
    with pytest.raises(InputError, match=rf"images.a\.png: {message[kind]}"):
        read(root)
    data = read(root, skip_bad=True)
    assert data.train.names == ["b.png"]
    assert len(data.train.skipped) == 1 and "a.png" in data.train.skipped[0]


# --- Pascal VOC


def test_voc_counts_pixels_from_one_and_sorts_names(tmp_path):
    objects = {
        "a": voc_object("dog", (1, 1, 40, 20)) + voc_object("cat", (5, 3, 20, 12)),
        "b.v2": "",
        "c": voc_object("ant", (7.5, 3, 7.5, 3)),
    }
    root = write_voc(tmp_path, objects)
    (root / "train.txt").write_text("a\n\n b.v2.jpg \n")
    (root / "val.txt").write_text("images/c.xml\n")
    data = read(root)
    assert data.class_names == ("ant", "cat", "dog")
    assert data.train.names == ["a.jpg", "b.v2.jpg"]
    assert pixels(data.train, 0) == [[2, 0, 0, 40, 20], [1, 4, 2, 20, 12]]
    assert len(rows(data.train, 1)) == 0
    assert pixels(data.val, 0) == [[0, 6.5, 2, 7.5, 3]]  # one pixel, not none
    assert "1 box(es) are a pixel or less high or wide: drawn by mistake?" in data.describe()
    assert rows(read(root, classes=["dog", "cat", "ant"]).train, 0)[0, 0] == 0
    with pytest.raises(InputError, match=r"a\.xml, object 2: unknown class 'cat'; known: dog, ant"):
        read(root, classes=["dog", "ant"])


def test_voc_development_kit_folders_and_difficult_objects(tmp_path):
    hard = "<difficult>1</difficult>"
    objects = {"a": voc_object() + voc_object("dog", extra=hard), "b": voc_object("cat")}
    root = write_voc(tmp_path, objects, ("Annotations", "JPEGImages"))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"train\.txt is there, but .*val\.txt is missing"):
        read(root)
    (root / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    data = read(root)
    assert data.class_names == ("cat", "dog") and len(rows(data.train, 0)) == 2
    assert not data.drawn
    assert data.train.targets["ignore"][0].tolist() == [False, True]
    assert data.train.num_ignored == 1 and data.val.num_ignored == 0
    assert data.train.counts(2).tolist() == [1, 0]


def test_voc_without_split_files_in_one_folder(tmp_path):
    names = [f"image{k}" for k in range(10)]
    write_voc(tmp_path, {name: voc_object() for name in names}, (".", "."))
    data = read(tmp_path, val_fraction=0.3, seed=4)
    assert len(data.val) == 3 and len(data.train) == 7 and data.drawn
    assert sorted(data.train.names + data.val.names) == [f"{name}.jpg" for name in names]
    assert read(tmp_path, val_fraction=0.3, seed=4).val.names == data.val.names
    others = [read(tmp_path, val_fraction=0.3, seed=k).val.names for k in range(3)]
    assert any(other != data.val.names for other in others)


def test_split_depends_on_names_and_not_on_their_order():
    names = [f"n{k}" for k in range(20)]
    split = split_by_name(names, str, 0.25, 1, "here")
    assert len(split["val"]) == 5 and split == split_by_name(names[::-1], str, 0.25, 1, "here")
    assert len(split_by_name(names[:2], str, 0.01, 1, "here")["val"]) == 1
    assert len(split_by_name(names[:2], str, 0.99, 1, "here")["train"]) == 1
    with pytest.raises(InputError, match=r"here: 1 labelled image\(s\)"):
        split_by_name(names[:1], str, 0.5, 0, "here")


def test_stated_size_must_be_that_of_the_image(tmp_path):
    root = write_voc(tmp_path, {k: voc_object(box=(5, 3, 20, 12)) for k in "ab"}, size=(400, 0))
    assert pixels(read(root).train, 0) == [[0, 4, 2, 20, 12]]  # 0: not known
    for size in ((100, 50), (HEIGHT, WIDTH)):
        root = write_voc(tmp_path, {"b": voc_object(box=(5, 3, 20, 12))}, size=size)
        message = rf"b\.xml: its labels are for an image of {size[0]} x {size[1]} .* has 40 x 20"
        with pytest.raises(InputError, match=message):
            read(root)


def write_turned(root, orientation, content):
    """Images a and b, stored as 20 x 40 with a white patch in rows 2-12, columns 4-20."""
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[2:12, 4:20] = 255
    tags = Image.Exif()
    tags[EXIF_ORIENTATION] = orientation
    write_voc(root, {"a": "", "b": ""})
    for stem in "ab":
        (root / "annotations" / f"{stem}.xml").write_text(f"<annotation>{content}</annotation>")
        image = Image.fromarray(stored)
        image.save(root / "images" / f"{stem}.jpg", exif=tags, quality=100, subsampling=0)
    height, width = np.nonzero(read_image(root / "images" / "a.jpg")[..., 0] > 127)
    return [width.min(), height.min(), width.max() + 1, height.max() + 1]


def stated(height, width):
    return f"<size><width>{width}</width><height>{height}</height></size>"


@pytest.mark.parametrize("orientation", range(2, 9))
def test_boxes_on_images_that_are_stored_turned(tmp_path, orientation):
    on_stored = voc_object(box=(5, 3, 20, 12))
    seen = write_turned(tmp_path, orientation, stated(HEIGHT, WIDTH) + on_stored)
    message = rf"a\.jpg is stored turned \(EXIF orientation {orientation}\).*boxes_on='upright'"
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    with pytest.raises(InputError, match="no image left"):
        read(tmp_path, skip_bad=True)
    split = read(tmp_path, boxes_on="stored").train
    assert pixels(split, 0) == [[0, *seen]] and not split.plain[0]
    on_upright = voc_object(box=(seen[0] + 1, seen[1] + 1, *seen[2:]))
    write_turned(tmp_path, orientation, stated(HEIGHT, WIDTH) + on_upright)
    assert pixels(read(tmp_path, boxes_on="upright").train, 0) == [[0, *seen]]
    if orientation < 5:
        return
    # Height and width are exchanged: a stated size or a box that fits but one way decides.
    write_turned(tmp_path, orientation, stated(WIDTH, HEIGHT) + on_upright)
    for options in ({}, {"boxes_on": "stored"}):
        assert pixels(read(tmp_path, **options).train, 0) == [[0, *seen]]
    write_turned(tmp_path, orientation, on_stored + voc_object(box=(1, 1, WIDTH, 3)))
    assert pixels(read(tmp_path).train, 0)[0] == [0, *seen]
    write_turned(tmp_path, orientation, on_upright + voc_object(box=(1, 1, 3, WIDTH)))
    assert pixels(read(tmp_path).train, 0) == [[0, *seen], [0, 0, 0, 3, WIDTH]]


BAD_XML = {
    "<annotation><object>": r"b\.xml: not a whole XML file .*line 1",
    "": r"b\.xml: not a whole XML file",
    f"<annotation>{voc_object()}<object><name>x</name></object></annotation>": (
        r"b\.xml, object 2: no <bndbox>"
    ),
    f"<annotation>{voc_object(name='')}</annotation>": r"b\.xml, object 1: no <name>",
    f"<annotation>{voc_object(box=(1, '', 3, 'z'))}</annotation>": (
        r"b\.xml, object 1: <bndbox> is not four numbers: xmin '1', ymin '', xmax '3', ymax 'z'"
    ),
    f"<annotation>{voc_object(box=(9, 3, 5, 12))}</annotation>": r"b\.xml, object 1: .*inside out",
    f"<annotation>{voc_object(box=('nan', 3, 5, 12))}</annotation>": (
        r"b\.xml, object 1: .*is not finite"
    ),
}


@pytest.mark.parametrize("content", BAD_XML)
def test_bad_xml(tmp_path, content):
    root = write_voc(tmp_path, {k: voc_object() for k in "abc"})
    (root / "train.txt").write_text("a\nb\n")
    (root / "val.txt").write_text("c\n")
    (root / "annotations" / "b.xml").write_text(content)
    with pytest.raises(InputError, match=BAD_XML[content]):
        read(root)
    data = read(root, skip_bad=True)
    keeps_one = "object 2" in BAD_XML[content]
    assert data.train.names == ["a.jpg", "b.jpg"][: 1 + keeps_one]
    assert "b.xml" in data.train.skipped[0]
    assert data.class_names == ("cat",)


def test_voc_names_without_files(tmp_path):
    root = write_voc(tmp_path, {k: voc_object() for k in "abc"})
    (root / "train.txt").write_text("a\nzebra.jpg\n")
    (root / "val.txt").write_text("b\na\nc")
    with pytest.raises(InputError, match=r"train\.txt, line 2: 'zebra\.jpg' has no annotation"):
        read(root)
    (root / "train.txt").write_text("a\n")
    with pytest.raises(
        InputError, match=r"val\.txt, line 2: 'a' is already in .*train\.txt, line 1"
    ):
        read(root)
    (root / "val.txt").write_text("b\nc")
    (root / "images" / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"b\.xml: no image of the name b \(b\.jpg in the file\)"):
        read(root)
    data = read(root, skip_bad=True)
    assert data.val.names == ["c.jpg"] and len(data.skipped) == 1
    # The image may have the name that the XML file gives instead of its own.
    save_image(root / "images" / "other.png")
    text = (root / "annotations" / "b.xml").read_text().replace("b.jpg", "C:\\old\\other.png")
    (root / "annotations" / "b.xml").write_text(text)
    assert read(root).val.names == ["other.png", "c.jpg"]


# --- COCO


def test_coco_two_files(tmp_path):
    train = coco_content([(0, 7, [4, 2, 16, 8]), (0, 3, [1, 1, 2, 4]), (2, 3, [0, 0, 40, 20])])
    train["annotations"][1]["iscrowd"] = 1
    write_coco(tmp_path, train, "annotations/instances_train2017.json", "train2017")
    val = coco_content([(1, 3, [8, 5, 4, 10.5])])
    write_coco(tmp_path, val, "annotations/instances_val2017.json", "val2017")
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    data = read(tmp_path)
    assert data.class_names == ("cat", "dog")  # by id, not by name or order in the file
    assert pixels(data.train, 0) == [[1, 4, 2, 20, 10], [0, 1, 1, 3, 5]]
    assert data.train.targets["ignore"][0].tolist() == [False, True]
    assert len(rows(data.train, 1)) == 0
    assert pixels(data.train, 2) == [[0, 0, 0, 40, 20]]
    assert pixels(data.val, 1) == [[0, 8, 5, 12, 15.5]]
    assert "train2017" in data.train.images[0] and "val2017" in data.val.images[0]
    assert rows(read(tmp_path, classes=["dog", "cat"]).train, 0)[0, 0] == 0
    with pytest.raises(
        InputError, match=r"train2017\.json, annotations\[0\] \(id 50\): unknown class 'dog'"
    ):
        read(tmp_path, classes=["cat"])


@pytest.mark.parametrize("folder", ["images", ".", "train"])
def test_coco_one_file(tmp_path, folder):
    boxes = [(k, 3, [4, 2, 16, 8]) for k in range(3)]
    write_coco(tmp_path, coco_content(boxes), "annotations_train.json", folder)
    data = read(tmp_path, val_fraction=0.3)
    assert len(data.train) == 2 and len(data.val) == 1
    (tmp_path / "annotations_training_2.json").write_text("{}")
    message = r"which files are to be read\? Found annotations_train\.json \(train\), .*_2\.json"
    with pytest.raises(InputError, match=message):
        read(tmp_path)


BAD_ANNOTATIONS = {
    (1, 3, (31, 2, 20, 5)): "outside the image of 40 x 20",
    (1, 3, (4, 2, -3, 5)): "inside out",
    (1, 3, (4, 2, 3, 0)): "is empty",
    (1, 3, (4, 2, float("nan"), 5)): "is not finite",
    (1, 3, (4, 2, 5)): r"bbox is not four numbers .*\[4, 2, 5\]",
    (1, 3, (4, 2, 5, "x")): "bbox is not four numbers",
    (1, 99, (4, 2, 5, 5)): "unknown class: category_id 99",
    (900, 3, (4, 2, 5, 5)): "image_id 1000 names no image",
}


@pytest.mark.parametrize("annotation", BAD_ANNOTATIONS)
def test_bad_coco_annotation(tmp_path, annotation):
    good = [(0, 3, [4, 2, 16, 8]), (2, 3, [4, 2, 16, 8])]
    image, category, box = annotation
    write_coco(
        tmp_path,
        coco_content([*good, (image, category, list(box))]),
        "instances_train.json",
        "train",
    )
    write_coco(tmp_path, coco_content(good), "instances_val.json", "val")
    message = rf"train\.json, annotations\[2\] \(id 52\): .*{BAD_ANNOTATIONS[annotation]}"
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    # An image whose only object is bad must not pass for one without objects.
    assert data.train.names == (["0.png", "1.png", "2.png"] if image == 900 else ["0.png", "2.png"])
    assert data.val.names == ["0.png", "1.png", "2.png"]
    assert "annotations[2]" in data.train.skipped[0] and data.val.skipped == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 1}]}, r"images\[0\]: no id or no file_name"),
        ({"images": [{"id": [1], "file_name": "0.png"}]}, r"images\[0\]: no id or no file_name"),
        (
            {"images": [{"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}]},
            r"images\[1\] \(1\.png\): the id 1 is given twice",
        ),
        (
            {"images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "0.png"}]},
            r"images\[1\] \(id 2\): .*0\.png is the same image as in .*images\[0\]",
        ),
        (
            {"images": [{"id": k, "file_name": f"{k + 2}.png"} for k in range(2)]},
            r"images\[1\] \(id 1\): the image 3\.png does not exist in .*images",
        ),
        ({"categories": [{"id": None, "name": "b"}]}, r"categories\[0\]: no id or no name"),
        (
            {"categories": [{"id": 1, "name": "b"}, {"id": 1, "name": "c"}]},
            r"categories\[1\]: id 1 is 'c', but stands for 'b' already",
        ),
        ({"annotations": {}}, "no list `annotations`"),
        ({"annotations": [5]}, r"annotations\[0\]: not an annotation: 5"),
    ],
)
def test_bad_coco_file(tmp_path, changes, message):
    write_coco(tmp_path, coco_content([], **changes))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_unparsable_json(tmp_path):
    write_coco(tmp_path, '{"images": [],\n oops}')
    with pytest.raises(InputError, match=r"annotations\.json, line 2, column 2: not JSON"):
        read(tmp_path, skip_bad=True)


# --- folders as a whole


def test_folders_without_a_known_layout(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: a file, where the folder"):
        read(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: empty folder"):
        read(tmp_path / "empty")
    save_image(tmp_path / "some" / "images" / "a.png")
    (tmp_path / "some" / "notes.md").write_text("")
    with pytest.raises(
        InputError,
        match=r"(?s)some: no known layout for detection. It holds images/, notes.md\. .*VOC.*COCO",
    ):
        read(tmp_path / "some")


def test_data_sets_with_nothing_in_them(tmp_path):
    root = write_banana(tmp_path, "a.png,,,,,\n", "b.png,0,1,1,5,5\n")
    with pytest.raises(InputError, match="no object is labelled on any image of the train split"):
        read(root)
    root = write_banana(tmp_path, "a.png,0,1,1,5,5\n", "")
    with pytest.raises(InputError, match="val split: no image"):
        read(root)
    root = write_banana(tmp_path, "a.png,0,9,1,5,5\n", "b.png,0,1,1,5,5\n")
    with pytest.raises(
        InputError, match=r"train split: no image left; the first fault was: .*line 2"
    ):
        read(root, skip_bad=True)


def test_wrong_arguments(tmp_path):
    with pytest.raises(InputError, match=r"val_fraction is 1\.0"):
        read(tmp_path, val_fraction=1.0)
    root = write_banana(tmp_path, "a.png,0,1,1,5,5\n", "b.png,0,1,1,5,5\n")
    for classes in ([], ["a", "a"]):
        with pytest.raises(InputError, match="classes are"):
            read(root, classes=classes)
    with pytest.raises(InputError, match="boxes_on is 'sideways'; wanted 'stored' or 'upright'"):
        read(root, boxes_on="sideways")
    with pytest.raises(InputError, match="unknown option wibble for CSV; known: classes, boxes_on"):
        read(root, wibble=3)
    with pytest.raises(InputError, match="archive is for prepared data sets"):
        read(root, archive="a.zip")
    with pytest.raises(InputError, match="task is 'detecting'; wanted one of"):
        load(root, "detecting")
    with pytest.raises(InputError, match="no-such-thing: no such folder, and no data set of that"):
        read("no-such-thing")


def test_coco_categories_of_one_name_are_one_class(tmp_path):
    content = coco_content([(0, 3, [4, 2, 16, 8]), (1, 8, [4, 2, 16, 8])])
    content["categories"] = [{"id": 3, "name": "cat"}, {"id": 8, "name": "cat"}]
    write_coco(tmp_path, content, "annotations.json", "images")
    data = read(tmp_path)
    assert data.class_names == ("cat",)
    assert "2 categories (3, 8) are named 'cat': read as one class" in data.notes
