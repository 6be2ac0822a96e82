"""The book's FCN (section 14.11) in PyTorch, as its text has it, and a step of its training loop.

ResNet-18 is written out, because torchvision's compiled half may be missing; random weights do
for timing.
"""

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


def loss(inputs, targets):
    """Cross-entropy of each picture, mean over its pixels."""
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
