"""The drawings of a classifier: every count in its cell, every image under its own words."""

import numpy as np
import pytest
from artists import figure_of
from PIL import Image

from kerascv_d2l import draw_confusion, draw_mistakes
from kerascv_d2l.errors import InputError
from kerascv_d2l.plotting import classification

pytestmark = pytest.mark.quick
NAMES = ["ant", "bee", "a class with a long name"]
MATRIX = np.array([[8, 2, 0], [5, 15, 0], [0, 1, 3]])  # rows: true classes; not symmetric


def test_confusion_counts_stand_in_their_cells():
    axes = figure_of(classification.draw_confusion, MATRIX, NAMES).axes[0]
    texts = {tuple(map(int, t.get_position())): int(t.get_text()) for t in axes.texts}
    # A text is placed by column, then row; cells without an image stay empty.
    expected = {(c, r): MATRIX[r, c] for r, c in np.ndindex(3, 3) if MATRIX[r, c]}
    assert texts == expected
    assert axes.get_title() == "26 of 34 right (76.5%)"
    assert [t.get_text() for t in axes.get_xticklabels()][:2] == ["ant", "bee"]
    found = [t.get_text().split()[-1] for t in axes.get_yticklabels()]
    assert found == ["80%", "75%", "75%"]  # of the true class: recall
    assert (axes.get_xlabel(), axes.get_ylabel()[:10]) == ("predicted", "true class")


def test_confusion_colours_are_blue_on_the_diagonal_and_red_beside_it():
    cells = (
        figure_of(classification.draw_confusion, MATRIX, NAMES).axes[0].images[0].get_array()
    )  # (3, 3, 4)
    assert cells[1, 1, 2] > cells[1, 1, 0] + 0.1  # bees predicted as bees
    assert cells[1, 0, 0] > cells[1, 0, 2] + 0.1  # bees predicted as ants
    assert cells[1, 0, 2] < cells[0, 1, 2] - 0.01  # 5 of 20 are a larger share than 2 of 10
    np.testing.assert_allclose(cells[0, 2, :3], 1, atol=0.06)  # nothing there: nearly white


def test_confusion_of_many_classes_has_no_letters_in_cells():
    names = [str(k) for k in range(200)]
    assert not figure_of(classification.draw_confusion, np.eye(200, dtype=int), names).axes[0].texts


def test_confusion_errors_and_file(tmp_path):
    draw_confusion(tmp_path / "a.png", MATRIX, NAMES)
    assert Image.open(tmp_path / "a.png").size[0] > 200
    with pytest.raises(InputError, match=r"shape \(3, 3\); with 2 class names pass \(2, 2\)"):
        draw_confusion(tmp_path / "b.png", MATRIX, NAMES[:2])


def test_each_mistake_has_its_image_verdict_and_name():
    colors = [10, 90, 200]
    images = [np.full((4, 6, 3), color, np.uint8) for color in colors]
    labels = [1, 0, 2]
    probabilities = np.array([[0.9, 0.08, 0.02], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    files = ["x/1.jpg", "x/2.jpg", "x" * 60 + "/end.jpg"]
    figure = figure_of(classification.draw_mistakes, images, files, labels, probabilities, NAMES, 2)
    assert len(figure.axes) == 4  # two columns: the last place stays empty
    titles = [axes.get_title().split("\n") for axes in figure.axes]
    assert titles[0] == ["bee 0.08", "predicted ant 0.90", "x/1.jpg"]
    assert titles[1] == ["ant 0.60", "right", "x/2.jpg"]
    assert titles[2][0].endswith("0.30") and titles[2][1] == "predicted bee 0.50"
    assert titles[2][2].endswith("end.jpg")
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes[:3]] == colors
    assert figure.axes[0].title.get_color() != figure.axes[1].title.get_color()


def test_mistakes_errors(tmp_path):
    with pytest.raises(InputError, match="as many of each"):
        draw_mistakes(tmp_path / "a.png", [np.zeros((2, 2, 3))], [], [0], [[1.0]], ["a"])
    with pytest.raises(InputError, match="at least one"):
        draw_mistakes(tmp_path / "a.png", [], [], [], np.zeros((0, 2)), ["a", "b"])
