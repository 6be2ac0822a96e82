"""Folders of photographs."""

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError, read_photographs

pytestmark = pytest.mark.quick


def test_pictures_are_found_in_folders_and_the_rest_is_passed_over(tmp_path):
    (tmp_path / "more/.hidden").mkdir(parents=True)
    for name, size in (("b.png", (30, 20)), ("more/a.JPG", (8, 9)), (".c.png", (4, 4))):
        Image.new("RGB", size).save(tmp_path / name)
    Image.new("RGB", (4, 4)).save(tmp_path / "more/.hidden/d.png")
    (tmp_path / "notes.txt").write_text("no picture")
    split = read_photographs(tmp_path)
    assert split.names == ["b.png", "more/a.JPG"]
    np.testing.assert_array_equal(split.sizes, [[20, 30], [9, 8]])
    assert split.labels.tolist() == [0, 0] and split.skipped == []

    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(InputError, match=r"a\.png: not a picture"):
        read_photographs(tmp_path)
    split = read_photographs(tmp_path, skip_bad=True)
    assert split.names == ["b.png", "more/a.JPG"] and len(split.skipped) == 1


def test_folders_without_pictures_are_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        read_photographs(tmp_path / "absent")
    with pytest.raises(InputError, match="no picture in it"):
        read_photographs(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"left out: .*a\.png: empty file"):
        read_photographs(tmp_path, skip_bad=True)
