"""Class and box of one object from one network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scenes import bright_rectangles
from small_networks import small_backbone

import kerascv_d2l as d2l

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = d2l.Localizer(small_backbone(16), ("grey", "blue"), image_size=SIZE, box_weight=5.0)
    model.compile(keras.optimizers.Adam(0.003), jit_compile=False)
    return model


def objects():
    images, rows = bright_rectangles(8)
    return images, rows[:, 1:2]


@pytest.mark.quick
def test_loss_and_metrics(model):
    images, rows = objects()
    rows[3] = -1  # an image whose object was cropped away
    outputs = {name: value.numpy() for name, value in model(images).items()}
    losses, ious, right = [], [], []
    for k in (0, 1, 2, 4, 5, 6, 7):
        label, truth, box = int(rows[k, 0, 0]), rows[k, 0, 1:], outputs["boxes"][k]
        logits = outputs["logits"][k]
        entropy = np.log(np.exp(logits).sum()) - logits[label]
        losses.append(entropy + 5 * np.mean((box - truth) ** 2))
        box = np.clip(box, 0, 1)
        ious.append(float(d2l.box_iou(box[None], truth[None])[0, 0]))
        right.append(logits.argmax() == label)
    found = model.evaluate(images, rows, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["mean_iou"] == pytest.approx(np.mean(ious), rel=1e-4)
    assert found["iou_50"] == pytest.approx(np.mean(np.array(ious) >= 0.5))
    both = np.mean([r and iou >= 0.5 for r, iou in zip(right, ious, strict=True)])
    assert found["localized"] == pytest.approx(both)


@pytest.mark.quick
def test_images_without_an_object_count_for_nothing(model):
    """Not in the loss, and not in what is measured of an export; nor do those that are ignored."""
    images, rows = objects()
    none = np.zeros((8, 0, 5), np.float32)
    assert float(model.compute_loss(None, none, model(images))) == 0
    y = {"boxes": rows[..., 1:], "classes": rows[..., 0].astype(int)}
    y["classes"][3] = -1
    y["ignore"] = np.arange(8)[:, None] == 5
    empty = {"boxes": none[..., :4], "classes": none[..., 0].astype(int)}
    metrics, answers = d2l.evaluate_localization(
        model.localize, [(images, empty), (images, y)], model.class_names
    )
    kept = [0, 1, 2, 4, 6, 7]
    assert answers["labels"].tolist() == rows[kept, 0, 0].astype(int).tolist()
    ious = d2l.box_iou(model.localize(images)["boxes"], rows[:, 0, 1:]).numpy().diagonal()
    assert metrics["mean_iou"] == pytest.approx(ious[kept].mean(), rel=1e-5)


@pytest.mark.long  # the script does the same
def test_learns_saves_and_exports(model, tmp_path):
    images, rows = objects()
    model.fit(images, rows, epochs=60, verbose=0)
    found = model.evaluate(images, rows, verbose=0, return_dict=True)
    assert found["localized"] == 1 and found["mean_iou"] > 0.7
    labels = {"boxes": rows[..., 1:], "classes": rows[..., 0].astype(int)}
    metrics, answers = d2l.evaluate_localization(
        model.localize, [(images[:5], {k: v[:5] for k, v in labels.items()}),
                         (images[5:], {k: v[5:] for k, v in labels.items()})], model.class_names
    )  # fmt: skip
    for name in ("accuracy", "mean_iou", "iou_50", "localized"):
        assert metrics[name] == pytest.approx(found[name], rel=1e-4), name
    assert answers["ious"].shape == (8,) and answers["labels"].tolist() == rows[:, 0, 0].tolist()

    large = tf.image.resize(images[:2], (32, 72)).numpy()
    wanted = model.localize(large)
    np.testing.assert_allclose(wanted["boxes_px"], wanted["boxes"] * [72, 32, 72, 32], rtol=1e-5)
    model.save(tmp_path / "model.keras")
    d2l.export.save(model, tmp_path / "saved_model")
    for path in ("model.keras", "saved_model"):
        loaded = d2l.export.load(tmp_path / path)
        assert loaded.task == "localization" and loaded.class_names == ("grey", "blue")
        answer = loaded.localize(large)
        for name in ("probabilities", "boxes", "boxes_px"):
            np.testing.assert_allclose(answer[name], wanted[name], atol=1e-3, err_msg=name)
    assert d2l.load_model(tmp_path / "model.keras").box_weight == 5
    heat = d2l.grad_cam(model, images[0], "grey")
    assert heat.shape == (4, 6)


def test_a_box_for_each_class():
    """The true class's learns, the most probable one's is the answer, in one pass too."""
    model = d2l.Localizer(small_backbone(8), 2, image_size=SIZE, box_per_class=True)
    model.compile("sgd", jit_compile=False)
    model.get_layer("box").bias.assign([0.0, 0.1, 0.5, 0.6, 0.3, 0.2, 0.9, 0.8])
    images, rows = objects()
    outputs = {name: value.numpy() for name, value in model(images).items()}
    boxes, entries = outputs["boxes"].reshape(8, 2, 4), np.arange(8)
    labels, truth = rows[:, 0, 0].astype(int), rows[:, 0, 1:]
    entropy = keras.losses.sparse_categorical_crossentropy(labels, outputs["logits"], True)
    squares = np.mean((boxes[entries, labels] - truth) ** 2, axis=1)
    found = model.evaluate(images, rows, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(np.mean(entropy + 20 * squares), rel=1e-5)
    wanted = boxes[entries, outputs["logits"].argmax(axis=1)]
    np.testing.assert_allclose(model.localize(images)["boxes"], wanted, atol=1e-5)
    alone = d2l.slide(model, images[0], scales=(1,), score_threshold=0)
    np.testing.assert_allclose(alone["boxes"], wanted[:1], atol=1e-4)
    assert model.get_config()["box_per_class"] is True


@pytest.mark.quick
def test_a_detector_can_be_made_after_one(model):
    """Keras changes the bases of the classes of functional models."""
    assert d2l.TinySSD(1).built


@pytest.mark.quick
def test_the_largest_object_is_kept():
    boxes = [[[0, 0, 0.2, 0.2], [0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1]], [], [[0.5, 0.5, 1, 1]]]
    split = d2l.Split(
        np.zeros((3, 8, 8, 3), np.uint8),
        {"boxes": boxes, "classes": [[0, 1, 0], [], [1]],
         "ignore": [[False, False, True], [], [False]]},
        ["a", "b", "c"],
    )  # fmt: skip
    data = d2l.keep_largest_object(d2l.DataSet(("x", "y"), split, split, "here"))
    assert data.train.names == ["a", "c"]
    np.testing.assert_allclose(data.train.targets["boxes"], [boxes[0][1:2], boxes[2]])
    assert np.concatenate(data.val.targets["classes"]).tolist() == [1, 1]
    assert data.notes == [
        "2 image(s) with several objects, of which the largest is kept", "2 image(s) with no object"
    ]  # fmt: skip
    labels = d2l.load("generated", "classification", num_train=2, num_val=2, image_size=(32, 32))
    with pytest.raises(d2l.InputError, match="for detection, not classification"):
        d2l.keep_largest_object(labels)


@pytest.mark.quick
def test_no_drift_of_the_channels_leaves_one_box_for_all():
    model = d2l.Localizer(small_backbone(8), 2, image_size=SIZE)
    images = np.random.RandomState(0).randint(0, 256, (4, *SIZE, 3)).astype(np.float32)
    model.get_layer("box_conv").bias.assign(np.full(64, -100.0))
    assert model(images)["boxes"].numpy().std(0).min() > 1e-5
