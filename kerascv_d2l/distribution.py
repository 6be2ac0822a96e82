"""Choosing the devices that a model trains on.

`--batch-size` is always the global batch: `tf.distribute` cuts it into one
part a device, averages the gradients, and so the learning rate keeps its
meaning when devices are added.

TensorFlow is imported inside the functions: parsing `--devices` and answering
`--help` must not wait for it.
"""

import contextlib
import re
from typing import NamedTuple

from kerascv_d2l.errors import InputError

DEVICES_HELP = (
    "what to train on: auto (all GPUs if there are any, else the CPU), cpu, a number of GPUs, "
    "or cpu:N (the CPU as N logical devices, to try out how several behave)"
)


def parse_devices(devices):
    """Read the value of `--devices`.

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
    found = re.fullmatch(r"(?P<cpu>cpu)?(?P<colon>:)?(?P<count>[1-9]\d*)?", text)
    if found and text:
        cpu, colon, count = found["cpu"], found["colon"], found["count"]
        if cpu and bool(colon) == bool(count):  # cpu, cpu:2
            return "cpu", int(count or 1)
        if not cpu and not colon:
            return "gpu", int(count)
    raise InputError(
        f"--devices: expected auto, cpu, a number of GPUs (1 or more) or cpu:N, got {devices!r}"
    )


def make_strategy(devices="auto"):
    """Make the `tf.distribute` strategy for the chosen devices.

    Build and compile the model inside `strategy.scope()`; everything else of a
    script is the same for one device and for several.

    Args:
        devices: see `parse_devices`. `cpu:N` and hiding GPUs only work while
            TensorFlow has not yet used a device.

    Returns:
        `tf.distribute.MirroredStrategy` for several devices; for one, the
        default strategy, whose `scope()` does nothing.

    Raises:
        InputError: if there are fewer GPUs than asked for, or `cpu:N` comes
            after TensorFlow has been used.
    """
    import tensorflow as tf

    kind, count = parse_devices(devices)
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


def check_batch_size(batch_size, strategy):
    """Refuse a global batch that devices cannot share out evenly.

    Keras 3.15 adds up what the devices have of the first batch, to learn its
    shapes, and ends where their parts differ.

    Raises:
        InputError: if `batch_size` is no multiple of the number of devices.
    """
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise InputError(
            f"--batch-size {batch_size} is the batch of all devices together and there are {count} "
            f"of them: give a multiple of {count}"
        )


class Epoch(NamedTuple):
    """The batches of a training epoch.

    Attributes:
        steps: int, how many there are.
        images: int, how many images they hold together.
        drop_remainder: bool, whether images are left over for which there is no batch.
    """

    steps: int
    images: int
    drop_remainder: bool


def plan_epoch(num_images, batch_size, strategy):
    """Say which batches an epoch of training has, so that each device gets a part of every one.

    On one device the last batch is as small as it comes out. Where several devices could not
    share it out (`check_last_batch` says why they must) it is left out; the next epoch, in
    another order, leaves out others. That is said on screen.

    Args:
        num_images: int, images to train on.
        batch_size: int, images in a batch, on all devices together.
        strategy: `tf.distribute.Strategy`.

    Returns:
        `Epoch`.

    Raises:
        InputError: if there is not even one batch that can be shared out.
    """
    count = strategy.num_replicas_in_sync
    full, last = divmod(num_images, batch_size)
    if not last or _can_share_out(num_images, batch_size, last, count):
        return Epoch(full + bool(last), num_images, False)
    if not full:
        raise InputError(
            f"--batch-size {batch_size}: {num_images} images to train on are not one whole batch, "
            f"which is what {count} devices need: give a smaller batch size"
        )
    print(
        f"each epoch leaves out {last} of {num_images} images, others each time: {count} devices "
        f"cannot share out so small a last batch",
        flush=True,
    )
    return Epoch(full, full * batch_size, True)


def check_last_batch(model, num_images, steps, batch_size):
    """Refuse a last batch of an epoch so small that a device gets no image of it.

    Plain batch norm makes NaN of a device's empty part, and with it of every weight; and
    TensorFlow's convolutions for CPUs give an empty part the shape of their input, on
    which the next layer ends the run.

    Args:
        model: `keras.Model`, made in the scope of its strategy.
        num_images: images in an epoch.
        steps: batches in an epoch.
        batch_size: images in a whole batch, on all devices together.

    Raises:
        InputError: if a device would be left without an image.
    """
    count = model.distribute_strategy.num_replicas_in_sync
    last = num_images - (steps - 1) * batch_size
    if not _can_share_out(num_images, batch_size, last, count):
        raise InputError(
            f"--batch-size {batch_size} leaves {last} of {num_images} images for the last batch "
            f"of an epoch, which leaves a device without any, or, of a single batch, with fewer "
            f"({count} devices, {-(-batch_size // count)} images each): give another batch size"
        )


def evaluation_batch_size(num_images, batch_size, strategy):
    """Find a batch size with which every device gets a part of every batch, the last one too.

    What `evaluate` finds does not depend on where the batches end. `check_last_batch` says
    why a device must not be left without an image.

    Args:
        num_images: int, images to evaluate.
        batch_size: int, images in a batch, on all devices together.
        strategy: `tf.distribute.Strategy`.

    Returns:
        `batch_size` where it will do, as always on one device; otherwise the largest multiple of
        the number of devices below that will, or the smallest above.

    Raises:
        InputError: if there are too few images to share them out.
    """
    count = strategy.num_replicas_in_sync
    largest = batch_size - batch_size % count
    for size in (*range(largest, 0, -count), *range(largest + count, num_images + 1, count)):
        if _can_share_out(num_images, size, (num_images - 1) % size + 1, count):
            return size
    raise InputError(
        f"{num_images} images to test on cannot be shared out among {count} devices: take one "
        "image more or less, or fewer devices"
    )


def _can_share_out(num_images, batch_size, last, count):
    """Whether `count` devices each get images of the last batch, and as many of the first."""
    if count == 1:
        return True
    # A batch is cut as if it were whole: the first devices get their full part.
    return num_images >= batch_size and last > (count - 1) * -(-batch_size // count)


def average_replicas(model):
    """Give all devices the mean of what each has counted for itself.

    Under Keras 3.15 the moving statistics of plain batch norm (`synchronized`
    False) drift apart: each device keeps its own, `evaluate` uses all of them,
    and saving keeps those of the first device only. After this call the model
    that is evaluated is the model that is saved. Nothing happens on one device.
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

    Plain batch norm takes them over the part of a batch that its device has; with
    few images a device they are rough, and the result depends on the number of
    devices. Synchronised, it computes what one device computes. Call it before
    `fit`; nothing changes on one device.

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
        raise InputError(
            f"--devices {devices} asks for {count} GPUs, but TensorFlow finds {have} on this "
            "machine: give a smaller number, auto or cpu"
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

    if gpus:
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError as error:
            raise InputError(
                f"--devices {devices} comes too late: this process already uses a GPU. "
                "Start a new process (in a notebook: restart the kernel) and choose devices first"
            ) from error
    if count == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    now = tf.config.get_logical_device_configuration(cpu)
    if len(now or ()) != count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"--devices {devices} comes too late: TensorFlow has already been used in this "
                "process and keeps the devices it started with. Start a new process (in a "
                "notebook: restart the kernel) and choose devices first"
            ) from error
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
