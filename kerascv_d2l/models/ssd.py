"""Single-shot multibox detection: the book's TinySSD, and the same head on any backbone.

Every block of the network gives a feature map; on each, one small convolution
says for all anchors there what they hold, another how to move them to it.
"""

import math
from functools import partial
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers import BatchNorm, Conv2D, DetectionDecoder
from kerascv_d2l.losses.detection import SSDLoss
from kerascv_d2l.models.backbones import backbone as build_backbone
from kerascv_d2l.models.common import dtype_scope, settle_batch_norm
from kerascv_d2l.models.detector import Detector
from kerascv_d2l.models.folding import FoldingModel
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.ops.anchor_choice import choose_anchors
from kerascv_d2l.ops.anchors import multibox_prior
from kerascv_d2l.ops.checks import as_targets
from kerascv_d2l.ops.matching import encode_targets
from kerascv_d2l.ops.upsampling import enlarge_to_multiple

# Sizes (share of the image height) and ratios of the anchors on each of the five maps:
# D2L 1.0.3, section 14.7.1.5. The second size of each is the geometric mean with the next.
SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = (1.0, 2.0, 0.5)
# Pixels between the anchors of each map; the last has one pixel, and those before it are finer.
STRIDES = (8, 16, 32, 64, 64)
# Channels of the blocks behind the backbone.
EXTRA_CHANNELS = 128
# Strides at which a backbone other than the book's is tapped.
BACKBONE_STRIDES = (8, 16, 32)
# PyTorch's, which the book relies on: uniform in ±1/√fan_in, about half of Keras' Glorot range.
PYTORCH_UNIFORM = {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}
# Candidates for each detection that there is room for: as many as the decoder has by default.
CANDIDATES_A_ROW = 10
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
    return Conv2D(channels, 3, padding="same", kernel_initializer=initializer, **kwargs)


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
    """Build two times [3 × 3 convolution, batch norm, ReLU], then 2 × 2 max-pooling.

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
class SSD(Detector):
    """A single-shot detector on a backbone of any size.

    Call it on pixels 0-255 `(batch, height, width, 3)`, uint8 or float, of any
    size from 64 on, for `(anchors (1, A, 4), cls_preds (batch, A, classes + 1),
    bbox_preds (batch, 4A))`. Train it with `fit` on pairs of images and labels, rows
    `(batch, m, 5)` or dicts; the targets are made inside. `detect` gives boxes.

    Args:
        num_classes: int, object classes; or their names, like `class_names`.
        backbone: name of a network, see `kerascv_d2l.models.backbones`, or "tiny" for the
            book's. It is tapped at strides 8, 16 and 32, and two more maps follow.
        weights: weights of the backbone: None (random), "imagenet" (Keras'
            download) or a path. Ignored when a saved model is loaded.
        image_size: `(height, width)` to which `detect` and the exported model
            resize images, or None to take them as they are.
        class_names: sequence of str, or None for "0", "1" …; saved and exported with the
            model.
        decoder: `DetectionDecoder`, or None for one with its defaults.
        sizes: for each of the five maps a sequence of sizes of its anchors, shares of the
            image's height; default: the book's.
        ratios: sequence of float, width over height of the anchors, as `multibox_prior` has it.
        freeze_norm: whether the backbone's batch norm keeps its statistics and weights. That of
            `weights` without statistics is always frozen, that of "tiny" never.
        **kwargs: as in `keras.Model`.

    Raises:
        InputError: if the backbone has no such name or its weights do not fit, or
            the names are not as many as the classes, or the sizes not those of five maps, or
            the batch norm of "tiny" is to be frozen.

    Source:
        Liu et al. 2016, "SSD"; D2L 1.0.3, section 14.7.
    """

    BACKBONE = "resnet18"
    MIN_SIZE = MIN_SIZE
    LOSSES: ClassVar = {
        "ssd": partial(SSDLoss, negatives_per_positive=3.0, normalizer="positives"),
        "book": SSDLoss,
        "focal": partial(SSDLoss, class_loss="focal", normalizer="positives"),
    }
    RECIPES: ClassVar = {
        # Liu et al. 2016, "SSD", section 2.2, but Adam and a falling rate in place of tuned
        # steps, and L1, which gives tighter boxes than smooth L1 here (mAP 0.57 against 0.55). The
        # paper's weight decay does next to nothing here: decoupled, and times Adam's small rate, it
        # shrinks weights by less than 0.1 % in a whole training.
        "default": Recipe(learning_rate=2e-3, weight_decay=5e-4, loss="ssd"),
        # D2L 1.0.3, section 14.7.2. The rate is for the mean of the losses already.
        "book": Recipe("sgd", 0.2, schedule="constant", weight_decay=5e-4, epochs=20, loss="book"),
    }
    # What measured best of SSD on a fold of the raccoons, see docs/experiments.md.
    ON_FOLDERS: ClassVar = {"learning_rate": 1e-3, "backbone_rate": 1.0}

    def __init__(
        self,
        num_classes=None,
        backbone="resnet18",
        weights=None,
        image_size=None,
        class_names=None,
        decoder=None,
        sizes=SIZES,
        ratios=RATIOS,
        freeze_norm=False,
        **kwargs,
    ):
        names = num_classes if class_names is None else class_names
        super().__init__(names, image_size, decoder or DetectionDecoder(), **kwargs)
        self.num_classes = len(self.class_names)
        if isinstance(num_classes, int) and num_classes != self.num_classes:
            raise InputError(f"class_names must be {num_classes} names; got {self.class_names!r}.")
        self.backbone_name = backbone
        self.sizes, self.ratios = tuple(tuple(s) for s in sizes), tuple(ratios)
        if len(self.sizes) != len(SIZES):
            raise InputError(f"sizes must be those of {len(SIZES)} maps; got {sizes!r}.")
        with dtype_scope(self.dtype_policy):
            self.features, self.freeze_norm = _feature_maps(backbone, weights, freeze_norm)
            counts = [len(s) + len(self.ratios) - 1 for s in self.sizes]  # at each pixel of a map
            self.cls_predictors = [
                cls_predictor(count, self.num_classes, name=f"cls_{i}")
                for i, count in enumerate(counts)
            ]
            self.bbox_predictors = [
                bbox_predictor(count, name=f"bbox_{i}") for i, count in enumerate(counts)
            ]
        self.class_error = keras.metrics.Mean(name="class_error")
        self.bbox_mae = keras.metrics.Mean(name="bbox_mae")
        self.build((None, None, None, 3))

    def make_room(self, most_objects):
        """Let it find so many objects, see `Detector.make_room`, with ten candidates for each."""
        rows = super().make_room(most_objects)
        self.decoder.max_candidates = max(self.decoder.max_candidates, CANDIDATES_A_ROW * rows)
        return rows

    @classmethod
    def anchor_options(cls, boxes, image_size):
        """Choose `sizes`, two a map, and `ratios`; see `Detector`."""
        found = choose_anchors(boxes, image_size, STRIDES)
        if found is None:
            return {}
        shares = np.array(found[0]) / image_size[0]
        between = np.sqrt(shares * np.append(shares[1:], shares[-1] ** 2 / shares[-2]))
        flat, middle, tall = (1 / ratio for ratio in found[1])
        return {
            "sizes": tuple(map(tuple, np.round(np.stack([shares, between], 1), 3).tolist())),
            "ratios": (round(middle, 2), round(flat, 2), round(tall, 2)),
        }

    def build(self, input_shape):
        for i, map_shape in enumerate(self.features.output_shape):
            self.cls_predictors[i].build(map_shape)
            self.bbox_predictors[i].build(map_shape)
        self.built = True

    def call(self, images, training=False):
        """Predict for all anchors; see the class."""
        self.check_images(images)
        if self.backbone_name != "tiny":  # the book's, which cuts off what is less than a pixel
            # Anchors are counted in pixels of the maps, which are to cover just the image.
            images = enlarge_to_multiple(images, BACKBONE_STRIDES[-1])
        maps = self.features(images, training=training)
        anchors = [multibox_prior(m, s, self.ratios) for m, s in zip(maps, self.sizes, strict=True)]
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
        """Configure the model for training, with `SSDLoss()` where no loss is given.

        Args:
            optimizer: as in `Detector.compile`.
            loss: `SSDLoss`, or None for the book's.
            jit_compile: as in `Detector.compile`.
            **kwargs: as in Keras.

        Raises:
            InputError: if the loss is not an `SSDLoss`.
        """
        loss = SSDLoss() if loss is None else loss
        if not isinstance(loss, SSDLoss):
            raise InputError(f"loss must be a kerascv_d2l.SSDLoss; got {loss!r}.")
        super().compile(optimizer, loss, jit_compile, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the loss of a batch, and the book's two metrics from the same targets.

        Anchors that lie on ignored objects count in none of them.
        """
        anchors, cls_preds, bbox_preds = y_pred
        y = as_targets(y, self.num_classes)
        objects = y["boxes"], y["classes"], y["ignore"]
        offsets, mask, classes = encode_targets(tf.cast(anchors, tf.float32)[0], *objects)
        # (batch,) each, so that a smaller last batch counts for what it is.
        counted = classes >= 0  # (batch, anchors)
        predicted = tf.argmax(cls_preds, axis=-1, output_type=tf.int32)  # (batch, anchors)
        wrong = counted & tf.not_equal(predicted, classes)
        wrong, counted = (tf.reduce_sum(tf.cast(c, tf.float32), axis=-1) for c in (wrong, counted))
        self.class_error.update_state(tf.math.divide_no_nan(wrong, counted))
        self.bbox_mae.update_state(tf.reduce_mean(tf.abs((bbox_preds - offsets) * mask), axis=-1))
        return self.loss((offsets, mask, classes), (cls_preds, bbox_preds), sample_weight)

    def get_config(self):
        return super().get_config() | {
            "backbone": self.backbone_name,
            "sizes": self.sizes,
            "ratios": self.ratios,
            "freeze_norm": self.freeze_norm,
        }


@keras.saving.register_keras_serializable("kerascv_d2l")
class TinySSD(SSD):
    """The book's detector: `SSD` on three small blocks; 5444 anchors at 256 × 256.

    Args:
        num_classes: int, object classes; or their names, like `class_names`.
        **kwargs: see `SSD`; without `backbone` and `freeze_norm`.

    Source:
        D2L 1.0.3, section 14.7.1.5.
    """

    BACKBONE = None
    ON_FOLDERS: ClassVar = {}  # from random weights it learns at its own rate

    def __init__(self, num_classes=None, **kwargs):
        super().__init__(num_classes, backbone="tiny", **kwargs)

    @classmethod
    def anchor_options(cls, boxes, image_size):
        """Choose none: the book's are part of it."""
        return {}

    def get_config(self):
        config = super().get_config()
        del config["backbone"], config["freeze_norm"]
        return config


def _feature_maps(name, weights, freeze_norm):
    """Make a model from images to five maps: of the backbone, and of the blocks behind it.

    Returns:
        `(model, frozen)`: bool, whether the backbone's batch norms are frozen.
    """
    frozen = False
    if name == "tiny":
        if freeze_norm:
            raise InputError(
                f'freeze_norm={freeze_norm!r}: "tiny" is always trained from scratch, its batch '
                "norm too. Leave it out, or name another backbone."
            )
        if weights is not None:
            raise InputError(
                f'weights={str(weights)!r} belong to another backbone than "tiny", which is always '
                "trained from scratch. Leave weights out, or name the backbone they are for."
            )
        images = keras.Input((None, None, 3), name="images")
        maps = [base_net(name="base")(images)]
        extra = 3
    else:
        network = build_backbone(name, weights=weights, strides=BACKBONE_STRIDES)
        frozen = settle_batch_norm(network, weights, bool(freeze_norm))
        images, maps = network.input, list(network.output)
        extra = 1
    for i in range(extra):
        maps.append(down_sample_blk(EXTRA_CHANNELS, name=f"extra_{i}")(maps[-1]))
    maps.append(keras.layers.GlobalMaxPooling2D(keepdims=True, name="extra_global")(maps[-1]))
    return FoldingModel(images, maps, name="features"), frozen
