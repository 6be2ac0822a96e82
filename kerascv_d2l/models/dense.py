"""What one-stage detectors on a feature pyramid share: towers, places in pixels, their losses."""

import math

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.layers.dense_decoder import DenseDecoder
from kerascv_d2l.layers.group_norm import GroupNormalization
from kerascv_d2l.layers.places import PRIOR_LOGIT
from kerascv_d2l.losses.detection import mean_over_replicas
from kerascv_d2l.losses.regions import ciou_loss, quality_focal_loss
from kerascv_d2l.models.common import dtype_scope, freeze_up_to, settle_batch_norm
from kerascv_d2l.models.detector import Detector
from kerascv_d2l.models.fpn import FPN
from kerascv_d2l.models.rcnn_weights import find_weights, load_torchvision, predicts_same
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.models.rows import one_hot_of, rows_of, sum_where
from kerascv_d2l.ops.checks import check_whole
from kerascv_d2l.ops.pyramid_anchors import pyramid_anchors
from kerascv_d2l.ops.region_matching import BACKGROUND, IGNORED
from kerascv_d2l.ops.roi_sampling import map_size
from kerascv_d2l.ops.task_aligned import match_task_aligned
from kerascv_d2l.ops.upsampling import pad_to_multiple

STRIDES = (8, 16, 32)  # of the backbone's maps
LEVELS = (3, 5)  # of the pyramid: these, or two coarser ones besides, which are made of the last
STEM_STRIDE = 4  # of the layers that keep pretrained weights, as torchvision's do
TORCHVISION_WARMUP = 0.005  # 1000 of 26 epochs of 117 266 images, 16 at a time
BOX_WEIGHT = 2.0  # of the boxes' part of task-aligned losses, as in GFL


@keras.saving.register_keras_serializable("kerascv_d2l")
class Tower(keras.layers.Layer):
    """3 × 3 convolutions, the same for all levels, and one that predicts.

    Called with a list of maps `(batch, h, w, c)` it gives the tower's maps, of the same shapes.

    Args:
        depth: int, convolutions before the last.
        channels: int, of each.
        norm: whether a group norm follows each, of 32 groups or, where these do not divide the
            channels, the most that divide both.
        **kwargs: as in `keras.layers.Layer`.
    """

    def __init__(self, depth, channels, norm, **kwargs):
        super().__init__(**kwargs)
        self.depth, self.channels, self.norm = depth, channels, norm
        policy = self.dtype_policy
        self.convs = [predictor(channels, f"{self.name}_conv_{i}", policy) for i in range(depth)]
        self.norms = []
        if norm:
            self.norms = [
                GroupNormalization(
                    math.gcd(32, channels), epsilon=1e-5, name=f"{self.name}_norm_{i}", dtype=policy
                )
                for i in range(depth)
            ]

    def build(self, input_shape):
        for layer in (*self.convs, *self.norms):
            layer.build((None, None, None, self.channels))
        self.built = True

    def call(self, maps):
        return [self._one(x) for x in maps]

    def _one(self, x):
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = tf.nn.relu(self.norms[i](x) if self.norm else x)
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "depth": self.depth,
            "channels": self.channels,
            "norm": self.norm,
        }


def predictor(channels, name, dtype=None, bias=0.0):
    """Make a 3 × 3 convolution with small random weights, as the paper has them.

    Args:
        channels: int, of the result.
        name: str.
        dtype: dtype policy.
        bias: float, at the start.

    Returns:
        `keras.layers.Conv2D`.

    Source:
        Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1.
    """
    return Conv2D(
        channels,
        3,
        padding="same",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
        dtype=dtype,
    )


def class_predictor(channels, name, dtype=None):
    """Make a `predictor` of logits that starts at the probability `places.PRIOR`."""
    return predictor(channels, name, dtype, bias=PRIOR_LOGIT)


def torchvision_recipe(learning_rate, **options):
    """Train about as torchvision trains its detectors on COCO.

    Taken from there: SGD, its rate and momentum, 16 images a step, 26 epochs, a rate that first
    rises, for 1000 of COCO's updates, and horizontal flips; with the options also the network's
    width. Not taken: the rate falls by a cosine, and there by steps after 16 and 22 epochs;
    weight decay has the same number, but is Keras' decoupled one,
    which at this momentum shrinks weights a tenth as fast as PyTorch's. The backbone, its weights
    and the size of images, there a pretrained ResNet-50 and 800 pixels, are for who trains to
    choose, and anchors are chosen by the labels.

    Args:
        learning_rate: float, for 16 images.
        **options: of the class, where its defaults are others than torchvision's.

    Returns:
        `Recipe`.

    Source:
        torchvision, references/detection: README.md, train.py and engine.py.
    """
    return Recipe(
        "sgd",
        learning_rate,
        momentum=0.9,
        warmup=TORCHVISION_WARMUP,
        weight_decay=1e-4,
        epochs=26,
        batch_size=16,
        augment="flip",
        options=options,
    )


class DenseDetector(Detector):
    """A one-stage detector: every place of several maps says what is there, and where.

    A subclass defines `anchor_sizes` and `anchor_ratios`; `make_predictors`; `call` to a dict
    with a list for each kind of prediction, one tensor a level, and `size`; `scores_of(outputs)`
    and `boxes_of(outputs)`, lists likewise; and the loss.

    Args:
        class_names: sequence of str, or the number of classes.
        backbone: name of a network with maps at strides 8, 16 and 32, see
            `kerascv_d2l.models.backbones`.
        weights: None (random); of the backbone "imagenet" or a path; or of torchvision's whole
            detector "coco" or a safetensors file, which need torchvision's arguments.
        image_size: as for `Detector`.
        channels: int, of the pyramid's maps and of the towers.
        depth: int, convolutions of a tower.
        norm: whether a group norm follows each of them.
        levels: int, maps of the pyramid: 5, or 3 for images of some 300 pixels, in which there
            is little that the coarsest two could show.
        freeze_norm: whether the backbone's batch norm keeps its statistics and
            weights; None: yes, if it has `weights`. Weights without statistics are always frozen.
        frozen_stride: int: the backbone's layers up to this stride keep their weights; None for
            4 where the backbone has `weights`, else 0.
        decoder: `DenseDecoder`, or None for one with its defaults.
        **kwargs: as in `keras.Model`.

    Raises:
        InputError: if an argument is out of range, or the weights do not fit.
    """

    BACKBONE = "resnet18"
    TORCHVISION = None  # its name of the detector
    MIN_SIZE = 64

    def __init__(
        self,
        class_names,
        backbone="resnet18",
        weights=None,
        image_size=None,
        channels=128,
        depth=2,
        norm=True,
        levels=5,
        freeze_norm=None,
        frozen_stride=None,
        decoder=None,
        **kwargs,
    ):
        super().__init__(class_names, image_size, decoder or DenseDecoder(), **kwargs)
        self.num_classes = len(self.class_names)
        if levels not in LEVELS:
            raise InputError(f"levels must be {' or '.join(map(str, LEVELS))}; got {levels!r}.")
        self.backbone_name, self.channels, self.depth, self.norm = backbone, channels, depth, norm
        check_whole(1, channels=channels)
        check_whole(0, depth=depth)
        self.levels = levels
        path = find_weights(weights, self.TORCHVISION)
        if path is not None:
            freeze_norm = True if freeze_norm is None else freeze_norm
        pretrained = STEM_STRIDE if weights is not None else 0
        self.frozen_stride = pretrained if frozen_stride is None else frozen_stride
        weights = None if path else weights
        with dtype_scope(self.dtype_policy):
            extra = "p6p7" if levels == len(STRIDES) + 2 else None
            self.features = FPN(backbone, weights, STRIDES, channels, extra)
            self.class_tower = Tower(depth, channels, norm, name="class_tower")
            self.box_tower = Tower(depth, channels, norm, name="box_tower")
            self.make_predictors()
        self.freeze_norm = settle_batch_norm(self.features, weights, freeze_norm)
        freeze_up_to(self.features, self.frozen_stride)
        self.build((None, None, None, 3))
        if path is not None:
            logits = self.predictors["logits"].filters
            load_torchvision(self, path, not predicts_same(path, self.class_names, logits))

    @classmethod
    def takes_whole(cls, weights):
        """Whether `weights` are those of a whole detector, its anchors' included."""
        return find_weights(weights, cls.TORCHVISION) is not None

    def make_predictors(self):
        """Make what stands on the towers, as `self.predictors`: dict of name to convolution."""
        raise NotImplementedError

    def build(self, input_shape):
        shapes = [tensor.shape for tensor in self.features.outputs]
        for layer in (self.class_tower, self.box_tower):
            layer.build(shapes)
        for layer in self.predictors.values():
            layer.build(shapes[0])
        self.built = True

    def towers(self, images, training):
        """Maps of the class tower and of the box tower, and the anchors of each level.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, uint8 or float.
            training: bool.

        Returns:
            Tuple of two lists of `(batch, h, w, channels)`; a list of float32 `(places, 4)`
            corners in pixels; and int32 `(2,)`, height and width of the images.
        """
        self.check_images(images)
        # As torchvision does: else the strides of anchors would not be those of the maps.
        padded = pad_to_multiple(images, STRIDES[-1])
        maps = self.features(padded, training=training)
        sizes = [map_size(m)[1:3] for m in (padded, *maps)]
        anchors = pyramid_anchors(sizes[0], sizes[1:], self.anchor_sizes, self.anchor_ratios)
        return self.class_tower(maps), self.box_tower(maps), anchors, tf.shape(images)[1:3]

    def decode(self, outputs):
        """Turn outputs into detections; see `Detector.decode`."""
        return self.decoder(self.scores_of(outputs), self.boxes_of(outputs), outputs["size"])

    def torchvision_layers(self):
        """List the layers that torchvision's model has too."""
        towers = (self.class_tower, self.box_tower)
        parts = [layer for tower in towers for layer in (*tower.convs, *tower.norms)]
        return [*self.features.layers, *parts, *self.predictors.values()]

    def get_config(self):
        return super().get_config() | {
            "backbone": self.backbone_name,
            "channels": self.channels,
            "depth": self.depth,
            "norm": self.norm,
            "levels": self.levels,
            "freeze_norm": self.freeze_norm,
            "frozen_stride": self.frozen_stride,
        }


def task_aligned_losses(y, logits, predicted, points, strides, gamma=1.0):
    """Cross-entropy towards the quality, and CIoU, of the places that predict an object best.

    Args:
        y: dict of labels, as of `as_targets`, with boxes in the frame of the others.
        logits: float32 `(batch, n, classes)`.
        predicted: float32 `(batch, n, 4)` corners.
        points: float32 `(n, 2)`, x and y of each place.
        strides: float32 `(n,)`.
        gamma: float, power of the factor of a focal loss, the error of the score. With 2 scores
            that are nearly right hardly move: a few hundred updates leave them at half of the
            quality. With 0 a small set is learned by heart.

    Returns:
        Tuple of
        losses: dict of float32 scalars, `classes` and `boxes`: means weighted by the quality,
            each this device's part.
        match, quality: as of `match_task_aligned`.

    Source:
        Feng et al. 2021, "TOOD", section 3.2; without a factor: Jocher et al. 2023, "Ultralytics
        YOLOv8"; with it: Li et al. 2020, "Generalized Focal Loss", equation 2.
    """
    match, quality = match_task_aligned(
        y["boxes"], y["classes"], y["ignore"], tf.stop_gradient(tf.sigmoid(logits)),
        tf.stop_gradient(predicted), points, strides,
    )  # fmt: skip
    targets = quality[..., tf.newaxis] * one_hot_of(y, match, logits.shape[-1])
    entropy = quality_focal_loss(targets, logits, gamma)
    counted = (match != IGNORED)[..., tf.newaxis]
    ciou = quality * ciou_loss(predicted, rows_of(y["boxes"], match))  # (batch, n)
    total = tf.reduce_sum(quality)
    losses = {
        "classes": mean_over_replicas(sum_where(counted, entropy), total),
        "boxes": BOX_WEIGHT * mean_over_replicas(sum_where(match > BACKGROUND, ciou), total),
    }
    return losses, match, quality
