"""`scripts/prepare_data.py` on small folders in the layout of the real archives."""

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

from kerascv_d2l import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "datasets"))
import fake_archives  # noqa: E402

FILES = {
    "banana_detection": (
        fake_archives.bananas,
        {"train": 4, "validation": 2},
        "class(es): banana",
    ),
    "hotdog": (fake_archives.hotdogs, {"train": 7, "test": 8}, "hotdog, not-hotdog"),
    "voc2012_segmentation": (
        fake_archives.voc,
        {"train": 5, "validation": 3},
        "20 class(es):",
    ),
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("prepare_data", ROOT / "scripts/prepare_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", list(FILES))
def test_prepares_and_draws(script, tmp_path, capsys, name):
    make, splits, classes = FILES[name]
    fake_archives.write(make(), tmp_path / "data")
    arguments = [name, "--archive", str(tmp_path / "data"), "--data-dir", str(tmp_path / "tfds")]
    arguments += ["--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match="damaged or truncated"):
        script.main(arguments)
    assert not (tmp_path / "out").exists()

    result = script.main([*arguments, "--skip-bad"])
    assert result["name"] == name and result["splits"] == splits and result["skipped"] == 1
    shown = capsys.readouterr().out
    assert classes in shown and "left out: 1" in shown and str(tmp_path / "tfds") in shown
    with Image.open(result["sheet"]) as sheet:
        assert min(sheet.size) >= 300
    # Prepared once, it is found again without the files.
    again = script.main([name, "--data-dir", str(tmp_path / "tfds"), "--out", str(tmp_path / "o")])
    assert again["splits"] == splits and again["skipped"] == 0
    low = 100 if name == "hotdog" else 130
    assert f"({low}-" in capsys.readouterr().out


def test_cifar10_takes_no_archive(script, tmp_path):
    with pytest.raises(InputError, match="cifar10"):
        script.main(["cifar10", "--archive", str(tmp_path)])
