"""ResNets: torchvision's, and the book's for small images.

Every layer of torchvision's has the name of its module there, with "_" for ".":
`layer1.0.conv1` is `layer1_0_conv1`. The last activation of a stage has the name of the
stage, `layer1` to `layer4`.
"""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers import BatchNorm, Conv2D
from kerascv_d2l.models import preprocessing
from kerascv_d2l.models.weights import load_weights

STAGES = {2: "relu", 4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}  # stride -> layer
_STAGE_CHANNELS = (64, 128, 256, 512)
# The timm conversions of torchvision's ImageNet weights (IMAGENET1K_V1).
HUB = {
    "resnet18": "timm/resnet18.tv_in1k",
    "resnet34": "timm/resnet34.tv_in1k",
    "resnet50_v1.5": "timm/resnet50.tv_in1k",
}
_BASIC, _BOTTLENECK = (3, 3), (1, 3, 1)  # sizes of the kernels of a block
_EXPANSION = 4  # a bottleneck's output channels over those inside
_HEAD_TENSORS = r"fc\.(weight|bias)"


def ResNet18(**arguments):  # noqa: N802 (named like those of keras.applications)
    """Build torchvision's ResNet-18, 11,689,512 parameters with 1000 classes, as `ResNet34`."""
    return _resnet("resnet18", (2, 2, 2, 2), **arguments)


def ResNet34(**arguments):  # noqa: N802
    """Build torchvision's ResNet-34: 21,797,672 parameters with 1000 classes.

    Args:
        **arguments: see `_resnet`; the names are those of
            `keras.applications`.

    Returns:
        `keras.Model` from pixels 0-255, RGB, uint8 or float,
        `(batch, h, w, 3)`, to logits `(batch, classes)`; without top to the
        feature map `(batch, ceil(h / 32), ceil(w / 32), 512)`.
    """
    return _resnet("resnet34", (3, 4, 6, 3), **arguments)


def ResNet50(**arguments):  # noqa: N802
    """Build torchvision's ResNet-50: 25,557,032 parameters with 1000 classes.

    Bottlenecks halve the map in their 3 x 3 convolution ("v1.5"); those of
    `keras.applications.ResNet50` in the first 1 x 1 one. Arguments and result are those of
    `ResNet34`, but with 2048 channels.
    """
    return _resnet("resnet50_v1.5", (3, 4, 6, 3), _BOTTLENECK, **arguments)


def _resnet(
    network,
    blocks,
    sizes=_BASIC,
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=(None, None, 3),
    classes=1000,
    classifier_activation=None,
    include_preprocessing=True,
):
    """Build a ResNet as torchvision defines it.

    Args:
        network: "resnet18", "resnet34" or "resnet50_v1.5", the key of its weights.
        blocks: number of blocks in each of the four stages.
        sizes: of the kernels of a block, `_BASIC` or `_BOTTLENECK`.
        include_top: whether to pool and classify.
        weights: None (random, as torchvision draws them), "imagenet", or a
            path; see `weights.load_weights`.
        input_tensor: symbolic tensor to build on, in place of a new input.
        input_shape: `(height, width, channels)`; None where the size may vary.
        classes: number of outputs.
        classifier_activation: activation of the output; None gives logits.
        include_preprocessing: whether pixels 0-255 are standardised inside;
            otherwise the input must be.

    Returns:
        `keras.Model`.

    Raises:
        InputError: if the weights cannot be had or do not fit.
    """
    if weights == "imagenet" and include_top and classes != 1000:
        raise InputError(
            f'classes={classes}: weights="imagenet" with the top have 1000. Leave the top out.'
        )
    inputs = keras.Input(input_shape, name="pixels") if input_tensor is None else input_tensor
    x = preprocessing.standardise(inputs) if include_preprocessing else inputs
    x = _torch_conv(x, 64, 7, 2, "conv1")
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    # Padded with zeros where torchvision has -inf: after ReLU that is the same maximum.
    x = keras.layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="maxpool")(x)
    x = _stages(x, blocks, sizes, _torch_conv)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avgpool")(x)
        x = keras.layers.Dense(
            classes,
            activation=classifier_activation,
            # torch.nn.Linear's default: uniform in ±1 / sqrt(inputs)
            kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
            dtype="float32",
            name="fc",
        )(x)
    model = keras.Model(keras.utils.get_source_inputs(inputs)[0], x, name=network)
    if weights is not None:
        load_weights(
            model, weights, hub_name=HUB[network], unused=None if include_top else _HEAD_TENSORS
        )
    return model


def _stages(x, blocks, sizes, conv):
    """Four stages of blocks; all but the first stage halve the map."""
    for stage, (depth, channels) in enumerate(zip(blocks, _STAGE_CHANNELS, strict=True), start=1):
        widths = [channels] * 2 if sizes == _BASIC else [channels] * 2 + [channels * _EXPANSION]
        for i in range(depth):
            stride = 2 if stage > 1 and i == 0 else 1
            x = _block(x, widths, sizes, stride, f"layer{stage}_{i}", conv)
            last = f"layer{stage}" if i == depth - 1 else f"layer{stage}_{i}_out"
            x = keras.layers.ReLU(name=last)(x)
    return x


def _block(x, widths, sizes, stride, name, conv):
    """Convolutions, of which the first 3 x 3 one has the stride, with a shortcut around them."""
    shortcut = x
    for i, (width, size) in enumerate(zip(widths, sizes, strict=True), start=1):
        x = conv(x, width, size, stride if i == sizes.index(3) + 1 else 1, f"{name}_conv{i}")
        x = BatchNorm(name=f"{name}_bn{i}")(x)
        if i < len(sizes):
            x = keras.layers.ReLU(name=f"{name}_relu{i if len(sizes) > 2 else ''}")(x)
    if stride > 1 or shortcut.shape[-1] != x.shape[-1]:
        if conv is _torch_conv:
            shortcut = conv(shortcut, x.shape[-1], 1, stride, f"{name}_downsample_0")
            shortcut = BatchNorm(name=f"{name}_downsample_1")(shortcut)
        else:  # the book's has no batch norm there
            shortcut = conv(shortcut, x.shape[-1], 1, stride, f"{name}_conv3")
    return keras.layers.Add(name=f"{name}_add")([x, shortcut])


def _conv(x, channels, kernel_size, stride, name, **options):
    """Convolve with PyTorch's padding, the same on both sides."""
    padding = "same"
    if stride > 1 and kernel_size > 1:
        # Keras' "same" would pad an even size on the right and at the bottom only.
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return Conv2D(channels, kernel_size, stride, padding, name=name, **options)(x)


def _torch_conv(*arguments):
    # torchvision: kaiming_normal_(mode="fan_out", nonlinearity="relu")
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return _conv(*arguments, use_bias=False, kernel_initializer=initializer)


def resnet18_small(
    num_classes=10,
    in_channels=3,
    *,
    include_top=True,
    weights=None,
    input_tensor=None,
    classifier_activation=None,
):
    """Build the book's ResNet-18 for small images.

    It has a 3 x 3 stem instead of the 7 x 7 one, no max-pooling, and Xavier-uniform weights:
    CIFAR-10's 32 x 32 pixels become 4 x 4 x 512 before the pooling.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        include_top: whether to pool and classify.
        weights: None (random) or a file, see `weights.load_weights`.
        input_tensor: symbolic pixels 0-255 to build on, in place of a new input.
        classifier_activation: activation of the output; None gives logits.

    Returns:
        `keras.Model` from pixels 0-255 `(batch, h, w, in_channels)` of any size to float32
        logits `(batch, num_classes)`; without top to `(batch, ceil(h / 8), ceil(w / 8), 512)`.

    Raises:
        InputError: if a number is less than 1, or the weights do not fit.

    Source:
        D2L 1.0.3, `d2l.resnet18`; its pixels are 0-1, here divided inside.
    """
    if num_classes < 1 or in_channels < 1:
        raise InputError(
            f"num_classes={num_classes}, in_channels={in_channels}: expected at least 1 of each."
        )
    inputs = input_tensor
    if inputs is None:
        inputs = keras.Input((None, None, in_channels), name="pixels")
    x = keras.layers.Rescaling(1 / 255, name="pixels_to_unit")(inputs)
    x = BatchNorm(name="bn1")(_conv(x, 64, 3, 1, "conv1"))
    x = _stages(keras.layers.ReLU(name="relu")(x), (2, 2, 2, 2), _BASIC, _conv)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avgpool")(x)
        x = keras.layers.Dense(num_classes, classifier_activation, dtype="float32", name="head")(x)
    model = keras.Model(keras.utils.get_source_inputs(inputs)[0], x, name="resnet18_small")
    if weights == "imagenet":
        raise InputError('weights="imagenet": resnet18_small has none. Give a weights file.')
    if weights is not None:
        load_weights(model, weights)
    return model
