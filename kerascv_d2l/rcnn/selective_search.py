"""Selective search: boxes that may hold an object, from pixels alone.

An image is cut into small segments. The two neighbours that are most alike are joined, again
and again, until one is left. The box around every segment on the way is a proposal.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from kerascv_d2l.errors import InputError
from kerascv_d2l.rcnn.extra import optional

COLOR_BINS, TEXTURE_BINS = 25, 10  # of a channel; of a channel and direction
DIRECTIONS = 8
TEXTURE_SIGMA = 1.0
# "Fast" of the paper: two colour spaces, two scales of segments, two measures of likeness.
COLOR_SPACES = ("hsv", "lab")
SCALES = (50, 100)
MEASURES = (("color", "texture", "size", "fill"), ("texture", "size", "fill"))
SMALLEST_SIDE = 20  # pixels


def selective_search(
    image,
    color_spaces=COLOR_SPACES,
    scales=SCALES,
    measures=MEASURES,
    smallest_side=SMALLEST_SIDE,
    max_proposals=2000,
    seed=0,
):
    """Propose boxes for objects of any class.

    The grouping is run once for each combination of colour space, scale and measure, and
    the boxes are put together. Those of large segments, made late, tend to come first; a random
    factor keeps one run from filling the front.

    Args:
        image: uint8 `(h, w, 3)`, RGB.
        color_spaces: names out of "rgb", "hsv" and "lab".
        scales: ints, of the first segments: larger gives larger ones. It is also their
            smallest size in pixels.
        measures: sequences of names out of "color", "texture", "size" and "fill", whose sum says
            how alike two segments are.
        smallest_side: int, pixels; boxes with a shorter side are left out.
        max_proposals: int.
        seed: int, of the order.

    Returns:
        float32 `(n, 4)`, corners in pixels, each box once, n at most `max_proposals`; the
        likelier ones first.

    Raises:
        InputError: if the image is not as above, a name is not known, or scikit-image is missing.

    Source:
        Uijlings et al. 2013, "Selective Search for Object Recognition", sections 3.1 and 3.2 and
        table 5; first segments: Felzenszwalb and Huttenlocher 2004.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"image must be uint8 (h, w, 3); got {image.dtype} {image.shape}.")
    segmentation = optional("skimage.segmentation")
    random = np.random.default_rng(seed)
    boxes, ranks = [], []
    for space in color_spaces:
        pixels = _in_color_space(image, space)
        for scale in scales:
            labels = segmentation.felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=scale)
            segments = _Segments(pixels, labels)
            for measure in measures:
                found = segments.copy().group(measure)
                boxes.append(found)
                # The last one made is the whole image: place 1 (section 3.2, "combining").
                places = np.arange(len(found), 0, -1)
                ranks.append(places * random.uniform(size=len(found)))
    boxes, ranks = np.concatenate(boxes), np.concatenate(ranks)
    large = (boxes[:, 2:] - boxes[:, :2] >= smallest_side).all(axis=1)
    boxes = boxes[large][np.argsort(ranks[large], kind="stable")]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)][:max_proposals].astype(np.float32)


def _in_color_space(image, space):
    """Convert to float32 `(h, w, 3)` in 0-1."""
    pixels = image.astype(np.float32) / 255
    if space == "rgb":
        return pixels
    color = optional("skimage.color")
    if space == "hsv":
        return color.rgb2hsv(pixels).astype(np.float32)
    if space == "lab":
        low, high = np.array([0, -128, -128]), np.array([100, 127, 127])
        return ((color.rgb2lab(pixels) - low) / (high - low)).astype(np.float32)
    raise InputError(f"color_spaces has {space!r}; wanted rgb, hsv or lab.")


class _Segments:
    """Segments of one image, which are joined in place.

    Attributes:
        pixels: int, of the image.
        size: float `(n,)`, pixels of each segment; 0 once it is part of another.
        box: float `(n, 4)`, corners in pixels around each.
        histogram: dict of float `(n, bins)`, each row of sum 1.
        adjacent: bool `(n, n)`.
    """

    def __init__(self, image, labels):
        n = labels.max() + 1
        self.pixels = labels.size
        self.size = np.bincount(labels.ravel(), minlength=n).astype(float)
        self.box = _boxes_of(labels, n)
        self.histogram = {
            "color": _histograms(image, labels, n, COLOR_BINS),
            "texture": _histograms(_gradients(image), labels, n, TEXTURE_BINS),
        }
        self.adjacent = _adjacent(labels, n)

    def copy(self):
        other = object.__new__(type(self))
        other.pixels, other.size, other.box = self.pixels, self.size.copy(), self.box.copy()
        other.histogram = {name: values.copy() for name, values in self.histogram.items()}
        other.adjacent = self.adjacent.copy()
        return other

    def group(self, measure):
        """Join until one is left; return the boxes of all segments in order of their making."""
        likeness = np.full(self.adjacent.shape, -np.inf)
        for i in range(len(likeness)):
            self._compare(likeness, i, measure)
        made = [*self.box.copy()]
        for _ in range(len(likeness) - 1):
            i, j = np.unravel_index(likeness.argmax(), likeness.shape)
            self._join(i, j)
            likeness[j] = likeness[:, j] = -np.inf
            self._compare(likeness, i, measure)
            made.append(self.box[i].copy())
        return np.array(made)

    def _compare(self, likeness, i, measure):
        """Fill in row and column i: how alike i and each of its neighbours are, eq. 1 to 5."""
        near = np.flatnonzero(self.adjacent[i])
        total = np.zeros(len(near))
        for name in measure:
            if name in self.histogram:
                rows = self.histogram[name]
                total += np.minimum(rows[i], rows[near]).sum(axis=1)
            elif name == "size":  # small ones are joined first
                total += 1 - (self.size[i] + self.size[near]) / self.pixels
            elif name == "fill":  # how little of the box around both would be neither
                box = _around(self.box[i], self.box[near])
                area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
                total += 1 - (area - self.size[i] - self.size[near]) / self.pixels
            else:
                raise InputError(f"measures has {name!r}; wanted color, texture, size or fill.")
        likeness[i] = likeness[:, i] = -np.inf
        likeness[i, near] = likeness[near, i] = total

    def _join(self, i, j):
        """Make j part of i, eq. 3: histograms are means, weighted by size."""
        weight = self.size[[i, j]] / self.size[[i, j]].sum()
        for rows in self.histogram.values():
            rows[i] = weight @ rows[[i, j]]
        self.box[i] = _around(self.box[i], self.box[j])
        self.size[i] += self.size[j]
        self.size[j] = 0
        self.adjacent[i] |= self.adjacent[j]
        self.adjacent[:, i] = self.adjacent[i]
        self.adjacent[j] = self.adjacent[:, j] = False
        self.adjacent[i, i] = False


def _around(box, others):
    """Smallest boxes around `box` `(4,)` and each of `others` `(…, 4)`."""
    low, high = np.minimum(box, others), np.maximum(box, others)
    return np.concatenate([low[..., :2], high[..., 2:]], axis=-1)


def _boxes_of(labels, n):
    """Corners around each label: float `(n, 4)`, `x_max` one past the last pixel."""
    y, x = np.indices(labels.shape)
    low, high = np.full((n, 2), np.inf), np.zeros((n, 2))
    for axis, position in enumerate((x, y)):
        np.minimum.at(low[:, axis], labels.ravel(), position.ravel())
        np.maximum.at(high[:, axis], labels.ravel(), position.ravel() + 1)
    return np.concatenate([low, high], axis=1)


def _histograms(channels, labels, n, bins):
    """Histograms of values in 0-1 of each label and channel: float `(n, channels·bins)`, sum 1."""
    rows = []
    for channel in np.moveaxis(channels, -1, 0):
        place = np.minimum((channel * bins).astype(int), bins - 1)
        row = np.bincount((labels * bins + place).ravel(), minlength=n * bins)
        rows.append(row.reshape(n, bins))
    rows = np.concatenate(rows, axis=1).astype(float)
    return rows / rows.sum(axis=1, keepdims=True)


def _gradients(image):
    """Slopes of each channel in eight directions, in 0-1: float `(h, w, channels·8)`."""
    slopes = []
    for channel in np.moveaxis(image, -1, 0):
        dy = gaussian_filter(channel, TEXTURE_SIGMA, order=(1, 0))
        dx = gaussian_filter(channel, TEXTURE_SIGMA, order=(0, 1))
        for angle in np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS:
            slopes.append(np.maximum(np.cos(angle) * dx + np.sin(angle) * dy, 0))
    slopes = np.stack(slopes, axis=-1)
    return slopes / max(slopes.max(), 1e-12)


def _adjacent(labels, n):
    """Which labels touch, upright or sideways: bool `(n, n)`."""
    adjacent = np.zeros((n, n), bool)
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        adjacent[a, b] = adjacent[b, a] = True
    np.fill_diagonal(adjacent, False)
    return adjacent
