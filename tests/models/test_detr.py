"""DETR against the numbers of transformers (record_detr.py), and its own ways."""

import functools
import itertools
import json
import types

import keras
import numpy as np
import pytest
import record_detr as given
import tensorflow as tf

from kerascv_d2l import DETR, InputError, attention_map, layer_cam
from kerascv_d2l.layers import places
from kerascv_d2l.layers.attention import BoxFocus
from kerascv_d2l.layers.set_decoder import SetDecoder
from kerascv_d2l.losses.set_prediction import query_class_loss
from kerascv_d2l.models import detr
from kerascv_d2l.models.detr_weights import _BACKBONE, load_published, published_module
from kerascv_d2l.ops.boxes import box_center_to_corner, box_corner_to_center
from kerascv_d2l.ops.checks import as_targets
from kerascv_d2l.ops.denoising import group_mask, noise_objects
from kerascv_d2l.ops.hungarian import match_one_to_one

SMALL = {"backbone": "mobilenet_0.25", **given.SETTINGS, "encoder_layers": 1, "decoder_layers": 2}


@pytest.fixture(scope="module")
def recorded():
    return np.load(given.RECORDED)


@pytest.fixture(scope="module")
def network(recorded):
    """The recorded transformer, without a backbone."""
    model = DETR(given.NUM_CLASSES, "mobilenet_0.25", reference_boxes=False, **given.SETTINGS)
    object.__setattr__(model, "features", types.SimpleNamespace(layers=[]))
    shapes = json.loads(str(recorded["shapes"]))
    tensors = given.draw_weights({name: tuple(shape) for name, shape in shapes.items()})
    load_published(model, tensors)
    return model


def labels():
    boxes, classes = given.draw_objects()
    corners = box_center_to_corner(boxes).numpy()
    return {
        "boxes": corners,
        "classes": classes.astype("i4"),
        "ignore": np.zeros(classes.shape, bool),
    }


def test_all_is_that_of_the_original(network, recorded):
    outputs = network.transform(given.draw_map(), training=True)
    for name in ("logits", "boxes", "attention"):
        np.testing.assert_allclose(outputs[name], recorded[name], atol=2e-5, err_msg=name)
    total = network.compute_loss(y=labels(), y_pred=outputs)
    found = [network.parts[n].result().numpy() for n in ("classes", "boxes", "giou")]
    expected = recorded["losses"] * [1, 5, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-4)


def test_what_is_padding_or_ignored_changes_nothing(network):
    """More padding does not, nor does an ignored object that no prediction lies on."""
    outputs = network.transform(given.draw_map())
    y = labels()
    before = float(network.compute_loss(y=y, y_pred=outputs))
    more = {
        "boxes": np.pad(y["boxes"], [[0, 0], [0, 2], [0, 0]]),
        "classes": np.pad(y["classes"], [[0, 0], [0, 2]], constant_values=-1),
        "ignore": np.pad(y["ignore"], [[0, 0], [0, 2]]),
    }
    np.testing.assert_allclose(network.compute_loss(y=more, y_pred=outputs), before, rtol=1e-6)
    more["boxes"][0, 4], more["classes"][0, 4] = [0, 0, 1e-3, 1e-3], 1
    more["ignore"][0, 4] = True
    np.testing.assert_allclose(network.compute_loss(y=more, y_pred=outputs), before, rtol=1e-6)
    # One that they all lie on takes those without an object out.
    more["boxes"][:, 4], more["classes"][:, 4] = [0, 0, 1, 1], 1
    more["ignore"][:, 4] = True
    assert abs(float(network.compute_loss(y=more, y_pred=outputs)) - before) > 0.01


def test_matching_is_the_cheapest_of_all():
    random = np.random.default_rng(0)
    costs = random.normal(size=(2, 6, 5, 4)).astype(np.float32)
    costs[0, 0] = np.round(costs[0, 0])  # with ties
    wanted = random.uniform(size=(2, 6, 4)) < 0.7
    matched = match_one_to_one(costs, wanted).numpy()
    for cost, real, found in zip(
        costs.reshape(-1, 5, 4), wanted.reshape(-1, 4), matched.reshape(-1, 4), strict=True
    ):
        assert (found[~real] == -1).all() and len(set(found[real])) == real.sum()
        objects = np.flatnonzero(real)
        least = min(
            sum(cost[p, o] for p, o in zip(chosen, objects, strict=True))
            for chosen in itertools.permutations(range(5), len(objects))
        )
        np.testing.assert_allclose(cost[found[real], objects].sum(), least, rtol=1e-5)
    # Too many objects, and costs of a network that diverged.
    found = match_one_to_one(np.full((1, 2, 3), np.nan, "f4"), np.ones((1, 3), bool))
    assert sorted(found[0].numpy()) == [-1, 0, 1]
    none = match_one_to_one(np.zeros((2, 3, 5, 0), "f4"), np.zeros((2, 3, 0), bool))
    assert none.shape == (2, 3, 0)


def test_published_names():
    names = {
        "encoder_3_self_attn_q_proj": "model.encoder.layers.3.self_attn.q_proj",
        "decoder_5_encoder_attn_out_proj": "model.decoder.layers.5.encoder_attn.out_proj",
        "decoder_0_encoder_attn_layer_norm": "model.decoder.layers.0.encoder_attn_layer_norm",
        "encoder_0_fc1": "model.encoder.layers.0.fc1",
        "layernorm": "model.decoder.layernorm",
        "bbox_predictor_2": "bbox_predictor.layers.2",
        "layer1_0_conv1": f"{_BACKBONE}layer1.0.conv1",
    }
    assert {name: published_module(name) for name in names} == names


def test_decoder_drops_what_is_weak_or_empty():
    scores = np.array([[[0.2, 0.7], [0.9, 0.1], [0.3, 0.3], [0.05, 0.02]]], np.float32)
    boxes = np.array(
        [[[0.1, 0.1, 0.4, 0.5], [0.2, 0.2, 0.2, 0.6], [-0.2, 0.5, 0.5, 1.2], [0, 0, 1, 1]]],
        np.float32,
    )
    found = SetDecoder(score_threshold=0.1, max_detections=5)(scores, boxes)
    assert found["num_valid"].numpy() == [2]
    np.testing.assert_allclose(found["scores"][0], [0.7, 0.3, 0, 0, 0])
    np.testing.assert_array_equal(found["classes"][0], [1, 0, -1, -1, -1])
    np.testing.assert_allclose(found["boxes"][0, :2], [[0.1, 0.1, 0.4, 0.5], [0, 0.5, 0.5, 1]])


def test_attention_is_that_of_the_query_which_found_the_object():
    """Each query's box and score are its own, so the best score tells the query, too."""
    keras.utils.set_random_seed(0)
    model = DETR(2, image_size=(64, 96), **SMALL)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    model(image[None])
    model.places.classifier.bias.assign([0.0, 0.0])  # from scores as small as objects are rare
    outputs = model(image[None])
    order = np.argsort(-tf.sigmoid(outputs["logits"][-1, 0]).numpy().max(axis=-1))
    maps = outputs["attention"][0].numpy().mean(axis=0).reshape(-1, 8, 12)[order]
    assert np.abs(maps[1] - maps[0]).max() > 1e-3
    for number in (0, 1):
        found = attention_map(model, image, number)
        np.testing.assert_allclose(found, maps[number], atol=1e-5)
        assert found.sum() == pytest.approx(1, abs=1e-5)
    # A score depends on the place where its query began, and maps are those of the image.
    model.classifier.kernel.assign(tf.zeros_like(model.classifier.kernel))
    heat = layer_cam(model, image)
    assert heat.shape in ((4, 6), (8, 12)) and heat.max() > 0


def test_heads_look_at_parts_of_a_box():
    focus = BoxFocus(4)
    focus.build()
    focus.offsets.assign(np.random.default_rng(0).uniform(-1, 1, (4, 2)))
    focus.sharpness.assign([0.5, 0, -1, 1])
    boxes = np.array([[[0.3, 0.6, 0.2, 0.5]], [[0.9, 0.1, 0.1, 0.1]]], np.float32)
    bias = focus(boxes, map_size=(3, 5)).numpy().reshape(2, 4, 3, 5)
    for image, head, row, column in itertools.product(range(2), range(4), range(3), range(5)):
        x, y, w, h = boxes[image, 0]
        away = ((column + 0.5) / 5 - x) / (w / 2 + 1 / 5), ((row + 0.5) / 3 - y) / (h / 2 + 1 / 3)
        square = ((np.array(away) - focus.offsets.numpy()[head]) ** 2).sum()
        expected = -np.exp(focus.sharpness.numpy()[head]) * square
        np.testing.assert_allclose(bias[image, head, row, column], expected, rtol=1e-5)


def test_best_places_against_a_loop():
    """With ties, at the border, and on a map that has fewer places than are asked for."""
    logits = np.random.default_rng(0).normal(size=(2, 15, 2)).astype("f4")
    logits[0, :3] = 5.0  # equals are no better than each other
    on_map = logits.reshape(2, 3, 5, 2)
    expected = on_map.copy()
    for image, row, column, k in np.ndindex(on_map.shape):
        near = on_map[image, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2, k]
        expected[image, row, column, k] -= 4.0 * (near.max() > on_map[image, row, column, k])
    expected = expected.reshape(2, 15, 2)
    chosen, left = places.best_places(logits, (3, 5), 6)
    order = np.argsort(-expected.max(-1), axis=1, kind="stable")
    np.testing.assert_array_equal(chosen, order[:, :6])
    np.testing.assert_allclose(left, np.take_along_axis(expected, order[:, :6, None], 1))
    assert places.best_places(logits, (3, 5), 40)[0].shape == (2, 15)


def test_places_that_are_right_have_no_loss(denoiser):
    """And one of the places of an object suffices for its box, many learn its class."""
    y, (height, width) = labels(), given.MAP[1:3]
    outputs = denoiser.transform(finest_map())
    assert outputs["place_boxes"].shape == (2, height * width, 4)
    # A fresh model's boxes are around their places.
    centres = outputs["place_boxes"].numpy()[0].reshape(height, width, 4)[3, 2]
    np.testing.assert_allclose(centres, [2.5 / width, 3.5 / height, 0.2, 0.2], atol=1e-5)
    before = float(denoiser._places_loss(y, outputs))
    inside = np.full((2, height * width), -1)
    boxes = np.array(outputs["place_boxes"])
    for image, row, column in np.ndindex(2, height, width):
        x, y_ = (column + 0.5) / width, (row + 0.5) / height
        for k in np.flatnonzero(y["classes"][image] >= 0):
            x1, y1, x2, y2 = y["boxes"][image, k]
            if x1 < x < x2 and y1 < y_ < y2:
                inside[image, row * width + column] = k
                boxes[image, row * width + column] = box_corner_to_center(y["boxes"][image, k])
    assert len({*inside[0]}) > 1
    classes = np.where(inside >= 0, np.take_along_axis(y["classes"], inside.clip(0), 1), -1)
    perfect = np.where(np.arange(4) == classes[..., None], 20.0, -20.0).astype("f4")
    found = {**outputs, "place_logits": perfect, "place_boxes": boxes}
    assert float(denoiser._places_loss(y, found)) < 0.2 * before
    y["ignore"][:] = y["classes"] >= 0  # and those that are ignored teach nothing
    nowhere = np.full_like(perfect, -20.0)
    assert float(denoiser._places_loss(y, {**found, "place_logits": nowhere})) < 1e-3
    assert float(denoiser._places_loss(y, found)) < 1e-3


# ---------------------------------------------------------------- denoising

GROUPS = 3


@pytest.fixture(scope="module")
def denoiser():
    """Fresh: each layer of the decoder leaves boxes where they are."""
    keras.utils.set_random_seed(0)
    return DETR(given.NUM_CLASSES, **SMALL, denoising=GROUPS, seed=4)


def finest_map():
    """What the pyramid says."""
    return given.draw_map()[..., : SMALL["width"]]


@pytest.fixture
def no_noise(monkeypatch):
    quiet = functools.partial(noise_objects, box_noise=0.0, label_noise=0.0)
    monkeypatch.setattr(detr, "noise_objects", quiet)


def test_noised_objects_against_a_loop():
    y, draws = labels(), np.random.default_rng(1).uniform(size=(2, GROUPS, 3, 6)).astype("f4")
    boxes, classes = noise_objects(y["boxes"], y["classes"], 4, draws, label_noise=0.5)
    centres = box_corner_to_center(y["boxes"]).numpy()
    for image, group, k in itertools.product(range(2), range(GROUPS), range(3)):
        found, draw = boxes[image, 3 * group + k], draws[image, group, k]
        x, y_, w, h = centres[image, k]
        moves = 0.4 * (2 * draw[:4] - 1)
        expected = [x + moves[0] * w / 2, y_ + moves[1] * h / 2]
        np.testing.assert_allclose(found, [*expected, w + moves[2] * w, h + moves[3] * h], 1e-5)
        named = int(4 * draw[5]) if draw[4] < 0.5 else max(0, y["classes"][image, k])
        assert classes[image, 3 * group + k] == named


def test_groups_see_themselves_only():
    real = np.array([[True, True, False, True], [False, False, True, False]])
    mask = group_mask(real, GROUPS).numpy()
    assert mask.shape == (2, 1, 4 * GROUPS, 4 * GROUPS)
    for image, row, column in itertools.product(range(2), *[range(4 * GROUPS)] * 2):
        seen = row // 4 == column // 4 and real[image, column % 4]
        assert mask[image, 0, row, column] == seen


def test_without_noise_each_layer_gives_the_objects_themselves(denoiser, no_noise):
    """In a fresh model, also where there is padding; and the gradient reaches the labels."""
    y = labels()
    with tf.GradientTape() as tape:
        loss = denoiser.compute_loss(y=y, y_pred=denoiser.transform(finest_map(), training=True))
    assert np.abs(tape.gradient(loss, denoiser.labels.kernel.value)).max() > 0
    memory = denoiser.transform(finest_map(), training=True)["memory"]
    draws = np.zeros((2, GROUPS, 3, 6), np.float32)
    boxes, classes = noise_objects(y["boxes"], y["classes"], 4, draws, box_noise=0.0)
    mask = group_mask(y["classes"] >= 0, GROUPS)
    content = tf.gather(denoiser.labels(), classes)
    boxes_, size = places.logit(boxes), given.MAP[1:3]
    found = denoiser._ask(content, boxes_, places.PRIOR_LOGIT, memory, size, mask)["boxes"]
    wanted = np.tile(y["classes"] >= 0, GROUPS)
    for layer in found.numpy():
        np.testing.assert_allclose(layer[wanted], boxes[wanted], atol=1e-6)
    assert "memory" not in denoiser.transform(finest_map())


def compare(box, truth):
    """L1 distance, IoU and GIoU of a box, centre first, and one of corners."""
    apart = np.abs(box - box_corner_to_center(truth).numpy()).sum()
    low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
    inside = np.clip(np.minimum(high, truth[2:]) - np.maximum(low, truth[:2]), 0, None).prod()
    union = box[2:].prod() + (truth[2:] - truth[:2]).prod() - inside
    hull = (np.maximum(high, truth[2:]) - np.minimum(low, truth[:2])).prod()
    return apart, inside / union, inside / union - (hull - union) / hull


def slow_quality_loss(quality, logits):
    total = 0.0
    for q, logit in zip(quality, logits, strict=True):
        p = 1 / (1 + np.exp(-logit))
        total -= (q - p) ** 2 * (q * np.log(p) + (1 - q) * np.log(1 - p))
    return total


def test_scores_learn_how_good_their_boxes_are(denoiser):
    """Against a loop; a query without an object learns 0, one on an ignored object nothing."""
    random, y = np.random.default_rng(3), labels()
    y["ignore"][0, 1] = True
    y["boxes"][0, 1] = [0.0, 0.0, 1.0, 1.0]
    logits = random.normal(size=(2, 2, 5, 4)).astype("f4")
    boxes = random.uniform(0.2, 0.6, (2, 2, 5, 4)).astype("f4")
    matched = np.stack([random.permutation(5)[:3] for _ in range(4)]).reshape(2, 2, 3)
    matched[:, 0, 1] = -1
    matched[:, y["classes"] < 0] = -1
    loss = query_class_loss(as_targets(y, 4), logits, boxes, matched, 3.0, 4)
    total = 0.0
    for layer, image, query in itertools.product(range(2), range(2), range(5)):
        (objects,) = np.nonzero(matched[layer, image] == query)
        quality = np.zeros(4)
        for k in objects:
            _, iou, _ = compare(boxes[layer, image, query], y["boxes"][image, k])
            quality[y["classes"][image, k]] = iou
        if len(objects) or image:  # in the first image all lie on what is ignored
            total += 2 * slow_quality_loss(quality, logits[layer, image, query])
    np.testing.assert_allclose(loss, total / 3, rtol=1e-5)


def test_denoising_loss_against_a_loop(denoiser, monkeypatch):
    random, y = np.random.default_rng(2), labels()
    y["ignore"][0, 1] = True
    logits = random.normal(size=(2, 2, 3 * GROUPS, 4)).astype("f4")
    boxes = random.uniform(0.2, 0.6, (2, 2, 3 * GROUPS, 4)).astype("f4")
    outputs = denoiser.transform(finest_map(), training=True)
    monkeypatch.setattr(denoiser, "_ask", lambda *_, **__: {"logits": logits, "boxes": boxes})
    wanted = (y["classes"] >= 0) & ~y["ignore"]
    loss = denoiser._denoising_loss(y, wanted, float(wanted.sum()), outputs)
    total = 0.0
    for layer, image, k in itertools.product(range(2), range(2), range(3 * GROUPS)):
        if not wanted[image, k % 3]:
            continue
        box, truth = boxes[layer, image, k], y["boxes"][image, k % 3]
        apart, iou, giou = compare(box, truth)
        total += 5 * apart + 2 * (1 - giou)
        quality = iou * (np.arange(4) == y["classes"][image, k % 3])
        total += 2 * slow_quality_loss(quality, logits[layer, image, k])
    np.testing.assert_allclose(loss, total / (GROUPS * wanted.sum()), rtol=1e-5)


def test_padding_is_not_denoised_and_usual_queries_do_not_notice(denoiser, no_noise):
    outputs, y = denoiser.transform(finest_map(), training=True), labels()
    for name, value in denoiser.transform(finest_map()).items():
        np.testing.assert_array_equal(outputs[name], value)
    wanted = y["classes"] >= 0
    loss = denoiser._denoising_loss(y, wanted, 4.0, outputs)
    more = {name: np.pad(y[name], [[0, 0], [0, 2]]) for name in ("classes", "ignore")}
    more |= {"boxes": np.pad(y["boxes"], [[0, 0], [0, 2], [0, 0]])}
    again = denoiser._denoising_loss(more, np.pad(wanted, [[0, 0], [0, 2]]), 4.0, outputs)
    np.testing.assert_allclose(again, loss, rtol=1e-5)


def test_the_metrics_are_the_parts_of_the_loss(denoiser):
    y = labels()
    for training in (True, False):
        outputs = denoiser.transform(finest_map(), training=training)
        for part in denoiser.parts.values():
            part.reset_state()
        loss = denoiser.compute_loss(y=y, y_pred=outputs, training=training)
        parts = {name: float(part.result()) for name, part in denoiser.parts.items()}
        assert (parts["denoising"] > 0) == training
        assert sum(parts.values()) == pytest.approx(float(loss), rel=1e-6)


def test_noise_is_by_the_seed_and_the_step(denoiser):
    """So a training that goes on from a checkpoint, which has the state, has the same."""
    outputs, y = denoiser.transform(finest_map(), training=True), labels()
    state = denoiser.seeds.state.numpy()
    losses = [float(denoiser.compute_loss(y=y, y_pred=outputs)) for _ in range(2)]
    denoiser.seeds.state.assign(state)
    assert losses == [float(denoiser.compute_loss(y=y, y_pred=outputs)) for _ in range(2)]
    assert losses[0] != losses[1]
    assert {"denoising": GROUPS, "seed": 4}.items() <= denoiser.get_config().items()
    with pytest.raises(InputError, match="denoising=2 needs reference_boxes=True"):
        DETR(2, denoising=2, reference_boxes=False)


@pytest.mark.long
def test_it_learns_two_images_by_heart():
    """With boxes as queries; and the config makes the same model again."""
    keras.utils.set_random_seed(0)
    images = np.full((2, 64, 96, 3), 100, np.uint8)
    boxes = np.array([[[0.1, 0.2, 0.5, 0.9]], [[0.4, 0.1, 0.9, 0.8]]], np.float32)
    images[0, 13:58, 10:48], images[1, 6:51, 38:86] = (30, 30, 250), (250, 30, 30)
    model = DETR(2, **SMALL)
    model.compile(keras.optimizers.Adam(2e-3))
    y = {"boxes": boxes, "classes": np.array([[1], [0]])}
    data = tf.data.Dataset.from_tensors((images, y)).repeat()
    model.fit(data, steps_per_epoch=200, verbose=0, shuffle=False)
    found = model.detect(images)
    np.testing.assert_array_equal(found["classes"][:, 0], [1, 0])
    np.testing.assert_allclose(found["boxes"][:, 0], boxes[:, 0], atol=0.1)
    copy = DETR.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_allclose(copy.detect(images)["boxes"], found["boxes"], atol=1e-6)
    with pytest.raises(InputError, match=r"width=30 must be a multiple of heads=8 and of 4"):
        DETR(2, width=30)


def test_large_objects_get_a_coarser_map():
    boxes = [[0.1, 0.1, 0.5, 0.5], [0.2, 0.3, 0.6, 0.7], [0.1, 0.1, 0.12, 0.12]]
    assert DETR.anchor_options(boxes, (256, 256)) == {"stride": 16}  # the median has 102 pixels
    assert DETR.anchor_options(boxes, (96, 640)) == {"stride": 16}  # 99
    assert DETR.anchor_options(boxes, (192, 192)) == {}  # 77
    assert DETR.anchor_options([], (256, 256)) == {}
