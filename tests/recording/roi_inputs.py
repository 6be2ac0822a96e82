"""Random maps and boxes for the RoI operators, the same for recording and testing; NumPy only.

`np.random.RandomState` is used because NumPy promises never to change its numbers.
"""

import numpy as np

OPERATORS = ("align", "align", "align", "align", "pool", "pool", "ps_align", "ps_pool")
SCALES = (1.0, 0.5, 0.25, 0.1, 0.0625, 0.3)
KINDS = ("inside", "around", "whole pixels", "half pixels", "empty", "inverted", "edge", "large")


def case(seed):
    """One call of an operator.

    Returns:
        dict: "operator", one of OPERATORS; "features" (batch, h, w, c), "boxes" (n, 4),
        "image_indices" (n,); "output_size", "spatial_scale", and for align "sampling_ratio" and
        "aligned"; "upstream", the gradient of the output.
    """
    random = np.random.RandomState(seed)
    operator = OPERATORS[seed % len(OPERATORS)]
    rows, columns = random.randint(1, 5), random.randint(1, 4)
    batch, height, width = random.randint(1, 4), random.randint(2, 9), random.randint(2, 8)
    channels = random.randint(1, 3)
    maps = channels if operator in ("align", "pool") else channels * rows * columns
    features = random.standard_normal((batch, height, width, maps))
    if random.randint(3) == 0:
        features = np.maximum(np.round(features), 0)  # ties, as after a ReLU
    scale = np.float32(SCALES[random.randint(len(SCALES))])
    samples = (2, 1, 3, 0)[random.randint(4)]
    if operator == "ps_align":
        samples = samples or 2  # torchvision divides by 0 where a box is empty
    size = random.randint(0, 6)
    boxes = [box(random, height, width, rows * max(samples, 1)) for _ in range(size)]
    boxes = np.array(boxes).reshape(-1, 4) / scale
    if samples == 0:  # torchvision fails on an inverted box
        boxes = np.concatenate([np.minimum(*(p := np.split(boxes, 2, 1))), np.maximum(*p)], axis=1)
    found = {
        "operator": operator,
        "features": features.astype(np.float32),
        "boxes": boxes.astype(np.float32),
        "image_indices": random.randint(0, batch, size).astype(np.int32),
        "output_size": (rows, columns),
        "spatial_scale": float(scale),
    }
    if operator in ("align", "ps_align"):
        found["sampling_ratio"] = samples
    if operator == "align":
        found["aligned"] = bool(random.randint(2))
    found["upstream"] = random.standard_normal((size, rows, columns, channels)).astype(np.float32)
    return found


def box(random, height, width, samples):
    """A box in pixels of the map."""
    size = np.array([width, height, width, height])
    kind = KINDS[random.randint(len(KINDS))]
    low, high = np.sort(random.uniform(0, 1, (2, 2)) * size[:2], axis=0)
    corners = np.concatenate([low, high])
    if kind == "around":
        corners = corners + random.uniform(-1, 1, 4) * size
    elif kind == "whole pixels":
        corners = np.round(corners)
    elif kind == "half pixels":
        corners = np.floor(corners) + 0.5
    elif kind == "empty":
        corners = np.concatenate([low, low])
    elif kind == "inverted":
        corners = np.concatenate([high, low])
    elif kind == "edge":  # The first or last sample lies on -1 or on the side.
        extent = random.randint(1, 5)
        before = -1 - extent / (2 * samples)
        corners = np.array([before, before, before + extent, before + extent])
        if random.randint(2):
            after = size + extent / (2 * samples)
            corners = after - np.array([extent, extent, 0, 0])
    elif kind == "large":
        corners = corners * 3 - size
    return corners


PYRAMID_IMAGE = (512, 640)


def pyramid():
    """Four maps of strides 4 … 32, boxes of two images, and the boxes' images."""
    random = np.random.RandomState(3)
    height, width = PYRAMID_IMAGE
    features = [
        random.standard_normal((2, height // stride, width // stride, 2)).astype(np.float32)
        for stride in (4, 8, 16, 32)
    ]
    sides = [(112, 112), (223.9, 223.9), (224, 224), (448, 448), (30, 20), (600, 500), (0, 5)]
    random_sides = 2 ** random.uniform(2, 9, (23, 2))
    sides = np.concatenate([np.array(sides), random_sides])
    corner = random.uniform(-20, 200, sides.shape)
    boxes = np.concatenate([corner, corner + sides], axis=1)
    boxes[:7] = np.concatenate([np.zeros((7, 2)), sides[:7]], axis=1)  # sides to the last bit
    boxes = boxes.astype(np.float32)
    return features, (boxes[:18], boxes[18:]), np.repeat([0, 1], [18, 12]).astype(np.int32)


def masks():
    """Masks (n, 7, 7) in [0, 1], boxes (n, 4) and the image's size."""
    random = np.random.RandomState(4)
    boxes = random.uniform(-4, 20, (8, 2))
    boxes = np.concatenate([boxes, boxes + random.uniform(1, 20, (8, 2))], axis=1)
    boxes[0] = [3, 2, 10, 9]
    boxes[1] = [-5.5, -3.5, 40, 50]
    boxes[2] = [2.2, 3.4, 2.6, 9.1]
    return random.uniform(size=(8, 7, 7)).astype(np.float32), boxes.astype(np.float32), (19, 23)
