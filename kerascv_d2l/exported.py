"""Models that were exported, loaded again without the classes that made them."""

from pathlib import Path

from kerascv_d2l.errors import InputError


def load_exported(path, function, script):
    """Load what one of these functions wrote as a SavedModel.

    Args:
        path: the folder.
        function: str: "detect" or "classify".
        script: str: the script that writes such models, for the message.

    Returns:
        Tuple of that function, from images to a dictionary, and the class names.

    Raises:
        InputError: if it is something else.
    """
    model = _load(path, function, script, ("class_names",))
    names = model.signatures["class_names"]()["class_names"].numpy()

    def call(images):
        # Through the model: the function alone does not keep its variables alive.
        return getattr(model, function)(images)

    return call, [name.decode() for name in names]


def load_segmenter(path):
    """Load what `export_segmenter` wrote.

    Args:
        path: the folder.

    Returns:
        Tuple of a function from uint8 or float images `(batch, height, width, 3)`
        to class maps, int32 `(batch, height, width)`; the class names; and their
        colours, uint8 `(classes, 3)`.

    Raises:
        InputError: if it is something else.
    """
    model = _load(path, "segment", "train_fcn.py", ("class_names", "colors"))
    names = model.signatures["class_names"]()["class_names"].numpy()
    colors = model.signatures["colors"]()["colors"].numpy()

    def call(images):
        return model.segment(images)["class_map"]

    return call, [name.decode() for name in names], colors


def load_stylizer(path):
    """Load what `export_stylizer` wrote.

    Args:
        path: the folder.

    Returns:
        Function from uint8 or float images `(batch, height, width, 3)`, pixels
        0-255, to a dictionary with `pictures`, uint8 of the same shape.

    Raises:
        InputError: if it is something else.
    """
    model = _load(path, "stylize", "train_fast_style.py", ())
    return lambda images: model.stylize(images)  # keeps the model, and with it its variables


def _load(path, function, script, signatures):
    """A SavedModel with this function and these signatures."""
    import tensorflow as tf  # here, so that a script can import it quietly first

    if not (Path(path) / "saved_model.pb").is_file():
        raise InputError(
            f"{path} is no SavedModel (it has no saved_model.pb): give the folder saved_model/ "
            f"that {script} wrote"
        )
    try:
        model = tf.saved_model.load(str(path))
        for name in signatures:
            model.signatures[name]  # is there
        getattr(model, function)
        return model
    except (
        AttributeError,
        KeyError,
        OSError,
        ValueError,
        RuntimeError,
        tf.errors.OpError,
    ) as error:
        raise InputError(
            f"{path} is no model that {script} exported ({str(error)[:200]})"
        ) from error
