"""What every segmentation data set looks like once it is read or generated."""

import dataclasses
import io

import numpy as np
from PIL import Image

from kerascv_d2l.data.voc_classes import VOC_VOID
from kerascv_d2l.errors import InputError

MAX_CLASSES = VOC_VOID  # a mask is uint8, and its highest value is void
SHOWN = 12  # classes in a description


@dataclasses.dataclass
class SegmentationSplit:
    """Pictures and their masks.

    Attributes:
        images: paths of picture files, as `str`; or the bytes of plain ones
            (`ImageInfo.plain`); or a uint8 array `(n, h, w, 3)`.
        masks: for each picture the bytes of a grey PNG of its height and width,
            as `encode_mask` makes them: class indices, 255 void; or a uint8 array
            `(n, h, w)`.
        names: for each picture what to call it.
        sizes: int `(n, 2)`: height and width of each picture, pixels.
        plain: bool `(n,)`: `ImageInfo.plain` of each; all true for bytes and arrays.
        pixels: int64 `(256,)`: how many pixels have each label, all pictures together;
            counted here if it is None.
        skipped: why pictures were left out, one message each.
    """

    images: list | np.ndarray
    masks: list | np.ndarray
    names: list
    sizes: np.ndarray = None
    plain: np.ndarray = None
    pixels: np.ndarray = None
    skipped: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.sizes is None:
            if not isinstance(self.images, np.ndarray):
                raise InputError("sizes is missing: the height and width of each picture file")
            self.sizes = np.tile(self.images.shape[1:3], (len(self.images), 1))
        if self.plain is None:
            files = len(self.images) and isinstance(self.images[0], str)
            self.plain = np.full(len(self.images), not files)
        fields = ("images", "masks", "names", "sizes", "plain")
        lengths = {field: len(getattr(self, field)) for field in fields}
        if len(set(lengths.values())) != 1:
            raise InputError(f"a split needs as many of each, not {lengths}")
        if isinstance(self.masks, np.ndarray) and self.masks.dtype != np.uint8:
            raise InputError(f"masks are {self.masks.dtype}; wanted uint8")
        if self.pixels is None:
            self.pixels = np.zeros(256, np.int64)
            for index in range(len(self)):
                mask = self.mask(index)
                check_size(mask.shape, self.sizes[index], self.names[index], self.names[index])
                self.pixels += count_labels(mask)

    def __len__(self):
        return len(self.images)

    def mask(self, index):
        """Give the mask of a picture, uint8 `(height, width)`."""
        if isinstance(self.masks, np.ndarray):
            return self.masks[index]
        return decode_mask(self.masks[index])


@dataclasses.dataclass
class SegmentationData:
    """A segmentation data set in two splits.

    Attributes:
        class_names: tuple of str; label k of the masks is `class_names[k]`, 255 is void.
        train: `SegmentationSplit`.
        val: `SegmentationSplit`.
        source: str: where it came from, for printing.
        colors: uint8 `(classes, 3)`, RGB, to draw the classes with; by default VOC's.
        seconds: float: how long it took to read or generate.
    """

    class_names: tuple
    train: SegmentationSplit
    val: SegmentationSplit
    source: str
    colors: np.ndarray = None
    seconds: float = 0.0

    def __post_init__(self):
        self.class_names = tuple(self.class_names)
        count = len(self.class_names)
        if not 1 <= count <= MAX_CLASSES or len(set(self.class_names)) != count:
            raise InputError(
                f"{self.source}: {count} class names, {len(set(self.class_names))} of them "
                f"different; wanted 1 to {MAX_CLASSES}, all different"
            )
        if self.colors is None:
            self.colors = default_colors(count)
        self.colors = np.asarray(self.colors, np.uint8)
        if self.colors.shape != (count, 3):
            raise InputError(
                f"{self.source}: colors are {self.colors.shape}; wanted ({count}, 3), one a class"
            )
        for title, split in (("training", self.train), ("validation", self.val)):
            if len(split) == 0:
                raise InputError(f"{self.source}: no {title} picture")
            known = split.pixels[:count].sum()
            beyond = np.flatnonzero(split.pixels[count:VOC_VOID])
            if beyond.size:
                raise InputError(
                    f"{self.source}: label {count + beyond[0]} in the {title} masks, but there are "
                    f"{count} class names"
                )
            if known == 0:
                raise InputError(f"{self.source}: the {title} masks are void everywhere")

    def describe(self):
        """Say in a few lines what is in the data set.

        Returns:
            str, of one line for the data set, one for each split with the share of
            each class, and one for what was left out, if anything was.
        """
        lines = [
            f"{self.source} ({self.seconds:.1f} s), {len(self.class_names)} class(es): "
            f"{_first(self.class_names)}"
        ]
        for title, split in (("training", self.train), ("validation", self.val)):
            low, high = split.sizes.min(axis=0), split.sizes.max(axis=0)
            sides = [str(a) if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True)]
            percent = 100 * split.pixels / split.pixels.sum()
            shares = [f"{p:.2g} % {n}" for p, n in zip(percent, self.class_names, strict=False)]
            lines.append(
                f"  {title}: {len(split)} pictures ({sides[0]} x {sides[1]} pixels), "
                f"{percent[VOC_VOID]:.2g} % void, {_first(shares)}"
            )
        skipped = self.train.skipped + self.val.skipped
        if skipped:
            lines.append(f"  left out: {len(skipped)}, the first because of: {skipped[0]}")
        return "\n".join(lines)

    def balancing_weights(self):
        """Weights of the classes in a loss that make up for rare ones.

        Median frequency balancing: a class's frequency is its share of the
        training pixels that are not void; its weight the median of all frequencies
        over its own. Classes that never occur have weight 1.

        Returns:
            float64 `(classes,)`.

        Source:
            Eigen, Fergus: Predicting Depth, Surface Normals and Semantic Labels
            (2015), section 5.2, with one frequency for the whole data set.
        """
        counts = self.train.pixels[: len(self.class_names)].astype(np.float64)
        median = np.median(counts[counts > 0])
        return np.divide(median, counts, out=np.ones_like(counts), where=counts > 0)


def default_colors(count):
    """Colours that tell classes apart: VOC's, continued by VOC's rule.

    Args:
        count: int, at most 255.

    Returns:
        uint8 `(count, 3)`, RGB.
    """
    # The bits of the index spread over the channels, high bits first.
    index = np.arange(count)
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        colors[:, bit % 3] |= ((index >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colors


def encode_mask(mask):
    """Compress a mask, uint8 `(height, width)`, to the bytes of a grey PNG."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def decode_mask(content):
    """Uncompress what `encode_mask` made, uint8 `(height, width)`."""
    with Image.open(io.BytesIO(content)) as opened:
        return np.array(opened)


def count_labels(mask):
    """Count the pixels of each label of a uint8 mask, int64 `(256,)`."""
    return np.bincount(mask.ravel(), minlength=256)


def check_size(mask_shape, picture_size, mask_name, picture_name):
    """Refuse a mask of another size than its picture.

    Args:
        mask_shape: `(height, width)` of the mask.
        picture_size: `(height, width)` of the picture.
        mask_name: str, for the message.
        picture_name: str, for the message.

    Raises:
        InputError: if they differ.
    """
    if tuple(mask_shape) != tuple(picture_size):
        raise InputError(
            f"{mask_name}: the mask is {mask_shape[0]} x {mask_shape[1]} pixels (height x width), "
            f"its picture {picture_name} {picture_size[0]} x {picture_size[1]}: a mask needs a "
            "class for each pixel of the upright picture. Make it anew, or resize it without "
            "interpolation"
        )


def _first(names, most=SHOWN):
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
