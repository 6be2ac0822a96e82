"""The sheet of examples: what is drawn where, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError
from kerascv_d2l.data.voc_classes import VOC_COLORMAP
from kerascv_d2l.plotting.segmentation import MASK_WEIGHT, background_of, overlay
from kerascv_d2l.plotting.sheets import draw_examples

GREY = np.full((6, 9, 3), 100, np.uint8)


def test_overlay_colours_classes_only():
    mask = np.zeros((6, 9), np.uint8)
    mask[2, 7], mask[5, 1] = 15, 255
    drawn = overlay(GREY, mask, VOC_COLORMAP)
    person = np.array(VOC_COLORMAP[15])
    assert drawn[2, 7].tolist() == np.rint(40 + MASK_WEIGHT * person).astype(int).tolist()
    assert drawn[5, 1].tolist() == [193] * 3  # 0.4 * 100 + 0.6 * 255
    drawn[2, 7] = drawn[5, 1] = 100
    np.testing.assert_array_equal(drawn, GREY)


def test_only_a_class_called_background_leaves_the_image_as_it_is(tmp_path):
    assert background_of(["sky", "background"]) == 1 and background_of(["sky", "car"]) is None
    masks, colors = [np.zeros((6, 9), int)], [[200, 0, 0], [0, 200, 0]]
    for name, background in (("a", 0), ("b", None), ("c", 1)):
        path = tmp_path / f"{name}.png"
        draw_examples(path, [GREY], [""], masks=masks, colormap=colors, background=background)
    drawn = [np.asarray(Image.open(tmp_path / f"{name}.png"), int)[..., :3] for name in "abc"]
    reddish = [np.count_nonzero(image[..., 0] > image[..., 1] + 50) for image in drawn]
    assert reddish[0] == 0 and reddish[1] == reddish[2] > 1000


def test_sheet_shows_boxes_in_their_place(tmp_path):
    black = np.zeros((100, 200, 3), np.uint8)
    box = [[0, 0.5, 0.2, 0.9, 0.6], [-1, 0, 0, 0.1, 0.1]]
    draw_examples(tmp_path / "a.png", [black], ["one"], labels=[box], class_names=["cat"])
    draw_examples(tmp_path / "b.png", [black], ["one"])
    a, b = (np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB")).astype(int) for n in "ab")
    changed = np.argwhere(np.abs(a - b).max(-1) > 60)
    pixels = np.argwhere(b.max(-1) == 0)  # the black image in the sheet
    (top, left), (bottom, right) = pixels.min(0), pixels.max(0)
    # The label stands on the upper left corner, so only the far sides are exact.
    assert abs((changed[:, 1].max() - left) / (right - left) - 0.9) < 0.02
    assert abs((changed[:, 0].max() - top) / (bottom - top) - 0.6) < 0.03


def test_bad_sheets(tmp_path):
    with pytest.raises(InputError, match="`images` is empty"):
        draw_examples(tmp_path / "a.png", [], [])
    with pytest.raises(InputError, match="1 images and 2 titles"):
        draw_examples(tmp_path / "a.png", [GREY], ["a", "b"])
    with pytest.raises(InputError, match=r"`mask` is \(6, 8\), its image \(6, 9\)"):
        draw_examples(tmp_path / "a.png", [GREY], ["a"], masks=[np.zeros((6, 8), int)])
    with pytest.raises(InputError, match="classes from 0 to 21, but there are 21 colours"):
        overlay(GREY, np.full((6, 9), 21) * np.eye(6, 9, dtype=int), VOC_COLORMAP)
    with pytest.raises(InputError, match=r"a\.xyz: images cannot be written"):
        draw_examples(tmp_path / "a.xyz", [GREY], ["a"])
    assert list(tmp_path.iterdir()) == []


def test_overlay_of_every_class():
    mask = np.zeros((600, 9), np.uint8)  # several bands
    mask[300:] = 1
    grey = np.full((600, 9, 3), 100, np.uint8)
    drawn = overlay(grey, mask, [[200, 0, 0], [0, 200, 0]], background=None)
    assert (drawn[:300] == [160, 40, 40]).all() and (drawn[300:] == [40, 160, 40]).all()
    drawn = overlay(grey, mask, [[200, 0, 0], [0, 200, 0]], background=1)
    assert (drawn[:300] == [160, 40, 40]).all() and (drawn[300:] == 100).all()
    assert (grey == 100).all()
