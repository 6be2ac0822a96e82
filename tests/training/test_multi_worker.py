"""Two workers on this machine, each a process, against one device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerascv_d2l import InputError
from kerascv_d2l.multi_worker import read_cluster

CHILD = Path(__file__).with_name("distribution_child.py")


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
    assert read_cluster() == (0, 1)
    monkeypatch.setenv("TF_CONFIG", _config(["a:1", "b:1", "c:1"], 2))
    assert read_cluster() == (2, 3)


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


@pytest.fixture(scope="module")
def workers():
    """What each of two workers computed."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(2)]
    path = os.pathsep.join(p for p in sys.path if p)
    processes = [
        subprocess.Popen(
            [sys.executable, CHILD, "cluster"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "TF_CONFIG": _config(addresses, index)},
        )
        for index in range(2)
    ]
    try:
        answers = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
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
