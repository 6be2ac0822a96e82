"""Single-shot multibox detection: the book's TinySSD, and the same head on any base.

Every block of the network gives a feature map; on each, one small convolution
says for all anchors there what they hold, another how to move them to it.
"""

import contextlib
import math

import keras
import tensorflow as tf

from kerascv_d2l.devices import resolve_jit_compile
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers import BatchNorm, DetectionDecoder
from kerascv_d2l.losses.detection import SSDLoss
from kerascv_d2l.models.backbones import backbone
from kerascv_d2l.ops.anchors import multibox_prior
from kerascv_d2l.ops.checks import as_labels
from kerascv_d2l.ops.matching import encode_targets
from kerascv_d2l.ops.resize import resize

# Sizes (share of the image height) and ratios of the anchors on each of the five maps:
# D2L 1.0.3, section 14.7.1.5. The second size of each is the geometric mean with the next.
SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = (1.0, 2.0, 0.5)
NUM_ANCHORS = len(SIZES[0]) + len(RATIOS) - 1  # at each pixel of a map
# Channels of the blocks behind the base.
EXTRA_CHANNELS = 128
# Strides at which a base other than the book's is tapped.
BASE_STRIDES = (8, 16, 32)
# PyTorch's, which the book relies on: uniform in ±1/√fan_in, about half of Keras' Glorot range.
PYTORCH_UNIFORM = {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}
# The smallest side that leaves a pixel for the fourth block: six halvings.
MIN_SIZE = 64


def cls_predictor(num_anchors, num_classes, **kwargs):
    """Convolution that predicts the class of every anchor.

    Args:
        num_anchors: int, anchors at each pixel of the map.
        num_classes: int q, object classes; background is added.
        **kwargs: of `Conv2D`.

    Returns:
        `keras.layers.Conv2D` to `num_anchors·(q + 1)` channels; channel
        i·(q + 1) + j is anchor i, class j.

    Source:
        D2L 1.0.3, section 14.7.1.1.
    """
    return _conv(num_anchors * (num_classes + 1), **kwargs)


def bbox_predictor(num_anchors, **kwargs):
    """Convolution that predicts four offsets for every anchor.

    Args:
        num_anchors: int, anchors at each pixel of the map.
        **kwargs: of `Conv2D`.

    Returns:
        `keras.layers.Conv2D` to `4·num_anchors` channels.

    Source:
        D2L 1.0.3, section 14.7.1.2.
    """
    return _conv(4 * num_anchors, **kwargs)


def _conv(channels, **kwargs):
    # A new initializer for each: one that is shared draws the same numbers every time.
    initializer = keras.initializers.VarianceScaling(**PYTORCH_UNIFORM)
    return keras.layers.Conv2D(
        channels, 3, padding="same", kernel_initializer=initializer, **kwargs
    )


def concat_preds(preds):
    """Join the predictions of several feature maps.

    Args:
        preds: sequence of tensors `(batch, h, w, channels)`.

    Returns:
        `(batch, sum of h·w·channels)`: maps one behind the other, each by row,
        then column, then channel.

    Source:
        D2L 1.0.3, section 14.7.1.3.
    """
    return tf.concat([tf.reshape(p, [*_batch_and_rest(p)]) for p in preds], axis=1)


def _batch_and_rest(tensor):
    """Images, and elements of each: numbers where the shape is known, so that the result's is."""
    batch, *rest = tensor.shape
    if batch is None:
        batch = tf.shape(tensor)[0]
        return batch, -1 if None in rest else math.prod(rest)
    return batch, -1


def down_sample_blk(num_channels, **kwargs):
    """Two of [3 × 3 convolution, batch norm, ReLU], then 2 × 2 max-pooling.

    Args:
        num_channels: int, channels of the result.
        **kwargs: of `Sequential`.

    Returns:
        `keras.Sequential` that halves height and width.

    Source:
        D2L 1.0.3, section 14.7.1.4.
    """
    layers = []
    for _ in range(2):
        layers += [
            # No bias: the batch norm that follows would take it out again.
            _conv(num_channels, use_bias=False),
            BatchNorm(),
            keras.layers.ReLU(),
        ]
    return keras.Sequential([*layers, keras.layers.MaxPooling2D(2)], **kwargs)


def base_net(**kwargs):
    """Three down-sampling blocks with 16, 32 and 64 channels.

    Args:
        **kwargs: of `Sequential`.

    Returns:
        `keras.Sequential` from images to a map an eighth as high and wide.

    Source:
        D2L 1.0.3, section 14.7.1.5.
    """
    return keras.Sequential([down_sample_blk(c) for c in (16, 32, 64)], **kwargs)


@keras.saving.register_keras_serializable("kerascv_d2l")
class SSD(keras.Model):
    """A single-shot detector on a base of any strength.

    Call it on pixels 0-255 `(batch, height, width, 3)`, uint8 or float, of any
    size from 64 on, for `(anchors (1, A, 4), cls_preds (batch, A, classes + 1),
    bbox_preds (batch, 4A))`. Train it with `fit` on pairs of images and labels
    `(batch, m, 5)`; the targets are made inside. `detect` gives boxes.

    Args:
        num_classes: int, object classes.
        base: "tiny" for the book's, or a network of `keras.applications` by
            lower-case name; see `kerascv_d2l.models.backbones`. It is tapped at
            strides 8, 16 and 32, and two more maps follow.
        weights: weights of such a base: None (random), "imagenet" (Keras'
            download) or a path. Ignored when a saved model is loaded.
        image_size: `(height, width)` to which `detect` and the exported model
            bring pictures, or None to take them as they come.
        class_names: sequence of str, or None for "0", "1" …; they travel with
            the saved and the exported model.

    Raises:
        InputError: if the base has no such name or its weights do not fit, or
            the names are not as many as the classes.

    Source:
        Liu et al. 2016, "SSD"; D2L 1.0.3, section 14.7.
    """

    def __init__(
        self, num_classes, base="tiny", weights=None, image_size=None, class_names=None, **kwargs
    ):
        super().__init__(**kwargs)
        if not isinstance(num_classes, int) or num_classes < 1:
            raise InputError(f"num_classes must be a whole number >= 1; got {num_classes!r}.")
        class_names = tuple(class_names or map(str, range(num_classes)))
        if len(class_names) != num_classes:
            raise InputError(f"class_names must be {num_classes} names; got {class_names!r}.")
        if image_size and min(image_size) < MIN_SIZE:
            raise InputError(
                f"image_size must be at least {MIN_SIZE} pixels high and wide, for the network "
                f"halves them six times; got {tuple(image_size)}."
            )
        self.num_classes = num_classes
        self.base_name = base
        self.image_size = tuple(image_size) if image_size else None
        self.class_names = class_names
        with _dtype_policy(self.dtype_policy):
            self.features = _feature_maps(base, weights)
            maps = range(len(SIZES))
            self.cls_predictors = [
                cls_predictor(NUM_ANCHORS, num_classes, name=f"cls_{i}") for i in maps
            ]
            self.bbox_predictors = [bbox_predictor(NUM_ANCHORS, name=f"bbox_{i}") for i in maps]
        self.decoder = DetectionDecoder()
        self.class_error = keras.metrics.Mean(name="class_error")
        self.bbox_mae = keras.metrics.Mean(name="bbox_mae")
        self.build((None, None, None, 3))

    def build(self, input_shape):
        for i, map_shape in enumerate(self.features.output_shape):
            self.cls_predictors[i].build(map_shape)
            self.bbox_predictors[i].build(map_shape)
        self.built = True

    def call(self, images, training=False):
        """Predict for all anchors; see the class."""
        _check_images(images, MIN_SIZE)
        maps = self.features(images, training=training)
        anchors = [multibox_prior(m, s, RATIOS) for m, s in zip(maps, SIZES, strict=True)]
        cls_preds = concat_preds([p(m) for p, m in zip(self.cls_predictors, maps, strict=True)])
        bbox_preds = concat_preds([p(m) for p, m in zip(self.bbox_predictors, maps, strict=True)])
        batch = _batch_and_rest(cls_preds)[0]
        cls_preds = tf.reshape(cls_preds, [batch, -1, self.num_classes + 1])
        # Half precision ends here: offsets and losses need float32.
        return (
            tf.concat(anchors, axis=1),
            tf.cast(cls_preds, tf.float32),
            tf.cast(bbox_preds, tf.float32),
        )

    def compute_output_spec(self, images, training=False):
        batch = images.shape[0]
        return (
            keras.KerasTensor((1, None, 4), "float32"),
            keras.KerasTensor((batch, None, self.num_classes + 1), "float32"),
            keras.KerasTensor((batch, None), "float32"),
        )

    def compile(self, optimizer="sgd", loss=None, jit_compile="auto", **kwargs):
        """`keras.Model.compile`, with `SSDLoss()` where no loss is given.

        Args:
            optimizer: as in Keras.
            loss: `SSDLoss`, or None for the book's.
            jit_compile: bool, or "auto" for XLA on GPUs only.
            **kwargs: as in Keras.

        Raises:
            InputError: if the loss is not an `SSDLoss`.
        """
        loss = SSDLoss() if loss is None else loss
        if not isinstance(loss, SSDLoss):
            raise InputError(f"loss must be a kerascv_d2l.SSDLoss; got {loss!r}.")
        super().compile(
            optimizer=optimizer, loss=loss, jit_compile=resolve_jit_compile(jit_compile), **kwargs
        )

    def compile_from_config(self, config):
        """Compile a loaded model as it was saved (Keras leaves this to own `compile`s)."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Loss of a batch; also keeps the book's two figures, which need the same targets."""
        anchors, cls_preds, bbox_preds = y_pred
        offsets, mask, classes = encode_targets(tf.cast(anchors, tf.float32)[0], as_labels(y))
        # (batch,) each, so that a smaller last batch counts for what it is.
        hits = tf.equal(tf.argmax(cls_preds, axis=-1, output_type=tf.int32), classes)
        self.class_error.update_state(1 - tf.reduce_mean(tf.cast(hits, tf.float32), axis=-1))
        self.bbox_mae.update_state(tf.reduce_mean(tf.abs((bbox_preds - offsets) * mask), axis=-1))
        return self.loss((offsets, mask, classes), (cls_preds, bbox_preds), sample_weight)

    def detect(self, images):
        """Find objects.

        Pictures are brought to `image_size` if the model has one. Thresholds and
        the kind of suppression are those of `model.decoder`, a
        `DetectionDecoder`; assign another to change them.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, uint8 or float.

        Returns:
            Dictionary of tensors: `boxes` float32 `(batch, n, 4)`, normalised
            corners; `scores` float32 `(batch, n)`, falling; `classes` int32
            `(batch, n)`, 0 = first object class; `num_valid` int32 `(batch,)`.
            Rows from `num_valid` on are padding with class -1.

        Raises:
            InputError: if the images have another shape or are too small.
        """
        images = tf.convert_to_tensor(images)
        _check_images(images, MIN_SIZE if self.image_size is None else 1)
        return self._detect(images)

    def detect_batch(self, images):
        """`detect` as a graph; see there."""
        if self.image_size and tuple(images.shape[1:3]) != self.image_size:
            images = resize(images, self.image_size)
        return self.decoder(*self(images, training=False))

    def __setattr__(self, name, value):
        if name != "decoder":
            super().__setattr__(name, value)
            return
        # Keras would let no layer into a built model; this one is no part of the network.
        object.__setattr__(self, name, value)
        self._detect = tf.function(self.detect_batch, reduce_retracing=True, autograph=False)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "base": self.base_name,
            "image_size": self.image_size,
            "class_names": self.class_names,
        }


@keras.saving.register_keras_serializable("kerascv_d2l")
class TinySSD(SSD):
    """The book's detector: `SSD` on three small blocks; 5444 anchors at 256 × 256.

    Args:
        num_classes: int, object classes.
        **kwargs: see `SSD`.

    Source:
        D2L 1.0.3, section 14.7.1.5.
    """

    def __init__(self, num_classes, **kwargs):
        kwargs.pop("base", None)
        super().__init__(num_classes, base="tiny", **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["base"]
        return config


@contextlib.contextmanager
def _dtype_policy(policy):
    """Make layers with a model's policy, so that a loaded model computes as the saved one did."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _feature_maps(base, weights):
    """Model from images to five maps: of the base, and of the blocks behind it."""
    if base == "tiny":
        if weights is not None:
            raise InputError(
                f'weights={str(weights)!r} belong to another base than "tiny", which is always '
                "trained from scratch. Leave weights out, or name the base they are for."
            )
        images = keras.Input((None, None, 3), name="images")
        maps = [base_net(name="base")(images)]
        extra = 3
    else:
        network = backbone(base, weights=weights, strides=BASE_STRIDES)
        images, maps = network.input, list(network.output)
        extra = 1
    for i in range(extra):
        maps.append(down_sample_blk(EXTRA_CHANNELS, name=f"extra_{i}")(maps[-1]))
    maps.append(keras.layers.GlobalMaxPooling2D(keepdims=True, name="extra_global")(maps[-1]))
    return keras.Model(images, maps, name="features")


def _check_images(images, min_size):
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[-1] not in (3, None):
        raise InputError(f"images must be (batch, height, width, 3); got shape {shape}.")
    if any(side is not None and side < min_size for side in shape[1:3]):
        raise InputError(
            f"images must be at least {min_size} pixels high and wide, for the network halves "
            f"them six times; got shape {shape}."
        )
