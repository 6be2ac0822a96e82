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
    import tensorflow as tf  # here, so that a script can import it quietly first

    if not (Path(path) / "saved_model.pb").is_file():
        raise InputError(
            f"{path} is no SavedModel (it has no saved_model.pb): give the folder saved_model/ "
            f"that {script} wrote"
        )
    try:
        model = tf.saved_model.load(str(path))
        names = model.signatures["class_names"]()["class_names"].numpy()
        getattr(model, function)  # is there
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

    def call(images):
        # Through the model: the function alone does not keep its variables alive.
        return getattr(model, function)(images)

    return call, [name.decode() for name in names]
