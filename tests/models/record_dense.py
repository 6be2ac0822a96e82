"""Record torchvision's RetinaNet and FCOS with drawn weights: dense_recorded.npz.

    /usr/bin/python3 tests/models/record_dense.py    # needs compiled torchvision; a minute

As record_faster_rcnn.py, with its images, objects and weights by name. For each model and each of
CASES there are samples of the head's outputs, the detections and the losses.
"""

import json
from pathlib import Path

import numpy as np
from record_faster_rcnn import CASES, MEAN, NUM_CLASSES, STD, draw_objects, draw_pixels
from record_resnet import draw_state_dict, sample

RECORDED = Path(__file__).with_name("dense_recorded.npz")
OUTPUTS = {
    "retinanet": {"cls_logits": "logits", "bbox_regression": "offsets"},
    "fcos": {"cls_logits": "logits", "bbox_regression": "distances", "bbox_ctrness": "centerness"},
}
LOSSES = ("classification", "bbox_regression", "bbox_ctrness")


def draw_weights(shapes):
    """Weights by name that keep features at a scale of about 1, and boxes near their places."""
    tensors = draw_state_dict(shapes)
    for name, tensor in tensors.items():
        if ".bn3.weight" in name:
            tensor *= 0.3
        elif "bbox_reg" in name:
            tensor *= 0.2
            if "head.regression_head.bbox_reg.bias" in name and len(tensor) == 4:
                tensor += 2.0  # FCOS: no distance is negative, and most are not 0
        elif name.endswith("cls_logits.weight") and len(tensor) > NUM_CLASSES:
            tensor *= 0.1  # RetinaNet has no norm in its towers: all scores would be 1
        elif name.endswith("cls_logits.bias"):
            tensor -= 2.0
    return tensors


def main():
    import torch
    from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn

    found = {}
    for kind, build in (("retinanet", retinanet_resnet50_fpn), ("fcos", fcos_resnet50_fpn)):
        model = build(weights=None, weights_backbone=None, num_classes=NUM_CLASSES)
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        weights = {name: torch.from_numpy(a) for name, a in draw_weights(shapes).items()}
        model.load_state_dict(weights, strict=False)
        found[f"{kind}_shapes"] = np.array(json.dumps(shapes))
        del model.transform  # a module, which nothing else may take the place of
        model.transform = Ready()
        for case in CASES:
            found |= record(model, f"{kind}_{case}", kind, case)
    np.savez_compressed(RECORDED, **found)
    print(RECORDED, RECORDED.stat().st_size)


def record(model, prefix, kind, case):
    """Numbers of one model on the images of one case."""
    import torch

    pixels = draw_pixels(case) / 255
    images = torch.from_numpy(((pixels - MEAN) / STD).astype("f4")).permute(0, 3, 1, 2)
    images = list(images.contiguous())
    found = {}
    model.eval()
    with torch.no_grad():
        maps = list(model.backbone(torch.stack(images)).values())
        outputs = model.head(maps)
        for name, ours in OUTPUTS[kind].items():
            found[f"{prefix}_{ours}"] = sample(outputs[name].detach().numpy())
        for i, detected in enumerate(model(images)):
            for name, tensor in detected.items():
                found[f"{prefix}_{name}_{i}"] = tensor.numpy()[:100]
    boxes, classes = draw_objects(case)
    targets = [
        {"boxes": torch.from_numpy(b), "labels": torch.from_numpy(c)}
        for b, c in zip(boxes, classes, strict=True)
    ]
    model.train()
    model.backbone.eval()
    with torch.no_grad():
        losses = model(images, targets)
    found[f"{prefix}_losses"] = np.array([losses[n].item() for n in LOSSES if n in losses])
    counts = [len(found[f"{prefix}_scores_{i}"]) for i in range(len(images))]
    print(prefix, found[f"{prefix}_losses"], counts, found[f"{prefix}_scores_0"][:5])
    return found


class Ready:
    """In place of torchvision's transform: images come normalised and at their size."""

    def __call__(self, images, targets=None):
        import torch
        from torchvision.models.detection.image_list import ImageList

        sizes = [tuple(image.shape[-2:]) for image in images]
        return ImageList(torch.stack(images), sizes), targets

    def postprocess(self, result, image_shapes, original_image_sizes):
        return result


if __name__ == "__main__":
    main()
