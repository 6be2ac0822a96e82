"""What all drawings share: colours of classes, pixels as screens show them, text, files."""

import colorsys
import contextlib
import functools
import math
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from kerascv_d2l.errors import InputError
from kerascv_d2l.files import whole

# Of the first classes. Far apart, strong enough on photographs; not white, which
# is the ground truth's.
CLASS_COLORS = (
    "#ff3b30", "#0a84ff", "#ffcc00", "#34c759", "#bf5af2",
    "#ff8c1a", "#00d5d5", "#ff5fa8", "#8fce00", "#a2714f",
)  # fmt: skip
_GOLDEN_ANGLE = 0.381966  # of a full turn: hues that follow each other are far apart

# Floats up to here are taken as 0-1 with some overshoot (jitter, interpolation), above as 0-255.
UNIT_RANGE_LIMIT = 2.0

DPI = 100
GAP_INCHES = 0.08  # between the images of a grid
MIN_WIDTH_INCHES = 6.5  # the legend's heading fits
LEGEND_ENTRY_INCHES = 2.0
MAX_LEGEND_CLASSES = 20
MAX_NAME_LETTERS = 24  # of a class in a legend, beside a matrix or over an image

# Fonts with the characters that Matplotlib's own lacks, as systems come with them.
FALLBACK_FONTS = """
    Noto Sans CJK SC, Noto Sans CJK JP, Noto Sans CJK KR, Noto Sans SC, Noto Sans JP,
    Noto Sans KR, Source Han Sans SC, WenQuanYi Micro Hei, WenQuanYi Zen Hei, Droid Sans Fallback,
    IPAexGothic, IPAGothic, NanumGothic, Microsoft YaHei, SimHei,
    Yu Gothic, Meiryo, MS Gothic, Malgun Gothic, PingFang SC,
    Hiragino Sans GB, Hiragino Sans, Apple SD Gothic Neo, Arial Unicode MS
"""
_told = set()  # characters for which it was said that no font has them


def to_uint8(image):
    """Convert an image to what screens show.

    Args:
        image: `(height, width)`, `(height, width, 1)` or `(height, width, 3)`; uint8 or
            other integers 0-255, or floats 0-1 or 0-255: an image with a value
            above 2 is taken as 0-255. Values outside are clipped.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: if the shape is another.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise InputError(
            f"image has shape {image.shape}; pass (height, width, 3), or one channel for grey."
        )
    if image.dtype != np.uint8:
        if image.dtype == bool or not np.issubdtype(image.dtype, np.integer):
            image = image.astype(np.float32)
            if np.nanmax(image) <= UNIT_RANGE_LIMIT:
                image = image * 255
        image = np.clip(np.rint(np.nan_to_num(image)), 0, 255).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def grid(count, columns, width, height, heading=0.0):
    """Make a figure for `count` images in rows.

    Args:
        count: int, at least 1.
        columns: int: cells of a row, at most.
        width: float, inches of a cell.
        height: float, inches of a cell.
        heading: float, inches above all.

    Returns:
        `(figure, axes)`: `matplotlib.figure.Figure`; array of at least `count` axes, none drawn.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    size = (columns * width, rows * height + heading)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each in axes:
        each.set_axis_off()
    return figure, axes


def class_color(class_index):
    """Give the colour of a class: `#rrggbb`, the same in every drawing, another for every class."""
    index = int(class_index)
    if index < len(CLASS_COLORS):
        return CLASS_COLORS[index]
    further = index - len(CLASS_COLORS)
    lightness = (0.5, 0.35, 0.7)[further % 3]
    hue = further * _GOLDEN_ANGLE % 1
    rgb = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def shortened(name):
    """Cut a long name of a class, a str, to `MAX_NAME_LETTERS`, with an ellipsis at its end."""
    name = str(name)
    return name if len(name) <= MAX_NAME_LETTERS else name[: MAX_NAME_LETTERS - 1] + "…"


def save(path, figure):
    """Write a figure to a file, which appears only when it is whole.

    Text is drawn as it is: "$" starts no formula, and characters that the font lacks come
    from another font of this machine.

    Args:
        path: the file, `.png` or another ending that Matplotlib writes.
        figure: `matplotlib.figure.Figure`.

    Raises:
        InputError: if the file's ending is not that of an image.
    """
    suffix = Path(path).suffix.lower()
    if suffix.removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: images cannot be written as {suffix!r}; use .png.")
    for text in figure.findobj(Text):
        as_written(text)
    # Labels of ticks may be made while the figure is drawn.
    with (
        matplotlib.rc_context({"text.parse_math": False}),
        without_glyph_warnings(),
        whole(path) as temporary,
    ):
        figure.canvas.print_figure(temporary, dpi=DPI)


@contextlib.contextmanager
def without_glyph_warnings():
    """Let Matplotlib not say, letter by letter, which no font has: `fallback_families` does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def as_written(text):
    """Let a `matplotlib.text.Text` draw what it says: no formulas, every character; return it."""
    text.set_parse_math(False)
    families = [*text.get_fontfamily(), *fallback_families(text.get_text())]
    text.set_fontfamily(list(dict.fromkeys(families)))
    return text


def fallback_families(text):
    """Find the fonts that draw the characters which Matplotlib's own font lacks.

    Where this machine has none, it is said once.

    Args:
        text: str.

    Returns:
        list of str: names of font families, usually empty.
    """
    missing = {c for c in text if not c.isspace()} - _characters(_own_font())
    families = []
    for name, path in _other_fonts() if missing else ():
        if found := missing & _characters(path):
            families.append(name)
            missing -= found
        if not missing:
            break
    if new := missing - _told:
        _told.update(new)
        print(
            f"no font on this machine has {''.join(sorted(new))}: drawings show boxes in place of "
            "them; install a font, such as Noto Sans CJK"
        )
    return families


def font_file(text):
    """Find one font file for a text, for Pillow, which does not look into a second one.

    Args:
        text: str.

    Returns:
        str: path of Matplotlib's own font, or of the first that has what that one lacks.
    """
    families = fallback_families(text)
    return dict(_other_fonts())[families[0]] if families else _own_font()


def _own_font():
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.lru_cache
def _characters(path):
    """Set of the characters of a font file."""
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))


def _other_fonts():
    """Names and files of the installed fonts: the known fallbacks first, in their order."""
    installed = {}
    for entry in font_manager.fontManager.ttflist:
        normal = entry.style == "normal" and entry.weight in (400, "normal", "regular")
        # Matplotlib's last resort draws boxes, too.
        if normal and not entry.name.startswith("Last Resort"):
            installed.setdefault(entry.name, entry.fname)
    known = [name.strip() for name in FALLBACK_FONTS.split(",")]
    known = [name for name in known if name in installed]
    others = sorted(installed.keys() - set(known))
    return [(name, installed[name]) for name in [*known, *others]]
