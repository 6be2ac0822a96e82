"""Windows over whole images against loops in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.models.segmenter import Segmenter, window_starts

CLASSES = 5
STRIDE = 32
WINDOW = (64, 96)
OVERLAP = 20
WEIGHTS = np.random.default_rng(0).integers(-3, 4, size=(3, CLASSES)).astype(np.float32)


def score(windows):
    """Scores that depend on the place in the window, other in each class: seams would show.

    Whole numbers, so that sums are exact in any order.
    """
    windows = tf.cast(windows, tf.float32)
    size = tf.shape(windows)
    row, column = tf.range(size[1])[:, None, None], tf.range(size[2])[:, None]
    factor = tf.constant([1, 2, 3, 4, 5])
    place = row * factor % 97 + column * factor % 89  # (height, width, classes)
    return tf.tensordot(windows, WEIGHTS, 1) + tf.cast(place, tf.float32)


def slow_starts(size, window):
    step = window - min(OVERLAP, window // 2)
    number = 1 + -(-(size - window) // step)
    return [i * (size - window) // max(number - 1, 1) for i in range(number)]


def slow_scores(image, flip=False):
    height, width = image.shape[:2]
    missing = [(0, max(0, STRIDE - side)) for side in (height, width)]
    image = np.pad(image, [*missing, (0, 0)], mode="edge")
    h, w = (min(WINDOW[k], image.shape[k] // STRIDE * STRIDE) for k in (0, 1))
    total = np.zeros((*image.shape[:2], CLASSES))
    times = np.zeros((*image.shape[:2], 1))
    for top in slow_starts(image.shape[0], h):
        for left in slow_starts(image.shape[1], w):
            window = image[None, top : top + h, left : left + w]
            scores = score(window)[0].numpy()
            if flip:
                scores = (scores + score(window[:, :, ::-1])[0].numpy()[:, ::-1]) / 2
            total[top : top + h, left : left + w] += scores
            times[top : top + h, left : left + w] += 1
    assert times.min() >= 1
    return (total / times)[:height, :width]


def make_image(*size):
    return np.random.default_rng(sum(size)).integers(0, 256, size=(*size, 3)).astype(np.uint8)


def segmenter(**settings):
    settings = {"window": WINDOW, "overlap": OVERLAP, "num_classes": CLASSES, **settings}
    return Segmenter(score, **settings)


# Smaller than the stride, one pixel more than a window, three windows over one pixel (109), ...
SIZES = [(1, 1), (32, 64), (33, 64), (100, 77), (109, 250), (7, 200), (129, 31)]


@pytest.mark.parametrize("windows_at_a_time, flip", [(1, False), (2, True), (50, False)])
def test_windows_are_those_of_the_loop(windows_at_a_time, flip):
    segment = segmenter(windows_at_a_time=windows_at_a_time, flip=flip)
    for size in SIZES:
        image = make_image(*size)
        expected = slow_scores(image, flip)
        classes, scores = segment(image, return_scores=True)
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        np.testing.assert_array_equal(classes, tf.argmax(scores, -1))
        # Without scores the sums decide: as the means do, but for ties within rounding.
        best = np.sort(expected, -1)
        clear = best[..., -1] - best[..., -2] > 1e-3
        np.testing.assert_array_equal(segment(image)[clear], expected.argmax(-1)[clear])
        assert clear.mean() > 0.95


def test_an_image_that_is_one_window_gets_the_plain_scores():
    segment = segmenter()
    for size in [(64, 96), (32, 32), (64, 32)]:
        image = make_image(*size)
        classes, scores = segment(image, return_scores=True)
        np.testing.assert_array_equal(scores, tf.function(score)(image[None])[0])
        np.testing.assert_array_equal(classes, tf.argmax(scores, -1))


def test_a_batch_is_its_images_and_float_is_uint8():
    images = np.stack([make_image(100, 77), make_image(77, 100).transpose(1, 0, 2)])
    segment = segmenter()
    together = segment(images)
    assert together.shape == (2, 100, 77) and together.dtype == tf.int32
    for image, classes in zip(images, together, strict=True):
        np.testing.assert_array_equal(segment(image), classes)
        np.testing.assert_array_equal(segment(image.astype(np.float32)), classes)


def test_no_call_takes_more_windows_than_allowed():
    seen = []

    def watched(windows):
        tf.py_function(lambda shape: seen.append(tuple(shape.numpy())), [tf.shape(windows)], [])
        return score(windows)

    segment = Segmenter(watched, WINDOW, OVERLAP, windows_at_a_time=3, num_classes=CLASSES)
    segment(make_image(250, 300))
    down, across = len(slow_starts(250, 64)), len(slow_starts(300, 96))
    assert sum(shape[0] for shape in seen) == down * across
    assert max(shape[0] for shape in seen) <= 3
    assert {shape[1:3] for shape in seen} == {WINDOW}


@pytest.mark.quick
@pytest.mark.parametrize("size", [64, 65, 96, 109, 128, 1000])
def test_windows_reach_every_pixel_and_overlap_enough(size):
    starts = window_starts(size, 64, OVERLAP).numpy()
    assert starts[0] == 0 and starts[-1] == size - 64
    assert (np.diff(starts) <= 64 - OVERLAP).all()
    assert (np.diff(starts) > 0).all()
    if len(starts) > 1:  # one fewer would not do
        assert (size - 64) > (len(starts) - 2) * (64 - OVERLAP)


def test_saved_in_a_graph_it_takes_any_size(tmp_path):
    module = tf.Module()
    segment = segmenter()
    module.classes = tf.function(
        segment.segment, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)]
    )
    tf.saved_model.save(module, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    for size in [(1, 1), (100, 77)]:
        image = make_image(*size)
        np.testing.assert_array_equal(loaded.classes(image[None])[0], segment(image))


@pytest.mark.quick
def test_errors_name_the_argument():
    with pytest.raises(InputError, match=r"window=\(64, 100\)"):
        segmenter(window=(64, 100))
    with pytest.raises(InputError, match="overlap=-1"):
        segmenter(overlap=-1)
    with pytest.raises(InputError, match=r"shape \(4, 5\)"):
        segmenter()(np.zeros((4, 5)))
    with pytest.raises(InputError, match="at least one pixel"):
        segmenter()(np.zeros((0, 5, 3)))
