"""Models as files that need nothing but TensorFlow: SavedModel and TensorFlow Lite.

What leaves here takes pictures as they are (pixels 0-255, any size) and answers
in their own frame; resizing and scaling are inside.
"""

import tempfile

import keras
import tensorflow as tf

from kerascv_d2l.files import whole
from kerascv_d2l.models.segmenter import OVERLAP, WINDOW, Segmenter
from kerascv_d2l.ops.geometry import resize_and_center_crop
from kerascv_d2l.ops.segmentation import class_map


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


def export_segmenter(
    model,
    path,
    class_names,
    colors,
    window=WINDOW,
    overlap=OVERLAP,
    windows_at_a_time=4,
    flip=False,
):
    """Write a segmentation network as a SavedModel that takes pictures of any size.

    Inside are the windows of `Segmenter`, a few at a time, so memory grows
    little with the picture. The loaded object is called on uint8 or float
    images `(batch, height, width, 3)`, pixels 0-255, and answers with a
    dictionary: `class_map`, int32 `(batch, height, width)`. Its method `scores`
    answers with `scores` besides, float32 `(batch, height, width, classes)`
    before the softmax.

    Signatures: `serving_default` (uint8), `float` (float32), `scores` (uint8),
    `float_scores` (float32), all with the input `images`; and without input
    `class_names`, and `colors`, uint8 `(classes, 3)`, RGB.

    Args:
        model: `keras.Model` from pixels 0-255 to scores, as `FCN`.
        path: folder to write, as a whole or not at all.
        class_names: sequence of str.
        colors: RGB 0-255 `(classes, 3)`, to draw the classes in.
        window: as for `Segmenter`.
        overlap: as for `Segmenter`.
        windows_at_a_time: as for `Segmenter`.
        flip: as for `Segmenter`.
    """
    # One function for all four: tracing the network takes most of the time.
    score = tf.function(
        lambda windows: model(windows, training=False),
        input_signature=[_any_images(tf.float32)],
        autograph=False,
    )
    segment = Segmenter(
        lambda windows: score(tf.cast(windows, tf.float32)),
        window,
        overlap,
        windows_at_a_time,
        flip,
        stride=model.size_multiple,
        num_classes=len(class_names),
    )
    module = _SegmenterModule(model, segment, class_names, colors)
    signatures = {
        "serving_default": module.segment.get_concrete_function(_any_images(tf.uint8)),
        "float": module.segment.get_concrete_function(_any_images(tf.float32)),
        "scores": module.scores.get_concrete_function(_any_images(tf.uint8)),
        "float_scores": module.scores.get_concrete_function(_any_images(tf.float32)),
        "class_names": module.names.get_concrete_function(),
        "colors": module.palette.get_concrete_function(),
    }
    with whole(path) as folder:
        tf.saved_model.save(module, str(folder), signatures)


def export_segmenter_lite(model, path, image_size):
    """Write a segmentation network as a TensorFlow Lite file, for one image of a fixed size.

    The input `images` is float32 `(1, *image_size, 3)`, pixels 0-255; the outputs
    are `class_map`, int32 `(1, *image_size)`, and `scores`, float32 `(1,
    *image_size, classes)`, before the softmax. It has builtin operators only and
    computes in float32.

    Args:
        model: `FCN` or `UNet`.
        path: file to write, as a whole or not at all.
        image_size: `(height, width)`, pixels.
    """
    model = _rebuilt_in_float32(model)
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]

    def answer(images):
        scores = model(images, training=False)
        return {"class_map": class_map(scores), "scores": scores}

    images = tf.TensorSpec((1, *image_size, 3), tf.float32, name="images")
    module.segment = tf.function(answer, autograph=False)
    function = module.segment.get_concrete_function(images)
    # A concrete function straight into the converter keeps its variables alive and unfrozen.
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {"serving_default": function})
        content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    with whole(path) as file:
        file.write_bytes(content)


def export_stylizer(model, path):
    """Write a feed-forward network of style transfer as a SavedModel.

    The loaded object is called on uint8 or float images `(batch, height, width,
    3)` of any size, pixels 0-255. Its signatures are `serving_default` (uint8)
    and `float` (float32), both with the input `images`. The answer is a
    dictionary: `pictures` uint8, of the same shape.

    Args:
        model: `keras.Model` from pixels 0-255 to pixels 0-255 of the same
            height and width, as `transformer_net` builds it.
        path: folder to write, as a whole or not at all.
    """
    module = _Stylizer(model)
    signatures = {
        "serving_default": module.stylize.get_concrete_function(_any_images(tf.uint8)),
        "float": module.stylize.get_concrete_function(_any_images(tf.float32)),
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


class _SegmenterModule(tf.Module):
    """Windows, the model, names and colours, without the Python classes."""

    def __init__(self, model, segment, class_names, colors):
        super().__init__()
        self.model_variables = [variable.value for variable in model.variables]

        def only_classes(images):
            return {"class_map": segment.segment(images)}

        def with_scores(images):
            classes, scores = segment.segment(images, return_scores=True)
            return {"class_map": classes, "scores": scores}

        self.segment = tf.function(only_classes, autograph=False)
        self.scores = tf.function(with_scores, autograph=False)
        self.names = tf.function(lambda: {"class_names": tf.constant(list(class_names))})
        self.palette = tf.function(lambda: {"colors": tf.constant(colors, tf.uint8)})
        self.__call__ = self.segment


class _Stylizer(tf.Module):
    """The model and rounding, without the Python class."""

    def __init__(self, model):
        super().__init__()
        self.model_variables = [variable.value for variable in model.variables]

        def stylize(images):
            pixels = tf.clip_by_value(tf.round(model(images, training=False)), 0, 255)
            return {"pictures": tf.cast(pixels, tf.uint8)}

        self.stylize = tf.function(stylize)
        self.__call__ = self.stylize


def _rebuilt_in_float32(model):
    """The same network without 16-bit arithmetic; itself if it has none."""
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        twin = type(model).from_config(_in_full(model.get_config()))
    finally:
        keras.config.set_dtype_policy(policy)
    twin.set_weights(model.get_weights())
    return twin


def _in_full(config):
    """A configuration with `float32` in place of every mixed policy."""
    if isinstance(config, dict):
        return {key: _in_full(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_in_full(value) for value in config)
    return "float32" if config in ("mixed_bfloat16", "mixed_float16") else config


def _detect_in_pixels(model, images):
    found = model.detect_batch(images)
    height, width = tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float32))
    found["boxes_px"] = found["boxes"] * tf.stack([width, height, width, height])
    return found
