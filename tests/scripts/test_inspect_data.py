"""`scripts/inspect_data.py`: what it prints, writes and draws; how it ends on bad sources."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("inspect_data", ROOT / "scripts/inspect_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(path)


def voc(root, count=10):
    """Images with two objects each, the second difficult."""
    for k in range(count):
        save(root / "images" / f"{k}.jpg", k)
        (root / "annotations").mkdir(exist_ok=True)
        objects = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{10 + k}"
            f"</xmin><ymin>5</ymin><xmax>{40 + k}</xmax><ymax>45</ymax></bndbox></object>"
            for name, difficult in (("cat$a$", 0), ("dog", 1))
        )
        (root / "annotations" / f"{k}.xml").write_text(
            f"<annotation><filename>{k}.jpg</filename><size><width>80</width><height>60</height>"
            f"<depth>3</depth></size>{objects}</annotation>"
        )
    return root


def run(script, root, task, *flags):
    out = root.parent / "out"
    report = out / f"report-{len(list(out.glob('*')))}.json"
    arguments = [str(root), "--task", task, "--out", str(out), "--json", str(report)]
    result = script.main([*arguments, *flags])
    with pytest.raises(InputError, match=r"json: .* is there already"):
        script.main(arguments)
    return result, json.loads(report.read_text())


def test_detection(script, tmp_path, capsys):
    root = voc(tmp_path / "data")
    (root / "images" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3\.jpg"):
        run(script, root, "detection")
    result, report = run(script, root, "detection", "--skip-bad", "--val-fraction", "0.4")
    assert report["splits"]["val"] == {
        "images": 4,
        "ignored": 4,
        "with_masks": 0,
        "objects_by_class": {"cat$a$": 4, "dog": 0},
    }
    assert report["splits"]["train"]["images"] == 5
    assert len(report["left_out"]) == 1 and "3.jpg" in report["left_out"][0]
    assert any("classes have fewer than 10 objects" in text for text in report["warnings"])
    assert {k: result[k] for k in report} == report
    shown = capsys.readouterr().out
    assert "left out:" in shown and "cat$a$" in shown and "9 of 9" not in shown
    with Image.open(result["sheet"]) as sheet:
        assert min(sheet.size) >= 300
    # Nothing is overwritten; another seed is another split.
    again, other = run(script, root, "detection", "--skip-bad", "--split-seed", "4")
    assert again["sheet"] != result["sheet"] and other["splits"]["val"]["images"] == 2


def test_other_tasks(script, tmp_path):
    for name in ("ant", "bee"):
        for k in range(5):
            save(tmp_path / "classes" / name / f"{k}.png", 10 * len(name) + k)
    _, report = run(script, tmp_path / "classes", "classification")
    assert report["splits"]["train"]["images_by_class"] == {"ant": 4, "bee": 4}
    for k in range(5):
        save(tmp_path / "masks" / f"{k}.jpg", k)
        mask = np.zeros((60, 80), np.uint8)
        mask[k : 10 + 2 * k] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{k}_mask.png")
    _, report = run(script, tmp_path / "masks", "segmentation")
    pixels = [part["pixels_by_class"] for part in report["splits"].values()]
    assert sum(part["foreground"] for part in pixels) == 80 * (10 + 11 + 12 + 13 + 14)
    assert "values 0 and 255 only" in report["warnings"][0]
    _, report = run(script, tmp_path / "masks", "segmentation", "--classes", "sky,sea")
    assert list(report["splits"]["val"]["pixels_by_class"]) == ["sky", "sea"]


def test_a_source_that_cannot_be_read(tmp_path):
    for source in (tmp_path / "nothing", tmp_path):
        command = [sys.executable, "scripts/inspect_data.py", str(source), "--task", "detection"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith(f"error: {source}")


def test_files_that_cannot_be_written(script, tmp_path):
    root = voc(tmp_path / "data", 4)
    (tmp_path / "file").write_text("")
    blocked = str(tmp_path / "file" / "inside")
    for flags in (["--out", blocked], ["--out", str(tmp_path), "--json", blocked]):
        with pytest.raises(InputError, match=r"inside.*cannot be written"):
            script.main([str(root), "--task", "detection", *flags])


def test_folders_in_any_script(tmp_path):
    root = voc(Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe4ta")))
    (root / "images" / "3.jpg").write_bytes(b"no image")
    report = tmp_path / "report.json"
    command = [sys.executable, "scripts/inspect_data.py", str(root), "--task", "detection"]
    command += ["--skip-bad", "--json", str(report), "--out", str(tmp_path / "out")]
    strict = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=strict)
    assert done.returncode == 0, done.stderr
    assert r"d\udce4ta" in done.stdout and "3.jpg" in json.loads(report.read_text())["left_out"][0]


def test_it_needs_no_tensorflow(tmp_path):
    root = voc(tmp_path / "data", 4)
    code = f"""
import sys
sys.path.insert(0, "scripts")
import inspect_data
inspect_data.main([{str(root)!r}, "--task", "detection", "--out", {str(tmp_path)!r}])
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
