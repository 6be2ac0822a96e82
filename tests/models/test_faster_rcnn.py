"""Faster R-CNN against torchvision's recorded numbers (record_faster_rcnn.py), and its own ways."""

import json

import keras
import numpy as np
import pytest
import record_faster_rcnn as given
import tensorflow as tf
from record_resnet import sample

from kerascv_d2l import FasterRCNN, InputError, load_model
from kerascv_d2l.models.rcnn_weights import load_torchvision

EVERYTHING = {"samples": 2000, "positive_fraction": 1.0}


@pytest.fixture(scope="module")
def recorded():
    return np.load(given.RECORDED)


@pytest.fixture(scope="module")
def network(recorded):
    """Faster R-CNN as torchvision's, with the drawn weights."""
    model = FasterRCNN(
        given.NUM_CLASSES,
        "resnet50_v1.5",
        freeze_norm=True,
        rpn=EVERYTHING | {"samples": 6000},
        head=EVERYTHING | {"samples": 3000},
    )
    shapes = {name: tuple(shape) for name, shape in json.loads(str(recorded["shapes"])).items()}
    load_torchvision(model, given.draw_weights(shapes))
    return model


def close(found, expected, message=""):
    """Equal to 1e-4, relative to the largest value."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale, err_msg=message)


@pytest.mark.parametrize("case", given.CASES)
def test_every_step_is_that_of_torchvision(network, recorded, case):
    outputs = network(given.draw_pixels(case), training=False)
    for i, tensor in enumerate(outputs["maps"]):
        close(sample(tensor), recorded[f"{case}_map_{i}"], f"map {i}")
    batch, height, width = given.CASES[case]
    first = height // 4 * (width // 4) * 3
    objectness = outputs["objectness"][:, :first].numpy()
    shape = (batch, height // 4, width // 4, -1)
    close(sample(objectness.reshape(shape)), recorded[f"{case}_objectness"])
    offsets = outputs["offsets"][:, :first].numpy()
    close(sample(offsets.reshape(shape)), recorded[f"{case}_offsets"])

    proposals = [recorded[f"{case}_proposals_{i}"] for i in range(batch)]
    for i, expected in enumerate(proposals):
        assert outputs["valid"][i].numpy().sum() == len(expected)
        close(outputs["proposals"][i, : len(expected)], expected, f"proposals {i}")

    logits, offsets = network.predict_regions(outputs["maps"], outputs["proposals"])
    valid = outputs["valid"].numpy()
    close(logits.numpy()[valid], recorded[f"{case}_logits"], "logits")
    offsets = offsets.numpy()[valid].reshape(valid.sum(), -1)
    close(sample(offsets), recorded[f"{case}_regression"], "offsets of the head")

    detected = network.decode(outputs)
    for i in range(batch):
        count = int(detected["num_valid"][i])
        assert count == len(recorded[f"{case}_scores_{i}"]) > 50
        boxes = detected["boxes"][i, :count] * [width, height, width, height]
        close(boxes, recorded[f"{case}_boxes_{i}"], "boxes")
        close(detected["scores"][i, :count], recorded[f"{case}_scores_{i}"], "scores")
        np.testing.assert_array_equal(
            detected["classes"][i, :count] + 1, recorded[f"{case}_labels_{i}"]
        )


@pytest.mark.parametrize("case", given.CASES)
def test_losses_are_those_of_torchvision(network, recorded, case):
    images = given.draw_pixels(case)
    boxes, classes = given.draw_objects(case)
    _, height, width = given.CASES[case]
    padding = [[0, 0], [0, 2], [0, 0]]
    y = {
        "boxes": np.pad(boxes / np.float32([width, height, width, height]), padding),
        "classes": np.pad(classes, padding[:2], constant_values=-1),
    }
    outputs = network(images, training=True)
    total = network.compute_loss(images, y, outputs)
    expected = recorded[f"{case}_losses"]
    close(total, expected.sum())
    found = [network.parts[name].result().numpy() for name in network.parts]
    for metric in network.parts.values():
        metric.reset_state()
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_weights_that_do_not_fit_are_named(network):
    before = network.get_weights()[0].copy()
    with pytest.raises(InputError, match=r"roi_heads\.box_predictor\.cls_score\.bias"):
        load_torchvision(network, {"backbone.body.conv1.weight": np.zeros((64, 3, 7, 7))})
    np.testing.assert_array_equal(network.get_weights()[0], before)


def small(**options):
    """A detector that is made and trained in seconds."""
    sizes = tuple((s,) for s in (8, 16, 32, 64, 128))
    rpn = {"train_before_nms": 100, "train_proposals": 60, "test_proposals": 50, "samples": 64}
    return FasterRCNN(
        ["a", "b"], "resnet18", anchor_sizes=sizes, channels=16, head_width=32,
        canonical_size=64, rpn=rpn, head={"samples": 32}, **options,
    )  # fmt: skip


def squares(count=4, side=96):
    """Images of one bright square each, and labels with padding rows."""
    random = np.random.RandomState(0)
    images = np.full((count, side, side, 3), 40, np.float32)
    labels = np.full((count, 2, 5), -1, np.float32)
    for i in range(count):
        x, y = random.randint(4, 50, 2)
        images[i, y : y + 36, x : x + 36] = (250, 200, 60) if i % 2 else (60, 120, 250)
        labels[i, 0] = [i % 2, x / side, y / side, (x + 36) / side, (y + 36) / side]
    return images, labels


def test_fit_learns_and_a_saved_model_is_the_same(tmp_path):
    keras.utils.set_random_seed(0)
    model = small(image_size=(96, 96))
    images, labels = squares()
    model.compile(keras.optimizers.Adam(1e-3))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4).repeat()
    history = model.fit(data, steps_per_epoch=30, epochs=2, verbose=0).history
    assert {"loss", "loss_objectness", "loss_rpn_boxes", "loss_classes", "loss_boxes"} <= set(history)
    assert history["loss"][1] < 0.6 * history["loss"][0]
    parts = [history[name][1] for name in history if name.startswith("loss_")]
    np.testing.assert_allclose(sum(parts), history["loss"][1], rtol=1e-3)
    found = model.detect(images.astype(np.uint8))
    assert found["boxes"].shape == (4, 100, 4) and found["num_valid"].numpy().min() > 0
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    assert again.rpn_settings == model.rpn_settings and again.class_names == ("a", "b")
    for name, value in again.detect(images.astype(np.uint8)).items():
        np.testing.assert_allclose(value, found[name], atol=1e-5, err_msg=name)


def test_sampling_depends_on_seed_and_step_alone():
    images, labels = squares()
    weights = small().get_weights()
    losses = []
    for seed in (1, 1, 2):
        model = small(seed=seed)
        model.set_weights(weights)
        model.seeds.state.assign([seed, 0])
        outputs = model(images, training=True)
        losses.append([float(model.compute_loss(images, labels, outputs)) for _ in range(2)])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1] and losses[0] != losses[2]


def test_images_without_objects():
    images, labels = squares(2)
    labels[:] = -1
    model = small()
    outputs = model(images, training=True)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = model.compute_loss(images, labels, outputs)
    assert np.isfinite(loss) and loss > 0
    for gradient in tape.gradient(loss, model.trainable_variables):
        assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient)).all()
    empty = {"boxes": np.zeros((2, 0, 4)), "classes": np.zeros((2, 0))}
    assert np.isfinite(model.compute_loss(images, empty, outputs))
