"""Pictures and weights that the recording script and the tests both make; NumPy only.

`np.random.RandomState` is used because NumPy promises never to change its numbers.
"""

import numpy as np

# torchvision's `vgg19().features` up to index 28: index -> (channels in, channels out).
CHANNELS = {
    **{0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256)},
    **{14: (256, 256), 16: (256, 256), 19: (256, 512), 21: (512, 512), 23: (512, 512)},
    **{25: (512, 512), 28: (512, 512)},
}
STYLE_LAYERS, CONTENT_LAYERS = (0, 5, 10, 19, 28), (25,)
# Height and width differ; the second is no multiple of the network's stride of 16.
SHAPES = ((48, 64), (50, 71))
TRAIN_SHAPE, TRAIN_STEPS, TRAIN_LR, TRAIN_DECAY = (50, 71), 10, 0.3, 4
SAMPLES = 40  # values kept of each array


def vgg19_weights():
    """dict index -> (kernel (3, 3, in, out), bias (out,)), float32, scaled by He's rule."""
    random = np.random.RandomState(19)
    weights = {}
    for index, (before, after) in CHANNELS.items():
        kernel = random.standard_normal((3, 3, before, after)) * np.sqrt(2 / (9 * before))
        weights[index] = (
            kernel.astype(np.float32),
            np.linspace(-0.1, 0.1, after, dtype=np.float32),
        )
    return weights


def make_image(kind, shape):
    """A normalised image float32 (1, h, w, 3): smooth "content" or rough "style"."""
    height, width = shape
    y = np.arange(height, dtype=np.float64)[:, None, None]
    x = np.arange(width, dtype=np.float64)[:, None]  # y + x + channel: (h, w, 3)
    channel = np.arange(3)
    if kind == "content":
        image = np.sin(y / 7 + channel) + np.cos(x / 11 - channel) * y / height
    else:
        image = 1.5 * np.sin(x * y / 37 + 2 * channel) + 0.3 * channel - 0.4
    noise = np.random.RandomState({"content": 1, "style": 2}[kind]).standard_normal(image.shape)
    return (image + 0.1 * noise)[None].astype(np.float32)


def samples(array):
    """SAMPLES values spread over an NHWC array, and its mean and root mean square."""
    flat = np.asarray(array, np.float64).ravel()
    picked = flat[np.linspace(0, flat.size - 1, SAMPLES).astype(int)]
    numbers = [*picked, flat.mean(), np.sqrt(np.mean(flat**2))]
    return [float(f"{number:.7g}") for number in numbers]
