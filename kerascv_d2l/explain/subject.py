"""A model as the methods of this package see it: from pixels to the one number they explain."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError, first_of
from kerascv_d2l.explain.layers import find_layer, logits, recording
from kerascv_d2l.models.detector import matching_score
from kerascv_d2l.ops.geometry import resize_and_center_crop, resized_size
from kerascv_d2l.ops.resize import resize

TASKS = ("classification", "localization", "detection", "segmentation")
BACKGROUND = "background"
LONGEST_SIDE = 512  # of what a segmentation network without a size of its own gets, pixels
_LEAST = 1e-12  # of a probability, for its logarithm
_KEPT = "_subject"  # attribute of a model
_SMALLEST_MAP = 4  # cells along a side: a smaller map hardly says where
_ROUNDED = 2  # cells by which a map may differ from the shape of the image


class NothingFound(InputError):  # noqa: N818 (a state of the image, not a defect)
    """A detector finds no object on an image, and so there is no score to explain."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What is explained: one score of a model on one image.

    Attributes:
        name: str, for titles: the class.
        score: float, on the image itself.
        tensors: dict of tensors: what the score needs besides the outputs of the model.
        box: float32 `(4,)` normalised corners in the network's image, or None.
    """

    name: str
    score: float
    tensors: dict
    box: np.ndarray = None


class Subject:
    """A model, with what the methods need of it; they make one of every model that they get.

    Make it yourself to look at one model in several ways: what is traced is kept.

    The score of a classifier is the logit of a class (of an export, which knows probabilities
    only, their logarithm), of a detector the score of one detection, and of a segmentation network
    the sum of one class's logits over the pixels that are taken for it.

    Args:
        model: `keras.Model` of any construction: a network of this package, or another from
            images to `(batch, classes)` or `(batch, h, w, classes)`; or a `LoadedModel`, which
            has no inner layers.
        pixel_range: `(low, high)`, what the model takes for black and white.

    Attributes:
        task: "classification", "detection" or "segmentation".
        class_names: tuple of str.

    Raises:
        InputError: if the model is none of these.
    """

    def __init__(self, model, pixel_range=(0, 255)):
        self.model = model
        self.low, self.high = map(float, pixel_range)
        self.exported = not isinstance(model, keras.Model)
        self.task = getattr(model, "task", None)
        self.class_names = tuple(getattr(model, "class_names", None) or ())
        self._check_task()
        # Methods call these many times; what runs once is not worth tracing.
        options = {"autograph": False, "reduce_retracing": True}
        self._scores = tf.function(self._compute_scores, **options)
        self._gradients = tf.function(self._compute_gradients, **options)
        self._layers = {}  # of `layer`

    def _check_task(self):
        if self.task not in (None, *TASKS):
            raise InputError(
                f"a model for {self.task} has no score to explain: expected a classifier, "
                "detector or segmentation network."
            )

    def prepare(self, image):
        """Resize an image to what the network sees.

        Args:
            image: pixels 0-255 `(height, width, 3)`, uint8 or float.

        Returns:
            float32 `(1, h, w, 3)`.

        Raises:
            InputError: if the shape is another.
        """
        image = tf.convert_to_tensor(image)
        if image.shape.rank != 3 or image.shape[-1] != 3:
            raise InputError(f"image has shape {tuple(image.shape)}: expected (height, width, 3).")
        size, crop_pct = self._size(image.shape[:2])
        pixels = tf.cast(image, tf.float32)[None]
        if crop_pct < 1:
            return resize_and_center_crop(pixels, resized_size(size, crop_pct), size)
        return pixels if tuple(image.shape[:2]) == size else resize(pixels, size)

    def _size(self, size):
        """`(height, width)` of the network's image, and the share that is cut out of the image."""
        size = tuple(size)
        if self.exported:
            return size, 1.0
        wanted = getattr(self.model, "image_size", None)
        if wanted is None and self.task == "segmentation":
            scale = min(1, LONGEST_SIDE / max(size))
            step = getattr(self.model, "size_multiple", 1)
            return tuple(max(step, round(side * scale / step) * step) for side in size), 1.0
        shape = getattr(self.model, "input_shape", None)
        if wanted is None and shape and isinstance(shape[1], int):
            wanted = shape[1:3]
        return tuple(wanted or size), getattr(self.model, "crop_pct", 1.0)

    def window(self, image):
        """Give the part of an image that the network sees, float `(4,)` normalised corners."""
        size, crop_pct = self._size(image.shape[:2])
        corners = []
        for side, whole in zip(size[::-1], resized_size(size[::-1], crop_pct), strict=True):
            start = (whole - side) // 2 / whole
            corners.append((start, start + side / whole))
        (left, right), (top, bottom) = corners
        return np.array([left, top, right, bottom])

    def outputs(self, pixels):
        """Run the model on pixels 0-255 `(batch, h, w, 3)`."""
        if self.exported:
            return self._exported_outputs(pixels)
        scaled = pixels
        if (self.low, self.high) != (0, 255):
            scaled = self.low + pixels * ((self.high - self.low) / 255)
        with logits(self.model):
            outputs = self.model(scaled, training=False)
        return outputs["logits"] if self.task == "localization" else outputs

    def _exported_outputs(self, pixels):
        name = {"segmentation": "scores"}.get(self.task) or next(iter(self.model.functions))
        outputs = self.model.functions[name](pixels)
        if self.task in ("classification", "localization"):
            return tf.math.log(tf.maximum(outputs["probabilities"], _LEAST))
        return outputs["scores"] if self.task == "segmentation" else outputs

    def _compute_scores(self, pixels, tensors):
        """float32 `(batch,)`: the score of each image."""
        return self._score(self.outputs(pixels), tensors)

    def _score(self, outputs, tensors):
        if self.task in ("classification", "localization"):
            scores = tf.gather(outputs, tensors["class"], axis=-1)
        elif self.task == "segmentation":
            scores = tf.gather(outputs, tensors["class"], axis=-1)  # (batch, h, w)
            scores = tf.cast(scores, tf.float32) * tensors["mask"]
            scores = tf.reduce_sum(scores, axis=[1, 2])
        elif self.exported:
            scores = matching_score(outputs, tensors["box"], tensors["class"])
        else:
            scores = self.model.score_of(outputs, tensors["box"], tensors["class"])
        return tf.cast(scores, tf.float32)

    def _compute_gradients(self, pixels, tensors):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            scores = self._compute_scores(pixels, tensors)
        return scores, tf.convert_to_tensor(tape.gradient(scores, pixels, None, "zero"))

    def scores(self, pixels, target):
        """Compute the score of each image, float32 `(batch,)`, of pixels `(batch, h, w, 3)`."""
        return self._scores(tf.cast(pixels, tf.float32), target.tensors).numpy()

    def gradients(self, pixels, target):
        """Compute scores and their derivatives by the pixels.

        Args:
            pixels: `(batch, h, w, 3)`, 0-255, as the network sees them.
            target: `Target`.

        Returns:
            Tuple of float32 arrays `(batch,)` and `(batch, h, w, 3)`.
        """
        scores, gradients = self._gradients(tf.cast(pixels, tf.float32), target.tensors)
        return scores.numpy(), gradients.numpy()

    def target(self, pixels, wanted=None):
        """Choose what is explained.

        Args:
            pixels: `(1, h, w, 3)`, as `prepare` gives them.
            wanted: class, by index or name; of a detector the number of a detection, 0 for the
                one with the highest score. None for the most probable class, the first
                detection, the class with the most pixels (background aside).

        Returns:
            `Target`.

        Raises:
            InputError: if there is no such class or detection, or it has no pixel.
            NothingFound: if there is no detection at all.
        """
        if isinstance(wanted, Target):
            return wanted
        outputs = self.outputs(tf.cast(pixels, tf.float32))
        self._learn_task(outputs)
        choose = {"detection": self._detection, "segmentation": self._region}
        name, tensors, box = choose.get(self.task, self._class)(outputs, wanted)
        tensors = {key: tf.convert_to_tensor(value) for key, value in tensors.items()}
        return Target(name, float(self._score(outputs, tensors)[0]), tensors, box)

    def _learn_task(self, outputs):
        """Tell the task of a model that says none by the rank of its outputs."""
        shape = getattr(outputs, "shape", ())
        if self.task is None:
            names = {2: "classification", 4: "segmentation"}
            self.task = names.get(len(shape), f"outputs of shape {tuple(shape)}")
            self._check_task()
        if not self.class_names:
            self.class_names = tuple(map(str, range(shape[-1])))

    def _class(self, outputs, wanted):
        index = int(np.argmax(outputs[0])) if wanted is None else self.class_index(wanted)
        return self.class_names[index], {"class": index}, None

    def _region(self, outputs, wanted):
        classes = np.argmax(outputs[0], axis=-1)  # (h, w)
        if wanted is None:
            counts = np.bincount(classes.ravel(), minlength=len(self.class_names))
            if BACKGROUND in self.class_names and np.count_nonzero(counts) > 1:
                counts[self.class_names.index(BACKGROUND)] = 0
            wanted = int(counts.argmax())
        index = self.class_index(wanted)
        mask = (classes == index).astype(np.float32)
        if not mask.any():
            there = first_of(self.class_names[k] for k in np.unique(classes))
            raise InputError(
                f"target {wanted!r}: no pixel is taken for {self.class_names[index]}; "
                f"there are {there}"
            )
        return self.class_names[index], {"class": index, "mask": mask}, None

    def _detection(self, outputs, wanted):
        found = outputs if self.exported else self.model.decode(outputs)
        found = {name: np.asarray(value[0]) for name, value in found.items()}
        count, number = int(found["num_valid"]), wanted or 0
        if not count:
            raise NothingFound("nothing is found on the image: there is no detection to explain")
        if not str(number).isdecimal() or int(number) >= count:
            raise InputError(
                f"target {wanted!r}: expected the number of a detection, 0 to {count - 1}"
            )
        box, index = found["boxes"][int(number)], int(found["classes"][int(number)])
        return self.class_names[index], {"class": index, "box": box}, box

    def class_index(self, wanted):
        """Find a class by index or name.

        Raises:
            InputError: if there is none.
        """
        if str(wanted) in self.class_names:
            return self.class_names.index(str(wanted))
        if not str(wanted).isdecimal() or int(wanted) >= len(self.class_names):
            raise InputError(
                f"target {wanted!r}: no such class; expected 0 to {len(self.class_names) - 1}, or "
                f"{first_of(self.class_names)}"
            )
        return int(wanted)

    # Inner layers

    def check_layers(self, method):
        """Refuse a method that needs inner layers, for an export.

        Raises:
            InputError: if the model has none.
        """
        if self.exported:
            raise InputError(
                f"{method} needs the layers of the model, and a SavedModel has none: give "
                "model.keras."
            )

    def layer(self, pixels, target, name=None):
        """Choose the layer whose maps are looked at.

        Args:
            pixels: as for `target`.
            target: `Target`.
            name: str, or None: of a classifier the last map with more than one cell; of others
                the map with the most channels that the score depends on, the last of them.

        Returns:
            str, a key of `inner_layers`.

        Raises:
            InputError: if there is none.
        """
        if name is not None:
            return find_layer(self.model, name)
        key = (tuple(pixels.shape),)  # the same for every class of a classifier
        if self.task in ("detection", "segmentation"):
            key += (target.name, None if target.box is None else tuple(target.box))
        if key not in self._layers:
            self._layers[key] = self._choose_layer(pixels, target)
        return self._layers[key]

    def _choose_layer(self, pixels, target):
        with recording(self.model) as outputs, tf.GradientTape() as tape:
            tape.watch(pixels)
            scores = self._compute_scores(pixels, target.tensors)
        maps = {
            path: output
            for path, output in outputs.items()
            if output.shape.rank == 4 and _shows(pixels.shape, output.shape)
        }
        paths = list(maps)[::-1]  # the last first
        if self.task in ("detection", "segmentation"):
            large = [p for p in paths if min(maps[p].shape[1:3]) >= _SMALLEST_MAP]
            paths = sorted(large or paths, key=lambda path: -maps[path].shape[-1])
        gradients = tape.gradient(scores, [maps[path] for path in paths])
        for path, gradient in zip(paths, gradients, strict=True):
            if gradient is not None and np.any(gradient):
                return path
        raise InputError(
            "layer: the model has no feature map that the score depends on; name a layer."
        )

    def maps(self, pixels, target, path):
        """Compute the output of a layer and the derivatives of the score by it.

        Args:
            pixels: as for `target`.
            target: `Target`.
            path: str, a key of `inner_layers`.

        Returns:
            Tuple of two float32 arrays of the layer's shape.

        Raises:
            InputError: if the layer was not called, or the score does not depend on it.
        """
        pixels = tf.cast(pixels, tf.float32)
        with recording(self.model, [path]) as outputs, tf.GradientTape() as tape:
            tape.watch(pixels)
            scores = self._compute_scores(pixels, target.tensors)
        if path not in outputs:
            raise InputError(f"layer {path!r}: the model does not use it.")
        gradients = tape.gradient(scores, outputs[path])
        if gradients is None:
            raise InputError(f"layer {path!r}: the score does not depend on it.")
        return tuple(tf.cast(x, tf.float32).numpy() for x in (outputs[path], gradients))

    def layer_output(self, pixels, path):
        """Compute the output of a layer, a float32 array of its shape."""
        with recording(self.model, [path]) as outputs:
            self.outputs(tf.cast(pixels, tf.float32))
        if path not in outputs:
            raise InputError(f"layer {path!r}: the model does not use it.")
        return tf.cast(outputs[path], tf.float32).numpy()


def _shows(image, output):
    """Whether an output `(1, h, w, channels)` is a map of the image, not attention."""
    (_, height, width, _), (_, h, w, _) = image, output
    return h * w > 1 and abs(w - h * width / height) < _ROUNDED


def as_subject(model):
    """Make a `Subject` of a model that is none yet, or give the one that was made before."""
    if isinstance(model, Subject):
        return model
    decoder = getattr(model, "decoder", None)
    state = (decoder and str(decoder.get_config()), getattr(model, "image_size", None))
    kept = model.__dict__.get(_KEPT)
    if kept is None or kept[0] != state:  # the traced functions know the old state
        kept = (state, Subject(model))
        object.__setattr__(model, _KEPT, kept)  # past Keras' bookkeeping
    return kept[1]


def look(model, image, wanted):
    """Start a method: the subject, the network's pixels `(1, h, w, 3)`, and the target."""
    subject = as_subject(model)
    pixels = subject.prepare(image)
    return subject, pixels, subject.target(pixels, wanted)


def onto_image(model, image, heat):
    """Bring the map of a method from the network's image onto the image itself.

    Args:
        model: the model that it is of.
        image: `(height, width, 3)`, what the method was given.
        heat: float `(h, w)`, of the network's image or of a layer.

    Returns:
        float32 `(height, width)`; 0 where the network did not see the image.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = as_subject(model).window(image)
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    size = (rows.stop - rows.start, columns.stop - columns.start)
    placed = np.zeros((height, width), np.float32)
    placed[rows, columns] = tf.image.resize(np.asarray(heat, np.float32)[..., None], size)[..., 0]
    return placed


def share_inside(heat, box):
    """Compute how much of a map lies in a box.

    Args:
        heat: float `(height, width)`; negative values count as 0.
        box: `(x_min, y_min, x_max, y_max)`, pixels.

    Returns:
        float from 0 to 1; NaN for a map without anything above 0.
    """
    heat = np.maximum(heat, 0)
    left, top, right, bottom = np.round(box).astype(int)
    total = heat.sum(dtype=np.float64)
    inside = heat[max(top, 0) : bottom, max(left, 0) : right].sum(dtype=np.float64)
    return float(inside / total) if total else float("nan")
