"""The book's way through style transfer: its names, its order, its numbers.

What the book takes from global variables (the network, the two images, the layers) are
arguments here, after its own; `device` is gone.
"""

# ruff: noqa: N803, N806 - X and Y are the book's names

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.style_transfer.images import preprocess
from kerascv_d2l.style_transfer.losses import compute_loss, gram

# PyTorch's. It adds its epsilon after the bias correction, Keras before, so images differ where
# gradients are as small.
EPSILON = 1e-8
LR_DECAY = 0.8  # the book's factor of the learning rate every `lr_decay_epoch` epochs


def extract_features(X, content_layers, style_layers, net):
    """Extract features of an image at some layers.

    Args:
        X: float32 `(1, h, w, 3)`, normalised.
        content_layers: layers of `net`, in torchvision's indices for `torchvision_vgg19`.
        style_layers: likewise.
        net: `Network`.

    Returns:
        `(contents, styles)`: two lists of float `(1, h / s, w / s, c)`. Unlike the book's, in
        the order asked for.

    Raises:
        InputError: if `net` does not give a layer.

    Source:
        D2L 1.0.3, section 14.12.3.
    """
    return net.extract(X, content_layers, style_layers)


def get_contents(image_shape, content_img, net):
    """Give the content image and its content features.

    Args:
        image_shape: `(height, width)` to resize to.
        content_img: `PIL.Image` or uint8 array `(h, w, 3)`.
        net: `Network`.

    Returns:
        `(content_X, contents_Y)`: float32 `(1, height, width, 3)` and a list of features.

    Source:
        D2L 1.0.3, section 14.12.3.
    """
    content_X = preprocess(content_img, image_shape)
    contents_Y, _ = net.extract(content_X)
    return content_X, contents_Y


def get_styles(image_shape, style_img, net):
    """Give the style image and its style features, as `get_contents` does of the content image.

    Returns:
        `(style_X, styles_Y)`: float32 `(1, height, width, 3)` and a list of features.

    Source:
        D2L 1.0.3, section 14.12.3.
    """
    style_X = preprocess(style_img, image_shape)
    _, styles_Y = net.extract(style_X)
    return style_X, styles_Y


class SynthesizedImage(tf.Module):
    """The image to make as a module whose only weight it is.

    Attributes:
        weight: float32 `tf.Variable` of the image's shape.
    """

    def __init__(self, img_shape, seed=None):
        """Start from uniform noise in [0, 1).

        Args:
            img_shape: `(1, h, w, 3)`.
            seed: int, or None for noise that differs each time.
        """
        super().__init__()
        pixels = np.random.default_rng(seed).random(img_shape, np.float32)
        self.weight = tf.Variable(pixels)

    def __call__(self):
        """The image: `weight` itself."""
        return self.weight


def get_inits(X, lr, styles_Y):
    """Make the image to optimise, the style's Gram matrices and the optimizer.

    Args:
        X: float32 `(1, h, w, 3)`, normalised, where the image starts.
        lr: learning rate.
        styles_Y: list of style features.

    Returns:
        `(variable, styles_Y_gram, trainer)`: `tf.Variable`, list of `(c, c)`,
        `keras.optimizers.Adam`.

    Source:
        D2L 1.0.3, section 14.12.5.
    """
    gen_img = SynthesizedImage(X.shape)
    gen_img.weight.assign(X)
    trainer = keras.optimizers.Adam(lr, epsilon=EPSILON)
    trainer.build([gen_img.weight])
    styles_Y_gram = [gram(Y) for Y in styles_Y]
    return gen_img(), styles_Y_gram, trainer


def train(X, contents_Y, styles_Y, lr, num_epochs, lr_decay_epoch, net, callback=None):
    """Train as the book does: Adam on the image, its rate times 0.8 every `lr_decay_epoch` epochs.

    Args:
        X: float32 `(1, h, w, 3)`, normalised, where the image starts.
        contents_Y: list of content features.
        styles_Y: list of style features.
        lr: learning rate, 0.3 in the book.
        num_epochs: steps, 500 in the book.
        lr_decay_epoch: steps between decays, 50 in the book.
        net: `Network`.
        callback: function of (epoch from 1, content loss, style loss, total variation,
            image), after every step, in place of the book's animation; the losses are
            weighted, and those of before the step.

    Returns:
        `tf.Variable` `(1, h, w, 3)`, normalised.

    Source:
        D2L 1.0.3, section 14.12.6.
    """
    image, styles_Y_gram, trainer = get_inits(X, lr, styles_Y)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            contents_Y_hat, styles_Y_hat = net.extract(image)
            contents_l, styles_l, tv_l, l = compute_loss(  # noqa: E741
                image, contents_Y_hat, styles_Y_hat, contents_Y, styles_Y_gram
            )
        trainer.apply([tape.gradient(l, image)])
        return tf.add_n(contents_l), tf.add_n(styles_l), tv_l

    for epoch in range(num_epochs):
        trainer.learning_rate.assign(lr * LR_DECAY ** (epoch // lr_decay_epoch))
        losses = step()
        if callback is not None:
            callback(epoch + 1, *(float(value) for value in losses), image)
    return image
