"""Maps from the derivatives of a score by the pixels."""

import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.explain.progress import with_progress
from kerascv_d2l.explain.subject import look

BATCH = 8  # images at once
_FIRST_STEPS, _MOST_STEPS = 32, 1024  # along the path of integrated gradients


def saliency(model, image, target=None):
    """Compute how strongly each pixel changes the score.

    Args:
        model: as for `Subject`; or a `Subject`.
        image: pixels 0-255 `(height, width, 3)`, uint8 or float.
        target: what is explained, see `Subject.target`.

    Returns:
        float32 `(h, w)` of the network's image: the largest of the channels' absolute
        derivatives, score a grey level. `onto_image` brings it onto the image.

    Raises:
        InputError: if image, target or model are not as they should be.

    Source:
        Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 3.
    """
    subject, pixels, target = look(model, image, target)
    _, gradients = subject.gradients(pixels, target)
    return np.abs(gradients[0]).max(axis=-1)


def smooth_grad(model, image, target=None, samples=50, noise=0.15, seed=0):
    """Compute the mean of `saliency` over noisy copies of the image.

    Args:
        model: as for `saliency`.
        image: as for `saliency`.
        target: as for `saliency`.
        samples: int, copies.
        noise: float, standard deviation of the noise as a share of the image's range of values.
        seed: int.

    Returns:
        float32 `(h, w)`, see `saliency`.

    Raises:
        InputError: as for `saliency`, or if there are no samples.

    Source:
        Smilkov et al. 2017, "SmoothGrad", section 3.
    """
    if samples < 1:
        raise InputError(f"samples={samples}: expected at least 1.")
    subject, pixels, target = look(model, image, target)
    pixels, rng = np.asarray(pixels), np.random.default_rng(seed)
    deviation = noise * (pixels.max() - pixels.min())
    total = 0.0
    for start in with_progress(range(0, samples, BATCH), "SmoothGrad"):
        shape = (min(BATCH, samples - start), *pixels.shape[1:])
        noisy = pixels + deviation * rng.standard_normal(shape, np.float32)
        _, gradients = subject.gradients(noisy, target)
        total += np.abs(gradients).max(axis=-1).sum(axis=0)
    return total / samples


def integrated_gradients(model, image, target=None, baseline=0.0, steps=None, tolerance=0.01):
    """Share out the difference of the score to a baseline among the pixels.

    The sum of the map is the score of the image less that of the baseline, as far as the number
    of steps allows.

    Args:
        model: as for `saliency`.
        image: as for `saliency`.
        target: as for `saliency`.
        baseline: pixels 0-255 where the path begins: a number, one for each channel, or an
            image as the network gets it.
        steps: int, points on the path; None for as many as the tolerance takes, at most 1024.
        tolerance: float, how far the sum may be off, as a share of the difference.

    Returns:
        float32 `(h, w)` of the network's image: the sum over the channels, of either sign.

    Raises:
        InputError: as for `saliency`, or if there are no steps.

    Source:
        Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", section 3; the sum
        is proposition 1.
    """
    if steps is not None and steps < 1:
        raise InputError(f"steps={steps}: expected at least 1.")
    subject, pixels, target = look(model, image, target)
    pixels = np.asarray(pixels)
    start = np.broadcast_to(np.asarray(baseline, np.float32), pixels.shape)
    difference = target.score - subject.scores(start, target)[0]
    count = steps or _FIRST_STEPS
    while True:
        heat = _along_path(subject, target, start, pixels, count)
        off = abs(heat.sum(dtype=np.float64) - difference)
        if steps or off <= tolerance * abs(difference) or count >= _MOST_STEPS:
            return heat
        count *= 2


def _along_path(subject, target, start, pixels, steps):
    """Midpoint rule: the middle of each of `steps` parts of the path."""
    total = np.zeros(pixels.shape[1:], np.float64)
    for first in with_progress(range(0, steps, BATCH), "integrated gradients"):
        at = (np.arange(first, min(first + BATCH, steps), dtype=np.float32) + 0.5) / steps
        points = start + at[:, None, None, None] * (pixels - start)  # (batch, h, w, 3)
        total += subject.gradients(points, target)[1].sum(axis=0)
    return ((pixels - start)[0] * total / steps).sum(axis=-1).astype(np.float32)
