"""Folders of pictures and masks: the labels that come out, and what is refused, by name."""

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError, generate_segmentation, read_segmentation_folder
from kerascv_d2l.data.generated import generate_scene
from kerascv_d2l.data.segmentation import (
    SegmentationData,
    SegmentationSplit,
    decode_mask,
    default_colors,
    encode_mask,
)
from kerascv_d2l.data.voc_classes import VOC_CLASSES, VOC_COLORMAP, VOC_IGNORE_COLOR

pytestmark = pytest.mark.quick
PALETTE = {"road": (128, 64, 128), "sky": (70, 130, 180), "tree": (107, 142, 35)}


def sizes(k):
    return 10 + k, 14 + 2 * k  # height != width, different for every picture


def indices(k, highest=2):
    """Index mask of picture k: every index from 0 to `highest`, and 255."""
    mask = np.random.default_rng(k).integers(0, highest + 2, sizes(k)).astype(np.uint8)
    mask[0, : highest + 2] = range(highest + 2)
    return np.where(mask > highest, 255, mask).astype(np.uint8)


def write(root, masks, *, images="images", folder="masks", lists=None, ending="png"):
    """Pictures 0 … n - 1 with these masks (arrays or Pillow pictures), and split files."""
    (root / images).mkdir(parents=True)
    (root / folder).mkdir()
    for k, mask in enumerate(masks):
        pixels = np.random.default_rng(100 + k).integers(0, 256, (*sizes(k), 3), np.uint8)
        Image.fromarray(pixels).save(root / images / f"{k}.{('png', 'jpg', 'gif')[k % 3]}")
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        picture.save(root / folder / f"{k}.{ending}")
    if lists:
        for split, names in lists.items():
            (root / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


LISTS = {"train": ["2", "0.png", "3.png"], "val": ["1", "4"]}


def labels(split):
    return [split.mask(k) for k in range(len(split))]


def test_indices_without_names(tmp_path):
    data = read_segmentation_folder(write(tmp_path, map(indices, range(5)), lists=LISTS))
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert data.train.names == ["2.gif", "0.png", "3.png"] and data.val.names == ["1.jpg", "4.jpg"]
    for split, numbers in ((data.train, (2, 0, 3)), (data.val, (1, 4))):
        for mask, k in zip(labels(split), numbers, strict=True):
            np.testing.assert_array_equal(mask, indices(k))
        assert split.sizes.tolist() == [list(sizes(k)) for k in numbers]
        counted = np.bincount(np.concatenate([m.ravel() for m in labels(split)]), minlength=256)
        np.testing.assert_array_equal(split.pixels, counted)
    assert data.train.plain.tolist() == [False, True, True]
    text = data.describe()
    assert "training: 3 pictures (10-13 x 14-20 pixels)" in text and "% void" in text


def test_without_lists_the_split_goes_by_names_and_seed(tmp_path):
    write(tmp_path, map(indices, range(5)))
    data = [read_segmentation_folder(tmp_path, 0.4, seed) for seed in (0, 0, 1, 2, 3)]
    assert all(len(d.train) == 3 and len(d.val) == 2 for d in data)
    assert not set(data[0].train.names) & set(data[0].val.names)
    assert data[0].val.names == data[1].val.names
    assert len({tuple(d.val.names) for d in data}) > 1


@pytest.mark.parametrize("how", ["index", "name in classes.txt", "names given", "name given"])
def test_a_void_class_in_the_middle(tmp_path, how):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    options = {}
    if how == "index":
        options, names = {"void": ["1"]}, ("class 0", "class 2")
    elif how == "name in classes.txt":
        (root / "classes.txt").write_text("# of the masks\n10 20 30 road\n\nVoid\ntree\n")
        names = ("road", "tree")
    elif how == "names given":
        options, names = {"classes": ["road", "void", "tree"]}, ("road", "tree")
    else:
        options = {"classes": ["road", "sky", "tree"], "void": ["sky", 255]}
        names = ("road", "tree")
    data = read_segmentation_folder(root, **options)
    assert data.class_names == names
    expected = indices(2)
    expected = np.where(expected == 2, 1, np.where(expected == 1, 255, expected))
    np.testing.assert_array_equal(data.train.mask(0), expected)
    # A class that is left out takes its colour with it.
    wanted = default_colors(3)[[0, 2]] if options.get("void") else default_colors(2)
    if how == "name in classes.txt":
        wanted[0] = (10, 20, 30)
    np.testing.assert_array_equal(data.colors, wanted)


def test_void_may_be_an_index_without_a_name(tmp_path):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    data = read_segmentation_folder(root, classes=["road", "sky"], void=["2"])
    assert data.class_names == ("road", "sky")
    expected = np.where(indices(4) == 2, 255, indices(4))
    np.testing.assert_array_equal(data.val.mask(1), expected)


def colored(mask, void=(0, 0, 0)):
    return np.array([*PALETTE.values(), void], np.uint8)[np.where(mask == 255, 3, mask)]


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_masks_in_colours(tmp_path, mode):
    masks = [Image.fromarray(colored(indices(k))) for k in range(5)]
    # Pillow's own palette has another order than palette.txt: colours count, not indices.
    masks = [m.quantize(8) if mode == "P" else m.convert(mode) for m in masks]
    root = write(tmp_path, masks, lists=LISTS)
    lines = [f"{r} {g} {b} {name}" for name, (r, g, b) in PALETTE.items()]
    (root / "palette.txt").write_text("\n".join([*lines, "0 0 0 void", "1 1 1 void"]))
    data = read_segmentation_folder(root)
    assert data.class_names == tuple(PALETTE)
    np.testing.assert_array_equal(data.colors, list(PALETTE.values()))
    np.testing.assert_array_equal(data.val.mask(1), indices(4))
    without = read_segmentation_folder(root, void=["sky"])
    assert without.class_names == ("road", "tree")
    np.testing.assert_array_equal(without.val.mask(1) == 255, np.isin(indices(4), (1, 255)))


@pytest.mark.parametrize("in_colors", [False, True])
def test_voc(tmp_path, in_colors):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    masks = [np.where(indices(k) == 2, 20, indices(k)).astype(np.uint8) for k in range(5)]
    files = masks
    if in_colors:
        table = np.zeros((256, 3), np.uint8)
        table[:21], table[255] = VOC_COLORMAP, VOC_IGNORE_COLOR
        files = [table[mask] for mask in masks]
    write(root, files, images="JPEGImages", folder="SegmentationClass")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in LISTS.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names))
    for path in (tmp_path, tmp_path / "VOCdevkit", root):
        data = read_segmentation_folder(path)
        assert data.class_names == tuple(VOC_CLASSES)
        np.testing.assert_array_equal(data.colors, VOC_COLORMAP)
        np.testing.assert_array_equal(data.train.mask(2), masks[3])


def spoil(root, what):
    """Break a data set of `write`; returns options to read it with."""
    masks, images = root / "masks", root / "images"
    if what == "size":
        Image.fromarray(indices(2).T).save(masks / "2.png")
    elif what == "no mask":
        (masks / "0.png").unlink()
    elif what == "index":
        return {"classes": ["road", "sky"]}
    elif what == "val index":
        Image.fromarray(indices(4, highest=3)).save(masks / "4.png")
    elif what == "broken mask":
        content = (masks / "3.png").read_bytes()
        (masks / "3.png").write_bytes(content[: len(content) // 2])
    elif what == "broken picture":
        (images / "3.png").write_bytes(b"nothing")
    elif what == "no picture":
        (images / "1.jpg").unlink()
    elif what == "colours without a list":
        Image.fromarray(colored(indices(0))).save(masks / "0.png")
    return {}


BAD = {
    "size": r"masks/2\.png: the mask is 18 x 12 pixels .* its picture 2\.gif 12 x 18: .*resize it",
    "no mask": r"images/0\.png: no mask masks/0\.png for this picture: add it",
    "index": r"masks/2\.png: index 2 at row 0, column 2 is no class of classes .* Name it, or mark",
    "val index": r"masks/4\.png: index 3 .* is no class of .*masks \(the training masks; classes",
    "broken mask": r"masks/3\.png: damaged or truncated mask",
    "broken picture": r"images/3\.png: not a picture",
    "no picture": r"val\.txt, line 1: '1' has no picture in .*images",
    "colours without a list": r"masks/0\.png: a mask in colours .* palette\.txt of lines `R G B",
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_or_left_out(tmp_path, what):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    options = spoil(root, what)
    with pytest.raises(InputError, match=BAD[what]):
        read_segmentation_folder(root, **options)
    if what == "index":
        with pytest.raises(InputError, match="no picture with a mask left; the first fault was"):
            read_segmentation_folder(root, skip_bad=True, **options)
        return
    data = read_segmentation_folder(root, skip_bad=True)
    assert len(data.train) + len(data.val) == 4
    assert len(data.train.skipped + data.val.skipped) == 1 and "left out: 1" in data.describe()


def test_bad_colours_name_pixel_and_remedy(tmp_path):
    files = [colored(indices(k)) for k in range(5)]
    files[2][1, 3] = (1, 2, 3)
    root = write(tmp_path, files, lists=LISTS)
    lines = [f"{r} {g} {b} {name}" for name, (r, g, b) in PALETTE.items()]
    (root / "palette.txt").write_text("\n".join([*lines, "0 0 0 void"]))
    with pytest.raises(
        InputError, match=r"2\.png: colour \(1, 2, 3\) at row 1, column 3 .*Add a line `1 2 3 NAME`"
    ):
        read_segmentation_folder(root)
    data = read_segmentation_folder(root, skip_bad=True)
    assert data.train.names == ["0.png", "3.png"]
    (root / "classes.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"classes\.txt and .*palette\.txt: keep the first if"):
        read_segmentation_folder(root)


def test_jpeg_masks_are_told_apart(tmp_path):
    root = write(tmp_path, [colored(indices(k)) for k in range(5)], lists=LISTS, ending="jpg")
    lines = [f"{r} {g} {b} {name}" for name, (r, g, b) in PALETTE.items()]
    (root / "palette.txt").write_text("\n".join(lines))
    with pytest.raises(InputError, match="JPEG changes the pixels of a mask: save masks as PNG"):
        read_segmentation_folder(root)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1 2 road", "'1 2 road' has no colour"),
        ("1 2 3", "line 2: '1 2 3' has a colour but no name"),
        ("1 2 300 car", r"line 2: colour \[1, 2, 300\]"),
        ("128 64 128 car", r"line 2: the colour \[128, 64, 128\] stands there twice"),
        ("1 2 3 road", "line 2: the name 'road' stands there twice"),
    ],
)
def test_bad_lines_of_the_palette(tmp_path, line, message):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    (root / "palette.txt").write_text(f"128 64 128 road\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_segmentation_folder(root)


def test_other_bad_folders(tmp_path):
    with pytest.raises(InputError, match="no folders images/ and masks/ or JPEGImages/"):
        read_segmentation_folder(tmp_path)
    grey = [np.where(indices(k) == 1, 128, 0).astype(np.uint8) for k in range(5)]
    root = write(tmp_path / "grey", grey, lists=LISTS)
    with pytest.raises(InputError, match="the training masks are 0, 128: too far apart"):
        read_segmentation_folder(root)
    root = write(tmp_path / "good", map(indices, range(5)), lists=LISTS)
    with pytest.raises(InputError, match=r"void moon: no class of .*masks"):
        read_segmentation_folder(root, void=["moon"])
    with pytest.raises(InputError, match=r"void 300: wanted an index from 0 to 255"):
        read_segmentation_folder(root, void=["300"])
    Image.new("RGB", (3, 3)).save(root / "images" / "0.bmp")
    with pytest.raises(InputError, match=r"0\.png: 0\.bmp is there too"):
        read_segmentation_folder(root)


def test_generated_scenes():
    data = generate_segmentation(6, 3, seed=4, num_classes=3, image_size=(40, 56))
    assert data.class_names == ("background", "star", "ring", "cross")
    again = generate_segmentation(6, 3, seed=4, num_classes=3, image_size=(40, 56))
    np.testing.assert_array_equal(data.train.images, again.train.images)
    scene = generate_scene((4, 1, 2), (40, 56), 3, _settings())
    np.testing.assert_array_equal(data.val.images[2], scene.image)
    np.testing.assert_array_equal(data.val.masks[2], scene.class_mask)
    assert data.train.masks.shape == (6, 40, 56) and data.train.pixels[:4].min() > 0
    assert not np.array_equal(data.train.images[0], data.val.images[0])


def _settings():
    from kerascv_d2l import SceneSettings

    return SceneSettings()


def test_masks_are_compressed_without_loss():
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_data_is_checked():
    images, masks = np.zeros((2, 4, 6, 3), np.uint8), np.zeros((2, 4, 6), np.uint8)
    masks[0, 0] = 3
    split = SegmentationSplit(images, masks, ["a", "b"])
    with pytest.raises(InputError, match="label 3 in the training masks, but there are 2 class"):
        SegmentationData(("x", "y"), split, split, "here")
    with pytest.raises(InputError, match="2 class names, 1 of them different"):
        SegmentationData(("x", "x"), split, split, "here")
    with pytest.raises(InputError, match="a: the mask is 6 x 4 pixels"):
        SegmentationSplit(images, masks.transpose(0, 2, 1), ["a", "b"])
    masks[:] = 255
    with pytest.raises(InputError, match="the training masks are void everywhere"):
        void = SegmentationSplit(images, masks, ["a", "b"])
        SegmentationData(("x", "y"), void, void, "here")


def test_balancing_weights_are_median_frequencies():
    masks = np.array([[[0] * 8 + [1] * 4 + [2] * 2 + [255] * 6]], np.uint8)
    split = SegmentationSplit(np.zeros((1, 1, 20, 3), np.uint8), masks, ["a"])
    data = SegmentationData(("a", "b", "c", "never"), split, split, "here")
    np.testing.assert_allclose(data.balancing_weights(), [0.5, 1, 2, 1])


def test_colours_are_vocs():
    np.testing.assert_array_equal(default_colors(21), VOC_COLORMAP)
    assert len({tuple(color) for color in default_colors(255).tolist()}) == 255
