"""RetinaNet and FCOS against torchvision's numbers (record_dense.py), and their own ways."""

import json

import keras
import numpy as np
import pytest
import record_dense as given
import safetensors.numpy
import tensorflow as tf
from record_faster_rcnn import CASES, NUM_CLASSES, draw_objects, draw_pixels
from record_resnet import sample
from small_networks import add_tiny

from kerascv_d2l import FCOS, InputError, RetinaNet
from kerascv_d2l.losses.regions import ciou_loss
from kerascv_d2l.models import registry
from kerascv_d2l.models.rcnn_weights import load_torchvision
from kerascv_d2l.ops.task_aligned import match_by_distance, match_task_aligned

TORCHVISION = {"backbone": "resnet50_v1.5", "channels": 256, "depth": 4, "freeze_norm": True}


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        yield


@pytest.fixture(scope="module")
def recorded():
    return np.load(given.RECORDED)


@pytest.fixture(scope="module", params=["retinanet", "fcos"])
def network(request, recorded):
    """A detector as torchvision's, with the drawn weights."""
    if request.param == "retinanet":
        model = RetinaNet(NUM_CLASSES, norm=False, **TORCHVISION)
    else:
        model = FCOS(NUM_CLASSES, assignment="centre", **TORCHVISION)
    shapes = json.loads(str(recorded[f"{request.param}_shapes"]))
    load_torchvision(model, given.draw_weights({k: tuple(v) for k, v in shapes.items()}))
    model.kind = request.param
    return model


def test_weights_of_a_whole_detector(network, recorded, tmp_path, monkeypatch):
    """All but what predicts classes are kept where the classes are others."""
    shapes = json.loads(str(recorded[f"{network.kind}_shapes"]))
    path = tmp_path / "models" / f"{network.kind}_resnet50_fpn_coco.safetensors"
    path.parent.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    weights = given.draw_weights({k: tuple(v) for k, v in shapes.items()})
    safetensors.numpy.save_file(weights, path)
    recipe = registry.detector_recipe(network.kind, on_folder=True, whole=True)
    assert type(network).takes_whole("coco") and type(network).takes_whole(path)
    model = registry.create_detector(
        network.kind, ["one"], backbone=recipe["backbone"], weights="coco", **recipe["options"]
    )
    assert model.freeze_norm and model.frozen_stride == 4
    pairs = zip(model.weights, network.weights, strict=True)
    for mine, theirs in (pair for pair in pairs if "metric" not in pair[0].path):
        if "cls_logits" in mine.path:
            assert np.abs(mine.numpy()).max() < 5 and mine.shape[-1] < theirs.shape[-1]
        else:
            np.testing.assert_array_equal(mine, theirs, err_msg=mine.path)


@pytest.mark.parametrize("case", CASES)
def test_all_is_that_of_torchvision(network, recorded, case):
    prefix = f"{network.kind}_{case}"
    images = draw_pixels(case)
    outputs = network(images)
    for name in given.OUTPUTS[network.kind].values():
        found, expected = (sample(np.concatenate(outputs[name], 1)), recorded[f"{prefix}_{name}"])
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale, err_msg=name)

    network.decoder.nms_threshold = {"retinanet": 0.5, "fcos": 0.6}[network.kind]
    network.decoder.score_threshold = {"retinanet": 0.05, "fcos": 0.2}[network.kind]
    detected = network.decode(outputs)
    _, height, width = CASES[case]
    for i in range(len(images)):
        scores, boxes, labels = (
            recorded[f"{prefix}_{name}_{i}"] for name in ("scores", "boxes", "labels")
        )
        assert int(detected["num_valid"][i]) == len(scores) == 100
        # torchvision keeps boxes that lie outside of the image; here others come after the rest.
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        count = np.count_nonzero(solid)
        assert count > 50
        np.testing.assert_allclose(detected["scores"][i][:count], scores[solid], atol=1e-4)
        rows = np.concatenate(
            [
                detected["boxes"][i] * [width, height, width, height],
                100 * detected["classes"][i].numpy()[:, None],
            ],
            axis=1,
        )[:count]
        expected = np.concatenate([boxes, 100 * labels[:, None]], axis=1)[solid]
        # Equal scores may swap by rounding, but for the last place.
        distance = np.abs(rows[:, None] - expected).max(axis=-1)
        assert (np.sort(distance.min(axis=1))[: count - 1] < 0.05).all()

    boxes, classes = draw_objects(case)
    padding = [[0, 0], [0, 2], [0, 0]]
    y = {
        "boxes": np.pad(boxes / np.float32([width, height, width, height]), padding),
        "classes": np.pad(classes, padding[:2], constant_values=-1),
    }
    total = network.compute_loss(images, y, outputs)
    found = [metric.result().numpy() for metric in network.parts.values()]
    for metric in network.parts.values():
        metric.reset_state()
    np.testing.assert_allclose(found, recorded[f"{prefix}_losses"], rtol=2e-4)
    np.testing.assert_allclose(total, recorded[f"{prefix}_losses"].sum(), rtol=2e-4)


def slow_task_aligned(boxes, classes, ignore, scores, predicted, points, strides):
    """One object and one place after the other, for one image."""

    def iou(a, b):
        low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
        both = np.prod(np.maximum(high - low, 0))
        return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)

    match = np.full(len(points), -1)
    overlap = np.zeros(len(points))
    fits = {}
    for j, (box, k) in enumerate(zip(boxes, classes, strict=True)):
        if k < 0:
            continue
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        inside = [
            i
            for i, p in enumerate(points)
            if (np.abs(p - centre) <= np.maximum(half, strides[i] / 2)).all()
        ]
        if ignore[j]:
            for i in inside:
                match[i] = -2 if match[i] == -1 else match[i]
            continue
        fit = {i: scores[i, k] ** 0.5 * iou(predicted[i], box) ** 6 for i in inside}
        for i in sorted(fit, key=lambda i: -fit[i])[:10]:
            if fit[i] > 0:
                fits[i, j] = fit[i]
                if iou(predicted[i], box) > overlap[i]:
                    match[i], overlap[i] = j, iou(predicted[i], box)
    quality = np.zeros(len(points))
    for j in range(len(boxes)):
        mine = [i for i in range(len(points)) if match[i] == j]
        for i in mine:
            best_fit = max(fits[q, j] for q in mine)
            quality[i] = fits[i, j] / best_fit * max(overlap[q] for q in mine)
    return match, quality


def places(random):
    """Two levels of places on 64 x 48 pixels, and predictions near them."""
    points, strides = [], []
    for stride in (8, 16):
        y, x = np.mgrid[0 : 48 // stride, 0 : 64 // stride].reshape(2, -1)
        points.append(np.stack([x + 0.5, y + 0.5], axis=1) * stride)
        strides.append(np.full(len(x), stride))
    points, strides = (np.concatenate(p).astype(np.float32) for p in (points, strides))
    reach = random.uniform(4, 24, (2, len(points), 4)).astype(np.float32)
    predicted = np.concatenate([points - reach[..., :2], points + reach[..., 2:]], axis=-1)
    scores = random.uniform(0.05, 0.9, (2, len(points), 3)).astype(np.float32)
    return points, strides, predicted, scores


def test_task_aligned_matching_equals_a_slow_one():
    """With objects that overlap, one without a place inside, an ignored one, and padding."""
    random = np.random.default_rng(1)
    points, strides, predicted, scores = places(random)
    boxes = np.array(
        [
            [[2, 2, 40, 30], [10, 8, 50, 44], [60.5, 20.5, 62, 22], [0, 30, 20, 48], [0, 0, 0, 0]],
            [[0, 0, 64, 48], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        ],
        np.float32,
    )
    classes = np.array([[0, 2, 1, 1, -1], [1, -1, -1, -1, -1]])
    ignore = np.array([[False, False, False, True, False], [False] * 5])
    match, quality = match_task_aligned(boxes, classes, ignore, scores, predicted, points, strides)
    for b in range(2):
        expected = slow_task_aligned(
            boxes[b], classes[b], ignore[b], scores[b], predicted[b], points, strides
        )
        np.testing.assert_array_equal(match[b], expected[0])
        np.testing.assert_allclose(quality[b], expected[1], rtol=1e-5, atol=1e-7)
    assert {0, 1, 2, -1, -2} <= set(match[0].numpy())


@pytest.mark.parametrize("bins", [0, 17])
def test_task_aligned_losses_equal_slow_ones(bins):
    """Scores learn the quality by cross-entropy times their error, boxes CIoU as it weighs.

    Distributions learn both bins next to the logarithm of each side's distance, as near as each is.
    """
    random = np.random.default_rng(2)
    model = FCOS(3, backbone="tiny", channels=8, depth=1, levels=3, bins=bins)
    outputs = model(random.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8))
    names = ["logits", "distances"] + ["distributions"] * (bins > 0)
    for name in names:  # at first all places say the same
        outputs[name] = [t + random.uniform(0, 1, t.shape) for t in outputs[name]]
    y = {
        "boxes": np.float32([[[0.1, 0.1, 0.6, 0.5], [0.5, 0, 1, 1]], [[0, 0.2, 0.3, 0.9]] * 2]),
        "classes": np.array([[2, 0], [1, -1]]),
        "ignore": np.array([[False, True], [False, False]]),
    }
    total = model.compute_loss(None, y, outputs)
    logits = np.concatenate(outputs["logits"], axis=1).astype(float)
    boxes = np.concatenate(model.boxes_of(outputs), axis=1)
    anchors = np.concatenate(outputs["anchors"])
    points, strides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2] - anchors[:, 0]
    scores, truth = np.float32(1 / (1 + np.exp(-logits))), y["boxes"] * 64
    match, quality = match_task_aligned(
        truth, y["classes"], y["ignore"], scores, boxes, points, strides
    )
    classes = apart = sides = 0
    for b, i in np.ndindex(*match.shape):
        m, q = int(match[b, i]), float(quality[b, i])
        if m >= 0:
            apart += q * float(ciou_loss(boxes[b, i], truth[b, m]))
        if m >= 0 and bins:
            of_place = np.concatenate(outputs["distributions"], axis=1)[b, i]
            sides += q * slow_distribution_loss(of_place, truth[b, m], points[i], strides[i])
        for k in range(3 if m != -2 else 0):
            target = q if m >= 0 and y["classes"][b, m] == k else 0
            p = 1 / (1 + np.exp(-logits[b, i, k]))
            entropy = -target * np.log(p) - (1 - target) * np.log(1 - p)
            classes += abs(target - p) * entropy
    expected = np.array([classes, 2 * apart, 0.5 * sides][: len(names)]) / np.sum(quality)
    found = [metric.result() for metric in model.parts.values()]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-4)


def slow_distribution_loss(logits, box, point, stride):
    """Mean over left, top, right and bottom, from `(4, 17)` logits: bins from -2.6 to 2.6."""
    entropies = -np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    distances = [point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1]]
    found = []
    for distance, entropy in zip(distances, entropies, strict=True):
        place = (np.log(max(distance, 1e-9) / (4 * stride)) + 2.6) / 5.2 * 16
        place = min(max(place, 0), 16)
        below = min(int(place), 15)
        above = place - below
        found.append((1 - above) * entropy[below] + above * entropy[below + 1])
    return np.mean(found)


def test_a_distance_is_the_mean_of_its_distribution():
    """Left, top, right and bottom each have their own; without bins a model has none."""
    random = np.random.default_rng(3)
    model = FCOS(2, backbone="tiny", channels=8, depth=1, levels=3, bins=5)
    image = random.integers(0, 256, (1, 64, 96, 3)).astype(np.uint8)
    layer = model.predictors["distances"]
    layer.bias.assign(random.normal(0, 2, layer.bias.shape))
    outputs = model(image)
    bins = np.array([-2.6, -1.3, 0, 1.3, 2.6])
    for logits, distances in zip(outputs["distributions"], outputs["distances"], strict=True):
        shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(distances, 4 * np.exp((shares * bins).sum(-1)), rtol=1e-4)
    first = layer.bias.numpy().reshape(4, 5)  # what a place says that sees nothing
    shares = np.exp(first) / np.exp(first).sum(axis=-1, keepdims=True)
    mean = np.median(np.concatenate(outputs["distances"], 1)[0], axis=0)
    np.testing.assert_allclose(mean, 4 * np.exp((shares * bins).sum(-1)), rtol=0.1)
    assert "distributions" not in FCOS(2, backbone="tiny", channels=8, bins=0)(image)


def test_a_model_saved_before_distributions_loads_without():
    config = FCOS(2, backbone="tiny", channels=8, depth=1, bins=0).get_config()
    del config["bins"]
    assert FCOS.from_config(config).bins == 0
    assert FCOS(2, backbone="tiny", channels=8, depth=1, assignment="centre").bins == 0


@pytest.mark.parametrize(
    ("assignment", "bins"), [("centre", 17), ("task_aligned", 1), ("task_aligned", 2.5)]
)
def test_wrong_bins_are_refused(assignment, bins):
    with pytest.raises(InputError, match=rf"bins={bins}"):
        FCOS(2, backbone="tiny", assignment=assignment, bins=bins)


def test_ignored_objects_and_padding_match_nothing_by_distance():
    points, strides, _, _ = places(np.random.default_rng(0))
    boxes = np.array([[[4, 4, 36, 36], [36, 4, 60, 28], [0, 0, 0, 0]]], np.float32)
    classes, ignore = np.array([[0, 1, -1]]), np.array([[False, True, False]])
    match = match_by_distance(boxes, classes, ignore, points, strides, [48, 12])[0].numpy()
    for p, stride, found in zip(points, strides, match, strict=True):
        inside = [(p > b[:2]).all() and (p < b[2:]).all() for b in boxes[0]]
        longest = max(*(p - boxes[0, 0, :2]), *(boxes[0, 0, 2:] - p))
        fits = longest < 64 if stride == 8 else longest > 64
        near = (np.abs(p - [20, 20]) < 1.5 * stride).all()
        assert found == (0 if inside[0] and near and fits else -2 if inside[1] else -1)


def test_what_is_ignored_does_not_change_the_loss():
    """An object more that is ignored takes its places out of the loss; padding changes nothing."""
    keras.utils.set_random_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    y = {
        "boxes": np.array([[[0.1, 0.1, 0.5, 0.6]]], np.float32),
        "classes": np.array([[1]]),
        "ignore": np.array([[False]]),
    }
    more = {
        "boxes": np.pad(y["boxes"], [[0, 0], [0, 7], [0, 0]]),
        "classes": np.pad(y["classes"], [[0, 0], [0, 7]], constant_values=-1),
        "ignore": np.pad(y["ignore"], [[0, 0], [0, 7]]),
    }
    hidden = {k: v.copy() for k, v in more.items()}
    hidden["boxes"][0, 1], hidden["classes"][0, 1] = [0.6, 0.6, 1, 1], 0
    hidden["ignore"][0, 1] = True
    wrong = {**hidden, "ignore": more["ignore"]}
    options = {"backbone": "tiny", "channels": 32, "depth": 1}
    for model in (
        RetinaNet(2, anchor_sizes=[[s] for s in (8, 16, 32, 64, 128)], **options),
        FCOS(2, **options),
        FCOS(2, assignment="centre", **options),
    ):
        outputs = model(image)
        for name in model.predictors:  # at first all places say the same
            outputs[name] = [t + tf.random.uniform(t.shape, seed=1) for t in outputs[name]]
        losses = [float(model.compute_loss(image, t, outputs)) for t in (y, more, hidden, wrong)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
        assert losses[2] < losses[0]
        assert abs(losses[3] - losses[2]) > 0.003
        copy = type(model).from_config(model.get_config())
        assert copy.get_config() == model.get_config()
    with pytest.raises(InputError, match=r"assignment must be one of task_aligned, centre"):
        FCOS(2, assignment="center")


def test_they_learn_two_images_by_heart():
    """And find them after being saved and loaded, in bfloat16 too."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    y = {
        "boxes": np.array([[[0.1, 0.2, 0.5, 0.9]], [[0.4, 0.1, 0.9, 0.8]]], np.float32),
        "classes": np.array([[1], [0]]),
    }
    for x0, y0, x1, y1, i in ((10, 13, 48, 58, 0), (38, 6, 86, 51, 1)):
        images[i, y0:y1, x0:x1] = (250, 30, 30) if i else (30, 30, 250)
    keras.utils.set_random_seed(1)
    model = FCOS(2, backbone="tiny", channels=32, depth=1, dtype="mixed_bfloat16")
    model.compile(keras.optimizers.Adam(3e-3))
    data = tf.data.Dataset.from_tensors((images, y)).repeat()
    model.fit(data, steps_per_epoch=120, verbose=0, shuffle=False)
    found = model.detect(images)
    np.testing.assert_array_equal(found["classes"][:, 0], [1, 0])
    np.testing.assert_allclose(found["boxes"][:, 0], y["boxes"][:, 0], atol=0.1)


@pytest.mark.parametrize("kind", [FCOS, RetinaNet])
def test_images_are_padded_to_whole_strides(kind):
    """Steps of 100 // 13 pixels would leave the places of a stride of 8."""
    model = kind(2, backbone="tiny", channels=8, depth=1)
    images = np.random.default_rng(0).uniform(0, 255, (1, 100, 90, 3)).astype(np.float32)
    outputs = model(images)
    padded = model(np.pad(images, [(0, 0), (0, 28), (0, 6), (0, 0)], "edge"))
    assert outputs["size"].numpy().tolist() == [100, 90]
    for name in ("logits", "anchors"):
        for found, expected in zip(outputs[name], padded[name], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    for level, stride in enumerate((8, 16, 32)):
        _, top, _, bottom = outputs["anchors"][level].numpy().T
        assert set(np.diff(np.unique(top + bottom))) == {2 * stride}


@pytest.mark.long  # a quarter of a minute, for what compiles the whole step
def test_xla_computes_the_same():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    rows = np.float32([[[0, 0.1, 0.2, 0.6, 0.7]], [[1, 0.3, 0.1, 0.9, 0.5]]])
    losses = []
    for compiled in (False, True):
        keras.utils.set_random_seed(0)
        model = FCOS(2, backbone="tiny", channels=8, depth=1, levels=3)
        model.compile(keras.optimizers.SGD(0.3), jit_compile=compiled)
        losses.append(model.fit(images, rows, epochs=3, verbose=0).history["loss"])
    assert abs(losses[0][2] - losses[0][0]) > 0.01
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_anchor_sizes_are_of_all_levels():
    with pytest.raises(InputError, match=r"are for 5 levels, and the pyramid has 3: give sizes"):
        RetinaNet(2, backbone="tiny", levels=3)
    for sizes, counts in (([[8], [16, 20], [32]], r"\[1, 2, 1\]"), ([[]] * 3, r"\[0, 0, 0\]")):
        message = rf"anchor_sizes=.* has {counts} sizes for its levels: give equally many"
        with pytest.raises(InputError, match=message):
            RetinaNet(2, sizes, backbone="tiny", levels=3)
    sizes = [[8], [16], [32]]
    model = RetinaNet(2, sizes, backbone="tiny", channels=8, levels=3)
    assert len(model(np.zeros((1, 64, 64, 3)))["anchors"]) == 3
