"""The grids of augment_demo.py, from an image with boxes and a mask that the test makes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "augment_demo.py"
BOOK = ["flip_left_right", "flip_up_down", "crop", "brightness", "hue", "color", "composed"]
XML = """<annotation><object><name>cat</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>60</xmax>
<ymax>40</ymax></bndbox></object></annotation>"""


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("augment_demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path):
    """Paths of an image, its boxes and its mask."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    mask = np.zeros((50, 80), np.uint8)
    mask[5:40, 10:60], mask[:3] = 30, 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "cat.xml").write_text(XML)
    return [str(tmp_path / name) for name in ("cat.png", "cat.xml", "mask.png")]


def test_draws_every_grid(demo, files, tmp_path):
    image, boxes, mask = files
    out = tmp_path / "grids"
    flags = ["--boxes", boxes, "--box", "dog,1,2,30,40", "--mask", mask, "--out", str(out)]
    result = demo.main([image, *flags])
    names = [*BOOK, "iou_crop", "zoom_out", "mosaic", "scale_crop"]
    assert result["files"] == [str(out / f"{name}.drawn.png") for name in names]
    for file in result["files"]:
        assert Image.open(file).size[0] > 1000
    data, classes = demo.read_data(demo.parse([image, *flags]))
    assert classes == ["cat", "dog"]
    np.testing.assert_allclose(
        data["bounding_boxes"]["boxes"] * [80, 50, 80, 50], [[1, 2, 30, 40], [10, 5, 60, 40]]
    )
    assert data["bounding_boxes"]["labels"].tolist() == [1, 0]


def test_grids_of_a_bare_image(demo, files):
    data, _ = demo.read_data(demo.parse([files[0]]))
    assert list(demo.grids(data, 0)) == BOOK


def test_names_bad_input(demo, files, tmp_path, capsys):
    image = files[0]
    broken = tmp_path / "broken.xml"
    broken.write_text("<annotation>")
    Image.new("RGB", (80, 50)).save(tmp_path / "colours.png")
    Image.new("L", (8, 5)).save(tmp_path / "small.png")
    for flags, message in (
        (["--boxes", str(broken)], r"broken\.xml: not a whole XML file"),
        (["--boxes", str(tmp_path / "none.xml")], r"none\.xml: cannot be read"),
        (["--mask", str(tmp_path / "none.png")], r"--mask: .*none\.png: not an image"),
        (["--mask", str(tmp_path / "colours.png")], "wanted class indices"),
        (["--mask", str(tmp_path / "small.png")], r"is \(5, 8\), its image \(50, 80\)"),
    ):
        with pytest.raises(InputError, match=message):
            demo.main([image, *flags, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        demo.parse([image, "--box", "dog,9,9,3,3"])
    assert "expected NAME,X0,Y0,X1,Y1" in capsys.readouterr().err
