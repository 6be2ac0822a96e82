"""The book's PyTorch side of the comparisons: its package, and its TinySSD.

The functions on boxes are those of the book's own package (`d2l==1.0.3`). TinySSD, its losses and
its training step stand in the text of the chapter, not in the package; they are written here after
that description, with the book's names, so that what is timed is what a reader of the book runs.

Source: Dive into Deep Learning 1.0.3, section 14.7.
"""

import sys

import torch
from torch import nn

# torchvision's operators that the Python part of the package refers to while it is imported. Where
# its compiled part does not load, a declared name without an implementation is enough, because the
# book's functions call none of them.
_TORCHVISION_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARIES = []  # A declaration lasts as long as the object that made it.


def import_torchvision():
    """Import torchvision, also where its compiled operators do not load.

    Returns:
        The module.

    Raises:
        ImportError: if it is missing (benchmarks/README.md has the commands that
            install it).
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for schema in _TORCHVISION_OPERATORS:
            library.define(schema)
        _LIBRARIES.append(library)
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # What the failed import left.
        import torchvision
    return torchvision


def import_d2l():
    """Import `d2l.torch`, also where torchvision has no compiled operators.

    Returns:
        The module `d2l.torch`.

    Raises:
        ImportError: if d2l, torchvision or one of their requirements is missing
            (benchmarks/README.md has the commands that install them).
    """
    import_torchvision()
    import d2l.torch

    return d2l.torch


SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = (1, 2, 0.5)
NUM_ANCHORS = len(SIZES[0]) + len(RATIOS) - 1
LEARNING_RATE = 0.2
WEIGHT_DECAY = 5e-4


def cls_predictor(num_inputs, num_anchors, num_classes):
    """Make the 3 x 3 convolution that scores every anchor of a feature map."""
    return nn.Conv2d(num_inputs, num_anchors * (num_classes + 1), kernel_size=3, padding=1)


def bbox_predictor(num_inputs, num_anchors):
    """Make the 3 x 3 convolution that gives four offsets for every anchor of a feature map."""
    return nn.Conv2d(num_inputs, num_anchors * 4, kernel_size=3, padding=1)


def concat_preds(preds):
    """Flatten predictions `(batch, c, h, w)` in the order h, w, c, and join them."""
    return torch.cat([torch.flatten(p.permute(0, 2, 3, 1), start_dim=1) for p in preds], dim=1)


def down_sample_blk(in_channels, out_channels):
    """Make two of [3 x 3 convolution, batch norm, ReLU], then 2 x 2 max-pooling."""
    blk = []
    for _ in range(2):
        blk.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1))
        blk.append(nn.BatchNorm2d(out_channels))
        blk.append(nn.ReLU())
        in_channels = out_channels
    blk.append(nn.MaxPool2d(2))
    return nn.Sequential(*blk)


def base_net():
    """Make the base network: three down-sampling blocks of 16, 32 and 64 channels."""
    filters = [3, 16, 32, 64]
    blocks = [down_sample_blk(filters[i], filters[i + 1]) for i in range(len(filters) - 1)]
    return nn.Sequential(*blocks)


def get_blk(i):
    """Make block i of the five."""
    if i == 0:
        return base_net()
    if i == 1:
        return down_sample_blk(64, 128)
    if i == 4:
        return nn.AdaptiveMaxPool2d((1, 1))
    return down_sample_blk(128, 128)


class TinySSD(nn.Module):
    """The book's TinySSD: five blocks, each with a class and a box predictor.

    Args:
        num_classes: number of object classes, without the background.

    Calling it with images `(batch, 3, h, w)` gives `(anchors (1, A, 4), cls_preds (batch, A,
    num_classes + 1), bbox_preds (batch, 4A))`.
    """

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self._multibox_prior = import_d2l().multibox_prior
        for i, channels in enumerate((64, 128, 128, 128, 128)):
            setattr(self, f"blk_{i}", get_blk(i))
            setattr(self, f"cls_{i}", cls_predictor(channels, NUM_ANCHORS, num_classes))
            setattr(self, f"bbox_{i}", bbox_predictor(channels, NUM_ANCHORS))

    def forward(self, X):  # noqa: N803 (the book's name)
        """Return anchors, class scores and offsets of a batch of images."""
        anchors, cls_preds, bbox_preds = [], [], []
        for i in range(5):
            X = getattr(self, f"blk_{i}")(X)  # noqa: N806
            anchors.append(self._multibox_prior(X, SIZES[i], RATIOS))
            cls_preds.append(getattr(self, f"cls_{i}")(X))
            bbox_preds.append(getattr(self, f"bbox_{i}")(X))
        anchors = torch.cat(anchors, dim=1)
        cls_preds = concat_preds(cls_preds)
        cls_preds = cls_preds.reshape(cls_preds.shape[0], -1, self.num_classes + 1)
        return anchors, cls_preds, concat_preds(bbox_preds)


cls_loss = nn.CrossEntropyLoss(reduction="none")
bbox_loss = nn.L1Loss(reduction="none")


def calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks):
    """Return the loss of every image: mean cross-entropy plus mean masked L1."""
    batch_size, num_classes = cls_preds.shape[0], cls_preds.shape[2]
    cls = cls_loss(cls_preds.reshape(-1, num_classes), cls_labels.reshape(-1))
    cls = cls.reshape(batch_size, -1).mean(dim=1)
    bbox = bbox_loss(bbox_preds * bbox_masks, bbox_labels * bbox_masks).mean(dim=1)
    return cls + bbox


def cls_eval(cls_preds, cls_labels):
    """Count the anchors that are classed right."""
    return float((cls_preds.argmax(dim=-1).type(cls_labels.dtype) == cls_labels).sum())


def bbox_eval(bbox_preds, bbox_labels, bbox_masks):
    """Add up the masked absolute differences of the offsets."""
    difference = torch.abs((bbox_labels - bbox_preds) * bbox_masks)
    return float(difference.sum().detach())


def make_trainer(net):
    """Make the book's optimizer for `net`."""
    return torch.optim.SGD(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def train_step(net, trainer, features, target, multibox_target=None):
    """Do one step of the book's training loop, its two running metrics included.

    Args:
        net: TinySSD.
        trainer: what `make_trainer` gives.
        features: float32 `(batch, 3, h, w)`.
        target: float32 `(batch, m, 5)` rows `[class, x_min, y_min, x_max, y_max]`.
        multibox_target: the function that labels anchors; None is the book's.

    Returns:
        `(loss, class error, bbox MAE)` of the batch, three floats.
    """
    multibox_target = multibox_target or import_d2l().multibox_target
    trainer.zero_grad()
    anchors, cls_preds, bbox_preds = net(features)
    bbox_labels, bbox_masks, cls_labels = multibox_target(anchors, target)
    loss = calc_loss(cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks).mean()
    loss.backward()
    trainer.step()
    right = cls_eval(cls_preds, cls_labels)
    difference = bbox_eval(bbox_preds, bbox_labels, bbox_masks)
    return loss.item(), 1 - right / cls_labels.numel(), difference / bbox_labels.numel()
