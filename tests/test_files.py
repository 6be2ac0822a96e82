"""Whole files: a name stands for the old or the new content, never for half of it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from kerascv_d2l.files import NewFiles, plain, remove_leftovers, whole, write_json

pytestmark = pytest.mark.quick


def test_file_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with whole(path) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent != path.parent
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_error_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), whole(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folder_replaces_folder_and_file(tmp_path):
    path = tmp_path / "model"
    for content in ("old", "new"):
        with whole(path) as temporary:
            (temporary / "sub").mkdir(parents=True)
            (temporary / "sub" / content).write_text(content)
    assert [p.name for p in (path / "sub").iterdir()] == ["new"]
    with whole(path) as temporary:
        temporary.write_text("a file now")
    assert path.read_text() == "a file now"
    assert os.listdir(tmp_path) == ["model"]


def test_a_block_that_writes_nothing_keeps_the_old(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_text("old")
    with pytest.raises(FileNotFoundError, match="nothing was written"), whole(path):
        pass
    assert (path / "weights").read_text() == "old"


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_text("old")
    replace = os.replace

    def fail_the_second(source, target):
        if Path(target) == path and not str(source).endswith(".old"):
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_the_second)
    with pytest.raises(OSError, match="disk full"), whole(path) as temporary:
        temporary.mkdir()
    assert (path / "weights").read_text() == "old"


def test_a_new_folder_that_stays_empty_goes(tmp_path):
    (tmp_path / "old").mkdir()
    for name, written in (("old", False), ("new", False), ("used", True)):
        files = NewFiles(tmp_path / name)
        if written:
            files.save_json(tmp_path / name / "a.json", 1)
        del files
    assert {path.name for path in tmp_path.iterdir()} == {"old", "used"}


def test_leftovers_of_a_killed_process_go(tmp_path):
    (tmp_path / ".writing-x").mkdir()
    (tmp_path / ".writing-x" / "half.npz").write_text("ha")
    (tmp_path / "mine.txt").write_text("stay")
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_plain_values_for_json(tmp_path):
    class Tensor:
        def numpy(self):
            return np.float32(0.5)

    value = {
        "nan": np.float32("nan"),
        3: np.int64(4),
        "list": (1.0, float("inf"), np.array([[1, 2]])),
        "flag": np.bool_(True),
        "path": Path("a/b"),
        "tensor": Tensor(),
        "text": "Grüße",
        "none": None,
    }
    want = {
        "nan": None,
        "3": 4,
        "list": [1.0, None, [[1, 2]]],
        "flag": True,
        "path": str(Path("a/b")),
        "tensor": 0.5,
        "text": "Grüße",
        "none": None,
    }
    assert plain(value) == want
    assert plain(value)["flag"] is True
    write_json(tmp_path / "m.json", value)
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8")) == want
