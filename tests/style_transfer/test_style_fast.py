import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import style_transfer as st
from kerascv_d2l.errors import InputError
from kerascv_d2l.models.transformer_net import Repaint, TransformerNet, opponent


@pytest.mark.quick
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (17, 30), (32, 24)])
def test_images_of_any_size_come_back_in_it(height, width):
    net = TransformerNet(4, 1)
    pixels = np.random.RandomState(0).randint(0, 256, (2, height, width, 3)).astype(np.uint8)
    painted = net(pixels).numpy()
    assert painted.shape == pixels.shape
    assert painted.min() >= 0 and painted.max() <= 255
    np.testing.assert_allclose(net(pixels[1:]).numpy(), painted[1:], atol=1e-2)


@pytest.mark.quick
def test_an_untrained_network_has_the_colours_of_the_style():
    """Mean and covariance, whatever the light of the image; luminance has more contrast."""
    random = np.random.RandomState(0)
    style, other = (np.clip(random.normal(c, 8, (9, 12, 3)), 0, 255) for c in ([90, 120, 150], 110))
    style[..., 2] = 150 + 2 * (style[..., 1] - 120)
    net = TransformerNet(4, 1)
    net.set_palette([style])
    pixels = random.randint(60, 130, (2, 48, 57, 3)).astype(np.uint8)
    pixels[1] = pixels[0] + 100
    wanted, found = (opponent(x).numpy().reshape(-1, 3) for x in (style, net(pixels[:1])))
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=1e-4)
    wanted, found = (np.cov(x.T) for x in (wanted, found))
    assert np.linalg.norm(found - wanted) < 1.3 * np.linalg.norm(wanted)
    np.testing.assert_allclose(net(pixels)[1], net(pixels)[0], atol=0.5)
    net.set_palette([style, other], [3, 1])
    mean = (3 * style + other).mean((0, 1)) / 4
    grey = np.full((1, 4, 5, 3), 200, np.uint8)  # has no colours to bring out
    np.testing.assert_allclose(net(grey)[0, 0, 0], mean, atol=1e-2)


@pytest.mark.quick
def test_colours_are_clipped_but_in_training():
    def column(values):
        return tf.constant(np.reshape(values, (1, -1, 1, 1)).repeat(3, -1), tf.float32)

    inputs = [column([0, 2.5, 1e4, -1e4]), column([127.5] * 4)]
    layer = Repaint()
    np.testing.assert_allclose(layer(inputs)[0, :, 0, 0], [127.5, 159.375, 255, 0], atol=1e-3)
    beyond = layer(inputs, training=True)[0, :, 0, 0]
    np.testing.assert_allclose(beyond, [127.5, 159.375, 127627.5, -127372.5], rtol=1e-4)


def small_network():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(x)
    x = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="b")(x)
    return st.from_model(keras.Model(inputs, x), ["b"], ["a", "b"], "torch")


@pytest.mark.quick
def test_units_of_the_losses():
    """By loops over images and layers; one is nearly flat, one the style image itself."""
    network, random = small_network(), np.random.RandomState(0)
    style = random.randint(0, 256, (12, 12, 3)).astype(np.uint8)
    other = random.randint(0, 256, (12, 12, 3)).astype(np.uint8)
    flat = np.clip(other, 127, 129)
    photographs, painted = np.stack([flat, style, other]), np.stack([other, other, style])
    trainer = st.FastStyleTrainer(TransformerNet(2, 1), network, [st.Style(style)])
    trainer.compute_loss(tf.constant(photographs), y_pred=tf.constant(painted, tf.float32))

    def extract(image):
        contents, styles = network.extract(st.preprocess(image, image.shape[:2]))
        return contents[0].numpy(), [st.gram(x).numpy() for x in styles]

    (of_style, targets), content, style_loss = extract(style), [], []
    for photograph, result in zip(photographs, painted, strict=True):
        (before, grams), (after, grams_after) = extract(photograph), extract(result)
        unit = max(before.var((0, 1, 2)).mean(), of_style.var((0, 1, 2)).mean() / 2)
        content.append(np.mean((after - before) ** 2) / unit)
        for gram, gram_after, target in zip(grams, grams_after, targets, strict=True):
            unit = max(np.mean((gram - target) ** 2), np.mean(target**2))
            style_loss.append(np.mean((gram_after - target) ** 2) / unit)
    found = {tracker.name: float(tracker.result()) for tracker in trainer.metrics}
    assert found["content_loss"] == pytest.approx(np.mean(content), rel=1e-4)
    assert found["style_loss"] == pytest.approx(10 * np.mean(style_loss), rel=1e-4)


@pytest.mark.long  # the script does the same
def test_training_lowers_the_loss_and_the_network_is_saved(tmp_path):
    network = small_network()
    fixed = network.model.get_weights()
    random = np.random.RandomState(0)
    photographs = random.randint(0, 256, (8, 4, 6, 3)).repeat(5, 1).repeat(5, 2).astype(np.uint8)
    style = st.Style(random.randint(0, 256, (20, 20, 3)).astype(np.uint8))  # finer
    net = TransformerNet(4, 1)
    trainer = st.FastStyleTrainer(net, network, [style])
    trainer.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(photographs).batch(4)
    history = trainer.fit(data, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.75 * history["loss"][0]
    parts = [history[name][-1] for name in ("content_loss", "style_loss", "tv_loss")]
    assert sum(parts) == pytest.approx(history["loss"][-1], rel=1e-3)
    for before, after in zip(fixed, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)

    net.save(tmp_path / "net.keras")
    expected = net(photographs[:2, :9, :14]).numpy()
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert loaded.task == "style" and loaded.get_config() == net.get_config()
    np.testing.assert_allclose(loaded(photographs[:2, :9, :14]), expected, atol=1e-2)


@pytest.mark.quick
def test_plain_weights_masks_and_no_style_are_refused():
    network = st.torchvision_vgg19(seed=0)
    style = st.Style(np.zeros((16, 16, 3), np.uint8), mask=np.ones((16, 16)))
    net = TransformerNet(2, 1)
    for styles, weights, message in (
        ([style], None, "mask"),
        ([style], st.BOOK_WEIGHTS, "normalised"),
        ([], None, "empty"),
    ):
        with pytest.raises(InputError, match=message):
            st.FastStyleTrainer(net, network, styles, weights)
    with pytest.raises(InputError, match="width"):
        TransformerNet(0)
