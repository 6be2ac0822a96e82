"""FCN and U-Net: their arithmetic, sizes, training, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import small_backbone

from kerascv_d2l.errors import InputError
from kerascv_d2l.losses.segmentation import SegmentationCrossEntropy
from kerascv_d2l.metrics.segmentation import SegmentationMetrics
from kerascv_d2l.models.fcn import FCN
from kerascv_d2l.models.unet import UNet
from kerascv_d2l.ops.convolution import bilinear_kernel

CLASSES = 3


def images_of(*size, batch=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(batch, *size, 3)).astype(np.uint8)


NETWORKS = {
    "fcn32": lambda: FCN(CLASSES, small_backbone(32)),
    "fcn16": lambda: FCN(CLASSES, small_backbone(16, 32), stride=16),
    "fcn8": lambda: FCN(CLASSES, small_backbone(8, 16, 32), stride=8, trainable_upsampling=False),
    "fcn8_unpadded": lambda: FCN(CLASSES, small_backbone(8, 16, 32, padding="valid"), stride=8),
    "unet": lambda: UNet(CLASSES, filters=(4, 6, 8)),
    "unet_backbone": lambda: UNet(
        CLASSES, small_backbone(2, 4, 8, 16, 32), filters=(2, 4, 4, 6, 6), upsampling="bilinear"
    ),
}


def test_fcn32_is_the_books_composition():
    model = FCN(CLASSES, small_backbone(32))
    images = images_of(64, 96)
    features = keras.tree.flatten(model.backbone(images))[0]
    score, enlarge = model.get_layer("score32"), model.get_layer("enlarge_to1")
    assert score.kernel.shape == (1, 1, 12, CLASSES)
    np.testing.assert_array_equal(enlarge.kernel, bilinear_kernel(CLASSES, CLASSES, 64))
    # Weights other than the initial ones, so that every channel reaches every other.
    kernel = np.random.default_rng(1).normal(size=enlarge.kernel.shape).astype(np.float32)
    enlarge.set_weights([kernel, np.array([1.0, 2.0, 3.0])])
    expected = tf.nn.conv2d_transpose(score(features), kernel, (2, 64, 96, CLASSES), 32, "SAME")
    np.testing.assert_allclose(model(images), expected + [1.0, 2, 3], rtol=1e-4, atol=1e-3)


def test_fcn8_adds_the_scores_of_finer_maps():
    model = FCN(CLASSES, small_backbone(8, 16, 32), stride=8, trainable_upsampling=False)
    images = images_of(64, 96)
    at8, at16, at32 = (
        model.get_layer(f"score{stride}")(x)
        for stride, x in zip((8, 16, 32), model.backbone(images), strict=True)
    )
    at16 += tf.image.resize(at32, (4, 6))
    at8 += tf.image.resize(at16, (8, 12))
    expected = tf.image.resize(at8, (64, 96))
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-5)


def test_unet_joins_the_encoders_maps():
    """Without the skip of the finest level, single pixels could not be told apart."""
    model = UNet(CLASSES, filters=(4, 6, 8))
    assert model.size_multiple == 4
    joined = [layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate)]
    assert sorted(layer.output.shape[-1] for layer in joined) == [8, 12]
    with_backbone = UNet(CLASSES, small_backbone(2, 4, 8, 16, 32))
    joined = [
        layer for layer in with_backbone.layers if isinstance(layer, keras.layers.Concatenate)
    ]
    decoder = (32, 64, 128, 256)
    encoder = (4, 6, 8, 10)
    assert sorted(layer.output.shape[-1] for layer in joined) == [
        d + e for d, e in zip(decoder, encoder, strict=True)
    ]


def test_shortcuts_lead_past_each_pair_of_convolutions():
    model = UNet(CLASSES, filters=(4, 6, 8))
    pairs = ("encode0", "encode1", "encode2", "decode1", "decode0")
    for name, before in zip(pairs, (None, "pool1", "pool2", "join1", "join0"), strict=True):
        norm = model.get_layer(f"{name}_norm2")
        norm.set_weights([np.zeros_like(w) for w in norm.get_weights()])  # the pair gives 0
        given = model.get_layer(before or "pixels_to_unit").output
        block = keras.Model(model.inputs, [given, model.get_layer(f"{name}_add").output])
        given, found = block(images_of(12, 8))
        kernel = model.get_layer(f"{name}_past").kernel[0, 0]  # (before, channels)
        np.testing.assert_allclose(found, given @ kernel, rtol=1e-4, atol=1e-5)


def test_learned_upsampling_starts_with_maps_of_the_same_variance():
    keras.utils.set_random_seed(0)
    layer = UNet(CLASSES, filters=(32, 64, 128)).get_layer("up1")
    maps = np.random.default_rng(0).normal(size=(4, 8, 8, 128)).astype(np.float32)
    assert np.var(layer(maps)) == pytest.approx(1, abs=0.1)  # Glorot's: 1/3


@pytest.mark.parametrize("name", NETWORKS)
def test_any_size_and_the_same_after_saving(name, tmp_path):
    model = NETWORKS[name]()
    for weight in model.weights:  # biases and statistics other than 0 and 1
        weight.assign(weight + 0.05 * keras.random.uniform(weight.shape, seed=1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and loaded.size_multiple == model.size_multiple
    # Beside multiples of the stride: smaller than it, odd, and one pixel more.
    for size in [(64, 32), (1, 1), (33, 50), (7, 70)]:
        images = images_of(*size)
        scores = model(images).numpy()
        assert scores.shape == (2, *size, CLASSES) and scores.dtype == np.float32
        np.testing.assert_allclose(loaded(images), scores, rtol=1e-5, atol=1e-6)
        # Lengthened by hand and cut: the same.
        multiple = model.size_multiple
        missing = [(0, -side % multiple) for side in size]
        longer = np.pad(images, [(0, 0), *missing, (0, 0)], mode="edge")
        np.testing.assert_allclose(
            scores, model(longer)[:, : size[0], : size[1]], rtol=1e-4, atol=1e-5
        )
        # uint8 and float, one and several at a time.
        np.testing.assert_allclose(model(images[:1] / 1.0), scores[:1], rtol=1e-3, atol=1e-4)


def long(name):
    """A network that takes seconds to train, where others show the same."""
    return pytest.param(name, marks=pytest.mark.long)


@pytest.mark.parametrize("name", [long("fcn32"), "fcn8", long("unet"), long("unet_backbone")])
def test_training_learns_the_classes(name):
    """Left half bright, right half dark, between them a stripe that is ignored."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, size=(4, 32, 64, 3)).astype(np.float32)
    images[:, :, :32] += 190
    labels = np.ones((4, 32, 64), np.uint8)
    labels[:, :, :32] = 2
    labels[:, :, 28:36] = 255
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=SegmentationCrossEntropy(),
        metrics=[SegmentationMetrics(CLASSES)],
        jit_compile=False,  # compiling would take longer than these few steps
    )
    history = model.fit(images, labels, batch_size=2, epochs=25, verbose=0).history
    assert history["mean_iou"][-1] > 0.9
    assert history["loss"][-1] < 0.4 * history["loss"][0]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_odd_sizes_with_the_books_backbone(stride):
    model = FCN(CLASSES, "resnet18", stride=stride)
    for size in ((2, 2), (1, 3), (33, 47)):
        scores = model(images_of(*size)).numpy()
        assert scores.shape == (2, *size, CLASSES) and np.isfinite(scores).all()


def test_mixed_precision_keeps_float32_scores():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        for model in (FCN(CLASSES, small_backbone(32)), UNet(CLASSES, filters=(4, 6))):
            assert model(images_of(32, 64)).dtype == tf.float32
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_a_backbone_by_name_and_frozen():
    model = FCN(CLASSES, "mobilenet_0.25", stride=8)
    assert model(images_of(33, 65)).shape == (2, 33, 65, CLASSES)
    model.backbone.trainable = False
    names = {variable.path.split("/")[-2] for variable in model.trainable_variables}
    assert names == {"score8", "score16", "score32", "enlarge_to16", "enlarge_to8", "enlarge_to1"}


def test_names_colors_and_settings_are_saved(tmp_path):
    colors = [[1, 2, 3], [250, 0, 9]]
    for model in (
        FCN(("sky", "road"), small_backbone(32), colors=colors, segmenter_options={"flip": True}),
        UNet(("sky", "road"), filters=(4, 6), colors=colors, segmenter_options={"flip": True}),
    ):
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.task == "segmentation" and loaded.class_names == ("sky", "road")
        np.testing.assert_array_equal(loaded.colors, colors)
        assert loaded.segmenter_options == {"flip": True} and loaded.image_size is None
    plain = UNet(3, filters=(4, 6))
    assert plain.class_names == ("0", "1", "2")
    assert plain.colors.tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def test_a_loaded_network_computes_in_the_precision_it_was_saved_with(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = UNet(CLASSES, small_backbone(2, 4, 8, 16, 32), filters=(2, 4, 4, 6, 6))
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in ("decode0_conv1", "score"):
        assert loaded.get_layer(name).compute_dtype == model.get_layer(name).compute_dtype
    images = images_of(64, 32)
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.quick
@pytest.mark.parametrize(
    "build, named",
    [
        (lambda: FCN(0, small_backbone(32)), "class_names: expected at least 1"),
        (lambda: FCN(2, small_backbone(32), stride=4), "stride=4"),
        (lambda: FCN(2, small_backbone(16)), r"strides \[16\]: expected \[32\]"),
        (lambda: FCN(2, small_backbone(32), weights="imagenet"), "weights='imagenet'"),
        (lambda: FCN(2, "resnot18"), "resnot18"),
        (lambda: UNet(2, upsampling="nearest"), "upsampling='nearest'"),
        (lambda: UNet(2, weights="imagenet"), "without a backbone"),
        (lambda: UNet(2, filters=()), "filters"),
        (lambda: UNet(256, filters=(4,)), "at most 255 classes"),
        (lambda: UNet(2, filters=(4,), colors=[[1, 2, 3]]), r"colors of shape \(1, 3\)"),
        (lambda: FCN(("a", "a"), small_backbone(32)), "more than once: a"),
        (lambda: FCN(2, small_backbone(32), image_size=64), "image_size=64"),
        (lambda: UNet(2, small_backbone(2, 4, 8, 16, 32), filters=(4, 4)), "expected 5 numbers"),
    ],
)
def test_errors_name_the_argument(build, named):
    with pytest.raises(InputError, match=named):
        build()
