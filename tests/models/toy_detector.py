"""A detector in one file, as CONTRIBUTING.md tells how to add one: a grid of cells, a box each."""

import keras
import tensorflow as tf

from kerascv_d2l.losses.detection import mean_over_replicas, reported
from kerascv_d2l.models.detector import Detector
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.ops.nms import batched_nms


@keras.saving.register_keras_serializable("toy")
class GridDetector(Detector):
    """The cell that holds an object's centre predicts its class and its four sides."""

    RECIPES = {  # noqa: RUF012
        "default": Recipe(learning_rate=3e-3, epochs=8, batch_size=16),
        "book": Recipe(optimizer="sgd", learning_rate=0.01),
    }

    def __init__(self, class_names, image_size=None, width=16, **kwargs):
        super().__init__(class_names, image_size, **kwargs)
        self.width = width
        layers = [keras.layers.Rescaling(1 / 128, -1)]
        for i in range(4):  # cells of 16 × 16 pixels
            layers.append(keras.layers.Conv2D(width * 2**i, 3, 2, "same", activation="relu"))
        layers.append(keras.layers.Conv2D(5 + len(self.class_names), 3, padding="same"))
        self.network = keras.Sequential(layers)
        self.network.build((None, None, None, 3))
        self.build((None, None, None, 3))

    def call(self, images, training=False):
        """Return logits `(b, cells, classes + 1)` and boxes `(b, cells, 4)` of all cells."""
        maps = tf.cast(self.network(images, training=training), tf.float32)
        rows, columns = tf.shape(maps)[1], tf.shape(maps)[2]
        x = (tf.range(tf.cast(columns, tf.float32)) + 0.5) / tf.cast(columns, tf.float32)
        y = (tf.range(tf.cast(rows, tf.float32)) + 0.5) / tf.cast(rows, tf.float32)
        centers = tf.reshape(tf.stack(tf.meshgrid(x, y), axis=-1), [-1, 2])  # (cells, 2)
        maps = tf.reshape(maps, [tf.shape(maps)[0], -1, 5 + len(self.class_names)])
        sides = tf.nn.softplus(maps[..., :4]) / 4
        boxes = tf.concat([centers - sides[..., :2], centers + sides[..., 2:]], axis=-1)
        return {"logits": maps[..., 4:], "boxes": boxes, "size": tf.stack([columns, rows])}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Cross-entropy of all cells and L1 of the boxes, over the number of objects."""
        is_object = (y["classes"] >= 0) & ~y["ignore"]  # (b, m)
        size = y_pred["size"]
        center = tf.cast(y["boxes"][..., :2] + y["boxes"][..., 2:], tf.float32) / 2
        cell = tf.clip_by_value(tf.cast(center * tf.cast(size, tf.float32), tf.int32), 0, size - 1)
        cell = cell[..., 1] * size[0] + cell[..., 0]  # (b, m)
        hit = tf.one_hot(cell, size[0] * size[1]) * tf.cast(is_object, tf.float32)[..., None]
        labels = tf.reduce_max(tf.cast(hit, tf.int32) * (y["classes"][..., None] + 1), axis=1)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, y_pred["logits"])
        found = tf.gather(y_pred["boxes"], cell, batch_dims=1)  # (b, m, 4)
        distance = tf.reduce_sum(tf.abs(found - y["boxes"]), axis=-1)
        distance = tf.reduce_sum(tf.where(is_object, distance, 0.0))
        objects = tf.reduce_sum(tf.cast(is_object, tf.float32))
        loss = mean_over_replicas(tf.reduce_sum(entropy) + 4 * distance, objects)
        return reported(loss, tf.shape(labels)[0])

    def decode(self, outputs):
        """Keep the best boxes that do not overlap."""
        scores = tf.nn.softmax(outputs["logits"])[..., 1:]
        indices, best, count = batched_nms(
            outputs["boxes"], tf.reduce_max(scores, -1), 10, 0.5, 0.05, 0.0
        )
        valid = tf.range(10) < count[:, None]
        classes = tf.gather(tf.argmax(scores, -1, tf.int32), indices, batch_dims=1)
        boxes = tf.clip_by_value(tf.gather(outputs["boxes"], indices, batch_dims=1), 0, 1)
        boxes = tf.where(valid[..., None], boxes, 0.0)
        classes = tf.where(valid, classes, -1)
        return {"boxes": boxes, "scores": best, "classes": classes, "num_valid": count}

    def get_config(self):
        return super().get_config() | {"width": self.width}
