"""The book's words for training a classifier: thin ones, over `compile` and `fit`.

What the book does by hand on its list of devices, Keras does under the strategy in whose scope the
model was made (`make_strategy`).
"""

import keras
import numpy as np

from kerascv_d2l.data.cifar10 import load_cifar10
from kerascv_d2l.devices import resolve_jit_compile
from kerascv_d2l.distribution import describe_strategy
from kerascv_d2l.training.callbacks import AverageReplicas, Throughput
from kerascv_d2l.training.curves import LiveCurves


def train_batch_ch13(net, X, y, loss, trainer):  # noqa: N803 (the book's names)
    """Train on one batch: `train_on_batch`.

    Args:
        net: `keras.Model` that gives logits; compiled here unless it is already with this
            `trainer` and `loss`.
        X: images of a batch.
        y: int `(batch,)`, their classes.
        loss: `keras.losses.Loss` of classes and logits.
        trainer: `keras.optimizers.Optimizer`.

    Returns:
        `(sum of the losses, number of images classed right)` over the batch, floats, as seen
        while it learnt.

    Source:
        D2L 1.0.3, section 14.1.
    """
    _compile(net, loss, trainer)
    net.reset_metrics()  # of this batch only
    logs = net.train_on_batch(X, y, return_dict=True)
    return float(logs["loss"]) * len(y), float(logs["accuracy"]) * len(y)


def train_ch13(net, train_iter, test_iter, loss, trainer, num_epochs, *, callbacks=()):
    """Train a classifier and test it after each epoch: `compile` and `fit`.

    In a notebook the curves grow with each epoch (`LiveCurves`). At the end it prints the book's
    two lines: loss and accuracies, and images a second, waiting for data included.

    Args:
        net: `keras.Model` that gives logits, made in the scope of the strategy that
            it is to train with.
        train_iter: `tf.data.Dataset` of `(images, classes)` batches, one epoch.
        test_iter: the same, to test on; None for no test.
        loss: `keras.losses.Loss` of classes and logits, the mean over a batch.
        trainer: `keras.optimizers.Optimizer`. The book's rates hold for Adam; with SGD, see
            `mean_loss_rates`.
        num_epochs: int.
        callbacks: further Keras callbacks.

    Returns:
        dict of name -> list, one value an epoch: what `fit` returns as `History.history`, with
        `images_per_second`, where the last batch of an epoch counts as full.

    Source:
        D2L 1.0.3, section 14.1.
    """
    _compile(net, loss, trainer)
    first, _ = next(iter(train_iter))
    history = net.fit(
        train_iter,
        validation_data=test_iter,
        epochs=num_epochs,
        callbacks=[AverageReplicas(), Throughput(len(first)), *callbacks, LiveCurves()],
        verbose=0,
    ).history
    text = f"loss {history['loss'][-1]:.3f}, train acc {history['accuracy'][-1]:.3f}"
    if test_iter is not None:
        text += f", test acc {history['val_accuracy'][-1]:.3f}"
    print(text)
    rate = np.mean([r for r in history["images_per_second"] if np.isfinite(r)] or [np.nan])
    print(f"{rate:.1f} examples/sec on {describe_strategy(net.distribute_strategy)}", flush=True)
    return history


def train_with_data_aug(
    train_augs, test_augs, net, lr=0.001, *, batch_size=256, num_epochs=10, data=None
):
    """Train a classifier on augmented CIFAR-10 with Adam: `load_cifar10`, `compile` and `fit`.

    Args:
        train_augs: as `load_cifar10`: an augmentation layer, several in a `keras.Sequential`, or
            None.
        test_augs: the same for the test pictures; usually None.
        net: `keras.Model` from pixels 0-255 `(batch, 32, 32, 3)` to logits of ten classes, as
            `resnet18(10)`.
        lr: learning rate.
        batch_size: int, the book's on all devices together.
        num_epochs: int, the book's.
        data: as `load_cifar10`: what to train on; None for CIFAR-10 if it is at hand.

    Returns:
        dict, as `train_ch13`.

    Source:
        D2L 1.0.3, section 14.1.
    """
    return train_ch13(
        net,
        load_cifar10(True, train_augs, batch_size, data=data),
        load_cifar10(False, test_augs, batch_size, data=data),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.optimizers.Adam(lr),
        num_epochs,
    )


def _compile(net, loss, trainer):
    if net.compiled:
        inner = getattr(net.optimizer, "inner_optimizer", net.optimizer)  # float16: it is wrapped
        if inner is trainer and net.loss is loss:
            return
    with net.distribute_strategy.scope():
        net.compile(trainer, loss, metrics=["accuracy"], jit_compile=resolve_jit_compile("auto"))
