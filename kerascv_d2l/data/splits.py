"""What every data set looks like once it is read or generated, whatever the task."""

import dataclasses
import functools
import io

import numpy as np
from PIL import Image, ImageOps

from kerascv_d2l.colors import default_colors, told_apart
from kerascv_d2l.data.images import read_image
from kerascv_d2l.errors import InputError, first_of
from kerascv_d2l.ops.rle import decode_masks

IGNORE_LABEL = 255  # of mask pixels that are ignored
MAX_MASK_CLASSES = IGNORE_LABEL  # a mask is uint8, and its highest value is the ignore label
CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"
UNLABELLED = "unlabelled"
TASKS = (CLASSIFICATION, DETECTION, SEGMENTATION, UNLABELLED)


@dataclasses.dataclass
class Split:
    """Images and what is known of each.

    Attributes:
        images: paths of image files, as `str`; or the encoded bytes of each; or a uint8 array
            `(n, h, w, 3)`.
        targets: dict of sequences with one entry an image. It tells the task:

            - classification: `label`, int32 `(n,)`, the class of each image;
            - detection: `boxes`, float32 `(k, 4)` normalised corners for each image;
              `classes`, int32 `(k,)`; `ignore`, bool `(k,)`, objects that count neither as
              found nor as missed (VOC's difficult, COCO's crowds); and, where instances are
              known, `masks`, for each image a list of k run-length encodings as pycocotools
              makes them (`{"size": [height, width], "counts": bytes}`);
            - segmentation: `mask`, for each image the bytes of a grey PNG of its size
              (`encode_mask`), or a uint8 array `(n, h, w)`: class indices, 255 is ignored;
            - unlabelled images: nothing.
        names: for each image what to call it, each name once.
        sizes: int `(n, 2)`: height and width of each image, pixels.
        plain: bool `(n,)`: whether TensorFlow decodes a file to the upright RGB image by
            itself (`ImageInfo.plain`); all true for bytes and arrays.
        skipped: why images or objects were left out, one text each.

    Raises:
        InputError: if lengths differ, or a target is not as above.
    """

    images: list | np.ndarray
    targets: dict
    names: list
    sizes: np.ndarray = None
    plain: np.ndarray = None
    skipped: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.sizes is None:
            if not isinstance(self.images, np.ndarray):
                raise InputError("sizes is missing: the height and width of each image")
            self.sizes = np.tile(self.images.shape[1:3], (len(self.images), 1))
        if self.plain is None:
            files = len(self.images) > 0 and isinstance(self.images[0], str)
            self.plain = np.full(len(self.images), not files)
        self.sizes = np.asarray(self.sizes).reshape(-1, 2)
        self.targets = dict(self.targets)
        if "boxes" in self.targets:
            self.targets.setdefault(
                "ignore", [np.zeros(len(boxes), bool) for boxes in self.targets["boxes"]]
            )
        lengths = {
            name: len(getattr(self, name)) for name in ("images", "names", "sizes", "plain")
        } | {name: len(values) for name, values in self.targets.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"a split needs as many of each, not {lengths}")
        self._check_targets()

    def _check_targets(self):
        kinds = set(self.targets)
        if kinds == {"label"}:
            self.targets["label"] = np.asarray(self.targets["label"], np.int32)
            if len(self) and self.targets["label"].min() < 0:
                raise InputError(f"label has the class {self.targets['label'].min()}; wanted >= 0")
        elif kinds in ({"boxes", "classes", "ignore"}, {"boxes", "classes", "ignore", "masks"}):
            self._check_objects()
        elif kinds not in ({"mask"}, set()):
            raise InputError(
                f"targets are {sorted(kinds)}; wanted label; boxes, classes, ignore (and masks); "
                "mask; or nothing"
            )

    def _check_objects(self):
        boxes, classes, ignore = ([] for _ in range(3))
        for i, name in enumerate(self.names):
            # Always (0, 4) and not (0,) where there is no object.
            boxes.append(np.asarray(self.targets["boxes"][i], np.float32).reshape(-1, 4))
            classes.append(np.asarray(self.targets["classes"][i], np.int32).reshape(-1))
            ignore.append(np.asarray(self.targets["ignore"][i], bool).reshape(-1))
            check_objects(boxes[-1], self.targets["classes"][i], ignore[-1], name)
            if "masks" in self.targets and len(self.targets["masks"][i]) != len(boxes[-1]):
                raise InputError(
                    f"{name}: {len(self.targets['masks'][i])} masks for {len(boxes[-1])} boxes"
                )
            for mask in self.targets.get("masks", {i: ()})[i]:
                if tuple(mask["size"]) != tuple(self.sizes[i]):
                    raise InputError(
                        f"{name}: a mask is {mask['size']}, the image {self.sizes[i].tolist()}; "
                        "wanted masks of the image's height and width"
                    )
        self.targets |= {"boxes": boxes, "classes": classes, "ignore": ignore}

    def __len__(self):
        return len(self.images)

    @property
    def has_masks(self):
        """bool: whether the objects of a split for detection have masks."""
        return "masks" in self.targets

    @property
    def task(self):
        """One of `TASKS`, by what the targets are."""
        for name, task in (("label", CLASSIFICATION), ("boxes", DETECTION), ("mask", SEGMENTATION)):
            if name in self.targets:
                return task
        return UNLABELLED

    def subset(self, indices):
        """Take some of the images, in the order of `indices` (ints `(k,)`), as another split."""
        indices = np.asarray(indices, int)

        def take(values):
            return (
                values[indices] if isinstance(values, np.ndarray) else [values[i] for i in indices]
            )

        targets = {name: take(values) for name, values in self.targets.items()}
        names = take(list(self.names))
        return Split(take(self.images), targets, names, self.sizes[indices], self.plain[indices])

    def joined(self, other):
        """Put the images of another split of the same task behind these, as a new split."""

        def join(a, b):
            arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
            return np.concatenate([a, b]) if arrays else [*a, *b]

        targets = {name: join(self.targets[name], other.targets[name]) for name in self.targets}
        names = join(list(self.names), list(other.names))
        sizes, plain = join(self.sizes, other.sizes), join(self.plain, other.plain)
        return Split(join(self.images, other.images), targets, names, sizes, plain)

    def mask(self, index):
        """Give the mask of an image for segmentation, uint8 `(height, width)`."""
        masks = self.targets["mask"]
        return masks[index] if isinstance(masks, np.ndarray) else decode_mask(masks[index])

    def instance_masks(self, index):
        """Decode the masks of an image's objects one by one: uint8 `(height, width)` each."""
        for encoding in self.targets["masks"][index]:
            yield decode_masks([encoding], self.sizes[index])[0]

    def image(self, index):
        """Decode an image, uint8 `(height, width, 3)`."""
        image = self.images[index]
        if isinstance(image, str):
            return read_image(image)
        if isinstance(image, bytes):
            with Image.open(io.BytesIO(image)) as opened:
                return np.array(opened.convert("RGB"))
        return image

    def fitted(self, size, grey=False):
        """Cut the middle out of every image and resize it, so that all have one size.

        Args:
            size: `(height, width)`, pixels: as much of an image is cut out as has its shape.
            grey: bool: take the colour out; there are still three channels.

        Returns:
            `Split` with a uint8 array `(n, height, width, 3)`, and of the targets the label.
        """
        images = np.empty((len(self), *size, 3), np.uint8)
        for k in range(len(self)):
            image = Image.fromarray(self.image(k))
            if image.size != (size[1], size[0]):
                image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
            images[k] = image.convert("L").convert("RGB") if grey else image
        targets = {name: self.targets[name] for name in ("label",) if name in self.targets}
        return Split(images, targets, self.names, skipped=self.skipped)

    def spread(self, count):
        """Take images from all of a split, which is often sorted by folder or class.

        Args:
            count: int, how many; all, if there are no more.

        Returns:
            `Split` with the first, the last, and others at even distances.
        """
        return self.subset(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))

    def counts(self, num_classes):
        """Count images, objects or pixels of each class.

        Args:
            num_classes: int.

        Returns:
            int64 `(num_classes,)`: images for classification, objects that are not ignored
            for detection, pixels for segmentation; zeros for unlabelled images.
        """
        return self.counts_by_image(num_classes).sum(axis=0)

    def counts_by_image(self, num_classes):
        """Count on each image what `counts` counts: int64 `(n, num_classes)`."""
        if self.task == SEGMENTATION:
            return self._label_pixels[:, :num_classes]
        found = np.zeros((len(self), num_classes), np.int64)
        if self.task == CLASSIFICATION:
            found[np.arange(len(self)), self.targets["label"]] = 1
        elif self.task == DETECTION:
            targets = zip(self.targets["classes"], self.targets["ignore"], strict=True)
            for k, (classes, ignore) in enumerate(targets):
                found[k] = np.bincount(classes[~ignore], minlength=num_classes)
        return found

    @functools.cached_property
    def _label_pixels(self):
        """int64 `(n, 256)`: how many pixels of each mask have each label."""
        masks = map(self.mask, range(len(self)))
        counts = [np.bincount(mask.ravel(), minlength=256) for mask in masks]
        return np.array(counts).reshape(-1, 256)

    @property
    def label_pixels(self):
        """int64 `(256,)`: how many pixels of all masks together have each label."""
        return self._label_pixels.sum(axis=0)

    @property
    def num_ignored(self):
        """int: objects that are ignored (detection), or pixels (segmentation); else 0."""
        if self.task == DETECTION:
            return int(sum(np.count_nonzero(rows) for rows in self.targets["ignore"]))
        return int(self.label_pixels[IGNORE_LABEL]) if self.task == SEGMENTATION else 0


@dataclasses.dataclass
class DataSet:
    """A data set in its splits.

    Attributes:
        class_names: tuple of str; class k of the targets is `class_names[k]`.
        train: `Split`.
        val: `Split`: what results are measured on.
        source: str: where it came from, for printing.
        colors: uint8 `(classes, 3)`, RGB, to draw the classes of masks with; by default VOC's.
        test: `Split` or None: a third split, where the source has one; nothing trains on it. It
            may be unlabelled.
        seconds: float: how long it took to read or generate.
        notes: list of str: what was read otherwise than it stands in the source, such as boxes
            that were clipped.
        drawn: bool: whether the images of `val` were set apart by name, because the source has
            no such split: they are others with another seed or share.

    Raises:
        InputError: if a split is empty, the splits are of two tasks, or a target has a class
            without a name.
    """

    class_names: tuple
    train: Split
    val: Split
    source: str
    colors: np.ndarray = None
    test: Split = None
    seconds: float = 0.0
    notes: list = dataclasses.field(default_factory=list)
    drawn: bool = False

    def __post_init__(self):
        self.class_names = tuple(map(str, self.class_names))
        count = len(self.class_names)
        if len(set(self.class_names)) != count:
            raise InputError(f"{self.source}: class names are given twice: {self.class_names}")
        if self.task == SEGMENTATION:
            if not 1 <= count <= MAX_MASK_CLASSES:
                raise InputError(f"{self.source}: {count} classes; wanted 1 to {MAX_MASK_CLASSES}")
            colors = default_colors(count) if self.colors is None else self.colors
            self.colors = np.asarray(colors, np.uint8)
            if self.colors.shape != (count, 3):
                raise InputError(
                    f"{self.source}: colors are {self.colors.shape}; wanted ({count}, 3)"
                )
            self.colors, changed = told_apart(self.colors)
            if changed:
                self.notes.append(
                    f"{first_of(self.class_names[k] for k in changed)}: drawn in another colour "
                    "than given, which another class has too, or nearly"
                )
        for title, split in self.splits.items():
            if len(split) == 0:
                raise InputError(f"{self.source}: no {title} image")
            if title == "test" and split.task == UNLABELLED:  # those to predict
                continue
            if split.task != self.task:
                raise InputError(f"{self.source}: {title} is for {split.task}, not {self.task}")
            self._check_classes(title, split)

    def _check_classes(self, title, split):
        count = len(self.class_names)
        if self.task == SEGMENTATION:
            beyond = np.flatnonzero(split.label_pixels[count:IGNORE_LABEL])
            highest = count + beyond[-1] if beyond.size else -1
            if split.label_pixels[:count].sum() == 0:
                raise InputError(f"{self.source}: all pixels of the {title} masks are ignored")
        elif self.task == CLASSIFICATION:
            highest = split.targets["label"].max()
        else:
            highest = max((c.max() for c in split.targets.get("classes", ()) if len(c)), default=-1)
        if highest >= count:
            raise InputError(
                f"{self.source}: class {highest} in the {title} split, but there are {count} "
                f"class names: {first_of(self.class_names)}"
            )

    @property
    def task(self):
        """One of `TASKS`."""
        return self.train.task

    @property
    def splits(self):
        """dict of the splits that there are: `train`, `val` and, if the source has it, `test`."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}

    @property
    def skipped(self):
        """list of str: what was left out of any split, and why."""
        return [reason for split in self.splits.values() for reason in split.skipped]

    def describe(self):
        """Say in a few lines what is in the data set.

        Returns:
            str, of one line for the data set, one for each split, and one for what was left
            out, if anything was.
        """
        lines = [f"{self.source} ({self.seconds:.1f} s)"]
        if self.class_names:
            lines[0] += f", {len(self.class_names)} class(es): {first_of(self.class_names)}"
        for title, split in self.splits.items():
            lines.append(f"  {title}: {len(split)} images ({size_range(split.sizes)})")
            if what := self._describe_targets(split):
                lines[-1] += f", {what}"
        if skipped := self.skipped:
            lines.append(f"  left out: {len(skipped)}, the first because of: {skipped[0]}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _describe_targets(self, split):
        counts = split.counts(len(self.class_names))
        if split.task == UNLABELLED:
            return ""
        if self.task == CLASSIFICATION:
            return first_of(f"{n} {name}" for n, name in zip(counts, self.class_names, strict=True))
        if self.task == DETECTION:
            empty = sum(len(rows) == 0 for rows in split.targets["boxes"])
            masks = " with masks" if split.has_masks else ""
            return (
                f"{counts.sum()} objects{masks}, {split.num_ignored} ignored, {empty} images "
                "without objects"
            )
        if self.task == SEGMENTATION:
            total = split.label_pixels.sum()
            shares = (
                f"{100 * n / total:.2g} % {name}"
                for n, name in zip(counts, self.class_names, strict=True)
            )
            return f"{100 * split.num_ignored / total:.2g} % ignored, {first_of(shares)}"
        return ""

    def balancing_weights(self):
        """Weights of the classes in a loss that make up for rare ones.

        Median frequency balancing: a class's frequency is its share of the training images,
        objects or pixels; its weight the median of all frequencies over its own. Classes that
        never occur have weight 1.

        Returns:
            float64 `(classes,)`.

        Source:
            Eigen, Fergus: Predicting Depth, Surface Normals and Semantic Labels (2015),
            section 5.2, with one frequency for the whole data set.
        """
        counts = self.train.counts(len(self.class_names)).astype(np.float64)
        median = np.median(counts[counts > 0])
        return np.divide(median, counts, out=np.ones_like(counts), where=counts > 0)


def keep_largest_object(data):
    """Leave one object on each image, for localisation: the largest that is not ignored.

    Args:
        data: `DataSet` for detection.

    Returns:
        `DataSet` of the same splits without masks and without the images that have no object; its
        notes say how many images had several objects or none.

    Raises:
        InputError: if the data is for another task, or no image of a split has an object.
    """
    if data.task != DETECTION:
        raise InputError(f"{data.source}: one object an image is for detection, not {data.task}")
    changed, counts = {}, {"several objects, of which the largest is kept": 0, "no object": 0}
    for title, split in data.splits.items():
        if split.task != DETECTION:  # a split without labels
            continue
        rows = []  # of the images that stay: image, object
        for k, (boxes, ignore) in enumerate(
            zip(split.targets["boxes"], split.targets["ignore"], strict=True)
        ):
            areas = np.where(ignore, -1, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
            number = np.count_nonzero(~ignore)
            if number:
                rows.append((k, int(areas.argmax())))
            several, none = counts
            counts[several] += int(number > 1)
            counts[none] += int(number == 0)
        kept = split.subset([k for k, _ in rows])
        kept.targets = {
            name: [split.targets[name][k][j : j + 1] for k, j in rows]
            for name in ("boxes", "classes", "ignore")
        }
        kept.skipped = split.skipped
        changed[title] = kept
    notes = [f"{number} image(s) with {what}" for what, number in counts.items() if number]
    return dataclasses.replace(data, **changed, notes=data.notes + notes)


def check_objects(boxes, classes, ignore, name):
    """Check the objects of one image.

    Args:
        boxes: `(k, 4)` normalised corners.
        classes: `(k,)`.
        ignore: bool `(k,)`.
        name: str: the image, for messages.

    Raises:
        InputError: unless there are as many of each, classes are whole numbers from 0 on, and
            boxes are finite and have an area inside [0, 1].
    """
    classes = np.asarray(classes).reshape(-1)
    if not len(boxes) == len(classes) == len(ignore):
        raise InputError(
            f"{name}: {len(boxes)} boxes, {len(classes)} classes, {len(ignore)} values of ignore"
        )
    if len(classes) and ((classes < 0) | (classes % 1 != 0)).any():
        raise InputError(f"{name}: classes are {classes.tolist()}; wanted whole numbers >= 0")
    for number, (x_min, y_min, x_max, y_max) in enumerate(boxes.tolist(), start=1):
        if not (0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1):
            raise InputError(
                f"{name}, object {number}: the box [x_min, y_min, x_max, y_max] is "
                f"{boxes[number - 1].tolist()}; wanted 0 <= min < max <= 1"
            )


def encode_mask(mask):
    """Compress a mask, uint8 `(height, width)`, to the bytes of a grey PNG."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def decode_mask(content):
    """Decode what `encode_mask` made, uint8 `(height, width)`."""
    with Image.open(io.BytesIO(content)) as opened:
        return np.array(opened)


def size_range(sizes):
    """Say heights and widths `(n, 2)`: `375 x 500` or, where they differ, `120-900 x 200-1200`."""
    if len(sizes) == 0:
        return "no size"
    low, high = np.min(sizes, axis=0), np.max(sizes, axis=0)
    sides = [str(a) if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True)]
    return f"{sides[0]} x {sides[1]} pixels"
