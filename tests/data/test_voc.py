"""Colours to classes, windows of picture and mask, the book's reader of the folder."""

import fake_archives
import numpy as np
import pytest
import tensorflow as tf

import kerascv_d2l
from kerascv_d2l import (
    VOC_CLASSES,
    VOC_COLORMAP,
    InputError,
    read_voc_images,
    voc_colormap2label,
    voc_label_indices,
    voc_rand_crop,
)
from kerascv_d2l.data import voc

pytestmark = pytest.mark.quick

HEIGHT, WIDTH = 7, 11


@pytest.fixture(scope="module")
def table():
    return voc_colormap2label()


def coloured(classes):
    colors = np.reshape(fake_archives.palette(), (256, 3)).astype(np.uint8)
    return colors[classes]


def test_lists():
    assert len(VOC_COLORMAP) == len(VOC_CLASSES) == 21
    assert VOC_CLASSES[0] == "background"
    # VOC's own rule: the bits of the index spread over the channels, high bits first.
    for index, color in enumerate(VOC_COLORMAP):
        rule = [0, 0, 0]
        for bit in range(8):
            rule[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
        assert color == rule
    assert kerascv_d2l.VOC_VOID == 255


def test_table_is_indexed_as_in_the_book(table):
    assert table.shape == (256**3,)
    assert table[(128 * 256 + 0) * 256 + 0] == VOC_CLASSES.index("aeroplane")
    assert table[(0 * 256 + 64) * 256 + 128] == VOC_CLASSES.index("tv/monitor")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_label_indices(table, dtype, batch):
    rng = np.random.default_rng(0)
    classes = rng.choice([*range(21), 255], (*batch, HEIGHT, WIDTH))
    colors = coloured(classes).astype(dtype)
    np.testing.assert_array_equal(voc_label_indices(colors, table), classes)
    in_graph = tf.function(voc_label_indices)(tf.constant(colors), table)
    np.testing.assert_array_equal(in_graph, classes)


def test_fast_way_equals_the_table_for_any_colour(table):
    rng = np.random.default_rng(1)
    colors = rng.integers(0, 256, (HEIGHT, 2 * WIDTH, 3), np.uint8)
    colors[:2] = coloured(rng.integers(0, 21, (2, 2 * WIDTH)))
    r, g, b = np.moveaxis(colors.astype(int), -1, 0)
    wanted = table.numpy()[(r * 256 + g) * 256 + b]
    np.testing.assert_array_equal(voc_label_indices(colors, table), wanted)
    strided = colors[:, ::2]
    np.testing.assert_array_equal(voc_label_indices(strided, table), wanted[:, ::2])
    one = colors[:1, :1]
    np.testing.assert_array_equal(voc_label_indices(one, table), wanted[:1, :1])
    assert voc_label_indices(colors[:0], table).shape == (0, 2 * WIDTH)


def test_every_pair_of_colours_of_three_bits(table):
    """All 2**18 pairs that the multiplier has to keep apart from the 22 * 22 of VOC."""
    levels = np.arange(0, 256, 32, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)  # (512, 3)
    first, second = np.repeat(colors, 512, 0), np.tile(colors, (512, 1))
    pairs = np.stack([first, second], 1)  # (2**18, 2, 3)
    codes = pairs.astype(int) @ [256 * 256, 256, 1]
    wanted = table.numpy()[codes]
    fits = (wanted != 255) | (codes == (224 * 256 + 224) * 256 + 192)
    index = voc._hash(_little_endian(pairs).astype(np.uint64))
    found = voc._pair_table()[index.view(np.int64)]
    known = fits.all(1)
    assert known.sum() == 22 * 22
    assert (found[~known] == voc._NO_PAIR).all()
    np.testing.assert_array_equal(found[known].astype("<i2").view(np.uint8), wanted[known].ravel())


def _little_endian(pairs):
    """Two colours `(n, 2, 3)` as the low bytes of uint64 `(n,)`, below noise."""
    noise = np.random.default_rng(2).integers(0, 256, (len(pairs), 2), np.uint8)
    content = np.concatenate([pairs.reshape(-1, 6), noise], 1)
    return np.ascontiguousarray(content).view("<u8")[:, 0]


@pytest.mark.parametrize("unknown", [(1, 2, 3), (64, 64, 192), (224, 192, 192), (0, 0, 32)])
def test_one_unknown_colour_anywhere_is_void(table, unknown):
    rng = np.random.default_rng(3)
    for count in (1, 2, 3, 4, 5, 6, 7, 20):
        classes = rng.choice([*range(21), 255], (1, count))
        for place in range(count):
            colors = coloured(classes)
            colors[0, place] = unknown
            wanted = classes.copy()
            wanted[0, place] = 255
            np.testing.assert_array_equal(voc_label_indices(colors, table), wanted)


def test_the_result_is_a_tensor_like_any_other(table):
    classes = np.random.default_rng(4).integers(0, 21, (37, 53))
    colors = coloured(classes)
    found = [voc_label_indices(colors, table) for _ in range(20)]  # each in memory of its own
    colors[:] = 0
    voc_label_indices(colors, table)
    for indices in found:
        assert int(tf.reduce_sum(tf.cast(indices, tf.float32)[3:, 5:])) == classes[3:, 5:].sum()
        np.testing.assert_array_equal(indices, classes)


def test_a_table_of_ones_own(table):
    own = np.zeros(256**3, np.int32)
    own[256 + 2] = 7
    colors = np.array([[[0, 1, 2], [2, 1, 0]]], np.uint8)
    assert voc_label_indices(colors, own).numpy().tolist() == [[7, 0]]


def test_label_indices_in_map_with_unknown_sizes(table):
    classes = np.arange(HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH) % 21
    data = tf.data.Dataset.from_generator(
        lambda: iter(coloured(classes)),
        output_signature=tf.TensorSpec((None, None, 3), tf.uint8),
    )
    (found,) = data.map(lambda colors: voc_label_indices(colors, voc_colormap2label()))
    np.testing.assert_array_equal(found, classes[0])


def test_a_colour_of_no_class_is_void(table):
    colors = np.array([[[224, 224, 192], [1, 2, 3], [0, 0, 0]]], np.uint8)
    assert voc_label_indices(colors, table).numpy().tolist() == [[255, 255, 0]]


def test_label_indices_needs_colours(table):
    with pytest.raises(InputError, match=r"`colormap` must be .* got \(7, 11\)"):
        voc_label_indices(np.zeros((HEIGHT, WIDTH), np.uint8), table)


def places(height=HEIGHT, width=WIDTH):
    """Picture and mask that both say where each of their pixels stood."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, y + x], -1).astype(np.uint8), (y * width + x).astype(np.int32)


@pytest.mark.parametrize("seed", [None, (3, 4)])
@pytest.mark.parametrize("channels", [False, True])
def test_picture_and_mask_get_the_same_window(seed, channels):
    feature, label = places()
    if channels:
        label = label[..., None]
    for _ in range(5):
        window, mask = voc_rand_crop(feature, label, 4, 9, seed)
        assert window.shape == (4, 9, 3)
        assert mask.shape == (4, 9, 1) if channels else (4, 9)
        y, x, _ = np.moveaxis(window.numpy().astype(int), -1, 0)
        np.testing.assert_array_equal(np.reshape(mask, (4, 9)), y * WIDTH + x)
        assert (np.diff(y, axis=0) == 1).all() and (np.diff(x, axis=1) == 1).all()


def test_windows_come_from_every_place_alike():
    feature, label = places()
    draws = 3000
    tops, lefts = np.zeros(4), np.zeros(3)

    def place(i):
        window, _ = voc_rand_crop(feature, label, 4, 9, tf.stack([i, 0]))
        return window[0, 0, :2]

    drawn = tf.data.Dataset.range(draws).map(place, tf.data.AUTOTUNE).batch(draws)
    for top, left in next(iter(drawn)).numpy():
        tops[top] += 1
        lefts[left] += 1
    # Four standard deviations of a binomial count.
    assert np.abs(tops / draws - 1 / 4).max() < 4 * np.sqrt(3 / 16 / draws)
    assert np.abs(lefts / draws - 1 / 3).max() < 4 * np.sqrt(2 / 9 / draws)


def test_same_seed_same_window():
    feature, label = places(40, 60)
    first, again, other = (
        voc_rand_crop(feature, label, 5, 6, seed)[1].numpy() for seed in ((1, 2), (1, 2), (1, 3))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_whole_picture_as_window():
    feature, label = places()
    window, mask = voc_rand_crop(feature, label, HEIGHT, WIDTH)
    np.testing.assert_array_equal(window, feature)
    np.testing.assert_array_equal(mask, label)


def test_bad_windows():
    feature, label = places()
    with pytest.raises(InputError, match="`height` is 8, but the picture's is 7"):
        voc_rand_crop(feature, label, 8, 9)
    with pytest.raises(InputError, match="`width` is 12, but the picture's is 11"):
        voc_rand_crop(feature, label, 7, 12)
    with pytest.raises(InputError, match=r"`feature` is 7 x 11 .* `label` 6 x 11"):
        voc_rand_crop(feature, label[1:], 3, 3)
    with pytest.raises(InputError, match=r"\(h, w, channels\)"):
        voc_rand_crop(feature[None], label, 3, 3)
    unknown = tf.function(
        lambda x, y: voc_rand_crop(x, y, 8, 9),
        input_signature=[
            tf.TensorSpec((None, None, 3), tf.uint8),
            tf.TensorSpec((None, None), tf.int32),
        ],
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="smaller than the window"):
        unknown(feature, label)


@pytest.mark.parametrize("given", ["VOCdevkit/VOC2012", "VOCdevkit", ""])
def test_read_voc_images(tmp_path, given):
    fake_archives.write(fake_archives.voc(num_train=2, num_val=3, bad=False), tmp_path)
    features, labels = read_voc_images(tmp_path / given, is_train=True)
    assert len(features) == len(labels) == 2
    height, width = fake_archives.ODD_SIZE
    assert features[1].shape == labels[1].shape == (height, width, 3)
    np.testing.assert_array_equal(labels[1], coloured(fake_archives.voc_mask(1, height, width)))
    error = features[1].astype(int) - fake_archives.picture(1, height, width)
    assert np.abs(error).mean() < 3  # JPEG
    assert len(read_voc_images(tmp_path / given, is_train=False)[0]) == 3


def test_read_voc_images_names_what_is_bad(tmp_path):
    fake_archives.write(fake_archives.voc(), tmp_path)
    with pytest.raises(InputError, match=r"2007_000002\.jpg: damaged or truncated"):
        read_voc_images(tmp_path)
    with pytest.raises(InputError, match=r"Segmentation/train\.txt: no such file"):
        read_voc_images(tmp_path / "VOCdevkit" / "VOC2007")
