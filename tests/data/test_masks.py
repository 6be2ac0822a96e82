"""Folders of images and masks: the labels that come out, and what is refused, by name."""

import numpy as np
import pytest
from PIL import Image

from kerascv_d2l import InputError, load
from kerascv_d2l.data.splits import default_colors
from kerascv_d2l.data.voc_classes import VOC_CLASSES, VOC_COLORMAP, VOC_IGNORE_COLOR

pytestmark = pytest.mark.quick
PALETTE = {"road": (128, 64, 128), "sky": (70, 130, 180), "tree": (107, 142, 35)}


def read(folder, val_fraction=0.2, seed=0, skip_bad=False, **options):
    given = {"val_fraction": val_fraction, "seed": seed, "skip_bad": skip_bad}
    return load(folder, "segmentation", **given, **options)


def sizes(k):
    return 10 + k, 14 + 2 * k  # height != width, different for every image


def indices(k, highest=2):
    """Index mask of image k: every index from 0 to `highest`, and 255."""
    mask = np.random.default_rng(k).integers(0, highest + 2, sizes(k)).astype(np.uint8)
    mask[0, : highest + 2] = range(highest + 2)
    return np.where(mask > highest, 255, mask).astype(np.uint8)


def write(root, masks, *, images="images", folder="masks", lists=None, ending="png"):
    """Images 0 … n - 1 with these masks (arrays or Pillow images), and split files."""
    (root / images).mkdir(parents=True)
    (root / folder).mkdir()
    for k, mask in enumerate(masks):
        pixels = np.random.default_rng(100 + k).integers(0, 256, (*sizes(k), 3), np.uint8)
        Image.fromarray(pixels).save(root / images / f"{k}.{('png', 'jpg', 'gif')[k % 3]}")
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        image.save(root / folder / f"{k}.{ending}")
    if lists:
        for split, names in lists.items():
            (root / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


LISTS = {"train": ["2", "0.png", "3.png"], "val": ["1", "4"]}


def labels(split):
    return [split.mask(k) for k in range(len(split))]


def test_indices_without_names(tmp_path):
    data = read(write(tmp_path, map(indices, range(5)), lists=LISTS))
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert data.train.names == ["2.gif", "0.png", "3.png"] and data.val.names == ["1.jpg", "4.jpg"]
    for split, numbers in ((data.train, (2, 0, 3)), (data.val, (1, 4))):
        for mask, k in zip(labels(split), numbers, strict=True):
            np.testing.assert_array_equal(mask, indices(k))
        assert split.sizes.tolist() == [list(sizes(k)) for k in numbers]
        counted = np.bincount(np.concatenate([m.ravel() for m in labels(split)]), minlength=256)
        np.testing.assert_array_equal(split.label_pixels, counted)
    assert data.train.plain.tolist() == [False, True, True]
    text = data.describe()
    assert "train: 3 images (10-13 x 14-20 pixels)" in text and "% ignored" in text


def test_masks_of_another_size_say_nothing_of_classes(tmp_path):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    Image.fromarray(np.full((5, 5), 3, np.uint8)).save(root / "masks/2.png")
    data = read(root, skip_bad=True)
    assert data.class_names == ("class 0", "class 1", "class 2") and len(data.train) == 2


def test_without_lists_the_split_goes_by_names_and_seed(tmp_path):
    write(tmp_path, map(indices, range(5)))
    data = [read(tmp_path, 0.4, seed) for seed in (0, 0, 1, 2, 3)]
    assert all(len(d.train) == 3 and len(d.val) == 2 for d in data)
    assert not set(data[0].train.names) & set(data[0].val.names)
    assert data[0].val.names == data[1].val.names
    assert len({tuple(d.val.names) for d in data}) > 1


@pytest.mark.parametrize("how", ["index", "name in classes.txt", "names given", "name given"])
def test_a_void_class_in_the_middle(tmp_path, how):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    options = {}
    if how == "index":
        options, names = {"ignore": ["1"]}, ("class 0", "class 2")
    elif how == "name in classes.txt":
        (root / "classes.txt").write_text("# of the masks\n10 20 30 road\n\nVoid\ntree\n")
        names = ("road", "tree")
    elif how == "names given":
        options, names = {"classes": ["road", "void", "tree"]}, ("road", "tree")
    else:
        options = {"classes": ["road", "sky", "tree"], "ignore": ["sky", 255]}
        names = ("road", "tree")
    data = read(root, **options)
    assert data.class_names == names
    expected = indices(2)
    expected = np.where(expected == 2, 1, np.where(expected == 1, 255, expected))
    np.testing.assert_array_equal(data.train.mask(0), expected)
    # A class that is left out takes its colour with it.
    wanted = default_colors(3)[[0, 2]] if options.get("ignore") else default_colors(2)
    if how == "name in classes.txt":
        wanted[0] = (10, 20, 30)
    np.testing.assert_array_equal(data.colors, wanted)


def test_void_may_be_an_index_without_a_name(tmp_path):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    data = read(root, classes=["road", "sky"], ignore=["2"])
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
    data = read(root)
    assert data.class_names == tuple(PALETTE)
    np.testing.assert_array_equal(data.colors, list(PALETTE.values()))
    np.testing.assert_array_equal(data.val.mask(1), indices(4))
    without = read(root, ignore=["sky"])
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
    (tmp_path / "VOCdevkit" / "VOC2007").mkdir()
    for path in (tmp_path, tmp_path / "VOCdevkit", root):
        data = read(path)
        assert data.class_names == tuple(VOC_CLASSES)
        np.testing.assert_array_equal(data.colors, VOC_COLORMAP)
        assert data.val.names == ["1.jpg", "4.jpg"]  # as the lists say
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
    elif what == "broken image":
        (images / "3.png").write_bytes(b"nothing")
    elif what == "no image":
        (images / "1.jpg").unlink()
    elif what == "colours without a list":
        Image.fromarray(colored(indices(0))).save(masks / "0.png")
    return {}


BAD = {
    "size": r"masks/2\.png: the mask is 18 x 12 pixels .* its image 2\.gif 12 x 18: .*resize it",
    "no mask": r"images/0\.png: no mask for this image: add it",
    "index": r"masks/2\.png: index 2 at row 0, column 2 is no class of classes .* Name it, or mark",
    "val index": r"masks/4\.png: index 3 .* is no class of .* \(the training masks; classes",
    "broken mask": r"masks/3\.png: damaged or truncated mask",
    "broken image": r"images/3\.png: not an image",
    "no image": r"val\.txt, line 1: '1' has no image",
    "colours without a list": r"masks/0\.png: a mask in colours .* palette\.txt of lines `R G B",
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_or_left_out(tmp_path, what):
    root = write(tmp_path, map(indices, range(5)), lists=LISTS)
    options = spoil(root, what)
    with pytest.raises(InputError, match=BAD[what]):
        read(root, **options)
    if what == "index":
        with pytest.raises(InputError, match="train split: no image left; the first fault was"):
            read(root, skip_bad=True, **options)
        return
    data = read(root, skip_bad=True)
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
        read(root)
    data = read(root, skip_bad=True)
    assert data.train.names == ["0.png", "3.png"]
    (root / "classes.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"classes\.txt and .*palette\.txt: keep the first if"):
        read(root)


def test_jpeg_masks_are_told_apart(tmp_path):
    root = write(tmp_path, [colored(indices(k)) for k in range(5)], lists=LISTS, ending="jpg")
    lines = [f"{r} {g} {b} {name}" for name, (r, g, b) in PALETTE.items()]
    (root / "palette.txt").write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=r"2\.jpg: a mask as JPEG, which changes pixels .* save masks as PNG"
    ):
        read(root)


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
        read(root)


def test_other_bad_folders(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "images" / "0.bmp")
    with pytest.raises(
        InputError, match=r"no known layout for segmentation. It holds 0\.bmp(?s:.*)VOC"
    ):
        read(tmp_path)
    grey = [np.where(indices(k) == 1, 128, 0).astype(np.uint8) for k in range(5)]
    root = write(tmp_path / "grey", grey, lists=LISTS)
    with pytest.raises(InputError, match="the training masks are 0, 128: too far apart"):
        read(root)
    root = write(tmp_path / "good", map(indices, range(5)), lists=LISTS)
    with pytest.raises(InputError, match=r"ignore moon: no class of .*training masks"):
        read(root, ignore=["moon"])
    with pytest.raises(InputError, match=r"ignore 300: wanted an index from 0 to 255"):
        read(root, ignore=["300"])
    Image.new("RGB", (3, 3)).save(root / "images" / "0.bmp")
    with pytest.raises(InputError, match=r"0\.png: 0\.bmp is there too"):
        read(root)


def test_only_0_and_255(tmp_path):
    """What everybody means by it: an object on a background."""
    binary = [np.where(indices(k) == 1, 255, 0).astype(np.uint8) for k in range(5)]
    root = write(tmp_path, binary, lists=LISTS)
    data = read(root)
    assert data.class_names == ("background", "foreground")
    assert data.notes == ["masks have the values 0 and 255 only: read as background and foreground"]
    np.testing.assert_array_equal(data.val.mask(1), indices(4) == 1)
    # Whatever they are stored as, and under the names given.
    for mode in ("1", "RGB", "RGBA", "P"):
        for k, mask in enumerate(binary):
            Image.fromarray(mask).convert(mode).save(root / "masks" / f"{k}.png")
        data = read(root, classes=["cell", "gap"])
        assert data.class_names == ("cell", "gap"), mode
        np.testing.assert_array_equal(data.val.mask(1), indices(4) == 1)
    for k, mask in enumerate(binary):
        Image.fromarray(mask).save(root / "masks" / f"{k}.png")
    with pytest.raises(InputError, match="there is but one class"):
        read(root, ignore=["255"])


def test_indices_saved_as_rgb(tmp_path):
    greys = [Image.fromarray(np.stack([indices(k)] * 3, -1)) for k in range(5)]
    data = read(write(tmp_path, greys, lists=LISTS))
    np.testing.assert_array_equal(data.val.mask(1), indices(4))


def test_nothing_to_learn(tmp_path):
    one = [np.zeros(sizes(k), np.uint8) for k in range(5)]
    with pytest.raises(InputError, match=r"there is but one class \(class 0\)"):
        read(write(tmp_path / "one", one))
    root = write(tmp_path / "named", map(indices, range(5)))
    with pytest.raises(InputError, match=r"classes: no mask has a pixel of moon. .*--ignore moon"):
        read(root, classes=["a", "b", "c", "moon"])
    (root / "classes.txt").write_text("a\nb\nc\nmoon\n")
    with pytest.raises(InputError, match=r"classes\.txt: no mask has a pixel of moon"):
        read(root)
    assert read(root, ignore=["moon"]).class_names == ("a", "b", "c")
    root = tmp_path / "equal"
    (root / "masks").mkdir(parents=True)
    (root / "images").mkdir()
    for k in range(3):
        Image.fromarray(np.full((6, 8, 3), 50 * k, np.uint8)).save(root / "images" / f"{k}.png")
        Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(root / "masks" / f"{k}.png")
    with pytest.raises(InputError, match="all 3 masks are equal"):
        read(root)


def images_and_masks(root, names, images="{}.jpg", masks="{}.png"):
    """Write a data set whose image and mask `k` are called so; what the masks hold, by image."""
    wanted = {}
    for k, name in enumerate(names):
        for pattern, pixels in (
            (images, np.full((*sizes(k), 3), 20 * k, np.uint8)),
            (masks, indices(k)),
        ):
            file = root / pattern.format(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file, format="PNG" if pixels.ndim == 2 else None)
        wanted[str(root / images.format(name))] = indices(k)
    return wanted


@pytest.mark.parametrize(
    ("names", "images", "masks", "counts"),
    [
        ("abcde", "{}.jpg", "{}_mask.png", (4, 1)),
        ("abcde", "photos/{}.jpeg", "photos/{}-seg.png", (4, 1)),
        (["train/a", "train/b", "valid/a", "test/a"], "{}.jpg", "{}_mask.png", (2, 1, 1)),
        (["a", "b/a", "b/c/a"], "images/{}.jfif", "masks/{}.png", (2, 1)),
        (["a", "b", "c"], "imgs/{}.TIFF", "masks/{}_mask.gif", (2, 1)),
        (["a", "b", "c"], "images/{}.jpg", "masks/mask_{}.png", (2, 1)),
        (["1", "2", "3"], "images/img_{}.jpg", "masks/mask_{}.png", (2, 1)),
        (["1", "2", "3"], "image{}.jpg", "mask{}.png", (2, 1)),
        (["a", "b", "c"], "{}-photo.jpg", "{}-seg.png", (2, 1)),
        (["a", "b", "c"], "images/IMG_{}.JPG", "masks/img_{}.png", (2, 1)),
        (["train/a", "train/b", "val/a"], "images/{}.jpg", "masks/{}.png", (2, 1)),
        (["a", "b", "c"], "train_images/{}.jpg", "train_masks/{}.png", (2, 1)),
    ],
)
def test_where_masks_may_be(tmp_path, names, images, masks, counts):
    wanted = images_and_masks(tmp_path, names, images, masks)
    for litter in (".DS_Store", "Thumbs.db", "__MACOSX/._a_mask.png", "._a.jpg"):
        (tmp_path / litter).parent.mkdir(exist_ok=True)
        (tmp_path / litter).write_bytes(b"x")
    data = read(tmp_path)
    assert tuple(map(len, data.splits.values())) == counts
    for split in data.splits.values():
        for k, path in enumerate(split.images):
            np.testing.assert_array_equal(split.mask(k), wanted.pop(path))
    assert not wanted


@pytest.mark.parametrize("parts", [("train", "valid", "test"), ("training", "val")])
def test_parts_with_images_and_masks_each(tmp_path, parts):
    wanted = {}
    for part in parts:
        wanted |= images_and_masks(tmp_path / part, "ab", "images/{}.jpg", "masks/{}.png")
    data = read(tmp_path)
    assert [len(split) for split in data.splits.values()] == [2] * len(parts)
    for part, split in zip(parts, data.splits.values(), strict=True):
        assert all(f"/{part}/" in path for path in split.images)
        for k, path in enumerate(split.images):
            np.testing.assert_array_equal(split.mask(k), wanted[path])
    # A test part without masks is not read, and that is said.
    if "test" in parts:
        for file in (tmp_path / "test/masks").iterdir():
            file.unlink()
        data = read(tmp_path)
        assert data.test is None and "test part have no masks: not read" in data.notes[0]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{0}/images/{0}.png", "{0}/masks/{1}f3.png"),
        ("images/{0}.jpg", "masks/{0}/{1}.png"),
        ("{0}.png", "{0}_mask_{1}.png"),
        ("{0} (1).png", "{0} (1)_mask{1}.png"),
    ],
)
def test_a_file_for_each_instance(tmp_path, image, mask):
    wanted = {}
    for k, name in enumerate(("a1", "b2", "c3")):
        file = tmp_path / image.format(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*sizes(k), 3), 20 * k, np.uint8)).save(file)
        wanted[str(file)] = np.zeros(sizes(k), np.uint8)
        for i in range(k + 1):  # one instance on the first image
            instance = np.zeros(sizes(k), np.uint8)
            instance[i : i + 3, 2 * i + k : 2 * i + 5] = 255
            file = tmp_path / mask.format(name, i)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(instance).save(file)
            wanted[str(tmp_path / image.format(name))][instance > 0] = 1
    data = read(tmp_path)
    assert data.class_names == ("background", "foreground") and len(data.train) == 2
    for split in (data.train, data.val):
        for k, path in enumerate(split.images):
            np.testing.assert_array_equal(split.mask(k), wanted[path])


def test_masks_in_folders_beside_those_of_images(tmp_path):
    wanted = images_and_masks(tmp_path, "ab", "train/{}.png", "trainannot/{}.png")
    wanted |= images_and_masks(tmp_path, "c", "val/{}.png", "valannot/{}.png")
    data = read(tmp_path)
    assert (len(data.train), len(data.val)) == (2, 1)
    np.testing.assert_array_equal(data.val.mask(0), wanted[data.val.images[0]])


def test_masks_that_were_black_and_white(tmp_path):
    images_and_masks(tmp_path, "abc", "images/{}.jpg", "masks/{}.png")
    for k, name in enumerate("abc"):
        mask = np.zeros(sizes(k), np.uint8)
        mask[:, 6:] = 255
        mask[:, 5] = np.linspace(90, 160, len(mask))
        mask[::3, 7] = 250
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    with pytest.raises(InputError, match=r"nearly black and white, but have \d+ grey levels"):
        read(tmp_path)


def test_instances_may_have_names(tmp_path):
    for k in range(4):
        for name in (f"{k}.png", f"{k}_mask_0.png", f"{k}_mask_1.png"):
            mask = np.eye(9, 12, k, dtype=np.uint8) * 7
            Image.fromarray(mask if "mask" in name else np.stack([mask] * 3, -1)).save(
                tmp_path / name
            )
    assert read(tmp_path, classes=["glass", "cell"]).class_names == ("glass", "cell")
    with pytest.raises(InputError, match="classes: 3 classes, but there are several masks for an"):
        read(tmp_path, classes=["a", "b", "c"])
    Image.fromarray(np.arange(108, dtype=np.uint8).reshape(9, 12)).save(tmp_path / "0_mask_1.png")
    with pytest.raises(InputError, match=r"0_mask_1\.png: one of several masks of an image, of"):
        read(tmp_path)


def test_masks_without_an_image_are_named(tmp_path):
    images_and_masks(tmp_path, "abc", "images/{}.jpg", "masks/{}.png")
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "x.png")
    with pytest.raises(InputError, match=r"masks/x\.png: no image for this mask"):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert len(data.train) + len(data.val) == 2
    assert [reason.split(": ")[1] for reason in data.skipped] == [
        "no image for this mask",
        "no mask for this image",
    ]


def test_jpeg_masks_under_another_name(tmp_path):
    images_and_masks(tmp_path, "abc", "images/{}.jpg", "masks/{}.png")
    Image.fromarray(indices(1)).save(tmp_path / "masks" / "b.png", "JPEG")
    with pytest.raises(InputError, match=r"masks/b\.png: a mask as JPEG"):
        read(tmp_path)
    assert len(read(tmp_path, skip_bad=True).skipped) == 1


LOSSY = {
    "lossy WebP": ("webp", {"quality": 90}),
    "JPEG2000": ("jp2", {"quality_layers": [40]}),
    "TIFF with jpeg compression": ("tif", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_masks_are_refused(tmp_path, kind):
    ending, options = LOSSY[kind]
    images_and_masks(tmp_path, "abc", "images/{}.jpg", "masks/{}.png")
    (tmp_path / "masks" / "b.png").unlink()
    Image.fromarray(indices(1)).save(tmp_path / "masks" / f"b.{ending}", **options)
    with pytest.raises(InputError, match=rf"masks/b\.{ending}: a mask as {kind}, which changes"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("webp", {"lossless": True}),
        ("webp", {"lossless": True, "exif": Image.Exif().tobytes()}),
        ("tif", {"compression": "tiff_lzw"}),
    ],
)
def test_lossless_masks_are_read(tmp_path, ending, options):
    images_and_masks(tmp_path, "abc", "images/{}.jpg", "masks/{}.png")
    wanted = [read(tmp_path).train.mask(k) for k in range(2)]
    for name in "abc":
        with Image.open(tmp_path / "masks" / f"{name}.png") as mask:
            mask.save(tmp_path / "masks" / f"{name}.{ending}", **options)
        (tmp_path / "masks" / f"{name}.png").unlink()
    found = read(tmp_path).train
    for k in range(2):
        np.testing.assert_array_equal(found.mask(k), wanted[k])


@pytest.mark.parametrize("side", ["images", "masks"])
def test_folders_on_one_side_only(tmp_path, side):
    images_and_masks(tmp_path, ["x/a", "y/b", "z/c"], "images/{}.jpg", "masks/{}.png")
    wanted = {path.stem: np.array(Image.open(path)) for path in tmp_path.glob("masks/*/*")}
    for path in list(tmp_path.glob(f"{side}/*/*")):
        path.rename(tmp_path / side / path.name)
    data = read(tmp_path)
    for split in data.splits.values():
        for k, name in enumerate(split.names):
            np.testing.assert_array_equal(split.mask(k), wanted.pop(name[-5]))
    assert not wanted


def test_two_masks_of_one_image_are_no_instances(tmp_path):
    images_and_masks(tmp_path, "abc", "images/{}.jpg", "masks/{}.png")
    for name in ("a.bmp", "a_mask.png"):
        Image.open(tmp_path / "masks" / "a.png").save(tmp_path / "masks" / name)
        with pytest.raises(
            InputError, match=r"masks/a[._].*masks?.* is there too|a\.\w+ is there too"
        ):
            read(tmp_path)
        (tmp_path / "masks" / name).unlink()
    assert len(read(tmp_path).train) == 2


def test_255_as_an_object_in_some_masks_is_noted(tmp_path):
    masks = [(indices(k, 1) == 1).astype(np.uint8) * (1, 255)[k % 2] for k in range(6)]
    assert any(
        "3 mask(s) have but class 0 and what is ignored" in n
        for n in read(write(tmp_path, masks)).notes
    )


def test_masks_of_turned_images_are_noted(tmp_path):
    root = write(tmp_path, map(indices, range(5)))
    exif = Image.Exif()
    exif[0x112] = 3
    Image.open(root / "images" / "1.jpg").save(root / "images" / "1.jpg", exif=exif)
    assert any("1 image(s) are stored turned (EXIF)" in note for note in read(root).notes)


def test_two_classes_of_one_colour_are_drawn_in_two(tmp_path):
    images_and_masks(tmp_path, "abcde", "images/{}.jpg", "masks/{}.png")
    lines = [f"9 {60 + k // 2} 9 class {k}" for k in range(3)]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    data = read(tmp_path)
    assert data.colors[0].tolist() == [9, 60, 9]
    apart = np.abs(data.colors[:, None].astype(int) - data.colors).max(-1)
    assert apart[~np.eye(3, dtype=bool)].min() >= 32
    assert any("class 1, class 2: drawn in another colour than given" in n for n in data.notes)
