"""What every detection data set looks like once it is read or generated."""

import dataclasses

import numpy as np

from kerascv_d2l.errors import InputError


@dataclasses.dataclass
class DetectionSplit:
    """Pictures and their objects.

    Attributes:
        images: paths of picture files, as `str`, or a uint8 array `(n, h, w, 3)`.
        labels: for each picture float32 `(objects, 5)` rows
            `[class, x_min, y_min, x_max, y_max]`, boxes normalised; `(0, 5)`
            where there is no object.
        names: for each picture what to call it.
        sizes: int `(n, 2)`: height and width of each picture, pixels.
        plain: bool `(n,)`: `ImageInfo.plain` of each file; all true for an array.
        skipped: why pictures or objects were left out, one message each.
    """

    images: list | np.ndarray
    labels: list
    names: list
    sizes: np.ndarray = None
    plain: np.ndarray = None
    skipped: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.sizes is None:
            if not isinstance(self.images, np.ndarray):
                raise InputError("sizes is missing: the height and width of each picture file")
            self.sizes = np.tile(self.images.shape[1:3], (len(self.images), 1))
        if self.plain is None:
            self.plain = np.full(len(self.images), isinstance(self.images, np.ndarray))
        lengths = {
            field: len(getattr(self, field))
            for field in ("images", "labels", "names", "sizes", "plain")
        }
        if len(set(lengths.values())) != 1:
            raise InputError(f"a split needs as many of each, not {lengths}")
        for name, rows in zip(self.names, self.labels, strict=True):
            check_labels(rows, name)

    def __len__(self):
        return len(self.images)

    @property
    def num_objects(self):
        """Number of objects on all pictures together."""
        return sum(len(rows) for rows in self.labels)


@dataclasses.dataclass
class DetectionData:
    """A detection data set in two splits.

    Attributes:
        class_names: tuple of str; class k of the labels is `class_names[k]`.
        train: `DetectionSplit`.
        val: `DetectionSplit`.
        source: str: where it came from, for printing.
        seconds: float: how long it took to read or generate.
    """

    class_names: tuple
    train: DetectionSplit
    val: DetectionSplit
    source: str
    seconds: float = 0.0

    def __post_init__(self):
        self.class_names = tuple(self.class_names)
        for split in (self.train, self.val):
            for name, rows in zip(split.names, split.labels, strict=True):
                if len(rows) and rows[:, 0].max() >= len(self.class_names):
                    raise InputError(
                        f"{name}: class {int(rows[:, 0].max())} in the labels, "
                        f"but there are {len(self.class_names)} class names"
                    )

    def describe(self):
        """Say in a few lines what is in the data set.

        Returns:
            str, of one line for the data set, one for each split, and one for
            what was left out, if anything was.
        """
        names = ", ".join(self.class_names[:10]) + (", …" if len(self.class_names) > 10 else "")
        lines = [
            f"{self.source} ({self.seconds:.1f} s), {len(self.class_names)} class(es): {names}"
        ]
        for title, split in (("training", self.train), ("validation", self.val)):
            empty = sum(len(rows) == 0 for rows in split.labels)
            lines.append(
                f"  {title}: {len(split)} pictures ({_size_range(split.sizes)}), "
                f"{split.num_objects} objects, {empty} pictures without any"
            )
        skipped = self.train.skipped + self.val.skipped
        if skipped:
            lines.append(f"  left out: {len(skipped)}, the first because of: {skipped[0]}")
        return "\n".join(lines)


def check_labels(rows, name):
    """Check the label rows of one picture.

    Args:
        rows: `(objects, 5)` rows `[class, x_min, y_min, x_max, y_max]`.
        name: str: the picture, for messages.

    Raises:
        InputError: unless they are finite, of whole classes from 0 on, and of
            boxes with an area inside [0, 1].
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise InputError(f"{name}: labels must have the shape (objects, 5), not {rows.shape}")
    for number, row in enumerate(rows, start=1):
        kind, x_min, y_min, x_max, y_max = row.tolist()
        whole = kind >= 0 and kind == int(kind) if np.isfinite(row).all() else False
        if not (whole and 0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1):
            raise InputError(
                f"{name}, object {number}: [class, x_min, y_min, x_max, y_max] is {row.tolist()}; "
                "wanted a class from 0 on and a box with 0 <= min < max <= 1"
            )


def _size_range(sizes):
    """`375 x 500` or, where they differ, `120-900 x 200-1200 pixels` (height x width)."""
    if len(sizes) == 0:
        return "no size"
    low, high = np.min(sizes, axis=0), np.max(sizes, axis=0)
    sides = [str(a) if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True)]
    return f"{sides[0]} x {sides[1]} pixels"
