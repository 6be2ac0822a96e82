"""Class folders: what is read, and what is refused by name."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError, load

pytestmark = pytest.mark.quick


def read(folder, skip_bad=False, **options):
    return load(folder, "classification", skip_bad=skip_bad, **options)


def save(path, height=20, width=30, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes, named so that sorting matters, and images of several kinds."""
    exif = Image.Exif()
    exif[0x0112] = 6  # stored sideways
    for split in ("train", "val"):
        save(tmp_path / split / "wasp" / "a.png")
        save(tmp_path / split / "wasp" / "b.gif", 22, 33)
        save(tmp_path / split / "ant" / "a.jpg", 40, 50, exif=exif)
    save(tmp_path / "train" / "ant" / "b.bmp")
    (tmp_path / "train" / ".DS_Store").touch()
    (tmp_path / "train" / "ant" / "Thumbs.db").touch()
    return tmp_path


def test_reads_classes_sorted_by_name(folder):
    data = read(folder)
    assert data.class_names == ("ant", "wasp")
    assert data.train.names == ["ant/a.jpg", "ant/b.bmp", "wasp/a.png", "wasp/b.gif"]
    labels = [split.targets["label"].tolist() for split in (data.train, data.val)]
    assert labels == [[0, 0, 1, 1], [0, 1, 1]]
    assert data.val.sizes.tolist() == [[50, 40], [20, 30], [22, 33]]  # upright
    assert data.val.plain.tolist() == [False, True, False]
    assert all(path.startswith(str(folder)) for path in data.train.images)
    text = data.describe()
    assert "2 ant, 2 wasp" in text and "20-50 x 30-40 pixels" in text and "left out" not in text


def test_test_folder_serves_and_archives_may_be_wrapped(folder, tmp_path_factory):
    (folder / "val").rename(folder / "test")
    outer = tmp_path_factory.mktemp("outer")
    (outer / "bees").mkdir()
    folder.rename(outer / "bees" / "data")
    data = read(outer)
    assert len(data.val) == 3 and data.test is None
    assert data.notes == ["test/ is what is validated on"]


@pytest.mark.parametrize(
    "names", [("Training", "validation", "Testing"), ("train_set", "valid", "test_images")]
)
def test_other_names_of_parts_and_a_test_part(folder, names):
    for split in ("a", "b"):
        save(folder / "test" / "wasp" / f"{split}.jpg", 30 + len(split))
    for old, new in zip(("train", "val", "test"), names, strict=True):
        (folder / old).rename(folder / new)
    data = read(folder)
    assert [len(split) for split in data.splits.values()] == [4, 3, 2]
    assert data.test.targets["label"].tolist() == [1, 1]


def flat(root, counts, ending="png"):
    for name, count in counts.items():
        for k in range(count):
            save(root / name / f"{k}.{ending}", 20 + k)
    return root


def test_a_share_of_each_class_is_set_apart(tmp_path):
    flat(tmp_path, {"train": 10, "tram": 20, "car": 1})  # a class may be called train
    (tmp_path / "README.txt").write_text("x")
    (tmp_path / "__MACOSX" / "tram").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "tram" / "._0.png").write_bytes(b"no image")
    data = read(tmp_path)
    assert data.class_names == ("car", "train", "tram")
    assert data.train.counts(3).tolist() == [1, 8, 16]
    assert data.val.counts(3).tolist() == [0, 2, 4]
    assert not set(data.train.names) & set(data.val.names)
    assert read(tmp_path, val_fraction=0.5).val.counts(3).tolist() == [0, 5, 10]
    assert read(tmp_path, seed=1).val.names != data.val.names == read(tmp_path).val.names
    with pytest.raises(InputError, match="no class has more than one image, so that"):
        read(flat(tmp_path / "single", {"a": 1, "b": 1, "c": 1}))
    shutil.rmtree(tmp_path / "single")
    # One bad file of a class does not end the run.
    (tmp_path / "train" / "3.png").write_text("no image")
    assert read(tmp_path, skip_bad=True).train.counts(3)[1] == 7


def test_classes_called_as_folders_of_other_layouts(tmp_path):
    flat(tmp_path / "flat", {"masks": 5, "nomasks": 5, "wrong": 5})
    assert read(tmp_path / "flat").class_names == ("masks", "nomasks", "wrong")
    flat(tmp_path / "two", {"masks": 5, "no_masks": 5})
    assert read(tmp_path / "two").class_names == ("masks", "no_masks")
    flat(tmp_path / "parts" / "train", {"labels": 5, "Images": 5, "wrong": 5, "none": 5})
    flat(tmp_path / "parts" / "val", {"labels": 2, "wrong": 2})  # as many images as masks
    data = read(tmp_path / "parts")
    assert data.class_names == ("Images", "labels", "none", "wrong")
    assert data.val.counts(4).tolist() == [0, 2, 0, 2]


def test_lists_of_parts_beside_the_classes(tmp_path):
    flat(tmp_path, {"ant": 4, "bee": 4})
    lists = {"train": ["ant/0.png", "ant/3", "bee/1.png"], "val": ["./ant/1.png", "bee/0.png"]}
    for part, names in lists.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(names))
    data = read(tmp_path)
    assert data.train.names == ["ant/0.png", "ant/3.png", "bee/1.png"]
    assert data.val.names == ["ant/1.png", "bee/0.png"]
    assert data.notes == [
        "3 labelled image(s) are in none of train.txt, val.txt, and are not read: ant/2.png, "
        "bee/2.png, bee/3.png"
    ]
    (tmp_path / "val.txt").write_text("cat/9.png")
    with pytest.raises(InputError, match=r"val\.txt, line 1: 'cat/9\.png' has no labels"):
        read(tmp_path)


def test_folders_of_other_layouts_are_no_classes(tmp_path):
    flat(tmp_path / "flat", {"ant": 5, "bee": 5})
    (tmp_path / "flat" / "annotations").mkdir()
    (tmp_path / "flat" / "annotations" / "0.xml").write_text("<a/>")
    data = read(tmp_path / "flat")
    assert data.class_names == ("ant", "bee")
    assert any("annotations/ is not read" in note for note in data.notes)
    flat(tmp_path / "masks", {"photos": 5, "masks": 5})
    with pytest.raises(InputError, match=r"no known layout .*looks like images and masks"):
        read(tmp_path / "masks")
    flat(tmp_path / "both" / "train", {"images": 5, "masks": 5})
    with pytest.raises(InputError, match=r"no known layout .*looks like images and masks"):
        read(tmp_path / "both")


def test_images_that_use_some_of_their_bits_are_noted(tmp_path):
    """As those of cameras with 12 bits, saved in 16: nearly black where 65535 is white."""
    for most, noted in ((4080, True), (65535, False)):
        root = tmp_path / str(most)
        for k in range(6):
            (root / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
            pixels = (np.eye(8, 9) * most * (k + 1) / 6).astype(np.uint16)
            Image.fromarray(pixels).save(root / "ab"[k % 2] / f"{k}.png")
        text = read(root).describe()
        assert ("no pixel of any image is brighter than 16 of 255" in text) == noted


def test_some_images_of_a_split_are_of_all_classes(folder):
    split = read(folder).train
    assert split.spread(2).names == ["ant/a.jpg", "wasp/b.gif"]
    assert split.spread(3).targets["label"].tolist() == [0, 0, 1]
    assert split.spread(9).names == split.names
    assert len(split.spread(0)) == 0


def test_a_training_part_alone_is_split(folder):
    for child in (folder / "val").rglob("*"):
        if child.is_file():
            child.rename(folder / "train" / child.parent.name / f"v{child.name}")
    (folder / "val").rename(folder / "test")
    for child in (folder / "test").iterdir():
        child.rmdir()
    save(folder / "test" / "1.png")  # of unknown class, as in contests
    data = read(folder)
    assert len(data.train) + len(data.val) == 7 and data.test is None
    assert data.notes == ["test/ is not read: it has no folders of classes"]


def rename_class(folder):
    (folder / "val" / "wasp").rename(folder / "val" / "bee")


def empty_class(folder, part="train"):
    for file in (folder / part / "ant").iterdir():
        file.unlink()


def remove_split(folder):
    (folder / "val").rename(folder / "valuable")


def remove_train(folder):
    (folder / "train").rename(folder / "trains")


def keep_one_class(folder):
    for split in ("train", "val"):
        (folder / split / "wasp").rename(folder / f"{split}-wasp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_class, r"train: no folder for bee, which .*val has. It has ant, wasp"),
        (empty_class, r"train/ant: no image"),
        (remove_split, r"neither val/ nor test/ to validate on. It holds train/, valuable/"),
        (remove_train, r"no known layout for classification. It holds trains/, val/"),
        (keep_one_class, r"train: 1 class folder\(s\) \(ant\); a classifier needs at least 2"),
    ],
)
def test_other_layouts_are_refused(folder, change, message):
    change(folder)
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=message):
            read(folder, skip_bad)


def test_a_class_without_an_image_to_validate_on(folder):
    """As where a split is drawn: it is trained on, and nothing is measured for it."""
    empty_class(folder, "val")
    empty = read(folder)
    (folder / "val" / "ant").rmdir()
    for data in (empty, read(folder)):
        assert list(data.class_names) == ["ant", "wasp"]
        assert set(data.val.targets["label"].tolist()) == {1}
        assert set(data.train.targets["label"].tolist()) == {0, 1}
        assert data.notes == ["val/ has no image of ant: nothing is measured for it"]


def stray_file(folder):
    save(folder / "train" / "new.png")
    return r"train/new.png: an image beside the folders of classes"


def stray_text(folder):
    (folder / "train" / "ant" / "notes.txt").write_text("text")
    return r"train/ant/notes.txt: not an image.*b'text'"


def stray_folder(folder):
    (folder / "val" / "wasp" / "more").mkdir()
    return r"val/wasp/more: a folder among the images of a class"


def truncated(folder):
    file = folder / "train" / "ant" / "a.jpg"
    file.write_bytes(file.read_bytes()[:400])
    return r"train/ant/a.jpg: damaged or truncated"


@pytest.mark.parametrize("spoil", [stray_file, stray_text, stray_folder, truncated])
def test_bad_files_are_named_or_counted(folder, spoil):
    message = spoil(folder)
    with pytest.raises(InputError, match=message):
        read(folder)
    data = read(folder, skip_bad=True)
    (reason,) = data.train.skipped + data.val.skipped
    assert reason.startswith(str(folder)) and "left out: 1" in data.describe()
    assert len(data.train) == (3 if spoil is truncated else 4) and len(data.val) == 3


def test_no_folder_at_all(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        read(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file, where the folder"):
        read(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty folder"):
        read(tmp_path / "empty")


def test_names_that_are_not_utf8(folder):
    content = (folder / "train" / "wasp" / "a.png").read_bytes()
    with open(os.fsencode(folder / "train" / "wasp") + b"/caf\xe9.png", "wb") as stream:
        stream.write(content)
    with pytest.raises(InputError, match=r"b'caf\\xe9.png' is not UTF-8"):
        read(folder)


def test_folders_of_other_tasks_are_no_classes(tmp_path):
    flat(tmp_path, {"images": 2, "masks": 2})
    with pytest.raises(InputError, match=r"looks like images and masks \(segmentation\)"):
        read(tmp_path)


def test_photographs(tmp_path):
    (tmp_path / "more/.hidden").mkdir(parents=True)
    for name, size in (("b.png", (20, 30)), ("more/a.JPG", (9, 8)), (".c.png", (4, 4))):
        save(tmp_path / name, *size)
    save(tmp_path / "more/.hidden/d.png")
    (tmp_path / "notes.txt").write_text("no image")
    data = load(tmp_path, "unlabelled")
    assert data.train.names == ["b.png", "more/a.JPG"] and data.train.task == "unlabelled"
    np.testing.assert_array_equal(data.train.sizes, [[20, 30], [9, 8]])
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match=r"a\.png: not an image"):
        load(tmp_path, "unlabelled")
    data = load(tmp_path, "unlabelled", skip_bad=True)
    assert data.train.names == ["b.png", "more/a.JPG"] and len(data.skipped) == 1
