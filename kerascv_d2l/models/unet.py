"""U-Net: an encoder, and a decoder that sees every one of its feature maps again."""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.batch_norm import BatchNorm
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.layers.upsampling import BilinearUpsampling, CropLike, PadToMultiple
from kerascv_d2l.models.common import dtype_scope
from kerascv_d2l.models.fcn import feature_maps, feature_network
from kerascv_d2l.models.segmentation import SegmentationModel, as_classes, as_input_shape

ENCODER_STRIDES = (2, 4, 8, 16, 32)  # of the feature maps taken from a classifier
PLAIN_FILTERS = (64, 128, 256, 512, 1024)  # as in the paper
# Half of what the paper has at each stride: with a classifier's maps of 64-512 channels beside
# them that is no bottleneck, and the two finest maps take most of the time.
BACKBONE_FILTERS = (16, 32, 64, 128, 256)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class UNet(SegmentationModel):
    """An encoder that halves the image step by step, and a decoder that doubles it again.

    At each step the decoder joins its upsampled maps with the encoder's of the same size
    (concatenation) and applies two 3 x 3 convolutions. Other than in the paper, convolutions
    keep the size and have batch norm, so that scores cover the whole image. And a 1 x 1
    convolution is added as a shortcut around each two of them: without it what an image shows
    reaches the scores through ten convolutions and ReLUs in a row, which takes many more
    updates to learn.

    Calling it with pixels 0-255, `(batch, height, width, 3)`, RGB, uint8 or float, gives float32
    scores `(batch, height, width, classes)` before the softmax. Any size works (see
    `PadToMultiple`).

    Args:
        class_names: sequence of str, background included; or int, the number of classes.
        backbone: None for the plain encoder of the paper; or the name of a network, see
            `models.backbones.names()`, or a `keras.Model` from pixels to a list of feature maps
            at strides 2, 4, 8, 16, 32.
        weights: for a backbone by name: None, "imagenet" or a file.
        filters: channels at each resolution, finest first. Plain: one number for each step of
            the encoder, so that their count sets the depth, by default (64, 128, 256, 512,
            1024). With a backbone: of the decoder at strides 1, 2, 4, 8, 16, by default (16,
            32, 64, 128, 256); stride 1 has no maps of a backbone to join.
        upsampling: "learned", a 2 x 2 transposed convolution with stride 2; or "bilinear",
            fixed, and a 1 x 1 convolution.
        shortcuts: bool: False for the paper's plain pairs of convolutions.
        image_size: `(height, width)`, for a network of one size (the NASNets need it); else None.
        colors: RGB 0-255 `(classes, 3)`, or None for VOC's.
        segmenter_options: dict, see `SegmentationModel`.
        dtype: dtype policy of the layers; None for the global one.
        name: str.

    Raises:
        InputError: if an argument is out of range, no network has that name, or the weights do
            not fit.

    Source:
        Ronneberger, Fischer, Brox: U-Net (2015). The shortcuts: Zhang, Liu, Wang: Road
        Extraction by Deep Residual U-Net (2018).
    """

    def __init__(
        self,
        class_names,
        backbone=None,
        weights=None,
        filters=None,
        upsampling="learned",
        shortcuts=True,
        image_size=None,
        colors=None,
        segmenter_options=None,
        dtype=None,
        name="unet",
        **kwargs,
    ):
        classes = as_classes(class_names, colors)
        filters = _check_settings(backbone, weights, filters, upsampling)
        input_shape = as_input_shape(image_size)
        pixels = keras.Input(input_shape, name="pixels")
        with dtype_scope(dtype) as policy:
            if backbone is None:
                network = None
                multiple = 2 ** (len(filters) - 1)
                padded = PadToMultiple(multiple, name="pad")(pixels)
                # A finest-first list of maps, the last one the deepest.
                maps = _plain_encoder(padded, filters, shortcuts)
                joined, decoder_filters = maps[:-1], filters[:-1]
            else:
                network = feature_network(backbone, weights, ENCODER_STRIDES, input_shape)
                multiple = max(ENCODER_STRIDES)
                maps = feature_maps(network, ENCODER_STRIDES, pixels)
                joined, decoder_filters = [None, *maps[:-1]], filters
            x = _decoder(maps[-1], joined, decoder_filters, upsampling, shortcuts)
        scores = Conv2D(len(classes[0]), 1, dtype="float32", name="score")(x)
        scores = CropLike(dtype="float32", name="crop")(scores, pixels)
        super().__init__(inputs=pixels, outputs=scores, name=name, **kwargs)
        settings = {
            "filters": filters,
            "upsampling": upsampling,
            "shortcuts": shortcuts,
            "image_size": image_size,
            "segmenter_options": segmenter_options,
            "dtype": policy.name,
        }
        self.describe(classes, multiple, network, settings)


def _check_settings(backbone, weights, filters, upsampling):
    """Raise for settings that do not go together; give the filters."""
    if upsampling not in ("learned", "bilinear"):
        raise InputError(f'upsampling={upsampling!r}: expected "learned" or "bilinear".')
    if filters is None:
        filters = PLAIN_FILTERS if backbone is None else BACKBONE_FILTERS
    filters = tuple(filters)
    if not filters or min(filters) < 1:
        raise InputError(f"filters={filters}: expected numbers of channels, each at least 1.")
    if backbone is None and weights is not None:
        raise InputError(
            f"weights={weights!r} without a backbone: the plain encoder has none. "
            "Name the backbone that they belong to."
        )
    if backbone is not None and len(filters) != len(ENCODER_STRIDES):
        raise InputError(
            f"filters={filters}: with a backbone expected {len(ENCODER_STRIDES)} numbers, "
            "for strides 1, 2, 4, 8 and 16."
        )
    return filters


def _decoder(x, joined, filters, upsampling, shortcuts):
    """From the deepest map to the finest, joining the encoder's map of each level, if any."""
    for level in reversed(range(len(joined))):
        x = _enlarge(x, filters[level], upsampling, f"up{level}")
        if joined[level] is not None:
            x = keras.layers.Concatenate(name=f"join{level}")([x, joined[level]])
        x = _two_convolutions(x, filters[level], shortcuts, f"decode{level}")
    return x


def _plain_encoder(pixels, filters, shortcuts):
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="pixels_to_unit")(pixels)
    maps = []
    for level, channels in enumerate(filters):
        if level:
            x = keras.layers.MaxPooling2D(2, name=f"pool{level}")(x)
        x = _two_convolutions(x, channels, shortcuts, f"encode{level}")
        maps.append(x)
    return maps


def _two_convolutions(x, channels, shortcut, name):
    before = x
    for step in (1, 2):
        x = Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv{step}")(x)
        x = BatchNorm(name=f"{name}_norm{step}")(x)
        x = keras.layers.ReLU(name=f"{name}_relu{step}")(x)
    if not shortcut:
        return x
    past = Conv2D(channels, 1, use_bias=False, name=f"{name}_past")(before)
    return keras.layers.Add(name=f"{name}_add")([x, past])


def _enlarge(x, channels, upsampling, name):
    if upsampling == "learned":
        # A kernel as large as the stride puts one of its four taps into each new pixel, so the
        # usual rule, which counts all four, would let the coarse maps fade at every level.
        # (Keras' "fan_out" of a transposed kernel is what comes in.)
        keeping = keras.initializers.VarianceScaling(4.0, mode="fan_out")
        return keras.layers.Conv2DTranspose(
            channels, 2, strides=2, kernel_initializer=keeping, name=name
        )(x)
    # Convolved first: the two commute, and the smaller map is cheaper.
    x = Conv2D(channels, 1, name=f"{name}_conv")(x)
    return BilinearUpsampling(2, name=name)(x)
