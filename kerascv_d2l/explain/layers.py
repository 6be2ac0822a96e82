"""The inner layers of any model: found by name, and their outputs recorded while it runs.

`keras.Model(model.inputs, layer.output)` fails for Sequential and nested models and for
subclasses. What a layer returns while the model is called is there for all of them.
"""

import collections
import contextlib

import keras

from kerascv_d2l.errors import InputError, first_of


def inner_layers(model):
    """List the layers of a model, those of nested models too.

    Args:
        model: `keras.Model`.

    Returns:
        dict from the path of a layer, the names of all models and layers around it and its own
        with "/" between them, to the layer.
    """
    found, seen = {}, {id(model)}

    def visit(layer, path):
        for child in layer._flatten_layers(include_self=False, recursive=False):
            if id(child) not in seen:
                seen.add(id(child))
                # Sequential has a functional model inside, which nobody named.
                inside = isinstance(layer, keras.Sequential) and isinstance(child, keras.Model)
                hidden = inside and child not in layer.layers
                name = path if hidden else (*path, child.name)
                if not hidden:
                    found["/".join(name)] = child
                visit(child, name)

    visit(model, ())
    return found


def find_layer(model, name):
    """Find a layer by its name, or by the end of its path.

    Args:
        model: `keras.Model`.
        name: str, such as "layer4_1_conv2" or "base/conv2d_3".

    Returns:
        str: its path, a key of `inner_layers`.

    Raises:
        InputError: if there is none, or several.
    """
    paths = inner_layers(model)
    if name in paths:
        return name
    matching = [path for path in paths if path.endswith(f"/{name}")]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise InputError(f"layer {name!r}: there are several: {first_of(matching)}")
    raise InputError(f"layer {name!r}: the model has none of that name. It has {first_of(paths)}")


@contextlib.contextmanager
def recording(model, paths=None):
    """Record what inner layers return while the model is called in the block.

    Args:
        model: `keras.Model`; other threads must not call it meanwhile.
        paths: keys of `inner_layers`, or None for all.

    Yields:
        dict, path to the tensor that the layer returned last, in the order in which layers were
        done. Layers that returned several tensors or were not called are left out.
    """
    layers = inner_layers(model)
    outputs = collections.OrderedDict()
    with contextlib.ExitStack() as stack:
        for path in layers if paths is None else paths:
            layer = layers[path]
            original = layer.call

            def call(*args, _original=original, _path=path, **kwargs):
                result = _original(*args, **kwargs)
                if hasattr(result, "shape"):
                    outputs[_path] = result
                    outputs.move_to_end(_path)
                return result

            stack.enter_context(_replaced(layer, call))
        yield outputs


@contextlib.contextmanager
def logits(model):
    """Take the softmax away with which a classifier ends, inside the block.

    Its gradient vanishes where the network is certain, and it mixes the scores of all classes.
    """
    layer = _output_layer(model)
    with contextlib.ExitStack() as stack:
        if isinstance(layer, keras.layers.Softmax):
            stack.enter_context(_replaced(layer, lambda inputs, *_, **__: inputs))
        elif getattr(layer, "activation", None) is keras.activations.softmax:
            stack.enter_context(_activation(layer, keras.activations.linear))
        yield


def _output_layer(model):
    """The layer whose output is the model's, or None where that cannot be told."""
    while isinstance(model, keras.Model):
        if isinstance(model, keras.Sequential):
            model = model.layers[-1]
        elif len(getattr(model, "outputs", None) or ()) == 1:
            model = model.outputs[0]._keras_history.operation
        else:
            return None
    return model


@contextlib.contextmanager
def _replaced(layer, call):
    # Past Keras' own bookkeeping of attributes; an attribute of the instance hides the method.
    before = layer.__dict__.get("call")
    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")
        if before is not None:
            object.__setattr__(layer, "call", before)


@contextlib.contextmanager
def _activation(layer, function):
    before = layer.activation
    layer.activation = function
    try:
        yield
    finally:
        layer.activation = before
