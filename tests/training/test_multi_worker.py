"""Two workers on this machine, each a process, against one device."""

import json
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import children
import numpy as np
import pytest

from kerascv_d2l import InputError
from kerascv_d2l.cli import EXIT_LOST_WORKER
from kerascv_d2l.training import cluster
from kerascv_d2l.training.cluster import read_cluster

TESTS = Path(__file__).parents[1]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read"),
        ('{"cluster": {}}', "cannot be read"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "no worker 1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "other jobs"),
    ],
)
def test_configurations_that_are_none(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match=rf"TF_CONFIG.*{message}.*wanted"):
        read_cluster()


@pytest.mark.quick
def test_configuration(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert read_cluster() == (0, [])
    monkeypatch.setenv("TF_CONFIG", _config(["a:1", "b:1", "c:1"], 2))
    assert read_cluster() == (2, ["a:1", "b:1", "c:1"])


def _config(workers, index):
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _start(addresses, index, script, *arguments, **environment):
    """Start a worker."""
    config = {"TF_CONFIG": _config(addresses, index)}
    return children.Child(TESTS / script, "cluster", *arguments, **config, **environment)


def _addresses():
    return [f"127.0.0.1:{port}" for port in _free_ports(2)]


def _answers(processes):
    """What processes wrote, as `(stdout, stderr)` each; kills those that do not end."""
    try:
        for process in processes:
            process.wait()
        return [(process.stdout, process.stderr) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def workers():
    """What each of two workers computed."""
    addresses = _addresses()
    processes = [_start(addresses, index, "distribution_child.py") for index in range(2)]
    answers = _answers(processes)
    for process, (_, errors) in zip(processes, answers, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in answers]


def test_workers_end_with_the_same_bits(workers):
    """Although each started from weights of its own; plain batch norm after averaging too."""
    first, second = workers
    assert first["text"] == "2 workers, 2 devices"
    assert first == second


def test_workers_compute_what_one_device_does(workers):
    import distribution_child

    one = distribution_child.one_device()
    np.testing.assert_allclose(workers[0]["lossessync"], one["lossessync"], atol=1e-5)
    for a, b in zip(workers[0]["weightssync"], one["weightssync"], strict=True):
        a, b = (np.frombuffer(bytes.fromhex(text), "<f4") for text in (a, b))
        np.testing.assert_allclose(a, b, atol=1e-5)
    for count in (37, 33):  # the last batch has 5 images or 1
        name = f"evaluatesync{count}"
        np.testing.assert_allclose(workers[0][name], one[name], atol=1e-5)


@pytest.mark.long
def test_a_lost_worker_is_said_and_resume_goes_on_from_worker_0(tmp_path):
    """Worker 1 is killed; both start again, worker 1 without anything of its own."""
    addresses, child = _addresses(), "training_child.py"
    first = _start(addresses, 0, child, tmp_path)
    second = _start(addresses, 1, child, tmp_path / "other", TOY_KILL="1:2")
    (_, errors), _ = _answers([first, second])
    assert second.returncode == -signal.SIGKILL
    assert first.returncode == EXIT_LOST_WORKER, errors[-3000:]
    assert "Traceback" not in errors
    said = errors[errors.index("error: another worker is gone") :]
    assert "Start all of them again; epoch 1 of 3 in" in said and "--resume" in said

    addresses = _addresses()
    shutil.rmtree(tmp_path / "other" / "killed")
    folders = (tmp_path, tmp_path / "other")
    processes = [_start(addresses, i, child, f, "--resume") for i, f in enumerate(folders)]
    answers = _answers(processes)
    assert [p.returncode for p in processes] == [0, 0], answers
    assert "resuming after epoch 1 of 3" in answers[0][0]
    contents = []
    for folder in ("whole", "killed", "other/killed/worker-1"):
        with np.load(tmp_path / folder / "weights.npz") as arrays:
            contents.append([arrays[name] for name in arrays.files])
    for one, two, three in zip(*contents, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_waiting_workers_hear_signals(tmp_path):
    script = tmp_path / "wait.py"
    script.write_text("""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from kerascv_d2l.cli import run_main
from kerascv_d2l.training.cluster import make_multi_worker_strategy
run_main(make_multi_worker_strategy)
""")
    processes = [children.Child(script, TF_CONFIG=_config(_addresses(), index)) for index in (0, 1)]
    try:
        for process, number in zip(processes, (signal.SIGINT, signal.SIGTERM), strict=True):
            process.wait_for(lambda process=process: "waiting for the others" in process.stdout)
            process.send_signal(number)
        assert [p.wait(timeout=20) for p in processes] == [130, -signal.SIGTERM]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.quick
def test_waiting_has_a_limit(monkeypatch):
    addresses = _addresses()
    missing = (f"the workers at {addresses[1]}", f"worker 0 at {addresses[0]}")
    for index in range(2):
        monkeypatch.setenv("TF_CONFIG", _config(addresses, index))
        with pytest.raises(InputError, match=f"{missing[index]} did not come in time: start all"):
            cluster.make_multi_worker_strategy(seconds=0.1)


def _connected(port, deadline):
    """A connection to a port on which a thread will listen soon."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.quick
def test_workers_meet_whoever_comes_first_or_gives_up():
    """One comes, goes and comes again; worker 0 starts last."""
    ports = _free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    deadline = time.monotonic() + 30
    others = [
        threading.Thread(target=cluster._report, args=(addresses[0], i, deadline)) for i in (1, 2)
    ]
    others[0].start()
    gather = threading.Thread(target=cluster._gather, args=(addresses, deadline))
    gather.start()
    with _connected(ports[0], deadline) as gone:
        gone.sendall(b"2")
    time.sleep(1)
    assert gather.is_alive()
    others[1].start()
    for thread in (gather, *others):
        thread.join(timeout=20)
        assert not thread.is_alive()
    socket.create_server(("127.0.0.1", ports[0])).close()  # TensorFlow needs the port now
