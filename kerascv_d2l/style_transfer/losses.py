"""The book's losses: content, style by Gram matrices, total variation."""

# ruff: noqa: N803, N806 - X and Y are the book's names

import dataclasses

import tensorflow as tf

from kerascv_d2l.ops.upsampling import crop

# The book's weights, for plain losses on torchvision's VGG-19.
BOOK_CONTENT_WEIGHT, BOOK_STYLE_WEIGHT, BOOK_TV_WEIGHT = 1.0, 1e4, 10.0


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """How much each loss counts, and in which unit it is measured.

    Normalised losses do not depend on the network: multiplying the features of a layer
    by any factor changes nothing, nor does the number of layers.

    - content: squared difference of features as a share of their variance over the content
      image, averaged over the layers.
    - style: squared difference of Gram matrices as a share of that between the content and
      the style image, averaged over the layers: 1 = the content image, 0 = the style.
    - tv: as in the book; it does not depend on the network.

    Attributes:
        content: weight of the content loss.
        style: weight of the style loss.
        tv: weight of the total variation.
        normalize: False for the book's plain losses, whose weights suit one network only.
    """

    content: float = 1.0
    style: float = 10.0
    tv: float = 5.0
    normalize: bool = True

    def replaced(self, content=None, style=None, tv=None):
        """Give the same with other weights where they are not None."""
        given = {"content": content, "style": style, "tv": tv}
        return dataclasses.replace(self, **{k: v for k, v in given.items() if v is not None})


BOOK_WEIGHTS = LossWeights(BOOK_CONTENT_WEIGHT, BOOK_STYLE_WEIGHT, BOOK_TV_WEIGHT, normalize=False)


def content_loss(Y_hat, Y):
    """Mean squared difference of features.

    Args:
        Y_hat: float `(…, h, w, c)`.
        Y: the same shape; no gradient flows to it.

    Returns:
        float32 scalar.

    Source:
        D2L 1.0.3, section 14.12.4.1.
    """
    difference = tf.cast(Y_hat, tf.float32) - tf.stop_gradient(tf.cast(Y, tf.float32))
    return tf.reduce_mean(tf.square(difference))


def gram(X):
    """Gram matrix of features: the products of every two channels, averaged over positions.

    Args:
        X: float `(…, h, w, c)`. All but the last axis are positions, a batch included.

    Returns:
        float32 `(c, c)`: `XᵀX / (c · positions)`.

    Source:
        D2L 1.0.3, section 14.12.4.2.
    """
    X = tf.cast(X, tf.float32)
    channels = tf.shape(X)[-1]
    X = tf.reshape(X, (-1, channels))  # (positions, c)
    return tf.matmul(X, X, transpose_a=True) / tf.cast(tf.size(X), tf.float32)


def batch_gram(X):
    """Gram matrix of every image of a batch.

    Args:
        X: float `(batch, h, w, c)`.

    Returns:
        float32 `(batch, c, c)`.
    """
    X = tf.cast(X, tf.float32)
    shape = tf.shape(X)
    X = tf.reshape(X, (shape[0], shape[1] * shape[2], shape[3]))  # (batch, n, c)
    return tf.matmul(X, X, transpose_a=True) / tf.cast(shape[1] * shape[2] * shape[3], tf.float32)


def style_loss(Y_hat, gram_Y):
    """Mean squared difference between the Gram matrix of features and a given one.

    Args:
        Y_hat: float `(…, h, w, c)`.
        gram_Y: float `(c, c)`; no gradient flows to it.

    Returns:
        float32 scalar.

    Source:
        D2L 1.0.3, section 14.12.4.2.
    """
    return tf.reduce_mean(tf.square(gram(Y_hat) - tf.stop_gradient(gram_Y)))


def tv_loss(Y_hat):
    """Total variation: ½ (mean |down differences| + mean |across differences|).

    Args:
        Y_hat: float `(batch, h, w, c)`. An image one pixel high has no down differences
            (0 instead of the mean of nothing), one pixel wide none across.

    Returns:
        float32 scalar.

    Source:
        D2L 1.0.3, section 14.12.4.3.
    """
    Y_hat = tf.convert_to_tensor(Y_hat)
    height, width = tf.unstack(tf.shape(Y_hat)[1:3])
    down = crop(Y_hat, (1, 0), (-1, -1)) - crop(Y_hat, (0, 0), (height - 1, -1))
    across = crop(Y_hat, (0, 1), (-1, -1)) - crop(Y_hat, (0, 0), (-1, width - 1))
    down, across = tf.abs(down), tf.abs(across)
    return 0.5 * (_mean_or_zero(down) + _mean_or_zero(across))


def _mean_or_zero(x):
    return tf.math.divide_no_nan(tf.reduce_sum(x), tf.cast(tf.size(x), x.dtype))


def compute_loss(
    X,
    contents_Y_hat,
    styles_Y_hat,
    contents_Y,
    styles_Y_gram,
    content_weight=BOOK_CONTENT_WEIGHT,
    style_weight=BOOK_STYLE_WEIGHT,
    tv_weight=BOOK_TV_WEIGHT,
):
    """The book's weighted sum of the three losses.

    Args:
        X: float `(1, h, w, 3)`, the normalised image.
        contents_Y_hat: list of the image's content features.
        styles_Y_hat: list of the image's style features.
        contents_Y: list of the content image's features.
        styles_Y_gram: list of the style image's Gram matrices.
        content_weight: factor of every content loss.
        style_weight: factor of every style loss.
        tv_weight: factor of the total variation.

    Returns:
        `(contents_l, styles_l, tv_l, l)`: two lists of weighted losses by layer, the
        weighted total variation, and the sum of them all.

    Source:
        D2L 1.0.3, section 14.12.4.4.
    """
    contents_l = [
        content_loss(Y_hat, Y) * content_weight
        for Y_hat, Y in zip(contents_Y_hat, contents_Y, strict=True)
    ]
    styles_l = [
        style_loss(Y_hat, Y) * style_weight
        for Y_hat, Y in zip(styles_Y_hat, styles_Y_gram, strict=True)
    ]
    tv_l = tv_loss(X) * tv_weight
    return contents_l, styles_l, tv_l, tf.add_n([*styles_l, *contents_l, tv_l])
