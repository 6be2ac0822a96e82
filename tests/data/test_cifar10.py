"""CIFAR-10 from each place it can come from; the archives here are small ones in its layout."""

import os
import pickle
import tarfile

import fake_archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kerascv_d2l import InputError, load_cifar10, read_cifar10

NAMES = [f"class{k}" for k in range(10)]
ROWS = 4  # pictures in a batch file


def picture(index):
    """uint8 (32, 32, 3): no two rows, columns or channels are alike."""
    return fake_archives.picture(index, 32, 32)


def label(index):
    return index * 3 % 10


def flat(index):
    """The 3072 numbers of a picture as the archives have them, channels first."""
    return picture(index).transpose(2, 0, 1).reshape(-1)


def write_binary(folder):
    folder.mkdir()
    for i in range(6):
        rows = range(ROWS * i, ROWS * (i + 1))
        content = b"".join(bytes([label(k)]) + flat(k).tobytes() for k in rows)
        name = f"data_batch_{i + 1}.bin" if i < 5 else "test_batch.bin"
        (folder / name).write_bytes(content)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def write_python(folder):
    folder.mkdir()
    for i in range(6):
        rows = range(ROWS * i, ROWS * (i + 1))
        batch = {"data": np.stack([flat(k) for k in rows]), "labels": [label(k) for k in rows]}
        name = f"data_batch_{i + 1}" if i < 5 else "test_batch"
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}, protocol=2))
    return folder


def packed(folder):
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "cifar-10-batches")
    return path


@pytest.mark.quick
@pytest.mark.parametrize("write", [write_binary, write_python])
@pytest.mark.parametrize("pack", [False, True])
def test_archives(tmp_path, write, pack):
    path = write(tmp_path / "cifar")
    data = read_cifar10("cifar10", archive=packed(path) if pack else tmp_path)
    assert data.class_names == tuple(NAMES) and str(tmp_path) in data.describe()
    assert (len(data.train), len(data.val)) == (5 * ROWS, ROWS)
    for split, first in ((data.train, 0), (data.val, 5 * ROWS)):
        assert split.images.dtype == np.uint8
        for k, (image, row) in enumerate(zip(split.images, split.labels, strict=True), start=first):
            np.testing.assert_array_equal(image, picture(k))
            assert row == label(k)


@pytest.mark.quick
def test_archives_that_are_something_else(tmp_path):
    with pytest.raises(InputError, match="no such file or folder; give cifar-10-binary"):
        read_cifar10(archive=tmp_path / "nowhere.tar.gz")
    with pytest.raises(InputError, match="neither cifar-10-binary"):
        read_cifar10(archive=tmp_path)
    (tmp_path / "text.tar.gz").write_text("no archive")
    with pytest.raises(InputError, match="no tar file, or damaged"):
        read_cifar10(archive=tmp_path / "text.tar.gz")
    path = write_binary(tmp_path / "binary")
    whole = packed(path).read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no tar file, or damaged"):
        read_cifar10(archive=tmp_path / "half.tar.gz")
    batch = path / "data_batch_3.bin"
    good = batch.read_bytes()
    batch.write_bytes(good[:-1])
    with pytest.raises(InputError, match=r"data_batch_3\.bin: 12291 bytes are no rows of 3073"):
        read_cifar10(archive=path)
    batch.write_bytes(b"\x0a" + good[1:])
    with pytest.raises(InputError, match=r"data_batch_3\.bin: labels .* to 10; wanted 0 to 9"):
        read_cifar10(archive=path)
    batch.write_bytes(good)
    (path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="2 class names; wanted 10"):
        read_cifar10(archive=path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.quick
def test_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_python(tmp_path / "python")
    (path / "data_batch_2").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(InputError, match=r"data_batch_2: asks for .*system"):
        read_cifar10(archive=path)
    assert not (tmp_path / "evil").exists()
    (path / "data_batch_2").write_bytes(b"no pickle")
    with pytest.raises(InputError, match="data_batch_2: damaged or something else"):
        read_cifar10(archive=path)


class TinyCifar(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Ten pictures a split with the features of TFDS' cifar10."""

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
            yield i, {"id": str(i), "image": picture(start + i), "label": i}


def collect(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_prepared_by_tfds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: TinyCifar(data_dir=data_dir))
    train = load_cifar10(True, None, 4, data="cifar10", data_dir=tmp_path, seed=3)
    assert "downloading 170 MB" in capsys.readouterr().out
    images, labels = collect(train)
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert sorted(labels.tolist()) == list(range(10))
    for image, row in zip(images, labels, strict=True):
        np.testing.assert_array_equal(image, picture(row))
    assert [len(batch[1]) for batch in train] == [4, 4, 2]
    assert collect(train)[1].tolist() != labels.tolist()  # shuffled anew
    assert int(train.cardinality()) == 3

    # Now that it is there, it is what is taken without a word about what to take.
    test = load_cifar10(False, lambda x: x[:, :, ::-1] // 2, 4, data_dir=tmp_path)
    out = capsys.readouterr().out
    assert "downloading" not in out and str(tmp_path) in out
    images, labels = collect(test)
    assert labels.tolist() == collect(test)[1].tolist()
    for image, row in zip(images, labels, strict=True):
        np.testing.assert_array_equal(image, picture(100 + row)[:, ::-1] // 2)


def test_without_a_network(tmp_path, monkeypatch, capsys):
    def download(*_):
        raise ConnectionError("host not found")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download)
    with pytest.raises(InputError, match=r"cifar10 is not prepared in .*host not found"):
        read_cifar10("cifar10", data_dir=tmp_path)
    capsys.readouterr()
    # Nobody asked for a download: shapes.
    batches = load_cifar10(False, None, 200, data_dir=tmp_path)
    assert "generated shapes" in capsys.readouterr().out
    assert [len(labels) for _, labels in batches] == [200, 200, 100]


def test_folder(tmp_path):
    for split, sizes in (("train", [(32, 32), (32, 32), (48, 20)]), ("test", [(32, 32)])):
        for k, name in enumerate(("ash", "birch")):
            (tmp_path / split / name).mkdir(parents=True)
            for i, (height, width) in enumerate(sizes):
                pixels = fake_archives.picture(10 * k + i, height, width)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    data = read_cifar10(str(tmp_path))
    assert data.class_names == ("ash", "birch")
    assert data.train.images.shape == (6, 32, 32, 3) and data.train.images.dtype == np.uint8
    np.testing.assert_array_equal(data.train.images[3], picture(10))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.sizes.tolist()[2] == [48, 20]  # as it was
    with pytest.raises(InputError, match=r"nowhere' is neither a folder nor a data set"):
        read_cifar10(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="archive and data_dir are for cifar10"):
        read_cifar10("generated", archive=tmp_path)


def test_generated_take_learning():
    """Ten classes about equally often, which a linear classifier tells apart badly."""
    data = read_cifar10("generated", seed=4, num_train=700, num_val=300)
    assert len(data.class_names) == 10 and data.train.images.shape == (700, 32, 32, 3)
    assert np.bincount(data.train.labels, minlength=10).min() > 40
    # Least squares on a coarser view of the pictures, with a bias and some decay.
    views = []
    for split in (data.train, data.val):
        coarse = split.images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)) / 255  # (n, 8, 8, 3)
        ones = np.ones((len(split), 1))
        views.append(np.hstack([coarse.reshape(len(split), -1), ones]))
    a, wanted = views[0], np.eye(10)[data.train.labels]
    weights = np.linalg.solve(a.T @ a + 5 * np.eye(a.shape[1]), a.T @ wanted)
    accuracy = np.mean((views[1] @ weights).argmax(1) == data.val.labels)
    assert accuracy < 0.45  # a network ends at twice that: README.md
    again = read_cifar10("generated", seed=4, num_train=20, num_val=10)
    np.testing.assert_array_equal(again.train.images, data.train.images[:20])


@pytest.mark.quick
def test_batch_size_must_be_positive():
    with pytest.raises(InputError, match="`batch_size` must be at least 1, got 0"):
        load_cifar10(True, None, 0)
