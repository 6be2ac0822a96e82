"""RoI pooling and RoI align: a fixed number of features for a region of any size.

Boxes are pixels of the input image, `(x_min, y_min, x_max, y_max)`;
`spatial_scale` is the side of the feature map over that of the image (1/16 for
a stride of 16). The results are torchvision's, gradients included, with
channels last. No gradient reaches the boxes.

Nothing loops over regions in Python, and their number may be unknown or 0.
"""

import math

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops import roi_sampling
from kerascv_d2l.ops.checks import as_boxes
from kerascv_d2l.ops.roi_sampling import as_regions, as_size, map_size

METHODS = ("auto", "sparse", "gather", "separable")
PYRAMID_BINS = (6, 3, 2, 1)


def roi_align(
    features,
    boxes,
    image_indices,
    output_size,
    spatial_scale=1.0,
    sampling_ratio=2,
    aligned=False,
    method="auto",
):
    """Average bilinear samples in a grid of bins over each box.

    A sample outside the map by more than a pixel (below -1 or above the side)
    is 0; nearer ones take the value of the border.

    Args:
        features: float `(batch, h, w, c)`.
        boxes: float32 `(n, 4)` corners in pixels of the image. With
            `aligned=False` a side shorter than one pixel of the map counts as
            one pixel, from x_min or y_min on: so do empty and inverted boxes.
            With `aligned=True` an inverted box is read backwards.
        image_indices: int32 `(n,)`, the image of each box; 0 comes out for an
            index out of range.
        output_size: int or `(rows, columns)` of bins.
        spatial_scale: float, map over image.
        sampling_ratio: int, samples along each side of a bin; 0 or less for
            ceil(side / bins), another number for each box ("separable" only).
        aligned: whether pixel (0, 0) has its centre at (0.5, 0.5), as it has
            everywhere else, rather than at (0, 0), as in the paper.
        method: "sparse" is fast and knows neither XLA nor TensorFlow Lite.
            "gather" and "separable" (two matrix products) run everywhere, with
            builtin operators in TensorFlow Lite; the time of the latter grows
            with the map. "auto" takes "separable" inside
            `tf.function(jit_compile=True)` and for `sampling_ratio` ≤ 0, else
            "sparse". TensorFlow Lite's converter cannot be seen from here: name
            another than "sparse" for it.

    Returns:
        `(n, rows, columns, c)` of the dtype of `features`.

    Raises:
        InputError: if a shape is another, or an argument out of range.

    Source:
        He et al. 2017, "Mask R-CNN", section 3; `torchvision.ops.roi_align`.
    """
    features, boxes, image_indices, dtype = as_regions(features, boxes, image_indices)
    rows, columns = as_size(output_size)
    method = _choose(method, sampling_ratio)
    x_min, y_min, x_max, y_max = tf.unstack(
        boxes * spatial_scale - (0.5 if aligned else 0.0), axis=1
    )
    width, height = x_max - x_min, y_max - y_min  # (n,)
    if not aligned:
        width, height = tf.maximum(width, 1.0), tf.maximum(height, 1.0)
    if method != "separable":
        ys = roi_sampling.sample_positions(y_min, height, rows, sampling_ratio)
        xs = roi_sampling.sample_positions(x_min, width, columns, sampling_ratio)
    if method == "sparse":
        return tf.cast(roi_sampling.sample_means(features, ys, xs, image_indices), dtype)
    if method == "gather":
        levels = tf.zeros_like(image_indices)
        return tf.cast(_gather([features], ys, xs, image_indices, levels), dtype)
    _, map_height, map_width, _ = map_size(features)
    pooled = roi_sampling.apply_weights(
        features,
        roi_sampling.bilinear_weights(y_min, height, rows, sampling_ratio, map_height),
        roi_sampling.bilinear_weights(x_min, width, columns, sampling_ratio, map_width),
        image_indices,
    )
    return tf.cast(pooled, dtype)


def _choose(method, sampling_ratio):
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    if method == "auto":
        separable = sampling_ratio <= 0 or roi_sampling.compiled_by_xla()
        return "separable" if separable else "sparse"
    if method in ("sparse", "gather") and sampling_ratio <= 0:
        raise InputError(
            f"sampling_ratio={sampling_ratio}: a number of samples that depends on the box needs "
            'method="separable".'
        )
    return method


def _gather(maps, ys, xs, image_indices, levels):
    """Means of samples at `ys` and `xs` of the map of each region's level, `(n, …, c)`."""
    sizes = [map_size(features) for features in maps]  # (batch, h, w, c) each
    batch, channels = sizes[0][0], sizes[0][3]
    table = tf.concat([tf.reshape(features, [-1, channels]) for features in maps], axis=0)
    heights, widths = (tf.stack([size[i] for size in sizes]) for i in (1, 2))
    starts = tf.cumsum(batch * heights * widths, exclusive=True)  # (levels,)
    height, width, start = (tf.gather(t, levels) for t in (heights, widths, starts))
    known = (image_indices >= 0) & (image_indices < batch)  # (n,)
    first = start + tf.where(known, image_indices, 0) * height * width
    means = roi_sampling.gathered_means(table, ys, xs, first, height, width)
    return tf.where(known[:, tf.newaxis, tf.newaxis, tf.newaxis], means, 0.0)


def multilevel_roi_align(
    features,
    boxes,
    image_indices,
    output_size,
    strides=(4, 8, 16, 32),
    sampling_ratio=2,
    canonical_size=224,
    canonical_level=4,
    method="auto",
):
    """Align each box on the level of a feature pyramid that suits its size.

    Args:
        features: list of float `(batch, h, w, c)`, from fine to coarse.
        boxes: float32 `(n, 4)` corners in pixels of the image.
        image_indices: int32 `(n,)`, the image of each box.
        output_size: int or `(rows, columns)` of bins.
        strides: pixels of the image a pixel of each map; powers of two, each
            twice the one before.
        sampling_ratio: int, as for `roi_align`.
        canonical_size: pixels; a box of this side belongs to `canonical_level`.
        canonical_level: int; level k has stride 2^k.
        method: as for `roi_align`. "separable" computes every box on every
            level and keeps one; "gather" reads one.

    Returns:
        `(n, rows, columns, c)`.

    Raises:
        InputError: if the strides do not fit the maps, or as `roi_align`.

    Source:
        Lin et al. 2017, "Feature Pyramid Networks", equation 1;
        `torchvision.ops.MultiScaleRoIAlign`.
    """
    finest = round(math.log2(strides[0]))
    if len(features) != len(strides) or list(strides) != [
        2 ** (finest + i) for i in range(len(strides))
    ]:
        raise InputError(
            f"strides={tuple(strides)}: expected one power of two for each of the {len(features)} "
            "maps, each twice the one before."
        )
    method = _choose(method, sampling_ratio)
    checked = [as_regions(level, boxes, image_indices) for level in features]
    features, dtype = [level for level, *_ in checked], checked[0][-1]
    _, boxes, image_indices, _ = checked[0]
    levels = pyramid_levels(
        boxes, finest, finest + len(strides) - 1, canonical_size, canonical_level
    )

    def align(i, boxes, image_indices):
        return roi_align(
            features[i], boxes, image_indices, output_size, 1 / strides[i], sampling_ratio,
            method=method,
        )  # fmt: skip

    if len(features) == 1:
        return tf.cast(align(0, boxes, image_indices), dtype)
    if method == "gather":
        pooled = _gather_from_levels(
            features, boxes, image_indices, as_size(output_size), sampling_ratio, levels - finest,
            strides,
        )  # fmt: skip
        return tf.cast(pooled, dtype)
    if method == "separable":
        parts = [align(i, boxes, image_indices) for i in range(len(features))]
        here = levels[:, tf.newaxis, tf.newaxis, tf.newaxis] - finest
        pooled = tf.add_n([tf.where(here == i, part, 0) for i, part in enumerate(parts)])
        return tf.cast(pooled, dtype)
    places, parts = [], []
    for i in range(len(features)):
        own = tf.cast(tf.where(levels == finest + i)[:, 0], tf.int32)  # (boxes of the level,)
        places.append(own)
        parts.append(align(i, tf.gather(boxes, own), tf.gather(image_indices, own)))
    pooled = tf.cast(tf.dynamic_stitch(places, parts), dtype)
    return tf.ensure_shape(pooled, [boxes.shape[0], *parts[0].shape[1:]])


def _gather_from_levels(features, boxes, image_indices, size, sampling_ratio, levels, strides):
    """Read each box from its own map: the maps lie one behind the other in one table."""
    scale = tf.gather([1.0 / stride for stride in strides], levels)  # (n,)
    x_min, y_min, x_max, y_max = tf.unstack(boxes * scale[:, tf.newaxis], axis=1)
    ys, xs = (
        roi_sampling.sample_positions(low, tf.maximum(high - low, 1.0), bins, sampling_ratio)
        for low, high, bins in zip((y_min, x_min), (y_max, x_max), size, strict=True)
    )
    return _gather(features, ys, xs, image_indices, levels)


def pyramid_levels(boxes, finest=2, coarsest=5, canonical_size=224, canonical_level=4):
    """Choose a pyramid level for each box: floor(level + log2(√(w·h) / size) + 1e-6).

    Args:
        boxes: float32 `(…, 4)` corners in pixels of the image.
        finest: int, the lowest level; boxes without area are there too.
        coarsest: int, the highest level.
        canonical_size: pixels; a box of this side belongs to `canonical_level`.
        canonical_level: int.

    Returns:
        int32 `(…)` in [finest, coarsest].

    Source:
        Lin et al. 2017, "Feature Pyramid Networks", equation 1.
    """
    x_min, y_min, x_max, y_max = tf.unstack(as_boxes(boxes, "boxes"), axis=-1)
    # Bounds in place of a logarithm: a side of exactly 448 must not fall to its rounding.
    side = tf.sqrt((x_max - x_min) * (y_max - y_min)) * 2.0**1e-6
    bounds = [
        canonical_size * 2.0 ** (k - canonical_level) for k in range(finest + 1, coarsest + 1)
    ]
    passed = side[..., tf.newaxis] >= tf.constant(bounds, tf.float32)  # (…, levels - 1)
    return finest + tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)


def roi_pool(features, boxes, image_indices, output_size, spatial_scale=1.0):
    """Take the maximum in each of a grid of bins over each box, in whole pixels.

    The corners are rounded to whole pixels of the map, half away from zero, and
    both belong to the region; width = max(x_max - x_min + 1, 1), so an empty or
    inverted box is one pixel. Bin i covers floor(i·width/P) … ceil((i + 1)·width/P),
    computed in float32, cut at the border of the map.

    Args:
        features: float `(batch, h, w, c)`.
        boxes: finite float32 `(n, 4)` corners in pixels of the image.
        image_indices: int32 `(n,)`, the image of each box, in [0, batch).
        output_size: int or `(rows, columns)` of bins.
        spatial_scale: float, map over image.

    Returns:
        `(n, rows, columns, c)` of the dtype of `features`; 0 for a bin outside
        the map. Of equal maxima the first one by rows gets the gradient.

    Raises:
        InputError: if a shape is another.

    Source:
        Girshick 2015, "Fast R-CNN", section 2.1; `torchvision.ops.roi_pool`.
        D2L's example: the 4 × 4 map 0 … 15, boxes [0 0 20 20] and [0 10 30 30],
        scale 0.1, 2 × 2 bins give [[5 6] [9 10]] and [[9 11] [13 15]].
    """
    features, boxes, image_indices, dtype = as_regions(features, boxes, image_indices)
    rows, columns = as_size(output_size)
    _, height, width, _ = map_size(features)
    x_min, y_min, x_max, y_max = tf.unstack(round_half_away(boxes * spatial_scale), axis=1)
    tops = bin_edges(y_min, tf.maximum(y_max - y_min + 1, 1.0), rows, height)  # 2 of (n, rows)
    lefts = bin_edges(x_min, tf.maximum(x_max - x_min + 1, 1.0), columns, width)
    return tf.cast(_max_of_bins(features, image_indices, tops, lefts), dtype)


def round_half_away(values):
    """Round to whole numbers, half away from zero, as C does (`tf.round`: half to even)."""
    whole = tf.where(values < 0, tf.math.ceil(values), tf.floor(values))
    return whole + tf.where(tf.abs(values - whole) >= 0.5, tf.sign(values), 0.0)


def bin_edges(start, extent, bins, last):
    """First pixel of each bin and the one after its last, cut to [0, last].

    Args:
        start: float32 `(n,)`, whole.
        extent: float32 `(n,)`, whole, at least 1.
        bins: int.
        last: int or int scalar.

    Returns:
        Tuple of two int32 `(n, bins)`.
    """
    # extent ≥ 1, so 0 is added: XLA multiplies by 1/7 where it sees that a divisor is always 7,
    # and a bin of 57 rows then ends elsewhere.
    part = (extent / (tf.minimum(extent, 0.0) + float(bins)))[:, tf.newaxis]  # (n, 1)
    low = tf.floor(tf.range(bins, dtype=tf.float32) * part) + start[:, tf.newaxis]
    high = tf.math.ceil((tf.range(bins, dtype=tf.float32) + 1) * part) + start[:, tf.newaxis]
    last = tf.cast(last, tf.float32)
    return tuple(tf.cast(tf.clip_by_value(edge, 0.0, last), tf.int32) for edge in (low, high))


def _max_of_bins(features, image_indices, tops, lefts):
    """Maximum of each bin, `(n, rows, columns, c)`.

    The bins walk over their pixels all at once, a step a pixel; those that are
    through earlier stay at their last row or column.
    """
    batch, height, width, channels = map_size(features)
    (y_low, y_high), (x_low, x_high) = tops, lefts
    tallest = tf.maximum(tf.reduce_max(tf.concat([y_high - y_low, [[0] * tops[0].shape[1]]], 0)), 1)
    widest = tf.maximum(tf.reduce_max(tf.concat([x_high - x_low, [[0] * lefts[0].shape[1]]], 0)), 1)
    empty = (y_high <= y_low)[:, :, tf.newaxis] | (x_high <= x_low)[:, tf.newaxis]
    empty = empty[..., tf.newaxis]  # (n, rows, columns, 1)

    def pixel(step):
        """Row of the flat map that each bin sees at this step, `(n, rows, columns)`."""
        y = tf.clip_by_value(tf.minimum(y_low + step // widest, y_high - 1), 0, height - 1)
        x = tf.clip_by_value(tf.minimum(x_low + step % widest, x_high - 1), 0, width - 1)
        rows = image_indices[:, tf.newaxis] * height + y  # (n, rows)
        return rows[:, :, tf.newaxis] * width + x[:, tf.newaxis]

    def scan(step_function, start):
        return tf.while_loop(
            lambda step, _: step < tallest * widest,
            lambda step, value: (step + 1, step_function(step, value)),
            (1, start),
        )[1]

    @tf.custom_gradient
    def pooled(features):
        flat = tf.reshape(features, [batch * height * width, channels])
        best = scan(
            lambda step, best: tf.maximum(best, tf.gather(flat, pixel(step))),
            tf.gather(flat, pixel(0)),
        )

        def gradient(upstream):
            def first(step, place):
                here = pixel(step)[..., tf.newaxis]  # (n, rows, columns, 1)
                found = (place < 0) & (tf.gather(flat, here[..., 0]) == best)
                return tf.where(found, here, place)

            place = first(0, tf.fill(tf.shape(best), -1))
            place = tf.maximum(scan(first, place), 0) * channels + tf.range(channels)
            total = tf.math.unsorted_segment_sum(
                tf.reshape(tf.where(empty, 0.0, upstream), [-1]),
                tf.reshape(place, [-1]),
                batch * height * width * channels,
            )
            return tf.reshape(total, tf.shape(features))

        return tf.where(empty, 0.0, best), gradient

    return pooled(features)


def spatial_pyramid_pooling(features, boxes, image_indices, bins=PYRAMID_BINS, spatial_scale=1.0):
    """Describe each box by maxima in grids of several sizes, one below another.

    Args:
        features: float `(batch, h, w, c)`.
        boxes: float32 `(n, 4)` corners in pixels of the image, treated as by
            `roi_pool`.
        image_indices: int32 `(n,)`, the image of each box.
        bins: sequence of ints, bins along a side of each grid.
        spatial_scale: float, map over image.

    Returns:
        `(n, Σ bins², c)`: the grids in the order of `bins`, each by rows.

    Raises:
        InputError: if a shape is another.

    Source:
        He et al. 2014, "Spatial Pyramid Pooling" (SPPNet), section 2.2.
    """
    grids = [roi_pool(features, boxes, image_indices, size, spatial_scale) for size in bins]
    parts = [
        tf.reshape(grid, [tf.shape(grid)[0], size * size, grid.shape[-1] or tf.shape(grid)[-1]])
        for grid, size in zip(grids, bins, strict=True)
    ]
    return tf.concat(parts, axis=1)
