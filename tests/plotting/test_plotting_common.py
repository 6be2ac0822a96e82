"""Text as it is written, fonts for what Matplotlib's own lacks, and a colour for every class."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from kerascv_d2l.plotting import common
from kerascv_d2l.plotting.classification import draw_confusion, draw_mistakes
from kerascv_d2l.plotting.detections import draw_boxes, draw_detections
from kerascv_d2l.plotting.evaluation import draw_bars, draw_precision_recall

pytestmark = pytest.mark.quick
DOLLARS = "from $5 on, \\frac{ or $7"  # no formula
CAT, DOG = "猫", "犬"


@pytest.fixture
def cat_font(tmp_path, monkeypatch):
    """A font that has nothing but a cat, a filled square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord(CAT): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": square})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Only Cats", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    path = tmp_path / "cats.ttf"
    builder.save(path)
    listed = list(font_manager.fontManager.ttflist)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    font_manager.fontManager.addfont(path)
    monkeypatch.setattr(common, "_told", set())
    return path


def test_a_name_with_dollars_is_no_formula(tmp_path):
    names = [DOLLARS, "$", "$$"]
    draw_confusion(tmp_path / "confusion.png", np.eye(3, dtype=int), names)
    image = np.zeros((4, 4, 3), np.uint8)
    draw_mistakes(
        tmp_path / "worst.png", [image], [DOLLARS], [0], np.array([[0.1, 0.8, 0.1]]), names
    )
    draw_bars(tmp_path / "bars.png", dict.fromkeys(names, 0.5), DOLLARS)
    curve = np.linspace(0, 1, 5), np.linspace(1, 0.5, 5)
    draw_precision_recall(tmp_path / "curves.png", dict.fromkeys(names, curve))
    box = np.array([[[0.1, 0.2, 0.8, 0.9]]])
    found = {"boxes": box, "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    labels = np.concatenate([np.zeros((1, 1, 1)), box], -1)
    draw_detections(tmp_path / "boxes.png", [np.zeros((9, 9, 3), np.uint8)], found, labels, names)
    for name in ("confusion", "worst", "bars", "curves", "boxes"):
        assert Image.open(tmp_path / f"{name}.png").width > 200


def test_characters_come_from_a_font_that_has_them(cat_font, tmp_path, capsys):
    assert common.fallback_families(f"a {CAT}") == ["Only Cats"]
    figure = Figure(figsize=(2, 1), dpi=100)
    figure.text(0.2, 0.2, CAT, fontsize=36)  # half an inch
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph … missing from font"
        common.save(tmp_path / "cat.png", figure)
    dark = np.asarray(Image.open(tmp_path / "cat.png").convert("L")) < 128
    assert 45 * 45 < dark.sum() <= 52 * 52  # the square, where a missing glyph is an outline
    assert capsys.readouterr().out == ""


def test_pillow_gets_one_font_that_has_the_text(cat_font, tmp_path):
    assert common.font_file(f"{CAT} {CAT}") == str(cat_font)
    assert common.font_file("cat 0.50").endswith("DejaVuSans.ttf")
    image = np.zeros((280, 300, 3), np.uint8)
    draw_boxes(tmp_path / "cat.png", image, [[0.1, 0.5, 0.9, 0.9]], [CAT], ["yellow"])
    label = np.asarray(Image.open(tmp_path / "cat.png"))[100:139]
    black = (label.max(-1) == 0) & (label[..., :1].max(0) > 0)[None, :, 0]
    assert black[:, 31:45].sum() >= 80  # the square, 10 x 10


def test_a_character_that_no_font_has_is_said_once(cat_font, capsys):
    assert common.fallback_families(f"{DOG}{CAT}") == ["Only Cats"]
    assert f"no font on this machine has {DOG}:" in capsys.readouterr().out
    common.fallback_families(DOG)
    assert capsys.readouterr().out == ""


def test_every_class_has_a_colour_of_its_own():
    colors = [common.class_color(k) for k in range(255)]
    assert len(set(colors)) == 255 and all(len(c) == 7 for c in colors)
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors])
    neighbours = np.abs(np.diff(rgb, axis=0)).max(axis=1)
    assert neighbours.min() > 60
