import io

import numpy as np
import pytest
from artists import dashed, figure_of
from PIL import Image

from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting import curves

pytestmark = pytest.mark.quick

NAN = float("nan")


def test_history_panels_pair_training_and_validation():
    history = {
        "epoch": [0, 1, 2],
        "loss": [3.0, 2, 1],
        "class_error": [0.3, 0.2, 0.1],
        "bbox_mae": [0.1, 0.1, 0.1],
        "learning_rate": [0.2, 0.1, 0.05],
        "val_loss": [4.0, NAN, 2],
        "val_class_error": [0.4, 0.3, 0.2],
        "val_map_50": [NAN, NAN, 0.9],
        "val_voc_map": [NAN] * 3,
        "cls_loss": [1.0, 1, 1],
        "images_per_second": [30.0, 31, 32],
        "accuracy": [0.1, 0.2, 0.3],
    }
    figure = figure_of(curves.draw_history, history)
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    names = {title: [line.get_label() for line in axes.lines] for title, axes in panels.items()}
    assert names == {
        "loss": ["loss", "val_loss", "cls_loss"],
        "error (lower is better)": ["class_error", "bbox_mae", "val_class_error"],
        "score, 0 to 1 (higher is better)": ["val_map_50", "val_voc_map: no values", "accuracy"],
        "learning rate": ["learning_rate"],
        "images per second": ["images_per_second"],
    }
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    assert all(dashed(line) == name.startswith("val_") for name, line in lines.items())
    assert lines["loss"].get_color() == lines["val_loss"].get_color()
    assert lines["loss"].get_color() != lines["cls_loss"].get_color()
    assert lines["class_error"].get_color() == lines["val_class_error"].get_color()
    assert lines["loss"].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert lines["val_loss"].get_xydata().tolist() == [[1, 4], [3, 2]]
    assert lines["val_map_50"].get_xydata().tolist() == [[3, 0.9]]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert panels["score, 0 to 1 (higher is better)"].get_ylim() == (0, 1.02)
    assert all(axes.get_legend() is not None for axes in figure.axes)


@pytest.mark.parametrize("epochs", [1, 2, 7, 200])
def test_history_ticks_are_whole_epochs_and_every_point_is_in_view(tmp_path, epochs):
    values = list(np.linspace(2, 1, epochs))
    figure = figure_of(curves.draw_history, {"loss": values, "val_loss": values})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < 1 <= epochs < high
    ticks = [t for t in axes.get_xticks() if low <= t <= high]
    assert ticks
    assert all(t == int(t) for t in ticks)
    # A single point is only seen by its marker.
    assert (axes.lines[0].get_marker() == "o") == (epochs <= 30)
    curves.draw_history(tmp_path / "h.png", {"loss": values})
    with Image.open(tmp_path / "h.png") as opened:
        assert opened.size == (560, 400)
        blue = np.asarray(opened.convert("RGB")).astype(int) - [0x1F, 0x77, 0xB4]
    assert np.count_nonzero((abs(blue).sum(axis=-1) < 12)[60:330, 80:400]) > 10


def test_history_errors_and_all_nan(tmp_path):
    for history in ({}, {"loss": []}, {"epoch": [0]}):
        with pytest.raises(InputError, match="empty"):
            curves.draw_history(tmp_path / "h.png", history)
    with pytest.raises(InputError, match="'val_loss': 1"):
        curves.draw_history(tmp_path / "h.png", {"loss": [1, 2], "val_loss": [1]})
    with pytest.raises(InputError, match="'loss'"):
        curves.draw_history(tmp_path / "h.png", {"loss": ["a"]})
    with pytest.raises(InputError, match="'loss'"):
        curves.draw_history(tmp_path / "h.png", {"loss": 3})
    assert not list(tmp_path.iterdir())
    curves.draw_history(tmp_path / "h.png", {"loss": [NAN, float("inf")], "val_map": [None, 1]})
    assert (tmp_path / "h.png").stat().st_size > 1000


def test_a_canvas_of_its_own():
    assert figure_of(curves.draw_history, {"loss": [1]}).canvas.manager is None  # not pyplot's


@pytest.mark.quick
def test_curves_of_the_book(tmp_path):
    history = {
        "loss": [2.5, 1.0, float("nan")],
        "seconds": [1, 2, 3],
        "val_accuracy": [0.1, 0.5, 0.75],
        "accuracy": [0.2, 0.6, 0.9],
    }
    (axes,) = figure_of(curves.draw_curves, history).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "train loss": [[1, 2.5], [2, 1.0]],
        "train acc": [[1, 0.2], [2, 0.6], [3, 0.9]],
        "test acc": [[1, 0.1], [2, 0.5], [3, 0.75]],
    }
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 2.5
    curves.draw_curves(tmp_path / "curves.png", history)
    stream = io.BytesIO()
    curves.draw_curves(stream, history)
    assert (tmp_path / "curves.png").read_bytes()[:4] == stream.getvalue()[:4] == b"\x89PNG"
    (axes,) = figure_of(curves.draw_curves, history, ("seconds",)).axes
    assert [line.get_label() for line in axes.lines] == ["seconds"]
    (axes,) = figure_of(curves.draw_curves, {"pixel_accuracy": [0.5], "bbox_mae": [0.1]}).axes
    assert [line.get_label() for line in axes.lines] == ["train acc", "bbox mae"]
    with pytest.raises(InputError, match="history has none of loss, accuracy, val_accuracy"):
        curves.draw_curves(stream, {"seconds": [1]})
