"""Mask R-CNN: Faster R-CNN, and a mask in every box."""

from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.losses.detection import mean_over_replicas
from kerascv_d2l.models.faster_rcnn import NARROW, FasterRCNN
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.ops.boxes import sides_of
from kerascv_d2l.ops.mask_pasting import crop_masks, paste_detections
from kerascv_d2l.ops.roi_sampling import map_size

POOLED = 14  # bins along a side of a box that the mask is made from
CHANNELS, NUM_CONVS = 256, 4


@keras.saving.register_keras_serializable("kerascv_d2l")
class MaskHead(keras.layers.Layer):
    """Four 3 × 3 convolutions, one that doubles the size, and a map of logits for every class.

    Its layers `convs`, `conv5_mask` and `mask_fcn_logits` are torchvision's. Called with pooled
    features `(n, bins, bins, c)` it gives float32 logits `(n, 2·bins, 2·bins, classes + 1)`; the
    map of class 0, background, means nothing.

    Args:
        num_classes: int, object classes.
        channels: int, of the convolutions.
        **kwargs: as in `keras.layers.Layer`.
    """

    def __init__(self, num_classes, channels=CHANNELS, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.channels = num_classes, channels

        def options(name, initializer, dtype=None):
            return {
                "kernel_initializer": initializer,
                "name": name,
                "dtype": dtype or self.dtype_policy,
            }

        def he():  # by the outputs of a convolution, as in torchvision
            return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")

        self.convs = [
            Conv2D(channels, 3, padding="same", **options(f"mask_head_{i}", he()))
            for i in range(NUM_CONVS)
        ]
        self.conv5_mask = keras.layers.Conv2DTranspose(
            channels, 2, 2, **options("conv5_mask", he())
        )
        # As in Detectron2: by its few outputs, the logits would start far from 0. In float32 also
        # under mixed precision, as all that losses are made of.
        near_zero = keras.initializers.RandomNormal(stddev=0.001)
        self.mask_fcn_logits = Conv2D(
            num_classes + 1, 1, **options("mask_fcn_logits", near_zero, "float32")
        )

    def build(self, input_shape):
        self.convs[0].build(input_shape)
        inner = (*input_shape[:-1], self.channels)
        for layer in (*self.convs[1:], self.conv5_mask, self.mask_fcn_logits):
            layer.build(inner)
        self.built = True

    def call(self, pooled):
        return self.mask_fcn_logits(self._hidden(pooled))

    def maps_of(self, pooled, classes):
        """Compute one map of each box, and none of the others.

        Args:
            pooled: `(n, bins, bins, c)`.
            classes: int32 `(n,)`, the class whose map it is; 0 = first object class.

        Returns:
            float32 `(n, 2·bins, 2·bins)`, logits.
        """
        for layer in self.convs:
            pooled = tf.nn.relu(layer(pooled))
        readers = tf.gather(tf.transpose(self.mask_fcn_logits.kernel[0, 0]), classes + 1)
        biases = tf.gather(self.mask_fcn_logits.bias, classes + 1)  # (n,)
        _, height, width, _ = map_size(pooled)
        kernel, bias = (tf.cast(v.value, pooled.dtype) for v in self.conv5_mask.weights)
        quarters = _read_doubled(pooled, kernel, bias, readers)  # 4 of (n, bins·bins)
        logits = tf.reshape(tf.stack(quarters, axis=-1), [-1, height, width, 2, 2])
        logits = tf.reshape(tf.transpose(logits, [0, 1, 3, 2, 4]), [-1, 2 * height, 2 * width])
        return logits + biases[:, tf.newaxis, tf.newaxis]

    def _hidden(self, pooled):
        for layer in (*self.convs, self.conv5_mask):
            pooled = tf.nn.relu(layer(pooled))
        return pooled

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
        }


def _read_doubled(x, kernel, bias, readers):
    """Double a map, and read one channel from it with a kernel for each box.

    A transposed convolution of 2 × 2 with stride 2 is a product for each of the four pixels
    that come of one. They are made one after another and forgotten; the backward pass makes them
    anew, likewise. In full they would be the largest tensors of a training step, twice.

    Args:
        x: `(n, h, w, c)`.
        kernel: `(2, 2, channels, c)`.
        bias: `(channels,)`.
        readers: float32 `(n, channels)`.

    Returns:
        Four float32 `(n, h·w)`: the upper left pixels, upper right, lower left, lower right.
    """

    def read(x, kernel, bias, readers):
        hidden = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel, transpose_b=True)
        hidden = tf.cast(tf.nn.relu(tf.nn.bias_add(hidden, bias)), tf.float32)  # (n·h·w, channels)
        _, height, width, _ = map_size(x)
        hidden = tf.reshape(hidden, [-1, height * width, hidden.shape[-1]])
        return tf.matmul(hidden, readers[..., tf.newaxis])[..., 0]

    @tf.custom_gradient
    def read_all(x, kernel, bias, readers):
        parts = tf.unstack(tf.reshape(kernel, [4, *kernel.shape[2:]]))

        def gradient(*upstream):
            of_parts, sums, before = [], [0.0, 0.0, 0.0], upstream
            for part, of_part in zip(parts, upstream, strict=True):
                with tf.control_dependencies(before), tf.GradientTape() as tape:
                    inputs = [tf.identity(t) for t in (part, x, bias, readers)]
                    tape.watch(inputs)
                    again = read(inputs[1], inputs[0], *inputs[2:])
                first, *rest = tape.gradient(again, inputs, of_part)
                of_parts.append(first)
                sums = before = [a + b for a, b in zip(rest, sums, strict=True)]
            of_x, of_bias, of_readers = sums
            return of_x, tf.reshape(tf.stack(of_parts), kernel.shape), of_bias, of_readers

        return [read(x, part, bias, readers) for part in parts], gradient

    return read_all(x, kernel, bias, readers)


@keras.saving.register_keras_serializable("kerascv_d2l")
class MaskRCNN(FasterRCNN):
    """`FasterRCNN` that finds the pixels of each object, too, as torchvision has it.

    Train it with `fit` on pairs of images and dicts that have `masks` besides: uint8 `(batch, m,
    height, width)` of the images' size, 1 on the object. `decode` then adds `masks` of 28 × 28
    probabilities within each box, and `detect` and exports give them pasted into the images:
    uint8 `(batch, n, height, width)`.

    Args:
        class_names: as for `FasterRCNN`.
        *args: as for `FasterRCNN`.
        mask_channels: int, of the mask head's convolutions.
        **kwargs: as for `FasterRCNN`.

    Source:
        He et al. 2017, "Mask R-CNN"; torchvision's `maskrcnn_resnet50_fpn` with the
        backbone "resnet50_v1.5".
    """

    TORCHVISION = "maskrcnn_resnet50_fpn"
    PARTS = (*FasterRCNN.PARTS, "masks")
    RECIPES: ClassVar = {
        **FasterRCNN.RECIPES,
        "default": Recipe(epochs=4, batch_size=8, options=NARROW | {"mask_channels": 32}),
    }
    # Batch norms that learn are no gain here, and take a fifth more time: docs/experiments.md.
    ON_FOLDERS: ClassVar = {"updates": FasterRCNN.ON_FOLDERS["updates"]}
    predicts_masks = True

    def __init__(self, class_names, *args, mask_channels=CHANNELS, **kwargs):
        self.mask_channels = mask_channels
        super().__init__(class_names, *args, **kwargs)

    def _make_heads(self):
        super()._make_heads()
        self.mask_head = MaskHead(self.num_classes, self.mask_channels, name="mask_head")

    def build(self, input_shape):
        self.mask_head.build((None, POOLED, POOLED, self.channels))
        super().build(input_shape)

    def predict_masks(self, maps, boxes, image_indices, classes):
        """Logits of the masks of boxes.

        Args:
            maps: list of maps, as `call` gives them.
            boxes: float32 `(n, 4)` corners, pixels.
            image_indices: int32 `(n,)`, the image of each box.
            classes: int32 `(n,)`, whose map to take; 0 = first object class.

        Returns:
            float32 `(n, 28, 28)`.
        """
        # A box more: TensorFlow's convolutions give wrong shapes for a batch of none (2.21).
        boxes = tf.pad(boxes, [[0, 1], [0, 0]])
        image_indices, classes = (tf.pad(t, [[0, 1]]) for t in (image_indices, classes))
        return self.mask_head.maps_of(self._pool(maps, boxes, image_indices, POOLED), classes)[:-1]

    def decode(self, outputs):
        """Name and move the proposals, and make their masks; see `Detector.decode`."""
        found = super().decode(outputs)
        index = tf.cast(tf.where(found["classes"] >= 0), tf.int32)  # (found, 2): image, row
        logits = self.predict_masks(
            outputs["maps"],
            tf.gather_nd(found["boxes"], index) * sides_of(outputs["size"]),
            index[:, 0],
            tf.gather_nd(found["classes"], index),
        )
        shape = tf.concat([tf.shape(found["classes"]), [2 * POOLED, 2 * POOLED]], axis=0)
        return found | {"masks": tf.scatter_nd(index, tf.sigmoid(logits), shape)}

    def detect_batch(self, images):
        """Do what `detect` does as plain operations, for other graphs."""
        found = super().detect_batch(images)
        size = map_size(images)[1:3]
        pasted = paste_detections(found["masks"], found["boxes"], size, loop=not self._builtin)
        return found | {"masks": pasted}

    def _losses_by_name(self, outputs, y, training):
        if "masks" not in y:
            raise InputError(
                f"labels have the keys {sorted(y)}; masks are missing: uint8 (batch, m, height, "
                "width) of the images' size."
            )
        size, wanted = tuple(y["masks"].shape[2:4]), tf.get_static_value(outputs["size"])
        if wanted is not None and None not in size and size != tuple(wanted.tolist()):
            raise InputError(
                f"masks are of {size} pixels and images of {tuple(wanted.tolist())}: expected "
                "masks of the images' size."
            )
        return super()._losses_by_name(outputs, y, training)

    def _losses_and_detections(self, images, y, key):
        if self.image_size and isinstance(y, dict) and "masks" in y:  # as the images are
            masks = tf.transpose(y["masks"], [0, 2, 3, 1])
            masks = tf.image.resize(masks, self.image_size, "nearest")
            y = y | {"masks": tf.transpose(masks, [0, 3, 1, 2])}
        return super()._losses_and_detections(images, y, key)

    def _head_losses(self, maps, y, boxes, match):
        losses = super()._head_losses(maps, y, boxes, match)
        # Positives only.
        index = tf.cast(tf.where(match >= 0), tf.int32)  # (positives, 2): image, sample
        images, boxes, rows = index[:, 0], tf.gather_nd(boxes, index), tf.gather_nd(match, index)
        classes = tf.gather_nd(y["classes"], tf.stack([images, rows], axis=1))
        logits = self.predict_masks(maps, boxes, images, classes)
        targets = crop_masks(y["masks"], images, rows, boxes, 2 * POOLED)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
        count = tf.cast(tf.size(entropy), tf.float32)
        return losses | {"masks": mean_over_replicas(tf.reduce_sum(entropy), count)}

    def torchvision_layers(self):
        """List the layers that torchvision's model has too."""
        head = self.mask_head
        return [*super().torchvision_layers(), *head.convs, head.conv5_mask, head.mask_fcn_logits]

    def get_config(self):
        return super().get_config() | {"mask_channels": self.mask_channels}
