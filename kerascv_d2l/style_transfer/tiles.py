"""Cutting a picture into tiles whose features are exactly those of the whole.

A feature depends on the pixels within reach of it. A tile is a core, which it answers for,
and a margin around it as wide as that reach. Cores begin at multiples of the coarsest
stride, so that pooling windows fall where they fall in the whole picture, and tiles end at
places equal to the picture's side modulo that stride, so that layers which pad by the parity
of what they get pad in the same way.
"""

import dataclasses

from kerascv_d2l.errors import InputError

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
        core_stop: one past the last, None at the picture's end: every feature that is left.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int | None

    def features(self, stride):
        """Which of the tile's features at a stride belong to its core, as a slice."""
        first = (self.core_start - self.start) // stride
        return slice(
            first, None if self.core_stop is None else (self.core_stop - self.start) // stride
        )


def reaches(model):
    """How far the features of each output of a model see.

    Args:
        model: functional `keras.Model` of one image input.

    Returns:
        list of `(Reach, Reach)`, along height and along width, by output.

    Raises:
        InputError: if a layer mixes positions in a way that is not known here (global
            pooling, attention, upsampling …), so that the picture cannot be cut.
    """
    known = {}

    def visit(tensor):
        operation, node_index, _ = tensor._keras_history
        key = (id(operation), node_index)
        if key not in known:
            inputs = operation._inbound_nodes[node_index].input_tensors
            known[key] = _after(operation, [visit(x) for x in inputs])
        return known[key]

    return [visit(output) for output in model.outputs]


def _after(layer, inputs):
    kind = type(layer).__name__
    if kind not in _POINTWISE | _WINDOWED | {"ZeroPadding2D"}:
        raise InputError(
            f"tile: layer {layer.name!r} ({kind}) of the network is not known to see only a "
            "neighbourhood, so the picture cannot be cut into tiles; use tile=None"
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


def spans(side, tile, axis_reaches):
    """Cut one side of a picture.

    Args:
        side: int, pixels.
        tile: int, wanted pixels of a core; rounded up to a multiple of the coarsest stride.
        axis_reaches: `Reach` of every output along this axis.

    Returns:
        list of `Span`; one that covers the side if it is no longer than a core.
    """
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
            result.append(Span(start, side, core_start, None))
            continue
        core_stop = starts[i + 1]
        margin = max(0, after)
        margin += (side - core_stop - margin) % stride  # end where the side's remainder is equal
        result.append(Span(start, min(side, core_stop + margin), core_start, core_stop))
    return result
