"""Models as files: SavedModels and TensorFlow Lite files that need TensorFlow only, and `.keras`.

What is exported takes images as they are (pixels 0-255, any size) and answers in their own
frame; resizing and scaling are inside. A model says what it offers by its method `endpoints`:
a dict from names to pairs of a function of tensors and its signature, a tuple of
`tf.TensorSpec`. The first one is the main one: `detect`, `classify`, `segment`, `stylize` or
`sample`. A function of images has them first, with the name `images`; others, as `sample` with
the numbers `n` and `seed`, are exported as they are.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.classes import register_classes
from kerascv_d2l.errors import InputError
from kerascv_d2l.files import check_for_tensorflow, whole, writing
from kerascv_d2l.models.common import SCORE_THRESHOLD, in_float32
from kerascv_d2l.ops.checks import as_image_size

_DTYPES = (tf.uint8, tf.float32, tf.float64)  # of images
_MOST_LETTERS = 300  # of TensorFlow's own message in ours


def save(model, path):
    """Write a model of any task as a SavedModel.

    The loaded object has the functions that the model's `endpoints` name (`detect`, `classify`,
    `segment` and `scores`, `stylize`, `sample`) and is itself the first one. They take uint8,
    float32 or float64 images `(batch, height, width, 3)` of any size. A function whose signature
    has float32 images is traced for these alone, one with uint8 for both, which saves memory
    where images are large.

    Signatures: `serving_default` (uint8) and `float` (float32), both with the input `images`;
    `NAME` and `float_NAME` for every further function; of one that takes no images only the first
    of the two; and without input `info` (`task`, the names of the `functions`, `predicts_masks`,
    `score_threshold`), `class_names`, and `colors` (uint8 `(classes, 3)`) if the model has them.

    Args:
        model: has `endpoints()`, `task` and `variables`; and `class_names` and `colors` if the
            task has them. All settings at this moment are exported.
        path: folder to write, as a whole or not at all.

    Raises:
        InputError: if the model has no endpoints, or TensorFlow takes the path for a pattern.
        WriteError: if it cannot be written, as on a full disk.
    """
    check_for_tensorflow(path)
    _check_exportable(model, str(type(model).__name__))
    module = tf.Module()
    # Keras' objects would be saved with all their own functions; their variables are enough.
    module.model_variables = [variable.value for variable in model.variables]
    signatures = {}
    for name, (function, signature) in model.endpoints().items():
        if _takes_images(signature):
            call, traces = _for_all_dtypes(function, signature)
        else:
            call = tf.function(_traced(function, signature), input_signature=signature)
            traces = {tf.uint8: call.get_concrete_function()}
        setattr(module, name, call)
        main = not signatures
        if main:
            module.__call__ = call
        signatures["serving_default" if main else name] = traces[tf.uint8]
        if tf.float32 in traces:
            signatures["float" if main else f"float_{name}"] = traces[tf.float32]
    for name, values in _facts(model).items():
        signatures[name] = _constant_function(values)
    with writing(path), whole(path) as folder:
        tf.saved_model.save(module, str(folder), signatures)


def _check_exportable(model, what):
    if not hasattr(model, "endpoints") or not hasattr(model, "task"):
        raise InputError(
            f"{what} is a model without a task and endpoints: expected a detector, classifier, "
            "segmentation or style network of this package, or a model with both."
        )


def _takes_images(signature):
    return signature[0].name == "images"


def _traced(function, signature):
    """Trace a function once: `tf.saved_model.save` would trace a `tf.function` anew."""
    call = tf.function(function, input_signature=signature, autograph=False)
    return call.get_concrete_function()


def _for_all_dtypes(function, signature):
    """Make a `tf.function` for images of every dtype, and its trace for each."""
    images, *others = signature
    # Traced once for each dtype that makes a difference, which takes most of the time.
    cores = {
        dtype: _traced(function, [tf.TensorSpec(images.shape, dtype), *others])
        for dtype in {images.dtype, tf.float32}
    }

    def any_dtype(images, *others):
        dtype = images.dtype if images.dtype in cores else tf.float32
        return cores[dtype](tf.cast(images, dtype), *others)

    call = tf.function(any_dtype, autograph=False)
    traces = {
        dtype: call.get_concrete_function(
            tf.TensorSpec(images.shape, dtype, name="images"), *others
        )
        for dtype in _DTYPES
    }
    return call, traces


def _facts(model):
    """What an export tells about itself: `{signature: {output: constant}}`."""
    facts = {"info": {"task": model.task, "functions": list(model.endpoints())}}
    facts["info"]["predicts_masks"] = getattr(model, "predicts_masks", False)
    facts["info"]["score_threshold"] = getattr(model, "score_threshold", SCORE_THRESHOLD)
    if getattr(model, "class_names", None):
        facts["class_names"] = {"class_names": list(model.class_names)}
    if getattr(model, "colors", None) is not None:
        facts["colors"] = {"colors": np.asarray(model.colors, np.uint8)}
    return facts


def _constant_function(values):
    function = tf.function(lambda: {key: tf.constant(value) for key, value in values.items()})
    return function.get_concrete_function()


def save_lite(model, path, image_size=None):
    """Write a detector, classifier or segmentation network as a TensorFlow Lite file.

    The file takes one image at a time, input `images`, float32 `(1, height, width, 3)`, pixels
    0-255, and starts with `image_size`. `resize_tensor_input` brings any other size, but for
    models with a `lite_endpoint`, which have this size alone: Faster and Mask R-CNN, and
    segmentation networks, whose outputs are those of `scores`: `class_map`, int32 `(1, height,
    width)`, and `scores`, float32 `(1, height, width, classes)`, in the same windows. Else the
    outputs are those of `save` (without text, which TensorFlow Lite does not have). The file has
    builtin operators only and computes in float32, also where the model does not: TensorFlow Lite
    has no bfloat16.

    Args:
        model: as for `save`.
        path: file to write, as a whole or not at all.
        image_size: `(height, width)`, pixels; None for the model's own `image_size`.

    Raises:
        InputError: if neither the argument nor the model gives an image size, or the model has
            no endpoints.
        WriteError: if it cannot be written, as on a full disk.
    """
    _check_exportable(model, str(type(model).__name__))
    size = image_size if image_size is not None else getattr(model, "image_size", None)
    if size is None:
        raise InputError("image_size=None, and the model has none: give (height, width).")
    size = as_image_size(size)
    model = in_float32(model)
    fixed = hasattr(model, "lite_endpoint")
    function = model.lite_endpoint() if fixed else next(iter(model.endpoints().values()))[0]

    def numbers(images):
        return {k: v for k, v in function(images).items() if v.dtype != tf.string}

    shape = (1, *size, 3) if fixed else (1, None, None, 3)
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    trace = _traced(numbers, [tf.TensorSpec(shape, tf.float32, name="images")])
    # A concrete function straight into the converter keeps its variables alive and unfrozen.
    with writing(tempfile.gettempdir()), tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {"serving_default": trace})
        content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    with writing(path), whole(path) as file:
        file.write_bytes(content if fixed else _starting_with(content, (1, *size, 3)))


def _starting_with(content, shape):
    """Set the shape that a TensorFlow Lite file's input has before it is resized."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shape = np.array(shape, np.int32)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


class LoadedModel:
    """A model that `load` has read, whatever it was written as.

    Call it, or one of its functions, on images `(batch, height, width, 3)`, pixels 0-255, uint8
    or float, of any size; `sample` takes two numbers, `decode` codes.

    Attributes:
        task: "detection", "classification", "segmentation", "style" or "generation".
        class_names: tuple of str, empty where the task has none.
        colors: uint8 `(classes, 3)`, RGB, or None where the task has none.
        functions: dict from names to functions; each is an attribute too.
        predicts_masks: bool: whether detections have `masks`.
        score_threshold: float, the score from which on detections are believed.
    """

    def __init__(
        self, task, class_names, colors, functions, predicts_masks=False,
        score_threshold=SCORE_THRESHOLD,
    ):  # fmt: skip
        self.task = task
        self.predicts_masks = bool(predicts_masks)
        self.score_threshold = round(float(score_threshold), 4)  # exported in float32
        self.class_names = tuple(class_names)
        self.colors = colors
        self.functions = functions
        for name, function in functions.items():
            setattr(self, name, function)

    def __call__(self, *inputs):
        """Give the answer of the first function, a dict of tensors."""
        return next(iter(self.functions.values()))(*inputs)


def load(path):
    """Load a model that `save` or a training script has written.

    Args:
        path: folder of a SavedModel, or `.keras` file.

    Returns:
        `LoadedModel`.

    Raises:
        InputError: if there is nothing, or it is something else.
    """
    path = Path(path)
    if path.is_dir():
        return _load_saved_model(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    if path.suffix != ".keras":
        raise InputError(f"{path}: expected a SavedModel (a folder) or a .keras file.")
    model = load_model(path, compile=False)
    _check_exportable(model, str(path))
    functions = {
        name: _on_any_inputs(function, signature)
        for name, (function, signature) in model.endpoints().items()
    }
    names = getattr(model, "class_names", None) or ()
    colors, masks = getattr(model, "colors", None), getattr(model, "predicts_masks", False)
    threshold = getattr(model, "score_threshold", SCORE_THRESHOLD)
    return LoadedModel(model.task, names, colors, functions, masks, threshold)


def _on_any_inputs(function, signature):
    call = tf.function(function, autograph=False, reduce_retracing=True)
    # A function whose signature has integer images takes any dtype itself.
    keep = _takes_images(signature) and signature[0].dtype != tf.float32

    def on_inputs(*inputs):
        tensors = [tf.convert_to_tensor(value) for value in inputs]
        casts = [tf.cast(t, s.dtype) for t, s in zip(tensors, signature, strict=True)]
        return call(*(tensors[:1] + casts[1:] if keep else casts))

    return on_inputs


def _load_saved_model(path):
    if not (path / "saved_model.pb").is_file():
        message = f"{path} is a folder without a model (it has no saved_model.pb)"
        if (path / "saved_model" / "saved_model.pb").is_file():
            raise InputError(f"{message}: give the folder {path / 'saved_model'}")
        raise InputError(f"{message}: give saved_model/ or model.keras of a run")
    check_for_tensorflow(path)
    try:
        model = tf.saved_model.load(str(path))
        facts = {
            name: {key: value.numpy() for key, value in model.signatures[name]().items()}
            for name in ("info", "class_names", "colors")
            if name in model.signatures
        }
        info = facts["info"]
        functions = {name.decode(): _by_traces(model, name.decode()) for name in info["functions"]}
        names = [name.decode() for name in facts.get("class_names", {}).get("class_names", ())]
        colors = facts.get("colors", {}).get("colors")
        # Exports of before have neither.
        masks = info.get("predicts_masks", False)
        threshold = info.get("score_threshold", SCORE_THRESHOLD)
        return LoadedModel(info["task"].decode(), names, colors, functions, masks, threshold)
    except (
        AttributeError,
        KeyError,
        OSError,
        RuntimeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        raise InputError(
            f"{path} is no SavedModel that this package wrote ({str(error)[:_MOST_LETTERS]})"
        ) from error


def _by_traces(model, name):
    """Make a function of the traces of a restored function, one for each dtype of its first input.

    The restored function itself is traced and optimised anew for every new shape of its inputs,
    which takes up to a second and 14 MB each (FCOS, TensorFlow 2.21); its traces take any shape.
    """
    restored = getattr(model, name)
    traces = {trace.inputs[0].dtype: trace for trace in restored.concrete_functions}

    def call(*inputs):
        dtype = tf.convert_to_tensor(inputs[0]).dtype
        trace = traces.get(dtype) or traces.get(tf.float32) or next(iter(traces.values()))
        wanted = zip(inputs, trace.inputs[: len(inputs)], strict=True)
        return trace(*(tf.cast(value, spec.dtype) for value, spec in wanted))

    # The traces alone do not keep the variables of the model alive.
    call.model = model
    return call


def load_model(path, **options):
    """Load a `.keras` file: `keras.saving.load_model`, with all classes of this package known.

    Keras itself finds layers, losses and metrics of this package only if they have been imported,
    and `import kerascv_d2l` imports nothing until it is used.

    Args:
        path: a `.keras` file.
        **options: as for `keras.saving.load_model`, such as `compile=False`.

    Returns:
        `keras.Model`.

    Raises:
        InputError: if the file is not there, or is no Keras model.
    """
    register_classes()
    try:
        return keras.saving.load_model(path, **options)
    except (KeyError, OSError, TypeError, ValueError) as error:  # Keras has all these for it
        reason = str(error)[:_MOST_LETTERS]
        raise InputError(f"{path} is no Keras model that can be loaded ({reason})") from error
