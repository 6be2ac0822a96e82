"""The builders by TFDS' own test case, on archives that hold one truncated image."""

import dataclasses
import tempfile
from unittest import mock

import fake_archives
import numpy as np
import tensorflow_datasets as tfds

from kerascv_d2l.data import builders
from kerascv_d2l.data.voc_classes import VOC_CLASSES


class _Case(tfds.testing.DatasetBuilderTestCase):
    FILES = None  # set below: function that makes the files
    SKIPPED = ""  # part of the only reason for leaving something out
    SKIP_CHECKSUMS = True  # the sum is checked by the package itself

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = cls._folder.name
        archive = cls.DATASET_CLASS.ARCHIVE
        sha1 = fake_archives.write(cls.FILES(), f"{cls.EXAMPLE_DIR}/{archive.name}")
        fake = dataclasses.replace(archive, sha1=sha1)
        cls._patch = mock.patch.object(cls.DATASET_CLASS, "ARCHIVE", fake)
        cls._patch.start()
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls._patch.stop()
        cls._folder.cleanup()

    def _make_builder(self, config=None):
        return self.DATASET_CLASS(data_dir=self.tmp_dir, config=config, skip_bad=True)

    def _download_and_prepare_as_dataset(self, builder):
        super()._download_and_prepare_as_dataset(builder)
        self.assertLen(builder.skipped, 1)
        self.assertIn(self.SKIPPED, builder.skipped[0])
        self.check(builder)

    def test_is_described(self):
        info = self.builder.info
        for text in (info.description, info.homepage, info.citation, info.redistribution_info):
            self.assertTrue(text)
        self.assertTrue(info.redistribution_info.license)
        self.assertIn(str(self.builder.version), self.builder.release_notes)


class BananaDetectionTest(_Case):
    DATASET_CLASS = builders.BananaDetection
    SPLITS = {"train": 4, "validation": 2}  # noqa: RUF012
    FILES = staticmethod(fake_archives.bananas)
    SKIPPED = "bananas_train/images/2.png"

    def check(self, builder):
        self.assertEqual(builder.info.features["objects"]["label"].names, ["banana"])
        examples = {e["file_name"]: e for e in tfds.as_numpy(builder.as_dataset(split="train"))}
        self.assertCountEqual(examples, [b"0.png", b"1.png", b"3.png", b"4.png"])
        # 3.png,0,13,23,63,123 on 256 x 256; TFDS' order is y, x, y, x
        boxes = examples[b"3.png"]["objects"]["bbox"]
        np.testing.assert_allclose(boxes, np.array([[23, 13, 123, 63]]) / 256, rtol=1e-6)
        # 1.png,0,11,21,61,121 on the odd size
        height, width = fake_archives.ODD_SIZE
        boxes = examples[b"1.png"]["objects"]["bbox"]
        sides = [height, width, height, width]
        np.testing.assert_allclose(boxes, np.array([[21, 11, 121, 61]]) / sides, rtol=1e-6)
        pixels = examples[b"1.png"]["image"]
        np.testing.assert_array_equal(pixels, fake_archives.random_image(1, height, width))


class HotdogTest(_Case):
    DATASET_CLASS = builders.Hotdog
    SPLITS = {"train": 7, "test": 8}  # noqa: RUF012
    FILES = staticmethod(fake_archives.hotdogs)
    SKIPPED = "hotdog/train/hotdog/2.png"

    def check(self, builder):
        self.assertEqual(builder.info.features["label"].names, ["hotdog", "not-hotdog"])
        examples = list(tfds.as_numpy(builder.as_dataset(split="train")))
        labels = {(bytes(e["file_name"]), int(e["label"])) for e in examples}
        hot = {(f"{i}.png".encode(), 0) for i in (0, 1, 3)}
        self.assertEqual(labels, hot | {(f"{i}.png".encode(), 1) for i in range(4)})
        wide = [e["image"] for e in examples if e["image"].shape[:2] == fake_archives.ODD_SIZE]
        np.testing.assert_array_equal(
            wide, [fake_archives.random_image(1, *fake_archives.ODD_SIZE)]
        )


class Voc2012SegmentationTest(_Case):
    DATASET_CLASS = builders.Voc2012Segmentation
    SPLITS = {"train": 5, "validation": 3}  # noqa: RUF012
    FILES = staticmethod(fake_archives.voc)
    SKIPPED = "JPEGImages/2007_000002.jpg"

    def check(self, builder):
        names = builder.info.features["objects"]["label"].names
        self.assertEqual(names, VOC_CLASSES[1:])
        examples = {e["file_name"]: e for e in tfds.as_numpy(builder.as_dataset(split="train"))}
        example = examples[b"2007_000001.jpg"]
        height, width = fake_archives.ODD_SIZE
        mask = fake_archives.voc_mask(1, height, width)
        self.assertIn(255, mask)
        np.testing.assert_array_equal(example["segmentation_mask"][..., 0], mask)
        error = example["image"].astype(int) - fake_archives.random_image(1, height, width)
        self.assertLess(np.abs(error).mean(), 3)  # JPEG
        objects = example["objects"]
        # <xmin>1</xmin><ymin>11 <xmax>210 <ymax>40: from pixel 1 to the last, both inside
        first = [10 / height, 0, 40 / height, 1]
        second = [30 / height, 20 / width, 90 / height, 60.5 / width]
        np.testing.assert_allclose(objects["bbox"], [first, second], rtol=1e-6)
        self.assertEqual([names[i] for i in objects["label"]], ["potted plant", "person"])
        self.assertEqual(objects["is_truncated"].tolist(), [True, False])
        self.assertEqual(objects["is_difficult"].tolist(), [False, True])


del _Case  # pytest would run it
