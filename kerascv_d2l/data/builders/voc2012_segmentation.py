"""Pascal VOC 2012: the images with class masks, and the boxes of their objects."""

import io
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from kerascv_d2l.data import archives
from kerascv_d2l.data.builders import base
from kerascv_d2l.data.layouts import voc
from kerascv_d2l.data.layouts.files import read_flag, read_xml
from kerascv_d2l.data.layouts.mask_classes import read_labels, voc_classes
from kerascv_d2l.data.splits import IGNORE_LABEL, encode_mask
from kerascv_d2l.data.voc_classes import VOC_CLASSES
from kerascv_d2l.errors import InputError

ARCHIVE_NAME = "VOCtrainval_11-May-2012.tar"
# The annotation files write two classes otherwise than the book.
_XML_NAMES = {"pottedplant": "potted plant", "tvmonitor": "tv/monitor"}


class Voc2012Segmentation(base.ArchiveBuilder):
    """1464 + 1449 images with class masks."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Only where there is no network: put {ARCHIVE_NAME}, or the folder `VOCdevkit` unpacked "
        "from it, into the manual folder."
    )
    ARCHIVE = archives.Archive(
        name=ARCHIVE_NAME,
        sha1="4e443f8a2eca6b1dac8a6c57641b67dd40621a49",
        urls=(
            *(store + ARCHIVE_NAME for store in base.BOOK_STORES),
            f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{ARCHIVE_NAME}",
        ),
        folder="VOCdevkit/VOC2012",
        landmark="ImageSets/Segmentation/train.txt",
    )
    SPLIT_NAMES: ClassVar = {"train": "train", "validation": "val"}

    def _info(self):
        return self._described(
            description=(
                "The part of the Pascal Visual Object Classes Challenge 2012 that has a class for "
                "every pixel: 1464 images for training and 1449 for validation, of 20 classes "
                f"and background. Masks hold class indices, {IGNORE_LABEL} along the borders of "
                "objects, where the class is unknown. The boxes are those of the same images' "
                "annotations."
            ),
            features={
                "segmentation_mask": tfds.features.Image(
                    shape=(None, None, 1),
                    encoding_format="png",
                    use_colormap=True,
                    doc=f"class index: 0 background, {IGNORE_LABEL} ignored",
                ),
                "objects": tfds.features.Sequence(
                    {
                        "bbox": tfds.features.BBoxFeature(doc="normalised yxyx"),
                        "label": tfds.features.ClassLabel(
                            names=VOC_CLASSES[1:], doc="object class k is k + 1 in the mask"
                        ),
                        "is_truncated": np.bool_,
                        "is_difficult": np.bool_,
                    }
                ),
            },
            supervised_keys=("image", "segmentation_mask"),
            homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
            citation=(
                "@misc{pascal-voc-2012,\n"
                "    author = {Everingham, M. and Van~Gool, L. and Williams, C. K. I. and "
                "Winn, J. and Zisserman, A.},\n"
                "    title = {The {PASCAL} {V}isual {O}bject {C}lasses {C}hallenge 2012 "
                "{(VOC2012)} {R}esults},\n"
                "    howpublished = {http://www.pascal-network.org/challenges/VOC/voc2012/"
                "workshop/index.html}\n"
                "}\n"
            ),
            license=(
                "The images come from flickr; their use must respect flickr's terms of use "
                "(https://www.flickr.com/help/terms)."
            ),
        )

    def _entries(self, source, split):
        listing = f"ImageSets/Segmentation/{split}.txt"
        names = source.text(listing).split()
        if not names:
            raise InputError(f"{source.where(listing)}: names no image")
        for name in dict.fromkeys(names):
            yield name, lambda name=name: _example(source, name)


def _example(source, name):
    image, size = base.image(source, f"JPEGImages/{name}.jpg")
    mask_name = f"SegmentationClass/{name}.png"
    mask = read_labels(source.where(mask_name), voc_classes(), source.read(mask_name))
    if mask.shape != size:
        raise InputError(
            f"{source.where(mask_name)}: {mask.shape[0]} x {mask.shape[1]} (height x width), but "
            f"its image is {size[0]} x {size[1]}"
        )
    return {
        "image": image,
        "segmentation_mask": io.BytesIO(encode_mask(mask)),
        "file_name": f"{name}.jpg",
        "objects": _objects(source, f"Annotations/{name}.xml", size),
    }


def _objects(source, name, size):
    objects = []
    tree = read_xml(source.where(name), source.read(name))
    for number, element in enumerate(tree.iter("object"), start=1):
        item = voc.read_object(number, element, source.where(name))
        label = _XML_NAMES.get(item.kind, item.kind)
        if item.problem is None and label not in VOC_CLASSES[1:]:
            item.problem = f"unknown class {label!r}"
        if item.problem:
            raise InputError(f"{item.where}: {item.problem}")
        # VOC counts pixels from 1, and a few boxes begin at 0.
        box = np.maximum(item.box, 0)
        objects.append(
            {
                "bbox": base.bbox(box, size, item.where),
                "label": label,
                "is_truncated": read_flag(element.findtext("truncated")) is True,
                "is_difficult": item.ignore,
            }
        )
    return objects
