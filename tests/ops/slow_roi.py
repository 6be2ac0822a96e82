"""The RoI operators pixel by pixel: what every output value reads, with which weight."""

import math

import numpy as np

F = np.float32


def run(case):
    """Output and gradient of the features of a case of roi_inputs.

    Returns:
        Tuple of float64 `(n, rows, columns, c)` and float64 `(batch, h, w, c)`.
    """
    features = case["features"].astype(np.float64)
    (rows, columns), operator = case["output_size"], case["operator"]
    sensitive = operator.startswith("ps_")
    channels = features.shape[-1] // (rows * columns) if sensitive else features.shape[-1]
    output = np.zeros((len(case["boxes"]), rows, columns, channels))
    gradient = np.zeros_like(features)
    for n, i, j, k in np.ndindex(output.shape):
        image = features[case["image_indices"][n]]
        channel = (k * rows + i) * columns + j if sensitive else k
        for y, x, weight in READS[operator](case, case["boxes"][n], i, j, image[..., channel]):
            output[n, i, j, k] += weight * image[y, x, channel]
            at = case["image_indices"][n], y, x, channel
            gradient[at] += weight * case["upstream"][n, i, j, k]
    return output, gradient


def lines(case, box):
    """Start and end of the box in the map, bins and side of the map: by rows, by columns."""
    scale = F(case["spatial_scale"])
    height, width = case["features"].shape[1:3]
    rows, columns = case["output_size"]
    x1, y1, x2, y2 = (F(v) * scale for v in box)
    return (y1, y2, rows, height), (x1, x2, columns, width)


def align(case, box, i, j, _, shift=None):
    aligned = shift is not None or case["aligned"]
    samples = []
    for (start, end, bins, side), k in zip(lines(case, box), (i, j), strict=True):
        start, end = (v - F(0.5 if aligned else 0) for v in (start, end))
        extent = end - start if aligned else max(end - start, F(1))
        part = extent / F(bins)
        count = case["sampling_ratio"] or math.ceil(part)
        samples.append(
            [
                bilinear(start + F(k) * part + F(s + 0.5) * part / F(count), side)
                for s in range(count)
            ]
        )
    total = max(len(samples[0]) * len(samples[1]), 1)
    for line in samples[0]:
        for column in samples[1]:
            for y, weight in line:
                for x, other in column:
                    yield y, x, weight * other / total


def bilinear(position, side):
    """Pairs of a pixel and its weight, none for a position outside."""
    if position < -1 or position > side:
        return []
    position = min(max(float(position), 0), side - 1)
    low = min(int(position), side - 1)
    return [(low, 1 - (position - low)), (min(low + 1, side - 1), position - low)]


def whole(value):
    """Round half away from zero."""
    return math.copysign(math.floor(abs(float(value)) + 0.5), value)


def pixels(case, box, i, j, inclusive):
    """Rows and columns of a bin."""
    found = []
    for (start, end, bins, side), k in zip(lines(case, box), (i, j), strict=True):
        start, end = whole(start), whole(end)
        part = F(max(end - start + inclusive, 1)) / F(bins)
        last = side - 1 + inclusive
        edges = (math.floor(F(k) * part) + start, math.ceil(F(k + 1) * part) + start)
        low, high = (int(min(max(edge, 0), last)) for edge in edges)
        found.append(range(low, high))
    return found


def pool(case, box, i, j, image):
    rows, columns = pixels(case, box, i, j, inclusive=1)
    if rows and columns:
        best = max(image[y, x] for y in rows for x in columns)
        yield next((y, x, 1.0) for y in rows for x in columns if image[y, x] == best)


def ps_pool(case, box, i, j, _):
    rows, columns = pixels(case, box, i, j, inclusive=0)
    for y in rows:
        for x in columns:
            yield y, x, 1 / (len(rows) * len(columns))


def ps_align(case, box, i, j, image):
    return align(case, box, i, j, image, shift=0.5)


READS = {"align": align, "pool": pool, "ps_align": ps_align, "ps_pool": ps_pool}
