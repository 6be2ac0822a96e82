"""What the builders have in common: where the data comes from, and checked images."""

import io
import logging
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from kerascv_d2l.data import archives
from kerascv_d2l.data.images import check_image, read_image
from kerascv_d2l.errors import InputError

# The book's own store, by its fast and by its plain address.
BOOK_STORES = ("http://d2l-data.s3-accelerate.amazonaws.com/", "https://d2l-data.s3.amazonaws.com/")
BOOK_CITATION = """\
@book{zhang2023dive,
    title={Dive into Deep Learning},
    author={Zhang, Aston and Lipton, Zachary C. and Li, Mu and Smola, Alexander J.},
    publisher={Cambridge University Press},
    note={\\url{https://D2L.ai}},
    year={2023}
}
"""

SKIP_BAD = "skip_bad"  # end of the name of a variant without its damaged examples


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set that comes as one archive.

    Subclasses set `ARCHIVE` and `SPLIT_NAMES`, and write `_info` and `_entries`.

    Args:
        archive: the archive at hand, or the folder unpacked from it: the data
            set's own or one that holds it. Nothing is downloaded then.
            `tfds.load(name, builder_kwargs={"archive": …})` passes it on.
        skip_bad: bool: leave out examples with a damaged file or label, and
            log their names, instead of raising.
        **kwargs: TFDS' own, `data_dir` above all.

    An archive is told by its SHA-1, so that what is prepared from one is the same wherever it came
    from. A folder has no such sum: what is prepared from it, and what is prepared with
    `skip_bad`, is kept beside, as a configuration with a name of its own (`variant`).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    ARCHIVE = None  # `archives.Archive`
    SPLIT_NAMES: ClassVar = {}  # name in TFDS -> name in the archive

    def __init__(self, *, archive=None, skip_bad=False, config=None, **kwargs):
        if config is None and (name := self.variant(archive, skip_bad)):
            config = tfds.core.BuilderConfig(name=name, description="Prepared from other files.")
        super().__init__(config=config, **kwargs)
        self._archive = archive
        self._skip_bad = skip_bad
        # TFDS pickles builders by these.
        self._original_state.update(archive=archive, skip_bad=skip_bad)

    @classmethod
    def variant(cls, archive, skip_bad):
        """Name what is prepared from these arguments: of a folder and its files, or `""`.

        Raises:
            InputError: if `archive` is not there or is something else.
        """
        folder = None if archive is None else archives.check(archive, cls.ARCHIVE)
        parts = [f"folder-{archives.fingerprint(folder)}"] if folder else []
        return "-".join(parts + [SKIP_BAD] * skip_bad)

    @property
    def skipped(self):
        """list of str: why examples were left out when this was prepared."""
        return list((self.info.metadata or {}).get("skipped", ()))

    def _described(self, features, **about):
        """`DatasetInfo` of examples that have an image, its file's name, and `features`."""
        image = tfds.features.Image(shape=(None, None, 3), doc="RGB")
        features = {"image": image, "file_name": tfds.features.Text(), **features}
        return tfds.core.DatasetInfo(
            builder=self,
            metadata=tfds.core.MetadataDict(),  # why examples were left out
            features=tfds.features.FeaturesDict(features),
            **about,
        )

    def _split_generators(self, dl_manager):
        source = archives.find(self.ARCHIVE, dl_manager, self._archive)
        self.info.metadata["skipped"] = []
        return {k: self._generate_examples(source, v) for k, v in self.SPLIT_NAMES.items()}

    def _generate_examples(self, source, split):
        for key, make in self._entries(source, split):
            try:
                example = make()
            except InputError as error:
                if not self._skip_bad:
                    raise
                self.info.metadata["skipped"].append(str(error))
                logging.getLogger(__name__).warning("Left out: %s", error)
                continue
            yield key, example

    def _entries(self, source, split):
        """Yield `(key, function that makes the example)` of a split by its name in the archive."""
        raise NotImplementedError


def image(source, name):
    """Read an image of a source (`archives.find`) by its name, and see that it is whole.

    Returns:
        `(stream, (height, width))`: the file's own bytes where every decoder
        reads them as the same upright 8-bit image, else a PNG made from it.

    Raises:
        InputError: for a file that is missing, damaged or no image.
    """
    content, where = source.read(name), source.where(name)
    info = check_image(where, content)
    stream = io.BytesIO(content)
    if not info.plain:
        stream = io.BytesIO()
        Image.fromarray(read_image(where, content)).save(stream, "PNG")
        stream.seek(0)
    return stream, (info.height, info.width)


def bbox(box, size, where):
    """Give a box in pixels, `(x_min, y_min, x_max, y_max)`, as `tfds.features.BBox`.

    Raises:
        InputError: unless it has an area inside the image of `size`, (height, width).
    """
    x_min, y_min, x_max, y_max = np.array(box) / (*size[::-1], *size[::-1])
    if not (0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1):
        raise InputError(
            f"{where}: the box is outside the image, empty or inside out: x from {x_min:.4g} to "
            f"{x_max:.4g} of the width, y from {y_min:.4g} to {y_max:.4g} of the height"
        )
    return tfds.features.BBox(ymin=y_min, xmin=x_min, ymax=y_max, xmax=x_max)
