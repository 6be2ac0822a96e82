"""The computer-vision chapter of *Dive into Deep Learning* for TensorFlow and Keras 3.

The book's names are importable from here. Each is looked up when it is first
used, so that `import kerascv_d2l` itself imports neither TensorFlow nor Keras.
"""

import importlib
from pathlib import Path

__version__ = "0.1.0"

# The stub file beside this one names all that is public. Editors read it too, so that completion
# and go-to-definition work although nothing is imported until it is used.
_HOME = {}
for _line in Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines():
    _words = _line.strip(" ,").split()
    if _words[:1] == ["from"]:
        _module = _words[1]
    if "as" in _words:
        _HOME[_words[-1]] = _module
_SUBMODULES = ("export", "style_transfer")

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_HOME))
