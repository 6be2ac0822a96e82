"""Faster R-CNN: proposals of a network, and a head that names and moves each of them."""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.region_decoder import RegionDecoder
from kerascv_d2l.losses.detection import mean_over_replicas, smooth_l1
from kerascv_d2l.models.common import dtype_scope
from kerascv_d2l.models.detector import Detector
from kerascv_d2l.models.fpn import FPN
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.models.rpn import (
    SMOOTH_L1_SIGMA,
    RPNHead,
    RPNSettings,
    propose,
    rows_of,
    rpn_losses,
    sum_where,
)
from kerascv_d2l.ops.anchor_choice import choose_anchors
from kerascv_d2l.ops.box_coding import HEAD_WEIGHTS, encode_boxes
from kerascv_d2l.ops.checks import as_targets
from kerascv_d2l.ops.pyramid_anchors import RPN_RATIOS, RPN_SIZES, pyramid_anchors
from kerascv_d2l.ops.region_matching import match_by_iou, sample_balanced
from kerascv_d2l.ops.roi import multilevel_roi_align
from kerascv_d2l.ops.roi_sampling import map_size

STRIDES = (4, 8, 16, 32)  # of the maps that boxes are read from
POOLED = 7  # bins along a side of a box
# Options with which it trains on two cores: narrow heads and fewer boxes.
NARROW = {
    "channels": 64,
    "head_width": 128,
    "rpn": {
        "train_before_nms": 500,
        "test_before_nms": 500,
        "train_proposals": 500,
        "test_proposals": 300,
        "samples": 128,
    },
    "head": {"samples": 64},
}
_PADDING = -2  # in place of a row of the objects, where no proposal was drawn


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """Numbers for training the head; the defaults are torchvision's.

    Attributes:
        match: float, IoU from which a proposal stands for an object, else for background.
        samples: int, proposals of an image that are learned from.
        positive_fraction: float, share of them that stand for objects, at most.
    """

    match: float = 0.5
    samples: int = 512
    positive_fraction: float = 0.25


@keras.saving.register_keras_serializable("kerascv_d2l")
class BoxHead(keras.layers.Layer):
    """Two dense layers, and scores and offsets for every class.

    Its layers `fc6`, `fc7`, `cls_score` and `bbox_pred` are torchvision's. Called
    with pooled features `(n, bins, bins, c)` it gives float32 logits `(n, classes
    + 1)` and offsets `(n, classes + 1, 4)`; class 0 is background.

    Args:
        num_classes: int, object classes.
        width: int, outputs of the dense layers.
        **kwargs: as in `keras.layers.Layer`.
    """

    def __init__(self, num_classes, width=1024, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.width = num_classes, width

        def dense(units, name, dtype=None):
            # torch.nn.Linear's default: uniform in ±1 / sqrt(inputs)
            initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
            dtype = dtype or self.dtype_policy
            return keras.layers.Dense(units, kernel_initializer=initializer, name=name, dtype=dtype)

        self.fc6, self.fc7 = dense(width, "fc6"), dense(width, "fc7")
        # float32 also under mixed precision: losses need the range.
        self.cls_score = dense(num_classes + 1, "cls_score", "float32")
        self.bbox_pred = dense(4 * (num_classes + 1), "bbox_pred", "float32")

    def build(self, input_shape):
        _, rows, columns, channels = input_shape
        self.fc6.build((None, rows * columns * channels))
        for layer in (self.fc7, self.cls_score, self.bbox_pred):
            layer.build((None, self.width))
        self.built = True

    def call(self, pooled):
        hidden = tf.reshape(pooled, [tf.shape(pooled)[0], self.fc6.kernel.shape[0]])
        hidden = tf.nn.relu(self.fc7(tf.nn.relu(self.fc6(hidden))))
        offsets = tf.reshape(self.bbox_pred(hidden), [-1, self.num_classes + 1, 4])
        return self.cls_score(hidden), offsets

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes, "width": self.width}


@keras.saving.register_keras_serializable("kerascv_d2l")
class FasterRCNN(Detector):
    """A two-stage detector with a feature pyramid, as torchvision has it.

    Call it on pixels 0-255 `(batch, height, width, 3)` for a dict of what its
    parts say; see `call`. Train it with `fit` on pairs of images and labels.
    `detect` gives boxes. What is sampled in training depends on `seed` and the
    number of steps alone, which is saved with the weights.

    Args:
        class_names: sequence of str, or the number of classes.
        backbone: name of a network with maps at strides 4, 8, 16 and 32, see
            `kerascv_d2l.models.backbones`.
        weights: of the backbone: None (random), "imagenet" or a path.
        image_size: as for `Detector`.
        anchor_sizes: five sequences of float, for each level the sides of its
            anchors in pixels of the network's input.
        anchor_ratios: sequence of float, height over width.
        channels: int, of the pyramid's maps.
        head_width: int, of the head's dense layers.
        canonical_size: pixels; a box of this side is read from the map of stride 16.
        rpn: `RPNSettings`, or a dict of them.
        head: `HeadSettings`, or a dict of them.
        freeze_norm: whether the backbone's batch norm keeps its statistics and
            weights; None for where the backbone has `weights`.
        seed: int, of the sampling.
        decoder: `RegionDecoder`, or None for one with its defaults.
        **kwargs: as in `keras.Model`.

    Raises:
        InputError: if an argument is out of range, or the weights do not fit.

    Source:
        Ren et al. 2015, "Faster R-CNN"; Lin et al. 2017, "Feature Pyramid
        Networks"; torchvision's `fasterrcnn_resnet50_fpn` with the backbone
        "resnet50_v1.5".
    """

    BACKBONE = "resnet18"
    MIN_SIZE = 64
    PARTS = ("objectness", "rpn_boxes", "classes", "boxes")  # losses, each a metric
    RECIPES: ClassVar = {
        "default": Recipe(epochs=6, batch_size=8, options=NARROW),
        # torchvision's rate for 16 images; decay and momentum as there.
        "torchvision": Recipe(
            "sgd", 0.02, momentum=0.9, weight_decay=1e-4, epochs=26, batch_size=16
        ),
    }

    def __init__(
        self,
        class_names,
        backbone="resnet18",
        weights=None,
        image_size=None,
        anchor_sizes=RPN_SIZES,
        anchor_ratios=RPN_RATIOS,
        channels=256,
        head_width=1024,
        canonical_size=224,
        rpn=None,
        head=None,
        freeze_norm=None,
        seed=0,
        decoder=None,
        **kwargs,
    ):
        super().__init__(class_names, image_size, decoder or RegionDecoder(), **kwargs)
        self.num_classes = len(self.class_names)
        self.backbone_name, self.channels, self.seed = backbone, channels, seed
        self.anchor_sizes = tuple(tuple(sizes) for sizes in anchor_sizes)
        self.anchor_ratios = tuple(anchor_ratios)
        self.canonical_size, self.head_width = canonical_size, head_width
        self.rpn_settings = RPNSettings(**_as_options(rpn))
        self.head_settings = HeadSettings(**_as_options(head))
        self.freeze_norm = weights is not None if freeze_norm is None else freeze_norm
        num_anchors = len(self.anchor_ratios) * len(self.anchor_sizes[0])
        with dtype_scope(self.dtype_policy):
            self.features = FPN(backbone, weights, STRIDES, channels)
            self.rpn = RPNHead(num_anchors, name="rpn")
            self._make_heads()
        if self.freeze_norm:
            for layer in self.features.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
        self.seeds = keras.random.SeedGenerator(seed, name="sampling")
        self._builtin = False  # whether to compute with what TensorFlow Lite has
        self.parts = {name: keras.metrics.Mean(name=f"loss_{name}") for name in self.PARTS}
        self.build((None, None, None, 3))

    @classmethod
    def anchor_options(cls, boxes, image_size):
        """Choose `anchor_sizes` and `anchor_ratios`; see `Detector.anchor_options`."""
        found = choose_anchors(boxes, image_size, (*STRIDES, 2 * STRIDES[-1]))
        if found is None:
            return {}
        return {"anchor_sizes": tuple((size,) for size in found[0]), "anchor_ratios": found[1]}

    def _make_heads(self):
        """Make the layers that look at regions; a subclass may have more of them."""
        self.box_head = BoxHead(self.num_classes, self.head_width, name="box_head")

    def compile(self, optimizer="sgd", loss=None, jit_compile=False, **kwargs):
        """Configure the model for training, as `Detector.compile`, but never by XLA.

        XLA has no suppression for batches, and reads regions by a slower way.

        Raises:
            InputError: if `jit_compile` is True or there is a loss: it has its own.
        """
        if jit_compile is True or loss is not None:
            raise InputError(
                f"loss={loss!r}, jit_compile={jit_compile!r}: this detector has losses of its own "
                "and cannot be compiled by XLA. Leave both out."
            )
        super().compile(optimizer, None, False, **kwargs)

    def build(self, input_shape):
        self.rpn.build([tensor.shape for tensor in self.features.outputs])
        self.box_head.build((None, POOLED, POOLED, self.channels))
        self.built = True

    def call(self, images, training=False):
        """Make maps and proposals.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, uint8 or float.
            training: bool.

        Returns:
            dict of `maps`, five `(batch, h, w, channels)`; `objectness` float32 `(batch, n)`
            and `offsets` float32 `(batch, n, 4)` of `anchors` float32 `(n, 4)`, pixels;
            `proposals` float32 `(batch, p, 4)`, pixels, and `valid` bool `(batch, p)`; and
            `size` int32 `(2,)`, height and width of the images.
        """
        self.check_images(images)
        maps = self.features(images, training=training)
        size = map_size(images)[1:3]
        logits, offsets = self.rpn(maps)
        anchors = pyramid_anchors(
            size,
            [map_size(m)[1:3] for m in maps],
            self.anchor_sizes,
            self.anchor_ratios,
        )
        proposals, valid = propose(
            logits, offsets, anchors, size, self.rpn_settings, bool(training), self._builtin
        )
        return {
            "maps": maps,
            "objectness": logits,
            "offsets": offsets,
            "anchors": tf.concat(anchors, axis=0),
            "proposals": proposals,
            "valid": valid,
            "size": tf.stack(size),
        }

    def predict_regions(self, maps, boxes):
        """Class scores and offsets of regions.

        Args:
            maps: list of maps, as `call` gives them.
            boxes: float32 `(batch, n, 4)` corners, pixels.

        Returns:
            Tuple of float32 `(batch, n, classes + 1)` logits and `(batch, n, classes + 1, 4)`
            offsets.
        """
        batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
        images = tf.repeat(tf.range(batch), count)
        pooled = self._pool(maps, tf.reshape(boxes, [-1, 4]), images, POOLED)
        logits, offsets = self.box_head(pooled)
        shape = [batch, count, self.num_classes + 1]
        return tf.reshape(logits, shape), tf.reshape(offsets, [*shape, 4])

    def _pool(self, maps, boxes, image_indices, bins):
        """RoI align of boxes `(n, 4)`, each on the level that suits it: `(n, bins, bins, c)`."""
        return multilevel_roi_align(
            maps[: len(STRIDES)],
            boxes,
            image_indices,
            bins,
            STRIDES,
            canonical_size=self.canonical_size,
            method="gather" if self._builtin else "auto",
        )

    def decode(self, outputs):
        """Name and move the proposals; see `Detector.decode`."""
        valid = outputs["valid"]
        # Padding rows that all images have are not worth the arithmetic.
        most = tf.reduce_max(tf.reduce_sum(tf.cast(valid, tf.int32), axis=1))
        proposals, valid = outputs["proposals"][:, :most], valid[:, :most]
        logits, offsets = self.predict_regions(outputs["maps"], proposals)
        return self.decoder(
            proposals, valid, logits, offsets, outputs["size"], builtin=self._builtin
        )

    def lite_endpoint(self):
        """Give `detect` of one image, with operators that TensorFlow Lite has."""

        def detect(images):
            self._builtin = True
            try:
                return self._detect_in_pixels(images)
            finally:
                self._builtin = False

        return detect

    def score_of(self, outputs, box, class_index):
        """Give what the head says of a box that is not moved; see `Detector.score_of`."""
        height, width = tf.unstack(tf.cast(outputs["size"], tf.float32))
        box = tf.reshape(box * tf.stack([width, height, width, height]), [1, 1, 4])
        boxes = tf.tile(box, [tf.shape(outputs["maps"][0])[0], 1, 1])
        logits, _ = self.predict_regions(outputs["maps"], boxes)  # (batch, 1, classes + 1)
        return tf.gather(tf.nn.softmax(logits)[:, 0], class_index + 1, axis=-1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the sum of the losses of a batch, which the metrics keep apart."""
        y = as_targets(y, self.num_classes)
        height, width = tf.unstack(tf.cast(y_pred["size"], tf.float32))
        y = y | {"boxes": y["boxes"] * tf.stack([width, height, width, height])}
        seeds = [tf.cast(self.seeds.next(), tf.int32) for _ in range(2)]
        losses = rpn_losses(
            y_pred["objectness"], y_pred["offsets"], y_pred["anchors"], y,
            self.rpn_settings, seeds[0],
        )  # fmt: skip
        boxes, match = self._sample(y_pred["proposals"], y_pred["valid"], y, seeds[1])
        losses |= self._head_losses(y_pred["maps"], y, boxes, match)
        # Each is this device's part of the whole batch's mean.
        devices = tf.distribute.get_strategy().num_replicas_in_sync
        for name, loss in losses.items():
            self.parts[name].update_state(loss * devices)
        return tf.add_n(list(losses.values()))

    def _head_losses(self, maps, y, boxes, match):
        """Losses by name, of the boxes and objects that `_sample` gives."""
        logits, offsets = self.predict_regions(maps, boxes)
        drawn, positive = match > _PADDING, match >= 0  # (batch, samples)
        classes = tf.where(positive, rows_of(y["classes"], match) + 1, 0)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
        targets = encode_boxes(rows_of(y["boxes"], match), boxes, HEAD_WEIGHTS)
        own = tf.gather(offsets, classes, batch_dims=2)  # (batch, samples, 4)
        distance = smooth_l1(own - targets, SMOOTH_L1_SIGMA)
        count = tf.reduce_sum(tf.cast(drawn, tf.float32))
        return {
            "classes": mean_over_replicas(sum_where(drawn, entropy), count),
            "boxes": mean_over_replicas(sum_where(positive[..., tf.newaxis], distance), count),
        }

    def _sample(self, proposals, valid, y, seed):
        """Proposals to learn from, `(batch, samples, 4)`, and the object of each.

        The objects themselves are among the proposals. Object: row of `y`, -1 for
        background, `_PADDING` where nothing was drawn.
        """
        settings = self.head_settings
        counts = (y["classes"] >= 0) & ~y["ignore"]
        proposals = tf.concat([proposals, y["boxes"]], axis=1)
        match = match_by_iou(
            y["boxes"], y["classes"], proposals, settings.match, settings.match,
            ignore=y["ignore"], valid=tf.concat([valid, counts], axis=1),
        )  # fmt: skip
        index, drawn = sample_balanced(match, settings.samples, settings.positive_fraction, seed)
        match = tf.where(drawn, tf.gather(match, index, batch_dims=1), _PADDING)
        return tf.gather(proposals, index, batch_dims=1), match

    def torchvision_layers(self):
        """List the layers that torchvision's model has too."""
        rpn, head = self.rpn, self.box_head
        heads = [rpn.conv, rpn.cls_logits, rpn.bbox_pred, head.fc6, head.fc7]
        return [*self.features.layers, *heads, head.cls_score, head.bbox_pred]

    def get_config(self):
        return super().get_config() | {
            "backbone": self.backbone_name,
            "anchor_sizes": self.anchor_sizes,
            "anchor_ratios": self.anchor_ratios,
            "channels": self.channels,
            "head_width": self.head_width,
            "canonical_size": self.canonical_size,
            "rpn": dataclasses.asdict(self.rpn_settings),
            "head": dataclasses.asdict(self.head_settings),
            "freeze_norm": self.freeze_norm,
            "seed": self.seed,
        }


def _as_options(settings):
    return dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else settings or {}
