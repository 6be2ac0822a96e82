"""Cutting an image into tiles whose features are exactly those of the whole.

A feature depends on the pixels within reach of it. A tile is a core, which it answers for,
and a margin around it as wide as that reach. Cores begin at multiples of the coarsest
stride, so that pooling windows fall where they fall in the whole image, and tiles end at
places equal to the image's side modulo that stride, so that layers which pad by the parity
of what they get pad in the same way.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError

END = np.iinfo(np.int32).max
# Layers after which a feature still depends on its own position alone.
_POINTWISE = {
    *("InputLayer", "Identity", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
    *("BatchNormalization", "Dropout", "SpatialDropout2D", "GaussianNoise", "Rescaling"),
    *("Normalization", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    *("Concatenate",),
}
_WINDOWED = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "MaxPooling2D", "AveragePooling2D"}


@dataclasses.dataclass(frozen=True)
class Reach:
    """How far a feature sees, along one axis.

    Feature i depends on the pixels from `i · stride - before` to `i · stride + after`.
    """

    stride: int = 1
    before: int = 0
    after: int = 0


@dataclasses.dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Attributes:
        start: first pixel of the tile.
        stop: one past its last pixel.
        core_start: first pixel it answers for.
        core_stop: one past the last, `END` at the image's end: every feature that is left.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int

    def features(self, stride):
        """Give first and one past the last of the tile's features that belong to its core."""
        if self.core_stop == END:
            return (self.core_start - self.start) // stride, END
        return tuple((n - self.start) // stride for n in (self.core_start, self.core_stop))

    def place(self, stride):
        """Give the slice of the whole image's features that the core's are."""
        stop = None if self.core_stop == END else self.core_stop // stride
        return slice(self.core_start // stride, stop)


class Tile:
    """A tile of an image.

    Attributes:
        crop: pair of slices, the tile's pixels in the image.
        cores: int32 `(outputs, 2, 2)`: of the tile's features at each output the first and one
            past the last row, and column, that belong to its core.
        places: for each output a pair of slices: where these are in the image's features.
    """

    def __init__(self, rows, columns, strides):
        self.crop = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        self.cores = tf.constant(
            [[rows.features(down), columns.features(across)] for down, across in strides], tf.int32
        )
        self.places = [(rows.place(down), columns.place(across)) for down, across in strides]


def reaches(model):
    """Find how far the features of each output of a model see.

    Args:
        model: functional `keras.Model` of one image input.

    Returns:
        list of `(Reach, Reach)`, along height and along width, by output.

    Raises:
        InputError: if a layer mixes positions in a way that is not known here (global
            pooling, attention, upsampling …), so that the image cannot be cut.
    """
    producers = {id(layer.output): layer for layer in model.layers}
    known = {}

    def visit(tensor):
        layer = producers.get(id(tensor))
        if layer is None:
            raise InputError("tile: the network calls a layer twice; use tile=None")
        if id(tensor) not in known:
            first = type(layer).__name__ == "InputLayer"
            inputs = [] if first else keras.tree.flatten(layer.input)
            known[id(tensor)] = _after(layer, [visit(x) for x in inputs])
        return known[id(tensor)]

    return [visit(output) for output in model.outputs]


def _after(layer, inputs):
    kind = type(layer).__name__
    if kind not in _POINTWISE | _WINDOWED | {"ZeroPadding2D"}:
        raise InputError(
            f"tile: layer {layer.name!r} ({kind}) of the network is not known to see only a "
            "neighbourhood, so the image cannot be cut into tiles; use tile=None"
        )
    result = []
    for axis in (0, 1):
        before = max((reach[axis].before for reach in inputs), default=0)
        after = max((reach[axis].after for reach in inputs), default=0)
        strides = {reach[axis].stride for reach in inputs} or {1}
        if len(strides) > 1:
            raise InputError(f"tile: layer {layer.name!r} joins layers of strides {strides}")
        stride = strides.pop()
        if kind == "ZeroPadding2D":
            before += layer.padding[axis][0] * stride
            after -= layer.padding[axis][0] * stride
        elif kind in _WINDOWED:
            pooling = kind.endswith("Pooling2D")
            size = (layer.pool_size if pooling else layer.kernel_size)[axis]
            step = layer.strides[axis]
            if not pooling:
                size = (size - 1) * layer.dilation_rate[axis] + 1
            if layer.padding == "same":
                # With a step, how much is padded before depends on the side's remainder.
                before += (size - 1) // 2 * stride
                after += (size // 2 if step == 1 else size - 1) * stride
            else:
                after += (size - 1) * stride
            stride *= step
        result.append(Reach(stride, before, after))
    return tuple(result)


def cut(image_shape, tile, model_reaches):
    """Cut an image into tiles.

    Args:
        image_shape: `(height, width)` in pixels.
        tile: int, wanted pixels of a core's side, or None for a single tile.
        model_reaches: what `reaches` gives; for a single tile any `Reach`es.

    Returns:
        list of `Tile`, row by row.
    """
    rows, columns = (
        spans(side, tile, [reach[axis] for reach in model_reaches])
        for axis, side in enumerate(image_shape)
    )
    strides = [(down.stride, across.stride) for down, across in model_reaches]
    return [Tile(row, column, strides) for row in rows for column in columns]


def spans(side, tile, axis_reaches):
    """Cut one side of an image.

    Args:
        side: int, pixels.
        tile: int, wanted pixels of a core, rounded up to a multiple of the coarsest stride; or
            None for a single tile.
        axis_reaches: `Reach` of every output along this axis.

    Returns:
        list of `Span`; one that covers the side if it is no longer than a core.
    """
    if tile is None:
        return [Span(0, side, 0, END)]
    stride = max(reach.stride for reach in axis_reaches)
    before = max(reach.before for reach in axis_reaches)
    # The last feature of a core begins up to a stride before the core's end.
    after = max(reach.after - reach.stride + 1 for reach in axis_reaches)
    core = -(-tile // stride) * stride
    starts = list(range(0, max(side - stride + 1, 1), core))
    result = []
    for i, core_start in enumerate(starts):
        start = max(0, core_start - -(-before // stride) * stride)
        if i + 1 == len(starts):
            result.append(Span(start, side, core_start, END))
            continue
        core_stop = starts[i + 1]
        margin = max(0, after)
        margin += (side - core_stop - margin) % stride  # end where the side's remainder is equal
        result.append(Span(start, min(side, core_stop + margin), core_start, core_stop))
    return result
