"""Loading of models that were saved as `.keras` files."""

import importlib

import keras

# Importing a class registers it with Keras.
_REGISTERING = (
    "initializers",
    "layers",
    "layers.augmentation",
    "layers.detection_decoder",
    "layers.upsampling",
    "losses.detection",
    "losses.segmentation",
    "metrics.segmentation",
    "models.fcn",
    "models.fpn",
    "models.ssd",
    "models.transformer_net",
    "models.unet",
    "training.optimizers",
)
for _module in _REGISTERING:
    importlib.import_module(f"kerascv_d2l.{_module}")


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
