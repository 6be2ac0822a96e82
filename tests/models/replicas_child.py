"""What detectors compute on two logical CPU devices, beside one; run by test_detector.py.

    python replicas_child.py NAME…    # toy, ssd, mask_rcnn, detr

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
from scenes import bright_rectangles
from toy_detector import GridDetector

from kerascv_d2l import (
    DETR,
    MaskRCNN,
    SSDLoss,
    TinySSD,
    evaluate_detections,
    synchronize_batch_norm,
)

BATCH = 8


def make(name):
    keras.utils.set_random_seed(3)
    if name == "mask_rcnn":
        # All samples are taken, so that chance has no part in it.
        rpn = {"train_before_nms": 20, "train_proposals": 20, "samples": 3000}
        everything = {"positive_fraction": 1.0}
        model = MaskRCNN(
            2, channels=8, head_width=16, mask_channels=8,
            anchor_sizes=[[8], [16], [24], [32], [48]],
            rpn=rpn | everything, head={"samples": 60} | everything,
        )  # fmt: skip
        model.compile(keras.optimizers.SGD(1e-3))
        synchronize_batch_norm(model)
        return model
    if name == "detr":
        model = DETR(
            2, "mobilenet_0.25", num_queries=9, width=16, heads=2, encoder_layers=1,
            decoder_layers=2, feedforward=16, denoising=2,
        )  # fmt: skip
        # Batch norms of small maps make gradients so large that rounding shows after larger steps.
        model.compile(keras.optimizers.SGD(1e-6))
        synchronize_batch_norm(model)
        return model
    model = TinySSD(2) if name == "ssd" else GridDetector(2)
    loss = SSDLoss(normalizer="positives", negatives_per_positive=3.0) if name == "ssd" else None
    model.compile(keras.optimizers.SGD(1e-3 if name == "ssd" else 0.01), loss, jit_compile=False)
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
    batches = tf.data.Dataset.from_tensor_slices((images, y)).batch(BATCH)
    history = model.fit(batches.repeat(), steps_per_epoch=1, epochs=2, verbose=0).history
    result = {f"{k} {i}": v for k, values in history.items() for i, v in enumerate(values)}
    if isinstance(model, GridDetector):  # tracing an SSD takes long
        metrics = evaluate_detections(model, batches)
        metrics.pop("ap_50_by_class")
        result |= {f"val {k}": float(v) for k, v in metrics.items()}
    return result | {f"w{i}": float(np.abs(w).mean()) for i, w in enumerate(model.get_weights())}


def main():
    devices = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        devices[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    result = {}
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
