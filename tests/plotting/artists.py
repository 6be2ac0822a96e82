"""What the tests ask of Matplotlib's artists."""

import sys
from unittest import mock

from matplotlib.patches import Rectangle


def figure_of(draw, *arguments):
    """The figure that a function of `plotting` would write."""
    with mock.patch.object(sys.modules[draw.__module__], "save") as save:
        draw("a.png", *arguments)
    return save.call_args.args[1]


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def corners(rectangle):
    x, y = rectangle.get_xy()
    return [x, y, x + rectangle.get_width(), y + rectangle.get_height()]


def dashed(artist):
    return artist.get_linestyle() not in ("-", "solid")
