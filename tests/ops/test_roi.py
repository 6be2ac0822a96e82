"""RoI operators against torchvision's recorded values and a slow reference (slow_roi.py)."""

import sys
from pathlib import Path

import numpy as np
import pytest
import slow_roi
import tensorflow as tf

from kerascv_d2l import (
    InputError,
    multilevel_roi_align,
    paste_masks,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_pool,
    spatial_pyramid_pooling,
)
from kerascv_d2l.ops.roi import pyramid_levels

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import roi_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "roi.npz")
CASES = 200
OPERATORS = {
    "align": roi_align,
    "pool": roi_pool,
    "ps_align": ps_roi_align,
    "ps_pool": ps_roi_pool,
}


def run(case, **options):
    """Output and gradient of the features."""
    features = tf.constant(case["features"])
    options |= {name: case[name] for name in ("sampling_ratio", "aligned") if name in case}
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = OPERATORS[case["operator"]](
            features,
            case["boxes"],
            case["image_indices"],
            case["output_size"],
            case["spatial_scale"],
            **options,
        )
    return output.numpy(), tape.gradient(output, features, case["upstream"]).numpy()


def recorded():
    """Each case with torchvision's output and gradient."""
    position = np.zeros(2, int)
    for seed in range(CASES):
        case = given.case(seed)
        shapes = case["upstream"].shape, case["features"].shape
        found = []
        for i, (name, shape) in enumerate(zip(("values", "gradients"), shapes, strict=True)):
            end = position[i] + np.prod(shape)
            found.append(RECORDED[name][position[i] : end].reshape(shape))
            position[i] = end
        yield seed, case, *found


def check(found, values, gradient, message):
    np.testing.assert_allclose(found[0], values, atol=1e-5, err_msg=message)
    # torchvision's ps_roi_pool leaves the last row and column of the map out of its values and
    # lets the gradient reach them: no derivative of the values, so not to be equalled.
    if "ps_pool" not in message:
        np.testing.assert_allclose(found[1], gradient, atol=1e-5, err_msg=message)


def test_equal_to_torchvision():
    for seed, case, values, gradient in recorded():
        message = f"case {seed}, {case['operator']}"
        check(slow_roi.run(case), values, gradient, message + ", slow")
        if case["operator"] == "align" and case["sampling_ratio"] > 0:
            check(run(case, method="sparse"), values, gradient, message + ", sparse")
            check(run(case, method="separable"), values, gradient, message + ", separable")
            check(run(case, method="gather"), values, gradient, message + ", gather")
        else:
            check(run(case), values, gradient, message)


@pytest.mark.long
def test_equal_to_the_slow_reference():
    for seed in range(CASES, CASES + 10_000):
        case = given.case(seed)
        check(run(case), *slow_roi.run(case), f"case {seed}, {case['operator']}")


@pytest.mark.quick
def test_gradient_of_ps_roi_pool_is_that_of_its_values():
    for seed in range(7, 200, 8):
        case = given.case(seed)
        check(run(case), *slow_roi.run(case), f"case {seed}")


@pytest.mark.quick
def test_example_of_the_book():
    features = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
    boxes = [[0, 0, 20, 20], [0, 10, 30, 30]]
    pooled = roi_pool(features, boxes, [0, 0], (2, 2), 0.1)
    assert pooled.shape == (2, 2, 2, 1)
    assert pooled.numpy()[..., 0].tolist() == [[[5, 6], [9, 10]], [[9, 11], [13, 15]]]


@pytest.mark.parametrize("operator", [roi_pool, roi_align, ps_roi_pool, ps_roi_align])
def test_in_every_mode(operator):
    """Graph with unknown sizes, Dataset.map, XLA; no image needs to have a box."""
    random = np.random.RandomState(0)
    features = random.standard_normal((2, 5, 7, 12)).astype(np.float32)
    boxes = random.uniform(-9, 40, (6, 4)).astype(np.float32)
    images = np.array([0, 1, 1, 0, 1, 1], np.int32)

    def work(features, boxes, images):
        return operator(features, boxes, images, (2, 3), 0.25)

    expected = work(features, boxes, images).numpy()
    signature = [
        tf.TensorSpec((None, None, None, 12)),
        tf.TensorSpec((None, 4)),
        tf.TensorSpec((None,), tf.int32),
    ]
    graph = tf.function(work, input_signature=signature)
    mapped = tf.data.Dataset.from_tensors((features, boxes, images)).map(work)
    compiled = tf.function(work, jit_compile=True)(features, boxes, images)
    for result in (graph(features, boxes, images), next(iter(mapped)), compiled):
        np.testing.assert_allclose(result, expected, atol=1e-5)
    for count in (0, 1, 4):
        result = graph(features, boxes[:count], images[:count])
        np.testing.assert_allclose(result, expected[:count], atol=1e-5)
    assert graph.experimental_get_tracing_count() == 1
    half = work(tf.cast(features, tf.float16), boxes, images)
    assert half.dtype == tf.float16
    np.testing.assert_allclose(half, expected, atol=0.02)


@pytest.mark.parametrize("method", ["sparse", "separable", "gather"])
def test_boxes_of_no_image_and_no_place_give_nothing(method):
    features = tf.ones([2, 5, 6, 3])
    boxes = [
        [0.0, 0, 3, 3],
        [0, 0, 3, 3],
        [1e30, 1e30, 1e31, 1e31],
        [-1e9, 0, -1e8, 4],
        [0, 0, 3, 3],
    ]
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = roi_align(features, boxes, [2, -1, 0, 0, 1], 2, method=method)
    assert not pooled[:4].numpy().any() and (pooled[4].numpy() == 1).all()
    assert tape.gradient(pooled, features).numpy().sum() == pytest.approx(12)
    assert np.isfinite(roi_align(features, [[0.0, np.nan, 3, np.inf]], [0], 2)).all()


def test_many_boxes_get_their_whole_gradient():
    """The gradient of crop_and_resize loses a part where boxes meet on several threads."""
    random = np.random.RandomState(0)
    features = tf.constant(random.standard_normal((2, 30, 40, 64)).astype(np.float32))
    low = random.uniform(0, 20, (300, 2))
    boxes = np.concatenate([low, low + random.uniform(1, 12, (300, 2))], axis=1)
    images = random.randint(0, 2, 300)
    upstream = random.standard_normal((300, 7, 7, 64)).astype(np.float32)
    gradients = []
    for method in ("sparse", "separable", "sparse"):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_align(features, boxes, images, 7, method=method)
        gradients.append(tape.gradient(pooled, features, upstream).numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-4)
    np.testing.assert_array_equal(gradients[0], gradients[2])


def test_a_savedmodel_takes_values_and_gradients_along(tmp_path):
    module = tf.Module()
    signature = [tf.TensorSpec((1, None, None, 2)), tf.TensorSpec((None, 4))]

    @tf.function(input_signature=signature)
    def both(features, boxes):
        images = tf.zeros([tf.shape(boxes)[0]], tf.int32)
        aligned = roi_align(features, boxes, images, 2, 0.5)
        return aligned + roi_pool(features, boxes, images, 2, 0.5)

    module.both = both
    tf.saved_model.save(module, str(tmp_path))
    features = tf.random.normal([1, 6, 7, 2])
    results = []
    for function in (both, tf.saved_model.load(str(tmp_path)).both):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = function(features, [[0.0, 1, 9, 12], [3, 3, 4, 5]])
        results.append((pooled, tape.gradient(pooled, features)))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_xla_has_the_gradient_of_roi_align():
    case = next(c for c in map(given.case, range(0, 80, 8)) if c.get("sampling_ratio"))

    @tf.function(jit_compile=True)
    def compiled(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = roi_align(
                features,
                case["boxes"],
                case["image_indices"],
                case["output_size"],
                case["spatial_scale"],
                case["sampling_ratio"],
                case["aligned"],
            )
        return output, tape.gradient(output, features, case["upstream"])

    check([t.numpy() for t in compiled(case["features"])], *run(case), "compiled")


def test_bins_of_all_sizes_under_xla():
    """Compilers like to multiply by 1/7 where torchvision divides by 7; bins must not grow."""
    sides = np.arange(1, 130, dtype=np.float32)
    boxes = np.stack([sides * 0, sides * 0, sides * 0, sides - 1], axis=1)
    features = np.arange(130.0, dtype=np.float32)[None, :, None, None]
    images = np.zeros(len(sides), np.int32)

    def work(boxes):
        return roi_pool(features, boxes, images, (7, 1))[..., 0, 0]

    eager, compiled = work(boxes), tf.function(work, jit_compile=True)(boxes)
    np.testing.assert_array_equal(compiled, eager)


def test_lite_with_builtin_operators():
    features = np.random.RandomState(0).standard_normal((1, 6, 9, 8)).astype(np.float32)
    boxes = np.array([[3, 5, 30, 19], [-8, -9, 60, 50], [7, 7, 7, 7]], np.float32)

    def work(features, boxes):
        images = tf.zeros([tf.shape(boxes)[0]], tf.int32)
        maps = [features, features[:, ::2, ::2]]
        return {
            "align": roi_align(features, boxes, images, (3, 2), 0.25, method="separable"),
            "levels": multilevel_roi_align(
                maps, boxes, images, 2, (4, 8), canonical_size=28, canonical_level=3,
                method="separable",
            ),
            "sensitive": ps_roi_align(features, boxes, images, 2, 0.25),
            "pasted": paste_masks(features[0, :3], boxes, (10, 12)),
        }  # fmt: skip

    signature = [tf.TensorSpec((1, 6, 9, 8)), tf.TensorSpec((3, 4))]
    module = tf.Module()
    module.work = tf.function(work, input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.work.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = tf.lite.Interpreter(
        model_content=converter.convert(),
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    runner = interpreter.get_signature_runner()
    found = runner(features=features, boxes=boxes)
    for name, expected in work(features, boxes).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)


def test_multilevel_is_that_of_torchvision():
    features, boxes, images = given.pyramid()
    boxes = np.concatenate(boxes)
    levels = pyramid_levels(boxes).numpy()
    np.testing.assert_array_equal(levels, RECORDED["levels"])
    assert levels[:6].tolist() == [3, 3, 4, 5, 2, 5] and set(levels) == {2, 3, 4, 5}
    signature = [
        [tf.TensorSpec((2, None, None, 2))] * 4,
        tf.TensorSpec((None, 4)),
        tf.TensorSpec((None,), tf.int32),
    ]

    @tf.function(input_signature=signature)
    def graph(features, boxes, images):
        return multilevel_roi_align(features, boxes, images, (2, 3))

    compiled = tf.function(
        lambda *given: multilevel_roi_align(*given, (2, 3)), jit_compile=True
    )(features, boxes, images)  # fmt: skip
    found = graph(features, boxes, images)
    for pooled in (found, compiled, multilevel_roi_align(features, boxes, images, (2, 3))):
        np.testing.assert_allclose(pooled, RECORDED["levels_pooled"], atol=1e-5)
    for count in (0, 1, 13):
        pooled = graph(features, boxes[:count], images[:count])
        np.testing.assert_allclose(pooled, found[:count], atol=1e-6)
    assert graph.experimental_get_tracing_count() == 1


def test_multilevel_has_gradients_on_every_level():
    features, boxes, images = given.pyramid()
    boxes, features = np.concatenate(boxes), [tf.constant(f) for f in features]
    gradients = []
    for method in ("sparse", "separable", "gather"):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = multilevel_roi_align(features, boxes, images, 2, method=method)
            loss = tf.reduce_sum(pooled**2)
        gradients.append(tape.gradient(loss, features))
    for sparse, *others in zip(*gradients, strict=True):
        assert np.abs(sparse).max() > 0
        for other in others:
            np.testing.assert_allclose(sparse, other, atol=1e-3)


@pytest.mark.quick
@pytest.mark.parametrize("method", ["sparse", "separable", "gather"])
def test_each_method_takes_and_gives_the_same(method):
    """Lists, long integers and whole pixels; nothing of images that are not there."""
    features = [np.full((1, n, n, 1), 3 - n // 4, np.uint8) for n in (8, 4)]
    boxes, options = tf.constant([[0.0, 0, 3, 3]] * 3), {"strides": (1, 2), "method": method}
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        found = multilevel_roi_align(features, boxes, np.array([0, -1, 7]), 1, **options)
    assert found.dtype == tf.float32 and tape.gradient(found, boxes) is None
    np.testing.assert_allclose(found[:, 0, 0, 0], [1, 0, 0], atol=1e-6)
    one = roi_align(features[0], boxes, [0, -1, 7], 1, method=method)
    np.testing.assert_allclose(one[:, 0, 0, 0], [1, 0, 0], atol=1e-6)
    for indices in ([0], [0, 0, 0, 0], [[0], [0], [0]]):
        with pytest.raises(InputError, match="image_indices must hold one index for each box"):
            multilevel_roi_align(features, boxes, indices, 1, **options)
    with pytest.raises(InputError, match="features must be"):
        multilevel_roi_align([f[0] for f in features], boxes, [0, 0, 0], 1, **options)


@pytest.mark.quick
def test_spatial_pyramid_pooling():
    features = np.random.RandomState(0).standard_normal((1, 12, 24, 3)).astype(np.float32)
    found = spatial_pyramid_pooling(features, [[0, 0, 23, 11]], [0])
    assert found.shape == (1, 36 + 9 + 4 + 1, 3)
    blocks = features[0].reshape(6, 2, 6, 4, 3).max(axis=(1, 3))
    np.testing.assert_array_equal(found[0, :36], blocks.reshape(36, 3))
    np.testing.assert_array_equal(found[0, 45], features[0, :6, :12].max(axis=(0, 1)))
    np.testing.assert_array_equal(found[0, -1], features.max(axis=(0, 1, 2)))


def test_adaptive_sampling_of_masks():
    """The targets of a mask head: a binary mask, read with as many samples as it takes."""
    mask = np.zeros((1, 30, 40, 1), np.float32)
    mask[:, 5:20, 10:30] = 1
    found = roi_align(mask, [[10, 5, 30, 20], [0, 5, 40, 20]], [0, 0], (3, 4), sampling_ratio=0)
    assert found.shape == (2, 3, 4, 1)
    np.testing.assert_allclose(found[0, 1, 1:3, 0], 1)
    np.testing.assert_allclose(found[1, 1, :, 0], [0.05, 1, 0.95, 0], atol=1e-5)


@pytest.mark.quick
def test_errors_name_the_argument():
    features, box = np.zeros((1, 4, 4, 3), np.float32), [[0.0, 0, 2, 2]]
    for message, work in {
        "features must": lambda: roi_align(features[0], box, [0], 2),
        "boxes must": lambda: roi_align(features, [0.0, 0, 2, 2], [0], 2),
        "image_indices must": lambda: roi_pool(features, box, [0, 0], 2),
        "output_size must": lambda: roi_pool(features, box, [0], (2, 0)),
        "method must": lambda: roi_align(features, box, [0], 2, method="fast"),
        "sampling_ratio=0": lambda: roi_align(
            features, box, [0], 2, sampling_ratio=0, method="sparse"
        ),
        "3 channels, which 2 × 1": lambda: ps_roi_pool(features, box, [0], (2, 1)),
        "strides=": lambda: multilevel_roi_align([features], box, [0], 2, strides=(4, 8)),
    }.items():
        with pytest.raises(InputError, match=message):
            work()
