"""Time to read folders of many labelled images, beside the least that there is to do.

    python benchmarks/folders.py --images 20000

Writes small JPEG files with their labels as Pascal VOC XML, COCO JSON, YOLO, CSV and labelme, and
reads each by `load`, which decodes every image once to find damaged ones. The peer is the bare
work on one thread: Pillow decodes all images, and the label files are parsed. Takes some three
minutes, most of it to write the files.
"""

import argparse
import csv
import io
import json
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from PIL import Image

from kerascv_d2l import load

SIDE, BOX = 64, (8, 12, 40, 52)  # pixels; x_min, y_min, x_max, y_max
CLASSES = ("cat", "dog")


def write(root, count, seed=0):
    """Write the images once, and beside them every kind of labels in a folder of its own."""
    rng = np.random.default_rng(seed)
    for name in ("voc/images", "voc/annotations", "yolo/labels", "labelme"):
        (root / name).mkdir(parents=True)
    for name in ("coco", "yolo", "csv"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "images").symlink_to(root / "voc/images")
    rows, images, annotations = [("filename", "class", "xmin", "ymin", "xmax", "ymax")], [], []
    x0, y0, x1, y1 = BOX
    for k in range(count):
        name, kind = f"{k:06}", k % len(CLASSES)
        stream = io.BytesIO()
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(stream, "JPEG")
        (root / f"voc/images/{name}.jpg").write_bytes(stream.getvalue())
        (root / f"labelme/{name}.jpg").symlink_to(root / f"voc/images/{name}.jpg")
        (root / f"voc/annotations/{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>{SIDE}</width><height>{SIDE}"
            f"</height><depth>3</depth></size><object><name>{CLASSES[kind]}</name><bndbox><xmin>"
            f"{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
            "</object></annotation>"
        )
        shares = np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]) / SIDE
        line = " ".join(map(str, [kind, *shares]))
        (root / f"yolo/labels/{name}.txt").write_text(line)
        shape = {"label": CLASSES[kind], "shape_type": "rectangle", "points": [BOX[:2], BOX[2:]]}
        (root / f"labelme/{name}.json").write_text(
            json.dumps({"imagePath": f"{name}.jpg", "shapes": [shape]})
        )
        rows.append((f"{name}.jpg", CLASSES[kind], *BOX))
        images.append({"id": k, "file_name": f"{name}.jpg", "height": SIDE, "width": SIDE})
        box = {"image_id": k, "category_id": kind, "bbox": [x0, y0, x1 - x0, y1 - y0], "id": k}
        annotations.append(box)
    (root / "yolo/classes.txt").write_text("\n".join(CLASSES))
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco/annotations.json").write_text(json.dumps(content))
    with open(root / "csv/labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def read_barely(folder):
    """Decode every image by Pillow and parse every label file, one after the other."""
    for file in sorted(folder.rglob("*")) + sorted((folder / "images").glob("*")):
        if file.suffix == ".jpg":
            with Image.open(file) as image:
                image.load()
        elif file.suffix == ".xml":
            ElementTree.parse(file)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix in (".csv", ".txt"):
            list(csv.reader(io.StringIO(file.read_text())))


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print(f"{args.images} images written in {seconds(write, root, args.images):.0f} s")
        for name in ("voc", "coco", "yolo", "csv", "labelme"):
            ratios = []
            for _ in range(args.rounds):
                least = seconds(read_barely, root / name)
                ours = seconds(load, root / name, "detection")
                ratios.append(ours / least)
            print(
                f"{name:8} load {ours:5.1f} s, Pillow and the parser alone {least:5.1f} s: "
                f"{np.median(ratios):.2f} times as long",
                flush=True,
            )


if __name__ == "__main__":
    main()
