"""Never a wrong label without a word: which image, which part, and what a label means."""

import json

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l.data.images import EXIF_ORIENTATION, read_image
from kerascv_d2l.data.load import load
from kerascv_d2l.errors import InputError

pytestmark = pytest.mark.quick
HEIGHT, WIDTH = 20, 40


def save(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (10, 200, 30)).save(path, **options)


def xml(path, filename=None, box=(5, 3, 20, 12), tag="object"):
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = "".join(
        f"<{name}>{value}</{name}>"
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    named = f"<filename>{filename}</filename>" if filename else ""
    path.write_text(
        f"<annotation>{named}<{tag}><name>cat</name><bndbox>{corners}</bndbox></{tag}></annotation>"
    )


def coco(path, names, ids=None, boxes=((4, 2, 16, 8),), **changes):
    """Each box on each image; image k has the id `ids[k]`."""
    ids = ids or range(len(names))
    content = {
        "images": [{"id": i, "file_name": name} for i, name in zip(ids, names, strict=True)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": i, "category_id": 1, "bbox": list(box)} | changes
            for i in dict.fromkeys(ids)
            for box in boxes
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read(root, **options):
    return load(root, "detection", **options)


# --- which image


@pytest.mark.parametrize(
    "files",
    [
        {"x_1": "x.jpg", "x_2": "x.jpg", "other": None},
        {"x": None, "x.jpg": None, "other": None},
        {"alice/x": None, "bob/x": None, "other": None},
    ],
)
def test_two_label_files_of_one_image_are_refused(tmp_path, files):
    for name in ("x", "other"):
        save(tmp_path / "images" / f"{name}.jpg")
    for name, filename in files.items():
        xml(tmp_path / "annotations" / f"{name}.xml", filename)
    message = r"annotations/\S+\.xml: \S+x\.jpg is the same image as in \S+annotations/\S+\.xml"
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert len(data.train) + len(data.val) == 2 and len(data.skipped) == 1


def test_lines_of_one_image_are_put_together_however_they_name_it(tmp_path):
    for name in "01":
        save(tmp_path / "images" / f"{name}.jpg")
    lines = ["filename,class,xmin,ymin,xmax,ymax", "1.jpg,cat,1,1,5,5"]
    lines += [
        f"{name},cat,{k},2,20,10" for k, name in enumerate(("0.jpg", "./0.jpg", "images/0.jpg"))
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = read(tmp_path)
    assert len(data.train) + len(data.val) == 2
    boxes = dict(
        zip(
            data.train.names + data.val.names,
            data.train.targets["boxes"] + data.val.targets["boxes"],
            strict=True,
        )
    )
    assert (boxes["0.jpg"][:, 0] * WIDTH).round(4).tolist() == [0, 1, 2]


def test_one_image_under_two_ids_or_names_is_refused(tmp_path):
    for name in "01":
        save(tmp_path / "images" / f"{name}.jpg")
    for second in ("0.jpg", "./0.jpg", "images/0.jpg", "images\\0.jpg", "0.JPG"):
        coco(tmp_path / "annotations.json", ["0.jpg", "1.jpg", second])
        with pytest.raises(InputError, match=r"images\[2\].*is the same image as .*images\[0\]"):
            read(tmp_path)


def test_the_file_tells_which_of_two_images_of_one_name(tmp_path):
    for name in ("q.jpg", "q.png", "r.jpg"):
        save(tmp_path / "images" / name)
    xml(tmp_path / "annotations" / "q.xml", "q.png")
    xml(tmp_path / "annotations" / "r.xml")
    data = read(tmp_path)
    assert sorted(data.train.names + data.val.names) == ["q.png", "r.jpg"]
    assert "1 image(s) have no labels, and are not read: images/q.jpg" in data.describe()
    for name in (None, "r.jpg"):  # no help
        xml(tmp_path / "annotations" / "q.xml", name)
        with pytest.raises(InputError, match=r"q\.xml: q may be .*q\.jpg, .*q\.png"):
            read(tmp_path)


def test_a_filename_of_another_image_is_noted(tmp_path):
    for name, filename in (("a", "b.jpg"), ("b", "b.jpg"), ("c", "long ago.jpg")):
        save(tmp_path / f"{name}.jpg")
        xml(tmp_path / f"{name}.xml", filename)
    (note,) = read(tmp_path).notes
    assert note.startswith("1 XML file(s) have the name of one image") and "a.xml (b.jpg)" in note


def test_yolo_labels_of_two_images_of_one_name(tmp_path):
    for name in ("q.jpg", "q.png", "r.jpg", "s.jpg"):
        save(tmp_path / "images" / name)
    for name in "qrs":
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(InputError, match=r"q\.txt: is it of .*q\.jpg or of .*q\.png\?"):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert sorted(data.train.names + data.val.names) == ["r.jpg", "s.jpg"]
    (tmp_path / "images" / "q.jpg").unlink()
    (tmp_path / "labels" / "gone.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(InputError, match=r"gone\.txt: there is no image for these labels"):
        read(tmp_path)


def test_labels_of_an_id_that_is_given_twice_are_nobodys(tmp_path):
    for name in "0123":
        save(tmp_path / "images" / f"{name}.jpg")
    coco(tmp_path / "annotations.json", [f"{k}.jpg" for k in range(4)], ids=[7, 7, 8, 9])
    with pytest.raises(InputError, match=r"images\[1\] \(1\.jpg\): the id 7 is given twice"):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert sorted(data.train.names + data.val.names) == ["2.jpg", "3.jpg"]
    assert len(data.skipped) == 2


def test_an_image_of_another_part_is_not_taken_for_a_missing_one(tmp_path):
    for name in ("train/0.jpg", "train/1.jpg", "val/2.jpg"):
        save(tmp_path / "images" / name)
    coco(tmp_path / "annotations" / "train.json", ["0.jpg", "1.jpg"])
    coco(tmp_path / "annotations" / "val.json", ["1.jpg", "2.jpg"])
    with pytest.raises(
        InputError, match=r"val\.json, images\[0\].*the image 1\.jpg does not exist"
    ):
        read(tmp_path)


# --- which part


def test_a_file_for_training_and_validation_is_split(tmp_path):
    names = [f"{k}.jpg" for k in range(10)]
    for name in names:
        save(tmp_path / "images" / name)
    file = tmp_path / "annotations" / "instances_trainval2007.json"
    coco(file, names)
    data = read(tmp_path)
    assert sorted(data.train.names + data.val.names) == names and len(data.val) == 2
    for train, val in (("train", "val"), ("training", "validation"), ("Train_v2", "valid")):
        coco(tmp_path / "annotations" / f"instances_{train}.json", names[:7])
        coco(tmp_path / "annotations" / f"instances_{val}.json", names[7:])
        data = read(tmp_path)  # the file for both adds nothing
        assert (data.train.names, data.val.names) == (names[:7], names[7:])
        for name in (train, val):
            (tmp_path / "annotations" / f"instances_{name}.json").unlink()


@pytest.mark.parametrize(
    "files", [("train_a", "train_b", "val"), ("minival", "train"), ("trainval", "train"), ("test",)]
)
def test_files_that_may_be_either_are_listed(tmp_path, files):
    save(tmp_path / "images" / "0.jpg")
    for name in files:
        coco(tmp_path / "annotations" / f"instances_{name}.json", ["0.jpg"])
    with pytest.raises(InputError, match="which files are to be read") as caught:
        read(tmp_path)
    assert all(f"instances_{name}.json" in str(caught.value) for name in files)


def test_an_image_for_training_and_validation_is_refused(tmp_path):
    for name in "012":
        save(tmp_path / "images" / f"{name}.jpg")
    coco(tmp_path / "train.json", ["0.jpg", "1.jpg"])
    coco(tmp_path / "val.json", ["1.jpg", "2.jpg"])
    message = r"val\.json, images\[0\].*1\.jpg is the same image as in .*train\.json, images\[1\].*"
    with pytest.raises(InputError, match=message + r"\(train and val\)"):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert (data.train.names, data.val.names) == (["0.jpg", "1.jpg"], ["2.jpg"])
    assert len(data.skipped) == 1


@pytest.mark.parametrize("lists", [{"train": "ab", "test": "c"}, {"test": "c"}])
def test_what_is_listed_for_the_test_is_not_trained_on(tmp_path, lists):
    for name in "abc":
        save(tmp_path / f"{name}.jpg")
        xml(tmp_path / f"{name}.xml")
    for part, names in lists.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(names))
    data = read(tmp_path)
    assert data.test.names == ["c.jpg"]
    assert sorted(data.train.names + data.val.names) == ["a.jpg", "b.jpg"]


def test_accents_may_be_decomposed(tmp_path):
    composed, decomposed = "\u00e9", "e\u0301"
    for k in range(4):
        save(tmp_path / "images" / f"{decomposed}{k}.jpg")
        xml(tmp_path / "annotations" / f"{decomposed}{k}.xml", f"{composed}{k}.jpg")
    (tmp_path / "train.txt").write_text("".join(f"{composed}{k}\n" for k in range(3)))
    (tmp_path / "val.txt").write_text(f"{composed}3\n")
    assert [len(split) for split in read(tmp_path).splits.values()] == [3, 1]
    for k in range(4):
        mask = Image.fromarray(
            (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) > k).astype("uint8")
        )
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{composed}{k}.png")
    assert len(load(tmp_path, "segmentation").train) == 3


def test_lists_of_folders_within_are_noted(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        for name in "ab":
            save(tmp_path / year / "JPEGImages" / f"{year}{name}.jpg")
            xml(tmp_path / year / "Annotations" / f"{year}{name}.xml")
        lists = tmp_path / year / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text(f"{year}a")
        (lists / "test.txt").write_text(f"{year}b")
    (note,) = read(tmp_path).notes
    assert note.startswith("4 list(s) of parts are not read") and "VOC2007/ImageSets/Main" in note
    (tmp_path / "VOC2012").rename(tmp_path.with_name(tmp_path.name + "-2012"))
    (tmp_path / "README.md").write_text("Of 2007.")  # wraps it all the same
    with pytest.raises(InputError, match="1 labelled image"):
        read(tmp_path)


def test_labels_in_no_list_are_counted(tmp_path):
    for name in "abcd":
        save(tmp_path / f"{name}.jpg")
        xml(tmp_path / f"{name}.xml")
    (tmp_path / "train.txt").write_text("a")
    (tmp_path / "val.txt").write_text("c")
    data = read(tmp_path)
    assert (
        "2 labelled image(s) are in none of train.txt, val.txt, and are not read: b, d"
        in data.notes
    )
    assert not any("have no labels" in note for note in data.notes)


def test_a_bad_file_of_five_does_not_end_the_run(tmp_path):
    for name in "abcde":
        save(tmp_path / f"{name}.png")
        xml(tmp_path / f"{name}.xml")
    for name in "abcde":  # whichever would have been the one to validate on
        whole = (tmp_path / f"{name}.png").read_bytes()
        (tmp_path / f"{name}.png").write_bytes(whole[:-30])
        with pytest.raises(InputError, match=rf"{name}\.png: damaged .*--skip-bad"):
            read(tmp_path)
        data = read(tmp_path, skip_bad=True)
        assert (len(data.train), len(data.val), len(data.skipped)) == (3, 1, 1)
        (tmp_path / f"{name}.png").write_bytes(whole)


# --- what is expected and not there


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation/>", "no <object>, nor <filename> or <size>"),
        (
            "<annotation><filename>b.jpg</filename><items><item><label>cat</label></item></items>"
            "</annotation>",
            "no <object>, but <items>, which is not read",
        ),
        (
            "<annotation><Object><name>cat</name><bndbox/></Object></annotation>",
            "a <bndbox> that is in no <object>",
        ),
        ("<doc><object/></doc>", "its top element is <doc>, where VOC has <annotation>"),
    ],
)
def test_xml_without_what_is_expected_is_not_an_empty_image(tmp_path, content, message):
    for name in "abc":
        save(tmp_path / "images" / f"{name}.jpg")
        xml(tmp_path / "annotations" / f"{name}.xml")
    (tmp_path / "annotations" / "b.xml").write_text(content)
    with pytest.raises(InputError, match=rf"b\.xml: .*{message}"):
        read(tmp_path)


def test_tracks_of_a_video_are_refused(tmp_path):
    save(tmp_path / "images" / "a.jpg")
    (tmp_path / "annotations.xml").write_text(
        '<annotations><version>1.1</version><track id="0" label="cat"/></annotations>'
    )
    with pytest.raises(InputError, match=r"annotations\.xml: tracks of a video"):
        read(tmp_path)


# --- what a label means


@pytest.mark.parametrize(
    ("value", "ignored"),
    [("0", False), ("1", True), (False, False), (True, True), (0, False), (None, False)],
)
def test_crowds_in_any_spelling(tmp_path, value, ignored):
    for name in "01":
        save(tmp_path / "images" / f"{name}.jpg")
    names = ["0.jpg", "1.jpg"]
    coco(tmp_path / "annotations.json", names, boxes=((4, 2, 16, 8), (1, 1, 5, 5)), iscrowd=value)
    content = json.loads((tmp_path / "annotations.json").read_text())
    for entry in content["annotations"][::2]:
        del entry["iscrowd"]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert read(tmp_path).train.targets["ignore"][0].tolist() == [False, ignored]
    coco(tmp_path / "annotations.json", names, iscrowd="maybe")
    with pytest.raises(InputError, match=r"annotations\[0\]: iscrowd is 'maybe'; wanted 0 or 1"):
        read(tmp_path)


def test_shares_and_pixels_are_told_apart(tmp_path):
    for name in "01":
        save(tmp_path / f"{name}.jpg")
    names = ["0.jpg", "1.jpg"]
    coco(tmp_path / "annotations.json", names, boxes=((0.1, 0.1, 0.4, 0.9),))
    with pytest.raises(InputError, match=r"annotations\[0\]: .* is in shares of the image"):
        read(tmp_path)
    (tmp_path / "annotations.json").unlink()
    for name in "01":
        (tmp_path / f"{name}.txt").write_text("0 20 10 8 4")
    with pytest.raises(InputError, match=r"0\.txt, line 1: .*shares from 0 to 1 are wanted"):
        read(tmp_path)


BAD_YOLO = {
    "0 0.5 0.5 0.2": "is not `class x y width height`",
    "0 0.5 0.5 0.2 0.2 0.9": "is not `class x y width height`",
    "cat 0.5 0.5 0.2 0.2": "is not `class x y width height`",
    "1.5 0.5 0.5 0.2 0.2": "the class is 1.5; wanted a whole number",
    "2 0.5 0.5 0.2 0.2": "unknown class 2; known: cat, dog",
    "0 0.5 0.5 -0.2 0.2": "is inside out",
    "0 0.5 0.5 0 0.2": "is empty",
    "0 0.5 nan 0.1 0.2": "is not finite",
    "0 0.95 0.5 0.6 0.2": None,  # clipped
    "0 1.2 0.5 0.6 0.2": "is outside the image",
}


@pytest.mark.parametrize("line", BAD_YOLO)
def test_bad_line_of_a_yolo_file(tmp_path, line):
    for name in "ab":
        save(tmp_path / "images" / "train" / f"{name}.jpg")
        (tmp_path / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / "train" / f"{name}.txt").write_text(f"1 0.5 0.5 0.1 0.1\n{line}\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog]")
    if BAD_YOLO[line] is None:
        assert "2 box(es) reached more than a pixel over" in read(tmp_path).describe()
        return
    with pytest.raises(InputError, match=rf"a\.txt, line 2: .*{BAD_YOLO[line]}"):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert data.class_names == ("cat", "dog") and len(data.skipped) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b]\nnc: 3", "nc is 3, but there are 2 names"),
        ("names: [a\ntrain: x", "not YAML"),
        ("names: cat", "no `names` of classes"),
        ("names: [a]\nkpt_shape: [17, 3]", "labels of keypoints"),
        ("names: [a]\ntrain: images/nowhere", "train is images/nowhere, and there is no such"),
    ],
)
def test_bad_data_yaml(tmp_path, text, message):
    save(tmp_path / "images" / "a.jpg")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"data\.yaml: {message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": "cat", "shape_type": "line", "points": [[1, 1], [5, 5]]}, "a line, where rect"),
        ({"label": "", "points": [[1, 1], [5, 5], [1, 5]]}, "no label"),
        ({"label": "cat", "points": [[1, 1], [5, 5]]}, "a polygon of 2 points"),
        ({"label": "cat", "points": [1, 2, 3]}, "points are not pairs of numbers"),
        ({"label": 0, "group_id": [1], "points": [[10**400, 1]] * 3}, "points are not pairs"),
    ],
)
def test_bad_shape_of_labelme(tmp_path, shape, message):
    good = {
        "label": "cat",
        "shape_type": "circle",
        "points": [[10, 10], [10, 15]],
        "group_id": None,
    }
    for name, shapes in (("a", [good]), ("b", [good, shape]), ("c", [good])):
        save(tmp_path / f"{name}.jpg")
        content = {"shapes": shapes, "imagePath": f"{name}.jpg"}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"b\.json, shapes\[1\]: {message}"):
        read(tmp_path)
    (tmp_path / "b.json").write_text('{"imagePath": "b.jpg"}')
    with pytest.raises(InputError, match=r"b\.json: no list `shapes`"):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert (data.train.targets["boxes"][0] * 40).round(3).tolist() == [[5, 10, 15, 30]]


def test_polygons_of_one_group_are_one_object(tmp_path):
    shapes = [
        {"label": "cat", "points": [[x, 2], [x + 5, 2], [x + 5, 9]], "group_id": 4} for x in (3, 30)
    ]
    shapes.append({"label": "cat", "points": [[1, 1], [5, 1], [5, 9]], "group_id": None})
    for name in "ab":
        save(tmp_path / f"{name}.jpg")
        content = {"shapes": shapes, "imagePath": f"{name}.jpg"}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    split = read(tmp_path, masks=True).train
    sides = (WIDTH, HEIGHT, WIDTH, HEIGHT)
    boxes = (split.targets["boxes"][0] * sides).round(3).tolist()
    assert boxes == [[3, 2, 35, 9], [1, 1, 5, 9]] and len(split.targets["masks"][0]) == 2


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_turn_with_the_boxes(tmp_path, orientation):
    from pycocotools import mask as coco_mask

    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[2:12, 4:20] = 255
    tags = Image.Exif()
    tags[EXIF_ORIENTATION] = orientation
    for name in "ab":
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(stored).save(tmp_path / "images" / f"{name}.png", exif=tags)
    outline = [[4, 2, 20, 2, 20, 12, 4, 12]]
    names = ["a.png", "b.png"]
    coco(tmp_path / "annotations.json", names, boxes=((4, 2, 16, 10),), segmentation=outline)
    split = read(tmp_path, boxes_on="stored", masks=True).train
    shown = read_image(split.images[0])[..., 0] > 127
    np.testing.assert_array_equal(coco_mask.decode(split.targets["masks"][0][0]), shown)


@pytest.mark.parametrize("kind", ["uncompressed", "compressed"])
def test_run_length_encodings_are_masks(tmp_path, kind):
    from pycocotools import mask as coco_mask

    pixels = np.asfortranarray(np.pad(np.ones((8, 16), np.uint8), ((2, 10), (4, 20))))
    encoded = coco_mask.encode(pixels)
    if kind == "compressed":
        encoded["counts"] = encoded["counts"].decode()
    else:
        runs = np.diff(np.flatnonzero(np.diff(pixels.ravel("F"), prepend=2, append=2)))
        encoded["counts"] = runs.tolist()
    for name in "01":
        save(tmp_path / f"{name}.jpg")
    coco(tmp_path / "annotations.json", ["0.jpg", "1.jpg"], segmentation=encoded)
    split = read(tmp_path, masks=True).train
    np.testing.assert_array_equal(coco_mask.decode(split.targets["masks"][0][0]), pixels)
    encoded["size"] = [WIDTH, HEIGHT]
    coco(tmp_path / "annotations.json", ["0.jpg", "1.jpg"], segmentation=encoded)
    with pytest.raises(InputError, match=r"annotations\[0\]: its mask is of 20 x 40 pixels"):
        read(tmp_path, masks=True)


# --- other inputs of these kinds


def test_lists_count_in_every_layout_that_tells_no_parts(tmp_path):
    names = ["a.jpg", "b.jpg", "q.jpg", "q.png", "t.jpg"]
    for name in names:
        save(tmp_path / "pool" / name)
    coco(tmp_path / "annotations.json", names)
    (tmp_path / "train.txt").write_text("a.jpg\npool/q.png")
    (tmp_path / "Valid.txt").write_text("b\n./pool/q.jpg")
    (tmp_path / "test.txt").write_text("t.JPG\n")
    data = read(tmp_path)
    found = {part: split.names for part, split in data.splits.items()}
    assert found == {"train": ["a.jpg", "q.png"], "val": ["b.jpg", "q.jpg"], "test": ["t.jpg"]}
    (tmp_path / "train.txt").write_text("a.jpg\nq")
    with pytest.raises(
        InputError, match=r"train\.txt, line 2: 'q' may be pool/q\.jpg, pool/q\.png"
    ):
        read(tmp_path)
    (tmp_path / "val.txt").write_text("b")
    with pytest.raises(InputError, match=r"Valid\.txt and .*val\.txt: keep one list for val"):
        read(tmp_path)


def test_a_list_of_all_for_training_is_split_and_one_of_some_is_not(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2")
    (tmp_path / "train.txt").write_text("data/obj/a.jpg\ndata/obj/b.jpg\ndata/obj/c.jpg\n")
    assert len(read(tmp_path).val) == 1
    (tmp_path / "train.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(InputError, match=r"train\.txt is there, but .*val\.txt is missing"):
        read(tmp_path)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "test.txt").write_text("obj/b.jpg")
    assert read(tmp_path).test.names == ["b.jpg"]


def test_files_of_the_parts_may_be_called_in_several_ways(tmp_path):
    for name in "01":
        save(tmp_path / "images" / f"{name}.jpg")
    coco(tmp_path / "annotations" / "instances_train2017.json", ["0.jpg"])
    coco(tmp_path / "annotations" / "val.json", ["1.jpg"])
    coco(tmp_path / "annotations" / "person_keypoints_train2017.json", ["0.jpg"])
    data = read(tmp_path)
    assert (data.train.names, data.val.names) == (["0.jpg"], ["1.jpg"])


@pytest.mark.parametrize("kind", [str, float])
def test_ids_of_coco_may_be_text(tmp_path, kind):
    for name in "01":
        save(tmp_path / f"{name}.jpg")
    names = ("cat", "dog", "egg")
    content = {
        "images": [{"id": kind(k), "file_name": f"{k}.jpg"} for k in range(2)],
        "categories": [
            {"id": kind(k), "name": name} for k, name in zip((9, 10, 11), names, strict=True)
        ],
        "annotations": [
            {"image_id": k, "category_id": c, "bbox": [4, 2, 16, 8]}
            for k in range(2)
            for c in (11, 9)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    data = read(tmp_path)
    assert data.class_names == names and data.val.targets["classes"][0].tolist() == [2, 0]


def test_json_that_is_none(tmp_path):
    save(tmp_path / "a.jpg")
    for text in ("[" * 100_000, '{"images": ' + "9" * 5000):
        (tmp_path / "annotations.json").write_text(text)
        with pytest.raises(InputError, match=r"annotations\.json: cannot be read as JSON"):
            read(tmp_path)


def test_a_rotated_ellipse_of_cvat(tmp_path):
    shape = '<ellipse label="cat" cx="20" cy="10" rx="9" ry="3" rotation="90"/>'
    images = "".join(f'<image name="{name}.jpg">{shape}</image>' for name in "ab")
    (tmp_path / "it.xml").write_text(
        f'<annotations xmlns="http://example.com">{images}</annotations>'
    )
    for name in "ab":
        save(tmp_path / f"{name}.jpg")
    (boxes,) = read(tmp_path).train.targets["boxes"]
    assert (boxes * (40, 20, 40, 20)).round(3).tolist() == [[17, 1, 23, 19]]


# --- names of classes in YOLO


def yolo(root, lines=("0 0.5 0.5 0.2 0.2", "1 0.5 0.5 0.2 0.2"), label="labels/{}.txt"):
    for k, line in enumerate(lines):
        save(root / "images" / f"{k}.jpg")
        (root / label.format(k)).parent.mkdir(parents=True, exist_ok=True)
        (root / label.format(k)).write_text(line)


def test_yaml_names_are_text(tmp_path):
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [no, 2020-13-45]\nnc: 2\ntrain: images\nval: ~\n")
    assert read(tmp_path).class_names == ("no", "2020-13-45")


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_images_outside_the_folder_of_data_yaml(tmp_path, monkeypatch, relative, lists):
    for part in ("train", "val"):
        (tmp_path / "labels" / part).mkdir(parents=True)
        for k in range(3):
            save(tmp_path / "images" / part / f"{k}.jpg")
            (tmp_path / "labels" / part / f"{k}.txt").write_text("0 0.5 0.5 0.2 0.2")
    (tmp_path / "cfg").mkdir()
    if lists:
        for part in ("train", "val"):
            lines = "".join(f"./images/{part}/{k}.jpg\n" for k in range(3))
            (tmp_path / f"{part}.txt").write_text(lines)
        text = "train: train.txt\nval: val.txt\n"
    else:
        text = "train: images/train\nval: images/val\n"
    (tmp_path / "cfg" / "data.yaml").write_text(f"path: ..\n{text}names: [cat]\n")
    monkeypatch.chdir(tmp_path / "cfg")
    data = read("." if relative else tmp_path / "cfg")
    assert [split.counts(1).tolist() for split in (data.train, data.val)] == [[3], [3]]
    assert data.notes == []
    # A file of labels without an image is named there, too.
    (tmp_path / "labels" / "val" / "9.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(InputError, match=r"val/9\.txt: there is no image for these labels"):
        read("." if relative else tmp_path / "cfg")


def test_images_to_train_on_outside_and_listed_by_absolute_paths(tmp_path, monkeypatch):
    yolo(tmp_path / "real", ["0 0.5 0.5 0.2 0.2"] * 4)
    (tmp_path / "cfg").mkdir()
    images = sorted((tmp_path / "real" / "images").iterdir())
    (tmp_path / "cfg" / "all.txt").write_text("".join(f"{file}\n" for file in images))
    (tmp_path / "cfg" / "data.yaml").write_text("names: [cat]\ntrain: all.txt\n")
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "cfg", "cfg"):
        data = read(root)
        assert len(data.train) == 3 and len(data.val) == 1 and data.notes == []
        assert data.train.counts(1).tolist() == [3]


def test_a_list_with_an_image_that_is_not_there(tmp_path):
    yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"] * 3)
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: these.txt\n")
    (tmp_path / "these.txt").write_text("images/0.jpg\nimages/9.jpg\nimages/2.jpg\n")
    with pytest.raises(InputError, match=r"these\.txt, line 2: .*--skip-bad"):
        read(tmp_path)
    assert len(read(tmp_path, skip_bad=True).skipped) == 1
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "these.txt").unlink()
    data = read(tmp_path)
    assert data.class_names == ("0",) and "nothing names the classes" in data.notes[0]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_folder_that_is_named_for_several_parts_is_taken_once(tmp_path, skip_bad):
    yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"] * 5)
    config = tmp_path / "data.yaml"
    config.write_text("names: [cat]\ntrain: images\n")
    wanted = read(tmp_path)
    (tmp_path / "again.txt").write_text("".join(f"images/{k}.jpg\n" for k in range(5)))
    for val in ("images", "./images/", "again.txt"):
        config.write_text(f"names: [cat]\ntrain: images\nval: {val}\ntest: images\n")
        data = read(tmp_path, skip_bad=skip_bad)
        assert (data.train.names, data.val.names) == (wanted.train.names, wanted.val.names)
        assert len(data.val) == 1 and data.drawn and data.test is None and not data.skipped
        assert "data.yaml: train and val are the same images, so a share of" in data.describe()
        assert "data.yaml: test and train are the same images" in data.describe()
    (tmp_path / "again.txt").write_text("images/0.jpg\nimages/3.jpg\n")
    config.write_text("names: [cat]\ntrain: images\nval: again.txt\n")
    with pytest.raises(InputError, match=r"the same image as in .*\(train and val\)"):
        read(tmp_path)


def test_names_of_classes_beside_labels(tmp_path):
    yolo(tmp_path, label="Labels/{}.TXT")
    names = tmp_path / "Labels" / "classes.txt"
    names.write_text("cat\ndog\n\n")
    assert read(tmp_path).class_names == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match=r"classes\.txt and .*classes\.txt name the classes diff"):
        read(tmp_path)
    (tmp_path / "classes.txt").unlink()
    names.write_text("cat\n\ndog\n")
    with pytest.raises(InputError, match=r"classes\.txt, line 2: empty"):
        read(tmp_path)


# --- images without objects


def test_a_drawn_validation_split_has_an_object_if_two_images_have_one(tmp_path):
    box = "0 0.5 0.5 0.2 0.2"
    yolo(tmp_path, [box] * 10)
    full = read(tmp_path)
    out = [f"{k}.jpg" for k in range(10) if f"{k}.jpg" not in full.val.names][:2]
    assert len(full.val) == 2 and "no image of val" not in full.describe()

    def read_with(*shown):
        for k in range(10):
            (tmp_path / "labels" / f"{k}.txt").write_text(box if f"{k}.jpg" in shown else "")
        data = read(tmp_path)
        assert data.val.names == sorted(data.val.names) and len(data.val) == 2
        assert data.train.names == sorted(data.train.names) and len(data.train) == 8
        return data

    data = read_with(*out)
    assert data.val.counts(1) == data.train.counts(1) == 1
    assert len(set(data.val.names) & set(full.val.names)) == 1
    assert "no image of val" not in data.describe()
    for shown in ((full.val.names[0], out[0]), full.val.names + out):
        assert read_with(*shown).val.names == full.val.names
    data = read_with(out[0])  # it is needed to train on
    assert data.val.names == full.val.names and data.train.counts(1) == 1
    assert "no image of val has an object that counts, so the mean average" in data.describe()


def test_a_given_validation_split_without_objects_is_noted(tmp_path):
    yolo(tmp_path, ["0 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.2 0.2", ""])
    (tmp_path / "train.txt").write_text("images/0.jpg\nimages/1.jpg\n")
    (tmp_path / "val.txt").write_text("images/2.jpg\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: train.txt\nval: val.txt\n")
    data = read(tmp_path)
    assert data.val.names == ["2.jpg"] and "label some of val, or move images" in data.describe()


# --- tables


def table(root, lines, head="filename,width,height,class,xmin,ymin,xmax,ymax"):
    for name in {line.split(",")[0] for line in lines}:
        save(root / name)
    (root / "boxes.csv").write_text("\n".join([head, *lines]))


def test_a_table_with_a_column_of_parts(tmp_path):
    parts = ("TRAIN", "train", "valid", "test")
    lines = [f"{k}.jpg,cat,4,2,20,10,{part}" for k, part in enumerate(parts)]
    table(tmp_path, lines, "filename,class,xmin,ymin,xmax,ymax,Split")
    splits = read(tmp_path).splits
    assert {name: split.names for name, split in splits.items()} == {
        "train": ["0.jpg", "1.jpg"],
        "val": ["2.jpg"],
        "test": ["3.jpg"],
    }
    table(
        tmp_path,
        [*lines, lines[0].replace("TRAIN", "val")],
        "filename,class,xmin,ymin,xmax,ymax,set",
    )
    with pytest.raises(InputError, match=r"line 6: .*0\.jpg is the same image .*train and val"):
        read(tmp_path)


def test_lines_of_a_table_that_cannot_be(tmp_path):
    good = f"0.jpg,{WIDTH},{HEIGHT},cat,4,2,20,10"
    for bad, message in (
        (f"0.jpg,{WIDTH * 2},{HEIGHT},cat,4,2,20,10", "width and height are not those of .*line 2"),
        (f"0.jpg,{WIDTH},{HEIGHT},cat,4,2,20", "not four numbers"),
    ):
        table(tmp_path, [good, bad, "1.jpg,,,3,4,2,20,10"])
        with pytest.raises(InputError, match=f"line 3: {message}"):
            read(tmp_path)
    table(tmp_path, ["0.jpg,,,cat,4,2,20", "1.jpg,,,cat,4,2,x,10"])  # no good line at all
    with pytest.raises(InputError, match="line 2: not four numbers"):
        read(tmp_path)
    table(tmp_path, [good], "filename,width,height,class,xmin,ymin,xmax,class")
    with pytest.raises(InputError, match="no known layout"):
        read(tmp_path)
    table(tmp_path, ["0.jpg,a,b,4,2,20,10"], "filename,class,class,xmin,ymin,xmax,ymax")
    with pytest.raises(InputError, match="line 1: the column class is there twice"):
        read(tmp_path)
    table(
        tmp_path,
        [f"{k}.jpg,a,1,4,2,20,10" for k in "01"],
        "filename,class,label,xmin,ymin,xmax,ymax",
    )
    assert "the column label is read, class is not" in read(tmp_path).notes[0]
    (tmp_path / "boxes.csv").write_text("a" * 200_000)
    with pytest.raises(InputError, match="no known layout"):
        read(tmp_path)


@pytest.mark.parametrize("sign", [";", "\t"])
def test_tables_of_spreadsheets(tmp_path, sign):
    for name in "01":
        save(tmp_path / f"{name}.jpg")
    lines = ["Filename,Width,Height,Class,xMin,yMin,xMax,yMax"]
    lines += [f"{name}.jpg,{WIDTH},{HEIGHT},cat,4,2,20,10" for name in "01"]
    (tmp_path / "boxes.csv").write_text("\ufeff" + "\n".join(lines).replace(",", sign), "utf-8")
    assert (read(tmp_path).train.targets["boxes"][0] * 40).round(3).tolist() == [[4, 4, 20, 20]]


def test_classes_that_differ_in_case_are_noted(tmp_path):
    for name in "01":
        save(tmp_path / f"{name}.jpg")
    rows = [f"{name}.jpg,{kind},4,2,20,10" for name in "01" for kind in ("cat", "Cat", "dog")]
    (tmp_path / "boxes.csv").write_text("filename,class,xmin,ymin,xmax,ymax\n" + "\n".join(rows))
    assert "classes that differ in case or blanks only: Cat, cat" in read(tmp_path).notes


def test_an_ambiguous_file_of_another_layout_is_no_hindrance(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.jpg")
        xml(tmp_path / f"{name}.xml")
        (tmp_path / f"{name}.yaml").write_text("names: [x]")
    assert len(read(tmp_path).train) == 1
    for name in "ab":
        (tmp_path / f"{name}.xml").unlink()
    with pytest.raises(InputError, match=r"which file is to be read, a\.yaml, b\.yaml\?"):
        read(tmp_path)


def test_an_unknown_layout_says_what_it_may_be_for(tmp_path):
    for name in ("ant/0.jpg", "bee/1.jpg"):
        save(tmp_path / name)
    message = r"no known layout for detection\. It holds ant/, bee/, which looks like .*classif.*"
    with pytest.raises(InputError, match=message + r"(?s:.*)YOLO: data\.yaml"):
        read(tmp_path)


def test_yolo_on_turned_images_needs_a_word(tmp_path):
    tags = Image.Exif()
    tags[EXIF_ORIENTATION] = 6
    for name in "ab":
        save(tmp_path / f"{name}.jpg", exif=tags)
        (tmp_path / f"{name}.txt").write_text("0 0.25 0.5 0.5 0.1")
    with pytest.raises(InputError, match="boxes_on"):
        read(tmp_path)
    upright = read(tmp_path, boxes_on="upright").train.targets["boxes"][0]
    np.testing.assert_allclose(upright, [[0, 0.45, 0.5, 0.55]], atol=1e-6)
    stored = read(tmp_path, boxes_on="stored").train.targets["boxes"][0]
    np.testing.assert_allclose(stored, [[0.45, 0, 0.55, 0.5]], atol=1e-6)


def test_links_are_followed_and_end(tmp_path):
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    for name in "ab":
        save(tmp_path / "pool" / f"{name}.jpg")
        xml(tmp_path / "annotations" / f"{name}.xml")
    (tmp_path / "images").symlink_to("pool")
    (tmp_path / "loop").symlink_to(".")
    data = read(tmp_path)
    assert len(data.train) == len(data.val) == 1 and data.notes == []


def test_texts_beside_images_are_not_their_labels_where_there_is_a_folder_of_labels(tmp_path):
    for name in "ab":
        save(tmp_path / "images" / f"{name}.jpg")
        (tmp_path / "images" / f"{name}.txt").write_text("a caption of the image")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2")
    assert len(read(tmp_path).train.targets["boxes"][0]) == 1


def test_a_name_is_taken_before_a_folder_of_that_name(tmp_path, monkeypatch):
    from kerascv_d2l.data import prepared

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepared, "read_prepared", lambda name, task, **options: (name, options))
    for name in ("hotdog", "mnist", "blood"):  # the first two are names of data sets
        for image in "ab":
            save(tmp_path / name / f"{image}.jpg")
            xml(tmp_path / name / f"{image}.xml")
    options = {"data_dir": None, "archive": "a.zip", "skip_bad": False}
    assert read("hotdog", archive="a.zip", classes=None) == ("hotdog", options)
    assert read("mnist")[0] == "mnist"
    for path in ("./hotdog", tmp_path / "hotdog", "./mnist", "blood", "blood/"):
        assert read(path).class_names == ("cat",)
