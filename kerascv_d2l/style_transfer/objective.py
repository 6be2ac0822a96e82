"""The loss of an image against fixed targets, whole or in tiles, and its gradient."""

# ruff: noqa: N803 - X and Y are the book's names

import dataclasses

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer import tiles
from kerascv_d2l.style_transfer.images import preprocess
from kerascv_d2l.style_transfer.losses import LossWeights, tv_loss

# Scales of normalised losses are at least this share of a layer's own mean square, so that
# a flat content, or a style equal to the content, does not divide by nothing.
_LEAST_SHARE = 1e-2
LOSS_NAMES = ("content", "style", "tv", "loss")


@dataclasses.dataclass(frozen=True)
class Style:
    """One image whose style is wanted.

    Attributes:
        image: uint8 array `(h, w, 3)` or `PIL.Image`.
        weight: how much it counts among several; they are scaled to the sum 1.
        mask: None, or array `(h, w)` of the same height and width, bool or ≥ 0: the part of
            the image that shows the style.
    """

    image: object
    weight: float = 1.0
    mask: object = None


class Objective:
    """Content, style and total-variation loss of an image, and the gradient of their sum.

    In tiles it takes two passes: the first adds up Gram matrices and content losses (both
    are sums over positions), the second the gradients, tile by tile, for Gram matrices that
    are then known. That is the whole image's loss and gradient but for the order of
    additions, in memory that does not grow with the image (beyond a few copies of it and
    the content features), for one more forward pass and the tiles' margins.
    """

    def __init__(self, network, content, styles, weights=None, tile=None):
        """Compute the targets.

        Args:
            network: `Network`.
            content: float32 `(1, h, w, 3)`, normalised.
            styles: list of `(X, weight, mask)`: float32 `(1, h', w', 3)` normalised, float,
                None or float `(h', w')`.
            weights: `LossWeights`, None for the defaults.
            tile: int, side of a tile's core in pixels, or None for the whole image at once.

        Raises:
            InputError: if an image is too small for the network, a mask selects nothing, or
                the network cannot be cut into tiles.
        """
        self.network, self.tile = network, tile
        self.weights = LossWeights() if weights is None else weights
        self._reaches = [(tiles.Reach(), tiles.Reach())] * len(network.taps)
        if tile is not None:
            self._reaches = tiles.reaches(network.model)
        self._contents_at = [network.taps[layer] for layer in network.content_layers]
        self._styles_at = [network.taps[layer] for layer in network.style_layers]
        self._compile()
        self._tiles = tiles.cut(content.shape[1:3], tile, self._reaches)
        shapes = network.shapes(content.shape[1:3])
        self._positions = [shapes[at][0] * shapes[at][1] for at in self._styles_at]
        self._contents, content_grams = self._targets(content, None)
        total = sum(weight for _, weight, _ in styles)
        # (share, [layer] (c, c)) of each style
        self._styles = [
            (weight / total, self._targets(X, mask, contents=False)[1])
            for X, weight, mask in styles
        ]
        self._set_units(content_grams)

    def _compile(self):
        """Trace what works on tiles once, for tiles of any size."""
        channels = [output.shape[-1] for output in self.network.model.outputs]
        image = tf.TensorSpec((1, None, None, 3), tf.float32)
        cores = tf.TensorSpec((len(channels), 2, 2), tf.int32)
        contents = [tf.TensorSpec((1, None, None, channels[at])) for at in self._contents_at]
        masks = [tf.TensorSpec((None, None)) for _ in self._styles_at]
        grams = [tf.TensorSpec((channels[at],) * 2) for at in self._styles_at]
        scalars = [tf.TensorSpec(()) for _ in self._contents_at]

        def compiled(function, *signature):
            return tf.function(function, input_signature=signature or None, autograph=False)

        self._extract = compiled(self._extract_tile, image, cores, masks)
        self._sums = compiled(self._sums_of, image, contents, cores)
        self._backward = compiled(self._gradient_of_sums, image, contents, cores, (scalars, grams))
        self._combine = compiled(self._losses_and_directions)
        self._tv = compiled(self._tv_and_gradient)
        self._whole = compiled(self._whole_value_and_gradient)

    def _set_units(self, content_grams):
        """Set the units in which differences are measured before they are squared.

        (The squares of a layer's small numbers would leave what float32 can hold.)
        """
        self._content_units = [1.0] * len(self._contents)
        self._style_units = [1.0] * len(content_grams)
        if not self.weights.normalize:
            return
        layers = len(self._contents)
        self._content_units = [(layers * _variance(f)) ** 0.5 for f in self._contents]
        layers = len(content_grams)
        for i, gram in enumerate(content_grams):
            distances = [share * _distance(gram, grams[i]) for share, grams in self._styles]
            self._style_units[i] = (layers * sum(distances)) ** 0.5

    def __call__(self, X):
        """Compute losses and gradient.

        Args:
            X: float32 `(1, h, w, 3)`, normalised, of the content's height and width.

        Returns:
            `(losses, gradient)`: float32 `(4,)`, weighted, in the order of `LOSS_NAMES` (the
            last is the sum), and float32 `(1, h, w, 3)`.
        """
        if self.tile is None:
            return self._whole(X)
        parts = [(_crop(X, tile), self._content_parts(tile), tile.cores) for tile in self._tiles]
        sums = None
        for part in parts:
            here = self._sums(*part)
            sums = here if sums is None else tf.nest.map_structure(tf.add, sums, here)
        values, directions = self._combine(sums)
        tv_value, gradient = self._tv(X)
        gradient = gradient.numpy()
        for tile, part in zip(self._tiles, parts, strict=True):
            gradient[(0, *tile.crop)] += self._backward(*part, directions)[0].numpy()
        losses = tf.stack([*values, tv_value])
        return tf.concat([losses, [tf.reduce_sum(losses)]], 0), tf.constant(gradient)

    def _whole_value_and_gradient(self, X):
        with tf.GradientTape() as tape:
            tape.watch(X)
            values = self._losses(*self._sums_of(X, self._contents))
            losses = tf.stack([*values, self.weights.tv * tv_loss(X)])
            loss = tf.reduce_sum(losses)
        return tf.concat([losses, [loss]], 0), tape.gradient(loss, X)

    def _sums_of(self, X, contents, cores=None):
        """Sum squared differences from the content, and Gram matrices, over positions of a tile.

        `contents` are targets `(1, h / s, w / s, c)` of the same positions; `cores` is None for
        all. Returns scalars by content layer, and `(c, c)` by style layer.
        """
        features = self._core_features(X, cores)
        differences = [
            tf.reduce_sum(tf.square((features[at] - target) / unit))
            for at, target, unit in zip(
                self._contents_at, contents, self._content_units, strict=True
            )
        ]
        return differences, [_gram_sum(features[at]) for at in self._styles_at]

    def _losses(self, differences, gram_sums):
        """Weighted content and style loss from the sums over all positions."""
        content = [
            difference / int(np.prod(target.shape))
            for difference, target in zip(differences, self._contents, strict=True)
        ]
        grams = [
            total / (total.shape[0] * positions)
            for total, positions in zip(gram_sums, self._positions, strict=True)
        ]
        style = [
            share * tf.reduce_mean(tf.square((gram - target) / unit))
            for share, targets in self._styles
            for gram, target, unit in zip(grams, targets, self._style_units, strict=True)
        ]
        return (
            self.weights.content * tf.add_n(content or [0.0]),
            self.weights.style * tf.add_n(style or [0.0]),
        )

    def _losses_and_directions(self, sums):
        """The losses, and the gradient of their sum with respect to the sums over positions."""
        with tf.GradientTape() as tape:
            tape.watch(sums)
            values = self._losses(*sums)
            loss = tf.add_n(values)
        return values, tape.gradient(loss, sums, unconnected_gradients="zero")

    def _gradient_of_sums(self, X, contents, cores, directions):
        """The gradient of a tile, given that of the sums."""
        with tf.GradientTape() as tape:
            tape.watch(X)
            sums = self._sums_of(X, contents, cores)
            products = tf.nest.map_structure(
                lambda direction, part: tf.reduce_sum(direction * part), directions, sums
            )
            value = tf.add_n(tf.nest.flatten(products))
        return tape.gradient(value, X)

    def _tv_and_gradient(self, X):
        with tf.GradientTape() as tape:
            tape.watch(X)
            value = self.weights.tv * tv_loss(X)
        return value, tape.gradient(value, X)

    def _core_features(self, X, cores):
        features = self.network.features(X)
        if cores is not None:
            cores = tf.unstack(cores, num=len(features))
            features = [
                f[:, core[0, 0] : core[0, 1], core[1, 0] : core[1, 1]]
                for f, core in zip(features, cores, strict=True)
            ]
        return [tf.cast(f, tf.float32) for f in features]

    def _content_parts(self, tile):
        """The content targets of a tile's core."""
        return [
            target[(slice(None), *tile.places[at])]
            for at, target in zip(self._contents_at, self._contents, strict=True)
        ]

    def _extract_tile(self, X, cores, masks):
        """Content features and masked Gram sums of a tile's core."""
        features = self._core_features(X, cores)
        return [features[at] for at in self._contents_at], [
            _gram_sum(features[at], mask) for at, mask in zip(self._styles_at, masks, strict=True)
        ]

    def _targets(self, X, mask, contents=True):
        """Compute content features (tensors) and Gram matrices of an image."""
        shapes = self.network.shapes(X.shape[1:3])
        masks = self._masks(mask, shapes)
        rows, sums = {}, None
        for tile in tiles.cut(X.shape[1:3], self.tile, self._reaches):
            here = [m[tile.places[at]] for m, at in zip(masks, self._styles_at, strict=True)]
            features, part = self._extract(_crop(X, tile), tile.cores, here)
            if contents:
                rows.setdefault(tile.places[0][0].start, []).append(features)
            sums = part if sums is None else tf.nest.map_structure(tf.add, sums, part)
        kept = []
        if contents:  # tiles side by side, then below each other
            kept = [
                tf.concat([tf.concat([k[i] for k in row], 2) for row in rows.values()], 1)
                for i in range(len(self._contents_at))
            ]
        grams = [
            total / float(m.sum(dtype=np.float64) * total.shape[-1])
            for total, m in zip(sums, masks, strict=True)
        ]
        return kept, grams

    def _masks(self, mask, shapes):
        """Shares of a mask in the area of every feature, by style layer `(h / s, w / s)`."""
        if mask is None:
            return [np.ones(shapes[at], np.float32) for at in self._styles_at]
        mask = tf.constant(np.asarray(mask, np.float32))[None, ..., None]
        if not float(tf.reduce_sum(mask)) > 0:
            raise InputError("mask of a style selects nothing: it must be > 0 somewhere")
        return [
            tf.image.resize(mask, shapes[at], method="area")[0, ..., 0].numpy()
            for at in self._styles_at
        ]


def _crop(X, tile):
    return X[(slice(None), *tile.crop)]


def _gram_sum(features, mask=None):
    """`XᵀX` over positions, each times its mask: `(1, h, w, c)` → `(c, c)`."""
    x = tf.reshape(features, (-1, features.shape[-1]))  # (positions, c)
    weighted = x if mask is None else x * tf.reshape(mask, (-1, 1))
    return tf.matmul(weighted, x, transpose_a=True)


def _variance(features):
    """Variance of features over positions, averaged over channels: a float > 0."""
    features = features.numpy()  # float64 for the sums alone: the features may take 200 MB
    square = np.einsum("bhwc,bhwc->", features, features, dtype=np.float64) / features.size
    variance = square - np.mean(features.mean(axis=(0, 1, 2), dtype=np.float64) ** 2)
    return float(max(variance, _LEAST_SHARE * square)) or 1.0


def _distance(gram, target):
    """Mean squared difference of Gram matrices: a float > 0."""
    gram, target = np.asarray(gram, np.float64), np.asarray(target, np.float64)
    difference = np.mean((gram - target) ** 2)
    return float(max(difference, _LEAST_SHARE * np.mean(target**2))) or 1.0


def as_targets(style, image_shape=None):
    """Resize a style's image and mask.

    Args:
        style: `Style`.
        image_shape: `(height, width)`, None for the image's own.

    Returns:
        `(X, weight, mask)` as `Objective` takes them.

    Raises:
        InputError: if the mask does not fit the image, or the weight is not > 0.
    """
    image = np.asarray(style.image)
    image_shape = image.shape[:2] if image_shape is None else image_shape
    if not style.weight > 0:
        raise InputError(f"weight = {style.weight} of a style must be > 0")
    mask = style.mask
    if mask is not None:
        mask = np.asarray(mask, np.float32)
        if mask.shape != image.shape[:2]:
            raise InputError(
                f"mask {mask.shape} of a style must have its image's (h, w) = {image.shape[:2]}"
            )
        if not np.all(np.isfinite(mask)) or mask.min() < 0:
            raise InputError("mask of a style holds values that are negative or not finite")
        mask = tf.image.resize(mask[..., None], image_shape, method="area").numpy()[..., 0]
    return preprocess(style.image, image_shape), float(style.weight), mask
