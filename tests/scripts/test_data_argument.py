"""`--data`, `--archive` and `--data-dir` of the training scripts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from kerascv_d2l import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "datasets"))
import fake_archives  # noqa: E402


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load_script("train_ssd")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--data", "bananas"],
            r"--data: 'bananas' is neither a folder nor .*generated, banana_detection, voc2012_seg",
        ),
        (["--archive", "a.zip"], r"--archive a\.zip: only with --data banana_detection or voc2012"),
        (["--data", ".", "--data-dir", "x"], r"--data-dir x: only with --data .*, not \."),
    ],
)
def test_what_does_not_fit_is_refused(script, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        script.parse(flags)


@pytest.mark.quick
def test_all_scripts_say_the_same(script, capsys):
    shown = set()
    for main in (script.main, *(load_script(n).main for n in ("finetune", "prepare_data"))):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        shown.add(text[text.index("--archive FILE the") : text.index("tensorflow_datasets)")])
    assert len(shown) == 1


def test_hot_dogs_by_name(tmp_path):
    finetune = load_script("finetune")
    fake_archives.write(fake_archives.hotdogs(bad=False), tmp_path / "data")
    flags = ["--data", "hotdog", "--data-dir", str(tmp_path / "tfds")]
    data = finetune.load_data(finetune.parse([*flags, "--archive", str(tmp_path / "data")]))
    assert list(data.class_names) == ["hotdog", "not-hotdog"]
    assert (len(data.train), len(data.val)) == (8, 8)
    assert data.train.labels.tolist().count(0) == 4
    again = finetune.load_data(finetune.parse(flags))  # prepared: no archive needed
    assert again.train.names == data.train.names
    with pytest.raises(InputError, match=r"--archive x: only with --data hotdog, not generated"):
        finetune.parse(["--archive", "x"])


@pytest.mark.parametrize(
    ("name", "make", "classes"),
    [
        ("banana_detection", fake_archives.bananas, "1 class(es): banana\n"),
        ("voc2012_segmentation", fake_archives.voc, "20 class(es): aeroplane, bicycle, "),
    ],
)
def test_data_sets_by_name(script, tmp_path, name, make, classes):
    fake_archives.write(make(), tmp_path / "data")
    flags = ["--data", name, "--data-dir", str(tmp_path / "tfds"), "--image-size", "64x96"]
    archive = ["--archive", str(tmp_path / "data")]
    with pytest.raises(InputError, match="damaged or truncated"):
        script.load_data(script.parse([*flags, *archive]))
    data = script.load_data(script.parse([*flags, *archive, "--skip-bad"]))
    counts = {"banana_detection": (4, 2), "voc2012_segmentation": (5, 3)}[name]
    assert (len(data.train), len(data.val)) == counts
    shown = data.describe()
    for text in (
        f"{name} 1.0.0 in {tmp_path / 'tfds'}",
        " s), ",
        classes,
        f"training: {counts[0]} pictures (64 x 96 pixels), {counts[0]} objects, 0 ",
        "left out: 1, the first because of: ",
    ):
        assert text in shown
    again = script.load_data(script.parse(flags))  # prepared: no archive needed
    np.testing.assert_array_equal(again.train.images, data.train.images)


@pytest.mark.long  # half a minute, of which exporting takes most
def test_trains_on_bananas_by_name(script, tmp_path, capsys):
    fake_archives.write(fake_archives.bananas(bad=False), tmp_path / "data")
    metrics = script.main(
        ["--data", "banana_detection", "--archive", str(tmp_path / "data")]
        + ["--data-dir", str(tmp_path / "tfds"), "--image-size", "64", "--epochs", "1"]
        + ["--batch-size", "2", "--out", str(tmp_path / "out")]
    )
    assert "map" in metrics
    assert "banana_detection 1.0.0 in " in capsys.readouterr().out
    assert (tmp_path / "out" / "detections.png").exists()
