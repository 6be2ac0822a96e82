"""A loss that became NaN names the image at fault, or says that the data is fine."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import Compose, Split
from kerascv_d2l.training.divergence import explain_by_batches, fault_of_batch
from kerascv_d2l.training.run import DivergenceError, Run

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 10, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3


def model_of(learning_rate=0.01):
    model = keras.Sequential(
        [keras.Input((8, 10, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate), loss, jit_compile=False)
    return model


def train(out, make_data, model=None, images=IMAGES, **settings):
    """`make_data` gives the batches of a run."""
    model = model or model_of()
    names = [f"{k}.png" for k in range(12)]
    split = Split(images, {"label": LABELS}, names)
    run = Run(out, {"class_names": ["a", "b", "c"], "epochs": 3} | settings, task="toy")
    try:
        run.watch(model)
        data = make_data(run, split)
        model.fit(data, epochs=3, steps_per_epoch=3, callbacks=[run], verbose=0, shuffle=False)
    finally:
        run.close()


def of_run(run, split):
    return run.batches(split, (8, 10), 4, transform=Compose([]), seed=3)


def test_pixels_that_are_nan_name_the_image(tmp_path):
    """An image with NaN pixels in an array of floats; the order is that of training."""
    images = IMAGES.astype(np.float32)
    images[7, 2, 3] = np.nan
    with pytest.raises(DivergenceError) as caught:
        train(tmp_path / "a", of_run, images=images)
    assert "of epoch 1: in step " in str(caught.value) or "in epoch 1: in step" in str(caught.value)
    assert ", 7.png has pixels that are NaN or infinite; no epoch" in str(caught.value)


def test_a_large_learning_rate_is_what_is_left(tmp_path):
    with pytest.raises(DivergenceError) as caught:
        train(tmp_path / "a", of_run, model_of(1e36), mixed_precision=True)
    text = "the batches are fine, so the steps may be too large: start again with a smaller "
    assert text + "learning_rate, or without mixed_precision; " in str(caught.value)


def test_weights_that_are_nan_before_the_first_step(tmp_path):
    model = model_of()
    model.layers[-1].bias.assign([0, np.nan, 0])
    with pytest.raises(
        DivergenceError, match=r"dense.*/bias of .* is NaN .* before the first step"
    ):
        train(tmp_path / "a", of_run, model)


def test_labels_of_one_s_own_data(tmp_path):
    """A data set of one's own, with float labels, one of them NaN."""
    labels = np.full((12, 1), 0.5, np.float32)
    labels[9] = np.nan
    own = tf.data.Dataset.from_tensor_slices((IMAGES.astype(np.float32), labels))

    def make(initial_epoch=0):
        return own.batch(4).repeat()

    def data(run, split):
        run.explain_divergence = explain_by_batches(make)
        return make()

    model = keras.Sequential(model_of().layers[:-1] + [keras.layers.Dense(1)])
    model.build((None, 8, 10, 3))
    model.compile(keras.optimizers.SGD(1e-9), "mse", jit_compile=False)
    with pytest.raises(DivergenceError, match="in step 3, image 2 has label of NaN or infinity"):
        train(tmp_path / "a", data, model)


GOOD_BOXES = np.tile([[0.1, 0.2, 0.5, 0.6], [-1, -1, -1, -1]], (3, 1, 1)).astype(np.float32)
GOOD_CLASSES = np.tile([1, -1], (3, 1))


def objects(boxes=None, classes=None):
    y = {"boxes": GOOD_BOXES.copy(), "classes": GOOD_CLASSES.copy()}
    y["boxes"][2, 0] = y["boxes"][2, 0] if boxes is None else boxes
    y["classes"][2, 0] = 1 if classes is None else classes
    return y


MASKS = np.zeros((3, 8, 10), int)
MASKS[0, 0] = 255


@pytest.mark.quick
@pytest.mark.parametrize(
    ("y", "wanted"),
    [
        (objects(), None),
        (objects(boxes=[0.1, 0.2, np.nan, 0.6]), "boxes of NaN or infinity"),
        (objects(boxes=[0.1, 0.6, 0.5, 0.6]), "a box without area"),
        (objects(boxes=[0.5, 0.2, 0.1, 0.6]), "a box without area"),
        (objects(classes=3), "the class 3, but there are classes 0 to 2"),
        (np.concatenate([GOOD_CLASSES[..., None], GOOD_BOXES], -1), None),
        (np.concatenate([objects(classes=4)["classes"][..., None], GOOD_BOXES], -1), "the class 4"),
        (np.array([0, 1, 2]), None),
        (np.array([0, 1, -1]), "the class -1"),
        (np.array([0, 1, 3.0]), "the class 3"),
        (MASKS, None),
        (np.where(np.arange(3)[:, None, None] == 2, 3, MASKS), "the class 3"),
        ((np.array([0, 1, 2]), np.array([1, 1, np.inf])), "weight of NaN or infinity"),
    ],
)
def test_every_kind_of_label(y, wanted):
    batch = (IMAGES[:3], *y) if isinstance(y, tuple) else (IMAGES[:3], y)
    found = fault_of_batch(batch, 3)
    assert found is None if wanted is None else (found[0] == 2 and wanted in found[1])


@pytest.mark.quick
def test_only_images_and_pixels_out_of_scale():
    assert fault_of_batch(IMAGES) is None
    images = IMAGES.astype(np.float32)
    images[5, 0, 0, 0] = 65535
    wanted = (5, "has pixels of up to 65535, where 0 to 255 are wanted")
    assert fault_of_batch((images, LABELS)) == wanted


@pytest.mark.quick
def test_steps_before_are_not_looked_at():
    bad = (np.full((1, 2, 2, 3), np.nan), np.array([0]))
    explain = explain_by_batches(lambda initial_epoch: itertools.repeat(bad))
    assert explain(2, range(3, 5)) == "in step 4, image 1 has pixels that are NaN or infinite"
    good = (np.zeros((1, 2, 2, 3)), np.array([0]))
    explain = explain_by_batches(lambda initial_epoch: [bad, good, bad])
    assert explain(0, range(1, 2)) is None
