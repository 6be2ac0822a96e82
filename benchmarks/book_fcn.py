"""The book's FCN (section 14.11) in PyTorch, as its text has it: a step of its loop, a training.

    python benchmarks/book_fcn.py --data FOLDER --ignore 11 --seed 0 --out book_fcn_seed0.json

FOLDER holds images/, masks/ (PNG of class indices), train.txt and val.txt. The network, its start
and the loop are the book's: ResNet-18, a 1 x 1 convolution (Xavier), a transposed convolution
(bilinear), random windows, cross-entropy averaged over pixels, plain SGD. The book's rate of 1e-3
and decay of 1e-3 for the sum of the losses of a batch of 32 are 3.2e-2 and 3.1e-5 for their mean,
which is what is taken here, at any batch size. Other than in the book the weights are random, and
ignored pixels are left out of loss and metrics instead of counting as background. It is judged as
`scripts/train_segmenter.py` judges: mean IoU and pixel accuracy of whole images (up to 512 x 512),
in windows whose sides 32 divides, scores averaged where they overlap.

ResNet-18 is written out, because torchvision's compiled half may be missing.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Block(nn.Module):
    """A basic block of torchvision's ResNet: two 3 x 3 convolutions and a way around them."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride > 1 or inputs != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def fcn32(num_classes):
    """Build the network of section 14.11.

    Args:
        num_classes: int.

    Returns:
        `nn.Module` from `(batch, 3, h, w)` to `(batch, num_classes, h, w)`, 32 dividing h and w.
    """
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for channels in (64, 128, 256, 512):
        layers += [
            Block(inputs, channels, 1 if channels == 64 else 2),
            Block(channels, channels, 1),
        ]
        inputs = channels
    layers.append(nn.Conv2d(512, num_classes, 1))
    layers.append(nn.ConvTranspose2d(num_classes, num_classes, 64, padding=16, stride=32))
    return nn.Sequential(*layers)


IGNORED = 255
STRIDE = 32
LEARNING_RATE, WEIGHT_DECAY = 3.2e-2, 3.1e-5  # for the mean of the losses of a batch
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def initialise(net):
    """Give `fcn32` its first weights: torchvision's, in the last two layers the book's."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.xavier_uniform_(net[-2].weight)
    side = net[-1].kernel_size[0]
    factor = (side + 1) // 2
    centre = factor - 1 if side % 2 else factor - 0.5
    weight = 1 - (torch.arange(side) - centre).abs() / factor  # (side,)
    classes = net[-1].weight.shape[0]
    with torch.no_grad():
        net[-1].weight.zero_()
        net[-1].weight[range(classes), range(classes)] = weight[:, None] * weight


def loss(inputs, targets):
    """Cross-entropy of each image, mean over its pixels."""
    return F.cross_entropy(inputs, targets, reduction="none").mean(1).mean(1)


def train_step(net, trainer, images, labels):
    """Do what the book's `train_batch_ch13` does.

    Args:
        net: the network.
        trainer: its optimizer.
        images: float `(batch, 3, h, w)`.
        labels: int64 `(batch, h, w)`.

    Returns:
        sum of the losses and number of right pixels.
    """
    net.train()
    trainer.zero_grad()
    predicted = net(images)
    each = loss(predicted, labels)
    each.sum().backward()
    trainer.step()
    right = (predicted.argmax(dim=1).to(labels.dtype) == labels).sum()
    return float(each.sum()), int(right)


def read_split(folder, split, ignore):
    """Read images as uint8 `(h, w, 3)` and masks as int64 `(h, w)`, `IGNORED` for unknown."""
    folder = Path(folder)
    images, masks = [], []
    for name in (folder / f"{split}.txt").read_text().split():
        images.append(np.array(Image.open(folder / "images" / f"{name}.png").convert("RGB")))
        mask = np.array(Image.open(folder / "masks" / f"{name}.png"), np.int64)
        masks.append(np.where(mask == ignore, IGNORED, mask))
    return images, masks


def as_input(image):
    """Turn uint8 `(h, w, 3)` into float `(3, h, w)`, as ImageNet's networks are fed."""
    pixels = (image / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def random_batches(images, masks, size, batch_size, rng):
    """Yield one epoch of batches of random windows."""
    order = rng.permutation(len(images))
    for start in range(0, len(order), batch_size):
        some = []
        for i in order[start : start + batch_size]:
            top, left = (
                rng.integers(0, side - window + 1)
                for side, window in zip(masks[i].shape, size, strict=True)
            )
            window = slice(top, top + size[0]), slice(left, left + size[1])
            some.append((as_input(images[i][window]), torch.from_numpy(masks[i][window])))
        yield tuple(torch.stack(part) for part in zip(*some, strict=True))


def whole_scores(net, image):
    """Score an image, `(classes, h, w)`, in windows whose sides the stride divides."""
    pixels = as_input(image)[None]
    size = pixels.shape[2:]
    sides = [side // STRIDE * STRIDE for side in size]
    starts = [sorted({0, whole - side}) for whole, side in zip(size, sides, strict=True)]
    total, times = 0, torch.zeros(size)
    with torch.no_grad():
        for top in starts[0]:
            for left in starts[1]:
                window = slice(top, top + sides[0]), slice(left, left + sides[1])
                scores = net(pixels[(..., *window)])[0]
                if isinstance(total, int):
                    total = torch.zeros(len(scores), *size)
                total[(..., *window)] += scores
                times[window] += 1
    return total / times


def evaluate(net, images, masks, num_classes):
    """Give mean IoU, pixel accuracy and the IoU of each class, without ignored pixels."""
    net.eval()
    counts = np.zeros((num_classes, num_classes), np.int64)
    for image, mask in zip(images, masks, strict=True):
        predicted = whole_scores(net, image).argmax(0).numpy()
        known = mask != IGNORED
        cells = mask[known] * num_classes + predicted[known]
        counts += np.bincount(cells, minlength=num_classes**2).reshape(num_classes, -1)
    both = np.diag(counts)
    either = counts.sum(0) + counts.sum(1) - both
    iou = np.where(either > 0, both / np.maximum(either, 1), np.nan)
    return {
        "mean_iou": float(np.nanmean(iou)),
        "pixel_accuracy": float(both.sum() / counts.sum()),
        "iou_by_class": iou.tolist(),
    }


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with images/, masks/, lists")
    parser.add_argument(
        "--ignore", type=int, help="index in the masks that is ignored, besides 255"
    )
    parser.add_argument("--crop-size", default="320x480", help="HEIGHTxWIDTH of the windows")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument(
        "--schedule",
        choices=("constant", "cosine"),
        default="constant",
        help="the book's is constant, after which metrics of two epochs differ at random; along a "
        "cosine they can be compared",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", required=True, help="where to write the metrics (a .json file)")
    return parser.parse_args(argv)


def main(argv=None):
    """Train, evaluate, write the metrics, and return them."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    (images, masks), (val_images, val_masks) = (
        read_split(args.data, split, args.ignore) for split in ("train", "val")
    )
    num_classes = 1 + max(int(mask[mask != IGNORED].max()) for mask in masks)
    size = tuple(int(side) for side in args.crop_size.split("x"))
    net = fcn32(num_classes)
    initialise(net)
    trainer = torch.optim.SGD(net.parameters(), args.learning_rate, weight_decay=WEIGHT_DECAY)
    steps = args.epochs * -(-len(images) // args.batch_size)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(trainer, steps)
    start, history = time.perf_counter(), []
    for epoch in range(args.epochs):
        net.train()
        losses = []
        for features, labels in random_batches(images, masks, size, args.batch_size, rng):
            trainer.zero_grad()
            mean = F.cross_entropy(net(features), labels, ignore_index=IGNORED)
            mean.backward()
            trainer.step()
            if args.schedule == "cosine":
                falling.step()
            losses.append(float(mean.detach()))
        history.append(float(np.mean(losses)))
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{args.epochs}: loss {history[-1]:.4f}, {seconds:.0f} s", flush=True
        )
    metrics = {
        **evaluate(net, val_images, val_masks, num_classes),
        "seconds_training": seconds,
        "loss": history,
        "settings": {**vars(args), "torch": torch.__version__},
    }
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(json.dumps(metrics, indent=2) + "\n")
    print({name: round(metrics[name], 4) for name in ("mean_iou", "pixel_accuracy")})
    return metrics


if __name__ == "__main__":
    main()
