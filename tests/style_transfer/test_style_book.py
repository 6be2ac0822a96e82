"""The book's functions against values that its PyTorch code gave (tests/recording)."""

# ruff: noqa: N803, N806 - X and Y are the book's names

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerascv_d2l import read_image, style_transfer as st
from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer.images import as_rgb

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import style_inputs as given  # noqa: E402

TOLERANCE = 1e-3  # relative to the root mean square


@pytest.fixture(scope="module")
def recorded():
    return json.loads((RECORDING / "style.json").read_text())


@pytest.fixture(scope="module")
def net():
    network = st.torchvision_vgg19()
    for index, weights in given.vgg19_weights().items():
        network.model.get_layer(f"features_{index}").set_weights(weights)
    return network


def assert_recorded(array, expected):
    samples = np.array(given.samples(array))
    np.testing.assert_allclose(samples, expected, rtol=0, atol=TOLERANCE * abs(expected[-1]))


@pytest.mark.parametrize("shape", given.SHAPES)
def test_features_and_gram_matrices(net, recorded, shape):
    expected = recorded["features"]["x".join(map(str, shape))]
    contents, styles = st.extract_features(
        given.make_image("content", shape), given.CONTENT_LAYERS, given.STYLE_LAYERS, net
    )
    assert len(contents) == 1 and len(styles) == 5
    for features, values in zip(contents, expected["contents"], strict=True):
        assert_recorded(features, values)
    for features, values in zip(styles, expected["styles"], strict=True):
        assert_recorded(features, values)
    for features, values in zip(styles, expected["grams"], strict=True):
        assert_recorded(st.gram(features), values)


def test_torchvisions_weights_load_from_safetensors(net, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = {}
    for index, (kernel, bias) in given.vgg19_weights().items():
        tensors[f"features.{index}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        tensors[f"features.{index}.bias"] = bias
    # What comes after the last layer is left in the file.
    tensors["features.30.bias"] = tensors["head.fc.bias"] = np.zeros(4, np.float32)
    path = tmp_path / "vgg19.safetensors"
    safetensors.save_file(tensors, path)
    loaded = st.torchvision_vgg19(path)
    for ours, theirs in zip(loaded.model.get_weights(), net.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    tensors["features.5.bias"] = np.zeros(7, np.float32)
    del tensors["features.28.bias"]
    safetensors.save_file(tensors, path)
    faults = (
        r"1 missing: features\.28\.bias \(512,\); 1 .*features\.5\.bias \(7,\), expected \(128,\)"
    )
    with pytest.raises(InputError, match=faults):
        st.torchvision_vgg19(path)


def test_losses(net, recorded):
    content = given.make_image("content", given.TRAIN_SHAPE)
    style = given.make_image("style", given.TRAIN_SHAPE)
    contents_Y, styles_of_content = net.extract(content)
    contents_of_style, styles_Y = net.extract(style)
    values = [
        float(st.content_loss(a, b)) for a, b in zip(contents_of_style, contents_Y, strict=True)
    ]
    assert values == pytest.approx(recorded["content_losses"], rel=TOLERANCE)
    grams = [st.gram(Y) for Y in styles_Y]
    values = [float(st.style_loss(a, b)) for a, b in zip(styles_of_content, grams, strict=True)]
    assert values == pytest.approx(recorded["style_losses"], rel=TOLERANCE)
    values = [float(st.tv_loss(content)), float(st.tv_loss(style))]
    assert values == pytest.approx(recorded["tv_losses"], rel=TOLERANCE)

    contents_l, styles_l, tv_l, total = st.compute_loss(
        content, contents_of_style, styles_of_content, contents_Y, grams
    )
    assert float(contents_l[0]) == pytest.approx(recorded["content_losses"][0], rel=TOLERANCE)
    assert float(sum(styles_l)) == pytest.approx(1e4 * sum(recorded["style_losses"]), rel=TOLERANCE)
    assert float(tv_l) == pytest.approx(10 * recorded["tv_losses"][0], rel=TOLERANCE)
    assert float(total) == pytest.approx(float(sum(contents_l + styles_l) + tv_l), rel=1e-5)


def torch_adam(image, gradient, state, step, lr):
    """A step of `torch.optim.Adam`, which adds its epsilon after the bias correction."""
    mean, square = state.get("mean", 0), state.get("square", 0)
    state["mean"] = mean = 0.9 * mean + 0.1 * gradient
    state["square"] = square = 0.999 * square + 0.001 * gradient**2
    root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
    return image - lr / (1 - 0.9**step) * mean / root


def test_ten_steps_of_adam(net, recorded, optimized_graphs):
    """In PyTorch's arithmetic the book's losses give the book's image and losses ..."""
    content = tf.constant(given.make_image("content", given.TRAIN_SHAPE))
    contents_Y, _ = net.extract(content)
    _, styles_Y = net.extract(given.make_image("style", given.TRAIN_SHAPE))
    grams = [st.gram(Y) for Y in styles_Y]

    @tf.function
    def value_and_gradient(X):
        with tf.GradientTape() as tape:
            tape.watch(X)
            contents_l, styles_l, tv_l, total = st.compute_loss(
                X, *net.extract(X), contents_Y, grams
            )
        return (tf.add_n(contents_l), tf.add_n(styles_l), tv_l), tape.gradient(total, X)

    image, state, losses = content.numpy(), {}, []
    for step in range(given.TRAIN_STEPS):
        values, gradient = value_and_gradient(tf.constant(image))
        losses.append([float(value) for value in values])
        lr = given.TRAIN_LR * 0.8 ** (step // given.TRAIN_DECAY)
        image = torch_adam(image, gradient.numpy().astype(np.float64), state, step + 1, lr)
        image = image.astype(np.float32)
    # As a whole: a gradient near 0 may turn its sign with the order of additions, and Adam
    # then moves that one value the other way (PyTorch differs from itself as much).
    difference = np.subtract(given.samples(image), recorded["train_image"])
    assert np.linalg.norm(difference) < TOLERANCE * np.linalg.norm(recorded["train_image"])
    np.testing.assert_allclose(losses, recorded["train_losses"], rtol=TOLERANCE, atol=1e-6)

    # ... and in Keras' arithmetic the same but for gradients as small as epsilon.
    losses = []
    st.train(
        content,
        contents_Y,
        styles_Y,
        given.TRAIN_LR,
        given.TRAIN_STEPS,
        given.TRAIN_DECAY,
        net,
        callback=lambda epoch, *values: losses.append(values[:3]),
    )
    np.testing.assert_allclose(losses[0], recorded["train_losses"][0], rtol=TOLERANCE, atol=1e-6)
    np.testing.assert_allclose(losses, recorded["train_losses"], rtol=0.02, atol=1e-6)


def test_the_same_ten_steps_by_style_transfer_with_plain_weights(net, recorded):
    """The image's way in and out is 8 bit, so the loss is compared over arrays here."""
    objective = st.Objective(
        net,
        tf.constant(given.make_image("content", given.TRAIN_SHAPE)),
        [(tf.constant(given.make_image("style", given.TRAIN_SHAPE)), 1.0, None)],
        st.BOOK_WEIGHTS,
    )
    losses, _ = objective(tf.constant(given.make_image("content", given.TRAIN_SHAPE)))
    np.testing.assert_allclose(losses[:3], recorded["train_losses"][0], rtol=1e-3, atol=1e-6)


def test_gram_against_numpy():
    features = np.random.RandomState(0).standard_normal((1, 3, 5, 4)).astype(np.float32)
    flat = features.reshape(15, 4)
    np.testing.assert_allclose(st.gram(features), flat.T @ flat / 60, rtol=1e-5, atol=1e-7)
    batch = np.concatenate([features, 2 * features])
    np.testing.assert_allclose(st.batch_gram(batch)[0], st.gram(features), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(st.batch_gram(batch)[1], st.gram(2 * features), rtol=1e-5, atol=1e-6)


def test_total_variation_of_a_line_of_pixels_is_a_number():
    line = np.array([0, 1, 3], np.float32)
    assert float(st.tv_loss(line.reshape(1, 3, 1, 1))) == pytest.approx(0.75)
    assert float(st.tv_loss(line.reshape(1, 1, 3, 1))) == pytest.approx(0.75)
    assert float(st.tv_loss(np.zeros((1, 1, 1, 3), np.float32))) == 0


def test_preprocess_and_back():
    pixels = np.random.RandomState(0).randint(0, 256, (7, 11, 3)).astype(np.uint8)
    X = st.preprocess(pixels, (7, 11))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(X[0], (pixels / 255 - mean) / std, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(st.postprocess(X)), pixels)
    assert np.asarray(st.postprocess(np.full((1, 1, 1, 3), 9.0))).tolist() == [[[255] * 3]]
    # Of any mode, at another size, height first.
    grey = Image.fromarray(pixels[..., 0])
    assert st.preprocess(grey, (4, 6)).shape == (1, 4, 6, 3)


@pytest.mark.parametrize(
    ("img", "shape", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), (4, 4), "uint8 array"),
        (np.zeros((4, 4), np.uint8), (4, 4), "uint8 array"),
        (np.zeros((4, 4, 3), np.uint8), (0, 4), "image_shape"),
        (np.zeros((4, 4, 3), np.uint8), 4, "image_shape"),
    ],
)
def test_preprocess_refuses(img, shape, message):
    with pytest.raises(InputError, match=message):
        st.preprocess(img, shape)


def test_a_layer_that_is_not_given_is_named(net):
    with pytest.raises(InputError, match=r"\[26\]"):
        st.extract_features(np.zeros((1, 32, 32, 3), np.float32), [26], [0], net)


def test_images_of_pillow_are_taken_as_files_are(tmp_path):
    wide = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.new("LA", (4, 3), (100, 51)).save(tmp_path / "clear.png")
    turned = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(4, 3, 3))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    for name in ("wide.png", "clear.png", "turned.png"):
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(as_rgb(image), read_image(tmp_path / name))


def test_synthesized_image():
    one, same, other = (st.SynthesizedImage((1, 4, 5, 3), seed=s)() for s in (1, 1, 2))
    assert one.shape == (1, 4, 5, 3)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
