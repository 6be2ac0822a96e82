"""Training on several machines: one process on each, described by `TF_CONFIG`.

Under `tf.distribute.MultiWorkerMirroredStrategy` Keras 3.15's `fit` and `evaluate` end before the
first step, wherever a machine has one device. Both times Keras asks the strategy for a
reduction that it does not do: of the first batch, a tuple, to learn its shapes; and of the step's
figures, scalars, along their first axis, which they do not have. `MultiWorkerStrategy` answers
both as they are meant. Nothing of Keras is replaced.
"""

import json
import os

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError

TF_CONFIG = "TF_CONFIG"
_TOO_SMALL = (tf.uint8, tf.int8, tf.bool)  # what collective operations do not add up


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """`MultiWorkerMirroredStrategy` that Keras' `fit` can use."""

    def reduce(self, reduce_op, value, axis):
        """Reduce what each replica has to one value.

        Args:
            reduce_op: as for any strategy, `"SUM"` or `"MEAN"`.
            value: a value of each replica, or a tuple, list or dict of such.
            axis: axis to reduce as well, or None. Of scalars, which have none, it is left out.

        Returns:
            The same structure, of tensors that are the same on all machines.
        """
        if isinstance(value, (tuple, list, dict)):
            return tf.nest.map_structure(lambda part: self.reduce(reduce_op, part, axis), value)
        part = self.experimental_local_results(value)[0]
        scalar = getattr(part, "shape", None) is not None and part.shape.rank == 0
        if getattr(part, "dtype", None) in _TOO_SMALL:
            wide = self.run(lambda pixels: tf.cast(pixels, tf.int32), args=(value,))
            return tf.cast(super().reduce(reduce_op, wide, axis), part.dtype)
        return super().reduce(reduce_op, value, None if scalar else axis)


def read_cluster():
    """Read from `TF_CONFIG` which of how many workers this process is.

    Returns:
        `(index, count)`; `(0, 1)` where there is no `TF_CONFIG`.

    Raises:
        InputError: if it is there and cannot be understood.
    """
    text = os.environ.get(TF_CONFIG, "").strip()
    if not text:
        return 0, 1
    wanted = (
        '{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}, the '
        "same list on all machines, and each its own index"
    )
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        index = int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{TF_CONFIG} cannot be read ({error!r}); wanted {wanted}") from error
    if set(config["cluster"]) != {"worker"} or task.get("type") != "worker":
        raise InputError(f"{TF_CONFIG} has other jobs than worker; wanted {wanted}")
    if not isinstance(workers, list) or not 0 <= index < len(workers):
        raise InputError(f"{TF_CONFIG}: no worker {index} in {workers}; wanted {wanted}")
    return index, len(workers)


def make_multi_worker_strategy():
    """Join the cluster of `TF_CONFIG`; waits until all workers are there.

    Each machine uses all its GPUs, or its CPU. Call it before TensorFlow is used otherwise.

    Returns:
        `MultiWorkerStrategy`.

    Raises:
        InputError: if `TF_CONFIG` cannot be understood, or TensorFlow is in use already.
    """
    index, count = read_cluster()
    print(f"worker {index} of {count}: waiting for the others …", flush=True)
    try:
        return MultiWorkerStrategy()
    except RuntimeError as error:
        raise InputError(
            f"{TF_CONFIG} comes too late: TensorFlow has already been used in this process "
            f"({error})"
        ) from error


def share(strategy, array):
    """Give every worker an array of worker 0's, to the last bit.

    Args:
        strategy: `MultiWorkerStrategy`; all workers make the same call.
        array: NumPy array; of the other workers only shape and dtype count.

    Returns:
        NumPy array.
    """
    array = np.asarray(array)
    # Sums of integers are exact, and collective operations add up none of less than 32 bits.
    bits = array.view(f"i{array.itemsize}") if array.dtype != bool else array
    wide = tf.constant(bits.astype("int64" if array.itemsize == 8 else "int32"))

    def contribution():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.where(tf.equal(replica, 0), wide, tf.zeros_like(wide))

    total = strategy.reduce("SUM", strategy.run(contribution), axis=None).numpy()
    return total.astype(bits.dtype).view(array.dtype).reshape(array.shape)


def share_bytes(strategy, value):
    """Give every worker the bytes of worker 0's `value`."""
    length = int(share(strategy, np.array([len(value)], "int64"))[0])
    own = np.frombuffer(value[:length].ljust(length, b"\0"), np.uint8)
    return share(strategy, own).tobytes() if length else b""
