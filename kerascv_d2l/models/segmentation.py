"""What segmentation networks share: names and colours of classes, class maps of whole images."""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.colors import default_colors
from kerascv_d2l.errors import InputError
from kerascv_d2l.models.common import any_images, as_class_names
from kerascv_d2l.models.segmenter import Segmenter
from kerascv_d2l.ops.checks import as_image_size

MAX_CLASSES = 255  # masks are uint8, and 255 is ignored


class SegmentationModel(keras.Model):
    """Base of networks from pixels 0-255 to a score for every class at every pixel.

    A subclass builds its layers, calls `super().__init__(inputs=..., outputs=...)`, and then
    `describe`.

    Attributes:
        task: "segmentation".
        class_names: tuple of str.
        colors: uint8 `(classes, 3)`, RGB, to draw the classes with.
        num_classes: int.
        image_size: `(height, width)` if the network is built for one size, else None.
        size_multiple: int that divides the sides of images that need no padding.
        segmenter_options: dict of arguments of `Segmenter` (window, overlap,
            windows_at_a_time, flip), for `segment` and the export. It may be changed.
        backbone: the network that makes the feature maps, for freezing it; or None.
    """

    task = "segmentation"

    def describe(self, classes, size_multiple, backbone, settings):
        """Keep what the attributes and the config say.

        Args:
            classes: `(class_names, colors)`, as `as_classes` gives them.
            size_multiple: int.
            backbone: `keras.Model` or None.
            settings: dict of the other arguments of the constructor, for the config; it has
                `image_size` and `segmenter_options`.
        """
        self.class_names, self.colors = classes
        self.num_classes = len(self.class_names)
        self.image_size = settings["image_size"]
        self.size_multiple = size_multiple
        self.backbone = backbone
        self._settings = settings
        self.segmenter_options = dict(settings["segmenter_options"] or {})

    def segment(self, images):
        """Find the class of every pixel of images of any size.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, uint8 or float, RGB.

        Returns:
            int32 `(batch, height, width)`.
        """
        return Segmenter(self, **self.segmenter_options)(images)

    def endpoints(self):
        """Give what an export offers: `segment` and `scores`, each with its signature.

        Memory grows little with the image: few windows at a time go through the network. So
        the functions take uint8 as well as float images.
        """
        # One function for all dtypes: tracing the network takes most of the time.
        score = tf.function(
            lambda windows: self(windows, training=False),
            input_signature=[any_images()],
            autograph=False,
        )
        segmenter = self._segmenter(lambda windows: score(tf.cast(windows, tf.float32)))

        def segment(images):
            return {"class_map": segmenter.segment(images)}

        def scores(images):
            classes, scores = segmenter.segment(images, return_scores=True)
            return {"class_map": classes, "scores": scores}

        signature = (any_images(tf.uint8),)
        return {"segment": (segment, signature), "scores": (scores, signature)}

    def lite_endpoint(self):
        """Give the function of a TensorFlow Lite file: `scores`, for images of one size."""
        segmenter = self._segmenter(lambda windows: self(windows, training=False))

        def answer(images):
            classes, scores = segmenter.segment_fixed(images)
            return {"class_map": classes, "scores": scores}

        return answer

    def _segmenter(self, score):
        """Windows of this network for an export, through a function like it."""
        return Segmenter(
            score,
            stride=self.size_multiple,
            num_classes=self.num_classes,
            **self.segmenter_options,
        )

    def get_config(self):
        """Give the arguments of the constructor, the backbone with its architecture."""
        network = self.backbone
        return {
            **self._settings,
            "name": self.name,
            "class_names": self.class_names,
            "colors": self.colors.tolist(),
            "segmenter_options": self.segmenter_options,
            "backbone": None if network is None else keras.saving.serialize_keras_object(network),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Build the network again, without the weights."""
        network = config["backbone"]
        if network is not None:
            network = keras.saving.deserialize_keras_object(network, custom_objects=custom_objects)
        return cls(**(config | {"backbone": network}))


def as_classes(class_names, colors):
    """Check names and colours of classes.

    Args:
        class_names: sequence of str; or int, the number of classes.
        colors: RGB 0-255 `(classes, 3)`, or None for VOC's.

    Returns:
        Pair of a tuple of str and a uint8 array `(classes, 3)`.

    Raises:
        InputError: if there is no class or more than 255, or the colours are not as many.
    """
    names = as_class_names(class_names)
    if len(names) > MAX_CLASSES:
        raise InputError(f"class_names: expected at most {MAX_CLASSES} classes, got {len(names)}.")
    colors = default_colors(len(names)) if colors is None else np.asarray(colors)
    if colors.shape != (len(names), 3) or colors.min() < 0 or colors.max() > 255:
        raise InputError(
            f"colors of shape {colors.shape}: expected ({len(names)}, 3), RGB from 0 to 255."
        )
    return names, colors.astype(np.uint8)


def as_input_shape(image_size):
    """Give the input shape of a network for images of one size, or of any if it is None."""
    return (None, None, 3) if image_size is None else (*as_image_size(image_size), 3)
