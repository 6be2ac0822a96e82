"""What the machine's devices make worthwhile."""

import tensorflow as tf


def resolve_jit_compile(jit_compile):
    """Resolve `jit_compile="auto"` to XLA on GPUs only.

    Keras' own "auto" compiles everywhere. On a CPU, XLA leaves out oneDNN's
    convolutions: a training step of TinySSD took 3 times as long with it
    (1.8 s against 0.6 s, batch 32 at 256 × 256 on two cores).

    Args:
        jit_compile: bool or "auto".

    Returns:
        bool.
    """
    if jit_compile == "auto":
        return bool(tf.config.list_logical_devices("GPU"))
    return bool(jit_compile)


def sum_over_replicas(value):
    """Sum a tensor over all devices that take part in a training step.

    Args:
        value: tensor of any shape; no gradient flows through the sum.

    Returns:
        the same shape; `value` itself on one device and outside of a step.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(value))


def replica_slice(draw, count):
    """Draw random numbers for the images of this device, so that all devices have what one has.

    Args:
        draw: function of a number of images to a tensor `(images, ...)`. Every device calls it
            for the images of all of them, with the same seed.
        count: int or int32 scalar, images of this device; all devices have as many.

    Returns:
        `(count, ...)`, the part of this device.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return draw(count)
    start = tf.cast(context.replica_id_in_sync_group, tf.int32) * count
    return draw(count * context.num_replicas_in_sync)[start : start + count]


def without_autograph(function):
    """Keep AutoGraph from a function that builds graphs, of which it would double the time.

    The package has no Python `if` and `for` over tensors, which AutoGraph is for.

    Args:
        function: function to give to `tf.data.Dataset.map`, or one that others give to it.

    Returns:
        The same function for its callers.
    """
    return tf.autograph.experimental.do_not_convert(function)


def map_batch(function, elements, **options):
    """Map a function over the images of a batch: `tf.map_fn`, which leaves nothing behind.

    `tf.map_fn` changes the scope of variables while it traces, and does not change it back if
    `function` raises: later `strategy.scope()` fails in this process (TensorFlow 2.21).

    Args:
        function: function of the elements of one image.
        elements: tensors `(batch, ...)`, in any structure.
        **options: as for `tf.map_fn`.

    Returns:
        As `tf.map_fn`.
    """
    if tf.executing_eagerly():
        return tf.map_fn(function, elements, **options)
    scope = tf.compat.v1.get_variable_scope()
    before = scope.caching_device
    try:
        return tf.map_fn(function, elements, **options)
    finally:
        scope.set_caching_device(before)
