"""DETR: a set of queries, each of which finds at most one object; no anchors, no suppression."""

from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.devices import replica_slice
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.attention import (
    BoxFocus,
    DecoderLayer,
    EncoderLayer,
    sine_of,
    sine_positions,
)
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.layers.places import (
    PRIOR_LOGIT,
    PlaceHead,
    best_places,
    box_layers,
    logit,
    place_centres,
    read_box,
)
from kerascv_d2l.layers.set_decoder import SetDecoder
from kerascv_d2l.losses.detection import mean_over_replicas
from kerascv_d2l.losses.set_prediction import (
    FOCAL_CLASS_WEIGHT,
    matching_costs,
    object_probabilities,
    quality_losses,
    query_box_losses,
    query_class_loss,
    with_a_row,
)
from kerascv_d2l.models.backbones import backbone as build_backbone
from kerascv_d2l.models.common import dtype_scope, settle_batch_norm
from kerascv_d2l.models.dense import task_aligned_losses
from kerascv_d2l.models.detector import Detector, in_steps_of
from kerascv_d2l.models.folding import FoldingModel
from kerascv_d2l.models.fpn import FPN
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.models.rows import in_pixels
from kerascv_d2l.ops.boxes import box_center_to_corner
from kerascv_d2l.ops.checks import as_targets, check_fraction, check_whole
from kerascv_d2l.ops.denoising import NUM_DRAWS, group_mask, noise_objects
from kerascv_d2l.ops.hungarian import match_one_to_one
from kerascv_d2l.ops.roi_sampling import map_size
from kerascv_d2l.ops.upsampling import enlarge_to_multiple

PLACES_WEIGHT, PLACES_GAMMA = 3.0, 2.0  # of the losses of all places of the map
LOSSES = ("classes", "boxes", "giou")
PLACES = "places"  # and with reference boxes
DENOISING = "denoising"  # and in training with noised objects
ALGORITHM = "philox"  # of the noise
DENOISING_GROUPS = 3  # of the recipe
STRIDES = (8, 32)  # of the map, with reference boxes and without
# With reference boxes, where half of the objects are so large, pixels: by docs/experiments.md.
COARSE, LARGE = 16, 80


def _recipe(**options):
    """For images of some 200 pixels with small objects, and random weights."""
    return Recipe(
        "adamw",
        1e-3,
        warmup=0.05,
        weight_decay=1e-4,
        clip_norm=1.0,
        averaging=0.99,
        updates=1500,
        epochs=1,
        batch_size=8,
        augment="flip-color",
        options={"width": 64, "heads": 4, "decoder_layers": 2, "feedforward": 256} | options,
    )


@keras.saving.register_keras_serializable("kerascv_d2l")
class DETR(Detector):
    """A transformer on a map of a backbone.

    Call it on pixels 0-255 `(batch, height, width, 3)` for a dict of `logits` float32 `(layers,
    batch, queries, classes + 1)`, the last class being "no object" (without it where
    `reference_boxes`), `boxes` float32 `(layers, batch, queries, 4)`, normalised `(x, y, width,
    height)` with the centre first, for each layer of the decoder; and `attention` float32 `(batch,
    heads, queries, places)` of the last one, with `map_size` int32 `(2,)`.

    With `reference_boxes`, for little data, every place of the map says which object is there and
    where; many places learn from each object, as in FCOS, so that classes are learned soon. The
    places that know best, neighbours last, begin the queries. A query is then a box and its
    scores; each layer of the decoder adds to both, and its heads look at parts of the box. A score
    is to be the IoU of the box, with a focal factor. The outputs also have `place_logits` float32
    `(batch, places, classes)`, `place_boxes` float32 `(batch, places, 4)` and `chosen` int32
    `(batch, queries)`, the place of each query.

    With `denoising` it also learns, in training, from queries that begin at the objects' boxes
    and classes with noise added. They need no matching, and see neither the usual queries, which
    do not see them either, nor each other's groups. The noise depends on `seed`, the number of
    steps, which is saved with the weights, and the number of label rows alone.

    Args:
        class_names: sequence of str, or the number of classes.
        backbone: name of a network.
        weights: of the backbone: None (random), "imagenet" or a path.
        image_size: as for `Detector`.
        stride: int, pixels, of the map; None for 8 with reference boxes, else 32. Large objects
            need 16, which `anchor_options` chooses.
        levels: int, with reference boxes: the map is the finest of a feature pyramid on so many
            of the backbone's.
        num_queries: int, objects that it can find in an image; of a smaller map, as many as it
            has places.
        width: int, of the transformer.
        heads: int.
        encoder_layers: int; the original has 6. What they cost grows with the square of the number
            of places.
        decoder_layers: int.
        feedforward: int.
        dropout: float.
        reference_boxes: bool, see above; without them it is the original.
        denoising: int, groups of noised objects in training; 0 for none.
        seed: int, of the noise.
        freeze_norm: whether the backbone's batch norm keeps its statistics and weights; None
            for where the backbone has `weights`.
        decoder: `SetDecoder`, or None for one with its defaults.
        **kwargs: as in `keras.Model`.

    Raises:
        InputError: if a number is out of range, the width is no multiple of the heads and of 4, or
            there is denoising without reference boxes.

    Source:
        Carion et al. 2020, "DETR"; reference boxes: Liu et al. 2022, "DAB-DETR"; their
        refinement, their beginning at places and the focal cost: Zhu et al. 2021, "Deformable
        DETR", appendix A.4; scores towards the IoU: Liu et al. 2023, "Stable-DINO";
        many places for an object: Zong et al. 2023, "Co-DETR"; where heads look: see `BoxFocus`;
        denoising: Li et al. 2022, "DN-DETR".
    """

    BACKBONE = "resnet18"
    MIN_SIZE = 64
    XLA = False  # cannot do the matching
    RECIPES: ClassVar = {
        "default": _recipe(),
        "denoising": _recipe(denoising=DENOISING_GROUPS),
    }
    ON_FOLDERS: ClassVar = {"clip_norm": 1.0, "options": {"freeze_norm": False}}

    def __init__(
        self,
        class_names,
        backbone="resnet18",
        weights=None,
        image_size=None,
        stride=None,
        levels=2,
        num_queries=50,
        width=128,
        heads=8,
        encoder_layers=0,
        decoder_layers=3,
        feedforward=512,
        dropout=0.0,
        reference_boxes=True,
        denoising=0,
        seed=0,
        freeze_norm=None,
        decoder=None,
        **kwargs,
    ):
        super().__init__(class_names, image_size, decoder or SetDecoder(), **kwargs)
        check_whole(
            1, levels=levels, num_queries=num_queries, width=width, heads=heads,
            decoder_layers=decoder_layers, feedforward=feedforward,
        )  # fmt: skip
        check_whole(0, encoder_layers=encoder_layers, denoising=denoising)
        check_fraction(dropout, "dropout")
        if width % heads or width % 4:
            raise InputError(f"width={width} must be a multiple of heads={heads} and of 4.")
        if denoising and not reference_boxes:
            raise InputError(f"denoising={denoising} needs reference_boxes=True.")
        self.num_classes = len(self.class_names)
        self.backbone_name, self.reference_boxes = backbone, bool(reference_boxes)
        self.stride = stride or STRIDES[0 if reference_boxes else 1]
        self.levels, self.denoising, self.seed = levels, denoising, seed
        self.settings = {
            "num_queries": num_queries,
            "width": width,
            "heads": heads,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "feedforward": feedforward,
            "dropout": dropout,
        }
        block = (width, heads, feedforward, dropout)
        with dtype_scope(self.dtype_policy):
            if reference_boxes:
                self.features = _finest_of_pyramid(backbone, weights, self.stride, levels, width)
            else:
                self.features = build_backbone(backbone, weights, (self.stride,))
                self.input_projection = Conv2D(width, 1, name="input_projection")
            self.encoder_layers = [
                EncoderLayer(*block, name=f"encoder_{i}") for i in range(encoder_layers)
            ]
            self.decoder_layers = [
                DecoderLayer(*block, name=f"decoder_{i}") for i in range(decoder_layers)
            ]
            self.layernorm = keras.layers.LayerNormalization(epsilon=1e-5, name="layernorm")
            self._make_heads()
        self.freeze_norm = settle_batch_norm(self.features, weights, freeze_norm)
        self.seeds = keras.random.SeedGenerator(seed, name="noise")
        names = LOSSES + (PLACES,) * self.reference_boxes + (DENOISING,) * (self.denoising > 0)
        self.parts = {name: keras.metrics.Mean(name=f"loss_{name}") for name in names}
        self.build((None, None, None, 3))

    @classmethod
    def anchor_options(cls, boxes, image_size):
        """Choose a coarser map for large objects, whose places then see more of them."""
        corners = np.asarray(boxes, np.float64).reshape(-1, 4) * np.tile(image_size[::-1], 2)
        sides = np.sqrt(np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1))
        return {"stride": COARSE} if len(sides) and np.median(sides) >= LARGE else {}

    def make_room(self, most_objects):
        """Let it find so many objects, see `Detector.make_room`; with reference boxes only.

        The queries are then places, and no weights depend on how many there are.
        """
        if self.reference_boxes:
            queries = max(self.settings["num_queries"], in_steps_of(50, most_objects))
            self.settings["num_queries"] = queries
        return min(super().make_room(most_objects), self.settings["num_queries"])

    def _make_heads(self):
        """Make the queries, and what reads classes and boxes from them; float32 at the end."""
        width, focal = self.settings["width"], self.reference_boxes
        # What a layer adds to a reference box is 0 at first, and to its scores nearly.
        small = keras.initializers.RandomNormal(stddev=0.01) if focal else "glorot_uniform"
        self.classifier = keras.layers.Dense(
            self.num_classes + (not focal),
            kernel_initializer=small,
            name="class_labels_classifier",
            dtype="float32",
        )
        self.box_layers = box_layers(
            width, "bbox_predictor", "zeros" if focal else "glorot_uniform"
        )
        if not focal:
            self.queries = Queries(width, self.settings["num_queries"], name="queries")
            return
        self.places = PlaceHead(width, self.num_classes, name="places")
        self.reference_layers = [keras.layers.Dense(width, name=f"reference_{i}") for i in range(2)]
        heads, layers = self.settings["heads"], self.settings["decoder_layers"]
        self.focus = [BoxFocus(heads, name=f"focus_{i}") for i in range(layers)]
        if self.denoising:  # what a query of each class begins with
            self.labels = Queries(width, self.num_classes, name="labels")

    def build(self, input_shape):
        width = self.settings["width"]
        shape = (None, None, width)
        for layer in (*self.encoder_layers, *self.decoder_layers):
            layer.build()
        for layer in (self.layernorm, self.classifier, *self.box_layers):
            layer.build(shape)
        if not self.reference_boxes:
            self.input_projection.build(self.features.output_shape)
            self.queries.build(None)
        else:
            self.places.build()
            self.reference_layers[0].build((None, None, 2 * width))
            self.reference_layers[1].build(shape)
            for layer in self.focus:
                layer.build()
            if self.denoising:
                self.labels.build(None)
        self.built = True

    def call(self, images, training=False):
        """Predict for all queries; see the class."""
        self.check_images(images)
        if self.reference_boxes:  # whose first boxes are counted in places of the map
            images = enlarge_to_multiple(images, STRIDES[-1])
        return self.transform(self.features(images, training=training), training)

    def transform(self, features, training=False):
        """Do what `call` does from the map `(batch, h, w, c)` on."""
        if not self.reference_boxes:
            features = self.input_projection(features)
        _, height, width, channels = map_size(features)
        size = (height, width)
        places = sine_positions(height, width, channels)  # (n, width)
        memory = tf.reshape(features, [tf.shape(features)[0], height * width, channels])
        for layer in self.encoder_layers:
            memory = layer(memory, places, training=training)
        start, outputs = self._start(memory, size, training)
        outputs |= self._ask(*start, memory, size, training=training)
        outputs["map_size"] = tf.stack([height, width])
        return outputs | {"memory": memory} if training and self.denoising else outputs

    def _start(self, memory, size, training):
        """What the queries begin with: the first three arguments of `_ask`, and outputs."""
        if self.reference_boxes:
            found = self.places(memory, map_size=size)
            chosen, scores = best_places(found["logits"], size, self.settings["num_queries"])
            x, boxes = (tf.gather(found[n], chosen, batch_dims=1) for n in ("content", "boxes"))
            outputs = {
                "place_logits": found["logits"],
                "place_boxes": tf.sigmoid(found["boxes"]),
                "chosen": chosen,
            }
            return (x, _given(boxes, training), _given(scores, training)), outputs
        batch = tf.shape(memory)[0]
        queries = tf.repeat(self.queries()[tf.newaxis], batch, axis=0)  # (batch, q, width)
        return (tf.zeros_like(queries, memory.dtype), queries, 0.0), {}

    def _ask(self, x, queries, scores, memory, size, allowed=None, training=False):
        """Run the decoder.

        Args:
            x: `(batch, q, width)`, what the queries begin with.
            queries: float32 `(batch, q, width)`, their positions; or logits of their boxes
                `(batch, q, 4)`, where these are the queries.
            scores: float32 `(batch, q, classes)` or a float, logits of their classes, likewise.
            memory: `(batch, n, width)`, from the encoder.
            size: `(height, width)` of the map, n places.
            allowed: see `Attention`; which queries see which.
            training: bool.

        Returns:
            dict of `logits`, `boxes` and `attention`, see the class.
        """
        places = sine_positions(*size, self.settings["width"])[tf.newaxis]
        logits, boxes = [], []
        options, bias = {"allowed": allowed, "training": training}, None
        for i, layer in enumerate(self.decoder_layers):
            if self.reference_boxes:
                bias = self.focus[i](tf.sigmoid(queries), map_size=size)
            x, weights = layer(x, self._positions(queries), memory, places, bias=bias, **options)
            seen = tf.cast(self.layernorm(x), tf.float32)
            class_logits, box_logits = self.classifier(seen), read_box(self.box_layers, seen)
            if self.reference_boxes:
                class_logits, box_logits = class_logits + scores, box_logits + queries
                scores, queries = _given(class_logits, training), _given(box_logits, training)
            logits.append(class_logits)
            boxes.append(tf.sigmoid(box_logits))
        return {"logits": tf.stack(logits), "boxes": tf.stack(boxes), "attention": weights}

    def _positions(self, queries):
        """What tells the attention where a query looks: `(batch, q, width)`."""
        if not self.reference_boxes:
            return queries
        waves = sine_of(tf.sigmoid(queries), self.settings["width"] // 2)  # (batch, q, 2·width)
        return self.reference_layers[1](tf.nn.relu(self.reference_layers[0](waves)))

    def decode(self, outputs):
        """Keep the best predictions of the last layer; see `Detector.decode`."""
        logits, boxes = outputs["logits"][-1], outputs["boxes"][-1]
        scores = object_probabilities(logits, self.num_classes)
        return self.decoder(scores, box_center_to_corner(boxes))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Match queries and objects at each layer, and compute the sum of the losses."""
        y = with_a_row(as_targets(y, self.num_classes))
        logits, boxes = y_pred["logits"], y_pred["boxes"]
        wanted = (y["classes"] >= 0) & ~y["ignore"]  # (batch, m)
        matched = match_one_to_one(
            tf.stop_gradient(self.costs(y, logits, boxes)),
            tf.repeat(wanted[tf.newaxis], logits.shape[0], axis=0),
        )  # (layers, batch, m)
        own = tf.gather(boxes, tf.maximum(matched, 0), batch_dims=2)  # (layers, batch, m, 4)
        count = tf.reduce_sum(tf.cast(wanted, tf.float32))
        l1, giou = query_box_losses(own, y["boxes"], matched >= 0, count)
        losses = {
            "classes": query_class_loss(y, logits, boxes, matched, count, self.num_classes),
            "boxes": l1,
            "giou": giou,
        }
        if self.reference_boxes:
            losses[PLACES] = self._places_loss(y, y_pred)
        if "memory" in y_pred:  # in training
            losses[DENOISING] = self._denoising_loss(y, wanted, count, y_pred)
        return self.sum_of_parts(losses, tf.shape(y["classes"])[0])

    def _places_loss(self, y, outputs):
        """What all places of the map learn beside the queries, many for each object."""
        size = outputs["map_size"]
        boxes = box_center_to_corner(outputs["place_boxes"])
        boxes, points = in_pixels({"boxes": boxes}, size)["boxes"], place_centres(tf.unstack(size))
        losses, *_ = task_aligned_losses(
            in_pixels(y, size), outputs["place_logits"], boxes, points,
            tf.ones_like(points[:, 0]), PLACES_GAMMA,
        )  # fmt: skip
        return PLACES_WEIGHT * tf.add_n(list(losses.values()))

    def _denoising_loss(self, y, wanted, count, outputs):
        """Sum of the losses of noised objects `(batch, m)`, as a mean over their groups."""
        batch, groups = tf.shape(wanted)[0], self.denoising
        seed = tf.cast(self.seeds.next(), tf.int32)
        shape = [groups, tf.shape(wanted)[1], NUM_DRAWS]
        draws = replica_slice(
            lambda total: tf.random.stateless_uniform([total, *shape], seed, alg=ALGORITHM), batch
        )
        boxes, classes = noise_objects(y["boxes"], y["classes"], self.num_classes, draws)
        memory = outputs["memory"]
        found = self._ask(
            tf.gather(tf.cast(self.labels(), memory.dtype), classes),
            logit(boxes),
            PRIOR_LOGIT,
            memory,
            tf.unstack(outputs["map_size"]),
            group_mask(wanted, groups),
            training=True,
        )
        real, classes = (tf.tile(rows, [1, groups]) for rows in (wanted, y["classes"]))
        truth = tf.tile(y["boxes"], [1, groups, 1])  # (batch, groups·m, 4)
        losses = quality_losses(found["boxes"], truth, classes, found["logits"])
        of_class = tf.reduce_sum(tf.where(real, losses, 0.0))
        count *= groups
        of_class = FOCAL_CLASS_WEIGHT * mean_over_replicas(of_class, count)
        return tf.add_n([of_class, *query_box_losses(found["boxes"], truth, real, count)])

    def costs(self, y, logits, boxes):
        """How badly each query would do for each object: `matching_costs` of this model.

        Args:
            y: dict of `boxes` `(batch, m, 4)` and `classes` `(batch, m)`.
            logits: float32 `(layers, batch, queries, …)`, as `call` gives them.
            boxes: float32 `(layers, batch, queries, 4)`, likewise.

        Returns:
            float32 `(layers, batch, queries, m)`.
        """
        return matching_costs(y, logits, boxes, self.num_classes)

    def get_config(self):
        return (
            super().get_config()
            | self.settings
            | {
                "backbone": self.backbone_name,
                "stride": self.stride,
                "levels": self.levels,
                "reference_boxes": self.reference_boxes,
                "denoising": self.denoising,
                "seed": self.seed,
                "freeze_norm": self.freeze_norm,
            }
        )


def _given(values, training):
    """In training no gradient goes to what came before: each layer learns its own step.

    Else it does, for who asks what a detection depends on.
    """
    return tf.stop_gradient(values) if training else values


def _finest_of_pyramid(backbone, weights, stride, levels, channels):
    """Build a network to the map of this stride, into which coarser ones went."""
    pyramid = FPN(backbone, weights, [stride << i for i in range(levels)], channels, extra=None)
    return FoldingModel(pyramid.inputs[0], pyramid.outputs[0], name=pyramid.name)


@keras.saving.register_keras_serializable("kerascv_d2l")
class Queries(keras.layers.Layer):
    """Learned numbers for each query: called with nothing it gives float32 `(count, size)`.

    Args:
        size: int, of each.
        count: int.
        **kwargs: as in `keras.layers.Layer`.
    """

    def __init__(self, size, count, **kwargs):
        super().__init__(**kwargs)
        self.size, self.count = size, count

    def build(self, input_shape=None):
        # As the kernel of a dense layer, so that a state dict's (count, size) fits it.
        self.kernel = self.add_weight(
            shape=(self.size, self.count), initializer="random_normal", name="kernel"
        )
        self.built = True

    def call(self, inputs=None):
        return tf.transpose(tf.cast(self.kernel, tf.float32))

    def get_config(self):
        return super().get_config() | {"size": self.size, "count": self.count}
