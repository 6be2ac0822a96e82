import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import style_transfer as st
from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer import tiles
from kerascv_d2l.style_transfer.networks import average_pooled
from kerascv_d2l.style_transfer.objective import as_targets


def noise(seed, height, width):
    return tf.constant(
        np.random.RandomState(seed).standard_normal((1, height, width, 3)), tf.float32
    )


def pooled():
    """Like VGG: same convolutions, valid pooling."""
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Conv2D(6, 5, padding="same", activation="relu", name="b")(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", name="c")(x)
    return keras.Model(inputs, x)


def strided():
    """Steps with same padding, which pads by the parity of the side, and a skip connection."""
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="a")(x)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = skip = keras.layers.BatchNormalization(name="b")(x)
    x = keras.layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation="relu")(x)
    x = keras.layers.Add()([x, skip])
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="c")(x)
    return keras.Model(inputs, x)


def padded():
    """Like MobileNet: zeros added on one side, then valid convolutions."""
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="a")(x)
    x = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.Conv2D(6, 3, name="b")(x)
    x = keras.layers.AveragePooling2D(3, 2)(x)
    x = keras.layers.Conv2D(8, 1, name="c")(x)
    return keras.Model(inputs, x)


def network(build):
    keras.utils.set_random_seed(0)
    return st.from_model(build(), ["c"], ["a", "b", "c"], "tf")


@pytest.mark.parametrize("build", [pooled, strided, padded])
@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [
        (64, 40, 16),
        (61, 43, 9),
        pytest.param(50, 23, 24, marks=pytest.mark.long),
        pytest.param(24, 40, 12, marks=pytest.mark.long),
    ],
)
def test_tiles_give_the_loss_and_gradient_of_the_whole(build, height, width, tile):
    net = network(build)
    mask = np.random.RandomState(3).uniform(size=(37, 58)) > 0.4
    styles = [(noise(1, 37, 58), 1.0, mask.astype(np.float32)), (noise(2, 45, 31), 3.0, None)]
    arguments = (net, noise(0, height, width), styles)
    image = noise(4, height, width)
    losses, gradient = st.Objective(*arguments)(image)
    tiled_losses, tiled_gradient = st.Objective(*arguments, tile=tile)(image)
    np.testing.assert_allclose(tiled_losses, losses, rtol=1e-4)
    scale = float(tf.reduce_max(tf.abs(gradient)))
    np.testing.assert_allclose(tiled_gradient, gradient, rtol=0, atol=1e-5 * scale)


@pytest.mark.quick
def test_spans_cover_every_feature_once():
    reaches = [tiles.Reach(1, 3, 3), tiles.Reach(4, 9, 12), tiles.Reach(8, 20, 30)]
    for side in range(8, 120):
        spans = tiles.spans(side, 16, reaches)
        for stride in (1, 4, 8):
            covered = []
            for span in spans:
                features = list(range(span.start // stride, -(-span.stop // stride)))
                core = slice(*span.features(stride))
                covered += features[core]
                whole = list(range(-(-side // stride)))
                assert features[core] == whole[span.place(stride)]
            assert covered == list(range(-(-side // stride))), (side, stride)


def test_a_network_that_mixes_all_positions_is_not_cut():
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="a")(x)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    x = keras.layers.Multiply(name="b")([x, gate])
    net = st.from_model(keras.Model(inputs, x), ["b"], ["a", "b"], "tf")
    styles = [(noise(1, 16, 16), 1.0, None)]
    st.Objective(net, noise(0, 16, 16), styles)
    with pytest.raises(InputError, match="squeeze"):
        st.Objective(net, noise(0, 16, 16), styles, tile=8)


@pytest.mark.quick
def test_a_network_that_calls_a_layer_twice_is_not_cut():
    inputs = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(3, 3, padding="same", name="a")
    with pytest.raises(InputError, match="calls a layer twice"):
        tiles.reaches(keras.Model(inputs, layer(layer(inputs))))


@pytest.mark.quick
def test_normalised_losses_do_not_depend_on_the_scale_of_a_layer():
    """The same network in other units: what torchvision's and Keras' VGG-19 are to each other."""

    def values(factors):
        net = network(pooled)
        before = 1.0
        for name, factor in zip("abc", factors, strict=True):
            layer = net.model.get_layer(name)
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * factor / before, bias * factor])
            before = factor
        objective = st.Objective(net, noise(0, 32, 48), [(noise(1, 40, 24), 1.0, None)])
        return objective(noise(2, 32, 48))

    losses, gradient = values((1, 1, 1))
    scaled_losses, scaled_gradient = values((0.01, 30, 500))
    np.testing.assert_allclose(scaled_losses, losses, rtol=1e-4)
    np.testing.assert_allclose(
        scaled_gradient, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max()
    )


def test_features_of_any_size_give_finite_losses():
    """Squares of numbers around 1e-13 and 1e13 would leave float32."""
    for factor in (1e-13, 1e13):
        net = network(pooled)
        layer = net.model.get_layer("c")
        layer.set_weights([weights * factor for weights in layer.get_weights()])
        styles = [(2 * noise(1, 40, 24), 1.0, None)]
        for tile in (None, 8):
            losses, gradient = st.Objective(net, noise(0, 32, 48), styles, tile=tile)(
                noise(0, 32, 48)
            )
            np.testing.assert_allclose(losses[:2], [0, 10], rtol=1e-3, atol=1e-3)
            assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_networks_by_name():
    assert st.named_network("vgg19").content_layers == (25,)
    assert st.named_network("keras_vgg19").content_layers == ("block4_conv4",)
    assert st.named_network("vgg16").content_layers == ("block4_conv3",)
    nets = [st.named_network("mobilenet_0.25", seed=0) for _ in range(2)]
    for one, other in zip(*(net.model.get_weights() for net in nets), strict=True):
        np.testing.assert_array_equal(one, other)
    for net in (nets[0], st.named_network("mobilenetv2_0.35", seed=0)):
        contents, styles = net.extract(noise(0, 64, 96))
        assert [f.shape[1:3] for f in contents] == [(8, 12)]
        assert (styles[-1].shape[1:3], len(styles)) == ((4, 6), len(net.style_layers))
    # Networks that scale pixels themselves get 0-255.
    gray = st.preprocess(np.full((32, 32, 3), 200, np.uint8), (32, 32))
    seen = net.model.get_layer("pixels_to_unit_range")
    probe = keras.Model(net.model.inputs, seen.output)
    net.model = probe
    np.testing.assert_allclose(net.features(gray)[0], 200 / 127.5 - 1, atol=1e-4)
    for name, message in (("mobilenet_wide", "'wide'"), ("vgg", "not known")):
        with pytest.raises(InputError, match=message):
            st.named_network(name)


def test_average_pooling_takes_means_and_keeps_the_weights():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="a")(x)
    model = keras.Model(inputs, [x, keras.layers.MaxPooling2D(2, name="pool")(x)])
    before, pooled_values = average_pooled(model)(noise(0, 6, 9))
    np.testing.assert_allclose(before, model(noise(0, 6, 9))[0], atol=1e-6)
    windows = before.numpy()[:, :, :8].reshape(1, 3, 2, 4, 2, 4)  # the odd column is dropped
    np.testing.assert_allclose(pooled_values, windows.mean((2, 4)), atol=1e-6)

    strided_model = strided()
    assert average_pooled(strided_model) is strided_model
    net = st.named_network("vgg19", seed=0, pooling="average")
    assert not net.model.trainable
    image = tf.Variable(noise(0, 16, 16))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(net.extract(image)[1][1])
    assert np.all(tape.gradient(value, image).numpy().any(-1))  # of every pixel
    with pytest.raises(InputError, match="pooling = 'min'"):
        st.named_network("vgg19", pooling="min")


def test_files_of_the_wrong_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match="the network for it is keras_vgg19"):
        st.torchvision_vgg19(tmp_path / "vgg19.weights.h5")
    (tmp_path / "mobilenet.keras").write_bytes(b"PK")
    with pytest.raises(InputError, match="not a readable weights file"):
        st.mobilenet(tmp_path / "mobilenet.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights(
        tmp_path / "other.weights.h5"
    )
    with pytest.raises(InputError, match=r"cannot be read.*mobilenet_0\.75"):
        st.mobilenet(tmp_path / "other.weights.h5")


@pytest.mark.quick
def test_normalised_style_loss_is_one_at_the_content_and_nothing_at_the_style():
    net = network(pooled)
    content, style = noise(0, 32, 48), 2 * noise(1, 32, 48)
    objective = st.Objective(net, content, [(style, 1.0, None)], st.LossWeights(1, 7, 0))
    np.testing.assert_allclose(objective(content)[0], [0, 7, 0, 7], atol=1e-5)
    assert float(objective(style)[0][1]) == pytest.approx(0, abs=1e-5)


def test_equal_or_flat_images_give_numbers():
    net = network(pooled)
    flat = tf.zeros((1, 16, 24, 3))
    for content, style in ((flat, flat), (noise(0, 16, 24), noise(0, 16, 24))):
        losses, gradient = st.Objective(net, content, [(style, 1.0, None)])(content)
        assert np.isfinite(losses).all() and np.isfinite(gradient).all()


@pytest.mark.quick
def test_a_mask_takes_the_style_from_its_part_only():
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(5, 1, name="a")(x)  # sees one pixel, so that parts do not mix
    net = st.from_model(keras.Model(inputs, x), ["a"], ["a"], "torch")
    style, content = noise(1, 20, 30), noise(0, 16, 16)
    mask = np.zeros((20, 30), np.float32)
    mask[:, 12:] = 1
    image = noise(2, 16, 16)
    masked = st.Objective(net, content, [(style, 1.0, mask)])(image)
    cut = st.Objective(net, content, [(style[:, :, 12:], 1.0, None)])(image)
    np.testing.assert_allclose(masked[0], cut[0], rtol=1e-4)


@pytest.mark.quick
def test_weights_of_several_styles_are_shares():
    net, content, image = network(pooled), noise(0, 16, 24), noise(3, 16, 24)
    one, other = noise(1, 16, 24), noise(2, 20, 24)
    weights = st.LossWeights(0, 1, 0, normalize=False)

    def style_loss(*styles):
        return float(st.Objective(net, content, list(styles), weights)(image)[0][1])

    mixed = style_loss((one, 2.0, None), (other, 6.0, None))
    expected = style_loss((one, 5.0, None)) / 4 + style_loss((other, 1.0, None)) * 3 / 4
    assert mixed == pytest.approx(expected, rel=1e-4)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("style", "message"),
    [
        (st.Style(np.zeros((8, 9, 3), np.uint8), mask=np.ones((9, 8))), "mask"),
        (st.Style(np.zeros((8, 9, 3), np.uint8), mask=-np.ones((8, 9))), "negative"),
        (st.Style(np.zeros((8, 9, 3), np.uint8), weight=0), "weight"),
    ],
)
def test_styles_that_make_no_sense_are_refused(style, message):
    with pytest.raises(InputError, match=message):
        as_targets(style)


@pytest.mark.quick
def test_empty_mask_and_small_images_are_refused():
    net = network(pooled)
    with pytest.raises(InputError, match="selects nothing"):
        st.Objective(net, noise(0, 16, 16), [(noise(1, 8, 8), 1.0, np.zeros((8, 8)))])
    with pytest.raises(InputError, match="too small"):
        st.Objective(net, noise(0, 3, 16), [(noise(1, 8, 8), 1.0, None)])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("torch", lambda p: (p / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("tf", lambda p: p / 127.5 - 1),
        ("caffe", lambda p: p[..., ::-1] - [103.939, 116.779, 123.68]),
        ("0-255", lambda p: p),
        ("0-1", lambda p: p / 255),
    ],
)
def test_each_network_gets_the_pixels_it_was_made_for(pixels, expected):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Identity(name="same")(inputs))
    net = st.from_model(model, ["same"], [], pixels)
    photo = np.random.RandomState(0).randint(0, 256, (6, 5, 3)).astype(np.uint8)
    seen = net.features(st.preprocess(photo, (6, 5)))[0]
    np.testing.assert_allclose(seen[0], expected(photo.astype(np.float64)), atol=2e-4, rtol=1e-4)


def test_keras_networks_have_the_layers_named_for_them():
    for net in (st.keras_vgg19(), st.vgg16(), st.mobilenet(alpha=0.25)):
        assert [
            name for name in (*net.style_layers, *net.content_layers) if name not in net.taps
        ] == []
        assert all(0 not in shape for shape in net.shapes((48, 64)))


def test_unknown_layers_pixels_and_files_are_named(tmp_path):
    model = pooled()
    with pytest.raises(InputError, match="'z'"):
        st.from_model(model, ["z"], ["a"], "tf")
    with pytest.raises(InputError, match="pixels"):
        st.from_model(model, ["a"], ["a"], "bgr")
    for build in (st.keras_vgg19, st.mobilenet):
        with pytest.raises(InputError, match=r"absent\.weights\.h5"):
            build(weights=tmp_path / "absent.weights.h5")


def test_mobilenet_reads_its_width_from_the_file(tmp_path):
    path = tmp_path / "narrow.weights.h5"
    model = keras.applications.MobileNet(
        include_top=False, weights=None, alpha=0.25, input_shape=(None, None, 3)
    )
    model.save_weights(path)
    net = st.mobilenet(path)
    np.testing.assert_array_equal(
        net.model.get_layer("conv1").get_weights()[0], model.get_layer("conv1").get_weights()[0]
    )
