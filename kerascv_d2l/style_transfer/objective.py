"""The loss of an image against fixed targets, whole or in tiles, and its gradient."""

# ruff: noqa: N803 - X and Y are the book's names

import dataclasses

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer import tiles
from kerascv_d2l.style_transfer.images import preprocess
from kerascv_d2l.style_transfer.losses import LossWeights, tv_loss

# Scales of normalised losses are held above this share of a layer's own mean square, so that
# a flat content, or a style equal to the content, does not divide by nothing.
_LEAST_SHARE = 1e-2
LOSS_NAMES = ("content", "style", "tv", "loss")


@dataclasses.dataclass(frozen=True)
class Style:
    """One picture whose manner is wanted.

    Attributes:
        image: uint8 array `(h, w, 3)` or `PIL.Image`.
        weight: how much it counts among several; they are scaled to the sum 1.
        mask: None, or array `(h, w)` of the same height and width, bool or ≥ 0: the part of
            the picture that shows the style.
    """

    image: object
    weight: float = 1.0
    mask: object = None


class Objective:
    """Content, style and total-variation loss of an image, and the gradient of their sum.

    In tiles it takes two passes: the first adds up Gram matrices and content losses (both
    are sums over positions), the second the gradients, tile by tile, for Gram matrices that
    are then known. That is the whole picture's loss and gradient but for the order of
    additions, in memory that does not grow with the picture (beyond a few copies of it and
    the content features), for one
    more forward pass and the tiles' margins.
    """

    def __init__(self, network, content, styles, weights=None, tile=None):
        """Compute the targets.

        Args:
            network: `Network`.
            content: float32 `(1, h, w, 3)`, normalised.
            styles: list of `(X, weight, mask)`: float32 `(1, h', w', 3)` normalised, float,
                None or float `(h', w')`.
            weights: `LossWeights`, None for the defaults.
            tile: int, side of a tile's core in pixels, or None for the whole picture at once.

        Raises:
            InputError: if a picture is too small for the network, a mask selects nothing, or
                the network cannot be cut into tiles.
        """
        self.network, self.tile = network, tile
        self.weights = LossWeights() if weights is None else weights
        self._reaches = None if tile is None else tiles.reaches(network.model)
        self._contents_at = [network.taps[layer] for layer in network.content_layers]
        self._styles_at = [network.taps[layer] for layer in network.style_layers]
        # Traced once each, for tiles of any size.
        channels = [output.shape[-1] for output in network.model.outputs]
        image = tf.TensorSpec((1, None, None, 3), tf.float32)
        cores = tf.TensorSpec((len(channels), 2, 2), tf.int32)
        parts = [tf.TensorSpec((1, None, None, channels[at])) for at in self._contents_at]
        masks = [tf.TensorSpec((None, None)) for _ in self._styles_at]
        grams = [tf.TensorSpec((channels[at],) * 2) for at in self._styles_at]
        self._extract = tf.function(self._extract_tile, input_signature=(image, cores))
        self._extract_masked = tf.function(
            self._extract_tile, input_signature=(image, cores, masks)
        )
        self._sums = tf.function(self._sums_of_tile, input_signature=(image, cores, parts))
        self._backward = tf.function(
            self._backward_tile, input_signature=(image, cores, parts, grams)
        )
        self._combine = tf.function(self._combine_sums)
        self._tv = tf.function(self._tv_and_gradient)
        self._whole = tf.function(self._whole_value_and_gradient)

        shapes = network.shapes(content.shape[1:3])
        self.image_shape = tuple(content.shape[1:3])
        self._contents, content_grams = self._targets(content, None)
        total = sum(weight for _, weight, _ in styles)
        self._style_weights = [weight / total for _, weight, _ in styles]
        # [style][layer] (c, c)
        self._grams = [self._targets(X, mask, contents=False)[1] for X, _, mask in styles]
        self._positions = [shapes[i][0] * shapes[i][1] for i in self._styles_at]
        # Differences are measured in these units before they are squared: the squares of a
        # layer's small numbers would leave what float32 can hold.
        self._content_units = [1.0] * len(self._contents)
        self._style_units = [1.0] * len(content_grams)
        if self.weights.normalize:
            layers = len(self._contents)
            self._content_units = [(layers * _spread(f)) ** 0.5 for f in self._contents]
            layers = len(content_grams)
            self._style_units = [
                (
                    layers
                    * sum(
                        weight * _distance(content_gram, grams[i])
                        for weight, grams in zip(self._style_weights, self._grams, strict=True)
                    )
                )
                ** 0.5
                for i, content_gram in enumerate(content_grams)
            ]

    def __call__(self, X):
        """Losses and gradient.

        Args:
            X: float32 `(1, h, w, 3)`, normalised, of the content's height and width.

        Returns:
            `(losses, gradient)`: float32 `(4,)`, weighted, in the order of `LOSS_NAMES` (the
            last is the sum), and float32 `(1, h, w, 3)`.
        """
        if self._reaches is None:
            return self._whole(X)
        cuts = self._cut(X.shape[1:3])
        sums = None
        for crop, cores in cuts:
            part = self._sums(_crop(X, crop), cores, self._content_parts(crop, cores))
            sums = part if sums is None else tf.nest.map_structure(tf.add, sums, part)
        grams = [total / self._gram_size(i, total) for i, total in enumerate(sums[1])]
        content_value, style_value, directions = self._combine(sums[0], grams)
        directions = [
            direction / self._gram_size(i, direction) for i, direction in enumerate(directions)
        ]
        tv_value, gradient = self._tv(X)
        gradient = gradient.numpy()
        for crop, cores in cuts:
            part = self._backward(
                _crop(X, crop), cores, self._content_parts(crop, cores), directions
            )
            (top, bottom), (left, right) = crop
            gradient[:, top:bottom, left:right] += part.numpy()
        losses = tf.stack([content_value, style_value, tv_value])
        return tf.concat([losses, [tf.reduce_sum(losses)]], 0), tf.constant(gradient)

    # ---- the whole picture

    def _whole_value_and_gradient(self, X):
        with tf.GradientTape() as tape:
            tape.watch(X)
            features = [tf.cast(f, tf.float32) for f in self.network.features(X)]
            content_value = tf.add_n(
                [
                    tf.reduce_mean(tf.square((features[at] - target) / unit))
                    for at, target, unit in zip(
                        self._contents_at, self._contents, self._content_units, strict=True
                    )
                ]
                or [0.0]
            )
            grams = [
                _gram_sum(features[at], None) / self._gram_size(i, features[at])
                for i, at in enumerate(self._styles_at)
            ]
            style_value = self._style_value(grams)
            losses = tf.stack(
                [
                    self.weights.content * content_value,
                    self.weights.style * style_value,
                    self.weights.tv * tv_loss(X),
                ]
            )
            loss = tf.reduce_sum(losses)
        return tf.concat([losses, [loss]], 0), tape.gradient(loss, X)

    def _style_value(self, grams):
        values = [
            weight * tf.reduce_mean(tf.square((gram - target) / unit))
            for weight, targets in zip(self._style_weights, self._grams, strict=True)
            for gram, target, unit in zip(grams, targets, self._style_units, strict=True)
        ]
        return tf.add_n(values or [0.0])

    def _gram_size(self, i, like):
        """What the sums over positions are divided by: channels · positions."""
        return tf.cast(tf.shape(like)[-1], tf.float32) * self._positions[i]

    # ---- in tiles

    def _cut(self, image_shape):
        """List of `(crop, cores)`: ((top, bottom), (left, right)), and int32 `(outputs, 2, 2)`."""
        if self._reaches is None:
            axes = [[tiles.Span(0, side, 0, None)] for side in image_shape]
            strides = [(1, 1)] * len(self.network.taps)
        else:
            axes = [
                tiles.spans(side, self.tile, [reach[axis] for reach in self._reaches])
                for axis, side in enumerate(image_shape)
            ]
            strides = [(rows.stride, columns.stride) for rows, columns in self._reaches]
        end = np.iinfo(np.int32).max
        cuts = []
        for rows in axes[0]:
            for columns in axes[1]:
                cores = []
                for stride in strides:
                    slices = [rows.features(stride[0]), columns.features(stride[1])]
                    cores.append([(s.start, end if s.stop is None else s.stop) for s in slices])
                crop = ((rows.start, rows.stop), (columns.start, columns.stop))
                cuts.append((crop, tf.constant(cores, tf.int32)))  # (outputs, 2, 2)
        return cuts

    def _core_features(self, X, cores):
        features = self.network.features(X)
        return [
            tf.cast(f[:, core[0, 0] : core[0, 1], core[1, 0] : core[1, 1]], tf.float32)
            for f, core in zip(features, tf.unstack(cores, num=len(features)), strict=True)
        ]

    def _content_parts(self, crop, cores):
        """The content targets of a tile's core."""
        parts = []
        for at, target in zip(self._contents_at, self._contents, strict=True):
            place = []
            for axis in (0, 1):
                stride = self._reaches[at][axis].stride
                shift = crop[axis][0] // stride
                first, last = (int(bound) for bound in cores[at, axis])
                place.append(slice(shift + first, min(shift + last, target.shape[1 + axis])))
            parts.append(target[:, place[0], place[1]])
        return parts

    def _sums_of_tile(self, X, cores, contents):
        """Summed squared differences from the content, and Gram sums, of a tile's core."""
        features = self._core_features(X, cores)
        differences = [
            tf.reduce_sum(tf.square((features[at] - target) / unit))
            for at, target, unit in zip(
                self._contents_at, contents, self._content_units, strict=True
            )
        ]
        return differences, [_gram_sum(features[at], None) for at in self._styles_at]

    def _extract_tile(self, X, cores, masks=None):
        """Content features and Gram sums of a tile's core."""
        features = self._core_features(X, cores)
        masks = [None] * len(self._styles_at) if masks is None else masks
        return [features[at] for at in self._contents_at], [
            _gram_sum(features[at], mask) for at, mask in zip(self._styles_at, masks, strict=True)
        ]

    def _combine_sums(self, differences, grams):
        """Weighted content and style loss, and the gradient of the latter for each Gram matrix."""
        content_value = tf.add_n(
            [
                difference / tf.size(target, tf.float32)
                for difference, target in zip(differences, self._contents, strict=True)
            ]
            or [0.0]
        )
        with tf.GradientTape() as tape:
            tape.watch(grams)
            style_value = self.weights.style * self._style_value(grams)
        directions = tape.gradient(style_value, grams, unconnected_gradients="zero")
        return self.weights.content * content_value, style_value, directions

    def _backward_tile(self, X, cores, contents, directions):
        with tf.GradientTape() as tape:
            tape.watch(X)
            features = self._core_features(X, cores)
            parts = [
                self.weights.content
                * tf.reduce_sum(tf.square((features[at] - part) / unit))
                / tf.size(target, tf.float32)
                for at, part, target, unit in zip(
                    self._contents_at, contents, self._contents, self._content_units, strict=True
                )
            ]
            parts += [
                tf.reduce_sum(direction * _gram_sum(features[at], None))
                for at, direction in zip(self._styles_at, directions, strict=True)
            ]
            value = tf.add_n(parts)
        return tape.gradient(value, X)

    def _tv_and_gradient(self, X):
        with tf.GradientTape() as tape:
            tape.watch(X)
            value = self.weights.tv * tv_loss(X)
        return value, tape.gradient(value, X)

    # ---- targets

    def _targets(self, X, mask, contents=True):
        """Content features and Gram matrices of a picture, in tiles where the objective is."""
        shapes = self.network.shapes(X.shape[1:3])
        masks = self._masks(mask, shapes)
        rows, sums = {}, None
        for crop, cores in self._cut(X.shape[1:3]):
            if masks is None:
                kept, part = self._extract(_crop(X, crop), cores)
            else:
                here = [
                    self._part_of_mask(m, at, crop, cores)
                    for m, at in zip(masks, self._styles_at, strict=True)
                ]
                kept, part = self._extract_masked(_crop(X, crop), cores, here)
            if contents:
                # With its margins a tile may be as high as the one below: the core tells them.
                rows.setdefault((crop[0], int(cores[0, 0, 0])), []).append(kept)
            sums = part if sums is None else tf.nest.map_structure(tf.add, sums, part)
        kept = []
        if contents:  # tiles side by side, then below each other
            kept = [
                tf.concat([tf.concat([k[i] for k in row], 2) for row in rows.values()], 1)
                for i in range(len(self._contents_at))
            ]
        grams = []
        for i, total in enumerate(sums):
            height, width = shapes[self._styles_at[i]]
            positions = height * width if masks is None else tf.reduce_sum(masks[i])
            grams.append(total / (positions * total.shape[-1]))
        return kept, grams

    def _masks(self, mask, shapes):
        """Shares of a mask in the area of every feature, by style layer `(h / s, w / s)`."""
        if mask is None:
            return None
        mask = tf.constant(np.asarray(mask, np.float32))[None, ..., None]
        if not float(tf.reduce_sum(mask)) > 0:
            raise InputError("mask of a style selects nothing: it must be > 0 somewhere")
        return [
            tf.image.resize(mask, shapes[at], method="area")[0, ..., 0] for at in self._styles_at
        ]

    def _part_of_mask(self, mask, at, crop, cores):
        if self._reaches is None:
            return mask
        place = []
        for axis in (0, 1):
            shift = crop[axis][0] // self._reaches[at][axis].stride
            first, last = (int(bound) for bound in cores[at, axis])
            place.append(slice(shift + first, min(shift + last, mask.shape[axis])))
        return mask[place[0], place[1]]


def _crop(X, crop):
    (top, bottom), (left, right) = crop
    return X[:, top:bottom, left:right]


def _gram_sum(features, mask):
    """`XᵀX` over positions, each times its mask: `(1, h, w, c)` → `(c, c)`."""
    channels = features.shape[-1]
    x = tf.reshape(features, (-1, channels))  # (positions, c)
    weighted = x if mask is None else x * tf.reshape(mask, (-1, 1))
    return tf.matmul(weighted, x, transpose_a=True)


def _spread(features):
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
    """A style's picture and mask at another size.

    Args:
        style: `Style`.
        image_shape: `(height, width)`, None for the picture's own.

    Returns:
        `(X, weight, mask)` as `Objective` takes them.

    Raises:
        InputError: if the mask does not fit the picture, or the weight is not > 0.
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
                f"mask {mask.shape} of a style must have its picture's (h, w) = {image.shape[:2]}"
            )
        if not np.all(np.isfinite(mask)) or mask.min() < 0:
            raise InputError("mask of a style holds values that are negative or not finite")
        mask = tf.image.resize(mask[..., None], image_shape, method="area").numpy()[..., 0]
    return preprocess(style.image, image_shape), float(style.weight), mask
