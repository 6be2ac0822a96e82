"""Loading of models that were saved as `.keras` files."""

import keras

# Importing a class registers it with Keras.
from kerascv_d2l import initializers, layers, losses, optimizers, segmentation_losses
from kerascv_d2l.layers import augmentation, detection_decoder, unpooling, upsampling
from kerascv_d2l.metrics import segmentation
from kerascv_d2l.models import fcn, ssd, transformer_net, unet

REGISTERED = (
    initializers,
    layers,
    losses,
    optimizers,
    segmentation_losses,
    augmentation,
    detection_decoder,
    unpooling,
    upsampling,
    segmentation,
    fcn,
    ssd,
    transformer_net,
    unet,
)


def load_model(path, **options):
    """Load a model that a script or `save` has written: `keras.saving.load_model`, prepared.

    Keras itself finds layers, losses and metrics of this package only if they have been imported,
    and `import kerascv_d2l` imports nothing until it is used.

    Args:
        path: a `.keras` file.
        **options: as for `keras.saving.load_model`, such as `compile=False`.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if the file is not there, or is no Keras model.
    """
    return keras.saving.load_model(path, **options)
