"""Images as points: what lies near each other in the features of a network."""

import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.explain.progress import with_progress
from kerascv_d2l.explain.subject import as_subject

MOST_NEIGHBOURS = 30.0  # perplexity of t-SNE, where there are images enough


def image_features(model, images, layer=None):
    """Compute a vector of features for each image: the mean of each channel of a feature map.

    Args:
        model: as for `saliency`, but no export.
        images: sequence of `(height, width, 3)`, pixels 0-255, of any sizes.
        layer: str, as for `grad_cam`.

    Returns:
        float32 `(n, channels)`.

    Raises:
        InputError: as for `grad_cam`, or if there is no image.
    """
    subject = as_subject(model)
    subject.check_layers("image_features")
    if not len(images):
        raise InputError("images: expected at least 1, got none.")
    found, path = [], None
    for k in with_progress(range(len(images)), "features"):
        pixels = subject.prepare(images[k])
        path = path or subject.layer(pixels, subject.target(pixels), layer)
        output = subject.layer_output(pixels, path)[0]
        found.append(output.mean(axis=tuple(range(output.ndim - 1))))
    return np.stack(found)


def nearest_neighbours(vectors, queries, count=5):
    """Find the vectors that are most like each query, by the cosine of their angle.

    Args:
        vectors: float `(n, d)`.
        queries: float `(q, d)`.
        count: int, neighbours of each; all if there are fewer.

    Returns:
        Tuple of indices, int `(q, count)`, the nearest first, and cosines, float `(q, count)`.
    """
    cosines = _unit(queries) @ _unit(vectors).T  # (q, n)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)


def _unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def pca(vectors):
    """Project vectors onto the two directions along which they differ most.

    Args:
        vectors: float `(n, d)`.

    Returns:
        Tuple of points, float `(n, 2)`, and the share of the variance that each direction has,
        float `(2,)`. The largest component of each direction is positive.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    shares = values**2 / max(np.sum(values**2), 1e-300)
    return centred @ directions.T, shares[:2]


def tsne(vectors, seed=0):
    """Lay vectors out on a plane so that near ones stay near, by scikit-learn's t-SNE.

    Args:
        vectors: float `(n, d)`.
        seed: int.

    Returns:
        float32 `(n, 2)`.

    Raises:
        InputError: if scikit-learn is not installed, or there are fewer than 3 vectors.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise InputError(
            "tsne needs scikit-learn: pip install 'kerascv-d2l[explain]'; pca does without"
        ) from error
    if len(vectors) < 3:
        raise InputError(f"tsne needs at least 3 images, got {len(vectors)}.")
    perplexity = min(MOST_NEIGHBOURS, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(vectors)
