"""Attention, and the layers of DETR's transformer."""

import math

import keras
import tensorflow as tf

_LEAST = 1e-6  # added to sizes that positions are divided by, as DETR has it


@keras.saving.register_keras_serializable("kerascv_d2l")
class Attention(keras.layers.Layer):
    """Scaled dot products of several heads, with a dense layer before and after.

    Called with `query (batch, n, width)`, `key` and `value (batch, m, width)` it gives `(batch, n,
    width)`, and with `return_weights=True` also float32 `(batch, heads, n, m)`, each row of sum 1.

    Args:
        width: int, a multiple of `heads`.
        heads: int.
        dropout: float, share of the weights that are dropped in training.
        **kwargs: as in `keras.layers.Layer`.

    Source:
        Vaswani et al. 2017, "Attention Is All You Need", section 3.2.
    """

    def __init__(self, width, heads, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.drop = keras.layers.Dropout(dropout)
        self.projections = {
            part: keras.layers.Dense(
                width,
                kernel_initializer="glorot_uniform",
                name=f"{self.name}_{part}_proj",
                dtype=self.dtype_policy,
            )
            for part in ("q", "k", "v", "out")
        }

    def build(self, input_shape=None):
        for layer in self.projections.values():
            layer.build((None, None, self.width))
        self.built = True

    def call(
        self, query, key, value, allowed=None, bias=None, training=False, return_weights=False
    ):
        """Attend; `allowed` bool `(n, m)` or `(batch, 1, n, m)`, False where a key is hidden.

        `bias` is float32 `(batch, heads, n, m)`, added to the scores.
        """
        q, k, v = (
            self._in_heads(self.projections[name](x))
            for name, x in (("q", query), ("k", key), ("v", value))
        )  # (batch, heads, n or m, width / heads)
        scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(self.width // self.heads)
        scores = tf.cast(scores, tf.float32)
        if bias is not None:
            scores += tf.cast(bias, tf.float32)
        if allowed is not None:
            scores = tf.where(allowed, scores, -1e9)
        weights = tf.nn.softmax(scores)  # (batch, heads, n, m)
        mixed = tf.matmul(self.drop(tf.cast(weights, v.dtype), training=training), v)
        mixed = tf.transpose(mixed, [0, 2, 1, 3])
        shape = tf.shape(mixed)
        result = self.projections["out"](tf.reshape(mixed, [shape[0], shape[1], self.width]))
        return (result, weights) if return_weights else result

    def _in_heads(self, x):
        shape = tf.shape(x)
        parts = tf.reshape(x, [shape[0], shape[1], self.heads, self.width // self.heads])
        return tf.transpose(parts, [0, 2, 1, 3])

    def get_config(self):
        return super().get_config() | {
            "width": self.width,
            "heads": self.heads,
            "dropout": self.drop.rate,
        }


class _Block(keras.layers.Layer):
    """What layers of encoder and decoder share: norms after each step, two dense layers."""

    def __init__(self, width, heads, feedforward, dropout, **kwargs):
        super().__init__(**kwargs)
        self.settings = {
            "width": width,
            "heads": heads,
            "feedforward": feedforward,
            "dropout": dropout,
        }
        policy = self.dtype_policy
        self.drop = keras.layers.Dropout(dropout)
        self.self_attn = Attention(
            width, heads, dropout, name=f"{self.name}_self_attn", dtype=policy
        )
        self.fc1 = keras.layers.Dense(feedforward, name=f"{self.name}_fc1", dtype=policy)
        self.fc2 = keras.layers.Dense(width, name=f"{self.name}_fc2", dtype=policy)
        self.self_attn_layer_norm = self._norm("self_attn_layer_norm")
        self.final_layer_norm = self._norm("final_layer_norm")

    def _norm(self, name):
        return keras.layers.LayerNormalization(
            epsilon=1e-5, name=f"{self.name}_{name}", dtype=self.dtype_policy
        )

    def build(self, input_shape=None):
        shape = (None, None, self.settings["width"])
        self.self_attn.build()
        self.fc1.build(shape)
        self.fc2.build((None, None, self.settings["feedforward"]))
        self.self_attn_layer_norm.build(shape)
        self.final_layer_norm.build(shape)
        self.built = True

    def _feed_forward(self, x, training):
        hidden = self.drop(tf.nn.relu(self.fc1(x)), training=training)
        return self.final_layer_norm(x + self.drop(self.fc2(hidden), training=training))

    def leaves(self):
        """List the layers that have weights."""
        own = (self.fc1, self.fc2, self.self_attn_layer_norm, self.final_layer_norm)
        return [*self.self_attn.projections.values(), *own]

    def get_config(self):
        return super().get_config() | self.settings


@keras.saving.register_keras_serializable("kerascv_d2l")
class EncoderLayer(_Block):
    """Places of an image attend to each other.

    Called with `x` and `positions`, `(batch, n, width)`; gives `(batch, n, width)`.

    Args:
        width: int.
        heads: int.
        feedforward: int, width of the inner dense layer.
        dropout: float.
        **kwargs: as in `keras.layers.Layer`.

    Source:
        Carion et al. 2020, "DETR", appendix A.3.
    """

    def call(self, x, positions, training=False):
        there = x + tf.cast(positions, x.dtype)
        found = self.self_attn(there, there, x, training=training)
        x = self.self_attn_layer_norm(x + self.drop(found, training=training))
        return self._feed_forward(x, training)


@keras.saving.register_keras_serializable("kerascv_d2l")
class DecoderLayer(_Block):
    """Queries attend to each other, then to the places of an image.

    Called with queries `x` and their `positions` `(batch, q, width)`, and `memory` and
    `places` `(batch, n, width)`; gives `(batch, q, width)` and the weights of the second attention,
    float32 `(batch, heads, q, n)`. See `Attention` for `allowed` in the first attention and the
    `bias` of the second.

    Args:
        width: int.
        heads: int.
        feedforward: int, width of the inner dense layer.
        dropout: float.
        **kwargs: as in `keras.layers.Layer`.

    Source:
        Carion et al. 2020, "DETR", appendix A.3.
    """

    def __init__(self, width, heads, feedforward, dropout, **kwargs):
        super().__init__(width, heads, feedforward, dropout, **kwargs)
        self.encoder_attn = Attention(
            width, heads, dropout, name=f"{self.name}_encoder_attn", dtype=self.dtype_policy
        )
        self.encoder_attn_layer_norm = self._norm("encoder_attn_layer_norm")

    def build(self, input_shape=None):
        self.encoder_attn.build()
        self.encoder_attn_layer_norm.build((None, None, self.settings["width"]))
        super().build()

    def call(self, x, positions, memory, places, allowed=None, bias=None, training=False):
        positions, places = (tf.cast(p, x.dtype) for p in (positions, places))
        there = x + positions
        found = self.self_attn(there, there, x, allowed=allowed, training=training)
        x = self.self_attn_layer_norm(x + self.drop(found, training=training))
        found, weights = self.encoder_attn(
            x + positions,
            memory + places,
            memory,
            bias=bias,
            training=training,
            return_weights=True,
        )
        x = self.encoder_attn_layer_norm(x + self.drop(found, training=training))
        return self._feed_forward(x, training), weights

    def leaves(self):
        """List the layers that have weights."""
        other = self.encoder_attn.projections.values()
        return [*super().leaves(), *other, self.encoder_attn_layer_norm]


@keras.saving.register_keras_serializable("kerascv_d2l")
class BoxFocus(keras.layers.Layer):
    """Draw each head of an attention to another part of a box: logarithms of Gaussians.

    Called with `boxes` float32 `(batch, q, 4)`, normalised, centre first, and `map_size`, height
    and width of a map, it gives float32 `(batch, heads, q, height·width)`: the `bias` of
    `Attention`. Where a head looks and how sharply is learned, in units of half a box and one place
    more. At first the heads look from the middle in as many directions, half of the way.

    Args:
        heads: int.
        **kwargs: as in `keras.layers.Layer`.

    Source:
        Gao et al. 2021, "Fast Convergence of DETR with Spatially Modulated Co-Attention",
        section 3.2; here what a head learns is the same for all queries.
    """

    def __init__(self, heads, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.heads = heads

    def build(self, input_shape=None):
        angles = [2 * math.pi * k / self.heads for k in range(self.heads)]
        start = [[0.5 * math.cos(a), 0.5 * math.sin(a)] for a in angles]
        # (heads, 2): x and y
        self.offsets = self.add_weight(
            shape=(self.heads, 2), initializer=lambda shape, dtype: tf.constant(start, dtype),
            name="offsets",
        )  # fmt: skip
        self.sharpness = self.add_weight(shape=(self.heads,), initializer="zeros", name="sharpness")
        self.built = True

    def call(self, boxes, map_size):
        (height, width), squares = map_size, []
        for axis, count in enumerate((width, height)):
            step = 1 / tf.cast(count, tf.float32)
            places = (tf.range(tf.cast(count, tf.float32)) + 0.5) * step  # (count,)
            middle, size = boxes[..., axis : axis + 1], boxes[..., 2 + axis : 3 + axis]
            away = (places - middle) / (size / 2 + step)  # (batch, q, count)
            away = away[:, tf.newaxis] - self.offsets[:, axis, tf.newaxis, tf.newaxis]
            squares.append(tf.square(away))  # (batch, heads, q, count)
        columns, rows = squares
        # (batch, heads, q, h, w); TensorFlow Lite has no `tf.newaxis` where sizes are unknown
        distance = tf.expand_dims(rows, -1) + tf.expand_dims(columns, -2)
        distance *= tf.exp(self.sharpness)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        shape = tf.shape(rows)
        return -tf.reshape(distance, [shape[0], self.heads, shape[2], height * width])

    def get_config(self):
        return super().get_config() | {"heads": self.heads}


def sine_positions(height, width, channels):
    """Positions of the pixels of a map: sines and cosines of rows, then of columns.

    Args:
        height: int or int scalar.
        width: int or int scalar.
        channels: int, a multiple of 4.

    Returns:
        float32 `(height·width, channels)`.

    Source:
        Carion et al. 2020, "DETR", appendix A.4, with rows and columns scaled to (0, 2π].
    """
    rows, columns = (
        tf.range(1, tf.cast(n, tf.float32) + 1) / (tf.cast(n, tf.float32) + _LEAST)
        for n in (height, width)
    )
    y, x = tf.meshgrid(rows, columns, indexing="ij")
    return tf.reshape(sine_of(tf.stack([y, x], axis=-1), channels // 2), [-1, channels])


def sine_of(values, channels):
    """Sines and cosines of numbers in [0, 1] at falling frequencies.

    Args:
        values: float32 `(…, k)`.
        channels: int, an even number, of each value.

    Returns:
        float32 `(…, k·channels)`: for each value sine and cosine by turns, of 2π·value /
        10000^(2i / channels).
    """
    steps = 2 * tf.range(channels // 2, dtype=tf.float32) / channels
    angles = 2 * math.pi * tf.expand_dims(values, -1) / tf.pow(10000.0, steps)
    waves = tf.stack([tf.sin(angles), tf.cos(angles)], axis=-1)  # (…, k, channels / 2, 2)
    shape = tf.concat([tf.shape(values)[:-1], [values.shape[-1] * channels]], axis=0)
    return tf.reshape(waves, shape)
