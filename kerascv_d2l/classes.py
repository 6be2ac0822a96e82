"""The classes of this package that a Keras file may hold."""

import importlib
import pkgutil

_WITH_CLASSES = ("initializers", "layers", "losses", "metrics", "models", "training.optimizers")


def register_classes():
    """Import every module of this package that has classes which Keras must know to load them.

    Keras itself finds layers, losses and metrics of this package only if they have been imported,
    and `import kerascv_d2l` imports nothing until it is used.
    """
    for name in _WITH_CLASSES:
        module = importlib.import_module(f"kerascv_d2l.{name}")
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
            importlib.import_module(found.name)
