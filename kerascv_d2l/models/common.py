"""What models of all tasks share: names of classes, and the precision that layers are made with."""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError, first_of
from kerascv_d2l.ops.checks import check_fraction, check_whole

SCORE_THRESHOLD = 0.5  # from which on detections are believed, unless a model says otherwise
_PROBE_SIZE = 256  # pixels, a multiple of all strides


class BuiltModel:
    """Comes before `keras.Model` among bases: labels may have bools, on several devices too.

    It is no Model itself: Keras gives all bases of a functional model that are one another base.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras (checked in 3.15) adds up a batch over the devices here to build the model by it;
        # bools cannot be added, and this model is built.
        if not self.built:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)


def any_images(dtype=tf.float32, batch=None):
    """Give the signature of images of any size: `(batch, height, width, 3)`, named `images`."""
    return tf.TensorSpec((batch, None, None, 3), dtype, name="images")


def as_class_names(class_names):
    """Check the names of classes.

    Args:
        class_names: sequence of str; or int, their number, for the names "0", "1", ...

    Returns:
        tuple of str.

    Raises:
        InputError: if there is no name, or a name comes twice.
    """
    if isinstance(class_names, int):
        class_names = range(class_names)
    elif isinstance(class_names, str):
        raise InputError(f"class_names={class_names!r}: expected several names, or their number.")
    names = tuple(map(str, class_names))
    if not names:
        raise InputError("class_names: expected at least 1 name, got none.")
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"class_names: given more than once: {', '.join(twice)}.")
    return names


@contextlib.contextmanager
def dtype_scope(policy):
    """Make layers with a dtype policy, whatever the global one is.

    A model that stores its policy in its config is built in this scope, so that a loaded model
    computes as the saved one did.

    Args:
        policy: str, `keras.DTypePolicy` or its config; None for the global policy.

    Yields:
        `keras.DTypePolicy`: the one that holds.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(before if policy is None else keras.dtype_policies.get(policy))
    try:
        yield keras.config.dtype_policy()
    finally:
        keras.config.set_dtype_policy(before)


def in_float32(model):
    """Rebuild a model that uses mixed precision in float32.

    Args:
        model: built `keras.Model`.

    Returns:
        A model of the same class with the same weights; `model` itself if it computes in
        float32 already.
    """
    config = model.get_config()
    full = keras.tree.map_structure(
        lambda v: "float32" if isinstance(v, str) and v.startswith("mixed_") else v, config
    )
    if full == config:
        return model
    with dtype_scope("float32"):
        twin = type(model).from_config(full)
    twin.set_weights(model.get_weights())
    return twin


def freeze_batch_norm(network):
    """Let the batch norms of a network keep their statistics, scales and offsets."""
    for layer in _batch_norms(network):
        layer.trainable = False


def settle_batch_norm(network, weights, freeze=None):
    """Decide whether the batch norms of a backbone learn, and freeze them if not.

    Those of weights that have no statistics (mean 0 and variance 1 in all: they were folded into
    the scales and offsets) are always frozen: with the statistics of a batch in their place the
    network would compute something else.

    Args:
        network: built `keras.Model`.
        weights: what it has been given: None (random), a name or a path.
        freeze: bool, or None for where there are weights.

    Returns:
        bool: whether they are frozen.
    """
    given = weights is not None
    frozen = given if freeze is None else bool(freeze)
    frozen = frozen or (given and not any(np.any(n.moving_mean) for n in _batch_norms(network)))
    if frozen:
        freeze_batch_norm(network)
    return frozen


def _batch_norms(network):
    return [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]


def freeze_up_to(network, stride):
    """Let the layers of a network keep their weights whose maps are not coarser than a stride.

    What a network sees at first, edges and colours, is the same in all photographs, and the
    gradient of the largest maps costs the most.

    Args:
        network: functional `keras.Model` of one image input of any size.
        stride: int, pixels; 0 for none of the layers.
    """
    layers = [layer for layer in network.layers if layer.weights]
    maps = keras.Model(network.inputs, [layer.output for layer in layers])
    shapes = maps.compute_output_shape((1, _PROBE_SIZE, _PROBE_SIZE, 3))
    for layer, shape in zip(layers, shapes, strict=True):
        if shape[1] * stride >= _PROBE_SIZE:
            layer.trainable = False


def settings_of(kind, given, name):
    """Make a dataclass of settings.

    Args:
        kind: the dataclass.
        given: one of its kind, a dict of some of its fields, or None for its defaults.
        name: str, the argument's, for the message.

    Returns:
        `kind`.

    Raises:
        InputError: if the dict has other keys.
    """
    given = dataclasses.asdict(given) if dataclasses.is_dataclass(given) else given or {}
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise InputError(f"{name} has {first_of(unknown)}; expected some of {', '.join(known)}.")
    return kind(**given)


def check_settings(settings, fractions):
    """Raise `InputError` unless the fields named are in [0, 1] and the others ints from 1 on."""
    for name, value in dataclasses.asdict(settings).items():
        if name in fractions:
            check_fraction(value, name)
        else:
            check_whole(1, **{name: value})
