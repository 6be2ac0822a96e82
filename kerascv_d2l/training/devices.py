"""Devices: which ones a model trains on, and what keeps several of them together.

A batch size is always that of all devices together: `tf.distribute` splits a batch into one
part for each, averages the gradients, and so the learning rate keeps its meaning when devices
are added. Training batches are all full; evaluation counts every image once.

TensorFlow is imported inside the functions: `--help` must not wait for it.
"""

import contextlib
import re
from pathlib import Path

from kerascv_d2l.errors import InputError

DEVICES_HELP = (
    "what to train on: auto (all GPUs if there are any, else the CPU), cpu, a number of GPUs, "
    "or cpu:N (the CPU as N logical devices, to try out how several behave)"
)


def parse_devices(devices):
    """Read a choice of devices.

    Args:
        devices: `"auto"`, `"cpu"`, `"N"` or N (that many GPUs), `"cpu:N"`.

    Returns:
        `("auto", None)`, `("gpu", n)` or `("cpu", n)`.

    Raises:
        InputError: if it is none of these.
    """
    text = str(devices).strip().lower()
    if text == "auto":
        return "auto", None
    if text == "cpu":
        return "cpu", 1
    if found := re.fullmatch(r"(cpu:)?([1-9]\d*)", text):
        return "cpu" if found[1] else "gpu", int(found[2])
    raise InputError(
        f"devices: expected auto, cpu, a number of GPUs (1 or more) or cpu:N, got {devices!r}"
    )


def make_strategy(devices="auto"):
    """Make the `tf.distribute` strategy for the chosen devices.

    Build and compile the model inside `strategy.scope()`; everything else of a script is the
    same for one device and for several. Where `TF_CONFIG` describes a cluster of machines, this
    process joins it (`training.cluster`) with all the devices it has.

    Args:
        devices: see `parse_devices`. `cpu:N` and hiding GPUs only work while TensorFlow has not
            yet used a device.

    Returns:
        `tf.distribute.MirroredStrategy` for several devices; for one, the default strategy,
        whose `scope()` does nothing; `MultiWorkerStrategy` for a cluster.

    Raises:
        InputError: if there are fewer GPUs than asked for, or `cpu:N` comes after TensorFlow
            has been used, or the cluster cannot be joined.
    """
    kind, count = parse_devices(devices)
    import tensorflow as tf

    from kerascv_d2l.training import cluster

    if len(cluster.read_cluster()[1]) > 1:
        if kind != "auto":
            raise InputError(
                f"devices {devices}: with {cluster.TF_CONFIG} each worker uses all it has; "
                "leave it out"
            )
        return cluster.make_multi_worker_strategy()
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto":
        kind, count = ("gpu", len(gpus)) if gpus else ("cpu", 1)
    if kind == "gpu":
        return _gpu_strategy(gpus, count, devices)
    return _cpu_strategy(gpus, count, devices)


def describe_strategy(strategy):
    """Say in a few words what a strategy trains on, such as `2 GPUs` or `the CPU`."""
    import tensorflow as tf

    count = strategy.num_replicas_in_sync
    if strategy.cluster_resolver is not None:
        local = len(strategy.extended.worker_devices)
        return f"{count // local} workers, {count} devices"
    # A default strategy does not know its device: it is the first GPU if TensorFlow sees one.
    if count == 1:
        return "1 GPU" if tf.config.get_visible_devices("GPU") else "the CPU"
    if "GPU" in strategy.extended.worker_devices[0].upper():
        return f"{count} GPUs"
    return f"the CPU as {count} logical devices"


def has_bfloat16():
    """Whether the CPU multiplies bfloat16 itself: a training then takes some 0.6 of the time."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16)\b", flags) is not None


def check_batch_size(batch_size, strategy):
    """Raise if `batch_size` is not a multiple of the number of devices.

    Keras 3.15 adds up the devices' parts of the first batch, to learn its shapes, and fails
    where they differ.

    Raises:
        InputError: as above.
    """
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise InputError(
            f"batch_size {batch_size} is that of all devices together, and there are {count} of "
            f"them: give a multiple of {count}"
        )


def evaluation_batch_size(num_images, batch_size, strategy):
    """Find a batch size with which every device gets images of every batch, the last one too.

    A device without an image fails or makes NaN of batch norm. Metrics do not depend on where the
    batches end. (Losses that are means over objects, not images, do: each batch counts by its
    images.)

    Args:
        num_images: int, images to evaluate.
        batch_size: int, images in a batch, on all devices together.
        strategy: `tf.distribute.Strategy`.

    Returns:
        `batch_size` where it will do, as always on one device; otherwise the largest multiple of
        the number of devices below that will, or the smallest above.

    Raises:
        InputError: if there are too few images to split among the devices.
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return batch_size
    largest = batch_size - batch_size % count
    for size in (*range(largest, 0, -count), *range(largest + count, num_images + 1, count)):
        # A batch is split as if it were full: the first devices get their full part.
        last = (num_images - 1) % size + 1
        if num_images >= size and last > (count - 1) * (size // count):
            return size
    raise InputError(
        f"{num_images} images for validation cannot be split among {count} devices: take one "
        "image more or less, or fewer devices"
    )


def evaluation_batches(split, image_size, batch_size, strategy, **options):
    """Make batches to evaluate with, every image once, of which all devices always have some.

    Args:
        split: `Split`.
        image_size: as for `data.batches`.
        batch_size: int, images in a batch, on all devices together; another where it must be.
        strategy: `tf.distribute.Strategy`.
        **options: as for `data.batches`.

    Returns:
        `tf.data.Dataset`, as `data.batches`.

    Raises:
        InputError: if there are too few images to split among the devices.
    """
    from kerascv_d2l.data.batches import batches, prefetched

    try:
        size = evaluation_batch_size(len(split), batch_size, strategy)
    except InputError:
        sizes = _uneven(len(split), batch_size, strategy.num_replicas_in_sync)
        if sizes is None or strategy.cluster_resolver is not None:
            raise
        size, last = sizes
        parts = (range(len(split) - last), size), (range(len(split) - last, len(split)), last)
        first, rest = (
            batches(split.subset(indices), image_size, n, **options) for indices, n in parts
        )
        return prefetched(first.concatenate(rest))
    return batches(split, image_size, size, **options)


def _uneven(num_images, batch_size, count):
    """`(size of all batches but the last, size of the last)`, or None.

    Where batches have no common size, tf.distribute splits each by itself: the parts are as large
    as possible, and the last device has the rest.
    """
    found = [
        (last, -size)
        for size in range(count, batch_size + 1, count)
        for last in range(num_images % size, num_images - size + 1, size)
        if last > (count - 1) * -(-last // count) > 0
    ]
    last, size = min(found, default=(0, 0))
    return (-size, last) if found else None


def average_replicas(model):
    """Give all devices the mean of their batch-norm statistics.

    Under Keras 3.15 the moving statistics of plain batch norm (`synchronized` False) drift
    apart: each device keeps its own, `evaluate` uses all of them, and saving keeps those of the
    first device only. After this call the model that is evaluated is the model that is saved.
    Nothing happens on one device.
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    if strategy.cluster_resolver is not None:
        _average_workers(model, strategy)
        return
    import numpy as np

    with strategy.scope():
        for variable in model.non_trainable_variables:
            values = [v.numpy() for v in strategy.experimental_local_results(variable.value)]
            if any(not np.array_equal(values[0], value) for value in values[1:]):
                variable.assign(np.mean(values, axis=0, dtype=np.float64))


def _average_workers(model, strategy):
    """`average_replicas` over machines: all of them call it, and for the same variables."""
    import keras

    with strategy.scope():
        for variable in model.non_trainable_variables:
            if keras.backend.is_float_dtype(variable.dtype):
                parts = strategy.run(lambda variable=variable: variable.value + 0)
                variable.assign(strategy.reduce("MEAN", parts, axis=None))


def synchronize_batch_norm(model):
    """Let batch norm take its statistics over the images of all devices together.

    Plain batch norm takes them over its device's part of a batch: with few images a device they
    are rough, and the result depends on the number of devices. Synchronised, it computes what
    one device computes. Call it before `fit`; nothing changes on one device.

    Args:
        model: `keras.Model`, changed in place.

    Returns:
        int, the number of layers that were changed.
    """
    import keras

    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
    ]
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return 0
    for layer in layers:
        layer.synchronized = True
    return len(layers)


def _gpu_strategy(gpus, count, devices):
    import tensorflow as tf

    if count > len(gpus):
        have = {0: "no GPU", 1: "one GPU"}.get(len(gpus), f"{len(gpus)} GPUs")
        how = (
            "a smaller number, auto or cpu" if gpus else f"auto or cpu (cpu:{count} to try it out)"
        )
        raise InputError(
            f"devices {devices} asks for {count} GPUs, but TensorFlow finds {have} on this "
            f"machine: give {how}"
        )
    # TensorFlow takes the memory of every GPU it sees, used or not. Once they are in use it is
    # too late to hide some, but the choice below still holds.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices(gpus[:count], "GPU")
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)])


def _cpu_strategy(gpus, count, devices):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    now = tf.config.get_logical_device_configuration(cpu)
    try:
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        if count > 1 and len(now or ()) != count:
            parts = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(cpu, parts)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"devices {devices} comes too late: TensorFlow has already been used in this process "
            "and keeps the devices it started with. Start a new process (in a notebook: restart "
            "the kernel) and choose devices first"
        ) from error
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
