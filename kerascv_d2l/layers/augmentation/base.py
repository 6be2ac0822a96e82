"""What all augmentation layers share: which form data comes in, seeds, batches."""

import zlib
from typing import NamedTuple

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import ALGORITHM

PADDING = -1  # class and coordinates of a row without an object
BOX_FORMAT = "rel_xyxy"  # the project's: corners x y x y, normalised
VOID = 255  # class of mask pixels of which nothing is known


class Example(NamedTuple):
    """One picture and what belongs to it.

    Attributes:
        image: `(height, width, channels)`, uint8 or float.
        boxes: float32 `(n, 4)`, normalised corners, or None.
        is_object: bool `(n,)`: false for rows of padding; or None.
        mask: `(height, width)` or `(height, width, 1)` of classes, or None.
    """

    image: tf.Tensor
    boxes: tf.Tensor | None = None
    is_object: tf.Tensor | None = None
    mask: tf.Tensor | None = None

    @property
    def size(self):
        """int32 `(2,)`: height and width of the picture."""
        return tf.shape(self.image)[:2]


class RandomTransform(keras.layers.Layer):
    """A layer that changes pictures at random, and their boxes and masks alike.

    It takes one picture `(height, width, channels)` or a batch of them, uint8 or
    float, by itself or in a dictionary as Keras' layers do:

        {"images": …, "bounding_boxes": {"boxes": …, "labels": …}, "segmentation_masks": …}

    with boxes `(n, 4)`, labels `(n,)` and masks `(height, width)` or `(height, width,
    1)`, all with a batch dimension if the images have one; label -1 is padding.
    Other entries pass through. What comes out has the same form and dtypes, the
    dictionary that went in is left alone. Each picture of a batch has a draw of its own.
    Objects that vanish become padding: label and coordinates -1.

    With `training=False` (as in `predict` and `evaluate`) everything passes
    unchanged, also through layers that otherwise bring pictures to another size.

    Draws come from `seed`: two layers of the same seed give the same results call by
    call. `Dataset.map` with several parallel calls makes them in no certain order;
    `transform`, whose draws depend on the seed it is given and nothing else, is
    for pipelines that must repeat themselves.

    Args:
        bounding_box_format: what `boxes` are, as in `keras.utils.bounding_boxes`:
            "rel_xyxy" (normalised corners), "xyxy" (pixels), "xywh", "center_xywh" …
        seed: int, or None for another one each time.
    """

    moves = True  # False for layers that change colours only

    def __init__(self, bounding_box_format=BOX_FORMAT, seed=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.bounding_box_format = bounding_box_format
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self._compiled = _GraphByRank(self._transform)

    def draw(self, example, seed):
        """Draw what is to be done with an `Example`: tensors, from `seed` alone."""
        raise NotImplementedError

    def apply(self, example, draw):
        """Do with an `Example` what was drawn; return another one."""
        raise NotImplementedError

    def call(self, data, training=True):
        """Transform pictures; pass them on unchanged where `training` is false."""
        if not training:
            return data
        return self.transform(data, self.generator.next())

    def transform(self, data, seed):
        """Transform with draws that depend on `seed` only.

        Args:
            data: as the layer takes it.
            seed: integers `(2,)`. The pictures of a batch have seeds that are
                made from it.

        Returns:
            The same form as `data`.

        Raises:
            InputError: for data of another form.
        """
        # Layers of different kinds draw apart, even where they are given the same seed.
        kind = tf.constant([0, zlib.crc32(type(self).__name__.encode())], tf.int64)
        seed = tf.bitwise.bitwise_xor(tf.cast(seed, tf.int64), kind)
        if tf.executing_eagerly():
            return self._compiled(_as_tensors(data), seed)
        return self._transform(data, seed)

    def _transform(self, data, seed):
        fields, form = _take_apart(_as_tensors(data))
        if fields["images"].shape.rank == 3:
            fields = self._transform_one(fields, seed)
        else:
            seeds = tf.random.split(seed, tf.shape(fields["images"])[0], alg=ALGORITHM)
            fields = self._transform_batch(fields, seeds)
        return _put_together(fields, form)

    def _transform_one(self, fields, seed):
        example = self._as_example(fields)
        return self._as_fields(self.apply(example, self.draw(example, seed)), fields)

    def _transform_batch(self, fields, seeds):
        return tf.map_fn(
            lambda one: self._transform_one(*one),
            (fields, seeds),
            fn_output_signature={
                name: tf.TensorSpec(self._static_shape(name, value), value.dtype)
                for name, value in fields.items()
            },
        )

    def _static_shape(self, name, value):
        """Shape of one result, as far as it is known, for `value` with a batch dimension."""
        if name not in ("images", "masks"):
            return value.shape[1:]
        return (*self.output_size(*value.shape[1:3]), *value.shape[3:])

    def output_size(self, height, width):
        """Height and width that come out of those that go in (ints, or None where unknown)."""
        return height, width

    def _as_example(self, fields):
        image = fields["images"]
        if not self.moves or "boxes" not in fields:
            return Example(image, mask=fields.get("masks") if self.moves else None)
        boxes = self._converted(fields["boxes"], self.bounding_box_format, BOX_FORMAT, image)
        return Example(image, boxes, fields["labels"] >= 0, fields.get("masks"))

    def _as_fields(self, example, old):
        fields = {**old, "images": example.image}
        if example.boxes is not None:
            boxes = self._converted(
                example.boxes, BOX_FORMAT, self.bounding_box_format, example.image
            )
            padding, there = tf.constant(PADDING), example.is_object
            boxes = tf.where(there[:, None], boxes, tf.cast(padding, boxes.dtype))
            fields["boxes"] = tf.cast(boxes, old["boxes"].dtype)
            labels = old["labels"]
            fields["labels"] = tf.where(there, labels, tf.cast(padding, labels.dtype))
        if example.mask is not None:
            fields["masks"] = example.mask
        return fields

    def _converted(self, boxes, source, target, image):
        height, width = tf.unstack(tf.shape(image)[:2])
        return keras.utils.bounding_boxes.convert_format(
            boxes, source=source, target=target, height=height, width=width
        )

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "bounding_box_format": self.bounding_box_format,
            "seed": self.seed,
        }


class _GraphByRank:
    """A function as a graph, whose loop over a batch is far faster than Python's.

    One graph for each combination of ranks: a single one would be traced again
    with unknown ranks when it met both one picture and a batch.
    """

    def __init__(self, function):
        self._function = function
        self._graphs = {}

    def __call__(self, data, seed):
        ranks = tuple(tensor.shape.rank for tensor in tf.nest.flatten(data))
        if ranks not in self._graphs:
            self._graphs[ranks] = tf.function(
                self._function, autograph=False, reduce_retracing=True
            )
        return self._graphs[ranks](data, seed)


def pair(value, name):
    """`(height, width)` of an int or of two, as a tuple of ints.

    Raises:
        InputError: if it is neither, or not positive.
    """
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(f"{name} is {value!r}; wanted pixels, or (height, width)")
    return sides


def bounds(value, name, least=None, most=None):
    """`(low, high)` as a tuple of floats, checked.

    Raises:
        InputError: if it is not two numbers in order, between `least` and `most`.
    """
    low, high = (float(end) for end in value)
    if not low <= high or (least is not None and low < least) or (most is not None and high > most):
        ends = " to ".join(str(end) if end is not None else "…" for end in (least, most))
        raise InputError(f"{name} is {value!r}; wanted (low, high) within {ends}")
    return low, high


def chance(value, name):
    """A probability.

    Raises:
        InputError: if it is not from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}; wanted a probability, from 0 to 1")
    return float(value)


def _as_tensors(data):
    """The same nest of new containers, with tensors in it; ragged ones padded."""

    def tensor(value):
        if isinstance(value, tf.RaggedTensor):
            return value.to_tensor(PADDING)
        return tf.convert_to_tensor(value)

    return tf.nest.map_structure(tensor, data)


def _take_apart(data):
    """`(fields, form)`: tensors by name, and what `_put_together` needs to undo this."""
    if not isinstance(data, dict):
        data, form = {"images": data}, None
    else:
        form = data
    if "images" not in data:
        raise InputError(f"the data has the entries {sorted(data)}; 'images' is missing")
    fields = {"images": data["images"]}
    rank = fields["images"].shape.rank
    if rank not in (3, 4):
        raise InputError(
            f"images have the shape {fields['images'].shape}; wanted (height, width, channels), "
            "with or without a batch dimension before"
        )
    if "bounding_boxes" in data:
        found = data["bounding_boxes"]
        if not isinstance(found, dict) or not {"boxes", "labels"} <= set(found):
            raise InputError("bounding_boxes must be a dictionary with 'boxes' and 'labels'")
        fields |= {"boxes": found["boxes"], "labels": found["labels"]}
        _check_rank(fields["boxes"], "boxes", (rank - 1,), "(n, 4)", rank)
        _check_rank(fields["labels"], "labels", (rank - 2,), "(n,)", rank)
    if "segmentation_masks" in data:
        fields["masks"] = data["segmentation_masks"]
        wanted = "(height, width) or (height, width, 1)"
        _check_rank(fields["masks"], "segmentation_masks", (rank - 1, rank), wanted, rank)
    return fields, form


def _check_rank(value, name, ranks, wanted, image_rank):
    if value.shape.rank not in ranks:
        batch = " after the batch dimension" if image_rank == 4 else ""
        raise InputError(f"{name} have the shape {value.shape}; wanted {wanted}{batch}")


def _put_together(fields, form):
    if form is None:
        return fields["images"]
    data = {**form, "images": fields["images"]}
    if "boxes" in fields:
        rows = {"boxes": fields["boxes"], "labels": fields["labels"]}
        data["bounding_boxes"] = {**form["bounding_boxes"], **rows}
    if "masks" in fields:
        data["segmentation_masks"] = fields["masks"]
    return data
