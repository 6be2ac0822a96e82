"""What all augmentation layers share: the form of the data, seeds, batches."""

import functools
import inspect
import zlib
from typing import NamedTuple

import keras
import tensorflow as tf

from kerascv_d2l.devices import map_batch, without_autograph
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.checks import as_image_size
from kerascv_d2l.ops.geometry import ALGORITHM

PADDING = -1  # class and coordinates of a row without an object
BOX_FORMAT = "rel_xyxy"  # the project's: corners x y x y, normalised
# Entries of "bounding_boxes" in a dictionary, by the field of `Example`.
ROWS = {"boxes": "boxes", "classes": "labels", "ignore": "ignore", "masks": "masks"}
FILLING = {"boxes": PADDING, "classes": PADDING, "ignore": False, "masks": 0}


class Example(NamedTuple):
    """An image and its targets; or a batch of them, with a batch dimension before all shapes.

    Attributes:
        image: `(height, width, channels)`, an integer or float dtype.
        boxes: float32 `(n, 4)`, normalised corners, or None.
        classes: `(n,)`, -1 for rows without an object; None without boxes.
        ignore: bool `(n,)`: objects that neither training nor metrics count; or None.
        masks: uint8 `(n, height, width)`, 1 where the object is, or None. A pipeline gives a
            layer that `cuts_first` a function instead: of a size, and of what `overlap` says of
            a window, to masks of that window alone, for all masks of an image may be large.
        mask: `(height, width)` or `(height, width, 1)` of classes, or None.
    """

    image: tf.Tensor
    boxes: tf.Tensor | None = None
    classes: tf.Tensor | None = None
    ignore: tf.Tensor | None = None
    masks: tf.Tensor | None = None
    mask: tf.Tensor | None = None

    @property
    def size(self):
        """int32 `(2,)`: height and width of the image, pixels."""
        return tf.shape(self.image)[-3:-1]

    def fields(self):
        """Give the attributes that are not None, as a dict."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def keep(self, kept):
        """Turn the objects that are not kept, bool `(n,)`, into padding."""
        return self._replace(
            classes=tf.where(kept, self.classes, tf.cast(PADDING, self.classes.dtype))
        )

    def pad(self, count):
        """Append rows of padding until there are `count`."""
        missing = count - tf.shape(self.classes)[0]
        return self._replace(
            **{
                name: tf.pad(
                    rows,
                    tf.pad([[0, missing]], [[0, rows.shape.rank - 1], [0, 0]]),
                    constant_values=tf.cast(FILLING[name], rows.dtype),
                )
                for name, rows in self.fields().items()
                if name in ROWS
            }
        )


class RandomTransform(keras.layers.Layer):
    """A layer that changes images at random, and their boxes and masks alike.

    It takes one image `(height, width, channels)` or a batch of them, by itself or in a
    dictionary as Keras' layers do:

        {"images": …, "bounding_boxes": {"boxes": …, "labels": …}, "segmentation_masks": …}

    with boxes `(n, 4)`, labels `(n,)` and segmentation masks `(height, width)` or `(height,
    width, 1)`, all with a batch dimension if the images have one; label -1 is padding.
    `bounding_boxes` may have `ignore`, bool `(n,)`, and `masks`, `(n, height, width)`, too. Other
    entries pass through. The result has the same form and dtypes; the dictionary given is not
    changed. Each image of a batch has a draw of its own. Objects that vanish become padding:
    label and coordinates -1.

    A layer that is called by itself, as in `Dataset.map`, augments. Inside a model it augments
    when the model trains; `model(x)`, `predict` and an exported model pass everything
    unchanged, also through layers that otherwise resize. `training=` overrides both.

    Draws come from `seed`: two layers of the same seed give the same results call by
    call. `Dataset.map` with several parallel calls makes them in no certain order;
    `transform`, whose draws depend only on the seed it is given, is for pipelines that must
    repeat themselves.

    A subclass defines `apply`, and either `draw_for`, if its draws depend on the size of the
    image only, or `draw`.

    Args:
        bounding_box_format: what `boxes` are, as in `keras.utils.bounding_boxes`:
            "rel_xyxy" (normalised corners), "xyxy" (pixels), "xywh", "center_xywh" …
        seed: int, or None for another one each time.
    """

    moves = True  # False for layers that change colours only
    full_resolution = False  # True for layers that crop: a pipeline resizes after them
    cuts_first = False  # True for layers that do nothing with an image before `cut_window`
    partners = 0  # other images that an example needs
    # Function of sizes, int32 `(..., 2)`, and a seed that draws for many images at once; None
    # where a draw depends on more than the size.
    draw_for = None

    def __init__(self, bounding_box_format=BOX_FORMAT, seed=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.bounding_box_format = bounding_box_format
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        # A single graph would be traced again with unknown ranks when it met both an image and a
        # batch.
        self._graph_for = functools.cache(
            lambda *ranks: tf.function(self._transform, autograph=False, reduce_retracing=True)
        )
        self.built = True  # no weights, whatever the layers inside

    def draw(self, example, seed):
        """Draw what to do with an `Example`: tensors, from `seed` alone."""
        return self.draw_for(example.size, seed)

    def apply(self, example, draw):
        """Do with an `Example` what was drawn; return another one."""
        raise NotImplementedError

    def call(self, data, training=None):
        """Transform images, or pass them on unchanged where nothing trains."""
        if training is None:  # Keras leaves it so if neither the caller nor a model around says
            training = self._get_call_context().entry_layer is self
        if not training:
            return data
        return self.transform(data, self.generator.next())

    @without_autograph
    def transform(self, data, seed):
        """Transform with draws that depend on `seed` only.

        Args:
            data: as the layer takes it.
            seed: integers `(2,)`. The images of a batch have draws of their own.

        Returns:
            The same form as `data`.

        Raises:
            InputError: for data of another form, ragged images, or a mask of another size.
        """
        # Layers of different kinds draw apart, even where they are given the same seed.
        kind = tf.constant([0, zlib.crc32(type(self).__name__.encode())], tf.int64)
        seed = tf.bitwise.bitwise_xor(tf.cast(seed, tf.int64), kind)
        tensors = _as_tensors(data if isinstance(data, dict) else {"images": data})
        _as_example(tensors)  # the graph below may know less of the shapes
        transform = self._transform
        if tf.executing_eagerly():  # a graph loops over a batch far faster than Python
            transform = self._graph_for(*(t.shape.rank for t in tf.nest.flatten(tensors)))
        result = transform(tensors, seed)
        return result if isinstance(data, dict) else result["images"]

    def _transform(self, data, seed):
        old = _as_example(data)
        example = old if self.moves else Example(old.image)
        if example.boxes is not None:
            example = self._converted(example, self.bounding_box_format, BOX_FORMAT)
        change = self.transform_one if old.image.shape.rank == 3 else self.transform_batch
        example = change(example, seed)
        if example.boxes is not None:
            example = self._converted(example, BOX_FORMAT, self.bounding_box_format)
            there = (example.classes >= 0)[..., None]
            boxes = tf.where(there, example.boxes, tf.cast(PADDING, example.boxes.dtype))
            if old.boxes.dtype.is_integer:  # a cast alone would move them up and to the left
                boxes = tf.round(boxes)
            example = example._replace(boxes=tf.cast(boxes, old.boxes.dtype))
        return _put_together(example, data)

    def transform_one(self, example, seed):
        """Transform one `Example`, boxes normalised, in a graph."""
        return self.apply(example, self.draw(example, seed))

    def transform_members(self, member, seed):
        """Transform `member(0)`, an `Example`, with partners `member(1)` … `member(partners)`."""
        return self.transform_one(member(0), seed)

    def transform_batch(self, example, seed):
        """Transform an `Example` of batches, with a draw for each image."""
        count = tf.shape(example.image)[0]
        if self.draw_for is not None:
            sizes = tf.tile(example.size[None], [count, 1])  # (batch, 2)
            return self.apply_batch(example, self.draw_for(sizes, seed))
        return self._map(self.transform_one, example, tf.random.split(seed, count, alg=ALGORITHM))

    def apply_batch(self, example, draws):
        """Apply to an `Example` of batches what `draw_for` gave for each image."""
        return self._map(self.apply, example, draws)

    def _map(self, function, example, others):
        """Batch of `function(Example, other)` of each image."""
        fields = map_batch(
            lambda both: function(Example(**both[0]), both[1]).fields(),
            (example.fields(), others),
            fn_output_signature=self._signature(example),
        )
        return Example(**fields)

    def _signature(self, example):
        """Spec of the result for one image, as far as it is known, for a batch of them."""
        size = self.output_size(*example.image.shape[1:3])

        def shape(name, old):
            if name in ROWS:
                rows = None if old[0] is None else self.output_rows(old[0])
                return (rows, *(size if name == "masks" else old[1:]))
            return (*size, *old[2:])

        return {
            name: tf.TensorSpec(shape(name, value.shape[1:]), value.dtype)
            for name, value in example.fields().items()
        }

    def output_size(self, height, width):
        """Height and width of the results (ints, or None or tensors where unknown)."""
        return height, width

    def output_rows(self, count):
        """Rows of boxes in a result for `count` rows in the data."""
        return count

    def _converted(self, example, source, target):
        height, width = tf.unstack(example.size)
        boxes = keras.utils.bounding_boxes.convert_format(
            example.boxes, source=source, target=target, height=height, width=width
        )
        return example._replace(boxes=boxes)

    def get_config(self):
        """Give the arguments of the constructor, which all layers keep under their names."""
        config = super().get_config()
        for kind in (type(self), RandomTransform):
            for name, parameter in inspect.signature(kind.__init__).parameters.items():
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self":
                    config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config):
        """Make the layer that `get_config` describes."""
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})


def pair(value, name):
    """Give `(height, width)` of an int or of two, as a tuple of ints.

    Raises:
        InputError: if it is neither, or not positive.
    """
    return as_image_size((value, value) if isinstance(value, int) else value, name)


def bounds(value, name, least=None, most=None, above=None):
    """Check `(low, high)` and give it as a tuple of floats.

    Raises:
        InputError: if it is not two numbers in order, between `least` and `most`, and above
            `above`.
    """
    low, high = (float(end) for end in value)
    if not low <= high or (least is not None and low < least) or (most is not None and high > most):
        ends = " to ".join(str(end) if end is not None else "…" for end in (least, most))
        raise InputError(f"{name} is {value!r}; wanted (low, high) within {ends}")
    if above is not None and not low > above:
        raise InputError(f"{name} is {value!r}; wanted (low, high) above {above}")
    return low, high


def chance(value, name):
    """Check a probability.

    Raises:
        InputError: if it is not from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}; wanted a probability, from 0 to 1")
    return float(value)


def _as_tensors(data):
    """Give the same dictionary with tensors in it, ragged rows of objects padded."""
    if "images" not in data:
        raise InputError(f"the data has the entries {sorted(data)}; 'images' is missing")
    for name in ("images", "segmentation_masks"):
        if isinstance(data.get(name), tf.RaggedTensor):
            raise InputError(
                f"{name} is a ragged tensor; wanted images of one size. Map the layer over single "
                "images, each of its own size, and make batches afterwards"
            )

    def tensor(value, filling=0):
        ragged = isinstance(value, tf.RaggedTensor)
        return value.to_tensor(filling) if ragged else tf.convert_to_tensor(value)

    data = dict(data)
    rows = data.pop("bounding_boxes", None)
    data = tf.nest.map_structure(tensor, data)
    if rows is not None:
        if not isinstance(rows, dict) or not {"boxes", "labels"} <= set(rows):
            raise InputError("bounding_boxes must be a dictionary with 'boxes' and 'labels'")
        fillings = {entry: FILLING[name] for name, entry in ROWS.items()}
        data["bounding_boxes"] = {
            entry: tensor(value, fillings.get(entry, 0)) for entry, value in rows.items()
        }
    return data


def _as_example(data):
    """Check shapes, and give the `Example` that is in a dictionary."""
    images = data["images"]
    rank = images.shape.rank
    if rank not in (3, 4):
        raise InputError(
            f"images have the shape {images.shape}; wanted (height, width, channels), "
            "with or without a batch dimension before"
        )
    rows = data.get("bounding_boxes", {})
    example = Example(
        images,
        **{name: rows[entry] for name, entry in ROWS.items() if entry in rows},
        mask=data.get("segmentation_masks"),
    )
    if example.classes is not None and not (example.classes.dtype.min < 0):
        raise InputError(
            f"labels are {example.classes.dtype.name}; wanted a signed type, for -1 is padding"
        )
    for name, ranks, wanted in (
        ("boxes", (2,), "(n, 4)"),
        ("classes", (1,), "(n,)"),
        ("ignore", (1,), "(n,)"),
        ("masks", (3,), "(n, height, width)"),
        ("mask", (2, 3), "(height, width) or (height, width, 1)"),
    ):
        value = getattr(example, name)
        if value is not None and value.shape.rank - (rank - 3) not in ranks:
            batch = " after the batch dimension" if rank == 4 else ""
            entry = ROWS.get(name, "segmentation_masks")
            raise InputError(f"{entry} have the shape {value.shape}; wanted {wanted}{batch}")
    _check_size(example.mask, rank - 3, images, "segmentation_masks")
    _check_size(example.masks, rank - 2, images, "masks")
    return example


def _check_size(masks, axis, images, name):
    """Raise unless height and width of masks, from `axis` on, are those of the images."""
    if masks is None:
        return
    found, wanted = masks.shape[axis : axis + 2], images.shape[-3:-1]
    if not found.is_compatible_with(wanted):
        raise InputError(f"{name} have the shape {masks.shape}, the images {images.shape}")
    if not (found.is_fully_defined() and wanted.is_fully_defined()):
        tf.debugging.assert_equal(
            tf.shape(masks)[axis : axis + 2],
            tf.shape(images)[-3:-1],
            message=f"{name} and images have different heights or widths",
        )


def _put_together(example, data):
    """Give the dictionary with the fields of an `Example` in place of its old entries."""
    data = data | {"images": example.image}
    found = example.fields()
    if example.boxes is not None:
        rows = {entry: found[name] for name, entry in ROWS.items() if name in found}
        data["bounding_boxes"] = data["bounding_boxes"] | rows
    if example.mask is not None:
        data["segmentation_masks"] = example.mask
    return data
