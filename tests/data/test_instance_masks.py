"""Instance masks: from label files to batches, compared with slow and obvious versions."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco

from kerascv_d2l.data.batches import batches
from kerascv_d2l.data.generated import generate_detection
from kerascv_d2l.data.load import load
from kerascv_d2l.data.splits import Split
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation import (
    Compose,
    Mosaic,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomResizedCrop,
    RandomScaleCrop,
)
from kerascv_d2l.layers.augmentation.base import Example
from kerascv_d2l.ops.geometry import crop_mask, overlap
from kerascv_d2l.ops.rle import decode_masks, encode_masks, encode_outline, share_inside

HEIGHT, WIDTH = 30, 40
SQUARE = [[4, 2, 20, 2, 20, 12, 4, 12]]  # x 4 to 20, y 2 to 12
BOX = [4, 2, 16, 10]


def blobs(count, size=(HEIGHT, WIDTH), seed=0):
    """Masks of any shape, some of them of a few pixels, one that reaches all borders."""
    draw = np.random.default_rng(seed)
    masks = np.zeros((count, *size), np.uint8)
    for mask in masks:
        top, left = draw.integers(0, size[0] - 2), draw.integers(0, size[1] - 2)
        part = mask[top : top + draw.integers(1, 20), left : left + draw.integers(1, 20)]
        part[:] = draw.random(part.shape) < 0.7
        part[0, 0] = 1
    masks[0] = draw.random(size) < 0.5
    return masks


def boxes_around(masks):
    """Normalised corners of each mask, float32 `(n, 4)`."""
    height, width = masks.shape[1:]
    found = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        found.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return np.array(found, np.float32) / np.float32([width, height, width, height])


# ---------------------------------------------------------------- encodings


@pytest.mark.quick
def test_encodings_are_those_of_pycocotools_and_come_back():
    masks = blobs(9)
    encodings = encode_masks(masks)
    assert encodings[3] == coco.encode(np.asfortranarray(masks[3]))
    np.testing.assert_array_equal(decode_masks(encodings, (HEIGHT, WIDTH)), masks)
    assert decode_masks([], (3, 4)).shape == (0, 3, 4)
    for encoding in encodings:  # in every form that files have
        counts = encoding["counts"].decode()
        assert encode_outline(encoding | {"counts": counts}, (HEIGHT, WIDTH)) == encoding
    runs, last = [0], 0
    for pixel in masks[2].ravel("F").tolist():
        runs += [0] * (pixel != last)
        runs[-1] += 1
        last = pixel
    outline = {"size": [HEIGHT, WIDTH], "counts": runs}
    assert encode_outline(outline, (HEIGHT, WIDTH)) == encodings[2]
    with pytest.raises(InputError, match="its mask has no polygon"):
        encode_outline([], (HEIGHT, WIDTH))


@pytest.mark.quick
def test_windows_are_decoded_as_dense_masks_are_cropped():
    masks = blobs(9)
    encodings = encode_masks(masks)
    draw = np.random.default_rng(1)
    for k in range(40):
        size = draw.integers(1, 50, 2).tolist()
        window = [*draw.integers(-20, 25, 2), *draw.integers(1, 60, 2)]  # beyond the image, too
        dense = crop_mask(masks, window, size, fill=0, axis=1)
        part, place = overlap(window, (HEIGHT, WIDTH), size)
        found = decode_masks(encodings, size, part.numpy(), place.numpy())
        np.testing.assert_array_equal(found, dense, err_msg=str((k, window, size)))
        # Pixel by pixel: the old pixel under the centre of each new one.
        (top, left, height, width), (row, column, rows, columns) = part.numpy(), place.numpy()
        i, j = draw.integers(0, rows), draw.integers(0, columns)
        y, x = top + int((i + 0.5) * height / rows), left + int((j + 0.5) * width / columns)
        np.testing.assert_array_equal(found[:, row + i, column + j], masks[:, y, x])


@pytest.mark.quick
def test_share_of_a_mask_in_a_box():
    (encoding,) = encode_masks([np.pad(np.ones((10, 4)), ((2, 8), (3, 13)))])
    assert share_inside(encoding, (3, 2, 7, 12)) == share_inside(encoding, (0, 0, 20, 20)) == 1
    assert share_inside(encoding, (3, 2, 7, 6.9)) == 0.5
    assert share_inside(encoding, (-3, -3, 3, 2)) == 0


# ---------------------------------------------------------------- files


def write_coco(root, *annotations):
    """Two images; each annotation is on the first, and the square on the second."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name in "ab":
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(root / "images" / f"{name}.png")
    square = {"segmentation": SQUARE, "bbox": BOX}
    rows = [square | a for a in annotations]
    content = {
        "images": [{"id": k, "file_name": f"{n}.png"} for k, n in enumerate("ab")],
        "annotations": [
            {"id": k, "category_id": 1, "image_id": int(k >= len(rows)), **row}
            for k, row in enumerate([*rows, square])
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def both(data):
    """`(boxes, masks)` of all images."""
    parts = [part.targets for part in data.splits.values()]
    return (
        np.concatenate([rows for part in parts for rows in part["boxes"]]),
        [mask for part in parts for masks in part["masks"] for mask in masks],
    )


@pytest.mark.quick
def test_masks_are_read_where_all_objects_have_one(tmp_path):
    folder = write_coco(tmp_path, {}, {"iscrowd": 1, "segmentation": []})
    data = load(folder, "detection")
    assert data.train.has_masks and "with masks" in data.describe()
    square = np.pad(np.ones((10, 16), np.uint8), ((2, 18), (4, 20)))
    for mask in both(data)[1]:  # the crowd has its box
        np.testing.assert_array_equal(coco.decode(mask), square)
    assert not load(folder, "detection", masks=False).train.has_masks
    folder = write_coco(tmp_path, {}, {"segmentation": []})
    data = load(folder, "detection")
    assert not data.train.has_masks
    assert data.notes == [
        f"1 of 3 objects have no mask, so masks are not read: {folder}/annotations.json, "
        "annotations[1] (id 1)"
    ]
    with pytest.raises(InputError, match=r"annotations\[1\] \(id 1\): it has no mask"):
        load(folder, "detection", masks=True)
    data = load(folder, "detection", masks=True, skip_bad=True)
    assert data.train.has_masks and len(data.skipped) == 1
    folder = write_coco(tmp_path, {"segmentation": []})
    with pytest.raises(InputError, match="of the 2 objects has a mask") as error:
        content = json.loads((folder / "annotations.json").read_text())
        content["annotations"][1]["segmentation"] = []
        (folder / "annotations.json").write_text(json.dumps(content))
        load(folder, "detection", masks=True)
    assert "--model faster_rcnn" in str(error.value)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"segmentation": [[4, 2, 20, 12]]}, r"a polygon of its mask has 2 point\(s\)"),
        ({"segmentation": [*SQUARE, [1, 2, 3, 4, 5, 6, 7]]}, r"has 3.5 point\(s\)"),
        ({"segmentation": [[4, 2, 20, 2, 20, "x"]]}, "has a value that is no number"),
        ({"segmentation": [[4.1, 2.1, 4.2, 2.1, 4.2, 2.2]]}, "its mask is empty"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}}, "of 30 x 40"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 7]}}, "its mask is damaged"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "5"}}, "its mask is damaged"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": ""}}, "its mask is damaged"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "Z"}}, "its mask is damaged"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1200]}}, "its mask is empty"),
        ({"bbox": [16, 10, 20, 15]}, "only 5% of its mask lies in its box"),
        ({"segmentation": "x"}, "neither polygons nor a run-length encoding"),
    ],
)
def test_bad_masks_are_named_or_left_out(tmp_path, bad, message):
    folder = write_coco(tmp_path, {}, bad)
    with pytest.raises(InputError, match=rf"annotations\.json, annotations\[1\] .*{message}"):
        load(folder, "detection", masks=True)
    data = load(folder, "detection", masks=True, skip_bad=True)
    assert len(data.skipped) == 1 and len(both(data)[0]) == 2
    assert load(folder, "detection", masks=False).skipped == []  # of boxes alone nothing is wrong


def test_other_sources_without_masks_are_refused():
    with pytest.raises(InputError, match="banana_detection has boxes without masks"):
        load("banana_detection", "detection", masks=True)
    with pytest.raises(InputError, match="masks is for detection"):
        load("generated", "segmentation", masks=True)
    assert not load("generated", "detection", masks=False, num_train=1, num_val=1).train.has_masks


@pytest.mark.quick
def test_a_split_refuses_masks_of_another_size():
    image, mask = np.zeros((1, 8, 9, 3), np.uint8), encode_masks(np.ones((1, 9, 8)))
    with pytest.raises(InputError, match=r"a: a mask is \[9, 8\], the image \[8, 9\]"):
        Split(image, {"boxes": [[[0, 0, 1, 1]]], "classes": [[0]], "masks": [mask]}, ["a"])


# ---------------------------------------------------------------- batches


def split_of(count=4, objects=5):
    """Images of several sizes; the pixels of the masks are white, but for the first."""
    images, targets, sizes = [], {"boxes": [], "classes": [], "masks": []}, []
    for k in range(count):
        size = (HEIGHT + 8 * k, WIDTH + 3 * k)
        masks = blobs(objects + k, size, seed=k)[1:]
        targets["boxes"].append(boxes_around(masks))
        targets["classes"].append(np.arange(len(masks)))
        targets["masks"].append(encode_masks(masks))
        images.append(np.repeat(masks.any(0)[..., None], 3, -1).astype(np.uint8) * 255)
        sizes.append(size)
    images = [_png(image) for image in images]
    return Split(images, targets, [f"{k}" for k in range(count)], sizes)


def _png(image):
    import io

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


SIZE = (24, 36)
CROPS = {
    "none": None,
    "scale": Compose([RandomScaleCrop(SIZE, fill=0.0), RandomHorizontalFlip()]),
    "flip, then crop": Compose([RandomHorizontalFlip(), RandomResizedCrop(SIZE)]),
}


@pytest.mark.parametrize("name", CROPS)
def test_batches_give_masks_that_lie_in_their_boxes(name):
    split = split_of()
    dataset = batches(split, SIZE, 4, training=True, transform=CROPS[name], masks=True, seed=3)
    for _, y in dataset.take(3).as_numpy_iterator():
        masks, there = y["masks"], y["classes"] >= 0
        assert masks.dtype == np.uint8 and masks.shape == (*there.shape, *SIZE)
        assert masks.max() == 1 and not masks[~there].any()
        if name != "none":  # what is cut off goes
            assert masks[there].any((1, 2)).all()
        for box, mask in zip(y["boxes"][there], masks[there], strict=True):
            rows, columns = np.nonzero(mask)
            x1, y1, x2, y2 = box * np.tile(SIZE[::-1], 2)
            inside = (columns + 1 > x1 - 0.51) & (columns < x2 + 0.51)
            assert (inside & (rows + 1 > y1 - 0.51) & (rows < y2 + 0.51)).all()


def test_windows_decoded_alone_are_those_of_whole_masks():
    """Mosaics and crops by IoU: the same examples, whether masks are decoded before or after."""
    both = []
    for cuts_first in (True, False):
        transform = Mosaic(SIZE, p=0.5, otherwise=RandomIoUCrop(SIZE, zoom_out=0.5))
        transform.cuts_first = cuts_first
        options = {"training": True, "transform": transform, "seed": 1, "masks": True}
        dataset = batches(split_of(), SIZE, 4, **options).take(3)
        both.append([y["masks"] for _, y in dataset.as_numpy_iterator()])
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.any((2, 3)).sum() > 8


def test_masks_for_evaluation_are_the_nearest_pixels():
    split = split_of()
    rows = {}
    for k, (_, y) in enumerate(batches(split, SIZE, 1, masks=True).as_numpy_iterator()):
        masks = coco.decode(split.targets["masks"][k])  # (h, w, n)
        height, width = masks.shape[:2]
        i = ((np.arange(SIZE[0]) + 0.5) * height / SIZE[0]).astype(int)
        j = ((np.arange(SIZE[1]) + 0.5) * width / SIZE[1]).astype(int)
        expected = masks[i][:, j].transpose(2, 0, 1)
        np.testing.assert_array_equal(y["masks"][0, : len(expected)], expected)
        rows[k] = len(expected)
    assert rows == {0: 4, 1: 5, 2: 6, 3: 7}
    (_, y), *_ = batches(split, None, 1, masks=True).as_numpy_iterator()
    np.testing.assert_array_equal(
        y["masks"][0], coco.decode(split.targets["masks"][0]).transpose(2, 0, 1)
    )
    (_, y), *_ = batches(split, SIZE, 4).as_numpy_iterator()
    assert "masks" not in y
    without = generate_detection(1, 1, image_size=32).train
    with pytest.raises(InputError, match="the split has no instance masks"):
        batches(without, SIZE, 1, masks=True)


def test_a_cut_window_drops_objects_of_whose_masks_nothing_is_left():
    masks = np.zeros((3, 20, 20), np.uint8)
    masks[0, :5, :5] = masks[1, 15:, 15:] = masks[2, 5:, 5:] = 1
    boxes = np.float32([[0, 0, 1, 1], [0.75, 0.75, 1, 1], [0.25, 0.25, 1, 1]])
    layer = RandomResizedCrop((10, 10))
    found = layer.apply(
        Example(tf.zeros((20, 20, 3)), boxes, np.arange(3), None, masks), [8, 8, 10, 10]
    )
    assert found.classes.numpy().tolist() == [-1, 1, 2]  # the first box is there, its mask is not
    np.testing.assert_allclose(found.boxes[1:], [[0.7, 0.7, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_array_equal(found.masks, masks[:, 8:18, 8:18])


# ---------------------------------------------------------------- a PNG of each instance, or one


def write_instances(root, kind):
    """Two images with three rectangles each; returns them, uint8 `(3, h, w)`."""
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    masks[0, 2:9, 3:20] = masks[1, 12:20, 1:9] = masks[2, 15:30, 20:40] = 255
    for name in "ab":
        folder = root / (f"{name}/images" if kind == "kaggle" else "images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(folder / f"{name}.png")
        if kind == "numbers":
            (root / "instances").mkdir(exist_ok=True)
            numbers = np.max(masks // 255 * np.uint16([[[7]], [[300]], [[2]]]), axis=0)
            Image.fromarray(numbers).save(root / "instances" / f"{name}.png")
            continue
        folder = root / (f"{name}/masks" if kind == "kaggle" else f"masks/{name}")
        folder.mkdir(parents=True, exist_ok=True)
        for k, mask in enumerate(masks):
            Image.fromarray(mask).save(folder / f"{k}.png")
    return masks // 255


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["kaggle", "folders", "numbers"])
def test_a_png_of_each_instance(tmp_path, kind):
    masks = write_instances(tmp_path, kind)
    data = load(tmp_path, "detection")
    assert data.class_names == ("object",) and data.notes == []
    order = [2, 0, 1] if kind == "numbers" else [0, 1, 2]  # by number
    for part in data.splits.values():
        np.testing.assert_allclose(part.targets["boxes"][0], boxes_around(masks)[order])
        np.testing.assert_array_equal(list(part.instance_masks(0)), masks[order])
    assert load(tmp_path, "detection", classes=["nucleus"]).class_names == ("nucleus",)


@pytest.mark.parametrize("folders", ["{part}/{kind}", "{kind}/{part}"])
def test_numbers_in_parts_with_the_same_names(tmp_path, folders):
    write_instances(tmp_path / "flat", "numbers")
    for part in ("train", "val"):
        for kind in ("images", "instances"):
            target = tmp_path / "data" / folders.format(part=part, kind=kind)
            shutil.copytree(tmp_path / "flat" / kind, target)
    (target / "a.png").rename(target / "c.png")  # of val, without an image of that name
    with pytest.raises(InputError, match=r"c\.png: no image for this mask"):
        load(tmp_path / "data", "detection")
    (target / "c.png").rename(target / "a.png")
    data = load(tmp_path / "data", "detection")
    assert [split.names for split in data.splits.values()] == [["a.png", "b.png"]] * 2
    assert data.notes == []


def test_an_instance_of_the_pixel_in_the_corner(tmp_path):
    write_instances(tmp_path, "numbers")
    for name in "ab":
        numbers = np.array(Image.open(tmp_path / "instances" / f"{name}.png"))
        numbers[0, 0] = 1
        Image.fromarray(numbers).save(tmp_path / "instances" / f"{name}.png")
    data = load(tmp_path, "detection")
    for part in data.splits.values():
        np.testing.assert_allclose(part.targets["boxes"][0][0], [0, 0, 1 / WIDTH, 1 / HEIGHT])
        assert np.argwhere(next(iter(part.instance_masks(0)))).tolist() == [[0, 0]]
    (note,) = data.notes
    assert note.startswith("2 box(es) are a pixel or less high or wide")


def test_a_bad_png_of_an_instance_is_named(tmp_path):
    masks = write_instances(tmp_path, "kaggle")
    Image.fromarray(masks[0, 1:]).save(tmp_path / "a" / "masks" / "1.png")
    Image.fromarray(0 * masks[0]).save(tmp_path / "a" / "masks" / "2.png")
    Image.fromarray(masks[0] + masks[1] * 3).save(tmp_path / "b" / "masks" / "0.png")
    with pytest.raises(InputError, match=r"1\.png: its mask is of 40 x 29|0\.png: one of several"):
        load(tmp_path, "detection")
    data = load(tmp_path, "detection", skip_bad=True)
    assert len(both(data)[0]) == 3 and len(data.skipped) == 3
    assert any("a/masks/2.png: its mask is empty" in reason for reason in data.skipped)


def test_numbers_of_objects_of_voc(tmp_path):
    """Pixel 3 of SegmentationObject is of the third object of the XML file, whatever its class."""
    masks = write_instances(tmp_path, "numbers")
    for folder in ("images", "instances"):
        shutil.rmtree(tmp_path / folder)
    for folder in ("JPEGImages", "Annotations", "SegmentationObject"):
        (tmp_path / folder).mkdir()
    numbers = np.max(masks * np.uint8([[[1]], [[2]], [[3]]]), axis=0)
    numbers[0] = 255  # void
    corners = boxes_around(masks) * [WIDTH, HEIGHT, WIDTH, HEIGHT] + [1, 1, 0, 0]
    tags = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{t}>{v:g}</{t}>" for t, v in zip(tags, box, strict=True))
        + "</bndbox></object>"
        for name, box in zip(("dog", "cat", "dog"), corners, strict=True)
    )
    for name in "abc":
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        image = Image.fromarray(numbers)
        image.putpalette(bytes(range(256)) * 3)
        image.save(tmp_path / "SegmentationObject" / f"{name}.png")
    data = load(tmp_path, "detection", masks=True)
    assert data.class_names == ("cat", "dog") and not data.notes
    for part in data.splits.values():
        np.testing.assert_array_equal(part.targets["classes"][0], [1, 0, 1])
        np.testing.assert_array_equal(list(part.instance_masks(0)), masks)
    assert not load(tmp_path, "detection", masks=False).train.has_masks
    (tmp_path / "SegmentationObject" / "b.png").unlink()  # as of most images of VOC
    with pytest.raises(InputError, match=r"b.xml, object 1: it has no mask"):
        load(tmp_path, "detection", masks=True)
    data = load(tmp_path, "detection", masks=True, skip_bad=True)
    assert sum(map(len, data.splits.values())) == 2 and data.train.has_masks
    Image.fromarray(numbers[1:]).save(tmp_path / "SegmentationObject" / "a.png")
    with pytest.raises(InputError, match=r"a.xml, object 1: .*of 40 x 29 pixels"):
        load(tmp_path, "detection", masks=True)


def test_masks_and_ellipses_of_cvat_and_circles_of_labelme(tmp_path):
    pixels = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)  # rows 5 and 6, columns 7 to 9
    shapes = (
        '<mask label="a" rle="1, 4, 1" left="7" top="5" width="3" height="2"/>'
        '<ellipse label="a" cx="20" cy="15" rx="10" ry="5" rotation="90"/>'
    )
    images = "".join(
        f'<image name="{n}.png" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>' for n in "ab"
    )
    (tmp_path / "cvat" / "images").mkdir(parents=True)
    (tmp_path / "cvat" / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    (tmp_path / "labelme").mkdir()
    circle = {"label": "a", "shape_type": "circle", "points": [[20, 15], [24, 12]]}
    for name in "ab":
        for folder in (tmp_path / "cvat" / "images", tmp_path / "labelme"):
            Image.new("RGB", (WIDTH, HEIGHT), "gray").save(folder / f"{name}.png")
        content = {"shapes": [circle], "imagePath": f"{name}.png"}
        (tmp_path / "labelme" / f"{name}.json").write_text(json.dumps(content))
    mask, ellipse = load(tmp_path / "cvat", "detection").train.instance_masks(0)
    np.testing.assert_array_equal(mask, np.pad(pixels, ((5, 23), (7, 30))))
    (disc,) = load(tmp_path / "labelme", "detection").train.instance_masks(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for found, expected in (
        (ellipse, np.hypot((x - 20) / 5, (y - 15) / 10) < 1),
        (disc, np.hypot(x - 20, y - 15) < 5),
    ):
        assert (found != expected).sum() < 0.1 * expected.sum()
