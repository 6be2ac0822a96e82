"""The book's Kaggle folders and the files to hand in."""

import numpy as np
import pytest

import kerascv_d2l as d2l

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar10")
    d2l.generate_kaggle(folder, "cifar10", num_train=30, num_test=12, num_classes=2)
    d2l.reorg_cifar10_data(folder, 0.2)
    return folder


def names(folder):
    return {path.name for path in folder.rglob("*.*")}


def test_as_many_of_each_class_are_set_apart(cifar10):
    labels = d2l.read_csv_labels(cifar10 / "trainLabels.csv")
    assert list(labels)[:3] == ["1", "2", "3"] and len(labels) == 30
    root = cifar10 / "train_valid_test"
    fewest = min(list(labels.values()).count(name) for name in ("star", "ring"))
    for part, total in (("valid", 2 * int(fewest * 0.2)), ("train_valid", 30), ("train", 0)):
        total = total or 30 - 2 * int(fewest * 0.2)
        assert len(names(root / part)) == total
        for path in (root / part).rglob("*.png"):
            assert path.parent.name == labels[path.stem]
            assert path.read_bytes() == (cifar10 / "train" / path.name).read_bytes()
    assert not names(root / "train") & names(root / "valid")
    assert names(root / "train") | names(root / "valid") == names(root / "train_valid")
    assert names(root / "test" / "unknown") == {f"{k}.png" for k in range(1, 13)}
    first = [k for k, name in labels.items() if name == "ring"][: int(fewest * 0.2)]
    assert names(root / "valid" / "ring") == {f"{k}.png" for k in first}  # 2 before 10


def test_another_ratio_leaves_nothing_of_the_first(cifar10, tmp_path):
    d2l.generate_kaggle(tmp_path / "k", "cifar10", num_train=30, num_test=2, num_classes=2)
    labels = d2l.read_csv_labels(tmp_path / "k" / "trainLabels.csv")
    most = d2l.reorg_train_valid(tmp_path / "k", labels, 0.5)
    least = d2l.reorg_train_valid(tmp_path / "k", labels, 0.01)
    assert most > least == 1
    root = tmp_path / "k" / "train_valid_test"
    assert len(names(root / "valid")) == 2 and len(names(root / "train")) == 28


def test_load_reads_the_folder_with_images_to_predict(cifar10):
    data = d2l.load(cifar10 / "train_valid_test", "classification")
    assert data.class_names == ("ring", "star")
    assert len(data.test) == 12 and data.test.task == "unlabelled"
    assert "test: 12 images" in data.describe()
    (images,) = d2l.batches(data.test, (32, 32), 12, crop_pct=1)
    assert images.shape == (12, 32, 32, 3)
    k = data.test.names.index("10.png")
    np.testing.assert_array_equal(images[k], d2l.read_image(cifar10 / "test" / "10.png"))
    both = data.train.joined(data.val)
    assert len(both) == 30 and both.names[-len(data.val) :] == data.val.names
    np.testing.assert_array_equal(
        both.targets["label"], [*data.train.targets["label"], *data.val.targets["label"]]
    )


def test_a_test_set_with_labels_is_still_validated_on(tmp_path):
    for part in ("train", "test"):
        for name in ("unknown", "star"):
            d2l.generate_kaggle(tmp_path / "x" / part / name, "cifar10", num_train=1, num_test=1)
            (tmp_path / part / name).mkdir(parents=True)
            file = tmp_path / "x" / part / name / "train" / "1.png"
            file.rename(tmp_path / part / name / f"{part}{name}.png")
    data = d2l.load(tmp_path, "classification")
    assert data.test is None and len(data.val) == 2


def test_submissions_are_in_kaggles_order(tmp_path):
    path = tmp_path / "submission.csv"
    d2l.write_submission(path, ["10.png", "2.png", "1.png"], np.array([0, 1, 1]), ("a", "b"))
    assert path.read_text() == "id,label\n1,b\n2,b\n10,a\n"
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    d2l.write_submission(path, ["f1.jpg", "0e.jpg"], probabilities, ("a, b", "c"))
    assert path.read_text() == 'id,"a, b",c\n0e,0.5,0.5\nf1,0.25,0.75\n'
    with pytest.raises(d2l.InputError, match=r"predictions are \(2, 3\)"):
        d2l.write_submission(path, ["1", "2"], np.zeros((2, 3)), ("a", "b"))


def test_dogs_have_names_of_hexadecimal_digits(tmp_path):
    d2l.generate_kaggle(tmp_path, "dog", num_train=12, num_test=3, num_classes=2, image_size=40)
    d2l.reorg_dog_data(tmp_path, 0.1)
    data = d2l.load(tmp_path / "train_valid_test", "classification")
    assert (len(data.train), len(data.val), len(data.test)) == (10, 2, 3)
    assert all(len(name) == 36 and name.endswith(".jpg") for name in data.test.names)
    assert (tmp_path / "labels.csv").read_text().startswith("id,breed\n")


def test_errors_say_what_to_do(cifar10, tmp_path):
    with pytest.raises(d2l.InputError, match="unpack"):
        d2l.reorg_test(tmp_path)
    with pytest.raises(d2l.InputError, match="valid_ratio is 1"):
        d2l.reorg_train_valid(cifar10, {}, 1)
    with pytest.raises(d2l.InputError, match="without a label"):
        d2l.reorg_train_valid(cifar10, {"1": "star"}, 0.1)
    with pytest.raises(d2l.InputError, match="holds something"):
        d2l.generate_kaggle(cifar10, "cifar10")
    (tmp_path / "labels.csv").write_text("id,breed\na,b\na,b\n")
    with pytest.raises(d2l.InputError, match="line 3"):
        d2l.read_csv_labels(tmp_path / "labels.csv")
