"""Live curves in a made-up notebook."""

import sys
import types

import numpy as np
import pytest

from kerascv_d2l import LiveCurves


@pytest.fixture
def notebook(monkeypatch):
    """What IPython is asked to show, as `(first or update, image's bytes)`."""
    shown = []

    class Handle:
        def update(self, pixels):
            shown.append(("update", pixels))

    def display(pixels, display_id):
        assert display_id is True
        shown.append(("first", pixels))
        return Handle()

    ipython = types.ModuleType("IPython")
    inside = types.ModuleType("IPython.display")
    inside.display, inside.Image = display, lambda data, format: data
    ipython.display, ipython.version_info = inside, (9, 0)  # Matplotlib asks for the latter
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", inside)
    return shown


def test_live_curves(notebook):
    curves = LiveCurves({"loss": [3.0]})
    curves.on_epoch_end(1, {"loss": 2.0, "accuracy": 0.5})
    curves.on_epoch_end(2, {"loss": 1.0, "accuracy": 0.7})
    assert curves.history["loss"] == [3.0, 2.0, 1.0]
    assert np.isnan(curves.history["accuracy"][0]) and curves.history["accuracy"][1:] == [0.5, 0.7]
    assert [kind for kind, _ in notebook] == ["first", "update"]
    assert all(pixels.startswith(b"\x89PNG") for _, pixels in notebook)
    assert notebook[0][1] != notebook[1][1]


def test_no_curves_outside_a_notebook(notebook, monkeypatch):
    for shell in (None, object()):  # no IPython at work; IPython in a terminal
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda shell=shell: shell)
        LiveCurves().on_epoch_end(0, {"loss": 2.0})
    monkeypatch.delitem(sys.modules, "IPython")
    LiveCurves().on_epoch_end(0, {"loss": 2.0})
    assert not notebook
