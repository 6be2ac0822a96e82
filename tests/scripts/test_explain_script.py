"""`scripts/explain.py` on small models that were written to files."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_networks import small_backbone

import kerascv_d2l as d2l
from kerascv_d2l.explain.subject import NothingFound, Subject

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "explain.py"
NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("explain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with `model.keras`, `saved_model/` and `data/`, a classifier and its images."""
    folder = tmp_path_factory.mktemp("explain")
    model = d2l.Classifier(small_backbone(8), NAMES, image_size=(32, 32))
    model.save(folder / "model.keras")
    d2l.export.save(model, folder / "saved_model")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in NAMES:
            (folder / "data" / split / name).mkdir(parents=True)
            for k in range(2):
                pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "data" / split / name / f"{name}{k}.png")
    return folder


def test_all_methods(script, files, tmp_path):
    photo = files / "data" / "val" / "cat" / "cat0.png"
    methods = [m for m in script.METHODS if m not in ("tsne", "attention")]
    result = script.main([
        str(files / "model.keras"), str(photo), "--method", ",".join(methods), "--target", "dog",
        "--box", "left,0,0,25,40", "--samples", "2", "--steps", "2", "--data", str(files / "data"),
        "--scales", "1,2", "--out", str(tmp_path),
    ])  # fmt: skip
    assert json.loads((tmp_path / "explanations.json").read_text()) == result
    (entry,) = result["images"]
    assert entry["target"] == "dog" and result["task"] == "classification"
    assert [row["method"] for row in entry["maps"]] == list(script.MAPS)[:-1]
    assert all(0 <= row["inside"]["left"] <= 1 for row in entry["maps"] if row["inside"]["left"])
    drawn = result["drawn"]
    near = drawn["neighbours"][str(photo)]  # all others of the split
    assert sorted(Path(name).name for name in near) == ["cat1.png", "dog0.png", "dog1.png"]
    paths = [
        entry["windows"]["drawn"],
        entry["drawn"],
        entry["feature_maps"],
        drawn["filters"],
        drawn["class"],
        drawn["pca"],
    ]
    for path in [*paths, tmp_path / "cat0_neighbours.png"]:
        assert Image.open(path).size > (50, 50)


def test_saved_model_and_sanity(script, files, tmp_path, capsys):
    photo = str(files / "data" / "val" / "dog" / "dog1.png")
    quick = ["--samples", "2", "--out", str(tmp_path)]
    result = script.main([str(files / "saved_model"), photo, *quick])
    found = [row["method"] for row in result["images"][0]["maps"]]
    assert found == ["saliency", "smooth-grad", "occlusion"]
    result = script.main([str(files / "model.keras"), photo, "--method", "grad-cam", "--sanity",
                          *quick])  # fmt: skip
    assert [row["stage"] for row in result["images"][0]["maps"]][1:] == [
        "output layer", "upper half", "all layers"
    ]  # fmt: skip
    assert "grad-cam, all layers:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "make",
    [
        lambda: d2l.TinySSD(class_names=("a",), image_size=(64, 64)),
        lambda: d2l.FCN(NAMES, small_backbone(32)),
    ],
    ids=["detector", "segmenter"],
)
def test_default_where_the_score_is_of_some_places(script, tmp_path, make):
    """A map whose weights know places: one weight a channel for the whole image does not."""
    model = make()
    model(np.zeros((1, 64, 64, 3), np.float32))
    model.save(tmp_path / "model.keras")
    args = script.parse([str(tmp_path / "model.keras"), "image.png"])
    script.load_subject(args)
    assert args.method == ["layer-cam", "saliency", "smooth-grad", "occlusion"]


def test_images_on_which_nothing_is_found_are_passed_over(script, tmp_path, monkeypatch, capsys):
    model = d2l.TinySSD(class_names=("a",), image_size=(64, 64))
    model(np.zeros((1, 64, 64, 3), np.float32))
    model.save(tmp_path / "model.keras")
    for name, grey in (("black1", 0), ("black2", 0), ("grey", 100)):
        Image.new("RGB", (64, 64), (grey,) * 3).save(tmp_path / f"{name}.png")
    target = Subject.target

    def nothing_on_black(subject, pixels, wanted=None):
        if not np.any(pixels):
            raise NothingFound("nothing")
        return target(subject, pixels, wanted)

    monkeypatch.setattr(Subject, "target", nothing_on_black)

    def run(pattern):
        argv = [tmp_path / "model.keras", tmp_path / pattern, "--out", tmp_path / "out"]
        return script.main([*map(str, argv), "--method", "occlusion"])

    result = run("*.png")
    (entry,), printed = result["images"], capsys.readouterr().out
    assert entry["image"].endswith("grey.png") and len(result["skipped"]) == 2
    assert f"nothing is found in {tmp_path / 'black1.png'}" in printed
    # What is covered by the mean colour does not change.
    assert entry["maps"][0]["inside"] == {"detection": None}
    assert "occlusion is nowhere above 0" in printed and "nan" not in printed
    with pytest.raises(d2l.InputError, match=r"nothing is found in .*black1\.png, .*give other im"):
        run("black*.png")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["model.keras"], "no IMAGE is given"),
        (["model.keras", "--method", "pca"], "data is missing"),
        (["model.keras", "--method", "class"], "target is missing"),
        (["model.keras", "data", "--method", "windows", "--box", "a,0,0,2,2"], "box: windows give"),
        (["model.keras", "--method", "nonsense"], "not among grad-cam"),
        (["nonsense", "data", "--weights", "none"], "nonsense: no such file, and as a network"),
        (["saved_model", "data", "--method", "grad-cam"], "a SavedModel has none"),
        (["model.keras", "data", "--target", "cow"], "target 'cow': no such class"),
        (["model.keras", "data", "--method", "attention"], "attention_map: the model is no DETR"),
    ],
)
def test_errors(script, files, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(files)
    with pytest.raises(d2l.InputError, match=message):
        script.main([*argv, "--out", str(tmp_path)])
