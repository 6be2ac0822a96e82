"""Choosing devices. What several devices compute is tested in a process of its own."""

import json
from pathlib import Path
from types import SimpleNamespace

import children
import pytest

from kerascv_d2l.errors import InputError
from kerascv_d2l.training.devices import (
    _uneven,
    check_batch_size,
    evaluation_batch_size,
    make_strategy,
    parse_devices,
)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("auto", ("auto", None)),
        (" AUTO ", ("auto", None)),
        ("cpu", ("cpu", 1)),
        ("cpu:3", ("cpu", 3)),
        ("2", ("gpu", 2)),
        (4, ("gpu", 4)),
    ],
)
def test_parse(text, want):
    assert parse_devices(text) == want


@pytest.mark.quick
@pytest.mark.parametrize("text", ["", "0", "-1", "cpu:", "cpu:0", "cpu2", ":2", "gpu:1", "1.5"])
def test_parse_refuses(text):
    with pytest.raises(InputError, match="devices: expected auto"):
        parse_devices(text)


@pytest.mark.quick
def test_a_batch_that_devices_cannot_share():
    strategy = SimpleNamespace(num_replicas_in_sync=4)
    check_batch_size(8, strategy)
    for size in (3, 5):
        with pytest.raises(InputError, match=rf"batch_size {size} .* a multiple of 4"):
            check_batch_size(size, strategy)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("images", "batch", "devices", "want"),
    [
        (33, 8, 1, 8),
        (37, 8, 2, 8),  # 5 left: 4 and 1
        (33, 8, 2, 12),  # 1 left; with 6, 3; with 12, 9: 6 and 3
        (100, 32, 4, 20),
        (100, 33, 1, 33),
        (8, 8, 4, 8),
        (8, 32, 4, 8),  # a single batch is cut as if it were whole, too
        (7, 8, 2, 4),
    ],
)
def test_batch_size_to_evaluate_with(images, batch, devices, want):
    strategy = SimpleNamespace(num_replicas_in_sync=devices)
    assert evaluation_batch_size(images, batch, strategy) == want
    # Cut as tf.distribute does: a full part for the first devices.
    sizes = [min(want, images - start) for start in range(0, images, want)]
    part = -(-sizes[0] // devices)
    assert sizes[0] == part * devices
    assert all(size > part * (devices - 1) for size in sizes)


@pytest.mark.quick
def test_too_few_to_evaluate():
    with pytest.raises(InputError, match="5 images for validation cannot be split among 4"):
        evaluation_batch_size(5, 8, SimpleNamespace(num_replicas_in_sync=4))


@pytest.mark.quick
@pytest.mark.parametrize("devices", [2, 3, 4])
def test_batches_of_two_sizes(devices):
    """Each split by itself: every device has some images of every batch, the first alike."""
    found = {images: _uneven(images, 8, devices) for images in range(1, 40)}
    for images, (size, last) in ((k, sizes) for k, sizes in found.items() if sizes):
        assert images - last >= size and (images - last) % size == size % devices == 0
        assert 0 < -(-last // devices) * (devices - 1) < last
    refused = {2: [1, 2, 3], 3: [1, 2, 3, 4, 5, 7], 4: [1, 2, 3, 4, 5, 6, 7, 9, 10, 13]}
    assert [images for images, sizes in found.items() if sizes is None] == refused[devices]
    assert _uneven(9, 8, 2) == (6, 3) and _uneven(33, 8, 4) == (4, 13)


@pytest.mark.quick
def test_more_gpus_than_there_are():
    with pytest.raises(
        InputError, match=r"devices 99 asks for 99 GPUs, but TensorFlow finds"
    ) as error:
        make_strategy("99")
    if "no GPU" in str(error.value):  # no smaller number would help
        assert str(error.value).endswith("give auto or cpu (cpu:99 to try it out)")


@pytest.mark.quick
def test_too_late():
    import tensorflow as tf

    tf.constant(1.0) + 1.0
    with pytest.raises(InputError, match=r"cpu:7 comes too late"):
        make_strategy("cpu:7")


CHILD = Path(__file__).parents[1] / "distribution_child.py"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two logical devices compute, beside one, as a dict."""
    folder = tmp_path_factory.mktemp("devices")
    run = children.run(CHILD, folder)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_two_logical_devices(two):
    assert two["replicas"] == [2, 2]
    assert two["text"] == "the CPU as 2 logical devices"


@pytest.mark.parametrize("norm", ["", "sync"])
def test_two_devices_compute_what_one_does(two, norm):
    """Each of 20 losses, and the weights after; the learning rate is the same."""
    assert two[f"loss{norm}"] < 1e-5
    assert two[f"weights{norm}"] < 1e-5


@pytest.mark.parametrize("norm", ["", "sync"])
def test_last_batch_is_counted_once(two, norm):
    for count in (37, 33):
        assert two[f"evaluate{norm}{count}"] < 1e-5
    for count in (5, 9):
        assert two[f"few{norm}{count}"] < 1e-5


def test_plain_batch_norm_is_per_device(two):
    assert two["plain differs"] > 1e-3  # so that the tests above say something
    # If this fails Keras has begun to keep the replicas together: average_replicas can go.
    assert two["apart"] > 1e-3
    assert two["averaged"] < 1e-6


def test_saved_on_two_devices_and_loaded(two):
    assert two["loaded"] == 0
    assert two["goes on"] is True
