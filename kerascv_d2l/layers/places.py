"""Where a transformer's queries begin: the places of a map that know best what is there."""

import math

import keras
import tensorflow as tf

PRIOR = 0.01  # probability that a place holds a class, before anything is learned
PRIOR_LOGIT = -math.log((1 - PRIOR) / PRIOR)
FIRST_SIDE = 0.2  # of a box before anything is learned, as a share of the image's
# Taken off the logits of a place next to a better one, which stands for the object.
PASSED_OVER = 4.0
_LEAST = 1e-5  # keeps the logit of a coordinate finite


@keras.saving.register_keras_serializable("kerascv_d2l")
class PlaceHead(keras.layers.Layer):
    """Say at every place of a map which object is there.

    Called with `memory` `(batch, height·width, width)` and `map_size`, height and width of the map,
    it gives `content` `(batch, n, width)`, with which a query may begin, for all n places; float32
    `logits` `(batch, n, classes)`; and float32 `boxes` `(batch, n, 4)`, logits
    of normalised boxes, centre first. At first each box is around its own place.

    Args:
        width: int.
        num_classes: int.
        **kwargs: as in `keras.layers.Layer`.

    Source:
        Zhu et al. 2021, "Deformable DETR", appendix A.4, the two-stage variant.
    """

    def __init__(self, width, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.width, self.num_classes = width, num_classes
        policy = self.dtype_policy
        self.content = keras.layers.Dense(width, name="place_content", dtype=policy)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="place_norm", dtype=policy)
        self.classifier = keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(PRIOR_LOGIT),
            name="place_classifier",
            dtype="float32",
        )
        self.box_layers = box_layers(width, "place_box")

    def build(self, input_shape=None):
        for layer in (self.content, self.norm, self.classifier, *self.box_layers):
            layer.build((None, None, self.width))
        self.built = True

    def call(self, memory, map_size):
        height, width = (tf.cast(side, tf.float32) for side in map_size)
        centres = place_centres(map_size) / tf.stack([width, height])
        first = logit(tf.concat([centres, tf.fill(tf.shape(centres), FIRST_SIDE)], axis=-1))
        return {
            "content": self.norm(self.content(memory)),
            "logits": self.classifier(memory),
            "boxes": first + read_box(self.box_layers, memory),
        }

    def get_config(self):
        return super().get_config() | {"width": self.width, "num_classes": self.num_classes}


def box_layers(width, name, last="zeros"):
    """Make three dense layers, float32, that read a box from `width` numbers.

    `last` is the initializer of the last; by default a box stays where it is at first.
    """
    return [
        keras.layers.Dense(
            units, activation, kernel_initializer=initializer, name=f"{name}_{i}", dtype="float32"
        )
        for i, (units, activation, initializer) in enumerate(
            [(width, "relu", "glorot_uniform")] * 2 + [(4, None, last)]
        )
    ]


def read_box(layers, x):
    """Apply `box_layers` to `(…, width)`: float32 `(…, 4)`."""
    for layer in layers:
        x = layer(x)
    return x


def best_places(logits, map_size, count):
    """Choose places of a map, those first that no neighbour outdoes in their class.

    Args:
        logits: float32 `(batch, height·width, classes)`.
        map_size: height and width of the map.
        count: int, how many; all of a map that has fewer.

    Returns:
        Tuple of
        chosen: int32 `(batch, count)`, numbers of places, by their best class.
        left: float32 `(batch, count, classes)`, their logits, less by `PASSED_OVER` where one of
            the eight neighbours has a larger one.

    Source:
        Zhou et al. 2019, "Objects as Points", section 3: peaks in place of suppression; why
        queries should be distinct: Zhang et al. 2023, "Dense Distinct Query".
    """
    shape = tf.shape(logits)
    on_map = tf.reshape(logits, [shape[0], *map_size, logits.shape[-1]])
    highest = tf.reshape(tf.nn.max_pool2d(on_map, 3, 1, "SAME"), shape)
    left = tf.where(logits < highest, logits - PASSED_OVER, logits)
    places = logits.shape[1]
    count = tf.minimum(count, shape[1]) if places is None else min(count, places)
    _, chosen = tf.math.top_k(tf.reduce_max(left, axis=-1), count)
    return chosen, tf.gather(left, chosen, batch_dims=1)


def place_centres(map_size):
    """Middles of the places of a map of `(height, width)`: float32 `(height·width, 2)`, x and y.

    A place is 1 wide and high.
    """
    y, x = tf.meshgrid(*(tf.range(tf.cast(n, tf.float32)) + 0.5 for n in map_size), indexing="ij")
    return tf.reshape(tf.stack([x, y], axis=-1), [-1, 2])


def logit(shares):
    """Invert the sigmoid, for numbers in [0, 1]; kept finite."""
    shares = tf.clip_by_value(shares, _LEAST, 1 - _LEAST)
    return tf.math.log(shares) - tf.math.log1p(-shares)
