"""Boxes, logits and maps that record_regions.py and the tests both make; NumPy only.

`np.random.RandomState` is used because NumPy promises never to change its numbers.
"""

import numpy as np

IMAGE_SIZE, MAP_SIZES = (200, 272), ((13, 17), (7, 9), (4, 5))
ANCHOR_SIZES = {
    "rpn": ((32,), (64,), (128,)),
    "retinanet": ((32, 40, 50), (64, 80, 101), (3, 4, 5)),
}
MATCHES = {"rpn": (0.7, 0.3, True), "head": (0.5, 0.5, False), "retinanet": (0.5, 0.4, True)}
WEIGHTS = ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0))
FOCAL = ((0.25, 2.0), (None, 2.0), (0.4, 0.5))
MAP_CHANNELS, CHANNELS = (3, 4, 5), 6


def boxes(count, seed):
    """Corners `(count, 4)` in pixels, width and height apart, none without area."""
    random = np.random.RandomState(seed)
    low = random.uniform(-20, 100, (count, 2))
    return np.concatenate([low, low + random.uniform(1, (150, 90), (count, 2))], 1).astype("f4")


def offsets(count, classes):
    """Offsets `(count, 4·classes)`, some too large for `exp`."""
    found = np.random.RandomState(5).standard_normal((count, 4 * classes)) * 2
    found[0] *= 100
    return found.astype(np.float32)


def logits():
    """Logits and targets `(40,)`, hard and soft."""
    random = np.random.RandomState(6)
    targets = random.randint(0, 2, 40).astype(np.float32)
    targets[30:] = random.uniform(size=10)
    return (random.standard_normal(40) * 6).astype(np.float32), targets


def matching():
    """Objects of three images (1, 4 and 9 rows) and anchors of which many tie."""
    y, x = np.meshgrid(np.arange(0, 160, 16.0), np.arange(0, 200, 16.0), indexing="ij")
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    anchors = (shifts + [[-23, -11, 23, 11], [-16, -16, 16, 16], [-32, -32, 32, 32]]).reshape(-1, 4)
    objects = [boxes(n, 7 + n) for n in (1, 4, 9)]
    objects[1][0] = [32, 48, 64, 80]  # between four anchors
    objects[2][:2] = objects[2][0]  # two of one place
    return objects, anchors.astype(np.float32)


def pyramid():
    """Feature maps `(2, h, w, c)`, and the weights of a pyramid: name -> kernel (h, w, in, out)."""
    random = np.random.RandomState(8)

    def draw(*shape):
        return random.standard_normal(shape).astype(np.float32)

    maps = [draw(2, *size, c) for size, c in zip(MAP_SIZES, MAP_CHANNELS, strict=True)]
    kernels = {f"inner_{i}": draw(1, 1, c, CHANNELS) for i, c in enumerate(MAP_CHANNELS)}
    kernels |= {f"layer_{i}": draw(3, 3, CHANNELS, CHANNELS) / 5 for i in range(len(MAP_CHANNELS))}
    kernels |= {name: draw(3, 3, CHANNELS, CHANNELS) / 5 for name in ("p6", "p7")}
    return maps, {name: (kernel, draw(CHANNELS)) for name, kernel in kernels.items()}
