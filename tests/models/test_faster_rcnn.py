"""Faster and Mask R-CNN against torchvision's recorded numbers (record_faster_rcnn.py), and their
own ways."""

import json

import children
import keras
import numpy as np
import pytest
import record_faster_rcnn as given
import safetensors.numpy
import tensorflow as tf
from record_resnet import sample
from small_networks import add_tiny

from kerascv_d2l import FasterRCNN, FastRCNN, InputError, MaskRCNN, load_model, paste_masks
from kerascv_d2l.export import load, save, save_lite
from kerascv_d2l.layers.region_decoder import RegionDecoder
from kerascv_d2l.models.common import dtype_scope
from kerascv_d2l.models.mask_rcnn import MaskHead
from kerascv_d2l.models.rcnn_weights import load_torchvision

EVERYTHING = {"samples": 2000, "positive_fraction": 1.0}


@pytest.fixture(scope="module")
def recorded():
    return np.load(given.RECORDED)


@pytest.fixture(scope="module")
def network(recorded):
    """Mask R-CNN, which is Faster R-CNN and more, as torchvision's, with the drawn weights."""
    model = MaskRCNN(
        given.NUM_CLASSES,
        "resnet50_v1.5",
        freeze_norm=True,
        rpn=EVERYTHING | {"samples": 6000},
        head=EVERYTHING | {"samples": 3000},
    )
    load_torchvision(model, given.draw_weights(shapes(recorded)))
    return model


def shapes(recorded):
    return {name: tuple(shape) for name, shape in json.loads(str(recorded["shapes"])).items()}


def close(found, expected, message=""):
    """Equal to 1e-4, relative to the largest value."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale, err_msg=message)


def same_rows(found, expected, message):
    """Equal to 1e-4 of the largest value, in any order: equal scores may swap by rounding."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    distance = np.abs(found[:, None] - expected).max(axis=-1)  # (rows, rows)
    for axis in (0, 1):
        nearest = distance.min(axis=axis)
        np.testing.assert_array_less(nearest, 1e-4 * np.abs(expected).max(), message)


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
        same_rows(outputs["proposals"][i, : len(expected)], expected, f"proposals {i}")

    # torchvision's own, whose order is that of the recorded logits.
    most = max(map(len, proposals))
    regions = np.stack([np.pad(p, [[0, most - len(p)], [0, 0]]) for p in proposals])
    valid = np.arange(most) < np.array([[len(p)] for p in proposals])
    logits, offsets = network.predict_regions(outputs["maps"], regions)
    close(logits.numpy()[valid], recorded[f"{case}_logits"], "logits")
    offsets = offsets.numpy()[valid].reshape(valid.sum(), -1)
    close(sample(offsets), recorded[f"{case}_regression"], "offsets of the head")

    detected = network.decode(outputs)
    for i in range(batch):
        count = int(detected["num_valid"][i])
        assert count == len(recorded[f"{case}_scores_{i}"]) > 50
        boxes = detected["boxes"][i, :count] * [width, height, width, height]
        scores, classes = detected["scores"][i, :count], detected["classes"][i, :count] + 1
        # A proposal of a pixel's width that moves by a thousandth of it reads other features.
        np.testing.assert_allclose(scores, recorded[f"{case}_scores_{i}"], atol=5e-4)
        masks = given.sample_masks(detected["masks"][i, :count])
        expected = [recorded[f"{case}_{k}_{i}"] for k in ("boxes", "scores", "labels", "masks")]
        # Scores, classes and masks weigh enough not to be taken for others.
        rows = [
            np.concatenate([b, 100 * np.stack([s, c], axis=1), 50 * m], axis=1)
            for b, s, c, m in ((boxes, scores, classes, masks), expected)
        ]
        same_rows(*rows, f"detections {i}")


@pytest.mark.parametrize("case", given.CASES)
def test_losses_are_those_of_torchvision(network, recorded, case):
    images = given.draw_pixels(case)
    boxes, classes = given.draw_objects(case)
    _, height, width = given.CASES[case]
    padding = [[0, 0], [0, 2], [0, 0]]
    y = {
        "boxes": np.pad(boxes / np.float32([width, height, width, height]), padding),
        "classes": np.pad(classes, padding[:2], constant_values=-1),
        "masks": np.pad(given.draw_masks(case, boxes), [*padding, [0, 0]]),
    }
    outputs = network(images, training=True)
    total = network.compute_loss(images, y, outputs)
    expected = recorded[f"{case}_losses"]
    close(total, expected.sum())
    found = [network.parts[name].result().numpy() for name in network.parts]
    for metric in network.parts.values():
        metric.reset_state()
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_weights_that_do_not_fit_are_named(network, recorded):
    before = network.get_weights()[0].copy()
    wrong = {name: np.zeros(shape, np.float32) for name, shape in shapes(recorded).items()}
    wrong["rpn.head.conv.weight"] = wrong.pop("rpn.head.conv.0.0.weight")  # an old name
    wrong["roi_heads.box_predictor.cls_score.bias"] = np.zeros(91)
    del wrong["backbone.fpn.layer_blocks.3.0.bias"]
    message = (
        r"1 missing: .*layer_blocks\.3\.0\.bias.*1 of another shape: .*cls_score\.bias \(91,\)"
    )
    with pytest.raises(InputError, match=message):
        load_torchvision(network, wrong)
    np.testing.assert_array_equal(network.get_weights()[0], before)


def test_weights_of_a_whole_detector(network, recorded, tmp_path, monkeypatch):
    """All but the predictors are kept where the classes are others."""
    path = tmp_path / "models" / "maskrcnn_resnet50_fpn_coco.safetensors"
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"no .*maskrcnn_resnet50_fpn_coco\.safetensors.*convert"):
        MaskRCNN(2, "resnet50_v1.5", "coco")
    path.parent.mkdir()
    safetensors.numpy.save_file(given.draw_weights(shapes(recorded)), path)
    assert MaskRCNN.takes_whole(path) and not MaskRCNN.takes_whole("imagenet")
    model = MaskRCNN(["other", "classes"], "resnet50_v1.5", "coco")
    assert model.freeze_norm
    for name in ("features", "rpn", "box_head", "mask_head"):
        for mine, given_ in zip(
            getattr(model, name).weights, getattr(network, name).weights, strict=True
        ):
            new = any(part in mine.path for part in ("cls_score", "bbox_pred", "fcn_logits"))
            if name in ("features", "rpn") or not new:
                np.testing.assert_array_equal(mine, given_, err_msg=mine.path)
            else:
                assert np.abs(mine.numpy()).max() < 0.2  # as it was made


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        yield


def small(cls=FasterRCNN, **options):
    """A detector that is made and trained in seconds."""
    sizes = tuple((s,) for s in (8, 16, 32, 64, 128))
    rpn = {"train_before_nms": 100, "train_proposals": 60, "test_proposals": 50, "samples": 64}
    if cls is MaskRCNN:
        options["mask_channels"] = 16
    return cls(
        ["a", "b"], "tiny", anchor_sizes=sizes, channels=16, head_width=32,
        canonical_size=64, rpn=rpn, **{"head": {"samples": 32}, **options},
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


def with_masks(labels, side=96):
    """Labels as a dict, with the upper half of each box as its mask."""
    boxes, classes = labels[..., 1:], labels[..., 0]
    x_min, y_min, x_max, y_max = np.moveaxis(boxes[..., None, None], 2, 0) * side
    y, x = np.mgrid[:side, :side] + 0.5
    masks = (x > x_min) & (x < x_max) & (y > y_min) & (y < (y_min + y_max) / 2)
    return {"boxes": boxes, "classes": classes, "masks": masks.astype(np.uint8)}


# Without this package.
LONELY = """
import sys, numpy as np, tensorflow as tf
model = tf.saved_model.load("saved")
found = model.detect(tf.constant(np.load("images.npy")))
assert not [name for name in sys.modules if name.startswith("kerascv_d2l")]
np.savez("found.npz", **{name: value.numpy() for name, value in found.items()})
"""


def test_fit_learns_and_a_saved_model_is_the_same(tmp_path):
    keras.utils.set_random_seed(0)
    decoder = RegionDecoder(score_threshold=0.01, max_detections=30)
    model = small(MaskRCNN, image_size=(96, 96), decoder=decoder, freeze_norm=True)
    images, labels = squares()
    with pytest.raises(InputError, match="masks are missing"):
        model.compute_loss(images, labels, model(images, training=True))
    labels = with_masks(labels)
    small_masks = labels | {"masks": labels["masks"][:, :, ::2]}
    with pytest.raises(InputError, match=r"masks are of \(48, 96\) pixels and images of \(96"):
        model.compute_loss(images, small_masks, model(images, training=True))
    with pytest.raises(InputError, match="jit_compile=True"):
        model.compile(jit_compile=True)
    model.compile(keras.optimizers.Adam(1.5e-3))
    data = tf.data.Dataset.range(20).map(
        lambda i: (
            images,
            {name: tf.constant(rows)[:, : 1 + i % 2] for name, rows in labels.items()},
        )
    )
    traces, compute_loss = [], model.compute_loss
    model.compute_loss = lambda *args, **kwargs: traces.append(1) or compute_loss(*args, **kwargs)
    history = model.fit(data, steps_per_epoch=10, epochs=2, verbose=0).history
    assert len(traces) <= 2  # whatever the number of objects and of proposals
    del model.compute_loss
    names = ("objectness", "rpn_boxes", "classes", "boxes", "masks")
    assert {"loss", *(f"loss_{name}" for name in names)} <= set(history)
    assert history["loss"][1] < 0.8 * history["loss"][0]
    parts = [history[name][1] for name in history if name.startswith("loss_")]
    np.testing.assert_allclose(sum(parts), history["loss"][1], rtol=1e-3)
    # Images of another size than the network's, which masks come back in.
    images = np.kron(images, np.ones((1, 2, 1, 1))).astype(np.uint8)
    found = model.detect(images)
    assert found["boxes"].shape == (4, 30, 4) and found["num_valid"].numpy().min() > 0
    resized = model._resized(images)
    decoded = model.decode(model(resized))
    for i in range(4):
        boxes = found["boxes"][i] * [96, 192, 96, 192]
        pasted = paste_masks(decoded["masks"][i], boxes, (192, 96), 0.5)
        np.testing.assert_array_equal(found["masks"][i], pasted)
    save(model, tmp_path / "saved")
    assert found["masks"].numpy().any()
    served = load(tmp_path / "saved").detect(images)
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "lonely.py").write_text(LONELY)
    done = children.run(tmp_path / "lonely.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    lonely = np.load(tmp_path / "found.npz")
    save_lite(model, tmp_path / "model.tflite")
    lite = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    one = {k: v[:1] for k, v in found.items()}
    for name, value in lite.get_signature_runner()(images=resized[:1]).items():
        if name in one and name != "masks":
            np.testing.assert_allclose(value, one[name], atol=1e-5, err_msg=name)
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    assert again.rpn_settings == model.rpn_settings and again.class_names == ("a", "b")
    for name, value in again.detect(images).items():
        np.testing.assert_allclose(value, found[name], atol=1e-5, err_msg=name)
        for other in (served, lonely):
            np.testing.assert_allclose(other[name], found[name], atol=1e-5, err_msg=name)


def test_a_mask_is_that_of_its_class():
    """Computed alone it is the map that all of them together would have there."""
    head = MaskHead(3, channels=8)
    head.build((None, 4, 5, 6))
    head.mask_fcn_logits.bias.assign([5.0, 0.1, -0.2, 0.3])  # the first one is background's
    pooled, classes = tf.random.stateless_normal([4, 4, 5, 6], (0, 1)), [2, 0, 1, 2]
    every = head(pooled).numpy()
    expected = [maps[..., k + 1] for maps, k in zip(every, classes, strict=True)]
    np.testing.assert_allclose(head.maps_of(pooled, tf.constant(classes)), expected, atol=1e-6)
    # And so is its gradient, for which it is computed anew.
    inputs = [pooled, *(v.value for v in head.trainable_variables)]
    weights = tf.random.stateless_normal([4, 8, 10], (0, 2))
    found = []
    for maps in (
        lambda: head.maps_of(pooled, tf.constant(classes)),
        lambda: tf.gather(head(pooled), tf.constant(classes) + 1, axis=-1, batch_dims=1),
    ):
        with tf.GradientTape() as tape:
            tape.watch(pooled)
            loss = tf.reduce_sum(tf.square(maps()) * weights)
        found.append([tf.convert_to_tensor(g) for g in tape.gradient(loss, inputs)])
    for one, other in zip(*found, strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_mixed_precision_keeps_coordinates():
    images, labels = squares(2)
    labels = with_masks(labels)
    plain = small(MaskRCNN)
    with dtype_scope("mixed_bfloat16"):
        mixed = small(MaskRCNN)
    mixed.set_weights(plain.get_weights())
    losses = []
    for model in (plain, mixed):
        outputs = model(images, training=False)
        assert outputs["proposals"].dtype == outputs["objectness"].dtype == tf.float32
        losses.append(float(model.compute_loss(images, labels, outputs)))
    assert outputs["maps"][0].dtype == tf.bfloat16
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert mixed.detect(images)["boxes"].dtype == tf.float32
    assert mixed.decoder.dtype_policy.name == "float32"


def test_mixed_precision_does_not_round_proposals():
    proposals = np.float32([[[0.1237, 0.2519, 0.7691, 0.9003]]])
    images = np.zeros((1, 96, 300, 3))
    with dtype_scope("mixed_bfloat16"):
        model = FastRCNN(2, "tiny", channels=8, head_width=8)
    for kind in (np.uint8, np.float32, np.float64):
        outputs = model({"images": images.astype(kind), "proposals": proposals}, training=False)
        np.testing.assert_array_equal(outputs["proposals"], proposals * np.float32([300, 96] * 2))
        assert outputs["maps"][0].dtype == tf.bfloat16


def test_anchors_are_equally_many_on_all_levels():
    for sizes, message in (
        ([[8], [16], [32], [64]], r"are for 4 levels, and the pyramid has 5"),
        ([[8], [16], [32, 48], [64], [128]], r"has \[1, 1, 2, 1, 1\] sizes for its levels"),
    ):
        with pytest.raises(InputError, match=f"anchor_sizes=.* {message}"):
            FasterRCNN(2, "tiny", channels=8, head_width=8, anchor_sizes=sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": {"match": 5.0}}, "match"),
        ({"head": {"sample": 8}}, r"head has sample; expected some of match, samples"),
        ({"rpn": {"samples": 0}}, "samples=0"),
        ({"rpn": {"high": 0.3, "low": 0.7}}, "low=0.7 is above high=0.3"),
        ({"canonical_size": -1}, "canonical_size=-1"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        FasterRCNN(2, "resnet18", **options)


@pytest.mark.long
def test_fast_rcnn_looks_at_given_proposals():
    images, labels = squares(2)
    model = FastRCNN(2, "resnet18", channels=16, head_width=32, image_size=(64, 96))
    model.decoder = RegionDecoder(score_threshold=0.0)
    near = labels[:, :1, 1:] + np.float32([0.03, -0.02, 0.04, 0])
    x = {"images": images, "proposals": np.concatenate([near, np.zeros((2, 3, 4), "f4")], axis=1)}
    model.compile(keras.optimizers.Adam(1e-3))
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(2).repeat()
    history = model.fit(data, steps_per_epoch=6, epochs=2, verbose=0).history
    assert {"loss_classes", "loss_boxes"} < set(history) and history["loss"][1] < history["loss"][0]
    found = model.detect(images, x["proposals"])
    # Each proposal gives a box of every class; padding gives none.
    assert found["num_valid"].numpy().tolist() == [2, 2]
    assert np.abs(found["boxes"][:, 0] - labels[:, 0, 1:]).max() < 0.3
    behind = model.detect(images, x["proposals"][:, ::-1])  # padding before the proposal
    np.testing.assert_allclose(behind["scores"], found["scores"], atol=1e-5)
    ((function, signature),) = model.endpoints().values()
    assert [spec.name for spec in signature] == ["images", "proposals"]
    for name, value in function(tf.constant(images), x["proposals"]).items():
        if name in found:
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


def test_evaluation_leaves_the_training_alone():
    """Its loss of a batch is the same each time, and the samples after it in a training, too."""
    images, labels = squares(2)
    y = with_masks(labels)
    model = small(MaskRCNN, head={"samples": 8})
    model.compile(keras.optimizers.SGD())
    before = [weight.numpy() for weight in model.weights]
    losses = []
    for _ in range(2):
        outputs = model(images, training=False)
        losses.append(float(model.compute_loss(images, y, outputs, training=False)))
        model.reset_metrics()
        losses.append(float(model.test_step((images, y))["loss"]))
        model.reset_metrics()
    assert losses == [losses[0]] * 4
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    model.compute_loss(images, y, outputs, training=True)
    assert int(model.seeds.state[1]) > 0


def test_images_without_objects():
    images, labels = squares(2)
    labels[:] = -1
    model = small(MaskRCNN)
    y = with_masks(labels)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = model.compute_loss(images, y, outputs)
    assert np.isfinite(loss) and loss > 0
    for gradient in tape.gradient(loss, model.trainable_variables):
        assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient)).all()
    empty = {"boxes": np.zeros((2, 0, 4)), "classes": np.zeros((2, 0))}
    empty["masks"] = np.zeros((2, 0, 96, 96), np.uint8)
    assert np.isfinite(model.compute_loss(images, empty, outputs))
    model.decoder = RegionDecoder(score_threshold=1.0)
    assert not np.asarray(model.detect(images)["num_valid"]).any()


def test_masks_are_learned_of_objects_that_count():
    """Masks of ignored objects and of padding rows are not looked at."""
    images, labels = squares(2)
    labels[:, 1] = labels[:, 0]  # an ignored object in the same place
    y = with_masks(labels) | {"ignore": np.array([[False, True]] * 2)}
    model = small(MaskRCNN)
    outputs = model(images, training=True)
    losses = []
    for row, value in ((0, None), (1, 1), (0, 1)):
        if value is not None:
            y["masks"][:, row] = value
        model.seeds.state.assign([0, 0])
        model.compute_loss(images, y, outputs)
        losses.append(float(model.parts["masks"].result()))
        model.parts["masks"].reset_state()
    assert losses[0] == losses[1] != losses[2]
