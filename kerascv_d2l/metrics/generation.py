"""Scores of generated images: Fréchet and kernel distance of features, inception score.

The features are those of a classifier. Only the Inception network of 2015 gives the numbers that
papers call FID; a distance by any other is named for it.
"""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError

_LEAST = 1e-16  # of a probability, for its logarithm
# Of the inception score. Fewer images in a part cannot show how various they are.
PARTS, LEAST_IN_PART = 10, 10
FEATURE_BATCH = 250


def frechet_distance(features, others):
    """Fréchet distance of the normal distributions that fit two sets of features.

    It is computed without a square root of a matrix: the trace of (Σ₁Σ₂)^½ is the sum of the
    singular values of A Bᵀ, of the centred features. That is real by construction, and right
    for fewer images than features too.

    Args:
        features: float `(n, d)`, n >= 2.
        others: float `(m, d)`, m >= 2.

    Returns:
        float >= 0.

    Raises:
        InputError: if a shape is another, or a value is not finite.

    Source:
        Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6.
    """
    (mean, factor), (mean_of_others, factor_of_others) = map(_factor, _check(features, others))
    return _frechet(mean, factor, mean_of_others, factor_of_others)


def frechet_distance_of_gaussians(mean, covariance, other_mean, other_covariance):
    """Fréchet distance of two normal distributions, with means `(d,)`, covariances `(d, d)`."""

    def root(matrix):
        values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
        return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T  # (d, d)

    means = (np.asarray(values, np.float64) for values in (mean, other_mean))
    (one, other) = means
    return _frechet(one, root(covariance), other, root(other_covariance))


def _factor(features):
    """Mean `(d,)` and a matrix `(k, d)`, k <= d, whose product with itself is the covariance."""
    mean = features.mean(0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    if len(centred) > centred.shape[1]:
        centred = np.linalg.qr(centred, mode="r")
    return mean, centred


def _frechet(mean, factor, other_mean, other_factor):
    apart = np.sum((mean - other_mean) ** 2)
    traces = np.sum(factor**2) + np.sum(other_factor**2)
    roots = np.linalg.svd(factor @ other_factor.T, compute_uv=False).sum()
    return float(max(apart + traces - 2 * roots, 0.0))


def kernel_distance(features, others):
    """Squared maximum mean discrepancy with a cubic kernel, unbiased: for few images.

    Args:
        features: float `(n, d)`, n >= 2.
        others: float `(m, d)`, m >= 2.

    Returns:
        float; of two samples of one distribution it is around 0, and may be negative.

    Raises:
        InputError: as `frechet_distance`.

    Source:
        Bińkowski et al. 2018, "Demystifying MMD GANs", section 4.
    """
    x, y = _check(features, others)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(a):
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean())


def inception_score(probabilities, splits=10):
    """Inception score: how sure a classifier is of each image, and how various they are.

    Args:
        probabilities: float `(n, classes)`, each row with the sum 1.
        splits: int, parts of the images that are scored by themselves.

    Returns:
        Tuple of the mean and the standard deviation over the parts, floats from 1 (all rows are
        equal) to `classes` (each class is predicted for sure, and all equally often).

    Raises:
        InputError: if there are fewer than two images for each part, or a row is no distribution.

    Source:
        Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-3):
        raise InputError(f"probabilities of shape {p.shape}: wanted (n, classes), rows of sum 1")
    if len(p) < 2 or not 1 <= splits <= len(p) // 2:
        raise InputError(
            f"splits is {splits} for {len(p)} image(s); wanted at least 1, and 2 images in each: "
            "the score of one image alone is 1, whatever it shows"
        )
    scores = []
    for part in np.array_split(p, splits):
        logs = np.log(np.maximum(part, _LEAST)) - np.log(np.maximum(part.mean(0), _LEAST))
        scores.append(np.exp((part * logs).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def _check(features, others):
    arrays = [np.asarray(values, np.float64) for values in (features, others)]
    shapes = " and ".join(str(array.shape) for array in arrays)
    if any(a.ndim != 2 or len(a) < 2 for a in arrays) or len({a.shape[1] for a in arrays}) > 1:
        raise InputError(f"features of shapes {shapes}: wanted (n, d) and (m, d), n and m >= 2")
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError("features have values that are NaN or infinite")
    return arrays


class FeatureScores:
    """Compare generated images with real ones by the features of a classifier.

    Args:
        classifier: `Classifier`; its pooled features and its probabilities are used.
        real: uint8 or float `(n, h, w, 3 or 1)`, pixels 0-255, images to compare with.
        name: str, of the network, for the names of the scores.
        has_classes: bool: whether its output layer has learnt classes; else there is no
            inception score.

    Attributes:
        classifier: as given.
        name: as given.

    Raises:
        InputError: if there are fewer than two real images.
    """

    def __init__(self, classifier, real, name, has_classes=True):
        self.classifier, self.name = classifier, name
        self._has_classes = has_classes
        self._features = keras.Model(
            classifier.inputs[0], [classifier.get_layer("pool").output, classifier.outputs[0]]
        )
        self._call = tf.function(self._answer, reduce_retracing=True, autograph=False)
        self._real = self.features(real)[0]
        _check(self._real, self._real)

    def _answer(self, images):
        images = tf.cast(images, tf.float32)
        if images.shape[1:3] != self.classifier.image_size:
            images = tf.image.resize(images, self.classifier.image_size, antialias=True)
        features, logits = self._features(images, training=False)
        return features, tf.nn.softmax(logits)

    def features(self, images):
        """Compute features float32 `(n, d)` and probabilities float32 `(n, classes)`."""
        images = np.asarray(images)
        if images.shape[-1] == 1:
            images = images.repeat(3, -1)
        starts = range(0, len(images), FEATURE_BATCH)
        parts = [self._call(tf.constant(images[k : k + FEATURE_BATCH])) for k in starts]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def __call__(self, images):
        """Score generated images.

        Args:
            images: as `real`.

        Returns:
            dict of floats: `fid_NAME`, lower is better; `kid_NAME`, likewise; and `is_NAME`,
            higher is better: a mean over 10 parts of the images, or fewer of 10 images each. Where
            there is more than one, `is_std_NAME` is their standard deviation. The score of a part
            is at most the number of its images.
        """
        features, probabilities = self.features(images)
        scores = {
            f"fid_{self.name}": frechet_distance(features, self._real),
            f"kid_{self.name}": kernel_distance(features, self._real),
        }
        if self._has_classes:
            parts = max(1, min(PARTS, len(images) // LEAST_IN_PART))
            mean, std = inception_score(probabilities, parts)
            scores[f"is_{self.name}"] = mean
            if parts > 1:
                scores[f"is_std_{self.name}"] = std
        return scores
