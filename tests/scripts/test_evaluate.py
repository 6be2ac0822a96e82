"""`scripts/evaluate.py` with stand-ins for models and data, and once with real ones."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_networks import small_backbone

import kerascv_d2l.data.load
import kerascv_d2l.export
from kerascv_d2l import FCN, InputError, Segmenter, evaluate_segmentation
from kerascv_d2l.data.splits import DataSet, Split, encode_mask
from kerascv_d2l.export import LoadedModel
from kerascv_d2l.ops.rle import encode_masks

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate.py"
MODEL_NAMES = ("dog", "cat $x$", "ant")
DATA_NAMES = ("ant", "dog", "cat $x$")  # another order: class k of the data is ORDER[k]
ORDER = np.array([2, 0, 1])


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("evaluate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def use(monkeypatch):
    """Let the script load this model and these data."""

    def fake(task, function, data):
        colors = np.array([[9, 9, 9], [250, 0, 9], [7, 99, 3]], np.uint8)
        model = LoadedModel(task, MODEL_NAMES, colors, {function.__name__: function})
        monkeypatch.setattr(kerascv_d2l.export, "load", lambda path: model)
        monkeypatch.setattr(kerascv_d2l.data.load, "load", lambda source, task, **options: data)

    return fake


def data_of(targets, sizes=None):
    """Images whose every pixel is their number, in a train and a val split."""
    count = len(next(iter(targets.values())))
    images = np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, 16, 24, 3))
    names = [f"image {k} $y$.png" for k in range(count)]
    split = Split(images, targets, names)
    return DataSet(DATA_NAMES, split.subset([0]), split, "made for the test")


def number_of(images):
    return np.asarray(images)[:, 0, 0, 0].astype(int)


def test_classification(script, use, tmp_path, capsys):
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet([1, 1, 1], 7).astype(np.float32)

    def classify(images):
        return {"probabilities": tf.constant(probabilities[number_of(images)])}

    use("classification", classify, data_of({"label": labels}))
    metrics = script.main(["model", "data", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    true = ORDER[labels]
    right = probabilities.argmax(1) == true
    assert metrics["accuracy"] == pytest.approx(right.mean())
    wanted = -np.log(probabilities[np.arange(7), true]).mean()
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5)
    for k, name in enumerate(MODEL_NAMES):
        assert metrics["accuracy_by_class"][name] == pytest.approx(right[true == k].mean())
        for other in range(3):
            count = ((true == k) & (probabilities.argmax(1) == other)).sum()
            assert metrics["confusion"][k][other] == count
    assert metrics["worst"][0] == f"image {probabilities[np.arange(7), true].argmin()} $y$.png"
    for name in ("worst", "confusion", "precision_recall"):
        assert Image.open(tmp_path / f"{name}.png").width > 200
    assert "warning" not in capsys.readouterr().out
    assert (
        len(script.main(["model", "data", "--out", str(tmp_path), "--split", "train"])["worst"])
        == 1
    )
    metrics = script.main(["model", "data", "--out", str(tmp_path), "--split", "all"])
    assert metrics["num_images"] == 8 and metrics["accuracy"] == pytest.approx(
        (right.sum() + right[0]) / 8
    )
    assert "measuring on split all: 8 images" in capsys.readouterr().out
    assert (tmp_path / "metrics-2.json").exists() and (tmp_path / "worst-2.png").exists()


@pytest.mark.parametrize(
    ("model", "data", "order"),
    [
        (("1", "2", "10"), ("1", "10", "2"), [0, 2, 1]),  # the same numbers in another order
        (("3", "5", "7"), ("5", "7", "9"), None),  # 9 is not known
        (("cat", "dog", "cow"), ("3", "5", "7"), [0, 1, 2]),  # names, and numbers for want of them
        (("3", "5", "7"), ("0", "1", "2"), [0, 1, 2]),  # no names
        (("cat", "dog", "cow"), ("cow", "cat"), [2, 0]),
    ],
)
def test_classes_are_matched_by_name(script, model, data, order):
    split = data_of({"label": np.arange(7) % 2}).val
    knows, named = (SimpleNamespace(class_names=names, source="d") for names in (model, data))
    if order is None:
        with pytest.raises(InputError, match="does not know 9"):
            script.in_classes_of(knows, named, split)
        return
    _, table = script.in_classes_of(knows, named, split)
    assert table[: len(order)].tolist() == order


def test_the_validation_images_of_the_run(script, use, tmp_path, monkeypatch, capsys):
    """Of data without a split, those beside the model, however the split is drawn now."""

    def classify(images):
        return {"probabilities": tf.one_hot(number_of(images) % 3, 3)}

    monkeypatch.setattr(script, "draw", lambda output, drawings: None)
    whole = data_of({"label": np.arange(7) % 3}).val
    data = DataSet(DATA_NAMES, whole.subset([0, 1, 2, 3]), whole.subset([4, 5, 6]), "toy")
    use("classification", classify, data)

    def measure(listed, split="val", drawn=True):
        data.drawn = drawn
        (tmp_path / "run").mkdir(exist_ok=True)
        text = "".join(f"image {k} $y$.png\n" for k in listed)
        (tmp_path / "run" / "validation.txt").write_text(text)
        model = str(tmp_path / "run" / "saved_model")
        argv = [model, "data", "--out", str(tmp_path), "--split", split]
        return sorted(script.main(argv)["worst"]), capsys.readouterr().out

    def names(*numbers):
        return [f"image {k} $y$.png" for k in numbers]

    worst, printed = measure([1, 4])
    assert worst == names(1, 4) and "val: the 2 images of " in printed
    assert "warning" not in printed
    assert measure([1, 4], "train")[0] == names(0, 2, 3, 5, 6)
    assert measure([1, 4], "all")[0] == names(0, 1, 2, 3, 4, 5, 6)
    worst, printed = measure([1, 8, 9])
    assert worst == names(1) and "warning: 2 of the 3 images of " in printed
    assert "are not in toy" in printed
    worst, printed = measure([8, 9])  # what the run trained on is not known
    assert worst == names(4, 5, 6) and "warning: 0 of the 2 images of " in printed
    worst, printed = measure([1, 4], drawn=False)
    assert worst == names(4, 5, 6) and "validation.txt" not in printed
    # Other data may have an image of the same name; what was moved has them all.
    settings = tmp_path / "run" / "settings.json"
    settings.write_text('{"settings": {"data": "other"}}')
    worst, printed = measure([1, 8, 9])
    assert worst == names(4, 5, 6) and "warning: 1 of the 3 images of " in printed
    worst, printed = measure([8, 9])
    assert worst == names(4, 5, 6) and "validation.txt" not in printed
    assert measure([1, 4])[0] == names(1, 4)
    assert measure(range(7))[0] == names(0, 1, 2, 3, 4, 5, 6)
    with pytest.raises(InputError, match="split train: data has val, all"):
        measure(range(7), "train")
    # Of the run's own data a new draw would have images that it trained on.
    settings.write_text('{"settings": {"data": "data"}}')
    assert measure([1, 8, 9])[0] == names(1)
    with pytest.raises(InputError, match=r"none of the 2 images of .* is there.*--split all"):
        measure([8, 9])
    assert measure([8, 9], "all")[0] == names(0, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("listed", "names", "wanted"),
    [
        (["2.jpg", "4.jpg"], ["2.jpg", "3.jpg", "4.jpg"], [0, 2]),
        # One image more, in another folder; of the same name, too.
        (["2.jpg", "4.jpg"], ["images/2.jpg", "images/4.jpg", "2.jpg"], [0, 1]),
        (["a/2.jpg", "b/2.jpg"], ["x/y/b/2.jpg", "x/y/a/2.jpg", "x/y/2.jpg"], [0, 1]),
        # One less.
        (["images/2.jpg", "images/4.jpg"], ["4.jpg", "2.jpg", "3.jpg"], [0, 1]),
        (["images/2.jpg", "images/9.jpg"], ["2.jpg", "3.jpg"], [0]),
        # Either folder may be meant.
        (["2.jpg", "4.jpg"], ["a/2.jpg", "a/4.jpg", "b/2.jpg", "b/4.jpg"], []),
        (["2.jpg", "4.jpg"], ["a2.jpg", "3.jpg"], []),
    ],
)
def test_names_that_begin_in_another_folder(script, listed, names, wanted):
    assert script.rows_called(set(listed), names).tolist() == wanted


def test_a_folder_is_meant_before_a_data_set_to_download(script, tmp_path, monkeypatch):
    """As in the training scripts; `beans` is a name of tensorflow-datasets, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("beans", "hotdog"):
        Path(name).mkdir()
    assert script.parse(["model", "beans"]).source == str((tmp_path / "beans").resolve())
    assert script.parse(["model", "hotdog"]).source == "hotdog"
    assert script.parse(["model", "mnist"]).source == "mnist"


def test_detection(script, use, tmp_path, capsys):
    """Three images: found; missed, with one false; and without objects, on one ignored."""
    boxes = [[[0.1, 0.2, 0.5, 0.6]], [[0.5, 0.5, 0.9, 0.8]], [[0.2, 0.2, 0.4, 0.4]]]
    found = [boxes[0][0], [0, 0, 0.2, 0.2], boxes[2][0]]

    def detect(images):
        number = number_of(images)
        return {
            "boxes": tf.constant(np.array(found, np.float32)[number][:, None]),
            "scores": tf.fill([len(number), 1], 0.9),
            "classes": tf.fill([len(number), 1], 0),
            "num_valid": tf.ones([len(number)], tf.int32),
        }

    ignore = [[False], [False], [True]]
    targets = {"boxes": boxes, "classes": [[1], [1], [1]], "ignore": ignore}
    use("detection", detect, data_of(targets))
    metrics = script.main(["model", "data", "--out", str(tmp_path)])
    assert metrics["voc_map"] == pytest.approx(0.5)
    assert metrics["ap_50_by_class"]["dog"] == pytest.approx(51 / 101)  # of recall levels
    assert (metrics["missed"], metrics["false_detections"]) == (1, 1)
    assert metrics["worst"][0] == "image 1 $y$.png"
    for name in ("worst", "precision_recall"):
        assert Image.open(tmp_path / f"{name}.png").width > 200
    assert "warning" not in capsys.readouterr().out
    metrics = script.main(["model", "data", "--out", str(tmp_path), "--score-threshold", "0.95"])
    assert (metrics["missed"], metrics["false_detections"]) == (2, 0)


def test_masks(script, use, tmp_path):
    """The box of both images is right; the mask of the second is half of what it should be."""
    box = [0.25, 0.25, 0.75, 0.75]  # rows 4 to 12, columns 6 to 18
    mask = np.zeros((16, 24), np.uint8)
    mask[4:12, 6:18] = 1
    half = mask * (np.arange(24) < 12)

    def detect(images):
        number = number_of(images)
        shape = [len(number), 1]
        return {
            "boxes": tf.tile(tf.constant([[box]], tf.float32), [*shape, 1]),
            "scores": tf.constant(0.9 - 0.1 * number[:, None], tf.float32),
            "classes": tf.fill(shape, 0),
            "num_valid": tf.ones([len(number)], tf.int32),
            "masks": tf.constant(np.stack([mask, half])[number][:, None]),
        }

    encoded = encode_masks([mask])
    targets = {"boxes": [[box]] * 2, "classes": [[1]] * 2, "masks": [encoded] * 2}
    use("detection", detect, data_of(targets))
    kerascv_d2l.export.load("model").predicts_masks = True
    metrics = script.main(["model", "data", "--out", str(tmp_path)])
    assert metrics["map"] == 1 and metrics["mask_map_50"] == 1  # IoU 0.5 counts
    assert metrics["mask_map_75"] == pytest.approx(51 / 101)
    assert Image.open(tmp_path / "worst.png").width > 200
    del targets["masks"]  # boxes alone can be measured, too
    use("detection", detect, data_of(targets))
    kerascv_d2l.export.load("model").predicts_masks = True
    metrics = script.main(["model", "data", "--out", str(tmp_path)])
    assert metrics["map"] == 1 and "mask_map" not in metrics


def test_segmentation_of_a_real_model(script, tmp_path, monkeypatch, capsys):
    """The same metrics as `evaluate_segmentation`, for classes in another order."""
    model = FCN(MODEL_NAMES, small_backbone(32))
    for weight in model.weights:
        weight.assign(weight + 0.3 * tf.random.stateless_normal(weight.shape, (0, 1)))
    model.save(tmp_path / "model.keras")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (3, 32, 40, 3), np.uint8)
    masks = draw.integers(0, 3, (3, 32, 40)).astype(np.uint8)
    masks[:, :4] = 255
    split = Split(images, {"mask": [encode_mask(mask) for mask in masks]}, ["a", "b", "c"])
    data = DataSet(DATA_NAMES, split, split, "made for the test")
    monkeypatch.setattr(kerascv_d2l.data.load, "load", lambda source, task, **options: data)
    out = tmp_path / "out"
    metrics = script.main([str(tmp_path / "model.keras"), "data", "--out", str(out)])
    truths = [np.append(ORDER, np.full(253, 255))[mask] for mask in masks]
    pairs = list(zip(images, truths, strict=True))
    wanted = evaluate_segmentation(Segmenter(model), pairs, MODEL_NAMES)
    for name in ("mean_iou", "pixel_accuracy", "iou_by_class"):
        assert metrics[name] == pytest.approx(wanted[name])
    np.testing.assert_array_equal(metrics["confusion"], wanted["confusion"])
    for name in ("worst", "iou_by_class"):
        assert Image.open(out / f"{name}.png").width > 200
    assert "warning" not in capsys.readouterr().out


def test_what_does_not_fit(script, use, tmp_path, monkeypatch):
    def classify(images):
        return {"probabilities": tf.constant([[1.0, 0, 0]])}

    flags = ["model", "data", "--out", str(tmp_path)]
    data = data_of({"label": [0]})
    use("classification", classify, data)
    with pytest.raises(InputError, match="split test: data has train, val, all"):
        script.main([*flags, "--split", "test"])
    data.class_names = ("ant", "bee", "wasp")
    with pytest.raises(InputError, match=r"does not know bee, wasp; it knows dog, cat \$x\$, ant"):
        script.main(flags)
    data.class_names = ("0", "1", "2")  # numbers, in the order of the model
    assert script.main(flags)["accuracy"] == 1
    for flag in ("--score-threshold", "--features"):
        with pytest.raises(InputError, match=r"only for .* models, not classification"):
            script.main([*flags, flag, "1"])
    use("generation", classify, data)
    for flag in ("--classes", "--ignore"):
        with pytest.raises(InputError, match=f"{flag[2:]} a,b: only for .*, not generation"):
            script.main([*flags, flag, "a,b"])
    use("style", classify, data)
    with pytest.raises(InputError, match="no metric for models of the task style"):
        script.main(flags)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written"):
        script.main(["model", "data", "--out", str(tmp_path / "file")])


def test_images_that_pillow_reads_are_drawn(script, use, tmp_path, capsys):
    for name in MODEL_NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(2):
            Image.new("P", (20 + k, 30)).save(tmp_path / "data" / name / f"{k}.gif")
    data = kerascv_d2l.data.load.load(tmp_path / "data", "classification")

    def classify(images):
        return {"probabilities": tf.constant([[1.0, 0, 0]])}

    use("classification", classify, data)
    script.main(["model", "data", "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "worst.png").exists()
    assert "warning" not in capsys.readouterr().out


def test_a_drawing_that_fails_is_a_warning(script, use, tmp_path, monkeypatch, capsys):
    import kerascv_d2l.plotting.classification

    def fail(*arguments):
        raise RuntimeError("no ink")

    monkeypatch.setattr(kerascv_d2l.plotting.classification, "draw_confusion", fail)

    def classify(images):
        return {"probabilities": tf.constant([[1.0, 0, 0]])}

    use("classification", classify, data_of({"label": [0]}))
    assert script.main(["model", "data", "--out", str(tmp_path)])["accuracy"] == 0
    assert "confusion.png was not drawn (RuntimeError: no ink)" in capsys.readouterr().out
    assert (tmp_path / "worst.png").exists()
