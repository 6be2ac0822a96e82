"""What the tests ask of Matplotlib's artists."""

from matplotlib.patches import Rectangle


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def corners(rectangle):
    x, y = rectangle.get_xy()
    return [x, y, x + rectangle.get_width(), y + rectangle.get_height()]


def dashed(artist):
    return artist.get_linestyle() not in ("-", "solid")
