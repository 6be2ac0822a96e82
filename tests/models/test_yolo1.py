"""The first YOLO, against loops over cells and objects."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import add_tiny

from kerascv_d2l import YOLO1
from kerascv_d2l.models.yolo1 import assign_cells


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        yield


def iou(a, b):
    """Of two boxes, centre first."""
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    both = np.prod(np.maximum(high - low, 0))
    return both / (np.prod(a[2:]) + np.prod(b[2:]) - both)


def slow_losses(outputs, objects, rows, columns):
    """Equation 3 for one image; `objects` is a list of (box, class, ignore), centre first."""
    cells = {}
    for box, k, ignore in objects:
        cell = min(int(box[1] * rows), rows - 1), min(int(box[0] * columns), columns - 1)
        old = cells.get(cell)
        if (
            old is None
            or (old[2] and not ignore)
            or (old[2] == ignore and np.prod(old[0][2:]) < np.prod(box[2:]))
        ):
            cells[cell] = box, k, ignore
    coordinates = confidence = classes = 0.0
    for r in range(rows):
        for c in range(columns):
            said, sure = outputs["boxes"][r, c], outputs["confidence"][r, c]
            box, k, ignore = cells.get((r, c), (None, None, False))
            if ignore:
                continue
            best = None
            if box is not None:
                placed = [
                    np.array([(c + b[0]) / columns, (r + b[1]) / rows, b[2] ** 2, b[3] ** 2])
                    for b in said
                ]
                overlaps = [iou(p, box) for p in placed]
                best = int(np.argmax(overlaps))
                target = [box[0] * columns - c, box[1] * rows - r, box[2] ** 0.5, box[3] ** 0.5]
                coordinates += 5 * np.square(said[best] - target).sum()
                confidence += (sure[best] - overlaps[best]) ** 2
                classes += np.square(outputs["classes"][r, c] - np.eye(3)[k]).sum()
            confidence += 0.5 * sum(s**2 for b, s in enumerate(sure) if b != best)
    return np.array([coordinates, confidence, classes])


def test_losses_equal_a_slow_one():
    """With two objects in a cell, one ignored, one on the border, and padding."""
    keras.utils.set_random_seed(3)
    model = YOLO1(3, backbone="tiny")
    rows, columns = 3, 4
    random = np.random.default_rng(0)
    outputs = {
        "boxes": random.uniform(size=(2, rows, columns, 2, 4)).astype(np.float32),
        "confidence": random.uniform(size=(2, rows, columns, 2)).astype(np.float32),
        "classes": random.dirichlet([1, 1, 1], (2, rows, columns)).astype(np.float32),
    }
    objects = [
        [
            (np.array([0.3, 0.4, 0.3, 0.4]), 1, False),
            (np.array([0.35, 0.45, 0.5, 0.6]), 2, False),
            (np.array([0.9, 0.9, 0.2, 0.2]), 0, True),
            (np.array([1.0, 0.1, 0.25, 0.2]), 0, False),
        ],
        [(np.array([0.1, 0.8, 0.2, 0.1]), 1, False)],
    ]
    y = {
        "boxes": np.zeros((2, 5, 4), np.float32),
        "classes": np.full((2, 5), -1),
        "ignore": np.zeros((2, 5), bool),
    }
    for i, found in enumerate(objects):
        for j, (box, k, ignore) in enumerate(found):
            y["boxes"][i, j] = [*(box[:2] - box[2:] / 2), *(box[:2] + box[2:] / 2)]
            y["classes"][i, j], y["ignore"][i, j] = k, ignore
    total = model.compute_loss(y=y, y_pred=outputs)
    expected = np.mean(
        [
            slow_losses({k: v[i] for k, v in outputs.items()}, objects[i], rows, columns)
            for i in range(2)
        ],
        axis=0,
    )
    found = [metric.result().numpy() for metric in model.parts.values()]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-4)


def test_what_is_learned_is_what_is_found():
    """Outputs that say exactly what `assign_cells` wants are decoded to the objects."""
    model = YOLO1(2, backbone="tiny")
    boxes = np.array([[[0.1, 0.2, 0.4, 0.9], [0.5, 0.1, 0.9, 0.3]]], np.float32)
    classes = np.array([[1, 0]])
    truth, named, holds, _ = assign_cells(
        {"boxes": boxes, "classes": classes, "ignore": np.zeros((1, 2), bool)}, 3, 5
    )
    assert holds.numpy().sum() == 2
    within = truth[..., :2] * [5.0, 3.0]
    said = tf.concat([within - tf.floor(within), tf.sqrt(truth[..., 2:])], -1)
    found = model.decode(
        {
            "boxes": tf.repeat(said[..., tf.newaxis, :], 2, axis=3),
            "confidence": tf.repeat(tf.cast(holds, tf.float32)[..., tf.newaxis], 2, axis=3),
            "classes": tf.one_hot(named, 2),
        }
    )
    assert found["num_valid"].numpy() == [2]
    order = np.argsort(found["classes"][0, :2])[::-1]
    np.testing.assert_array_equal(found["classes"].numpy()[0, order], [1, 0])
    np.testing.assert_allclose(found["boxes"].numpy()[0, order], boxes[0], atol=1e-6)


def test_it_trains_and_its_config_makes_it_again():
    model = YOLO1(2, backbone="tiny")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    y = {"boxes": np.array([[[0.1, 0.2, 0.4, 0.9]]] * 2, np.float32), "classes": np.zeros((2, 1))}
    model.compile(keras.optimizers.Adam(1e-3))
    data = tf.data.Dataset.from_tensors((images, y)).repeat()
    losses = model.fit(data, epochs=2, steps_per_epoch=10, verbose=0, shuffle=False).history["loss"]
    assert losses[1] < 0.8 * losses[0]
    copy = YOLO1.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    found = [m.detect(images)["scores"] for m in (copy, model)]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_large_features_do_not_end_the_learning():
    """Of a pretrained network, say: where sigmoids are flat, a squared error has no gradient."""
    keras.utils.set_random_seed(0)
    model = YOLO1(1, "tiny", freeze_norm=True)
    norm = [w for layer in model.features.layers if "bn4" in layer.name for w in layer.weights]
    norm[0].assign(30 * tf.ones_like(norm[0]))
    norm[1].assign(60 * tf.ones_like(norm[1]))  # all positive, as after a ReLU
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    rows = np.float32([[[0, 0.2, 0.3, 0.6, 0.8]]] * 4)
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(images, rows, epochs=20, verbose=0).history["loss_coordinates"]
    assert history[-1] < 0.2 * history[0]


def test_statistics_of_the_head_are_known_after_a_few_steps():
    """Detections are measured early; by statistics of the first steps they would be others."""
    keras.utils.set_random_seed(0)
    head = YOLO1(3, "tiny").head
    features = keras.random.normal((8, 6, 6, head.input_shape[-1]))
    for _ in range(60):
        wanted = head(features, training=True)
    np.testing.assert_allclose(head(features), wanted, atol=0.05 * np.std(wanted))
