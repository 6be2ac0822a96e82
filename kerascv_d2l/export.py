"""Models as files that need nothing but TensorFlow: SavedModel and TensorFlow Lite.

What leaves here takes pictures as they are (pixels 0-255, any size) and answers
in their own frame; resizing and scaling are inside.
"""

import tensorflow as tf

from kerascv_d2l.files import whole
from kerascv_d2l.ops.geometry import resize_and_center_crop


def export_detector(model, path):
    """Write a detector as a SavedModel.

    The loaded object is called on uint8 or float images `(batch, height, width,
    3)` of any size. Its signatures are `serving_default` (uint8), `float`
    (float32), both with the input `images`, and `class_names`, without input.
    The answer is a dictionary: `boxes` (normalised corners), `boxes_px` (pixels
    of the images given), `scores`, `classes` and `num_valid`, as `SSD.detect`
    gives them.

    Args:
        model: `SSD`. Its `decoder` and `image_size` at this moment are what is
            exported.
        path: folder to write, as a whole or not at all.
    """
    module = _Detector(model)
    signatures = {
        "serving_default": module.detect.get_concrete_function(_any_images(tf.uint8)),
        "float": module.detect.get_concrete_function(_any_images(tf.float32)),
        "class_names": module.names.get_concrete_function(),
    }
    with whole(path) as folder:
        tf.saved_model.save(module, str(folder), signatures)


def export_detector_lite(model, path):
    """Write a detector as a TensorFlow Lite file of builtin operators, for one image at a time.

    The input is float32 `(1, height, width, 3)`, pixels 0-255. A model with an
    `image_size` starts with that size, and `resize_tensor_input` brings any
    other; the outputs are those of `export_detector`. It computes in float32, also where the
    model does not: TensorFlow Lite has no bfloat16.

    Args:
        model: `SSD`.
        path: file to write, as a whole or not at all.
    """
    module = _Detector(_in_float32(model))
    images = tf.TensorSpec((1, None, None, 3), tf.float32, name="images")
    function = module.detect.get_concrete_function(images)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    with whole(path) as file:
        file.write_bytes(converter.convert())


def export_classifier(model, path, class_names, image_size, resized):
    """Write a classifier as a SavedModel.

    The loaded object is called on uint8 or float images `(batch, height, width,
    3)` of any size, pixels 0-255. Its signatures are `serving_default` (uint8),
    `float` (float32), both with the input `images`, and `class_names`, without
    input. The answer is a dictionary: `probabilities` float32 `(batch,
    classes)`, `classes` int32 `(batch,)`, the most probable one, and `names`
    `(batch,)`, its name.

    Args:
        model: `keras.Model` from pixels 0-255 `(batch, *image_size, 3)` to
            logits `(batch, classes)`, as `classifier` builds them.
        path: folder to write, as a whole or not at all.
        class_names: sequence of str.
        image_size: `(height, width)`, pixels: what the model gets.
        resized: `(height, width)`: what pictures are resized to before their
            middle is cut out, as `resized_size(image_size)`.
    """
    module = _Classifier(model, class_names, image_size, resized)
    signatures = {
        "serving_default": module.classify.get_concrete_function(_any_images(tf.uint8)),
        "float": module.classify.get_concrete_function(_any_images(tf.float32)),
        "class_names": module.names.get_concrete_function(),
    }
    with whole(path) as folder:
        tf.saved_model.save(module, str(folder), signatures)


def _any_images(dtype):
    return tf.TensorSpec((None, None, None, 3), dtype, name="images")


class _Detector(tf.Module):
    """`SSD.detect` and the class names, without the Python class."""

    def __init__(self, model):
        super().__init__()
        # Keras' objects would be saved with all their own functions; their variables are enough.
        self.model_variables = [variable.value for variable in model.variables]
        self.detect = tf.function(lambda images: _detect_in_pixels(model, images))
        self.names = tf.function(lambda: {"class_names": tf.constant(model.class_names)})
        self.__call__ = self.detect


def _in_float32(model):
    if model.compute_dtype == "float32":
        return model
    twin = type(model).from_config({**model.get_config(), "dtype": "float32"})
    twin.set_weights(model.get_weights())
    twin.decoder = model.decoder
    return twin


class _Classifier(tf.Module):
    """Cutting, the model and the class names, without the Python class."""

    def __init__(self, model, class_names, image_size, resized):
        super().__init__()
        self.model_variables = [variable.value for variable in model.variables]

        def classify(images):
            pixels = resize_and_center_crop(images, resized, image_size)
            probabilities = tf.nn.softmax(model(pixels, training=False))  # (batch, classes)
            classes = tf.argmax(probabilities, axis=-1, output_type=tf.int32)  # (batch,)
            names = tf.gather(tf.constant(list(class_names)), classes)
            return {"probabilities": probabilities, "classes": classes, "names": names}

        self.classify = tf.function(classify)
        self.names = tf.function(lambda: {"class_names": tf.constant(list(class_names))})
        self.__call__ = self.classify


def _detect_in_pixels(model, images):
    found = model.detect_batch(images)
    height, width = tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float32))
    found["boxes_px"] = found["boxes"] * tf.stack([width, height, width, height])
    return found
