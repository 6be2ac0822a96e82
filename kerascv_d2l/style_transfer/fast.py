"""Feed-forward style transfer: a network trained on photographs by the same losses."""

# ruff: noqa: N806 - X is the book's name

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer.images import as_rgb, normalise
from kerascv_d2l.style_transfer.losses import LossWeights, batch_gram, tv_loss
from kerascv_d2l.style_transfer.objective import as_targets

LOSSES = ("content_loss", "style_loss", "tv_loss")
_LEAST = 1e-12  # keeps a style image that is flat from dividing by 0
_LEAST_SHARE = 0.5  # of the variance of the style image's features


class FastStyleTrainer(keras.Model):
    """Train a `TransformerNet` with `fit`, on batches of photographs alone.

    The losses are normalised, photograph by photograph, so that weights for `StyleTransfer`
    hold here: the content loss by the variance of the photograph's features, but at least half
    of the style image's, the style loss by the distance between its Gram matrix and the style's,
    but at least the mean square of the latter. Without these least units a photograph that is
    flat, or near the style, has a loss of many times that of others, for changes as large, and
    what serves those few is what the network learns.

    Attributes:
        net: the network to keep; the trainer itself need not be saved.
    """

    def __init__(self, net, network, styles, weights=None):
        """Compute the style's targets.

        Args:
            net: `TransformerNet`; it gets the colours of the styles to start from.
            network: `Network` whose features are compared.
            styles: list of `Style`, of about the size of the photographs.
            weights: normalised `LossWeights`, None for the defaults.

        Raises:
            InputError: if the weights are plain ones, or there is no style.
        """
        super().__init__()
        self.net = net
        self._network = network
        self._loss_weights = LossWeights() if weights is None else weights
        if not self._loss_weights.normalize:
            raise InputError("weights of FastStyleTrainer must be normalised ones")
        if not styles:
            raise InputError("styles is empty: give at least one image")
        targets = [as_targets(style) for style in styles]
        total = sum(weight for _, weight, _ in targets)
        self._targets, self._variances = [], None  # of the style images, by content layer
        for style_X, weight, mask in targets:
            if mask is not None:
                raise InputError("a mask of a style is not taken here: crop the image instead")
            contents, features = network.extract(style_X)
            self._targets.append((weight / total, [batch_gram(x) for x in features]))  # (1, c, c)
            here = [weight / total * _variance(x) for x in _float32(contents)]  # (1,)
            before = self._variances or [0.0] * len(here)
            self._variances = [a + b for a, b in zip(before, here, strict=True)]
        net.set_palette(
            [as_rgb(style.image) for style in styles], [style.weight for style in styles]
        )
        self._trackers = [keras.metrics.Mean(name=name) for name in LOSSES]

    def call(self, pixels, training=False):
        """Paint `pixels`."""
        return self.net(pixels, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Weighted content, style and total-variation loss of images for photographs `x`.

        Args:
            x: `(batch, h, w, 3)`, pixels 0-255, the photographs.
            y: unused.
            y_pred: float `(batch, h, w, 3)`, pixels 0-255.
            sample_weight: unused.
            training: unused.

        Returns:
            float32 scalar: this device's share of the loss, which `fit` adds up.
        """
        photographs, painted = normalise(x), normalise(y_pred)
        contents, styles_before = self._network.extract(photographs)
        contents_hat, styles_hat = self._network.extract(painted)
        content_value = _mean(
            tf.reduce_mean(tf.square(a - b), (1, 2, 3))
            / tf.maximum(_variance(b), _LEAST + _LEAST_SHARE * least)
            for a, b, least in zip(
                _float32(contents_hat), _float32(contents), self._variances, strict=True
            )
        )
        grams, grams_before = (
            [batch_gram(features) for features in styles] for styles in (styles_hat, styles_before)
        )
        style_value = _mean(
            self._distance(i, gram)
            / tf.maximum(self._distance(i, before), _LEAST + self._distance(i, 0.0))
            for i, (gram, before) in enumerate(zip(grams, grams_before, strict=True))
        )
        weights = self._loss_weights
        values = [
            weights.content * content_value,
            weights.style * style_value,
            weights.tv * tv_loss(painted),
        ]
        for tracker, value in zip(self._trackers, values, strict=True):
            tracker.update_state(value, sample_weight=tf.shape(x)[0])
        return tf.add_n(values) / tf.distribute.get_strategy().num_replicas_in_sync

    def _distance(self, layer, grams):
        """Mean squared distance of `(batch, c, c)` from the styles: `(batch,)`; of 0: `(1,)`."""
        return sum(weight * _square(grams - targets[layer]) for weight, targets in self._targets)


def _float32(tensors):
    return [tf.cast(tensor, tf.float32) for tensor in tensors]


def _variance(features):
    """Variance over positions, averaged over channels: `(batch, h, w, c)` → `(batch,)`."""
    return tf.reduce_mean(tf.math.reduce_variance(features, (1, 2)), 1)


def _square(grams):
    """`(batch, c, c)` → `(batch,)`."""
    return tf.reduce_mean(tf.square(grams), (1, 2))


def _mean(values):
    """Mean over layers of means over the batch."""
    return tf.reduce_mean(tf.stack([tf.reduce_mean(value) for value in values]))
