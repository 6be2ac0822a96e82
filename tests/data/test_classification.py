"""Class folders: what is read, and what is refused by name."""

import numpy as np
import pytest
from PIL import Image

import kerascv_d2l
from kerascv_d2l import InputError, read_classification_folder
from kerascv_d2l.data.classification import ClassificationSplit

pytestmark = pytest.mark.quick


def save(path, height=20, width=30, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes, named so that sorting matters, and pictures of several kinds."""
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
    data = read_classification_folder(folder)
    assert data.class_names == ("ant", "wasp")
    assert data.train.names == ["ant/a.jpg", "ant/b.bmp", "wasp/a.png", "wasp/b.gif"]
    assert data.train.labels.tolist() == [0, 0, 1, 1] and data.val.labels.tolist() == [0, 1, 1]
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
    data = read_classification_folder(outer)
    assert len(data.val) == 3 and "test/ to test" in data.source


def rename_class(folder):
    (folder / "val" / "wasp").rename(folder / "val" / "bee")


def remove_pictures(folder):
    for file in (folder / "val" / "ant").iterdir():
        file.unlink()


def remove_split(folder):
    (folder / "val").rename(folder / "valid")


def remove_train(folder):
    (folder / "train").rename(folder / "training")


def keep_one_class(folder):
    for split in ("train", "val"):
        (folder / split / "wasp").rename(folder / f"{split}-wasp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_class, r"val: no folder for wasp, which .*train has.*has ant, bee"),
        (remove_pictures, r"val/ant: no picture"),
        (remove_split, r"neither val/ nor test/ to test on. It holds train/, valid/"),
        (remove_train, r"no folder train/ in it. It holds training/, val/"),
        (keep_one_class, r"train: 1 class folder\(s\) \(ant\); a classifier needs at least 2"),
    ],
)
def test_other_layouts_are_refused(folder, change, message):
    change(folder)
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=message):
            read_classification_folder(folder, skip_bad)


def stray_file(folder):
    (folder / "train" / "notes.txt").write_text("x")
    return r"train/notes.txt: a file, where only folders of classes belong"


def stray_text(folder):
    (folder / "train" / "ant" / "notes.txt").write_text("text")
    return r"train/ant/notes.txt: not a picture.*b'text'"


def stray_folder(folder):
    (folder / "val" / "wasp" / "more").mkdir()
    return r"val/wasp/more: a folder among the pictures of a class"


def truncated(folder):
    file = folder / "train" / "ant" / "a.jpg"
    file.write_bytes(file.read_bytes()[:400])
    return r"train/ant/a.jpg: damaged or truncated"


@pytest.mark.parametrize("spoil", [stray_file, stray_text, stray_folder, truncated])
def test_bad_files_are_named_or_counted(folder, spoil):
    message = spoil(folder)
    with pytest.raises(InputError, match=message):
        read_classification_folder(folder)
    data = read_classification_folder(folder, skip_bad=True)
    (reason,) = data.train.skipped + data.val.skipped
    assert reason.startswith(str(folder)) and "left out: 1" in data.describe()
    assert len(data.train) == (3 if spoil is truncated else 4) and len(data.val) == 3


def test_no_folder_at_all(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        read_classification_folder(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file, where the folder"):
        read_classification_folder(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="It holds nothing"):
        read_classification_folder(tmp_path / "empty")


def test_splits_are_checked():
    images = np.zeros((3, 4, 6, 3), np.uint8)
    with pytest.raises(InputError, match=r"as many of each, not .*'labels': 2"):
        ClassificationSplit(images, [0, 1], ["a", "b", "c"])
    with pytest.raises(InputError, match="class -1"):
        ClassificationSplit(images, [0, 1, -1], ["a", "b", "c"])
    split = ClassificationSplit(images, [0, 1, 2], ["a", "b", "c"])
    with pytest.raises(InputError, match="class 2 among the labels, but there are 2"):
        kerascv_d2l.ClassificationData(["x", "y"], split, split, "here")
    with pytest.raises(InputError, match="here: no test picture"):
        kerascv_d2l.ClassificationData(["x", "y", "z"], split, split.subset([]), "here")


def test_subset_keeps_what_belongs_together(folder):
    split = read_classification_folder(folder).train
    part = split.subset([3, 0])
    assert part.names == ["wasp/b.gif", "ant/a.jpg"] and part.labels.tolist() == [1, 0]
    assert part.images == [split.images[3], split.images[0]]
    assert part.sizes.tolist() == [[22, 33], [50, 40]] and part.plain.tolist() == [False, False]


def test_generated_pictures():
    data = kerascv_d2l.generate_classification(30, 10, 1, num_classes=3, image_size=(40, 48))
    assert data.train.images.shape == (30, 40, 48, 3) and set(data.train.labels) == {0, 1, 2}
    again = kerascv_d2l.generate_classification(5, 5, 1, num_classes=3, image_size=(40, 48))
    np.testing.assert_array_equal(again.train.images, data.train.images[:5])
    np.testing.assert_array_equal(again.train.labels, data.train.labels[:5])
    assert not np.array_equal(again.val.images, again.train.images)
    with pytest.raises(InputError, match="num_classes is 1"):
        kerascv_d2l.generate_classification(num_classes=1)
