"""Record torchvision's Mask R-CNN with drawn weights, step by step: faster_rcnn_recorded.npz.

    /usr/bin/python3 tests/models/record_faster_rcnn.py    # needs compiled torchvision; a minute

The weights are drawn by name, so that the tests can draw them again without torch; `shapes` has
all names. For each of CASES there are samples of the FPN's maps, of objectness and of offsets, all
proposals (without and with training's numbers), samples of pooled features, the head's logits and
samples of its offsets, the detections, some of the values of each of their masks, and the five
losses with samples so large that nothing is drawn at random. All but the masks is Faster R-CNN.
"""

import json
from pathlib import Path

import numpy as np
from record_resnet import draw, draw_state_dict, sample

RECORDED = Path(__file__).with_name("faster_rcnn_recorded.npz")
CASES = {"wide": (2, 128, 160), "high": (1, 192, 96)}  # images, height, width
NUM_CLASSES = 4
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def draw_weights(shapes):
    """Weights by name that keep features at a scale of about 1, and proposals near anchors."""
    tensors = draw_state_dict(shapes)
    for name, tensor in tensors.items():
        if ".bn3.weight" in name:
            tensor *= 0.3
        elif "bbox_pred" in name:
            tensor *= 0.2
        elif "cls_score" in name:
            tensor *= 0.4
    return tensors


def draw_pixels(case):
    """Pixels 0-255 `(batch, h, w, 3)`, uint8."""
    noise = draw(f"pixels {case}", (*CASES[case], 3))
    return np.clip(128 + 60 * noise, 0, 255).astype(np.uint8)


def draw_objects(case):
    """Boxes `(batch, 3, 4)` in pixels and classes `(batch, 3)` from 0 on."""
    batch, height, width = CASES[case]
    random = np.random.RandomState(height)
    low = random.uniform(0, 0.5, (batch, 3, 2)) * (width, height)
    high = low + random.uniform(0.1, 0.5, (batch, 3, 2)) * (width, height)
    return np.concatenate([low, high], 2).astype("f4"), random.randint(0, NUM_CLASSES, (batch, 3))


def draw_masks(case, boxes):
    """An ellipse in each box, with its upper left quarter missing: uint8 `(batch, 3, h, w)`."""
    _, height, width = CASES[case]
    x_min, y_min, x_max, y_max = np.moveaxis(boxes[..., None, None], 2, 0)  # (batch, 3, 1, 1) each
    y, x = np.mgrid[:height, :width] + 0.5
    u, v = (2 * x - x_min - x_max) / (x_max - x_min), (2 * y - y_min - y_max) / (y_max - y_min)
    return ((u**2 + v**2 < 1) & ((u > 0) | (v > 0))).astype("uint8")


def sample_masks(masks):
    """25 values of each of `(n, 28, 28)`: `(n, 25)`."""
    return np.asarray(masks)[:, 2::6, 2::6].reshape(len(masks), -1)


def main():
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
    from torchvision.models.detection.image_list import ImageList

    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = {name: torch.from_numpy(a) for name, a in draw_weights(shapes).items()}
    model.load_state_dict(weights, strict=False)
    found = {"shapes": np.array(json.dumps(shapes))}

    def keep(name, tensor, samples=True):
        array = tensor.detach().numpy()
        found[name] = sample(array) if samples else array

    for case in CASES:
        pixels = draw_pixels(case) / 255
        images = torch.from_numpy(((pixels - MEAN) / STD).astype("f4")).permute(0, 3, 1, 2)
        images = ImageList(images.contiguous(), [tuple(CASES[case][1:])] * len(images))
        model.eval()
        with torch.no_grad():
            maps = model.backbone(images.tensors)
            for i, tensor in enumerate(maps.values()):
                keep(f"{case}_map_{i}", tensor.permute(0, 2, 3, 1))
            objectness, offsets = model.rpn.head(list(maps.values()))
            keep(f"{case}_objectness", objectness[0].permute(0, 2, 3, 1))
            keep(f"{case}_offsets", offsets[0].permute(0, 2, 3, 1))
            proposals, _ = model.rpn(images, maps)
            heads = model.roi_heads
            pooled = heads.box_roi_pool(maps, proposals, images.image_sizes)
            keep(f"{case}_pooled", pooled.permute(0, 2, 3, 1))
            logits, regression = heads.box_predictor(heads.box_head(pooled))
            keep(f"{case}_logits", logits, samples=False)
            keep(f"{case}_regression", regression)
            detections, _ = heads(maps, proposals, images.image_sizes)
        for i, (boxes, detected) in enumerate(zip(proposals, detections, strict=True)):
            keep(f"{case}_proposals_{i}", boxes, samples=False)
            masks = sample_masks(detected.pop("masks")[:, 0].numpy())
            found[f"{case}_masks_{i}"] = masks.astype("float32")
            for name, tensor in detected.items():
                keep(f"{case}_{name}_{i}", tensor, samples=False)

        model.train()
        model.backbone.eval()
        boxes, classes = draw_objects(case)
        targets = [
            {"boxes": torch.from_numpy(b), "labels": torch.from_numpy(c + 1), "masks": m}
            for b, c, m in zip(
                boxes, classes, torch.from_numpy(draw_masks(case, boxes)), strict=True
            )
        ]
        for part in (model.rpn, model.roi_heads):
            part.fg_bg_sampler = BalancedPositiveNegativeSampler(10**6, 1.0)
        with torch.no_grad():
            proposals, losses = model.rpn(images, maps, targets)
            losses |= model.roi_heads(maps, proposals, images.image_sizes, targets)[1]
        found[f"{case}_losses"] = np.array([losses[name].item() for name in LOSSES])
        print(case, found[f"{case}_losses"], [len(p) for p in proposals], found[f"{case}_scores_0"])
    np.savez_compressed(RECORDED, **found)
    print(RECORDED, RECORDED.stat().st_size)


if __name__ == "__main__":
    main()
