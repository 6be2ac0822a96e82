"""Records what torchvision makes of a small image with given factors and windows.

    python tests/recording/record_augmentation.py   # needs torchvision; writes augmentation.npz

The image is half noise, half ramps, with grey, black and white pixels in it, and its height is
not its width. Names of the arrays say what was done: `hue_-0.3` is adjust_hue(image, -0.3) of the
uint8 image, `float_hue_-0.3` that of the image in [0, 1], `crop_2_3_9_11_20_13` is
resized_crop(top 2, left 3, height 9, width 11, size (20, 13)) without antialiasing,
`pillow_crop_…` the same of a Pillow image, which antialiases.

Of what torchvision draws at random, the deciles of 10,000 draws are recorded: `draws_resized_crop`
of top, left, height and width in images of two shapes, `draws_iou_crop` likewise with two objects
(and, last, the share of images left whole), `draws_zoom_out` of the canvas, `draws_jitter` of the
four factors (and, last, how often each operation comes first).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

FACTORS = (0.0, 0.4, 1.0, 1.3, 2.0)
SHIFTS = (-0.5, -0.3, -0.1, 0.0, 0.07, 0.2, 0.45)
DRAWS = 10_000
SIZES = ((240, 310), (60, 310))
BOXES = ((20, 30, 150, 200), (200, 20, 290, 90))
WINDOWS = (
    (0, 0, 16, 22, 16, 22),
    (2, 3, 9, 11, 20, 13),
    (0, 5, 16, 7, 5, 6),
    (7, 0, 1, 22, 4, 9),
    (3, 4, 12, 16, 6, 8),
)


def make_image():
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:16, :22]
    image = np.stack([rows * 16, columns * 11, 255 - 7 * rows - 5 * columns], -1).astype(np.uint8)
    image[:, 11:] = rng.integers(0, 256, (16, 11, 3))
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [90, 90, 90]]
    return image


def functional():
    """torchvision.transforms.functional, also where its compiled part does not load."""
    try:
        from torchvision.transforms import functional as found
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        from torchvision.transforms import functional as found
    return found


def deciles(draws):
    """float32 `(9, columns)` of the draws, `(count, columns)`."""
    return np.quantile(np.array(draws, float), np.linspace(0.1, 0.9, 9), axis=0).astype(np.float32)


def draws():
    """What is drawn at random, by the name it is recorded under."""
    from torchvision import transforms, tv_tensors
    from torchvision.transforms import v2

    torch.manual_seed(0)
    found = {}
    for size in SIZES:
        photo = torch.zeros(3, *size, dtype=torch.uint8)
        crops = [
            transforms.RandomResizedCrop.get_params(photo, (0.08, 1.0), (3 / 4, 4 / 3))
            for _ in range(DRAWS)
        ]
        found[f"resized_crop_{size[0]}_{size[1]}"] = deciles(crops)
    photo = torch.zeros(3, *SIZES[0], dtype=torch.uint8)
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=SIZES[0])
    crops = [v2.RandomIoUCrop().make_params([photo, boxes]) for _ in range(DRAWS)]
    cut = [[p["top"], p["left"], p["height"], p["width"]] for p in crops if p]
    whole = np.full((9, 1), 1 - len(cut) / DRAWS, np.float32)
    found["iou_crop"] = np.hstack([deciles(cut), whole])
    margins = [v2.RandomZoomOut().make_params([photo])["padding"] for _ in range(DRAWS)]
    found["zoom_out"] = deciles(
        [[-top, -left, SIZES[0][0] + top + bottom, SIZES[0][1] + left + right]
         for left, top, right, bottom in margins]
    )  # fmt: skip
    # Bounds as a script's ColorJitter(.5, .4, .8, .3) has them.
    ranges = [[0.5, 1.5], [0.6, 1.4], [0.2, 1.8], [-0.3, 0.3]]
    params = [transforms.ColorJitter.get_params(*ranges) for _ in range(DRAWS)]
    first = np.bincount([int(order[0]) for order, *_ in params], minlength=4) / DRAWS
    first = np.tile(first.astype(np.float32), (9, 1))
    found["jitter"] = np.hstack([deciles([factors for _, *factors in params]), first])
    return found


def main():
    f = functional()
    image = make_image()
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    recorded = {"image": image}

    def record(name, result):
        recorded[name] = result.permute(1, 2, 0).numpy()

    for kind, values in (
        ("brightness", FACTORS),
        ("contrast", FACTORS),
        ("saturation", FACTORS),
        ("hue", SHIFTS),
    ):
        adjust = getattr(f, f"adjust_{kind}")
        for value in values:
            record(f"{kind}_{value}", adjust(tensor, value))
        record(f"float_{kind}_{values[1]}", adjust(tensor / 255, values[1]))
    for *window, height, width in WINDOWS:
        name = "_".join(map(str, (*window, height, width)))
        record(f"crop_{name}", f.resized_crop(tensor, *window, (height, width), antialias=False))
        pillow = f.resized_crop(Image.fromarray(image), *window, (height, width))
        recorded[f"pillow_crop_{name}"] = np.asarray(pillow)
    recorded |= {f"draws_{name}": values for name, values in draws().items()}
    np.savez_compressed(Path(__file__).parent / "augmentation.npz", **recorded)


if __name__ == "__main__":
    main()
