"""What all training scripts share: flags, start-up, checkpoints, history, results.

A script is a parser, data, a model, and then

    run = Run.start(args, "train_ssd")
    run.fit(model, make_train_dataset, steps_per_epoch=..., epochs=args.epochs, ...)
    return run.finish(metrics, next_command="...")

Names are looked up when first used: the parser must not wait for TensorFlow.
"""

import importlib

# module of this package -> the names of it that are public here
_MODULES = {
    "arguments": [
        "add_archive_arguments",
        "add_backbone_arguments",
        "add_optimizer_arguments",
        "add_common_arguments",
        "add_run_arguments",
        "add_schedule_argument",
        "check_data",
        "fraction",
        "image_size",
        "non_negative_float",
        "non_negative_int",
        "positive_float",
        "positive_int",
    ],
    "optimization": ["optimizer_class", "scheduled_rate"],
    "startup": ["import_tensorflow", "run_main", "set_up"],
    "checkpoints": ["load_checkpoint", "save_checkpoint"],
    "callbacks": ["AverageReplicas", "Throughput"],
    "old_callbacks": [
        "Progress",
        "StatusLine",
        "StopOnNaN",
        "DivergenceError",
        "bar",
        "learning_rates",
    ],
    "curves": ["LiveCurves"],
    "runs": ["Run"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_HOME))
