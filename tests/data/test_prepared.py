"""Prepared data sets read into memory, and CIFAR-10 from its archive."""

import tarfile

import fake_archives
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from kerascv_d2l import InputError, load, read_prepared

NAMES = [f"class{k}" for k in range(10)]
ROWS = 4  # images in a batch file


def stored_image(index):
    """uint8 (32, 32, 3): no two rows, columns or channels are alike."""
    return fake_archives.random_image(index, 32, 32)


def label(index):
    return index * 3 % 10


def flat(index):
    """The 3072 numbers of an image as the archives have them, channels first."""
    return stored_image(index).transpose(2, 0, 1).reshape(-1)


def write_binary(folder):
    folder.mkdir()
    for i in range(6):
        rows = range(ROWS * i, ROWS * (i + 1))
        content = b"".join(bytes([label(k)]) + flat(k).tobytes() for k in rows)
        name = f"data_batch_{i + 1}.bin" if i < 5 else "test_batch.bin"
        (folder / name).write_bytes(content)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def packed(folder):
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "cifar-10-batches")
    return path


def read_cifar(archive):
    return read_prepared("cifar10", "classification", archive=archive)


@pytest.mark.quick
@pytest.mark.parametrize("pack", [False, True])
def test_cifar10_archives(tmp_path, pack):
    path = write_binary(tmp_path / "cifar")
    data = read_cifar(packed(path) if pack else tmp_path)
    assert data.class_names == tuple(NAMES) and str(tmp_path) in data.describe()
    assert (len(data.train), len(data.val)) == (5 * ROWS, ROWS)
    for split, first in ((data.train, 0), (data.val, 5 * ROWS)):
        assert split.images.dtype == np.uint8
        labels = split.targets["label"]
        for k, (image, row) in enumerate(zip(split.images, labels, strict=True), start=first):
            np.testing.assert_array_equal(image, stored_image(k))
            assert row == label(k)


@pytest.mark.quick
def test_archives_that_are_something_else(tmp_path):
    with pytest.raises(InputError, match="no such file or folder; give cifar-10-binary"):
        read_cifar(tmp_path / "nowhere.tar.gz")
    with pytest.raises(InputError, match=r"no data_batch_1\.bin in it; wanted cifar-10-binary"):
        read_cifar(tmp_path)
    (tmp_path / "text.tar.gz").write_text("no archive")
    with pytest.raises(InputError, match="no tar file, or damaged"):
        read_cifar(tmp_path / "text.tar.gz")
    path = write_binary(tmp_path / "binary")
    whole = packed(path).read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no tar file, or damaged"):
        read_cifar(tmp_path / "half.tar.gz")
    batch = path / "data_batch_3.bin"
    good = batch.read_bytes()
    batch.write_bytes(good[:-1])
    with pytest.raises(InputError, match=r"data_batch_3\.bin: 12291 bytes are no rows of 3073"):
        read_cifar(path)
    batch.write_bytes(b"\x0a" + good[1:])
    with pytest.raises(InputError, match=r"data_batch_3\.bin: labels .* to 10; wanted 0 to 9"):
        read_cifar(path)
    batch.write_bytes(good)
    (path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="2 class names; wanted 10"):
        read_cifar(path)


class TinyCifar(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Ten images a split with the features of TFDS' cifar10."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=NAMES),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(100)}

    def _generate_examples(self, start):
        for i in range(10):
            yield i, {"id": str(i), "image": stored_image(start + i), "label": i}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for files in (
        fake_archives.bananas(bad=False),
        fake_archives.hotdogs(bad=False),
        fake_archives.voc(bad=False),
    ):
        fake_archives.write(files, folder)
    for name, task in (
        ("banana_detection", "detection"),
        ("hotdog", "classification"),
        ("voc2012_segmentation", "segmentation"),
    ):
        read_prepared(name, task, data_dir=folder / "tfds", archive=folder)
    return folder / "tfds"


def test_cifar10_of_tfds(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: TinyCifar(data_dir=data_dir))
    data = read_prepared("cifar10", "classification", data_dir=tmp_path)
    assert data.train.images.shape == (10, 32, 32, 3) and data.train.images.dtype == np.uint8
    for image, row in zip(data.train.images, data.train.targets["label"], strict=True):
        np.testing.assert_array_equal(image, stored_image(row))
    with pytest.raises(InputError, match="archive and skip_bad are for banana_detection"):
        read_prepared("cifar10", "classification", data_dir=tmp_path, skip_bad=True)


def test_bananas(data_dir):
    data = read_prepared("banana_detection", "detection", data_dir=data_dir)
    assert data.class_names == ("banana",) and len(data.train) == 5 and len(data.val) == 2
    assert "banana_detection 1.0.0" in data.describe()
    for split, start in ((data.train, 0), (data.val, 50)):
        for k, name in enumerate(split.names):
            i = int(name.removesuffix(".png"))
            size = fake_archives.ODD_SIZE if (start, i) == (0, 1) else (256, 256)
            assert split.sizes[k].tolist() == list(size)
            wanted = fake_archives.random_image(start + i, *size)
            np.testing.assert_array_equal(tf.io.decode_png(split.images[k]), wanted)
            box = np.array([10 + i, 20 + i, 60 + i, 120 + i]) / [*size[::-1], *size[::-1]]
            np.testing.assert_allclose(split.targets["boxes"][k], [box], rtol=1e-6)
            assert split.targets["classes"][k].tolist() == [0]
    with pytest.raises(InputError, match="banana_detection: not for classification"):
        read_prepared("banana_detection", "classification", data_dir=data_dir)
    assert read_prepared("banana_detection", "unlabelled", data_dir=data_dir).task == "unlabelled"


def test_boxes_of_voc_at_full_size(data_dir):
    data = read_prepared("voc2012_segmentation", "detection", data_dir=data_dir)
    assert data.class_names[15] == "potted plant"
    assert isinstance(data.train.images[0], bytes)  # as they were in the archive
    sizes = sorted(map(tuple, data.train.sizes.tolist()))
    assert sizes == sorted([fake_archives.ODD_SIZE] + [(150, 200)] * 5)
    assert all(rows.tolist() == [15, 14] for rows in data.train.targets["classes"])
    # The person is difficult.
    assert all(rows.tolist() == [False, True] for rows in data.train.targets["ignore"])
    assert "6 objects, 6 ignored" in data.describe()
    with pytest.raises(InputError, match="hotdog: not for detection"):
        read_prepared("hotdog", "detection", data_dir=data_dir)


def test_masks_of_voc(data_dir):
    data = read_prepared("voc2012_segmentation", "segmentation", data_dir=data_dir)
    for k, name in enumerate(data.val.names):
        number = int(name.removesuffix(".jpg").removeprefix("2007_"))
        np.testing.assert_array_equal(
            data.val.mask(k), fake_archives.voc_mask(number, *data.val.sizes[k])
        )
    with pytest.raises(InputError, match="hotdog: no data set for segmentation"):
        read_prepared("hotdog", "segmentation", data_dir=data_dir)


def test_hot_dogs(data_dir):
    data = read_prepared("hotdog", "classification", data_dir=data_dir)
    assert data.class_names == ("hotdog", "not-hotdog")
    labels = data.train.targets["label"]
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4 and len(data.val) == 8
    for name, row in zip(data.train.names, labels, strict=True):
        assert name.startswith(data.class_names[row] + "/")
    heights = [tf.io.decode_image(content).shape[0] for content in data.val.images]
    assert data.val.sizes[:, 0].tolist() == heights


def test_what_was_left_out_is_said_each_time(tmp_path):
    fake_archives.write(fake_archives.voc(), tmp_path / "data")
    for _ in range(2):
        data = read_prepared(
            "voc2012_segmentation",
            "detection",
            data_dir=tmp_path / "tfds",
            archive=tmp_path / "data",
            skip_bad=True,
        )
        assert len(data.train) == 5 and "2007_000002.jpg" in data.skipped[0]
        assert "left out: 1" in data.describe()


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classification", {"classes": ["a", "b"]}),
        ("segmentation", {"ignore": ["a"]}),
        ("detection", {"boxes_on": "upright"}),
    ],
)
def test_options_of_folders_are_refused(task, options):
    (name,) = options
    with pytest.raises(InputError, match=f"unknown option {name} for hotdog, a prepared data set"):
        load("hotdog", task, **options)
