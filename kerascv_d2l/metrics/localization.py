"""Metrics of localisation: the class and the box of the one object of each image."""

import numpy as np

from kerascv_d2l.metrics.classification import classification_metrics
from kerascv_d2l.ops.boxes import iou_of_corners

FOUND_IOU = 0.5  # from which a box counts as found


def evaluate_localization(localize, batches, class_names):
    """Measure a localizer on a data set.

    Args:
        localize: function of images, as `Localizer.localize`.
        batches: finite iterable of `(images, labels)`, labels a dict of `boxes` float
            `(batch, m, 4)`, `classes` int `(batch, m)` and, optional, `ignore` bool `(batch, m)`,
            of which the first objects count. Images without one, or whose first is ignored, are
            left out.
        class_names: sequence of str.

    Returns:
        Tuple of metrics and answers. Metrics: a dict of those of `classification_metrics`, but
        that the cross-entropy, a part of a localizer's loss, is `loss_classes`; `mean_iou`;
        `iou_50`, the share of boxes with an IoU of at least 0.5; and `localized`, the share with
        that and the right class. Answers: dict of `probabilities` float32 `(n, classes)`, `boxes`
        float32 `(n, 4)`, `ious` `(n,)`, and the true `labels` int `(n,)`.

    Raises:
        InputError: if there is no image with an object.

    Source:
        Sermanet et al. 2013, "OverFeat", section 4.
    """
    found = {"probabilities": [], "boxes": [], "labels": [], "truth": []}
    for images, targets in batches:
        targets = {name: np.asarray(values) for name, values in targets.items()}
        if not targets["classes"].shape[1]:
            continue
        answer = localize(images)
        rows = {
            "probabilities": answer["probabilities"],
            "boxes": answer["boxes"],
            "labels": targets["classes"][:, 0],
            "truth": targets["boxes"][:, 0],
        }
        counted = rows["labels"] >= 0
        if "ignore" in targets:
            counted &= ~targets["ignore"][:, 0]
        for name, values in rows.items():
            found[name].append(np.asarray(values)[counted])
    answers = {name: np.concatenate(values) for name, values in found.items() if values}
    labels, probabilities = answers.get("labels", np.zeros(0)), answers.get("probabilities", ())
    metrics = classification_metrics(probabilities, labels, class_names)
    ious = np.asarray(iou_of_corners(answers["boxes"].T, answers.pop("truth").T))
    right = probabilities.argmax(axis=1) == labels
    metrics["loss_classes"] = metrics.pop("loss")
    metrics |= {
        "mean_iou": float(ious.mean()),
        "iou_50": float((ious >= FOUND_IOU).mean()),
        "localized": float((right & (ious >= FOUND_IOU)).mean()),
    }
    return metrics, answers | {"ious": ious}
