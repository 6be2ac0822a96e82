"""Image classifiers: any backbone, pooled, with one dense layer on top."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.models.backbones import (
    BATCH_NORM_MOMENTUM,
    model_name,
    source_head,
    without_classifier,
)
from kerascv_d2l.models.common import any_images, as_class_names
from kerascv_d2l.ops.checks import as_image_size
from kerascv_d2l.ops.geometry import CROP_PCT, resize_and_center_crop, resized_size

HEAD = "head"  # name of the output layer
POOL = "pool"


@keras.saving.register_keras_serializable("kerascv_d2l")
class Classifier(keras.Model):
    """A backbone, global average pooling, and a dense layer named "head".

    Calling it with pixels 0-255, `(batch, height, width, 3)`, RGB, uint8 or float, gives float32
    logits `(batch, classes)`. `classify` takes images of any size, and gives probabilities. All
    layers are the model's own and carry the names that `keras.applications` gives them, so that
    patterns of layer names (for freezing, for learning rates) work on it.

    Args:
        backbone: name of a network, see `models.backbones.names()`; or a `keras.Model` from
            pixels to feature maps, of which the last one is used.
        class_names: sequence of str; or int, the number of classes.
        weights: for a backbone by name: None (random), "imagenet" or a file, see
            `models.backbones.backbone`. The head starts anew, Xavier-uniform.
        image_size: `(height, width)` of the images that the network gets.
        crop_pct: float in (0, 1]: `classify` resizes images to `image_size / crop_pct` and crops
            their centre; 1 resizes only.
        dropout: share of the pooled features dropped in training.
        head_init: dict `{class index: index}`: output unit `class index` starts as unit `index`
            of the network that `weights` come from (a hot dog is ImageNet's class 934). Needs
            weights with a classifier on top.
        batch_norm_momentum: momentum of all batch norm layers, or None for the network's own.
        name: str, by default the backbone's.

    Attributes:
        task: "classification".
        class_names: tuple of str.
        image_size: `(height, width)`.
        crop_pct: float.

    Raises:
        InputError: if an argument is out of range, no network has that name, or the weights do
            not fit.
    """

    task = "classification"

    def __init__(
        self,
        backbone,
        class_names,
        weights=None,
        image_size=(224, 224),
        crop_pct=CROP_PCT,
        dropout=0.0,
        head_init=None,
        batch_norm_momentum=BATCH_NORM_MOMENTUM,
        name=None,
        **kwargs,
    ):
        class_names = as_class_names(class_names)
        image_size = as_image_size(image_size)
        if not 0 < crop_pct <= 1:
            raise InputError(f"crop_pct={crop_pct}: expected a number greater than 0, at most 1.")
        if isinstance(backbone, str):
            network = without_classifier(backbone, weights, (*image_size, 3), batch_norm_momentum)
        elif weights is not None or head_init:
            raise InputError(
                "weights and head_init are for a backbone by name; load weights into the model."
            )
        else:
            network = backbone
        # float32 from here on also under mixed precision: the loss needs the range.
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name=POOL)(network.outputs[-1])
        if dropout:
            x = keras.layers.Dropout(dropout, dtype="float32", name="dropout")(x)
        head = keras.layers.Dense(len(class_names), dtype="float32", name=HEAD)
        outputs = self._with_more(head(x), network, image_size)
        name = name or (model_name(backbone) if isinstance(backbone, str) else network.name)
        super().__init__(inputs=network.inputs[0], outputs=outputs, name=name, **kwargs)
        if head_init:
            _start_head(head, backbone, weights, head_init)
        self.class_names = class_names
        self.image_size = image_size
        self.crop_pct = crop_pct
        self.dropout = dropout
        self._classify = None

    def _with_more(self, logits, network, image_size):
        """Give the outputs: a subclass may add some to the logits."""
        return logits

    @property
    def backbone(self):
        """`keras.Model` from pixels to the last feature map, of the same layers."""
        return keras.Model(self.inputs[0], self.get_layer(POOL).input, name=self.name)

    def classify(self, images):
        """Classify images of any size, resized and cropped as in validation.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, uint8 or float, RGB.

        Returns:
            dict of tensors: `probabilities` float32 `(batch, classes)`; `classes` int32
            `(batch,)`, the most probable one; `names` string `(batch,)`, its name.
        """
        if self._classify is None:
            self._classify = tf.function(self._answer, reduce_retracing=True, autograph=False)
        return self._classify(tf.convert_to_tensor(images))

    def _answer(self, images):
        return self._named(self(self._resized(images), training=False))

    def _resized(self, images):
        resized = resized_size(self.image_size, self.crop_pct)
        return resize_and_center_crop(images, resized, self.image_size)

    def _named(self, logits):
        probabilities = tf.nn.softmax(logits)  # (batch, classes)
        classes = tf.argmax(probabilities, axis=-1, output_type=tf.int32)  # (batch,)
        names = tf.gather(tf.constant(self.class_names), classes)
        return {"probabilities": probabilities, "classes": classes, "names": names}

    def endpoints(self):
        """Give what an export offers: `{"classify": (function, signature)}`."""
        return {"classify": (self._answer, (any_images(),))}

    def get_config(self):
        """Give the arguments of the constructor, the backbone with its architecture."""
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "class_names": self.class_names,
            "image_size": self.image_size,
            "crop_pct": self.crop_pct,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Build the network again, without the weights."""
        network = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**(config | {"backbone": network}))


def _start_head(head, name, weights, head_init):
    kernel, bias = (variable.numpy() for variable in (head.kernel, head.bias))
    if weights is None:
        raise InputError(
            f"head_init={head_init}: there is no source network with weights=None. "
            'Give weights="imagenet" or a weights file with a classifier on top.'
        )
    source_kernel, source_bias = source_head(name, weights)
    if source_kernel.shape[0] != kernel.shape[0]:
        raise InputError(
            f"head_init={head_init}: the classifier of {name} reads {source_kernel.shape[0]} "
            f"features through layers of its own, the new head {kernel.shape[0]}; its units do "
            "not fit. Leave head_init out for this network."
        )
    for unit, index in head_init.items():
        if not 0 <= unit < kernel.shape[1] or not 0 <= index < source_kernel.shape[1]:
            raise InputError(
                f"head_init={head_init}: expected classes 0-{kernel.shape[1] - 1} and source "
                f"indices 0-{source_kernel.shape[1] - 1}."
            )
        kernel[:, unit] = source_kernel[:, index]
        bias[unit] = source_bias[index]
    head.set_weights([kernel, bias])
