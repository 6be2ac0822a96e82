"""Faster R-CNN: Fast R-CNN with proposals of a network of its own."""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.models.common import settings_of
from kerascv_d2l.models.dense import torchvision_recipe
from kerascv_d2l.models.detector import Detector
from kerascv_d2l.models.fast_rcnn import STRIDES, FastRCNN
from kerascv_d2l.models.rcnn_weights import find_weights, load_torchvision, predicts_same
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.models.rpn import RPNHead, RPNSettings, propose, rpn_losses
from kerascv_d2l.ops.anchor_choice import choose_anchors
from kerascv_d2l.ops.pyramid_anchors import (
    RPN_RATIOS,
    RPN_SIZES,
    check_anchor_sizes,
    pyramid_anchors,
)
from kerascv_d2l.ops.roi_sampling import map_size
from kerascv_d2l.ops.upsampling import pad_to_multiple

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


@keras.saving.register_keras_serializable("kerascv_d2l")
class FasterRCNN(FastRCNN):
    """A two-stage detector with a feature pyramid, as torchvision has it.

    Call it on pixels 0-255 `(batch, height, width, 3)` for a dict of what its
    parts say; see `call`. Train it with `fit` on pairs of images and labels.
    `detect` gives boxes.

    Args:
        class_names: as for `FastRCNN`.
        backbone: as for `FastRCNN`.
        weights: as for `FastRCNN`; or those of a whole detector of torchvision: a
            safetensors file (scripts/convert_weights.py), or "coco" for the one of
            COCO in Keras' folder. What predicts classes stays new where those in
            the file have other names, or another number.
        *args: as for `FastRCNN`.
        anchor_sizes: five sequences of float, for each level the sides of its
            anchors in pixels of the network's input, equally many for each.
        anchor_ratios: sequence of float, height over width.
        rpn: `RPNSettings`, or a dict of them.
        **kwargs: as for `FastRCNN`.

    Raises:
        InputError: if an argument is out of range, or the weights do not fit.

    Source:
        Ren et al. 2015, "Faster R-CNN"; Lin et al. 2017, "Feature Pyramid
        Networks"; torchvision's `fasterrcnn_resnet50_fpn` with the backbone
        "resnet50_v1.5".
    """

    TORCHVISION = "fasterrcnn_resnet50_fpn"
    PARTS = ("objectness", "rpn_boxes", *FastRCNN.PARTS)
    RECIPES: ClassVar = {
        "default": Recipe(epochs=4, batch_size=8, options=NARROW),
        "torchvision": torchvision_recipe(0.02),  # the widths are torchvision's by default
    }
    # An update takes longer than a one-stage detector's: 1000 of them end within half an hour.
    ON_FOLDERS: ClassVar = {"updates": 1000, "options": {"freeze_norm": False}}

    def __init__(
        self,
        class_names,
        backbone=FastRCNN.BACKBONE,
        weights=None,
        *args,
        anchor_sizes=RPN_SIZES,
        anchor_ratios=RPN_RATIOS,
        rpn=None,
        **kwargs,
    ):
        self.anchor_sizes = tuple(tuple(sizes) for sizes in anchor_sizes)
        self.anchor_ratios = tuple(anchor_ratios)
        self.rpn_settings = settings_of(RPNSettings, rpn, "rpn")
        path = find_weights(weights, self.TORCHVISION)
        if path is not None:
            weights = None
            if kwargs.get("freeze_norm") is None:
                kwargs["freeze_norm"] = True
        super().__init__(class_names, backbone, weights, *args, **kwargs)
        if path is not None:
            load_torchvision(self, path, not predicts_same(path, self.class_names))

    @classmethod
    def takes_whole(cls, weights):
        """Whether `weights` are those of a whole detector, its anchors' included."""
        return find_weights(weights, cls.TORCHVISION) is not None

    @classmethod
    def anchor_options(cls, boxes, image_size):
        """Choose `anchor_sizes` and `anchor_ratios`; see `Detector.anchor_options`."""
        found = choose_anchors(boxes, image_size, (*STRIDES, 2 * STRIDES[-1]))
        if found is None:
            return {}
        return {"anchor_sizes": tuple((size,) for size in found[0]), "anchor_ratios": found[1]}

    def make_room(self, most_objects):
        """Let it find so many objects, see `Detector.make_room`, with two proposals for each."""
        rows = super().make_room(most_objects)
        settings = self.rpn_settings
        before = max(settings.test_before_nms, 2 * rows)
        proposals = max(settings.test_proposals, 2 * rows)
        self.rpn_settings = dataclasses.replace(
            settings, test_before_nms=before, test_proposals=proposals
        )
        return rows

    def _make_heads(self):
        check_anchor_sizes(self.anchor_sizes, len(STRIDES) + 1)
        num_anchors = len(self.anchor_ratios) * len(self.anchor_sizes[0])
        self.rpn = RPNHead(num_anchors, name="rpn")
        super()._make_heads()

    def build(self, input_shape):
        self.rpn.build([tensor.shape for tensor in self.features.outputs])
        super().build(input_shape)

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
        # As torchvision does: else the strides of anchors would not be those of the maps.
        padded = pad_to_multiple(images, STRIDES[-1])
        maps = self.features(padded, training=training)
        size = map_size(images)[1:3]
        logits, offsets = self.rpn(maps)
        anchors = pyramid_anchors(
            map_size(padded)[1:3],
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

    # Images only, as any other detector.
    detect, endpoints, _resized = Detector.detect, Detector.endpoints, Detector._resized

    def lite_endpoint(self):
        """Give `detect` of one image, with operators that TensorFlow Lite has."""

        def detect(images):
            self._builtin = True
            try:
                return self._detect_in_pixels(images)
            finally:
                self._builtin = False

        return detect

    def _losses_by_name(self, outputs, y, training):
        losses = rpn_losses(
            outputs["objectness"],
            outputs["offsets"],
            outputs["anchors"],
            y,
            self.rpn_settings,
            self._next_seed(training),
        )
        return losses | super()._losses_by_name(outputs, y, training)

    def torchvision_layers(self):
        """List the layers that torchvision's model has too."""
        rpn, head = self.rpn, self.box_head
        heads = [rpn.conv, rpn.cls_logits, rpn.bbox_pred, head.fc6, head.fc7]
        return [*self.features.layers, *heads, head.cls_score, head.bbox_pred]

    def get_config(self):
        return super().get_config() | {
            "anchor_sizes": self.anchor_sizes,
            "anchor_ratios": self.anchor_ratios,
            "rpn": dataclasses.asdict(self.rpn_settings),
        }
