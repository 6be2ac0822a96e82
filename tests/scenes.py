"""Images with something to find, for tests that train a detector on a handful of them."""

import numpy as np

# Labels that no detector may learn from, of two classes.
BAD_ROWS = {
    "pixels": [0, 10, 12, 60, 50],
    "class 0.5": [0.5, 0.1, 0.1, 0.5, 0.5],
    "class out of range": [2, 0.1, 0.1, 0.5, 0.5],
    "class below -1": [-3, 0.1, 0.1, 0.5, 0.5],
    "NaN": [0, 0.1, np.nan, 0.5, 0.5],
    "inside out": [0, 0.5, 0.1, 0.1, 0.5],
}


def bright_rectangles(count=4, size=(64, 96), seed=0):
    """Images of noise with a bright rectangle, and where it is; every other row is padding.

    Returns:
        float32 images `(count, *size, 3)`, and rows `(count, 3, 5)` of classes 0 and 1.
    """
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 60, (count, *size, 3)).astype(np.float32)
    labels = np.full((count, 3, 5), -1, np.float32)
    height, width = size
    for i in range(count):
        x1, y1 = rng.uniform(0, 0.4, 2)
        x2, y2 = x1 + rng.uniform(0.3, 0.5), y1 + rng.uniform(0.3, 0.5)
        color = [190, 190, 190 * (i % 2)]  # the classes look different
        images[i, int(y1 * height) : int(y2 * height), int(x1 * width) : int(x2 * width)] += color
        labels[i, 1] = [i % 2, x1, y1, x2, y2]
    return images, labels
