"""Show what augmentation does to an image, and to its boxes or its mask.

    python scripts/augment_demo.py IMAGE [--boxes FILE.xml] [--mask FILE.png]

writes the book's grids (flips, crops, brightness, hue, all four colour changes, composed), one file
each: the image as it is and seven draws. With boxes SSD's crop, zoom-out and mosaics are added,
with a mask the scaled crops that segmentation networks are trained on.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import kerascv_d2l
from kerascv_d2l import cli
from kerascv_d2l.data.images import read_image
from kerascv_d2l.data.layouts.voc import read_objects
from kerascv_d2l.data.voc_classes import VOC_COLORMAP
from kerascv_d2l.errors import InputError
from kerascv_d2l.outputs import DRAWN
from kerascv_d2l.plotting.sheets import draw_examples

DRAWS, COLUMNS = 7, 4
STRENGTH = 0.5
BOOK_CROP = {"size": 200, "scale": (0.1, 1.0), "ratio": (0.5, 2.0)}
COLORS = ("brightness", "contrast", "saturation", "hue")
# VOC's colours, again and again, for any class index but 0.
MASK_COLORS = [VOC_COLORMAP[0]] + [VOC_COLORMAP[1 + k % 20] for k in range(254)]


def parse(argv=None):
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("image", metavar="IMAGE", help="image file")
    add("--boxes", metavar="FILE", help="its objects, as Pascal VOC XML")
    add(
        "--box",
        action="append",
        type=cli.named_box,
        default=[],
        metavar="NAME,X0,Y0,X1,Y1",
        help="an object: its class and corners in pixels (may be repeated)",
    )
    add("--mask", metavar="FILE", help="its classes, a PNG of class indices; 255 is ignored")
    add("--out", default="runs/augment_demo", metavar="FOLDER", help="default: %(default)s")
    add(
        "--seed",
        type=cli.seed,
        default=0,
        metavar="N",
        help="random seed (default: %(default)s)",
    )
    return parser.parse_args(argv)


def read_data(args):
    """Read what the layers take, and the names of the classes of its boxes."""
    image = read_image(args.image)
    data = {"images": image}
    objects = [*args.box, *(read_objects(args.boxes) if args.boxes else [])]
    names = sorted({name for name, _ in objects})
    if args.boxes and not objects:
        raise InputError(f"--boxes: {args.boxes} has no object")
    if objects:
        height, width = image.shape[:2]
        boxes = np.array([box for _, box in objects], np.float32) / [width, height, width, height]
        data["bounding_boxes"] = {
            "boxes": np.clip(boxes, 0, 1).astype(np.float32),
            "labels": np.array([names.index(name) for name, _ in objects], np.int32),
        }
    if args.mask:
        data["segmentation_masks"] = read_mask(args.mask)
        if data["segmentation_masks"].shape != image.shape[:2]:
            raise InputError(
                f"--mask: {args.mask} is {data['segmentation_masks'].shape}, "
                f"its image {image.shape[:2]} (height, width)"
            )
    return data, names


def read_mask(file):
    """Read class indices, uint8 `(height, width)`."""
    try:
        with Image.open(file) as opened:
            mask = np.array(opened)
    except OSError as error:
        raise InputError(f"--mask: {file}: not an image, or not there ({error})") from error
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer) or mask.max() > 255:
        raise InputError(
            f"--mask: {file} has pixels {mask.dtype} of shape {mask.shape}; wanted class indices "
            "0 to 255, a PNG with a palette or in grey"
        )
    return mask.astype(np.uint8)


def grids(data, seed):
    """Make the layers of each grid, by the name of its file."""
    from kerascv_d2l.layers.augmentation.compose import IMAGENET_MEAN

    d2l = kerascv_d2l

    def jitter(*names):
        return d2l.ColorJitter(**dict.fromkeys(names, STRENGTH), seed=seed)

    flip, crop = d2l.RandomHorizontalFlip(seed=seed), d2l.RandomResizedCrop(**BOOK_CROP, seed=seed)
    found = {
        "flip_left_right": [flip],
        "flip_up_down": [d2l.RandomVerticalFlip(seed=seed)],
        "crop": [crop],
        "brightness": [jitter("brightness")],
        "hue": [jitter("hue")],
        "color": [jitter(*COLORS)],
        "composed": [flip, jitter(*COLORS), crop],
    }
    if "bounding_boxes" in data:
        found["iou_crop"] = [d2l.RandomIoUCrop(seed=seed)]
        found["zoom_out"] = [d2l.RandomZoomOut(fill=IMAGENET_MEAN, seed=seed)]
        found["mosaic"] = [d2l.Mosaic(seed=seed)]
    if "segmentation_masks" in data:
        size = data["images"].shape[:2]
        found["scale_crop"] = [d2l.RandomScaleCrop(tuple(side // 2 for side in size), seed=seed)]
    return found


def draw(path, results, names):
    """Write one grid."""
    labels = masks = None
    if "bounding_boxes" in results[0]:
        labels = [_rows(result["bounding_boxes"]) for result in results]
    if "segmentation_masks" in results[0]:
        masks = [np.asarray(result["segmentation_masks"]) for result in results]
    titles = ["as it is", *(str(number) for number in range(1, len(results)))]
    images = [np.asarray(result["images"]) for result in results]
    draw_examples(path, images, titles, labels, masks, names, MASK_COLORS, COLUMNS)


def _rows(found):
    return np.concatenate([np.asarray(found["labels"])[:, None], np.asarray(found["boxes"])], -1)


def main(argv=None):
    """Draw the grids.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict of `files`, the grids, as they were written.
    """
    args = parse(argv)
    data, names = read_data(args)
    files = []
    for name, layers in grids(data, args.seed).items():
        results = [data]
        for _ in range(DRAWS):
            changed = data
            for layer in layers:
                changed = layer(changed)
            results.append(changed)
        files.append(Path(args.out) / f"{name}{DRAWN}")
        draw(files[-1], results, names)
        print(f"written: {files[-1]}", flush=True)
    return {"files": [str(file) for file in files]}


if __name__ == "__main__":
    cli.run_main(main)
