"""Pascal VOC 2012 under the book's names: colours to classes, windows, reading the folder."""

import functools
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerascv_d2l.data.images import read_image
from kerascv_d2l.data.voc_classes import VOC_COLORMAP, VOC_VOID, VOC_VOID_COLOR
from kerascv_d2l.errors import InputError

_LEVELS = 256  # of each channel
_FOLDER = "VOCdevkit/VOC2012"
# TensorFlow aborts the process over tensors that start elsewhere (EIGEN_MAX_ALIGN_BYTES).
_TENSOR_ALIGNMENT = 64
# Bits of a channel that differ between the 22 colours: levels 0, 64, 128, 192 and 224.
_PAIR_BITS = 0b11100000
# Found by trying random ones: no pair of the 22 colours shares its hash with any of the 2**18
# pairs of colours that have only `_PAIR_BITS` (tests go through all of them). Its lowest 16 bits
# are 0, so that the two highest bytes of what it is multiplied with are shifted out.
_PAIR_MULTIPLIER = np.uint64(0x6160952871310000)
_PAIR_HASH_BITS = 20
_NO_PAIR = -(2**15)  # classes 0 and 128: no pair has them, and no int16 is lower


@functools.cache
def voc_colormap2label():
    """Table from RGB colours to class indices.

    Returns:
        uint8 tensor `(256**3,)`, indexed by `(red * 256 + green) * 256 + blue`.
        255 (void) for the border colour (224, 224, 192) and for every colour
        that is no class: such pixels count neither in the loss nor in mean
        IoU. The book's table has 0 (background) there.

    Source:
        D2L 1.0.3, section 14.9.
    """
    table = np.full(_LEVELS**3, VOC_VOID, np.uint8)
    table[np.array(VOC_COLORMAP) @ [_LEVELS**2, _LEVELS, 1]] = np.arange(len(VOC_COLORMAP))
    with tf.init_scope():  # one tensor for eager code and for every graph
        return tf.constant(table)


def voc_label_indices(colormap, colormap2label):
    """Class indices of a mask that is given in colours.

    Args:
        colormap: `(…, height, width, 3)`, RGB 0-255 of any integer or float
            dtype.
        colormap2label: table `(256**3,)`, `voc_colormap2label()`.

    Returns:
        Tensor `(…, height, width)` of the table's dtype.

    Raises:
        InputError: if the last dimension is not 3.
    """
    if tf.executing_eagerly():
        colormap = np.asarray(colormap)  # without a copy, of tensors too
        _check_colors(colormap.shape)
        if colormap2label is voc_colormap2label() and colormap.dtype == np.uint8:
            return _as_tensor(_look_up(colormap))
    colormap = tf.convert_to_tensor(colormap)
    if colormap.shape.rank is not None:
        _check_colors(colormap.shape)
    red, green, blue = tf.unstack(tf.cast(colormap, tf.int32), num=3, axis=-1)  # (…, h, w) each
    return tf.gather(colormap2label, (red * _LEVELS + green) * _LEVELS + blue)


def _check_colors(shape):
    if len(shape) < 3 or shape[-1] not in (3, None):
        raise InputError(
            f"`colormap` must be (…, height, width, 3), got {tuple(shape)}; a mask of class "
            "indices needs no table"
        )


def _look_up(colors):
    """`voc_label_indices` in NumPy: uint8 `(…, 3)` -> uint8 `(…)`.

    Two pixels at a time, where all colours are VOC's: on 375 x 500 0.10 ms,
    against 0.16 ms for one at a time and 0.3 ms for arithmetic on three channels.
    """
    colors = np.ascontiguousarray(colors)
    flat = colors.reshape(-1)
    found = _aligned(flat.size // 3)
    if found.size and not _look_up_pairs(flat, found):
        _look_up_each(flat, found)
    return found.reshape(colors.shape[:-1])


def _aligned(count):
    """An uint8 array `(count,)`, uninitialised, that a tensor can share."""
    buffer = np.empty(count + _TENSOR_ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _TENSOR_ALIGNMENT
    return buffer[start : start + count]


def _as_tensor(array):
    """Tensor that shares the memory of an `_aligned` array; copying takes a tenth of the look-up.

    The array must not be written to afterwards.
    """
    if array.size == 0:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _look_up_each(flat, found):
    """Fill uint8 `(n,)` with the classes of the colours in uint8 `(3 n,)`, n > 0.

    Four bytes from every third one, read as one little-endian number, are a
    colour with blue first and a byte of the next pixel on top: one pass where
    arithmetic on three channels takes six.
    """
    index = np.empty(found.size, np.int64)  # what `take` needs; others it would convert
    four = np.ndarray((found.size - 1,), "<u4", flat, 0, (3,))  # the last pixel has no next one
    np.bitwise_and(four, 0xFFFFFF, out=index[:-1], casting="unsafe")
    red, green, blue = (int(value) for value in flat[-3:])
    index[-1] = (blue * _LEVELS + green) * _LEVELS + red
    # `mode`: "raise" would go through a copy of `out`.
    _blue_first().take(index, out=found, mode="wrap")


def _look_up_pairs(flat, found):
    """As `_look_up_each`, but gives up (False) where a colour is neither VOC's nor void.

    Eight bytes from every sixth one are a pair of pixels and two bytes of the
    next. Multiplying shifts those two out and mixes the others into the highest
    bits, the index into `_pair_table()`. Only the three highest bits of a
    channel tell colours apart there: the others must be 0, as in all of VOC's.
    """
    if int(np.bitwise_or.reduce(flat)) & ~_PAIR_BITS:
        return False
    count = (flat.size - 2) // 6  # pairs with two more bytes behind them
    rest = np.zeros(2 * 6 + 2, np.uint8)  # the other pixels, one to three, filled up with black
    rest[: flat.size - 6 * count] = flat[6 * count :]
    last = np.empty(2 * 2, np.uint8)
    for colors, classes in ((flat, found[: 2 * count]), (rest, last)):
        eight = np.ndarray((classes.size // 2,), "<u8", colors, 0, (6,))
        index = _hash(eight.astype(np.uint64)).view(np.int64)
        pairs = classes.view("<i2")
        _pair_table().take(index, out=pairs, mode="wrap")
        if pairs.min(initial=0) == _NO_PAIR:
            return False
    found[2 * count :] = last[: found.size - 2 * count]
    return True


def _hash(pairs):
    """Hash uint64 `(n,)` in place: `[0, 2**_PAIR_HASH_BITS)`."""
    pairs *= _PAIR_MULTIPLIER  # modulo 2**64
    pairs >>= np.uint64(64 - _PAIR_HASH_BITS)
    return pairs


@functools.cache
def _pair_table():
    """Hash of a pair of colours -> both classes, the first in the low byte; else `_NO_PAIR`."""
    colors = np.array([*VOC_COLORMAP, VOC_VOID_COLOR], np.uint64)  # (22, 3)
    codes = colors[:, 0] | colors[:, 1] << np.uint64(8) | colors[:, 2] << np.uint64(16)
    classes = np.array([*range(len(VOC_COLORMAP)), VOC_VOID], np.uint16)
    pairs = codes | codes[:, None] << np.uint64(24)  # (second, first)
    table = np.full(2**_PAIR_HASH_BITS, _NO_PAIR, np.int16)
    table[_hash(pairs)] = (classes | classes[:, None] << np.uint16(8)).astype(np.int16)
    return table


@functools.cache
def _blue_first():
    """The table indexed by `(blue * 256 + green) * 256 + red`, uint8 array `(256**3,)`."""
    table = voc_colormap2label().numpy().reshape(_LEVELS, _LEVELS, _LEVELS)
    return np.ascontiguousarray(table.transpose()).ravel()


def voc_rand_crop(feature, label, height, width, seed=None):
    """Cut the same random window out of a picture and its mask.

    Args:
        feature: `(h, w, channels)`.
        label: `(h, w)` or `(h, w, channels)`, of the same h and w.
        height: int, pixels.
        width: int, pixels.
        seed: integers `(2,)`: the same seed cuts the same window. `None` draws
            from TensorFlow's global generator.

    Returns:
        `(feature, label)`, `(height, width, …)` each.

    Raises:
        InputError: if picture and mask differ in size, or the picture is
            smaller than the window (in a graph where sizes are unknown:
            `tf.errors.InvalidArgumentError`).

    Source:
        D2L 1.0.3, section 14.9.
    """
    feature, label = tf.convert_to_tensor(feature), tf.convert_to_tensor(label)
    _check_sizes(feature, label, height, width)
    top, left = draw_window(tf.shape(feature)[:2], height, width, seed)
    window = (slice(top, top + height), slice(left, left + width))
    feature, label = feature[window], label[window]
    feature.set_shape((height, width, *feature.shape[2:]))
    label.set_shape((height, width, *label.shape[2:]))
    return feature, label


def draw_window(size, height, width, seed=None):
    """Place a window in a picture, every place as likely as every other.

    Args:
        size: int32 `(2,)`, height and width of the picture.
        height: int, of the window.
        width: int, of the window.
        seed: integers `(2,)`; `None` draws from the global generator.

    Returns:
        `(top, left)`, int32 scalars.

    Raises:
        tf.errors.InvalidArgumentError: if the picture is smaller.
    """
    free = size - [height, width] + 1  # (2,) places down and across
    with tf.control_dependencies(
        [tf.debugging.assert_positive(free, "the picture is smaller than the window")]
    ):
        if seed is None:
            draw = tf.random.uniform((2,))
        else:
            draw = tf.random.stateless_uniform((2,), seed)
        # A draw just below 1 can round up to `free` itself.
        place = tf.minimum(tf.cast(draw * tf.cast(free, tf.float32), tf.int32), free - 1)
    return place[0], place[1]


def _check_sizes(feature, label, height, width):
    if feature.shape.rank != 3 or label.shape.rank not in (2, 3):
        raise InputError(
            "`feature` must be (h, w, channels) and `label` (h, w) or (h, w, channels), got "
            f"{feature.shape} and {label.shape}"
        )
    if not feature.shape[:2].is_compatible_with(label.shape[:2]):
        raise InputError(
            f"`feature` is {feature.shape[0]} x {feature.shape[1]} (height x width) but `label` "
            f"{label.shape[0]} x {label.shape[1]}"
        )
    for name, side, wanted in (
        ("height", feature.shape[0], height),
        ("width", feature.shape[1], width),
    ):
        if wanted < 1 or (side is not None and side < wanted):
            raise InputError(f"`{name}` is {wanted}, but the picture's is {side}")


def read_voc_images(voc_dir, is_train=True):
    """Read all pictures of a split and their masks in colours.

    Everything is held in memory, about 1.6 GB for either split;
    `load_data_voc` reads as it goes.

    Args:
        voc_dir: the folder `VOC2012` of the unpacked archive, or one that holds
            `VOCdevkit/VOC2012`.
        is_train: bool: `train.txt` or `val.txt`.

    Returns:
        `(features, labels)`, lists of uint8 arrays `(height, width, 3)`.

    Raises:
        InputError: for a missing or damaged file, by name.
    """
    voc_dir = Path(voc_dir)
    listing = f"ImageSets/Segmentation/{'train' if is_train else 'val'}.txt"
    roots = [voc_dir, voc_dir / "VOC2012", voc_dir / _FOLDER]
    root = next((root for root in roots if (root / listing).is_file()), None)
    if root is None:
        raise InputError(f"{voc_dir / listing}: no such file; `voc_dir` is the folder VOC2012")
    names = (root / listing).read_text().split()
    features = [read_image(root / "JPEGImages" / f"{name}.jpg") for name in names]
    labels = [read_image(root / "SegmentationClass" / f"{name}.png") for name in names]
    for name, feature, label in zip(names, features, labels, strict=True):
        if feature.shape != label.shape:
            raise InputError(
                f"{root}: picture {name} is {feature.shape[:2]} (height, width), its mask "
                f"{label.shape[:2]}"
            )
    return features, labels
