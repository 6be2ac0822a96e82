"""Drawings of what a network sees."""

import numpy as np
import pytest
from PIL import Image

import kerascv_d2l as d2l

pytestmark = pytest.mark.quick
PHOTO = np.full((20, 30, 3), 200, np.uint8)


def test_heat_lies_over_the_image():
    heat = np.zeros((20, 30))
    grey = d2l.heat_overlay(PHOTO, heat)
    assert (grey == 110).all()  # 0.55 of 200
    heat[:, 15:] = 3
    hot = d2l.heat_overlay(PHOTO, heat)
    np.testing.assert_array_equal(hot[:, :15], grey[:, :15])
    red, _, blue = hot[5, 20].astype(int)
    assert red > blue + 50
    heat[:, :5] = -3
    signed = d2l.heat_overlay(PHOTO, heat).astype(int)
    assert signed[5, 20, 0] > signed[5, 20, 2] + 50 and signed[5, 2, 2] > signed[5, 2, 0] + 50
    with pytest.raises(d2l.InputError, match="heat has shape"):
        d2l.heat_overlay(PHOTO, heat[:4])


def test_boxes_have_names_and_colours_and_titles_have_lines(tmp_path):
    heat = {"one\n40 % in a\n60 % in b": np.zeros((20, 30)), "two": np.zeros((20, 30))}
    named = {"a": (2, 3, 20, 15), "b": (5, 6, 25, 18)}
    sizes, drawings = [], []
    for name, boxes in (("named", named), ("plain", list(named.values())), ("none", ())):
        d2l.draw_maps(tmp_path / f"{name}.png", PHOTO, heat, boxes)
        drawn = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        green = (drawn[..., 1] > 200) & (drawn[..., [0, 2]].max(-1) < 60)
        sizes.append(np.count_nonzero(green))
        drawings.append(drawn)
    assert min(sizes[:2]) > 300 and sizes[2] == 0  # the second box
    changed = np.argwhere((drawings[0] != drawings[1]).any(-1))  # by the names, on the image alone
    assert len(changed) > 100 and changed[:, 1].max() < drawings[0].shape[1] / 3
    d2l.draw_maps(tmp_path / "line.png", PHOTO, {"one": heat["two"], "two": heat["two"]})
    heights = [Image.open(tmp_path / f"{name}.png").height for name in ("none", "line")]
    assert heights[0] > heights[1] + 20


def test_files(tmp_path):
    heat = np.random.default_rng(0).normal(size=(20, 30))
    d2l.draw_maps(tmp_path / "maps.png", PHOTO, {"a $x$": heat, "b": abs(heat)}, [(2, 3, 20, 15)])
    d2l.draw_filters(tmp_path / "filters.png", heat[:9, :12].reshape(4, 3, 3, 3))
    d2l.draw_feature_maps(tmp_path / "feature_maps.png", heat[..., None] * [1, 5, 0], most=2)
    d2l.draw_points(tmp_path / "points.png", heat[:, :2], np.arange(20) % 2, ("a", "b"),
                    marked={"here": (0, 0)})  # fmt: skip
    d2l.draw_points(tmp_path / "bare.png", heat[:, :2])
    for path in tmp_path.glob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 5, path.name
    with pytest.raises(d2l.InputError, match="at least 1"):
        d2l.draw_images(tmp_path / "none.png", [], [])
