"""The gradients of a 3 × 3 convolution with a quarter of the multiplications.

A tile of 4 × 4 results comes from 6 × 6 inputs. Seen as polynomials, inputs and kernel are each
evaluated at the same points, multiplied there number by number, and brought back: 36
multiplications in place of 16 · 9. For all tiles, channels and filters together the multiplications
are 36 products of matrices, one a point, and the three transforms are products with small matrices
that are the same for all.

Source:
    Winograd 1980, "Arithmetic Complexity of Computations"; Lavin and Gray 2016, "Fast Algorithms
    for Convolutional Neural Networks", section 4; for the points Barabasz et al. 2020, "Error
    Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks".
"""

import math

import numpy as np
import tensorflow as tf

KERNEL = 3
TILE = 4  # results on a side of a tile
PATCH = TILE + KERNEL - 1  # inputs on its side
# And infinity. These lose half a digit of float32, 0, ±1 and ±2 a whole one.
POINTS = (0, 1, -1, 1 / 2, -2)
# By benchmarks: with fewer channels or tiles the transforms take what the products save.
LEAST_CHANNELS = (64, 128)  # of inputs and filters, the fewer and the more
LEAST_TILES = 32
LEAST_PIXELS = 256  # of all images
MOST_PADDING = 4  # pixels of tiles for each of the map
MOST_NUMBERS = 20_000_000  # of a transformed map: 80 MB
TYPICAL_BATCH = 8  # where the number of images is not known


def _transforms():
    """Matrices of one axis, in Lavin and Gray's letters: Aᵀ `(4, 6)`, G `(6, 3)`, Bᵀ `(6, 6)`.

    `Aᵀ [(G g) ⊙ (Bᵀ d)]` correlates inputs d `(6,)` with a kernel g `(3,)`.
    """

    def evaluate(coefficients):  # of a polynomial; its value at infinity is the highest of them
        rows = [[point**power for power in range(coefficients)] for point in POINTS]
        return np.array([*rows, [0] * (coefficients - 1) + [1]], np.float64)

    to_points, kernel, results = (evaluate(n) for n in (PATCH, KERNEL, TILE))
    # The transpose of a product of polynomials is a correlation.
    inputs = np.linalg.inv(to_points).T
    scale = np.abs(inputs).max(axis=1, keepdims=True)  # so that all points have similar numbers
    return results.T, kernel * scale, inputs / scale


def _of_squares(matrix):
    """Make of a transform of one axis that of both, of squares written as rows of numbers."""
    return np.kron(matrix, matrix).astype(np.float32)


_RESULTS, _KERNEL, _INPUTS = map(_of_squares, _transforms())  # (16, 36), (36, 9), (36, 36)
# For a kernel that is turned by half a circle. Its square is the same row of numbers backwards.
_TURNED_KERNEL = _KERNEL[:, ::-1].copy()


def is_faster(shape, filters):
    """Tell whether these gradients take less time than TensorFlow's.

    Args:
        shape: static shape of the inputs, `(batch, height, width, channels)`; batch may be None.
        filters: int.

    Returns:
        bool; False if height or width are None.
    """
    batch, height, width, channels = shape
    if height is None or width is None:
        return False
    batch = batch or TYPICAL_BATCH
    tiles, pixels = batch * _count(height) * _count(width), batch * height * width
    few, many = sorted((channels, filters))
    wide = few >= LEAST_CHANNELS[0] and many >= LEAST_CHANNELS[1]
    enough = tiles >= LEAST_TILES and pixels >= LEAST_PIXELS
    return wide and enough and tiles * TILE**2 <= MOST_PADDING * pixels


def fits(shape, filters):
    """Tell whether these gradients take no more memory than is worth it.

    Args:
        shape: `(batch, height, width, channels)` of the inputs: ints, but batch may be a tensor.
        filters: int.

    Returns:
        bool, or a bool tensor `()`.
    """
    batch, height, width, channels = shape
    of_an_image = _count(height) * _count(width) * PATCH**2 * max(channels, filters)
    return batch <= MOST_NUMBERS // of_an_image


def input_gradient(upstream, kernel):
    """Give the gradient with respect to the inputs of a convolution with stride 1, padded "same".

    Args:
        upstream: float32 `(batch, height, width, filters)`, the gradient with respect to the
            results. Height and width are known when traced.
        kernel: float32 `(3, 3, channels, filters)`.

    Returns:
        float32 `(batch, height, width, channels)`.
    """
    batch, (height, width) = tf.shape(upstream)[0], upstream.shape[1:3]
    channels, filters = kernel.shape[2:]
    patches = _transform(_INPUTS, _patches(upstream))  # (36, tiles, filters)
    kernels = _transform(_TURNED_KERNEL, tf.reshape(kernel, [KERNEL**2, channels, filters]))
    results = _transform(_RESULTS, tf.matmul(patches, kernels, transpose_b=True))
    rows, columns = _count(height), _count(width)
    tiles = tf.reshape(results, [TILE, TILE, batch, rows, columns, channels])
    whole = [batch, rows * TILE, columns * TILE, channels]
    return tf.reshape(tf.transpose(tiles, [2, 3, 0, 4, 1, 5]), whole)[:, :height, :width]


def kernel_gradient(x, upstream):
    """Give the gradient with respect to the kernel of a convolution with stride 1, padded "same".

    Args:
        x: float32 `(batch, height, width, channels)`, the inputs. Height and width are known when
            traced.
        upstream: float32 `(batch, height, width, filters)`, the gradient with respect to the
            results.

    Returns:
        float32 `(3, 3, channels, filters)`.
    """
    channels, filters = x.shape[-1], upstream.shape[-1]
    patches = _transform(_INPUTS, _patches(x))  # (36, tiles, channels)
    # Each step of the convolution backwards: the transposed matrices, in the opposite order.
    results = _transform(_RESULTS.T, _tiles(upstream))  # (36, tiles, filters)
    products = tf.matmul(patches, results, transpose_a=True)  # (36, channels, filters)
    return tf.reshape(_transform(_KERNEL.T, products), [KERNEL, KERNEL, channels, filters])


def _count(side):
    return math.ceil(side / TILE)


def _transform(matrix, squares):
    """Multiply squares, written along the first axis `(n, a, b)`, by a matrix `(m, n)`."""
    rows = tf.matmul(tf.constant(matrix), tf.reshape(squares, [matrix.shape[1], -1]))
    return tf.reshape(rows, [matrix.shape[0], tf.shape(squares)[1], squares.shape[2]])


def _patches(x):
    """Cut out what each tile is made of, 6 × 6 every 4 pixels: `(36, tiles, channels)`."""
    batch, (height, width, channels) = tf.shape(x)[0], x.shape[1:]
    rows, columns = _count(height), _count(width)
    high, wide = rows * TILE + KERNEL - 1, columns * TILE + KERNEL - 1
    padded = tf.pad(x, [[0, 0], [1, high - 1 - height], [1, wide - 1 - width], [0, 0]])
    inside = np.arange(PATCH)
    down = inside[:, np.newaxis, np.newaxis, np.newaxis] + TILE * np.arange(rows)[:, np.newaxis]
    across = inside[:, np.newaxis, np.newaxis] + TILE * np.arange(columns)
    places = (down * wide + across).reshape(PATCH**2, 1, -1)  # of one image
    places = places + high * wide * tf.range(batch)[:, tf.newaxis]  # (36, batch, tiles an image)
    pixels = tf.reshape(padded, [-1, channels])
    return tf.gather(pixels, tf.reshape(places, [PATCH**2, -1]))


def _tiles(x):
    """Cut into tiles of 4 × 4: `(16, tiles, channels)`."""
    batch, (height, width, channels) = tf.shape(x)[0], x.shape[1:]
    rows, columns = _count(height), _count(width)
    missing = [[0, 0], [0, rows * TILE - height], [0, columns * TILE - width], [0, 0]]
    tiles = tf.reshape(tf.pad(x, missing), [batch, rows, TILE, columns, TILE, channels])
    return tf.reshape(tf.transpose(tiles, [2, 4, 0, 1, 3, 5]), [TILE**2, -1, channels])
