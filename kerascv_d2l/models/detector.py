"""The base class of detectors: what metrics, drawing, export and scripts need of one."""

import math
import re
from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.devices import resolve_jit_compile, without_autograph
from kerascv_d2l.errors import InputError
from kerascv_d2l.losses.detection import reported
from kerascv_d2l.models.common import (
    SCORE_THRESHOLD,
    BuiltModel,
    any_images,
    as_class_names,
    dtype_scope,
)
from kerascv_d2l.models.registry import Recipe, one_of
from kerascv_d2l.ops.boxes import box_iou, sides_of
from kerascv_d2l.ops.checks import as_image_size, as_targets, check_fraction
from kerascv_d2l.ops.resize import resize

OWN_LAYERS = ("fpn_", "extra_")  # how names of layers begin that are added to a backbone
MATCHING_IOU = 0.5  # from which a detection stands for a box


def in_steps_of(step, most_objects):
    """One and a half times so many objects, rounded up to a multiple of `step`."""
    return step * math.ceil(1.5 * most_objects / step)


class Detector(BuiltModel, keras.Model):
    """A network that finds boxes, with all that is the same for every detector.

    A subclass defines

    - `call(images, training=False)`: pixels 0-255 `(batch, height, width, 3)` to raw
      outputs, a tensor or any structure of tensors;
    - `compute_loss(x, y, y_pred, sample_weight, training)`: a float32 scalar. `y` is the
      dict of `kerascv_d2l.ops.checks.as_targets`, whichever form `fit` was given. For a mean
      over objects rather than images see `kerascv_d2l.losses.detection.mean_over_replicas`;
    - `decode(outputs)`, unless `decoder(*outputs)` does it;
    - `get_config()`, if it has further arguments; its last line in `__init__` is
      `self.build((None, None, None, 3))` or a first call, so that a saved model loads;
    - `predicts_masks = True`, if `decode` gives masks and `compute_loss` needs them;
    - and, for training by name, `RECIPES`, `LOSSES` and `BACKBONE`, if they differ; see
      `kerascv_d2l.models.registry`.

    Train it with `fit` on pairs of images and labels. `detect` gives boxes.

    Args:
        class_names: sequence of str, or the number of classes, which are then "0", "1", …;
            they are saved and exported with the model.
        image_size: `(height, width)` to which `detect` and the exported model
            resize images, or None to take them as they are.
        decoder: `keras.layers.Layer` without weights that turns outputs into detections, or
            None if `decode` does it alone. It is saved with the model. Another one may be
            assigned at any time.
        score_threshold: float in [0, 1], the score from which on detections are believed: what
            draws or lists them takes it by default. `detect` does not look at it. It may be set
            at any time.
        **kwargs: as in `keras.Model`.

    Raises:
        InputError: if a name is missing or given twice, or the size is not two numbers of
            at least `MIN_SIZE`.
    """

    task = "detection"
    # How to train it, by name: "default" and others.
    RECIPES: ClassVar = {"default": Recipe()}
    # What is different on a folder of images, besides `registry.ON_FOLDERS`.
    ON_FOLDERS: ClassVar = {}
    # Losses for `compile` by name: functions without arguments.
    LOSSES: ClassVar = {}
    # Name of the default backbone, or None if the class takes no `backbone` and `weights`.
    BACKBONE = None
    # Whether detections have masks, and labels for training must have them.
    predicts_masks = False
    # The smallest height and width that `call` takes, pixels.
    MIN_SIZE = 1
    # Whether XLA can compile a training step.
    XLA = True

    def __init__(
        self, class_names, image_size=None, decoder=None, score_threshold=SCORE_THRESHOLD, **kwargs
    ):
        super().__init__(**kwargs)
        check_fraction(score_threshold, "score_threshold")
        self.score_threshold = float(score_threshold)
        self.class_names = as_class_names(class_names)
        self.image_size = None if image_size is None else as_image_size(image_size)
        if image_size is not None and min(self.image_size) < self.MIN_SIZE:
            raise InputError(
                f"image_size must be at least {self.MIN_SIZE} pixels high and wide for this "
                f"network; got {self.image_size}."
            )
        self.decoder = decoder
        options = {"reduce_retracing": True, "autograph": False}
        self._detect = tf.function(lambda images, _: self.detect_batch(images), **options)
        self._detect_in_boxes = tf.function(
            lambda images, _: Detector.detect_batch(self, images), **options
        )
        self._evaluate_batch = tf.function(self._losses_and_detections, **options)

    def __setattr__(self, name, value):
        if name == "decoder":  # Keras lets no layer into a built model; this one has no weights.
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @classmethod
    def make_loss(cls, name=None):
        """Make one of `LOSSES`.

        Args:
            name: str, or None for none: `compile` then chooses.

        Returns:
            What `compile` takes as `loss`.

        Raises:
            InputError: if there is no such loss.
        """
        if name is None:
            return None
        if not cls.LOSSES:
            raise InputError(f"loss={name!r}: {cls.__name__} has a loss of its own. Leave it out.")
        return cls.LOSSES[one_of(cls.LOSSES, name, "loss")]()

    @classmethod
    def has_own_loss(cls):
        """Whether `compute_loss` does without what `compile` and `fit` take for the loss."""
        return not cls.LOSSES and cls.compute_loss is not keras.Model.compute_loss

    @classmethod
    def takes_whole(cls, weights):
        """Whether `weights` are those of a whole detector rather than of its backbone."""
        return False

    @classmethod
    def anchor_options(cls, boxes, image_size):
        """Choose anchors that suit the objects of a data set, if the class can be told.

        Args:
            boxes: array `(n, 4)`, normalised corners, of all objects to learn from.
            image_size: `(height, width)` of the network's input, pixels.

        Returns:
            dict of arguments of the constructor, empty if there is nothing to choose.
        """
        return {}

    def make_room(self, most_objects):
        """Let it find as many objects in an image as its training images have, and half as many
        again, in whole hundreds, where it cannot already.

        Args:
            most_objects: int, in one image.

        Returns:
            int, detections of an image at most.
        """
        rows = in_steps_of(100, most_objects)
        if rows > getattr(self.decoder, "max_detections", rows):
            self.decoder.max_detections = rows
        return getattr(self.decoder, "max_detections", rows)

    def backbone_multipliers(self, factor):
        """Give the `multipliers` of `layer_rates` by which the backbone learns at another rate.

        Args:
            factor: float; 1 for the rate of all other layers.

        Returns:
            dict, or None where there is nothing to change.
        """
        if factor == 1 or self.BACKBONE is None:
            return None
        own = tuple(OWN_LAYERS)
        names = [
            re.escape(layer.name)
            for layer in self.features.layers
            if layer.trainable_weights and not layer.name.startswith(own)
        ]
        return {"|".join(names): factor}

    def compile(self, optimizer="sgd", loss=None, jit_compile="auto", **kwargs):
        """Configure the model for training, as `keras.Model.compile`.

        Args:
            optimizer: as in Keras. If the model is built, its variables are made here, so
                that they can be saved and restored before the first step. Where it keeps a running
                mean of the weights, batch norm's statistics are averaged as slowly.
            loss: as in Keras; None for a detector that has its own.
            jit_compile: bool, or "auto" for XLA on GPUs only, where it can compile this detector.
            **kwargs: as in Keras.

        Raises:
            InputError: if the detector has a loss of its own, or XLA cannot compile it.
        """
        name = type(self).__name__
        if loss is not None and self.has_own_loss():
            raise InputError(f"loss={loss!r}: {name} has a loss of its own. Leave it out.")
        if jit_compile is True and not self.XLA:
            raise InputError(f"jit_compile=True: XLA cannot train a {name}. Leave it out.")
        jit_compile = self.XLA and resolve_jit_compile(jit_compile)
        super().compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile, **kwargs)
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)  # of a loss scale
        if inner.use_ema:
            self._average_statistics(inner.ema_momentum)
        if self.built and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _average_statistics(self, momentum):
        """Let batch norm's statistics change no faster than a running mean of the weights.

        Where the images change in a training, as at the end of mosaics, statistics of the last
        ten steps do not fit weights of the last hundred.
        """
        for layer in self._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = max(layer.momentum, momentum)

    def compile_from_config(self, config):
        """Compile a loaded model as it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, x=None, y=None, *args, **kwargs):
        """Train, as `keras.Model.fit`, after a check of the labels.

        Labels in an array are checked at once, those of a `tf.data.Dataset` batch by batch as
        they come. (XLA has no assertions; without this check it would take wrong rows for
        padding without a word.)

        Args:
            x: images `(n, height, width, 3)`, or a data set of batches `(images, labels)`.
            y: labels of an array of images.
            *args: as in Keras.
            **kwargs: as in Keras.

        Returns:
            `keras.callbacks.History`.

        Raises:
            InputError: if the labels are not as `kerascv_d2l.ops.checks.as_targets` takes them.
            tf.errors.InvalidArgumentError: the same in a data set.
        """
        if isinstance(x, tf.data.Dataset):
            x = x.map(without_autograph(lambda *batch: self._with_targets(batch)))
        elif y is not None:
            as_targets(y, len(self.class_names))
        return super().fit(x, y, *args, **kwargs)

    def _with_targets(self, batch):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if sample_weight is not None and self.has_own_loss():
            raise InputError(
                f"sample_weight: the loss of {type(self).__name__} weighs all images alike. Leave "
                "it out (class_weight, too)."
            )
        y = as_targets(y, len(self.class_names))
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def train_step(self, data):
        return super().train_step(self._with_targets(data))

    def test_step(self, data):
        return super().test_step(self._with_targets(data))

    def sum_of_parts(self, losses, images):
        """Add up this device's parts of the losses, each kept in its metric, `self.parts[name]`.

        Args:
            losses: dict of float32 scalars, as `mean_over_replicas` gives them.
            images: int or int32 scalar, images of this device. Metrics weigh batches by it, as
                Keras does the sum.

        Returns:
            float32 scalar, as of `reported`.
        """
        devices = tf.distribute.get_strategy().num_replicas_in_sync
        parts = reported(tf.stack(list(losses.values())), images)  # (losses,)
        for name, part in zip(losses, tf.unstack(parts), strict=True):
            self.parts[name].update_state(part * devices, sample_weight=images)
        return tf.reduce_sum(parts)

    def decode(self, outputs):
        """Turn the outputs of `call` into detections.

        Args:
            outputs: what `call` returned.

        Returns:
            dict of tensors: `boxes` float32 `(batch, n, 4)`, normalised corners; `scores`
            float32 `(batch, n)`, falling; `classes` int32 `(batch, n)`; `num_valid` int32
            `(batch,)`. Rows from `num_valid` on are padding with class -1. A model that
            `predicts_masks` adds `masks` float32 `(batch, n, rows, columns)`, probabilities
            within each box; from `detect` they come as uint8 `(batch, n, height, width)`, 0 or
            1, in the images given.
        """
        return self.decoder(*outputs)

    def score_of(self, outputs, box, class_index):
        """Give the score of one object as a function that can be differentiated.

        A subclass whose `decode` has no derivative overrides it.

        Args:
            outputs: what `call` returned.
            box: float32 `(4,)`, normalised corners of the object.
            class_index: int32 scalar.

        Returns:
            float32 `(batch,)`, see `matching_score`.
        """
        return matching_score(self.decode(outputs), box, class_index)

    def detect(self, images):
        """Find objects.

        Images are resized to `image_size` if the model has one.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, uint8 or float.

        Returns:
            dict of tensors, see `decode`.

        Raises:
            InputError: if the images have another shape or are too small.
        """
        images = tf.convert_to_tensor(images)
        self.check_images(images, self.MIN_SIZE if self.image_size is None else 1)
        return self._detect(images, self._settings_key())

    def detect_in_boxes(self, images):
        """Do what `detect` does, with masks as `decode` gives them: not pasted."""
        return self._detect_in_boxes(tf.convert_to_tensor(images), self._settings_key())

    def _settings_key(self):
        """What a compiled function depends on besides its tensors: another value traces anew.

        All settings, so that no subclass can forget one: they take 0.1 ms to read.
        """
        settings = self.get_config()
        settings.pop("score_threshold", None)  # which may change at any time, and is in no graph
        if self.decoder is not None:  # in full it would tell, too, whether it has been called
            settings["decoder"] = self.decoder.get_config()
        return str(settings)

    def detect_batch(self, images):
        """Do what `detect` does as plain operations, for other graphs."""
        return self.decode(self(self._resized(images), training=False))

    def _resized(self, images):
        images = tf.cast(images, tf.float32)
        if self.image_size and tuple(images.shape[1:3]) != self.image_size:
            images = resize(images, self.image_size)
        return images

    def evaluate_batch(self, images, y):
        """Run one batch of an evaluation: the loss, the metrics and the detections at once.

        Args:
            images: as for `detect`.
            y: labels, as `compute_loss` takes them.

        Returns:
            Tuple of the loss, float32 scalar, and detections as `decode` gives them; the
            model's metrics are updated.
        """
        images, y = tf.nest.map_structure(tf.convert_to_tensor, (images, y))
        # One trace for any number of images, and of objects (or proposals) in one: left to itself,
        # TensorFlow finds that out by three traces, each of which takes a second and more.
        of_images = tf.nest.map_structure(
            lambda tensor: _of_any_number(tensor, 1 if tensor.shape.rank == 4 else 2), images
        )
        of_objects = tf.nest.map_structure(_of_any_number, y)
        evaluate, key = self._evaluate_batch, self._settings_key()
        if not tf.config.functions_run_eagerly():
            evaluate = evaluate.get_concrete_function(of_images, of_objects, key)
        return evaluate(images, y, key)

    def _losses_and_detections(self, images, y, _):
        images, y, _ = keras.utils.unpack_x_y_sample_weight(self._with_targets((images, y)))
        images = self._resized(images)
        outputs = self(images, training=False)
        loss = self.compute_loss(x=images, y=y, y_pred=outputs, training=False)
        return loss, self.decode(outputs)

    def endpoints(self):
        """Give what an export offers: `{"detect": (function, signature)}`.

        The function takes images of any size and type and answers as `detect`, with
        `boxes_px` besides: the boxes in pixels of the images given.
        """
        return {"detect": (self._detect_in_pixels, (any_images(),))}

    def _detect_in_pixels(self, images):
        found = self.detect_batch(images)
        return found | {"boxes_px": found["boxes"] * sides_of(tf.shape(images)[1:3])}

    def check_images(self, images, min_size=None):
        """Check the shape of images.

        Args:
            images: tensor.
            min_size: int, least height and width; None for that of the network.

        Raises:
            InputError: if it is not `(batch, height, width, 3)`, or too small.
        """
        min_size, shape = min_size or self.MIN_SIZE, tuple(images.shape)
        if len(shape) != 4 or shape[-1] not in (3, None):
            raise InputError(f"images must be (batch, height, width, 3); got shape {shape}.")
        if any(side is not None and side < min_size for side in shape[1:3]):
            raise InputError(
                f"images must be at least {min_size} pixels high and wide for this network; "
                f"got shape {shape}."
            )

    def get_config(self):
        """Give the arguments of the constructor."""
        decoder = self.decoder and keras.saving.serialize_keras_object(self.decoder)
        return {
            **super().get_config(),
            "class_names": self.class_names,
            "image_size": self.image_size,
            "decoder": decoder,
            "score_threshold": self.score_threshold,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a model from `get_config`, with layers of the dtype policy that it had."""
        decoder = keras.saving.deserialize_keras_object(config.get("decoder"), custom_objects)
        with dtype_scope(config.get("dtype")):
            return cls(**{**config, "decoder": decoder})


def _of_any_number(tensor, dimensions=2):
    return tf.TensorSpec([None] * dimensions + tensor.shape[dimensions:], tensor.dtype)


def matching_score(found, box, class_index):
    """Find the score of the detection that stands for an object.

    Args:
        found: dict as `Detector.decode` gives it.
        box: float32 `(4,)`, normalised corners of the object.
        class_index: int32 scalar.

    Returns:
        float32 `(batch,)`: of each image the highest score of this class in a box whose IoU with
        the object's is at least 0.5; 0 where there is none.
    """
    shape = tf.shape(found["scores"])  # (batch, n)
    ious = tf.reshape(box_iou(tf.reshape(found["boxes"], [-1, 4]), box[tf.newaxis]), shape)
    matching = (found["classes"] == class_index) & (ious >= MATCHING_IOU)
    return tf.reduce_max(tf.where(matching, found["scores"], 0.0), axis=1)
