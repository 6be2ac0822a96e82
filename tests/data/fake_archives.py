"""Small archives in the layout of the real ones: real names, real label formats."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from kerascv_d2l.data.voc_classes import VOC_COLORMAP, VOC_IGNORE_COLOR

ODD_SIZE = (130, 210)  # height, width
TRUNCATED = "truncated"


def random_image(seed, height=256, width=256):
    """A smooth uint8 `(height, width, 3)` whose every pixel is different from its neighbours."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.2, 1.0, 3)
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / width * a, 255 * y / height * b, 255 * (x + y) / 700 * c]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encoded(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def truncated(content):
    return content[: len(content) * 2 // 3]


def bananas(num_train=5, num_val=2, bad=True):
    """Files of banana-detection.zip: `{name: bytes}`; image 1 is odd, 2 truncated."""
    files = {}
    for split, count, start in (
        ("bananas_train", num_train, 0),
        ("bananas_val", num_val, 50),
    ):
        lines = ["img_name,label,xmin,ymin,xmax,ymax"]
        for i in range(count):
            odd = split == "bananas_train" and i == 1
            height, width = ODD_SIZE if odd else (256, 256)
            content = encoded(random_image(start + i, height, width))
            if bad and split == "bananas_train" and i == 2:
                content = truncated(content)
            files[f"banana-detection/{split}/images/{i}.png"] = content
            lines.append(f"{i}.png,0,{10 + i},{20 + i},{60 + i},{120 + i}")
        files[f"banana-detection/{split}/label.csv"] = ("\n".join(lines) + "\n").encode()
    return files


def hotdogs(num=4, bad=True):
    """Files of hotdog.zip; `train/hotdog/1.png` is odd, `2.png` truncated."""
    files = {}
    for s, split in enumerate(("train", "test")):
        for c, label in enumerate(("hotdog", "not-hotdog")):
            for i in range(num):
                first = split == "train" and label == "hotdog"
                size = ODD_SIZE if first and i == 1 else (100 + 10 * i, 140 + 7 * i)
                content = encoded(random_image(100 * s + 10 * c + i, *size))
                if bad and first and i == 2:
                    content = truncated(content)
                files[f"hotdog/{split}/{label}/{i}.png"] = content
    files["hotdog/train/hotdog/.DS_Store"] = b"no image"
    return files


def palette():
    """VOC's palette, as many colours as its masks use."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(VOC_COLORMAP)] = VOC_COLORMAP
    colors[255] = VOC_IGNORE_COLOR
    return colors.ravel().tolist()


def mask_png(classes):
    """A palette PNG as VOC has them; `classes` is uint8 `(h, w)`."""
    image = Image.fromarray(classes)
    image.putpalette(palette())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def voc_mask(seed, height, width):
    """Class mask with background, two objects and their ignored borders."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((height, width), np.uint8)
    for _ in range(2):
        top, left = rng.integers(5, height // 2), rng.integers(5, width // 2)
        rows, columns = slice(top, top + height // 3), slice(left, left + width // 3)
        classes[rows, columns] = 255
        classes[top + 3 : rows.stop - 3, left + 3 : columns.stop - 3] = rng.integers(1, 21)
    return classes


ANNOTATION = """<annotation>
\t<folder>VOC2012</folder><filename>{name}.jpg</filename>
\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
\t<segmented>1</segmented>
\t<object><name>pottedplant</name><pose>Unspecified</pose><truncated>1</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>{width}</xmax><ymax>40</ymax></bndbox></object>
\t<object><name>person</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
\t\t<bndbox><xmax>60.5</xmax><xmin>21</xmin><ymax>90</ymax><ymin>31</ymin></bndbox>
\t\t<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
\t\t</part></object>
</annotation>
"""


def voc(num_train=6, num_val=3, bad=True, size=(150, 200)):
    """Files of VOCtrainval_11-May-2012.tar; `2007_000001` is odd, `2007_000002` truncated."""
    root = "VOCdevkit/VOC2012/"
    files = {}
    for split, numbers in (
        ("train", range(num_train)),
        ("val", range(100, 100 + num_val)),
    ):
        names = [f"2007_{i:06d}" for i in numbers]
        files[f"{root}ImageSets/Segmentation/{split}.txt"] = ("\n".join(names) + "\n").encode()
        for i, name in zip(numbers, names, strict=True):
            height, width = ODD_SIZE if i == 1 else size
            content = encoded(random_image(i, height, width), "JPEG", quality=90)
            if bad and i == 2:
                content = truncated(content)
            files[f"{root}JPEGImages/{name}.jpg"] = content
            files[f"{root}SegmentationClass/{name}.png"] = mask_png(voc_mask(i, height, width))
            xml = ANNOTATION.format(name=name, width=width, height=height)
            files[f"{root}Annotations/{name}.xml"] = xml.encode()
    return files


def write(files, path):
    """Write `{name: bytes}` as a zip, a tar or a folder, by the ending of `path`.

    Returns:
        SHA-1 of the archive, `None` for a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return None
    return hashlib.sha1(path.read_bytes()).hexdigest()
