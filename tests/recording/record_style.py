"""Records what the book's PyTorch code makes of the images and weights of style_inputs.py.

    python tests/recording/record_style.py     # needs PyTorch; writes tests/recording/style.json

The code below follows D2L 1.0.3, section 14.12. torchvision's VGG-19 is spelt out (it is a
Sequential of Conv2d, ReLU(inplace=True) and MaxPool2d), so that torchvision is not needed.
"""

# ruff: noqa: N803, N806 - X and Y are the book's names

import json
import re
from pathlib import Path

import style_inputs as given
import torch
from torch import nn


def vgg19_features():
    weights, layers = given.vgg19_weights(), []
    for index in range(29):
        if index in weights:
            kernel, bias = weights[index]
            layer = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
            layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
            layer.bias.data = torch.from_numpy(bias)
        elif index - 1 in weights:
            layer = nn.ReLU(inplace=True)
        else:
            layer = nn.MaxPool2d(2, 2)
        layers.append(layer)
    return nn.Sequential(*layers)


net = vgg19_features()
content_weight, style_weight, tv_weight = 1, 1e4, 10


def extract_features(X, content_layers, style_layers):
    contents, styles = [], []
    for i in range(len(net)):
        X = net[i](X)
        if i in style_layers:
            styles.append(X)
        if i in content_layers:
            contents.append(X)
    return contents, styles


def content_loss(Y_hat, Y):
    return torch.square(Y_hat - Y.detach()).mean()


def gram(X):
    num_channels, n = X.shape[1], X.numel() // X.shape[1]
    X = X.reshape((num_channels, n))
    return torch.matmul(X, X.T) / (num_channels * n)


def style_loss(Y_hat, gram_Y):
    return torch.square(gram(Y_hat) - gram_Y.detach()).mean()


def tv_loss(Y_hat):
    return 0.5 * (
        torch.abs(Y_hat[:, :, 1:, :] - Y_hat[:, :, :-1, :]).mean()
        + torch.abs(Y_hat[:, :, :, 1:] - Y_hat[:, :, :, :-1]).mean()
    )


def compute_loss(X, contents_Y_hat, styles_Y_hat, contents_Y, styles_Y_gram):
    contents_l = [
        content_loss(Y_hat, Y) * content_weight
        for Y_hat, Y in zip(contents_Y_hat, contents_Y, strict=True)
    ]
    styles_l = [
        style_loss(Y_hat, Y) * style_weight
        for Y_hat, Y in zip(styles_Y_hat, styles_Y_gram, strict=True)
    ]
    tv_l = tv_loss(X) * tv_weight
    return contents_l, styles_l, tv_l, sum(styles_l + contents_l + [tv_l])


def train(X, contents_Y, styles_Y, lr, num_epochs, lr_decay_epoch):
    image = nn.Parameter(X.clone())
    trainer = torch.optim.Adam([image], lr=lr)
    styles_Y_gram = [gram(Y) for Y in styles_Y]
    scheduler = torch.optim.lr_scheduler.StepLR(trainer, lr_decay_epoch, 0.8)
    losses = []
    for _ in range(num_epochs):
        trainer.zero_grad()
        features = extract_features(image, given.CONTENT_LAYERS, given.STYLE_LAYERS)
        contents_l, styles_l, tv_l, total = compute_loss(
            image, *features, contents_Y, styles_Y_gram
        )
        losses.append([float(sum(contents_l)), float(sum(styles_l)), float(tv_l)])
        total.backward()
        trainer.step()
        scheduler.step()
    return image, losses


def tensor(kind, shape):
    return torch.from_numpy(given.make_image(kind, shape).transpose(0, 3, 1, 2).copy())


def nhwc(array):
    return array.detach().numpy().transpose(0, 2, 3, 1)


def main():
    record = {"torch": torch.__version__, "features": {}}
    with torch.no_grad():
        for shape in given.SHAPES:
            contents, styles = extract_features(
                tensor("content", shape), given.CONTENT_LAYERS, given.STYLE_LAYERS
            )
            record["features"]["x".join(map(str, shape))] = {
                "contents": [given.samples(nhwc(Y)) for Y in contents],
                "styles": [given.samples(nhwc(Y)) for Y in styles],
                "grams": [given.samples(gram(Y)) for Y in styles],
            }
        content = tensor("content", given.TRAIN_SHAPE)
        style = tensor("style", given.TRAIN_SHAPE)
        contents_Y, _ = extract_features(content, given.CONTENT_LAYERS, given.STYLE_LAYERS)
        _, styles_Y = extract_features(style, given.CONTENT_LAYERS, given.STYLE_LAYERS)
        styles_Y_gram = [gram(Y) for Y in styles_Y]
        features = extract_features(style, given.CONTENT_LAYERS, given.STYLE_LAYERS)
        content_features = extract_features(content, given.CONTENT_LAYERS, given.STYLE_LAYERS)
        # Content loss where the style image stands, style loss where the content stands.
        record["content_losses"] = [
            float(content_loss(a, b)) for a, b in zip(features[0], contents_Y, strict=True)
        ]
        record["style_losses"] = [
            float(style_loss(a, b)) for a, b in zip(content_features[1], styles_Y_gram, strict=True)
        ]
        record["tv_losses"] = [float(tv_loss(content)), float(tv_loss(style))]
    image, losses = train(
        content, contents_Y, styles_Y, given.TRAIN_LR, given.TRAIN_STEPS, given.TRAIN_DECAY
    )
    record["train_image"] = given.samples(nhwc(image))
    record["train_losses"] = losses
    # One line a list of numbers.
    text = re.sub(r"\s+(?=[-\d\]])(?![^\[]*\[\s*\])", " ", json.dumps(record, indent=1))
    Path(__file__).with_name("style.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
