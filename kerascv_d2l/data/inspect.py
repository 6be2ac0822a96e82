"""What is in a data set, in numbers, and what will make training on it fail or deceive.

Works on any `DataSet` and trains nothing.
"""

import collections
import concurrent.futures
import itertools
import os

import numpy as np
from PIL import Image

from kerascv_d2l.data.images import opened, upright_rgb
from kerascv_d2l.data.splits import CLASSIFICATION, DETECTION, SEGMENTATION, first_of

# Images are nearly the same if grey thumbnails of them correlate by this; brightness, contrast,
# size and compression hardly change it (0.97 and more), other images come up to 0.9.
SAME_CORRELATION = 0.96
# Of more images than these, only exact copies are looked for within a split.
MOST_COMPARED = 10_000
THUMBNAIL = 32  # pixels a side
FEW_EXAMPLES = 10  # of a class, to train on
UNBALANCED, UNBALANCED_PIXELS = 10, 50  # times as many of one class as of another
SHARED_IOU = 0.9  # of two boxes that are the same one
# What the detectors of this package have by default: the stride of their finest map, and the
# largest anchor, as a share of the image's side.
FINEST_STRIDE = 8
LARGEST_ANCHOR = 0.961
COUNTED = {
    CLASSIFICATION: "images_by_class",
    DETECTION: "objects_by_class",
    SEGMENTATION: "pixels_by_class",
}
ROWS_AT_ONCE = 256  # of the matrix of correlations


def summarize(data):
    """Count what the splits hold.

    Args:
        data: `DataSet`.

    Returns:
        dict from the name of a split to `images`, `ignored` (objects or pixels), for detection
        `with_masks` (objects that have one, with those that are ignored) and
        `images_by_class`, `objects_by_class` or `pixels_by_class`: dict from name to number,
        without what is ignored.
    """
    found = {}
    for title, split in data.splits.items():
        found[title] = {"images": len(split), "ignored": split.num_ignored}
        if data.task == DETECTION:
            found[title]["with_masks"] = sum(map(len, split.targets.get("masks", ())))
        if data.task in COUNTED:
            counts = split.counts(len(data.class_names)).tolist()
            found[title][COUNTED[data.task]] = dict(zip(data.class_names, counts, strict=True))
    return found


def find_problems(data, image_size=(256, 256)):
    """Look for what is likely to go wrong: each with a number and what to do.

    Args:
        data: `DataSet`.
        image_size: `(height, width)` that images are resized to for training, for detection.

    Returns:
        list of str.
    """
    problems = _copies(data) + _rare_classes(data)
    if data.task == DETECTION:
        problems += _sizes(data, image_size) + _shared_boxes(data)
    return problems


# ---------------------------------------------------------------- images


def _thumbnails(split):
    """Grey thumbnails of all images, float32 `(n, 32, 32)`."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        small = list(pool.map(_thumbnail, split.images))
    return np.array(small, np.float32)


def _thumbnail(image):
    if not isinstance(image, np.ndarray):
        content = image if isinstance(image, bytes) else None
        with opened("image" if content else image, content) as file:
            file.draft("L", (4 * THUMBNAIL, 4 * THUMBNAIL))  # of JPEG, decode no more than that
            image = upright_rgb(file)
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def _copies(data):
    """Images that are in two splits, or in two classes."""
    problems = []
    seen = {title: _thumbnails(split) for title, split in data.splits.items()}
    for first, second in itertools.combinations(seen, 2):
        if pairs := _near(seen[first], seen[second]):
            known, names = data.splits[first].names, data.splits[second].names
            shown = (f"{names[b]} = {known[a]}{' mirrored' * turned}" for a, b, turned in pairs)
            problems.append(
                f"{len(pairs)} of {len(names)} {second} images are nearly the same as {first} "
                f"images, so results on {second} are too good: {first_of(shown)}. Keep them in one "
                "split (frames of one video too)"
            )
    if data.task == CLASSIFICATION:
        problems += _in_two_classes(data, seen)
    return problems


def _in_two_classes(data, seen):
    """Images that are in two classes, in any splits; `seen`: dict from split to thumbnails."""
    splits = {title: split for title, split in data.splits.items() if split.task == data.task}
    labels = np.concatenate([split.targets["label"] for split in splits.values()])  # (n,)
    names = [f"{title}/{name}" for title, split in splits.items() for name in split.names]
    thumbnails = np.concatenate([seen[title] for title in splits])
    if len(labels) <= MOST_COMPARED:
        pairs = _near(thumbnails, thumbnails, lambda rows: labels[rows, None] > labels)
    else:
        first = {}
        pairs = [(first.setdefault(t.tobytes(), k), k, False) for k, t in enumerate(thumbnails)]
        pairs = [pair for pair in pairs if labels[pair[0]] != labels[pair[1]]]
    if not pairs:
        return []
    kinds = [data.class_names[label] for label in labels]
    shown = (f"{names[a]} ({kinds[a]}) = {names[b]} ({kinds[b]})" for a, b, _ in pairs)
    return [
        f"{len(pairs)} pairs of the {len(labels)} images are nearly the same, but of two classes: "
        f"{first_of(shown)}. Keep each in the right class only"
    ]


def _near(first, second, allowed=None):
    """Find thumbnails that are nearly the same, upright or mirrored.

    Args:
        first: thumbnails `(m, 32, 32)`.
        second: thumbnails `(n, 32, 32)`.
        allowed: function from rows of `second`, a slice, to bool `(rows, m)`: which pairs count.

    Returns:
        list of `(index in first, index in second, whether mirrored)`: for each of `second` that
        has any the nearest.
    """
    ways = [_standardized(first), _standardized(first[:, :, ::-1])]
    second = _standardized(second)
    pairs = []
    for start in range(0, len(second), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        found = []  # of each way, the nearest: (rows,) indices and correlations
        for way in ways:
            alike = second[rows] @ way.T  # (rows, m)
            if allowed is not None:
                alike[~allowed(rows)] = 0
            nearest = alike.argmax(1)
            found.append((nearest, alike[np.arange(len(alike)), nearest]))
        (upright, same), (mirrored, turned) = found
        for k in np.flatnonzero(np.maximum(same, turned) >= SAME_CORRELATION):
            is_turned = bool(turned[k] > same[k])
            nearest = mirrored if is_turned else upright
            pairs.append((int(nearest[k]), start + int(k), is_turned))
    return pairs


def _standardized(images):
    """Images as vectors of mean 0 and length 1, so that products are correlations."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    # Of an image of one colour nothing is left: it is like no other.
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1)


# ---------------------------------------------------------------- classes


def _rare_classes(data):
    if data.task not in COUNTED:
        return []
    what = "objects" if data.task == DETECTION else "images"
    names, count = data.class_names, len(data.class_names)
    by_image = [split.counts_by_image(count) for split in (data.train, data.val)]
    # Of objects, all count; of pixels, on how many images there are any.
    train, val = (c.sum(0) if data.task == DETECTION else (c > 0).sum(0) for c in by_image)
    problems = []
    if (none := np.flatnonzero(train == 0)).size:
        problems.append(
            f"{none.size} of {count} classes have no {what[:-1]} to train on: "
            f"{first_of(names[k] for k in none)}. Leave these classes out, or label some"
        )
    few = np.flatnonzero((train > 0) & (train < FEW_EXAMPLES))
    if few.size:
        shown = (f"{names[k]} ({train[k]})" for k in few[np.argsort(train[few], kind="stable")])
        problems.append(
            f"{few.size} of {count} classes have fewer than {FEW_EXAMPLES} {what} to train on: "
            f"{first_of(shown, 20)}. Label more, or leave these classes out"
        )
    if (absent := np.flatnonzero(val == 0)).size:
        problems.append(
            f"{absent.size} of {count} classes are on no val image, so nothing is measured for "
            f"them: {first_of(names[k] for k in absent)}. Take another split"
        )
    there = by_image[0].sum(0)
    most, least = there.argmax(), np.where(there > 0, there, there.max() + 1).argmin()
    limit = UNBALANCED_PIXELS if data.task == SEGMENTATION else UNBALANCED
    if there[most] >= limit * there[least] > 0:
        what = "pixels" if data.task == SEGMENTATION else what
        problems.append(
            f"unbalanced classes: {there[most]} {what} of {names[most]} and {there[least]} of "
            f"{names[least]} to train on, {there[most] / there[least]:.0f} times as many. Weigh "
            "the classes in the loss, look at the results by class, or add rare ones"
        )
    return problems


# ---------------------------------------------------------------- boxes


def _objects(data):
    """`(name, boxes, classes)` of each image, without ignored objects."""
    for title, split in data.splits.items():
        targets = split.targets
        for k, name in enumerate(split.names):
            keep = ~targets["ignore"][k]
            boxes, classes = targets["boxes"][k][keep], targets["classes"][k][keep]
            yield f"{title}/{name}", boxes, classes


def _sizes(data, image_size):
    """Objects that are too small or too large to be found."""
    small, large = collections.Counter(), collections.Counter()
    pixels = []  # of every object, the root of its area at the size for training
    for name, boxes, _ in _objects(data):
        sides = boxes[:, 2:] - boxes[:, :2]  # (objects, 2), shares of the image
        shares = np.sqrt(np.prod(sides, axis=1))
        pixels += (resized := shares * np.sqrt(image_size[0] * image_size[1])).tolist()
        small[name] += int(np.count_nonzero(resized < FINEST_STRIDE))
        large[name] += int(np.count_nonzero(shares > LARGEST_ANCHOR))
    problems, total = [], len(pixels)
    if count := small.total():
        larger = FINEST_STRIDE / max(np.quantile(pixels, 0.1), 1e-9)
        problems.append(
            f"{count} of {total} objects are smaller than {FINEST_STRIDE} pixels, the finest "
            f"stride of the detectors, once images are resized to {image_size[0]} x "
            f"{image_size[1]}: {_worst(small)}. Train on larger images"
            + (f" ({larger:.2g} times the size for nine of ten)" if larger > 1.05 else "")
            + ", or on windows of them"
        )
    if count := large.total():
        problems.append(
            f"{count} of {total} objects are larger than the largest anchor ({LARGEST_ANCHOR:.0%} "
            f"of the image): {_worst(large)}. If objects fill the images, classification may be "
            "the task; or zoom out (augmentation ssd)"
        )
    return problems


def _worst(counts):
    names = (f"{name} ({n})" for name, n in counts.most_common() if n)
    return first_of(names)


def _shared_boxes(data):
    """Objects of one image whose boxes are the same."""
    shared, total, examples = 0, 0, []
    for name, boxes, classes in _objects(data):
        total += len(boxes)
        if len(boxes) < 2:
            continue
        corners = np.minimum(boxes[:, None, 2:], boxes[:, 2:])  # (objects, objects, 2)
        overlap = np.prod(np.maximum(corners - np.maximum(boxes[:, None, :2], boxes[:, :2]), 0), 2)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)  # (objects,)
        iou = overlap / (areas[:, None] + areas - overlap)
        pairs = np.argwhere(np.triu(iou > SHARED_IOU, 1))
        shared += len(pairs)
        for a, b in pairs:
            kinds = {data.class_names[classes[a]], data.class_names[classes[b]]}
            examples.append(f"{name} ({' and '.join(sorted(kinds))})")
    if not shared:
        return []
    return [
        f"{shared} pairs of the {total} objects share one box (IoU above {SHARED_IOU}): "
        f"{first_of(examples)}. Labelled twice? Keep one of each"
    ]
