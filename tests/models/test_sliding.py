"""One pass over an image, against the classifier on each window."""

import keras
import numpy as np
import pytest
from small_networks import small_backbone

import kerascv_d2l as d2l

pytestmark = pytest.mark.quick
layers = keras.layers


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype(np.float32)


def unpadded(tail):
    return keras.Sequential(
        [
            keras.Input((18, 22, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(5, 3, strides=2, activation="relu"),
            *tail,
        ]
    )


TAILS = {
    "dense": [layers.Flatten(), layers.Dense(7, "relu"), layers.Dropout(0.5), layers.Dense(3)],
    "mean": [layers.GlobalAveragePooling2D(), layers.Dense(3)],
    "maximum": [layers.GlobalMaxPooling2D(), layers.ReLU(), layers.Dense(3)],
    "convolution": [
        layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(3, 1), layers.Reshape((3,))
    ],
}  # fmt: skip


@pytest.mark.parametrize("tail", TAILS)
def test_without_padding_every_window_is_equal(tail):
    model = unpadded(TAILS[tail])
    sliding = d2l.SlidingClassifier(model)
    assert sliding.window == (18, 22) and sliding.stride == 4 and sliding.context == 0
    image = image_of(31, 35)
    found = sliding(image).numpy()[0]
    assert found.shape == (4, 4, 3)
    windows = [
        image[0, top : top + 18, left : left + 22]
        for top in range(0, 13, 4)
        for left in range(0, 13, 4)
    ]
    wanted = model(np.stack(windows)).numpy().reshape(4, 4, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(sliding.corners((4, 4))[1, 3], (4, 12))


def test_a_softmax_is_left_out():
    tail = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    model = unpadded(tail)
    image = image_of(18, 22)
    logits = d2l.SlidingClassifier(model)(image)[:, 0, 0]
    np.testing.assert_allclose(keras.ops.softmax(logits), model(image), atol=1e-6)


def check_padded(model, size, exact):
    """One pass is the sliding network on the window with its context, at every window."""
    sliding = d2l.SlidingClassifier(model)
    stride, context, (high, wide) = sliding.stride, sliding.context, sliding.window
    assert context % stride == 0 and context > 0
    window = image_of(high, wide)
    np.testing.assert_allclose(sliding(window)[:, 0, 0], model(window), rtol=1e-4, atol=exact)
    image = image_of(*size)
    found = sliding(image).numpy()[0]
    for i, j in np.ndindex(found.shape[:2]):
        top, left = max(0, i * stride - context), max(0, j * stride - context)
        crop = image[:, top : i * stride + high + context, left : j * stride + wide + context]
        wanted = sliding(crop)[0, i - top // stride, j - left // stride]
        np.testing.assert_allclose(found[i, j], wanted, rtol=1e-4, atol=exact)
    return sliding, image, found


def test_with_padding_windows_with_their_context_are_equal():
    model = d2l.Classifier(small_backbone(8), 3, image_size=(24, 32))
    sliding, image, found = check_padded(model, (88, 96), 1e-5)
    assert sliding.stride == 8 and sliding.context == 16
    # Without the context zeros stand where one pass sees the image.
    alone = model(image[:, 32:56, 32:64])[0]
    assert np.abs(found[4, 4] - alone).max() > 1e-3


def test_a_localizer_slides_with_its_boxes():
    model = d2l.Localizer(small_backbone(8, padding="valid"), 2, image_size=(32, 40))
    sliding = d2l.SlidingClassifier(model)
    image = image_of(48, 56)
    found = sliding(image)
    wanted = model(image[:, 8:40, 16:56])
    for name in ("logits", "boxes"):
        np.testing.assert_allclose(found[name][0, 1, 2], wanted[name][0], rtol=1e-4, atol=1e-5)


def test_what_cannot_slide_says_so():
    pixels = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3)(pixels)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    x = layers.GlobalAveragePooling2D()(x * squeezed)
    with pytest.raises(d2l.InputError, match="squeeze looks at the whole image"):
        d2l.SlidingClassifier(keras.Model(pixels, layers.Dense(2)(x)))
    with pytest.raises(d2l.InputError, match="does not end in"):
        d2l.SlidingClassifier(keras.Model(pixels, layers.Conv2D(4, 3)(pixels)))
    with pytest.raises(d2l.InputError, match="norm cannot slide"):
        tail = [layers.GlobalAveragePooling2D(), layers.UnitNormalization(name="norm")]
        d2l.SlidingClassifier(unpadded(tail))
    mean = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    free = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3), *mean])
    with pytest.raises(d2l.InputError, match="window is missing"):
        d2l.SlidingClassifier(free)


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_0.25", "mobilenetv2_0.35", "vgg16"])
def test_networks_of_the_table(name):
    model = d2l.imagenet_classifier(name, image_size=(64, 64))
    check_padded(model, (96, 128), 1e-4)


def test_boxes_at_several_scales():
    """A classifier by hand: bright windows are of class 1."""
    pixels = keras.Input((16, 16, 3))
    x = layers.AveragePooling2D(4)(pixels)
    model = keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    model.layers[-1].set_weights([np.float32([[0, 1]] * 3) / 3, np.float32([0, -100])])
    image = np.zeros((40, 60, 3), np.uint8)
    image[4:36, 20:52] = 250
    found = d2l.slide(model, image, scales=(1.0, 1.5))
    assert [m.shape for m in found["maps"]] == [(40, 60, 2)] * 2
    bright = found["maps"][1][..., 1]
    assert bright[20, 35] > 0.99 and bright[20, 2] < 0.01
    box = found["boxes"][found["classes"] == 1][0]
    iou = d2l.box_iou(box[None], np.float32([[20 / 60, 0.1, 52 / 60, 0.9]]))
    assert float(iou[0, 0]) > 0.5
    assert d2l.slide(model, image, score_threshold=1.1)["boxes"].shape == (0, 4)
    with pytest.raises(d2l.InputError, match="scales"):
        d2l.slide(model, image, scales=(0.5,))
