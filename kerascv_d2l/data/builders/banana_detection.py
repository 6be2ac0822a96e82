"""The book's bananas: one pasted on each of 1100 photographs."""

import csv
from typing import ClassVar

import tensorflow_datasets as tfds

from kerascv_d2l.data import archives
from kerascv_d2l.data.builders import base
from kerascv_d2l.errors import InputError

CLASSES = ["banana"]
COLUMNS = ["img_name", "label", "xmin", "ymin", "xmax", "ymax"]


class BananaDetection(base.ArchiveBuilder):
    """1000 + 100 images, each with one banana and its box."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Only where there is no network: put banana-detection.zip, or the folder "
        "`banana-detection` unpacked from it, into the manual folder."
    )
    ARCHIVE = archives.Archive(
        name="banana-detection.zip",
        sha1="5de26c8fce5ccdea9f91267273464dc968d20d72",
        urls=tuple(store + "banana-detection.zip" for store in base.BOOK_STORES),
        folder="banana-detection",
        landmark="bananas_train/label.csv",
    )
    SPLIT_NAMES: ClassVar = {"train": "bananas_train", "validation": "bananas_val"}

    def _info(self):
        return self._described(
            description=(
                "Photographs of 256 x 256 pixels with one banana pasted on each, at a random "
                "place, size and angle: 1000 for training and 100 for validation. Made for the "
                "object detection sections of Dive into Deep Learning, where a small detector "
                "learns it in minutes."
            ),
            features={
                "objects": tfds.features.Sequence(
                    {
                        "bbox": tfds.features.BBoxFeature(doc="normalised yxyx"),
                        "label": tfds.features.ClassLabel(names=CLASSES),
                    }
                )
            },
            homepage="https://d2l.ai/chapter_computer-vision/object-detection-dataset.html",
            citation=base.BOOK_CITATION,
            license="None is stated with the archive. The book's text is under CC BY-SA 4.0.",
        )

    def _entries(self, source, split):
        table = f"{split}/label.csv"
        objects = {}  # image's name -> [(line, row)], in the order of the file
        rows = csv.reader(source.text(table).splitlines())
        header = next(rows, None)
        if header != COLUMNS:
            raise InputError(
                f"{source.where(table)}: the first line is {header}, expected {','.join(COLUMNS)}"
            )
        for row in rows:
            if row:
                where = f"{source.where(table)}, line {rows.line_num}"
                objects.setdefault(row[0], []).append((where, row))
        if not objects:
            raise InputError(f"{source.where(table)}: names no image")
        for name, entries in objects.items():
            yield name, lambda name=name, entries=entries: _example(source, split, name, entries)


def _example(source, split, name, entries):
    if "/" in name or "\\" in name:
        raise InputError(f"{entries[0][0]}: {name!r} is not the name of an image in images/")
    image, size = base.image(source, f"{split}/images/{name}")
    return {
        "image": image,
        "file_name": name,
        "objects": [_object(where, row, size) for where, row in entries],
    }


def _object(where, row, size):
    try:
        label, x_min, y_min, x_max, y_max = map(float, row[1:])
    except ValueError:
        raise InputError(
            f"{where}: {','.join(row)!r} is not {','.join(COLUMNS)} with numbers from the second on"
        ) from None
    if label not in range(len(CLASSES)):
        raise InputError(f"{where}: unknown class {row[1]}; 0 is {CLASSES[0]}, the only one")
    # The book divides by 256, the side of all its images: the same for those.
    return {"bbox": base.bbox((x_min, y_min, x_max, y_max), size, where), "label": int(label)}
