"""The book's hot dogs, and things that are none."""

from pathlib import PurePosixPath
from typing import ClassVar

import tensorflow_datasets as tfds

from kerascv_d2l.data import archives
from kerascv_d2l.data.builders import base
from kerascv_d2l.errors import InputError

CLASSES = ["hotdog", "not-hotdog"]  # folder names in sorted order, which is how the book counts
_ENDINGS = (".png", ".jpg", ".jpeg")


class Hotdog(base.ArchiveBuilder):
    """2000 + 800 images of two classes."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Only where there is no network: put hotdog.zip, or the folder `hotdog` unpacked from it, "
        "into the manual folder."
    )
    ARCHIVE = archives.Archive(
        name="hotdog.zip",
        sha1="fba480ffa8aa7e0febbb511d181409f899b9baa5",
        urls=(
            *(store + "hotdog.zip" for store in base.BOOK_STORES),
            # where the book's first edition kept the same file
            "https://apache-mxnet.s3-accelerate.amazonaws.com/gluon/dataset/hotdog.zip",
        ),
        folder="hotdog",
        landmark="train/hotdog/",
    )
    SPLIT_NAMES: ClassVar = {"train": "train", "test": "test"}

    def _info(self):
        return self._described(
            description=(
                "Images from the web, half of them of hot dogs and half of other things: 2000 "
                "for training and 800 for testing, of many sizes. The fine-tuning section of Dive "
                "into Deep Learning uses it."
            ),
            features={"label": tfds.features.ClassLabel(names=CLASSES)},
            supervised_keys=("image", "label"),
            homepage="https://d2l.ai/chapter_computer-vision/fine-tuning.html",
            citation=base.BOOK_CITATION,
            license=(
                "None is stated with the archive; the images come from the web and may be under "
                "copyright."
            ),
        )

    def _entries(self, source, split):
        for label in CLASSES:
            names = [
                name
                for name in source.names(f"{split}/{label}/")
                if name.lower().endswith(_ENDINGS) and not PurePosixPath(name).name.startswith(".")
            ]
            if not names:
                raise InputError(
                    f"{source.where(f'{split}/{label}/')}: no images there ({', '.join(_ENDINGS)})"
                )
            for name in names:
                yield (
                    f"{label}/{PurePosixPath(name).name}",
                    lambda name=name, label=label: {
                        "image": base.image(source, name)[0],
                        "file_name": PurePosixPath(name).name,
                        "label": label,
                    },
                )
