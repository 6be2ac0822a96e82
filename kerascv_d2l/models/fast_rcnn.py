"""Fast R-CNN: a head that names and moves regions that are given."""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.layers.region_decoder import RegionDecoder
from kerascv_d2l.losses.detection import mean_over_replicas, smooth_l1
from kerascv_d2l.models.common import (
    any_images,
    check_settings,
    dtype_scope,
    settings_of,
    settle_batch_norm,
)
from kerascv_d2l.models.detector import Detector
from kerascv_d2l.models.fpn import FPN
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.models.rows import in_pixels, rows_of, sum_where
from kerascv_d2l.models.rpn import SMOOTH_L1_SIGMA
from kerascv_d2l.ops.box_coding import HEAD_WEIGHTS, encode_boxes
from kerascv_d2l.ops.boxes import sides_of
from kerascv_d2l.ops.checks import as_boxes, as_targets, check_whole
from kerascv_d2l.ops.region_matching import IGNORED, match_by_iou, sample_balanced
from kerascv_d2l.ops.roi import multilevel_roi_align
from kerascv_d2l.ops.roi_sampling import map_size
from kerascv_d2l.ops.upsampling import pad_to_multiple

STRIDES = (4, 8, 16, 32)  # of the maps that boxes are read from
POOLED = 7  # bins along a side of a box
_EVALUATION_SEED = (0, 0)


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

    def __post_init__(self):
        check_settings(self, ("match", "positive_fraction"))


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
class FastRCNN(Detector):
    """A detector on a feature pyramid that looks at given proposals.

    Call it on a dict of `images`, pixels 0-255 `(batch, height, width, 3)`, and `proposals`
    `(batch, p, 4)`, normalised corners, without area in padding rows. Train it with `fit` on
    pairs of such dicts and labels. `detect(images, proposals)` gives boxes. What is sampled in
    training depends on `seed`, the number of steps, which is saved with the weights, and the number
    of label rows alone; an
    evaluation samples a batch the same way each time.

    Args:
        class_names: sequence of str, or the number of classes.
        backbone: name of a network with maps at strides 4, 8, 16 and 32, see
            `kerascv_d2l.models.backbones`.
        weights: of the backbone: None (random), "imagenet" or a path.
        image_size: as for `Detector`.
        channels: int, of the pyramid's maps.
        head_width: int, of the head's dense layers.
        canonical_size: pixels; a box of this side is read from the map of stride 16.
        head: `HeadSettings`, or a dict of them.
        freeze_norm: whether the backbone's batch norm keeps its statistics and
            weights; None for where the backbone has `weights`.
        seed: int, of the sampling.
        decoder: `RegionDecoder`, or None for one with its defaults.
        **kwargs: as in `keras.Model`.

    Raises:
        InputError: if an argument is out of range, or the weights do not fit.

    Source:
        Girshick 2015, "Fast R-CNN"; Lin et al. 2017, "Feature Pyramid Networks".
    """

    BACKBONE = "resnet18"
    MIN_SIZE = 64
    XLA = False  # has no suppression for batches, and reads regions by a slower way
    PARTS = ("classes", "boxes")  # losses, each a metric
    RECIPES: ClassVar = {"default": Recipe(batch_size=8)}

    def __init__(
        self,
        class_names,
        backbone="resnet18",
        weights=None,
        image_size=None,
        channels=256,
        head_width=1024,
        canonical_size=224,
        head=None,
        freeze_norm=None,
        seed=0,
        decoder=None,
        **kwargs,
    ):
        super().__init__(class_names, image_size, decoder or RegionDecoder(), **kwargs)
        self.autocast = False  # half precision would round proposals; layers cast what they take
        self.num_classes = len(self.class_names)
        self.backbone_name, self.channels, self.seed = backbone, channels, seed
        self.canonical_size, self.head_width = canonical_size, head_width
        check_whole(1, channels=channels, head_width=head_width, canonical_size=canonical_size)
        self.head_settings = settings_of(HeadSettings, head, "head")
        with dtype_scope(self.dtype_policy):
            self.features = FPN(backbone, weights, STRIDES, channels)
            self._make_heads()
        self.freeze_norm = settle_batch_norm(self.features, weights, freeze_norm)
        self.seeds = keras.random.SeedGenerator(seed, name="sampling")
        self._builtin = False  # whether to compute with what TensorFlow Lite has
        self.parts = {name: keras.metrics.Mean(name=f"loss_{name}") for name in self.PARTS}
        self.build((None, None, None, 3))

    def _make_heads(self):
        """Make the layers on top of the pyramid; a subclass may have more of them."""
        self.box_head = BoxHead(self.num_classes, self.head_width, name="box_head")

    def build(self, input_shape):
        self.box_head.build((None, POOLED, POOLED, self.channels))
        self.built = True

    def call(self, inputs, training=False):
        """Make maps, and bring the proposals to pixels.

        Args:
            inputs: dict, see the class.
            training: bool.

        Returns:
            dict of `maps`, five `(batch, h, w, channels)`; `proposals` float32 `(batch, p, 4)`,
            pixels, and `valid` bool `(batch, p)`; and `size` int32 `(2,)`, height and width of
            the images.
        """
        images, proposals = inputs["images"], as_boxes(inputs["proposals"], "proposals", 3)
        self.check_images(images)
        size = tf.stack(map_size(images)[1:3])
        padded = pad_to_multiple(images, STRIDES[-1])  # so that strides are exact
        return {
            "maps": self.features(padded, training=training),
            "proposals": proposals * sides_of(size),
            "valid": tf.reduce_all(proposals[..., 2:] > proposals[..., :2], axis=-1),
            "size": size,
        }

    def detect(self, images, proposals):
        """Find objects among the proposals; see `Detector.detect` and the class."""
        self.check_images(tf.convert_to_tensor(images), None if self.image_size is None else 1)
        inputs = {"images": tf.convert_to_tensor(images), "proposals": proposals}
        return self._detect(inputs, self._settings_key())

    def _resized(self, inputs):
        return inputs | {"images": super()._resized(inputs["images"])}

    def endpoints(self):
        """Give what an export offers: `detect` of images and proposals, see `Detector`."""

        def detect(images, proposals):
            found = self.detect_batch({"images": images, "proposals": proposals})
            return found | {"boxes_px": found["boxes"] * sides_of(tf.shape(images)[1:3])}

        proposals = tf.TensorSpec((None, None, 4), tf.float32, name="proposals")
        return {"detect": (detect, (any_images(), proposals))}

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
        # Padding rows at the end that all images have are not worth the arithmetic.
        most = tf.reduce_max(tf.where(valid, tf.range(1, tf.shape(valid)[1] + 1), 0))
        proposals, valid = outputs["proposals"][:, :most], valid[:, :most]
        logits, offsets = self.predict_regions(outputs["maps"], proposals)
        return self.decoder(
            proposals, valid, logits, offsets, outputs["size"], builtin=self._builtin
        )

    def score_of(self, outputs, box, class_index):
        """Give what the head says of a box that is not moved; see `Detector.score_of`."""
        box = tf.reshape(box * sides_of(outputs["size"]), [1, 1, 4])
        boxes = tf.tile(box, [tf.shape(outputs["maps"][0])[0], 1, 1])
        logits, _ = self.predict_regions(outputs["maps"], boxes)  # (batch, 1, classes + 1)
        return tf.gather(tf.nn.softmax(logits)[:, 0], class_index + 1, axis=-1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the sum of the losses of a batch, which the metrics keep apart."""
        y = in_pixels(as_targets(y, self.num_classes), y_pred["size"])
        losses = self._losses_by_name(y_pred, y, training)
        return self.sum_of_parts(losses, tf.shape(y["classes"])[0])

    def _losses_by_name(self, outputs, y, training):
        """Losses by name; boxes of `y` in pixels."""
        seed = self._next_seed(training)
        boxes, match = self._sample(outputs["proposals"], outputs["valid"], y, seed)
        return self._head_losses(outputs["maps"], y, boxes, match)

    def _next_seed(self, training):
        """Seed of a sampling, int32 `(2,)`. An evaluation leaves those of the training alone."""
        return tf.cast(self.seeds.next() if training else _EVALUATION_SEED, tf.int32)

    def _head_losses(self, maps, y, boxes, match):
        """Losses by name, of the boxes and objects that `_sample` gives."""
        logits, offsets = self.predict_regions(maps, boxes)
        drawn, positive = match > IGNORED, match >= 0  # (batch, samples)
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
        background, `IGNORED` where nothing was drawn.
        """
        settings = self.head_settings
        counts = (y["classes"] >= 0) & ~y["ignore"]
        proposals = tf.concat([proposals, y["boxes"]], axis=1)
        match = match_by_iou(
            y["boxes"], y["classes"], proposals, settings.match, settings.match,
            ignore=y["ignore"], valid=tf.concat([valid, counts], axis=1),
        )  # fmt: skip
        index, drawn = sample_balanced(match, settings.samples, settings.positive_fraction, seed)
        match = tf.where(drawn, tf.gather(match, index, batch_dims=1), IGNORED)
        return tf.gather(proposals, index, batch_dims=1), match

    def get_config(self):
        return super().get_config() | {
            "backbone": self.backbone_name,
            "channels": self.channels,
            "head_width": self.head_width,
            "canonical_size": self.canonical_size,
            "head": dataclasses.asdict(self.head_settings),
            "freeze_norm": self.freeze_norm,
            "seed": self.seed,
        }
