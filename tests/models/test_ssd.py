import keras
import numpy as np
import pytest
import tensorflow as tf
from scenes import BAD_ROWS, bright_rectangles

from kerascv_d2l import (
    SSD,
    InputError,
    SSDLoss,
    TinySSD,
    base_net,
    bbox_predictor,
    cls_predictor,
    concat_preds,
    down_sample_blk,
    multibox_prior,
    multibox_target,
)
from kerascv_d2l.export import save_lite


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A detector that has learnt a handful of images by heart, and its images."""
    keras.utils.set_random_seed(0)
    images, labels = bright_rectangles(8)
    model = TinySSD(2, class_names=("even", "odd"))
    loss = SSDLoss(box_loss="smooth_l1", normalizer="positives", negatives_per_positive=3.0)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(images, labels, batch_size=8, epochs=60, verbose=0)
    return model, images, labels


@pytest.mark.quick
def test_shapes_of_the_book():
    images = tf.zeros((2, 256, 256, 3))
    anchors, cls_preds, bbox_preds = TinySSD(1)(images)
    assert anchors.shape == (1, 5444, 4)
    assert cls_preds.shape == (2, 5444, 2)
    assert bbox_preds.shape == (2, 21776)
    assert cls_predictor(5, 10)(tf.zeros((2, 20, 20, 8))).shape == (2, 20, 20, 55)
    assert bbox_predictor(3)(tf.zeros((2, 10, 10, 16))).shape == (2, 10, 10, 12)
    assert down_sample_blk(10)(tf.zeros((2, 20, 20, 3))).shape == (2, 10, 10, 10)
    assert base_net()(images).shape == (2, 32, 32, 64)


@pytest.mark.quick
def test_predictions_are_joined_by_pixel_then_channel():
    first = np.arange(2 * 1 * 2 * 3).reshape(2, 1, 2, 3)
    second = 100 + np.arange(2 * 2 * 1 * 1).reshape(2, 2, 1, 1)
    expected = [[0, 1, 2, 3, 4, 5, 100, 101], [6, 7, 8, 9, 10, 11, 102, 103]]
    np.testing.assert_array_equal(concat_preds([first, second]), expected)


@pytest.mark.quick
def test_predictions_stand_by_their_anchors():
    """A prediction planted at one pixel of one map comes out at the anchors of that pixel."""
    model = TinySSD(2)
    images = tf.zeros((1, 128, 192, 3))
    maps = model.features(images)
    row, column, anchor = 1, 4, 2  # of the second map, 8 x 12
    kernel = np.zeros(model.cls_predictors[1].kernel.shape, np.float32)
    bias = np.zeros(model.cls_predictors[1].bias.shape, np.float32)
    bias[anchor * 3 + 1] = 5
    model.cls_predictors[1].kernel.assign(kernel)
    model.cls_predictors[1].bias.assign(bias)
    anchors, cls_preds, _ = model(images)
    index = 16 * 24 * 4 + (row * 12 + column) * 4 + anchor
    np.testing.assert_allclose(cls_preds[0, index], [0, 5, 0])
    expected = multibox_prior(maps[1], [0.37, 0.447], [1, 2, 0.5])
    np.testing.assert_array_equal(
        anchors[0, index], tf.reshape(expected, (8, 12, 4, 4))[row, column, anchor]
    )


@pytest.mark.quick
def test_loss_and_figures_by_hand():
    images, labels = bright_rectangles(3)
    model = TinySSD(2)
    model.compile("sgd")
    figures = model.evaluate(images, labels, batch_size=2, verbose=0, return_dict=True)
    anchors, cls_preds, bbox_preds = (x.numpy() for x in model(images))
    offsets, mask, classes = (x.numpy() for x in multibox_target(anchors, labels))
    assert (classes > 0).sum() >= 3
    log_p = tf.nn.log_softmax(cls_preds).numpy()
    entropy = -np.take_along_axis(log_p, classes[..., None], axis=-1).mean()
    mae = np.abs((bbox_preds - offsets) * mask).mean()
    expected = {
        "class_error": (cls_preds.argmax(-1) != classes).mean(),
        "bbox_mae": mae,
        "loss": entropy + mae,
    }
    assert figures == pytest.approx(expected, rel=1e-4)


def test_learns(trained):
    model, images, labels = trained
    found = model.detect(images)
    for i in range(len(images)):
        assert found["classes"][i, 0] == labels[i, 1, 0]
        assert found["scores"][i, 0] > 0.5
        np.testing.assert_allclose(found["boxes"][i, 0], labels[i, 1, 1:], atol=0.08)


def test_save_and_load_keep_everything(trained, tmp_path):
    model, images, labels = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.class_names == ("even", "odd") and type(loaded) is TinySSD
    for name, value in model.detect(images).items():
        np.testing.assert_array_equal(loaded.detect(images)[name], value)
    assert loaded.loss.settings == model.loss.settings
    assert loaded.optimizer.iterations == model.optimizer.iterations
    again = keras.models.load_model(tmp_path / "model.keras")
    for copy in (loaded, again):  # the optimizer's state counts in the next step
        copy.train_on_batch(images, labels)
    for a, b in zip(loaded.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    moved = zip(loaded.weights, model.weights, strict=True)
    assert any(np.any(a.numpy() != b.numpy()) for a, b in moved)


@pytest.mark.long  # XLA takes its time
def test_compiled_step_equals_plain_and_takes_wrong_rows_for_padding():
    images, labels = bright_rectangles(6)
    losses = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        model = TinySSD(2)
        model.compile(keras.optimizers.SGD(0.05), jit_compile=jit)
        losses.append([model.train_on_batch(images, labels)[0] for _ in range(3)])
        assert model.jit_compile is jit
    np.testing.assert_allclose(losses[0], losses[1], rtol=5e-3)
    # XLA has no assertions, and `train_on_batch` no check of its own.
    wrong, before, after = labels.copy(), model.get_weights(), []
    wrong[:, 2] = list(BAD_ROWS.values())
    for rows in (labels, wrong):
        model.set_weights(before)
        model.train_on_batch(images, rows)
        after.append(model.get_weights())
    for a, b in zip(*after, strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.quick
def test_xla_only_where_it_pays():
    model = TinySSD(1)
    model.compile("sgd")
    assert model.jit_compile is bool(tf.config.list_physical_devices("GPU"))


@pytest.mark.long
def test_mixed_precision(tmp_path):
    images, labels = bright_rectangles(2)
    model = TinySSD(2, dtype="mixed_bfloat16")
    model.compile(keras.optimizers.SGD(0.1))
    before = model.train_on_batch(images, labels)
    for _ in range(8):
        after = model.train_on_batch(images, labels)
    assert after < before
    anchors, cls_preds, bbox_preds = model(images)
    assert {x.dtype for x in (anchors, cls_preds, bbox_preds)} == {tf.float32}
    assert model.features(images)[0].dtype == tf.bfloat16
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.features(images)[0].dtype == tf.bfloat16
    np.testing.assert_array_equal(loaded(images)[1], cls_preds)
    save_lite(model, tmp_path / "model.tflite", (64, 96))  # as float32
    run = tf.lite.Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
    np.testing.assert_allclose(
        run(images=images[:1])["scores"], model.detect(images[:1])["scores"], atol=0.05
    )


@pytest.mark.quick
def test_any_size_and_type_of_image():
    model = TinySSD(1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 70, 131, 3), np.uint8)
    anchors, cls_preds, _ = model(pixels)
    expected = 4 * (8 * 16 + 4 * 8 + 2 * 4 + 1 * 2 + 1)
    assert anchors.shape[1] == cls_preds.shape[1] == expected
    np.testing.assert_allclose(model(pixels.astype(np.float32))[1], cls_preds, atol=1e-5)


def test_on_another_backbone(tmp_path):
    """The backbone starts as its weights file has it; maps at strides 8 to 64, and one pixel."""
    network = keras.applications.MobileNet(alpha=0.25, weights=None, include_top=False)
    network.save_weights(tmp_path / "mobilenet.weights.h5")
    chosen = {"sizes": [(0.1, 0.2), (0.3,), (0.4, 0.5), (0.6,), (0.8, 0.9)], "ratios": [0.5, 2, 1]}
    weights = tmp_path / "mobilenet.weights.h5"
    model = SSD(3, backbone="mobilenet_0.25", weights=weights, **chosen)
    sizes = [m.shape[1:3] for m in model.features(tf.zeros((1, 128, 192, 3)))]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 1)]
    kernel = model.features.get_layer("conv1").kernel
    np.testing.assert_array_equal(kernel, network.get_layer("conv1").kernel)
    model.save(tmp_path / "ssd.keras")
    loaded = keras.models.load_model(tmp_path / "ssd.keras")
    images = bright_rectangles(1)[0]
    for one, two in zip(loaded(images), model(images), strict=True):
        np.testing.assert_array_equal(one, two)
    first = loaded(images)[0][0].numpy()[:4]
    height, width = images.shape[1:3]
    widths, heights = (first[:, 2] - first[:, 0]) * width, (first[:, 3] - first[:, 1]) * height
    np.testing.assert_allclose(widths / heights, [0.5, 0.5, 2, 1], rtol=1e-4)
    sizes = np.sqrt(widths * heights) / height
    np.testing.assert_allclose(sizes, [0.1, 0.2, 0.1, 0.1], rtol=1e-4)


@pytest.mark.quick
def test_anchors_by_the_labels():
    """Sizes grow from the smallest objects to the largest; shapes are those of the labels."""
    height, width = 200, 400
    sides = np.geomspace(20, 160, 41)  # pixels; each object is half as wide as high
    boxes = np.stack(
        [0 * sides, 0 * sides, sides / np.sqrt(2) / width, sides * np.sqrt(2) / height], 1
    )
    found = SSD.anchor_options(boxes, (height, width))
    sizes = np.array(found["sizes"])
    low, high = 20 * 8**0.05, 20 * 8**0.95
    step = (high / low) ** 0.25
    expected = np.maximum(low * step ** np.arange(5), [16, 32, 64, 128, 128]) / height
    np.testing.assert_allclose(sizes[:, 0], expected, atol=1e-3)
    np.testing.assert_allclose(sizes[:-1, 1] ** 2, sizes[:-1, 0] * sizes[1:, 0], rtol=0.02)
    assert found["ratios"][0] == 0.5 and set(found["ratios"]) == {0.5, 0.62, 0.4}
    assert TinySSD.anchor_options(boxes, (height, width)) == {}
    assert SSD.anchor_options(np.zeros((0, 4)), (height, width)) == {}


@pytest.mark.quick
def test_bad_input_is_named():
    with pytest.raises(InputError, match="at least 1 name"):
        TinySSD(0)
    with pytest.raises(InputError, match="class_names must be 2 names"):
        TinySSD(2, class_names=("one",))
    with pytest.raises(InputError, match=r"image_size must be at least 64 .*got \(48, 64\)"):
        TinySSD(2, image_size=(48, 64))
    with pytest.raises(InputError, match='belong to another backbone than "tiny"'):
        TinySSD(1, weights="imagenet")
    with pytest.raises(InputError, match="mobilenet"):
        SSD(1, backbone="mobilnet")
    with pytest.raises(InputError, match="sizes must be those of 5 maps"):
        TinySSD(1, sizes=((0.1, 0.2),))
    model = TinySSD(1)
    with pytest.raises(InputError, match="at least 64 pixels high and wide"):
        model.detect(np.zeros((1, 48, 256, 3), np.float32))
    with pytest.raises(InputError, match=r"images must be \(batch, height, width, 3\)"):
        model.detect(np.zeros((256, 256, 3), np.float32))
    with pytest.raises(InputError, match=r"loss must be a kerascv_d2l\.SSDLoss"):
        model.compile("sgd", loss="mse")
    model.compile("sgd")
    images, labels = bright_rectangles(2)
    labels[1, 1, 1] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels: every object needs"):
        model.train_on_batch(images, labels)
