"""Detections: a grid of images with boxes and ground truth, and boxes on one image."""

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke, withStroke
from PIL import Image, ImageColor, ImageDraw, ImageFont

from kerascv_d2l.errors import InputError
from kerascv_d2l.files import whole
from kerascv_d2l.ops.checks import as_targets
from kerascv_d2l.plotting.book import bbox_to_rect
from kerascv_d2l.plotting.common import (
    DPI,
    GAP_INCHES,
    LEGEND_ENTRY_INCHES,
    MAX_LEGEND_CLASSES,
    MIN_WIDTH_INCHES,
    as_written,
    class_color,
    font_file,
    save,
    to_uint8,
    without_glyph_warnings,
)
from kerascv_d2l.plotting.instances import overlay_instances

TRUTH_COLOR = "white"
TRUTH_DASHES = (0, (4, 3))
IGNORED_COLOR = "#bbbbbb"
IGNORED_DOTS = (0, (1, 2))
CELL_INCHES = 3.2  # the longer side of an image in the grid
LABEL_PAD_POINTS = 1.5
# Objects of an image, with masks and without; of more, names and thick lines would hide them.
MOST_NAMED = {True: 20, False: 40}
THIN = 0.7


def draw_detections(path, images, detections, labels, class_names, score_threshold=0.5, columns=4):
    """Write a grid of images with predicted boxes and ground truth.

    Predicted boxes are solid, in the colour of their class, with class and score;
    ground truth is dashed white, with the class below the box where there is more
    than one class; ignored objects are dotted grey. A legend says so. Predicted masks are
    half-transparent, each in a colour of its own; those of the ground truth are white contours.
    Where there are many objects, names are left out, and lines are thin.

    Args:
        path: file to write, `.png`.
        images: `(batch, height, width, 3)`, or a list of images of any sizes; uint8,
            or floats as `to_uint8` takes them.
        detections: dict as `detect` returns it, for the same images: `boxes (batch, n, 4)`
            normalised, `scores (batch, n)`, `classes (batch, n)` with -1 for
            padding, `num_valid (batch,)` if there; and `masks` if there, for each image
            `(n, height, width)` of its size.
        labels: dict of `boxes`, `classes` and `ignore`, or rows `(batch, m, 5)`, see
            `kerascv_d2l.ops.checks.as_targets`; and `masks` if there, as those of detections.
        class_names: list of str, name of class 0, 1, ….
        score_threshold: float; detections below are not drawn.
        columns: int, images a row.

    Raises:
        InputError: if there is no image, or numbers of images differ, or a class
            has no name, or the file's ending is not that of an image.
    """
    save(
        path, _detections_figure(images, detections, labels, class_names, score_threshold, columns)
    )


def _detections_figure(images, detections, labels, class_names, score_threshold, columns):
    images = [to_uint8(image) for image in images]
    truth = {n: np.asarray(rows) for n, rows in as_targets(labels).items() if n != "masks"}
    found = {n: np.asarray(value) for n, value in detections.items() if n != "masks"}
    _check_batch(images, found, truth, class_names)

    chosen = [_best_last(found, i, score_threshold) for i in range(len(images))]
    shown = set(truth["classes"][truth["classes"] >= 0].tolist())
    shown |= {int(c) for i, rows in enumerate(chosen) for c in found["classes"][i, rows]}

    handles = _legend_handles(sorted(shown), class_names, truth["ignore"].any())
    figure, places, legend_columns = _figure_with_places(images, columns, len(handles))
    for i, (image, place) in enumerate(zip(images, places, strict=True)):
        objects = np.flatnonzero(truth["classes"][i] >= 0)
        if detections.get("masks") is not None:
            masks = np.asarray(detections["masks"][i])
            image = overlay_instances(image, (masks[row] for row in chosen[i]))
        if isinstance(labels, dict) and labels.get("masks") is not None:
            masks = np.asarray(labels["masks"][i])
            white = [TRUTH_COLOR] * len(objects)
            image = overlay_instances(image, (masks[row] for row in objects), white, opacity=0)
        _draw_cell(
            _axes_with_image(figure, place, image),
            {name: value[i, objects] for name, value in truth.items()},
            {name: found[name][i, chosen[i]] for name in ("boxes", "scores", "classes")},
            class_names,
            len(chosen[i]) > MOST_NAMED[detections.get("masks") is not None],
        )
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=legend_columns,
        frameon=False,
        fontsize=10,
        handlelength=3.5,
        title=f"dashed: ground truth      solid: predicted, score ≥ {score_threshold:g}",
    )
    return figure


def _figure_with_places(images, columns, entries):
    """Make a figure for images in rows and a legend below them.

    Returns:
        The figure; for each image the place of its cell, `(left, bottom, width, height)` as shares
        of the figure; and the number of columns of a legend of so many entries.
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    # Cells have the middle shape of the images, which are fitted into them.
    width, height = np.exp(np.mean([np.log(image.shape[1::-1]) for image in images], axis=0))
    cell = np.array([width, height]) * (CELL_INCHES / max(height, width))
    step = cell + GAP_INCHES
    figure_width = max(columns * step[0] + GAP_INCHES, MIN_WIDTH_INCHES)
    legend_columns = min(entries, int(figure_width / LEGEND_ENTRY_INCHES))
    legend_height = 0.4 + 0.25 * math.ceil(entries / legend_columns)
    size = np.array([figure_width, rows * step[1] + GAP_INCHES + legend_height])
    figure = Figure(figsize=tuple(size), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    left = (size[0] - columns * step[0] + GAP_INCHES) / 2
    places = []
    for row, column in (divmod(i, columns) for i in range(len(images))):
        corner = (left + column * step[0], size[1] - (row + 1) * step[1])
        places.append([*(corner / size), *(cell / size)])
    return figure, places, legend_columns


def _axes_with_image(figure, place, image):
    axes = figure.add_axes(place)
    axes.imshow(image, interpolation="antialiased", aspect="equal")
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    axes.apply_aspect()  # moves an image of another shape to its place before texts are set
    return axes


def _draw_cell(axes, truth, found, class_names, crowded):
    """Draw the objects and detections of one image, and then their names if not `crowded`."""
    thin = {"linewidth": THIN} if crowded else {}
    for box, ignored in zip(truth["boxes"], truth["ignore"], strict=True):
        _add_box(axes, box, _truth_style(ignored) | thin)
    for box, index in zip(found["boxes"], found["classes"], strict=True):
        _add_box(axes, box, {"edgecolor": class_color(index)} | thin)
    if crowded:
        return
    # Labels after all boxes, best first: that one has the choice of places.
    taken = []
    for box, score, index in reversed(list(zip(*found.values(), strict=True))):
        _add_label(axes, box, f"{class_names[index]} {score:.2f}", class_color(index), taken)
    if len(class_names) > 1:
        for box, index in zip(truth["boxes"], truth["classes"], strict=True):
            _add_label(axes, box, class_names[index], None, taken)


def _best_last(found, image, score_threshold):
    """Rows of the detections to draw, by rising score: the best lies on top."""
    scores = found["scores"][image]
    valid = (found["classes"][image] >= 0) & (scores >= score_threshold)
    if "num_valid" in found:
        valid &= np.arange(len(valid)) < found["num_valid"][image]
    rows = np.flatnonzero(valid)
    return rows[np.argsort(scores[rows], kind="stable")]


def _check_batch(images, found, truth, class_names):
    if not images:
        raise InputError("images is empty; pass at least one image to draw.")
    for name in ("boxes", "scores", "classes"):
        if name not in found:
            raise InputError(f"detections has the keys {sorted(found)}; {name!r} is missing.")
        if len(found[name]) != len(images):
            raise InputError(
                f"detections[{name!r}] is for {len(found[name])} images, images has {len(images)}."
            )
    if len(truth["boxes"]) != len(images):
        raise InputError(f"labels are for {len(truth['boxes'])} images, images has {len(images)}.")
    largest = max(truth["classes"].max(initial=-1), found["classes"].max(initial=-1))
    if largest >= len(class_names):
        raise InputError(f"class {int(largest)} has no name; class_names is {list(class_names)}.")


def _truth_style(ignored=False):
    """White dashes on a dark line: seen on any ground, and not a class's colour; ignored: grey."""
    dark = Stroke(foreground="black", alpha=0.65, dashes={"dash_offset": 0, "dash_list": None})
    return {
        "linewidth": 1.6,
        "linestyle": IGNORED_DOTS if ignored else TRUTH_DASHES,
        "color": IGNORED_COLOR if ignored else TRUTH_COLOR,
        "path_effects": [dark, Normal()],
    }


def _in_pixels(axes, box):
    """A normalised box in the data coordinates of `imshow`, where pixel 0 is -0.5 to 0.5."""
    height, width = axes.images[0].get_array().shape[:2]
    return np.asarray(box, float) * [width, height, width, height] - 0.5


def _add_box(axes, box, style):
    """Draw the outline of a normalised box in a style of Matplotlib's patches."""
    rectangle = bbox_to_rect(_in_pixels(axes, box), TRUTH_COLOR)
    rectangle.set(**style, fill=False)
    axes.add_patch(rectangle)


def _add_label(axes, box, text, color, taken):
    """Write a label beside a normalised box, inside the axes, clear of the `taken` places."""
    label = as_written(axes.text(0, 0, text, fontsize=8, va="bottom", ha="left"))
    if color is None:
        label.set(color=TRUTH_COLOR)
        label.set_path_effects([withStroke(linewidth=2, foreground="black")])
        margin = 1
    else:
        label.set(color=_text_color(color))
        label.set_bbox({"facecolor": color, "linewidth": 0, "pad": LABEL_PAD_POINTS})
        margin = LABEL_PAD_POINTS * DPI / 72
    renderer = axes.figure.canvas.get_renderer()
    with without_glyph_warnings():
        extent = label.get_window_extent(renderer).padded(margin)
    frame = axes.get_window_extent(renderer)
    box = _in_pixels(axes, box)
    (x_min, top), (_, bottom) = axes.transData.transform([box[:2], box[2:]])
    # _place counts downwards from the frame's upper left corner, as images do.
    x, y = _place(
        (x_min - frame.x0, frame.y1 - top, frame.y1 - bottom),
        (extent.width, extent.height),
        (frame.width, frame.height),
        taken,
        below_first=color is None,
    )
    shift = frame.x0 + x - extent.x0, frame.y1 - y - extent.y1
    old = axes.transData.transform(label.get_position())
    label.set_position(axes.transData.inverted().transform(old + shift))


def _place(box, size, frame, taken, below_first=False):
    """Find a place for a label at a box: above it, inside at the top, below, inside at the bottom.

    Args:
        box: `(x_min, y_min, y_max)`, y downwards.
        size: `(width, height)` of the label.
        frame: `(width, height)` of the image.
        taken: list of `(x_min, y_min, x_max, y_max)` of the labels there are, to which this is
            added.
        below_first: bool, try the places at the bottom first.

    Returns:
        `(x, y)` of the label's upper left corner, inside the frame; the first place that
        fits and covers no other label, else the first that fits, else the one moved inside.
        A label larger than the frame keeps its beginning.
    """
    x_min, y_min, y_max = box
    width, height = size
    x = max(0, min(x_min, frame[0] - width))
    places = [y_min - height, y_min, y_max, y_max - height]
    if below_first:
        places = places[2:] + places[:2]
    inside = [y for y in places if 0 <= y <= frame[1] - height]
    inside = inside or [max(0, min(places[0], frame[1] - height))]

    def covers(y):
        return any(
            x < other[2] and x + width > other[0] and y < other[3] and y + height > other[1]
            for other in taken
        )

    y = next((y for y in inside if not covers(y)), inside[0])
    taken.append((x, y, x + width, y + height))
    return x, y


def _text_color(background):
    """Black or white, whichever reads better on a colour."""
    return "black" if ImageColor.getcolor(background, "L") > 140 else "white"


def _legend_handles(classes, class_names, any_ignored):
    handles = [Line2D([], [], label="ground truth", **_truth_style())]
    if any_ignored:
        handles.append(Line2D([], [], label="ignored", **_truth_style(ignored=True)))
    for index in classes[:MAX_LEGEND_CLASSES]:
        name, color = class_names[index], class_color(index)
        handles.append(Line2D([], [], color=color, linewidth=2.5, label=name))
    return handles


def draw_boxes(path, image, boxes, texts, colors, masks=None):
    """Write one image at its own size with boxes on it.

    Lines and letters grow with the image. With many objects there are no texts, and lines are
    thin.

    Args:
        path: file to write; its ending decides the format (`.png`, `.jpg`, …).
        image: `(height, width, 3)`, as `to_uint8` takes it.
        boxes: float `(n, 4)`, normalised corners; drawn in this order, later ones on top.
        texts: list of n str, "" for none.
        colors: list of n colours as Pillow knows them (`#rrggbb`, names).
        masks: sequence of `(height, width)`, see `overlay_instances`, the first on top; or None.

    Raises:
        InputError: if the numbers of boxes, texts and colours differ, or the
            file's ending is not that of an image.
    """
    order = range(0 if masks is None else len(masks))[::-1]
    colors_of_masks = [class_color(k) for k in order]
    image = overlay_instances(image, (masks[k] for k in order), colors_of_masks)
    image = Image.fromarray(image)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes) == len(texts) == len(colors):
        raise InputError(
            f"There are {len(boxes)} boxes, {len(texts)} texts and {len(colors)} colors; "
            "pass one of each for every box."
        )
    suffix = Path(path).suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise InputError(f"{path}: images cannot be written as {suffix!r}; use .png or .jpg.")
    width, height = image.size
    crowded = len(boxes) > MOST_NAMED[masks is not None]
    line = max(1 if crowded else 2, round(min(width, height) / (400 if crowded else 200)))
    font_size = max(10, round(min(width, height) / 28))
    draw = ImageDraw.Draw(image)

    bounds = []
    for box, color in zip(boxes, colors, strict=True):
        # The pixels that the box reaches into. What lies outside is not drawn: the
        # edge of a box beyond the image is not moved into it.
        low = np.clip(np.floor(box[:2] * [width, height]), -2 * line, [width, height])
        high = np.clip(np.ceil(box[2:] * [width, height]) - 1, -1, np.add(image.size, 2 * line))
        high = np.maximum(high, low)
        draw.rectangle([*low, *high], outline=color, width=line)
        bounds.append((*low, high[1] + 1))
    # Labels after all boxes, so that no line crosses a label; the last has the choice of places.
    taken = []
    for box, text, color in reversed(list(zip(bounds, texts, colors, strict=True))):
        if not text or crowded:
            continue
        font = ImageFont.truetype(font_file(text), font_size)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        size = right - left + 2 * line, bottom - top + 2 * line
        x, y = _place(box, size, image.size, taken)
        draw.rectangle([x, y, x + size[0] - 1, y + size[1] - 1], fill=color)
        draw.text((x + line - left, y + line - top), text, fill=_text_color(color), font=font)
    options = {"quality": 95} if suffix in (".jpg", ".jpeg") else {}
    with whole(path) as temporary:
        image.save(temporary, **options)
