"""Gradients of a 3 × 3 convolution by Winograd's algorithm, against those of the plain sums."""

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.ops import winograd

pytestmark = pytest.mark.quick


def slow_gradients(x, kernel, upstream):
    """Sum over the nine places of the kernel, in float64."""
    _, height, width, _ = x.shape
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    of_x, of_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for i in range(3):
        for j in range(3):
            window = np.s_[:, i : i + height, j : j + width]
            of_x[window] += upstream @ kernel[i, j].T
            of_kernel[i, j] = np.einsum("bhwc,bhwf->cf", padded[window], upstream)
    return of_x[:, 1:-1, 1:-1], of_kernel


# Maps of whole tiles, with a rest of each kind, and smaller than a tile.
@pytest.mark.parametrize("size", [(8, 4), (5, 10), (7, 1), (2, 3)])
@pytest.mark.parametrize("traced", [False, True])
def test_is_the_plain_sum(size, traced):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3, *size, 5))
    kernel, upstream = draw.normal(size=(3, 3, 5, 7)), draw.normal(size=(3, *size, 7))
    of_x, of_kernel = winograd.input_gradient, winograd.kernel_gradient
    if traced:  # of any number of images
        specs = [tf.TensorSpec([None, *size, c]) for c in (5, 7)]
        of_kernel = tf.function(of_kernel, input_signature=specs)
        of_x = tf.function(of_x, input_signature=[specs[1], tf.TensorSpec([3, 3, 5, 7])])
    given = [tf.constant(a, tf.float32) for a in (x, kernel, upstream)]
    found = of_x(given[2], given[1]), of_kernel(given[0], given[2])
    for ours, expected in zip(found, slow_gradients(x, kernel, upstream), strict=True):
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-4)  # numbers up to 20


def test_rounding_is_small_beside_sums_of_many_channels():
    draw = np.random.default_rng(1)
    x, upstream = draw.normal(size=(2, 2, 13, 18, 256))
    kernel = draw.normal(0, 0.03, size=(3, 3, 256, 256))
    given = [tf.constant(a, tf.float32) for a in (x, kernel, upstream)]
    found = (
        winograd.input_gradient(given[2], given[1]),
        winograd.kernel_gradient(given[0], given[2]),
    )
    for ours, expected in zip(found, slow_gradients(x, kernel, upstream), strict=True):
        # TensorFlow's direct convolution has up to 1e-5. With points 0, ±1, ±2 it is over 5e-5.
        assert abs(ours.numpy() - expected).max() < 4e-5 * expected.std()


@pytest.mark.parametrize(
    ("shape", "filters", "faster"),
    [
        ((2, 40, 40, 256), 256, True),
        ((None, 8, 8, 512), 512, True),
        ((2, 40, 40, 64), 128, True),
        ((2, 40, 40, 64), 64, False),
        ((2, 40, 40, 256), 36, False),
        ((2, 10, 10, 512), 512, False),  # 18 tiles
        ((8, 5, 5, 512), 512, False),  # 200 pixels
        ((64, 2, 2, 512), 512, True),  # a quarter of each tile
        ((256, 1, 1, 512), 512, False),  # a sixteenth
        ((2, None, 40, 256), 256, False),
        ((2, 40, None, 256), 256, False),
    ],
)
def test_is_chosen_where_it_pays(shape, filters, faster):
    assert winograd.is_faster(shape, filters) is faster


def test_takes_no_more_than_80_mb_for_a_map():
    tiles = 20_000_000 // (36 * 256)  # 2170
    assert winograd.fits((tiles // 16, 14, 14, 256), 64)
    assert not winograd.fits((tiles // 16 + 1, 14, 14, 256), 64)
    assert not winograd.fits((tf.constant(tiles // 16 + 1), 14, 14, 64), 256)
