"""Optimizers from plain values: what flags and recipes name."""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.training.optimizers import layer_rates

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def make_optimizer(
    name,
    learning_rate,
    *,
    schedule="constant",
    steps=None,
    momentum=0.0,
    weight_decay=None,
    model=None,
    multipliers=None,
):
    """Make an optimizer.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: float, at the start, for the mean of the losses of a batch.
        schedule: "constant" or "cosine", see `scheduled_rate`.
        steps: int, updates of the whole training, for a schedule that falls.
        momentum: float, of SGD.
        weight_decay: float, decoupled, or None for none.
        model: built `keras.Model`, for `multipliers`.
        multipliers: dict `{pattern: factor}` of groups of layers that learn at another rate, as
            for `layer_rates`; None for one rate.

    Returns:
        `keras.optimizers.Optimizer`.

    Raises:
        InputError: if there is no such optimizer or schedule, or `steps` is missing.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}")
    rate = scheduled_rate(learning_rate, schedule, steps)
    options = {"momentum": momentum} if name == "sgd" else {}
    if weight_decay is not None:
        options["weight_decay"] = weight_decay
    if multipliers is None:
        return OPTIMIZERS[name](rate, **options)
    return layer_rates(model, rate, multipliers, OPTIMIZERS[name], **options)


def scheduled_rate(learning_rate, schedule, steps=None):
    """Make what an optimizer takes as its learning rate.

    Args:
        learning_rate: float, at the start.
        schedule: "constant", or "cosine": to 0 along half a cosine.
        steps: int, updates of the whole training, for "cosine".

    Returns:
        float, or `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        InputError: if there is no such schedule, or it needs `steps`.
    """
    if schedule == "constant":
        return learning_rate
    if schedule != "cosine":
        raise InputError(f"schedule must be constant or cosine; got {schedule!r}")
    if not steps:
        raise InputError(f"schedule cosine needs steps, the updates of the training; got {steps!r}")
    return keras.optimizers.schedules.CosineDecay(learning_rate, steps)
