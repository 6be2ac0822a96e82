"""`scripts/predict.py` with stand-ins for models, and with the real thing once for each format."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask
from small_networks import small_backbone

import kerascv_d2l.export
import kerascv_d2l.files
from kerascv_d2l import FCN, InputError
from kerascv_d2l.export import LoadedModel

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "predict.py"
NAMES = ("cat", "two $ signs $", "background")
COLORS = np.array([[0, 0, 0], [250, 0, 9], [7, 99, 3]], np.uint8)


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("predict", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def detect(images):
    """A cat, something less certain, and padding."""
    height, width = images.shape[1:3]
    boxes = np.array([[[0.1, 0.25, 0.5, 0.75], [0, 0, 0.5, 1], [0, 0, 0, 0]]], np.float32)
    answer = {
        "boxes": boxes,
        "boxes_px": boxes * np.float32([width, height, width, height]),
        "scores": np.float32([[0.9, 0.6, 0]]),
        "classes": np.int32([[0, 1, -1]]),
        "num_valid": np.int32([2]),
    }
    return {k: tf.constant(v) for k, v in answer.items()}


def classify(images):
    return {"probabilities": tf.constant([[0.2, 0.7, 0.1]])}


def segment(images):
    """Background, and a stripe of the second class a quarter as wide as the image."""
    classes = np.full(images.shape[:3], 2, np.int32)
    classes[:, :, : images.shape[2] // 4] = 1
    return {"class_map": tf.constant(classes)}


def stylize(images):
    assert max(images.shape[1:3]) <= 60
    return {"pictures": tf.constant(255 - images)}


FUNCTIONS = {
    "detection": detect,
    "classification": classify,
    "segmentation": segment,
    "style": stylize,
}


@pytest.fixture
def load(monkeypatch):
    """Let `MODEL` be the name of a task."""

    def fake(path):
        function = FUNCTIONS[path]
        names = () if path == "style" else NAMES
        return LoadedModel(path, names, COLORS, {function.__name__: function})

    monkeypatch.setattr(kerascv_d2l.export, "load", fake)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photos" / "one.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_flags_may_stand_between_the_model_and_the_images(script):
    for argv in ("m a.png b.png --out d", "m --out d a.png b.png", "m a.png --out d b.png"):
        args = script.parse(argv.split())
        assert (args.model, args.images, args.out) == ("m", ["a.png", "b.png"], "d")
    with pytest.raises(SystemExit):
        script.parse(["m", "a.png", "--outt", "d"])


def test_detection(script, load, photo, tmp_path, capsys):
    out = tmp_path / "out"
    result = script.main(["detection", str(photo), "--out", str(out)])
    assert json.loads((out / "predictions.json").read_text()) == result
    assert result["task"] == "detection" and result["class_names"] == list(NAMES)
    (entry,) = result["images"]
    assert entry["image"] == str(photo) and (entry["height"], entry["width"]) == (40, 60)
    first, second = entry["detections"]
    assert first == {
        "class": "cat",
        "score": 0.9,
        "box": [0.1, 0.25, 0.5, 0.75],
        "box_px": [6.0, 10.0, 30.0, 30.0],
    }
    assert second["class"] == "two $ signs $"
    drawn = Image.open(entry["drawn"])
    assert drawn.size == (60, 40) and Path(entry["drawn"]).name == "one_detections.png"
    assert "one.png: 2 object(s) cat 0.90" in capsys.readouterr().out
    result = script.main(["detection", str(photo), "--out", str(out), "--score-threshold", "0.7"])
    assert len(result["images"][0]["detections"]) == 1


def test_masks(script, photo, tmp_path, monkeypatch):
    """The first object is the left half, the second all of the upper half."""

    def detect_masks(images):
        masks = np.zeros((1, 3, *images.shape[1:3]), np.uint8)
        masks[:, 0, :, :30] = masks[:, 1, :20] = 1
        return detect(images) | {"masks": tf.constant(masks)}

    model = LoadedModel("detection", NAMES, None, {"detect": detect_masks}, True)
    monkeypatch.setattr(kerascv_d2l.export, "load", lambda path: model)
    (entry,) = script.main(["model", str(photo), "--out", str(tmp_path / "out")])["images"]
    numbers = Image.open(entry["instances"])
    assert Path(entry["instances"]).name == "one_instances.png" and numbers.mode == "P"
    expected = np.zeros((40, 60), np.uint8)
    expected[:20], expected[:, :30] = 2, 1
    np.testing.assert_array_equal(np.asarray(numbers), expected)
    first, second = (coco_mask.decode(d["mask"]) for d in entry["detections"])
    assert [d["id"] for d in entry["detections"]] == [1, 2]
    assert first[:, :30].all() and not first[:, 30:].any()
    assert second[:20].all() and not second[20:].any()
    plain, drawn = np.asarray(Image.open(photo)), np.asarray(Image.open(entry["drawn"]))
    assert (plain != drawn)[31:36, 10:20].mean() > 0.9  # in the first mask, away from boxes
    monkeypatch.setattr(script, "MOST_COLOURS", 1)
    (entry,) = script.main(["model", str(photo), "--out", str(tmp_path / "out")])["images"]
    np.testing.assert_array_equal(np.asarray(Image.open(entry["instances"])), expected)


def test_classification(script, load, photo, tmp_path, capsys):
    result = script.main(["classification", str(photo), "--out", str(tmp_path / "out")])
    (entry,) = result["images"]
    assert entry["class"] == "two $ signs $"
    assert list(entry["probabilities"].items()) == [
        ("two $ signs $", 0.7),
        ("cat", 0.2),
        ("background", 0.1),
    ]
    assert "two $ signs $ 0.700, cat 0.200" in capsys.readouterr().out


def test_segmentation(script, load, photo, tmp_path):
    result = script.main(["segmentation", str(photo), "--out", str(tmp_path / "out")])
    (entry,) = result["images"]
    assert entry["shares"] == {"background": 0.75, "two $ signs $": 0.25}
    classes, pixels = Image.open(entry["class_map"]), np.asarray(Image.open(photo))
    assert classes.mode == "P"
    np.testing.assert_array_equal(np.unique(classes), [1, 2])
    np.testing.assert_array_equal(np.asarray(classes.convert("RGB"))[0, 0], COLORS[1])
    drawn = np.asarray(Image.open(entry["overlay"]))
    np.testing.assert_array_equal(drawn[:, 15:], pixels[:, 15:])
    assert (drawn[:, :15] != pixels[:, :15]).any()


def test_style(script, load, photo, tmp_path):
    (entry,) = script.main(["style", str(photo), "--out", str(tmp_path / "out")])["images"]
    painted = np.asarray(Image.open(entry["painted"]))
    np.testing.assert_array_equal(painted, 255 - np.asarray(Image.open(photo)))
    flags = ["--out", str(tmp_path / "out"), "--image-size", "30"]
    (entry,) = script.main(["style", str(photo), *flags])["images"]
    assert Image.open(entry["painted"]).size == (60, 40)
    assert Path(entry["painted"]).name == "one_stylized-2.png" or "-2" in entry["painted"]


@pytest.mark.parametrize(
    ("task", "flag", "message"),
    [
        ("detection", "image-size", "image_size 1: only for style models, not detection"),
        ("classification", "score-threshold", "score_threshold 1.0: only for detection models"),
        ("classification", "num-samples", "num_samples 1: only for generation models"),
        ("style", "seed", "seed 1: only for generation models, not style"),
    ],
)
def test_flags_of_another_task_are_refused(script, load, photo, tmp_path, task, flag, message):
    with pytest.raises(InputError, match=message):
        script.main([task, str(photo), "--out", str(tmp_path / "out"), f"--{flag}", "1"])


@pytest.mark.parametrize("task", FUNCTIONS)
def test_nothing_that_was_there_is_overwritten(script, load, photo, task, monkeypatch):
    """`--out .` among the user's own images, twice; and files with the names of the outputs."""
    folder = photo.parent
    monkeypatch.chdir(folder)
    for name in ("one_detections.png", "one_overlay.png", "one_stylized.png", "predictions.json"):
        Path(name).write_text("mine")
    Image.new("RGB", (9, 9)).save(folder / "one.jpg")  # same stem
    before = {path: path.read_bytes() for path in folder.iterdir()}
    entries = []
    for _ in range(2):
        entries += script.main([task, "one.png", "one.jpg", "--out", "."])["images"]
    for path, content in before.items():
        assert path.read_bytes() == content
    written = {entry.get(key) for entry in entries for key in ("drawn", "overlay", "painted")}
    assert len(written - {None}) == (4 if task != "classification" else 0)
    assert {p.name for p in folder.glob("predictions*")} == {
        "predictions.json",
        "predictions-2.json",
        "predictions-3.json",
    }


def test_without_out_each_run_has_a_folder(script, load, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("predict", "predict-2"):
        script.main(["classification", str(photo)])
        assert (tmp_path / "runs" / folder / "predictions.json").exists()


def test_files_folders_and_patterns(script, load, photo, tmp_path):
    folder = photo.parent
    (folder / "sub").mkdir()
    (folder / "__MACOSX").mkdir()
    for name in (
        "two.JPG",
        "sub/three.png",
        "[4].png",
        "._two.jpg",
        ".two.jpg",
        "__MACOSX/two.jpg",
    ):
        Image.new("RGB", (8, 8)).save(folder / name)
    for name in ("notes.txt", "report.pdf", "film.mpg", "weights.h5"):  # Pillow writes or names all
        (folder / name).write_text("?")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "five.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "sub" / "up").symlink_to(folder)
    names = ["[4].png", "linked/five.png", "one.png", "sub/three.png", "two.JPG"]
    assert script.find_images([str(folder)]) == [str(folder / name) for name in names]
    assert script.find_images([str(folder / "*.png")]) == [
        str(folder / name) for name in ("[4].png", "one.png")
    ]
    assert script.find_images([str(folder / "[4].png"), str(folder / "**/three*")]) == [
        str(folder / "[4].png"),
        str(folder / "sub/three.png"),
    ]
    # each once
    assert len(script.find_images([str(folder), str(photo), os.path.relpath(photo)])) == 5
    with pytest.raises(InputError, match="a folder without images"):
        (folder / "empty").mkdir()
        script.find_images([str(folder / "empty")])
    with pytest.raises(InputError, match=r"\*\.tif: no such file, and none that matches"):
        script.find_images([str(folder / "*.tif")])
    with pytest.raises(InputError, match=r"absent\.png: no such file"):
        script.main(["classification", str(folder / "absent.png"), "--out", str(tmp_path / "x")])


def test_bad_images(script, load, photo, tmp_path, capsys):
    bad = photo.with_name("bad.png")
    bad.write_text("no image")
    names, out = [str(photo), str(bad), str(photo.with_name("two.png"))], tmp_path / "out"
    Image.new("RGB", (8, 8)).save(names[-1])
    with pytest.raises(InputError, match=r"bad\.png: not an image.* 1 of 3 images .*--skip-bad"):
        script.main(["classification", *names, "--out", str(out)])
    kept = json.loads((out / "predictions.json").read_text())["images"]
    assert [entry["image"] for entry in kept] == names[::2]
    for order in (names, names[1:]):  # in the middle, and first
        result = script.main(["classification", *order, "--out", str(out), "--skip-bad"])
        assert len(result["images"]) == len(order) - 1 and "bad.png" in result["skipped"][0]
    assert "left out 1 image(s), such as: " in capsys.readouterr().out


def test_an_image_that_the_model_cannot_take(script, load, photo, tmp_path, monkeypatch):
    def refuse(images):
        raise tf.errors.InvalidArgumentError(None, None, "too small\nat node x")

    monkeypatch.setitem(FUNCTIONS, "classification", refuse)
    refuse.__name__ = "classify"
    with pytest.raises(InputError, match=r"one\.png: the model cannot take .*\(too small\)"):
        script.main(["classification", str(photo), "--out", str(tmp_path)])


def test_large_images(script, load, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    flags = ["classification", str(photo), "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"one\.png: too large an image .*or use --allow-large"):
        script.main(flags)
    assert len(script.main([*flags, "--allow-large"])["images"]) == 1
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_an_output_folder_that_cannot_be_written_is_found_out_first(
    script, load, photo, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(kerascv_d2l.export, "load", lambda path: pytest.fail("computed before"))
    for out in ("file", "file/sub"):
        with pytest.raises(InputError, match=rf"{out}: cannot be written \("):
            script.main(["classification", str(photo), "--out", str(tmp_path / out)])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_one_line(script, load, photo, tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kerascv_d2l.files, "write_json", full)
    with pytest.raises(InputError, match=r"predictions\.json: cannot be written \(No space left"):
        script.main(["classification", str(photo), "--out", str(tmp_path / "out")])


def test_a_name_that_is_not_utf_8(script, load, photo, tmp_path, capsys):
    odd = os.fsdecode(os.fsencode(str(photo.parent)) + b"/caf\xe9.png")
    os.rename(photo, odd)
    result = script.main(["segmentation", odd, "--out", str(tmp_path / "out")])
    assert result["images"][0]["image"].endswith(r"caf\xe9.png")
    assert (tmp_path / "out" / "predictions.json").exists()


@pytest.mark.parametrize("kind", ["saved_model", "model.keras"])
def test_real_models(script, photo, tmp_path, kind):
    model = FCN(("sky", "road"), small_backbone(32), colors=COLORS[:2])
    if kind == "saved_model":
        kerascv_d2l.export.save(model, tmp_path / kind)
    else:
        model.save(tmp_path / kind)
    flags = [str(photo), "--out", str(tmp_path / "out")]
    (entry,) = script.main([str(tmp_path / kind), *flags])["images"]
    wanted = model.segment(np.asarray(Image.open(photo))[None])[0]
    np.testing.assert_array_equal(np.asarray(Image.open(entry["class_map"])), wanted)
    with pytest.raises(InputError, match="is a folder without a model"):
        script.main([str(tmp_path), *flags])
