"""A small classifier whose features judge generated images, where no pretrained one is at hand."""

import keras
import numpy as np

from kerascv_d2l.data.splits import CLASSIFICATION
from kerascv_d2l.devices import resolve_jit_compile
from kerascv_d2l.errors import InputError
from kerascv_d2l.export import load_model
from kerascv_d2l.metrics.generation import FeatureScores
from kerascv_d2l.models.classifier import Classifier
from kerascv_d2l.models.common import dtype_scope
from kerascv_d2l.models.generator import PIXEL_MAX, encoder

FEATURES_FILE = "features.keras"  # of a run
CLASSES, TURNS = "classifier", "turns"  # what the scores are named for
TURN_NAMES = ("upright", "a quarter turn", "half a turn", "three quarter turns")
NO_CLASSES = ("unknown",)
MOST_IMAGES, EPOCHS, BATCH_SIZE, RATE, WIDTH = 5000, 5, 64, 2e-3, 32
NUM_IMAGENET = 1000


def train_features(split, seed=0):
    """Train a classifier on images for some seconds.

    Args:
        split: `Split` with images in an array, all of one size. If they have classes, it learns
            these and is called "classifier"; else by how many quarter turns images have been
            turned, and is called "turns".
        seed: int.

    Returns:
        `Classifier` of square images, compiled.

    Source:
        Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image
        Rotations".
    """
    side = min(split.images.shape[1:3])
    labelled = split.task == CLASSIFICATION
    count = min(len(split), MOST_IMAGES if labelled else MOST_IMAGES // len(TURN_NAMES))
    part = split.spread(count).fitted((side, side))
    images = part.images
    if labelled:
        labels = part.targets["label"]
        names = int(split.targets["label"].max()) + 1
    else:
        images = np.concatenate([np.rot90(images, k, (1, 2)) for k in range(len(TURN_NAMES))])
        labels, names = np.repeat(np.arange(len(TURN_NAMES)), count), TURN_NAMES
    keras.utils.set_random_seed(seed)
    with dtype_scope("float32"):
        pixels = keras.Input((side, side, 3))
        network = encoder((side, side), 3, WIDTH, None)
        scaled = keras.layers.Rescaling(2 / PIXEL_MAX, -1)(pixels)
        model = Classifier(
            keras.Model(pixels, network(scaled)),
            names,
            image_size=(side, side),
            crop_pct=1.0,
            name=CLASSES if labelled else TURNS,
        )
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=resolve_jit_compile("auto"),
    )
    model.fit(images, labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    return model


def network_features(backbone, weights):
    """Make the classifier of ImageNet's classes that weights come from.

    Args:
        backbone: str, as for `Classifier`.
        weights: str, likewise; without a classifier on top it serves as well, but there is no
            inception score.

    Returns:
        `Classifier`.

    Raises:
        InputError: as `Classifier`.
    """
    with dtype_scope("float32"):
        plain = Classifier(backbone, NO_CLASSES, weights)  # what is wrong shows here
        try:
            units = {k: k for k in range(NUM_IMAGENET)}
            return Classifier(backbone, NUM_IMAGENET, weights, head_init=units)
        except InputError:
            return plain


def feature_scores(classifier, real):
    """Make the `FeatureScores` of a classifier from `train_features` or `network_features`."""
    known = classifier.class_names not in (TURN_NAMES, NO_CLASSES)
    return FeatureScores(classifier, real, classifier.name, has_classes=known)


def load_features(path):
    """Load what judged the images of a run.

    Raises:
        InputError: if there is no such file, or it is something else.
    """
    model = load_model(path)
    if not isinstance(model, Classifier):
        raise InputError(f"{path}: a {type(model).__name__}; wanted a classifier, for its features")
    return model
