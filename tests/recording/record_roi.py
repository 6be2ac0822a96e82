"""Records what torchvision's RoI operators make of the maps and boxes of roi_inputs.py.

    /usr/bin/python3 tests/recording/record_roi.py    # needs compiled torchvision; writes roi.npz

`values` and `gradients` hold, one case after the other, the outputs (n, rows, columns, c) and the
gradients of the features (batch, h, w, c), flat, channels last. `levels_…` is MultiScaleRoIAlign on
a pyramid, `pasted` and `pasted_truncated` are masks by grid_sample at the pixels' centres
(Detectron2's definition) and by torchvision's `paste_masks_in_image`.
"""

from pathlib import Path

import numpy as np
import roi_inputs as given
import torch
from torchvision import ops
from torchvision.models.detection.roi_heads import paste_masks_in_image

CASES = 200


def channels_first(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def run(case):
    features = channels_first(case["features"]).requires_grad_()
    rois = np.concatenate([case["image_indices"][:, None], case["boxes"]], axis=1)
    rois = torch.from_numpy(rois.astype(np.float32))
    operator = getattr(ops, {"align": "roi_align", "pool": "roi_pool"}.get(
        case["operator"], case["operator"].replace("ps_", "ps_roi_")
    ))  # fmt: skip
    options = {name: case[name] for name in ("sampling_ratio", "aligned") if name in case}
    output = operator(features, rois, case["output_size"], case["spatial_scale"], **options)
    output.backward(channels_first(case["upstream"]))
    return [t.permute(0, 2, 3, 1).detach().numpy() for t in (output, features.grad)]


def levels():
    features, boxes, _ = given.pyramid()
    boxes = [torch.from_numpy(b) for b in boxes]
    maps = {str(i): channels_first(f) for i, f in enumerate(features)}
    pool = ops.MultiScaleRoIAlign(list(maps), (2, 3), sampling_ratio=2)
    pooled = pool(maps, boxes, [given.PYRAMID_IMAGE] * len(boxes)).permute(0, 2, 3, 1)
    return {"levels": pool.map_levels(boxes).numpy() + 2, "levels_pooled": pooled.numpy()}


def pasting():
    masks, boxes, (height, width) = given.masks()
    masks, boxes = torch.from_numpy(masks)[:, None], torch.from_numpy(boxes)
    truncated = paste_masks_in_image(masks, boxes, (height, width))[:, 0]
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1  # (n, height)
    x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(
        [x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1
    )
    pasted = torch.nn.functional.grid_sample(masks, grid, align_corners=False)[:, 0]
    return {"pasted": pasted.numpy(), "pasted_truncated": truncated.numpy()}


def main():
    results = [run(given.case(seed)) for seed in range(CASES)]
    values, gradients = (
        np.concatenate([result[i].reshape(-1) for result in results]) for i in range(2)
    )
    path = Path(__file__).with_name("roi.npz")
    np.savez_compressed(path, values=values, gradients=gradients, **levels(), **pasting())
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
