"""Train the book's PyTorch TinySSD on a folder of Pascal VOC XML, and evaluate it by mAP.

    python benchmarks/raccoon_book.py --data FOLDER --seed 0 --out raccoon_book_seed0.json

FOLDER holds images/, annotations/, train.txt and val.txt. The network, the optimizer and the loop
are the book's (section 14.7 of Dive into Deep Learning 1.0.3): images resized to 256 x 256 and fed
as float 0-255, batch 32, SGD 0.2 with weight decay 5e-4, 20 epochs. Labels come out of the XML as
Pascal VOC defines them: 1-based, inclusive pixels. Detections are the rows that the book's
`multibox_detection` leaves with a class, at most 100 an image, and pycocotools judges them.

Where the book is given a better chance than its own code would give it: images hold one to three
boxes, and the padding rows that make a batch of them claim anchors in the book's `multibox_target`
(offsets of +-69, true positives overwritten). Here that function, which loops over images anyway,
is called image by image with the real boxes only. `--pad` trains with the padding instead.

Takes about 5 minutes a seed on two free cores for 160 images. Needs benchmarks/README.md's set-up.
"""

import argparse
import contextlib
import io
import json
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import book_ssd
import numpy as np
import torch
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

IMAGE_SIZE = 256
BATCH_SIZE = 32
MAX_DETECTIONS = 100  # pycocotools looks at the best 100 of an image.
EVALUATION_BATCH = 8  # Bounds memory; has no influence on the result.


def read_voc(folder, split):
    """Read one split of a folder in Pascal VOC's layout.

    Args:
        folder: path that holds images/, annotations/ and the lists.
        split: name of a list, "train" or "val".

    Returns:
        A dict: `images` float32 `(n, 3, 256, 256)` RGB 0-255, `boxes` a list of n float32 arrays
        `(m, 5)` of rows `[class, x_min, y_min, x_max, y_max]`, corners normalised, `sizes` a list
        of n pairs (height, width) in pixels of the file, and `classes`, a list of names.
    """
    folder = Path(folder)
    names = (folder / f"{split}.txt").read_text().split()
    # Classes are numbered over every annotation, so that both splits agree.
    trees = {p.stem: ElementTree.parse(p).getroot() for p in (folder / "annotations").glob("*.xml")}
    classes = sorted({o.findtext("name") for t in trees.values() for o in t.iter("object")})
    images, boxes, sizes = [], [], []
    for name in names:
        with Image.open(folder / "images" / f"{name}.jpg") as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        width, height = image.size
        rows = []
        for item in trees[name].iter("object"):
            x_min, y_min, x_max, y_max = (
                float(item.find("bndbox").findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax")
            )
            rows.append(
                [
                    classes.index(item.findtext("name")),
                    (x_min - 1) / width,  # VOC counts pixels from 1 and includes the last one.
                    (y_min - 1) / height,
                    x_max / width,
                    y_max / height,
                ]
            )
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
        images.append(np.asarray(image, np.float32).transpose(2, 0, 1))
        boxes.append(np.asarray(rows, np.float32).reshape(-1, 5))
        sizes.append((height, width))
    return {"images": np.stack(images), "boxes": boxes, "sizes": sizes, "classes": classes}


def pad_labels(boxes, rows):
    """Stack label arrays `(m_i, 5)` into `(n, rows, 5)`, filled up with -1 as the book does."""
    labels = np.full((len(boxes), rows, 5), -1, np.float32)
    for label, box in zip(labels, boxes, strict=True):
        label[: len(box)] = box
    return labels


def unpadded_multibox_target(anchors, labels):
    """Call the book's `multibox_target` image by image, without padding rows."""
    target = book_ssd.import_d2l().multibox_target
    parts = [target(anchors, label[label[:, 0] >= 0][None]) for label in labels]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def detect(net, images):
    """Return the book's detections, a list of arrays `(k, 6)` of rows `[class, score, box]`."""
    found = []
    with torch.no_grad():
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = torch.from_numpy(images[start : start + EVALUATION_BATCH])
            anchors, cls_preds, bbox_preds = net(batch)
            cls_probs = torch.softmax(cls_preds, dim=2).permute(0, 2, 1)
            rows = book_ssd.import_d2l().multibox_detection(cls_probs, bbox_preds, anchors)
            found += [r[r[:, 0] >= 0].numpy() for r in rows]
    return found


def average_precision(detections, data):
    """Judge detections by pycocotools, in pixels of the image files.

    Args:
        detections: a list with an array `(k, 6)` of rows `[class, score, box]` for every image,
            boxes normalised.
        data: what `read_voc` gives.

    Returns:
        A dict of floats: `map`, `map_50`, `map_75`.
    """
    images, annotations, results = [], [], []
    triples = zip(data["boxes"], data["sizes"], detections, strict=True)
    for number, (boxes, (height, width), rows) in enumerate(triples, start=1):
        images.append({"id": number, "height": height, "width": width})
        scale = np.array([width, height, width, height])
        for box in boxes:
            corners = box[1:] * scale
            wide, high = corners[2:] - corners[:2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(box[0]) + 1,
                    "bbox": [corners[0], corners[1], wide, high],
                    "area": wide * high,
                    "iscrowd": 0,
                }
            )
        best = rows[np.argsort(-rows[:, 1], kind="stable")][:MAX_DETECTIONS]
        for row in best:
            corners = row[2:] * scale
            results.append(
                {
                    "image_id": number,
                    "category_id": int(row[0]) + 1,
                    "bbox": [*corners[:2], *(corners[2:] - corners[:2])],
                    "score": float(row[1]),
                }
            )
    if not results:
        return {"map": 0.0, "map_50": 0.0, "map_75": 0.0}
    categories = [{"id": i + 1, "name": n} for i, n in enumerate(data["classes"])]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(("map", "map_50", "map_75"), map(float, judge.stats[:3]), strict=True))


def evaluate(net, data):
    """Return the metrics of `net` on `data`: mAP, class error and bbox MAE, as a dict."""
    net.eval()
    right = difference = num_anchors = num_offsets = 0
    labels = pad_labels(data["boxes"], max(len(b) for b in data["boxes"]))
    with torch.no_grad():
        for start in range(0, len(labels), EVALUATION_BATCH):
            some = slice(start, start + EVALUATION_BATCH)
            anchors, cls_preds, bbox_preds = net(torch.from_numpy(data["images"][some]))
            offsets, masks, cls_labels = unpadded_multibox_target(
                anchors, torch.from_numpy(labels[some])
            )
            right += book_ssd.cls_eval(cls_preds, cls_labels)
            difference += book_ssd.bbox_eval(bbox_preds, offsets, masks)
            num_anchors += cls_labels.numel()
            num_offsets += offsets.numel()
    detections = detect(net, data["images"])
    return {
        **average_precision(detections, data),
        "class_error": 1 - right / num_anchors,
        "bbox_mae": difference / num_offsets,
        "detections_per_image": float(np.mean([len(d) for d in detections])),
    }


def parse(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with images/, annotations/, lists")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pad", action="store_true", help="keep the book's padding rows")
    parser.add_argument("--weights", help="where to write the weights (a .pt file)")
    parser.add_argument("--out", required=True, help="where to write the metrics (a .json file)")
    return parser.parse_args(argv)


def main(argv=None):
    """Train, evaluate on both splits, write the metrics, and return them."""
    args = parse(argv)
    torch.manual_seed(args.seed)
    train, val = (read_voc(args.data, split) for split in ("train", "val"))
    images = torch.from_numpy(train["images"])
    labels = torch.from_numpy(pad_labels(train["boxes"], max(len(b) for b in train["boxes"])))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, labels), BATCH_SIZE, shuffle=True
    )
    net = book_ssd.TinySSD(num_classes=len(train["classes"]))
    trainer = book_ssd.make_trainer(net)
    history, start, updates = [], time.perf_counter(), 0
    for epoch in range(args.epochs):
        net.train()
        steps = []
        for features, target in loader:
            targets = None if args.pad else unpadded_multibox_target
            steps.append(book_ssd.train_step(net, trainer, features, target, targets))
            updates += 1
        loss, class_error, bbox_mae = map(float, np.mean(steps, axis=0))
        history.append({"loss": loss, "class_error": class_error, "bbox_mae": bbox_mae})
        print(
            f"epoch {epoch + 1}/{args.epochs}: loss {loss:.5f}, class error {class_error:.5f}, "
            f"bbox MAE {bbox_mae:.5f}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    seconds = time.perf_counter() - start
    metrics = {
        "settings": {**vars(args), "torch": torch.__version__, "classes": train["classes"]},
        "updates": updates,
        "seconds_training": seconds,
        "val": evaluate(net, val),
        "train": evaluate(net, train),
        "history": history,
    }
    metrics["settings"].pop("out")
    Path(args.out).write_text(json.dumps(metrics, indent=2) + "\n")
    if args.weights:
        torch.save(net.state_dict(), args.weights)
    for split in ("val", "train"):
        print(split, {k: round(v, 5) for k, v in metrics[split].items()})
    return metrics


if __name__ == "__main__":
    main()
