"""Training on several machines: one process on each, described by `TF_CONFIG`.

Under `tf.distribute.MultiWorkerMirroredStrategy` Keras 3.15's `fit` and `evaluate` end before the
first step, wherever a machine has one device. Both times Keras asks the strategy for a
reduction that it does not do: of the first batch, a tuple, to learn its shapes; and of the step's
metrics, scalars, along their first axis, which they do not have. `MultiWorkerStrategy` answers
both as they are meant. Nothing of Keras is replaced.
"""

import contextlib
import faulthandler
import functools
import json
import os
import signal
import socket
import sys
import time

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError

TF_CONFIG = "TF_CONFIG"
WAIT_SECONDS = 600.0  # for the other workers, at the start
_POLL = 0.5  # seconds between two looks, in which signals are heard
_GO, _MOST_BYTES = b"go", 16  # what worker 0 says, and the longest that is said
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
        `(index, addresses)`: int and list of `"HOST:PORT"`; `(0, [])` where there is no
        `TF_CONFIG`.

    Raises:
        InputError: if it is there and cannot be understood.
    """
    text = os.environ.get(TF_CONFIG, "").strip()
    if not text:
        return 0, []
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
    return index, list(map(str, workers))


def make_multi_worker_strategy(seconds=WAIT_SECONDS):
    """Join the cluster of `TF_CONFIG`; waits until all workers are there.

    Each machine uses all its GPUs, or its CPU. Call it before TensorFlow is used otherwise.
    TensorFlow itself would wait without end, deaf to Ctrl-C and SIGTERM: so the workers first
    meet at the address of worker 0 by plain sockets.

    Args:
        seconds: float, how long to wait.

    Returns:
        `MultiWorkerStrategy`.

    Raises:
        InputError: if `TF_CONFIG` cannot be understood, the others do not come, or TensorFlow
            is in use already.
    """
    index, addresses = read_cluster()
    print(f"worker {index} of {len(addresses)}: waiting for the others …", flush=True)
    if len(addresses) > 1:
        deadline = time.monotonic() + seconds
        if index == 0:
            _gather(addresses, deadline)
        else:
            _report(addresses[0], index, deadline)
    terminate = signal.getsignal(signal.SIGTERM)
    # Ends the process even while TensorFlow waits: for a worker that is gone again by now.
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        return MultiWorkerStrategy()
    except RuntimeError as error:
        raise InputError(
            f"{TF_CONFIG} comes too late: TensorFlow has already been used in this process "
            f"({error})"
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, terminate)  # TensorFlow made itself deaf to it


def _gather(addresses, deadline):
    """As worker 0: wait until all others have reported, then tell them to go on."""
    port, there = _split(addresses[0])[1], {}
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        raise InputError(f"{TF_CONFIG}: port {port} of worker 0 cannot be used: {error}") from error
    with server, contextlib.ExitStack() as stack:
        server.settimeout(_POLL)
        while len(there) < len(addresses) - 1:
            missing = [a for i, a in enumerate(addresses) if i and str(i).encode() not in there]
            _check_time(deadline, f"the workers at {', '.join(missing)}")
            with contextlib.suppress(OSError):
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(_POLL)
                there[connection.recv(_MOST_BYTES)] = connection
            there = {i: c for i, c in there.items() if _is_open(c)}
        for connection in there.values():
            connection.settimeout(_POLL)
            with contextlib.suppress(OSError):
                connection.sendall(_GO)
                connection.recv(1)  # the other side closes, so that the port is free at once


def _report(address, index, deadline):
    """As another worker: report to worker 0 and wait until it says that all are there."""
    while not _is_told(address, index, deadline):
        _check_time(deadline, f"worker 0 at {address}")
        time.sleep(_POLL)


def _is_told(address, index, deadline):
    """Report once; whether worker 0 was there and said that all are."""
    answer = None
    with (
        contextlib.suppress(OSError),
        socket.create_connection(_split(address), timeout=_POLL) as connection,
    ):
        connection.sendall(str(index).encode())
        while answer is None and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(_MOST_BYTES)
    return answer == _GO


def _check_time(deadline, missing):
    if time.monotonic() > deadline:
        raise InputError(
            f"{missing} did not come in time: start all workers of {TF_CONFIG}, and again if one "
            "of them ended"
        )


def _is_open(connection):
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))  # nothing but its number is ever sent
    except BlockingIOError:
        return True
    except OSError:
        return False


def _split(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


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
    wide = bits.ravel().astype("int64" if array.itemsize == 8 else "int32")
    total = _first_summand(strategy)(tf.constant(wide)).numpy()
    return total.astype(bits.dtype).view(array.dtype).reshape(array.shape)


@functools.lru_cache(maxsize=1)
def _first_summand(strategy):
    """Function of a tensor to that of the first replica."""

    def contribution(values):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.where(tf.equal(replica, 0), values, tf.zeros_like(values))

    @tf.function(reduce_retracing=True, autograph=False)
    def total(values):
        return strategy.reduce("SUM", strategy.run(contribution, args=(values,)), axis=None)

    return total


def share_bytes(strategy, value):
    """Give every worker the bytes of worker 0's `value`."""
    length = int(share(strategy, np.array([len(value)], "int64"))[0])
    own = np.frombuffer(value[:length].ljust(length, b"\0"), np.uint8)
    return share(strategy, own).tobytes() if length else b""


def is_lost_worker(error):
    """Whether an exception says that another worker of the cluster is gone."""
    if not isinstance(error, tf.errors.OpError) or len(read_cluster()[1]) < 2:
        return False
    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )
    return isinstance(error, lost) or "ollective" in str(error)
