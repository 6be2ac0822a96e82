"""The optimizer that the flags of a training script ask for."""

import keras

_CLASSES = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}


def scheduled_rate(learning_rate, schedule, steps):
    """Make what an optimizer takes as its learning rate.

    Args:
        learning_rate: float, at the start.
        schedule: `"constant"`, or `"cosine"`: down to 0 along half a cosine.
        steps: int, updates of the whole training.

    Returns:
        float, or `keras.optimizers.schedules.LearningRateSchedule`.
    """
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return learning_rate


def optimizer_class(args):
    """Look up the optimizer of `add_optimizer_arguments`.

    Args:
        args: namespace with `optimizer` and `momentum`.

    Returns:
        Tuple of a class of `keras.optimizers` and a dict of arguments for it:
        the momentum of SGD.
    """
    arguments = {"momentum": args.momentum} if args.optimizer == "sgd" else {}
    return _CLASSES[args.optimizer], arguments
