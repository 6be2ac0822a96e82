"""Colours: as torchvision's on the same factors, to one grey level; draws as they should be."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError
from kerascv_d2l.ops import color

pytestmark = pytest.mark.quick
RECORDED = np.load(Path(__file__).parents[1] / "recording" / "augmentation.npz")
IMAGE = RECORDED["image"]
ADJUST = {name: getattr(color, f"adjust_{name}") for name in color.OPERATIONS}


@pytest.mark.parametrize("kind", color.OPERATIONS)
def test_agrees_with_torchvision(kind):
    names = [n for n in RECORDED.files if n.startswith(f"{kind}_")]
    assert len(names) >= 5
    for name in names:
        value = float(name.rpartition("_")[2])
        found = ADJUST[kind](IMAGE, value)
        assert found.dtype == tf.uint8 and found.shape == IMAGE.shape
        off = found.numpy().astype(int) - RECORDED[name]
        assert np.abs(off).max() <= 1, name
    (name,) = [n for n in RECORDED.files if n.startswith(f"float_{kind}_")]
    value = float(name.rpartition("_")[2])
    found = ADJUST[kind](IMAGE.astype(np.float32) / 255, value, value_range=(0, 1))
    np.testing.assert_allclose(found, RECORDED[name], atol=2e-6)


def test_hue_is_that_of_hsv():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 7, 3)).astype(np.float32)
    for shift in (-0.5, -1 / 3, -1 / 6, -0.04, 0.0, 0.1, 1 / 6, 0.29, 0.5):
        found = color.adjust_hue(pixels, shift).numpy()
        for old, new in zip(pixels.reshape(-1, 3), found.reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(old / 255.0))
            slow = np.array(colorsys.hsv_to_rgb((h + shift) % 1, s, v)) * 255
            np.testing.assert_allclose(new, slow, atol=1e-3)


@pytest.mark.parametrize("kind", color.OPERATIONS)
def test_neutral_factor_changes_nothing(kind):
    neutral = 0.0 if kind == "hue" else 1.0
    np.testing.assert_array_equal(ADJUST[kind](IMAGE, neutral), IMAGE)


@pytest.mark.parametrize("kind", color.OPERATIONS)
def test_batches_and_value_ranges(kind):
    batch = np.stack([IMAGE, IMAGE[::-1] // 2])[:, None]  # (2, 1, h, w, 3)
    factors = np.array([[0.3], [0.45]])
    found = ADJUST[kind](batch, factors)
    for k in (0, 1):
        np.testing.assert_array_equal(found[k, 0], ADJUST[kind](batch[k, 0], factors[k, 0]))
    # The same in [-1, 1].
    exact = ADJUST[kind](batch.astype(np.float32), 0.4).numpy()
    shifted = ADJUST[kind](batch.astype(np.float32) / 127.5 - 1, 0.4, value_range=(-1, 1))
    np.testing.assert_allclose((shifted + 1) * 127.5, exact, atol=1e-3)
    assert ADJUST[kind](batch.astype(np.float16), 0.4).dtype == tf.float16


def test_in_graphs_of_unknown_shape():
    graph = tf.function(
        lambda image: color.adjust_saturation(color.adjust_hue(image, 0.1), 1.4),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    straight = color.adjust_saturation(color.adjust_hue(IMAGE[None], 0.1), 1.4)
    np.testing.assert_array_equal(graph(IMAGE[None]), straight)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_jitter_applies_one_after_the_other(order):
    factors = [1.6, 0.7, 1.8, -0.2]
    expected = IMAGE.astype(np.float32)
    for index in order:
        expected = ADJUST[color.OPERATIONS[index]](expected, factors[index])
        assert expected.numpy().min() >= 0 and expected.numpy().max() <= 255  # clipped after each
    found = color.jitter(IMAGE.astype(np.float32), factors, order)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(color.jitter(IMAGE, factors, order), np.floor(expected + 0.5))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_jitter_in_graphs_with_and_without_a_known_size(dtype):
    factors, order = tf.constant([1.6, 0.7, 1.8, -0.2]), tf.constant([2, 3, 0, 1])
    image = IMAGE.astype(dtype)
    straight = color.jitter(image, factors, order)
    for shape in (IMAGE.shape, [None, None, 3]):
        graph = tf.function(
            lambda image: color.jitter(image, factors, order),
            input_signature=[tf.TensorSpec(shape, dtype)],
        )
        np.testing.assert_allclose(graph(image), straight, atol=1e-4)


def test_order_matters():
    results = [
        color.jitter(IMAGE, [1.9, 0.5], o, ("brightness", "contrast")) for o in ((0, 1), (1, 0))
    ]
    assert np.abs(results[0].numpy().astype(int) - results[1]).max() > 20


def test_draws_have_the_right_distribution():
    ranges = [(0.5, 1.5), (0.2, 1.8), (0.0, 3.0), (-0.5, 0.5)]
    seeds = tf.data.Dataset.range(10_000).map(lambda k: color.random_jitter([k, 4], ranges))
    factors, orders = seeds.batch(10_000).get_single_element()
    share = (factors.numpy() - [r[0] for r in ranges]) / [r[1] - r[0] for r in ranges]
    for k in range(4):  # uniform: a twentieth of the draws in each twentieth
        counts = np.histogram(share[:, k], 20, (0, 1))[0]
        assert counts.sum() == 10_000 and np.abs(counts - 500).max() < 5 * 500**0.5
    assert np.abs(np.corrcoef(share.T) - np.eye(4)).max() < 0.04
    permutations, counts = np.unique(orders.numpy(), axis=0, return_counts=True)
    assert len(permutations) == 24 and np.abs(counts - 417).max() < 5 * 417**0.5


def test_normalize():
    mean, std = [120.0, 100.0, 90.0], [60.0, 50.0, 40.0]
    for images in (IMAGE, np.stack([IMAGE, IMAGE[::-1]])[None]):
        found = color.normalize(images, mean, std)
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, (images - np.array(mean)) / std, atol=1e-6)
    graph = tf.function(
        lambda images: color.normalize(images, mean, std),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    np.testing.assert_allclose(graph(IMAGE[None])[0], color.normalize(IMAGE, mean, std), atol=1e-6)
    with pytest.raises(InputError, match=r"mean \(2,\) and std \(3,\); wanted"):
        color.normalize(IMAGE, mean[:2], std)


def test_names_bad_input():
    with pytest.raises(InputError, match=r"\(4, 5\); wanted \(\.\.\., height, width, 3\)"):
        color.adjust_hue(np.zeros((4, 5), np.uint8), 0.1)
    with pytest.raises(InputError, match="wanted"):
        color.adjust_contrast(np.zeros((4, 5, 4), np.uint8), 0.1)
    with pytest.raises(InputError, match="value_range"):
        color.adjust_contrast(np.zeros((4, 5, 3), np.float32), 0.1, value_range=(1, 1))
    with pytest.raises(InputError, match=r"\(height, width, 3\)"):
        color.jitter(np.zeros((1, 4, 5, 3), np.uint8), [1.0], [0], ("hue",))
