"""What detectors compute on two logical CPU devices, beside one; run by test_detector.py.

    python replicas_child.py NAME…    # a name of test_detector.py

Prints one line of JSON. Devices are set before TensorFlow starts, so it needs a process of
its own.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))
from pytest import MonkeyPatch
from scenes import bright_rectangles
from small_networks import add_tiny, small_backbone
from toy_detector import GridDetector

from kerascv_d2l import (
    DETR,
    FCOS,
    YOLO1,
    FasterRCNN,
    FastRCNN,
    Localizer,
    MaskRCNN,
    RetinaNet,
    SSDLoss,
    TinySSD,
    evaluate_detections,
    sample_balanced,
    synchronize_batch_norm,
)

BATCH = 8
UNEVEN = 7  # images in batches of 4, so that two devices have 2 and 1 of the last


def make(name):
    keras.utils.set_random_seed(3)
    if name.endswith("rcnn"):
        return make_rcnn(name)
    if name == "detr":
        model = DETR(
            2, "mobilenet_0.25", num_queries=9, width=16, heads=2, encoder_layers=1,
            decoder_layers=2, feedforward=16, denoising=2,
        )  # fmt: skip
        # Batch norms of small maps make gradients so large that rounding shows after larger steps.
        model.compile(keras.optimizers.SGD(1e-6))
        synchronize_batch_norm(model)
        return model
    if name in ("fcos", "retinanet", "yolo1", "localizer"):
        model = make_small(name)
        model.compile(keras.optimizers.SGD(1e-4))
        synchronize_batch_norm(model)
        return model
    model = TinySSD(2) if name == "ssd" else GridDetector(2)
    loss = SSDLoss(normalizer="positives", negatives_per_positive=3.0) if name == "ssd" else None
    model.compile(keras.optimizers.SGD(1e-3 if name == "ssd" else 0.01), loss, jit_compile=False)
    synchronize_batch_norm(model)
    return model


def make_small(name):
    if name == "localizer":
        return Localizer(small_backbone(8), 2, image_size=(64, 64))
    if name == "yolo1":
        return YOLO1(2, "tiny", image_size=(64, 64))
    options = {"channels": 8, "depth": 1}
    if name == "fcos":
        return FCOS(2, backbone="tiny", levels=3, **options)
    sizes = [[8], [16], [24], [32], [48]]
    return RetinaNet(2, backbone="tiny", anchor_sizes=sizes, **options)


def make_rcnn(name):
    """One that draws far fewer anchors and proposals than there are to draw from."""
    options = {"channels": 8, "head_width": 16, "head": {"samples": 8}}
    if name != "fast_rcnn":
        options["anchor_sizes"] = [[8], [16], [24], [32], [48]]
        options["rpn"] = {"train_before_nms": 20, "train_proposals": 20, "samples": 32}
    if name == "mask_rcnn":
        model = MaskRCNN(2, mask_channels=8, **options)
    else:
        model = {"fast_rcnn": FastRCNN, "faster_rcnn": FasterRCNN}[name](2, "tiny", **options)
        for i, weight in enumerate(model.trainable_weights):  # else regions look all alike
            weight.assign_add(0.1 * keras.random.normal(weight.shape, seed=i))
    model.compile(keras.optimizers.SGD(1e-3))
    synchronize_batch_norm(model)
    return model


def data():
    """Seven of ten objects in the second half of the batch, one of them ignored."""
    images, rows = bright_rectangles(BATCH, (64, 64))
    rows[:3] = -1
    rows[4:, 2] = rows[4:, 1]
    rows[4:, 2, 1:] *= 0.8
    y = {"boxes": rows[..., 1:], "classes": rows[..., 0].astype("int32")}
    y["ignore"] = np.zeros((BATCH, 3), bool)
    y["ignore"][5, 2] = True
    y["masks"] = np.zeros((BATCH, 3, 64, 64), "uint8")
    y["masks"][:, :, 10:30, ::3] = 1
    return images, y


def figures(model, images, y):
    """Losses of two steps, metrics of the model and sums of its weights."""
    if type(model) is FastRCNN:
        low = np.random.default_rng(0).uniform(0, 0.5, (BATCH, 40, 2))
        proposals = np.concatenate([low, low + 0.4], axis=-1).astype("float32")
        images = {"images": images, "proposals": proposals}
    if isinstance(model, Localizer):  # looks at the first object of each image
        y = {key: rows[:, 1:] for key, rows in y.items()}
    batches = tf.data.Dataset.from_tensor_slices((images, y)).batch(BATCH)
    history = model.fit(batches.repeat(), steps_per_epoch=1, epochs=2, verbose=0).history
    result = {f"{k} {i}": v for k, values in history.items() for i, v in enumerate(values)}
    if not isinstance(model, FastRCNN):  # and those made of it, which draw samples
        few = batches.unbatch().take(UNEVEN).batch(BATCH // 2)
        found = model.evaluate(few, return_dict=True, verbose=0)
        result |= {f"uneven {k}": v for k, v in found.items()}
    if isinstance(model, GridDetector):  # tracing an SSD takes long
        metrics = evaluate_detections(model, batches)
        metrics.pop("ap_50_by_class")
        result |= {f"val {k}": float(v) for k, v in metrics.items()}
    return result | {f"w{i}": float(np.abs(w).mean()) for i, w in enumerate(model.get_weights())}


def sampled(strategy):
    """Whether the devices draw different samples, and together those that one draws."""
    match = tf.where(tf.range(200) < 50, 0, -1)[tf.newaxis] * tf.ones([4, 1], tf.int32)
    one, _ = sample_balanced(match, 8, 0.5, (0, 7))
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: match[2 * context.replica_id_in_sync_group :][:2]
    )
    draw = tf.function(lambda part: sample_balanced(part, 8, 0.5, (0, 7))[0])
    found = tf.concat(strategy.experimental_local_results(strategy.run(draw, (parts,))), axis=0)
    return bool(tf.reduce_all(found == one)) and len(np.unique(found, axis=0)) == 4


def main():
    devices = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        devices[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    add_tiny(MonkeyPatch())
    result = {"sampled": sampled(strategy)}
    for name in sys.argv[1:]:
        one = figures(make(name), *data())
        with strategy.scope():
            model = make(name)
        result[name] = one, figures(model, *data())
    images, y = data()
    model = make("toy")
    whole = model.evaluate(images, y, batch_size=BATCH, verbose=0)
    halves = model.evaluate(images, y, batch_size=BATCH // 2, verbose=0)
    result["uneven"] = max(whole / halves, halves / whole)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
