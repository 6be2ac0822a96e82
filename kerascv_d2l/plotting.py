"""Pictures: the book's three functions for a notebook, and those the scripts write to files.

The files are drawn without pyplot, so that no window system and no global
figure is touched. Nothing here needs TensorFlow; tensors are taken as they come.
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke, withStroke
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageColor, ImageDraw, ImageFont

from .errors import InputError
from .files import whole

# The book's colours for boxes, in its order.
BOOK_COLORS = ("b", "g", "r", "m", "c")

# One a class, repeated beyond. Far apart, strong enough on photographs; not white, which
# is the ground truth's.
CLASS_COLORS = (
    "#ff3b30",
    "#0a84ff",
    "#ffcc00",
    "#34c759",
    "#bf5af2",
    "#ff8c1a",
    "#00d5d5",
    "#ff5fa8",
    "#8fce00",
    "#a2714f",
)
TRUTH_COLOR = "white"
TRUTH_DASHES = (0, (4, 3))

# Floats up to here are taken as 0-1 with some overshoot (jitter, interpolation), above as 0-255.
UNIT_RANGE_LIMIT = 2.0

DPI = 100
CELL_INCHES = 3.2  # the longer side of a picture in the grid of `draw_detections`
GAP_INCHES = 0.08
MIN_WIDTH_INCHES = 6.5  # the legend's heading fits
LEGEND_ENTRY_INCHES = 2.0
LABEL_PAD_POINTS = 1.5
MAX_LEGEND_CLASSES = len(CLASS_COLORS)
MAX_MATRIX_INCHES = 12.0  # side of a confusion matrix
MIN_CELL_INCHES = 0.2  # cells that hold a number
MAX_NAME_LETTERS = 24  # of a class beside a confusion matrix or over a picture
MISTAKE_INCHES = 2.6  # side of a picture in the grid of `draw_mistakes`
SEGMENTATION_INCHES = 2.4  # the longer side of a picture in the grid of `draw_segmentation`
SEGMENTATION_TITLES = ("picture", "prediction", "truth")
RIGHT_COLOR, WRONG_COLOR = "#1a7f37", "#b3261e"

# Curve panels, in this order: title of the y axis and the words that a name is put there for.
# A name that fits none gets a panel of its own.
SCORE_PANEL = "score, 0 to 1 (higher is better)"
HISTORY_PANELS = (
    ("loss", ("loss",)),
    ("error (lower is better)", ("error", "mae", "mse")),
    (SCORE_PANEL, ("map", "acc", "accuracy", "iou", "precision", "recall", "auc")),
    ("learning rate", ("learning_rate", "lr")),
)

# The curves of the book's Animator: name in a history -> line, and what the book calls it.
BOOK_CURVES = {
    "loss": ("-", "train loss"),
    "accuracy": ("m--", "train acc"),
    "val_accuracy": ("g-.", "test acc"),
}


# ---------------------------------------------------------------- the book's functions


def bbox_to_rect(bbox, color):
    """Turn a box into Matplotlib's rectangle.

    Args:
        bbox: `(4,)`, corners x_min, y_min, x_max, y_max in the units of the axes
            (for an image shown by `imshow`: pixels).
        color: Matplotlib colour of the outline.

    Returns:
        `matplotlib.patches.Rectangle`, not filled, 2 points wide.

    Source:
        D2L 1.0.3, section 14.3.
    """
    x_min, y_min, x_max, y_max = (float(value) for value in bbox)
    return Rectangle(
        (x_min, y_min), x_max - x_min, y_max - y_min, fill=False, edgecolor=color, linewidth=2
    )


def show_bboxes(axes, bboxes, labels=None, colors=None):
    """Draw boxes onto axes, each with a label centred on its upper left corner.

    Args:
        axes: Matplotlib axes, usually with an image.
        bboxes: `(n, 4)`, corners in the units of the axes.
        labels: list of str, or one str for the first box. Boxes beyond its end
            have no label.
        colors: list of Matplotlib colours, or one, repeated over the boxes;
            default blue, green, red, magenta, cyan.

    Source:
        D2L 1.0.3, section 14.4.
    """
    labels = _as_list(labels, ())
    colors = _as_list(colors, BOOK_COLORS)
    for i, bbox in enumerate(np.asarray(bboxes)):
        color = colors[i % len(colors)]
        rectangle = axes.add_patch(bbox_to_rect(bbox, color))
        if i < len(labels):
            axes.text(
                *rectangle.get_xy(),
                labels[i],
                va="center",
                ha="center",
                fontsize=9,
                color="k" if color == "w" else "w",
                bbox={"facecolor": color, "linewidth": 0},
            )


def show_images(imgs, num_rows, num_cols, titles=None, scale=1.5):
    """Show images in a grid, in a notebook.

    Args:
        imgs: sequence of images, or a batch `(n, height, width, channels)`: uint8;
            floats 0-1 or 0-255 (told apart by the largest value); one channel or
            none is drawn in grey. More than the grid holds are left out.
        num_rows: int.
        num_cols: int.
        titles: sequence of str, one an image, or None.
        scale: inches of a side of a cell.

    Returns:
        NumPy array `(num_rows * num_cols,)` of Matplotlib axes, by row.

    Source:
        D2L 1.0.3, `d2l.show_images`.
    """
    import matplotlib.pyplot as plt  # here, since it picks a backend

    _, axes = plt.subplots(
        num_rows, num_cols, figsize=(num_cols * scale, num_rows * scale), squeeze=False
    )
    axes = axes.flatten()
    for i, (axis, image) in enumerate(zip(axes, imgs, strict=False)):
        axis.imshow(to_uint8(image))
        axis.xaxis.set_visible(False)
        axis.yaxis.set_visible(False)
        if titles is not None and i < len(titles):
            axis.set_title(titles[i])
    return axes


def apply(img, aug, num_rows=2, num_cols=4, scale=1.5):
    """Show what an augmentation makes of an image, again and again, in a notebook.

    Args:
        img: `(height, width, channels)`, as `show_images` takes it.
        aug: function of an image, such as a layer of `layers.augmentation`.
        num_rows: int.
        num_cols: int.
        scale: inches of a side of a cell.

    Returns:
        NumPy array `(num_rows * num_cols,)` of Matplotlib axes, by row.

    Source:
        D2L 1.0.3, section 14.1.
    """
    results = [aug(img) for _ in range(num_rows * num_cols)]
    return show_images(results, num_rows, num_cols, scale=scale)


def _as_list(value, default):
    if value is None:
        return default
    return value if isinstance(value, (list, tuple)) else [value]


def to_uint8(image):
    """Bring an image to what screens show.

    Args:
        image: `(height, width)`, `(height, width, 1)` or `(height, width, 3)`; uint8 or
            other integers 0-255, or floats 0-1 or 0-255: an image with a value
            above 2 is taken as 0-255. What lies outside is clipped.

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


def class_color(class_index):
    """Give the colour of a class: `#rrggbb`, the same in every picture."""
    return CLASS_COLORS[int(class_index) % len(CLASS_COLORS)]


# ---------------------------------------------------------------- a grid of detections


def draw_detections(path, images, detections, labels, class_names, score_threshold=0.5, columns=4):
    """Write a grid of images with what was found and what is there.

    Predicted boxes are solid, in the colour of their class, with class and score;
    ground truth is dashed white, with the class below the box where there is more
    than one class. A legend says so.

    Args:
        path: the picture's file, `.png`.
        images: `(batch, height, width, 3)`, or a list of images of any sizes; uint8,
            or floats as `to_uint8` takes them.
        detections: dict as `detect` returns it, for the same images: `boxes (batch, n, 4)`
            normalised, `scores (batch, n)`, `classes (batch, n)` with -1 for
            padding, `num_valid (batch,)` if there.
        labels: float `(batch, m, 5)`, normalised, class -1 in padding rows.
        class_names: list of str, name of class 0, 1, ….
        score_threshold: float; detections below are not drawn.
        columns: int, images a row.

    Raises:
        InputError: if there is no image, or numbers of images differ, or a class
            has no name, or the file's ending is not that of a picture.
    """
    _save(
        path,
        _detections_figure(images, detections, labels, class_names, score_threshold, columns),
    )


def _detections_figure(images, detections, labels, class_names, score_threshold, columns):
    images = [to_uint8(image) for image in images]
    labels = np.asarray(labels)
    found = {name: np.asarray(value) for name, value in detections.items()}
    _check_batch(images, found, labels, class_names)

    truths = [rows[rows[:, 0] >= 0] for rows in labels]
    chosen = [_best_last(found, i, score_threshold) for i in range(len(images))]
    shown = {int(c) for rows in truths for c in rows[:, 0]}
    shown |= {int(c) for i, rows in enumerate(chosen) for c in found["classes"][i, rows]}

    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    # Cells have the middle shape of the images, which are fitted into them.
    width, height = np.exp(np.mean([np.log(image.shape[1::-1]) for image in images], axis=0))
    cell = np.array([width, height]) * (CELL_INCHES / max(height, width))
    step = cell + GAP_INCHES
    figure_width = max(columns * step[0] + GAP_INCHES, MIN_WIDTH_INCHES)
    handles = _legend_handles(sorted(shown), class_names)
    legend_columns = min(len(handles), int(figure_width / LEGEND_ENTRY_INCHES))
    legend_height = 0.4 + 0.25 * math.ceil(len(handles) / legend_columns)
    size = np.array([figure_width, rows * step[1] + GAP_INCHES + legend_height])
    figure = Figure(figsize=tuple(size), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    left = (size[0] - columns * step[0] + GAP_INCHES) / 2
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        corner = (left + column * step[0], size[1] - (row + 1) * step[1])
        axes = figure.add_axes([*(corner / size), *(cell / size)])
        axes.imshow(image, interpolation="antialiased", aspect="equal")
        axes.set_axis_off()
        axes.set_autoscale_on(False)
        axes.apply_aspect()  # moves an image of another shape to its place before texts are set

        for truth in truths[i]:
            _add_box(axes, truth[1:], None)
        for j in chosen[i]:
            _add_box(axes, found["boxes"][i, j], class_color(found["classes"][i, j]))
        # Labels after all boxes, best first: that one has the choice of places.
        taken = []
        for j in chosen[i][::-1]:
            index = int(found["classes"][i, j])
            text = f"{class_names[index]} {found['scores'][i, j]:.2f}"
            _add_label(axes, found["boxes"][i, j], text, class_color(index), taken)
        if len(class_names) > 1:
            for truth in truths[i]:
                _add_label(axes, truth[1:], class_names[int(truth[0])], None, taken)
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


def _save(path, figure):
    suffix = Path(path).suffix.lower()
    if suffix.removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: pictures cannot be written as {suffix!r}; use .png.")
    with whole(path) as temporary:
        figure.canvas.print_figure(temporary, dpi=DPI)


def _best_last(found, image, score_threshold):
    """Rows of the detections to draw, by rising score: the best lies on top."""
    scores = found["scores"][image]
    valid = (found["classes"][image] >= 0) & (scores >= score_threshold)
    if "num_valid" in found:
        valid &= np.arange(len(valid)) < found["num_valid"][image]
    rows = np.flatnonzero(valid)
    return rows[np.argsort(scores[rows], kind="stable")]


def _check_batch(images, found, labels, class_names):
    if not images:
        raise InputError("images is empty; pass at least one image to draw.")
    for name in ("boxes", "scores", "classes"):
        if name not in found:
            raise InputError(f"detections has the keys {sorted(found)}; {name!r} is missing.")
        if len(found[name]) != len(images):
            raise InputError(
                f"detections[{name!r}] is for {len(found[name])} images, images has {len(images)}."
            )
    if labels.ndim != 3 or labels.shape[-1] != 5 or len(labels) != len(images):
        raise InputError(
            f"labels has shape {labels.shape}; pass ({len(images)}, m, 5), as many as images."
        )
    largest = max(labels[..., 0].max(initial=-1), found["classes"].max(initial=-1))
    if largest >= len(class_names):
        raise InputError(f"class {int(largest)} has no name; class_names is {list(class_names)}.")


def _truth_style():
    """White dashes on a dark line: seen on any ground, and not a class's colour."""
    dark = Stroke(foreground="black", alpha=0.65, dashes={"dash_offset": 0, "dash_list": None})
    return {
        "linewidth": 1.6,
        "linestyle": TRUTH_DASHES,
        "color": TRUTH_COLOR,
        "path_effects": [dark, Normal()],
    }


def _in_pixels(axes, box):
    """A normalised box in the data coordinates of `imshow`, where pixel 0 is -0.5 to 0.5."""
    height, width = axes.images[0].get_array().shape[:2]
    return np.asarray(box, float) * [width, height, width, height] - 0.5


def _add_box(axes, box, color):
    """Draw a normalised box: solid, or, where the colour is None, as ground truth."""
    rectangle = bbox_to_rect(_in_pixels(axes, box), color or TRUTH_COLOR)
    if color is None:
        rectangle.set(**_truth_style(), fill=False)
    axes.add_patch(rectangle)


def _add_label(axes, box, text, color, taken):
    """Write a label beside a normalised box, inside the axes, clear of the `taken` places."""
    label = axes.text(0, 0, text, fontsize=8, va="bottom", ha="left")
    if color is None:
        label.set(color=TRUTH_COLOR)
        label.set_path_effects([withStroke(linewidth=2, foreground="black")])
        margin = 1
    else:
        label.set(color=_text_color(color))
        label.set_bbox({"facecolor": color, "linewidth": 0, "pad": LABEL_PAD_POINTS})
        margin = LABEL_PAD_POINTS * DPI / 72
    renderer = axes.figure.canvas.get_renderer()
    extent = label.get_window_extent(renderer).padded(margin)
    frame = axes.get_window_extent(renderer)
    box = _in_pixels(axes, box)
    (x_min, top), (_, bottom) = axes.transData.transform([box[:2], box[2:]])
    # _place counts downwards from the frame's upper left corner, as pictures do.
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
        frame: `(width, height)` of the picture.
        taken: list of `(x_min, y_min, x_max, y_max)` of the labels there are; the new
            one is added.
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
    red, green, blue = ImageColor.getrgb(background)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def _legend_handles(classes, class_names):
    handles = [Line2D([], [], label="ground truth", **_truth_style())]
    for index in classes[:MAX_LEGEND_CLASSES]:
        name, color = class_names[index], class_color(index)
        handles.append(Line2D([], [], color=color, linewidth=2.5, label=name))
    return handles


# ---------------------------------------------------------------- one picture


def draw_boxes(path, image, boxes, texts, colors):
    """Write one picture at its own size with boxes on it.

    Lines and letters grow with the picture.

    Args:
        path: the picture's file; its ending decides the format (`.png`, `.jpg`, …).
        image: `(height, width, 3)`, as `to_uint8` takes it.
        boxes: float `(n, 4)`, normalised corners; drawn in this order, later ones on top.
        texts: list of n str, "" for none.
        colors: list of n colours as Pillow knows them (`#rrggbb`, names).

    Raises:
        InputError: if the numbers of boxes, texts and colours differ, or the
            file's ending is not that of a picture.
    """
    image = Image.fromarray(np.ascontiguousarray(to_uint8(image)))
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes) == len(texts) == len(colors):
        raise InputError(
            f"There are {len(boxes)} boxes, {len(texts)} texts and {len(colors)} colors; "
            "pass one of each for every box."
        )
    suffix = Path(path).suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise InputError(f"{path}: pictures cannot be written as {suffix!r}; use .png or .jpg.")
    width, height = image.size
    line = max(2, round(min(width, height) / 200))
    font_file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    font = ImageFont.truetype(font_file, max(10, round(min(width, height) / 28)))
    draw = ImageDraw.Draw(image)

    bounds = []
    for box, color in zip(boxes, colors, strict=True):
        # The pixels that the box reaches into. What lies outside is not drawn: the
        # edge of a box beyond the picture is not moved into it.
        low = np.clip(np.floor(box[:2] * [width, height]), -2 * line, [width, height])
        high = np.clip(np.ceil(box[2:] * [width, height]) - 1, -1, np.add(image.size, 2 * line))
        high = np.maximum(high, low)
        draw.rectangle([*low, *high], outline=color, width=line)
        bounds.append((*low, high[1] + 1))
    # Labels after all boxes, so that no line crosses a label; the last has the choice of places.
    taken = []
    for box, text, color in reversed(list(zip(bounds, texts, colors, strict=True))):
        if not text:
            continue
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        size = right - left + 2 * line, bottom - top + 2 * line
        x, y = _place(box, size, image.size, taken)
        draw.rectangle([x, y, x + size[0] - 1, y + size[1] - 1], fill=color)
        draw.text((x + line - left, y + line - top), text, fill=_text_color(color), font=font)
    options = {"quality": 95} if suffix in (".jpg", ".jpeg") else {}
    with whole(path) as temporary:
        image.save(temporary, **options)


# ---------------------------------------------------------------- a classifier's results


def draw_confusion(path, matrix, class_names):
    """Write a confusion matrix: how many pictures of each class were taken for which.

    A cell shows the count, and its colour the share of the true class: right
    ones on the diagonal in blue, wrong ones in red.

    Args:
        path: the picture's file, `.png`.
        matrix: int `(classes, classes)`: rows are true classes, columns predicted ones.
        class_names: list of str.

    Raises:
        InputError: if the matrix is not square or has not as many classes as
            names, or the file's ending is not that of a picture.
    """
    _save(path, _confusion_figure(matrix, class_names))


def _confusion_figure(matrix, class_names):
    matrix = np.asarray(matrix)
    count = len(class_names)
    if matrix.shape != (count, count):
        raise InputError(
            f"matrix has shape {matrix.shape}; with {count} class names pass ({count}, {count})."
        )
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (true, predicted)
    right = np.eye(count, dtype=bool)
    colors = np.where(
        right[..., None],
        matplotlib.colormaps["Blues"](0.75 * share),
        matplotlib.colormaps["Reds"](0.75 * share),
    )
    side = min(max(0.55 * count, 2.4), MAX_MATRIX_INCHES)
    cell = side / count
    longest = max(len(str(name)) for name in class_names)
    margin = 0.085 * min(longest, MAX_NAME_LETTERS)
    figure = Figure(
        figsize=(side + margin + 2.2, side + margin + 1.2), dpi=DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(colors, interpolation="nearest")
    if cell >= MIN_CELL_INCHES:
        for row, column in np.ndindex(count, count):
            if matrix[row, column]:
                axes.text(
                    column,
                    row,
                    f"{matrix[row, column]}",
                    ha="center",
                    va="center",
                    fontsize=min(10, 40 * cell),
                    color="white" if share[row, column] > 0.7 else "black",
                )
    correct = np.trace(matrix) / max(matrix.sum(), 1)
    accuracies = [f"{_shortened(name)}  {share[k, k]:.0%}" for k, name in enumerate(class_names)]
    axes.set_xticks(range(count), [_shortened(name) for name in class_names], rotation=90)
    axes.set_yticks(range(count), accuracies)
    axes.tick_params(labelsize=min(10, 60 * cell))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class, and how much of it was found")
    axes.set_title(f"{np.trace(matrix)} of {matrix.sum()} right ({correct:.1%})", fontsize=11)
    return figure


def _shortened(name):
    name = str(name)
    return name if len(name) <= MAX_NAME_LETTERS else name[: MAX_NAME_LETTERS - 1] + "…"


def draw_mistakes(path, images, names, labels, probabilities, class_names, columns=4):
    """Write a grid of pictures with their true class and what a classifier says.

    Args:
        path: the picture's file, `.png`.
        images: sequence of `(height, width, 3)`, as `to_uint8` takes them, in
            the order to draw: the worst first.
        names: sequence of str: what to call each.
        labels: int `(n,)`, the true classes.
        probabilities: float `(n, classes)`.
        class_names: list of str.
        columns: int, pictures a row.

    Raises:
        InputError: if there is no picture, or numbers differ, or the file's
            ending is not that of a picture.
    """
    _save(path, _mistakes_figure(images, names, labels, probabilities, class_names, columns))


def _mistakes_figure(images, names, labels, probabilities, class_names, columns):
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    lengths = {
        "images": len(images),
        "names": len(names),
        "labels": len(labels),
        "probabilities": len(probabilities),
    }
    if len(set(lengths.values())) != 1 or not len(images):
        raise InputError(f"draw_mistakes needs as many of each, and at least one, not {lengths}.")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    # Pictures of two lines of text: a share of the height is theirs.
    figure = Figure(
        figsize=(columns * MISTAKE_INCHES, rows * (MISTAKE_INCHES + 0.35) + 0.4),
        dpi=DPI,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, name, label, row in zip(
        grid, images, names, labels, probabilities, strict=False
    ):
        predicted = int(np.argmax(row))
        wrong = predicted != label
        verdict = (
            f"{_shortened(class_names[label])} {row[label]:.2f}, taken for "
            f"{_shortened(class_names[predicted])} {row[predicted]:.2f}"
            if wrong
            else f"{_shortened(class_names[label])} {row[label]:.2f}, right"
        )
        axes.imshow(to_uint8(image))
        axes.set_title(
            f"{verdict}\n{_end(name)}", fontsize=8, color=WRONG_COLOR if wrong else RIGHT_COLOR
        )
    figure.suptitle("least probability of the true class first", fontsize=11)
    return figure


def _end(name, most=34):
    """The end of a long name, where file names differ."""
    return name if len(name) <= most else "…" + name[1 - most :]


# ---------------------------------------------------------------- a class for every pixel


def draw_segmentation(path, images, predictions, truths, class_names, colors, columns=2):
    """Write pictures with the predicted and the true class of every pixel beside them.

    Args:
        path: the picture's file, `.png`.
        images: sequence of `(height, width, 3)` of any sizes, as `to_uint8` takes
            them.
        predictions: for each picture int classes `(height, width)`.
        truths: the same; labels that are no class (void) are white.
        class_names: sequence of str.
        colors: RGB 0-255 `(classes, 3)`.
        columns: int, pictures a row, each with its two class maps.

    Raises:
        InputError: if there is no picture, numbers or sizes differ, or the file's
            ending is not that of a picture.
    """
    _save(path, _segmentation_figure(images, predictions, truths, class_names, colors, columns))


def _segmentation_figure(images, predictions, truths, class_names, colors, columns):
    images = [to_uint8(image) for image in images]
    maps = [[np.asarray(classes) for classes in part] for part in (predictions, truths)]
    counts = {"images": len(images), "predictions": len(maps[0]), "truths": len(maps[1])}
    if len(set(counts.values())) != 1 or not images:
        raise InputError(f"draw_segmentation needs as many of each, and at least one: {counts}.")
    if len(colors) != len(class_names):
        raise InputError(f"there are {len(class_names)} class names and {len(colors)} colors.")
    for image, *pair in zip(images, *maps, strict=True):
        if any(classes.shape != image.shape[:2] for classes in pair):
            raise InputError(
                f"a picture is {image.shape[:2]}, its class maps {pair[0].shape} and "
                f"{pair[1].shape}: the same height and width are needed."
            )
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    height, width = np.exp(np.mean([np.log(image.shape[:2]) for image in images], axis=0))
    cell = np.array([width, height]) * (SEGMENTATION_INCHES / max(height, width))
    shown = np.unique(np.concatenate([np.unique(classes) for part in maps for classes in part]))
    shown = [k for k in shown.tolist() if k < len(class_names)]
    figure_width = max(3 * columns * (cell[0] + GAP_INCHES), MIN_WIDTH_INCHES)
    legend_columns = max(1, min(len(shown) + 1, int(figure_width / LEGEND_ENTRY_INCHES)))
    legend_height = 0.2 + 0.25 * math.ceil((len(shown) + 1) / legend_columns)
    body = rows * (cell[1] + GAP_INCHES) + 0.25
    figure = Figure(figsize=(figure_width, body + legend_height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    share = legend_height / (body + legend_height)
    top = 1 - 0.25 / (body + legend_height)
    grid = figure.subplots(
        rows,
        3 * columns,
        squeeze=False,
        gridspec_kw={"left": 0.005, "right": 0.995, "bottom": share, "top": top,
                     "wspace": 0.03, "hspace": 0.03},
    )  # fmt: skip
    for axes in grid.ravel():
        axes.set_axis_off()
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        panels = (image, *(color_classes(part[i], colors) for part in maps))
        for k, (panel, title) in enumerate(zip(panels, SEGMENTATION_TITLES, strict=True)):
            axes = grid[row, 3 * column + k]
            axes.imshow(panel, interpolation="antialiased" if k == 0 else "nearest")
            if row == 0:
                axes.set_title(title, fontsize=10, pad=4)
    handles = [
        Patch(facecolor=np.asarray(colors[k]) / 255, edgecolor="grey", label=_shortened(name))
        for k, name in ((k, class_names[k]) for k in shown)
    ]
    handles.append(Patch(facecolor="white", edgecolor="grey", label="void"))
    figure.legend(
        handles=handles, loc="lower center", ncols=legend_columns, frameon=False, fontsize=10
    )
    return figure


def color_classes(classes, colors):
    """Give each class its colour.

    Args:
        classes: int `(height, width)`.
        colors: RGB 0-255 `(classes, 3)`.

    Returns:
        uint8 `(height, width, 3)`, white where there is no such class (void).
    """
    table = np.full((256, 3), 255, np.uint8)
    table[: len(colors)] = colors
    return table[np.clip(classes, 0, 255)]


# ---------------------------------------------------------------- curves


def draw_history(path, history, unit="epoch"):
    """Write the curves of a training.

    One panel each for losses, errors, scores, the learning rate and whatever else
    there is. A validation curve (`val_x`) is dashed, in the colour of `x`.
    Values that are not finite are left out; their neighbours are joined.

    Args:
        path: the picture's file, `.png`.
        history: dict from name to a list of numbers, one an epoch, as `History.history`
            has it. `epoch` (as CSVLogger adds it) is left out: the axis starts at 1.
        unit: str: what the axis counts.

    Raises:
        InputError: if there is nothing to draw, or the lists differ in length, or
            the file's ending is not that of a picture.
    """
    _save(path, _history_figure(history, unit))


def draw_curves(path, history):
    """Write the curves of a classifier's training as the book draws them, in one panel.

    Args:
        path: the picture's file, `.png`, or a binary stream for PNG.
        history: dict from name to a list of numbers, one an epoch; of it `loss`,
            `accuracy` and `val_accuracy` are drawn, those that are there.

    Raises:
        InputError: if none of these is there.
    """
    figure = _curves_figure(history)
    if hasattr(path, "write"):
        figure.canvas.print_figure(path, dpi=DPI, format="png")
    else:
        _save(path, figure)


def _curves_figure(history):
    known = {name: style for name, style in BOOK_CURVES.items() if history.get(name)}
    if not known:
        raise InputError(
            f"history has none of {', '.join(BOOK_CURVES)}, but {', '.join(history) or 'nothing'}"
        )
    figure = Figure(figsize=(5.6, 4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    longest, top = 1, 1.0
    for name, (style, label) in known.items():
        values = _numbers(name, history[name])
        finite = np.flatnonzero(np.isfinite(values))
        # One point makes no line.
        axes.plot(finite + 1, values[finite], style, label=label, marker="o", markersize=4)
        longest, top = max(longest, len(values)), max(top, *values[finite], 1.0)
    axes.set_xlabel("epoch")
    axes.set_xlim(1 - 0.02 * longest, longest * 1.02)
    axes.set_ylim(0, 1.03 * top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, framealpha=0.8)
    return figure


def _history_figure(history, unit="epoch"):
    series = {name: _numbers(name, values) for name, values in history.items() if name != "epoch"}
    lengths = {len(values) for values in series.values()}
    if not lengths or lengths == {0}:
        raise InputError("history is empty; train for at least one epoch before drawing it.")
    if len(lengths) > 1:
        counts = {name: len(values) for name, values in series.items()}
        raise InputError(f"history has lists of different lengths: {counts}.")
    (epochs,) = lengths

    panels = _panels(series)
    columns = len(panels) if len(panels) < 4 else math.ceil(len(panels) / 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.6 * columns, 4 * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if any(name.startswith("val_") for name in series):
        figure.suptitle("solid: training      dashed: validation (val_)", fontsize=11)
    for place, (title, names) in enumerate(panels.items(), start=1):
        _draw_panel(figure.add_subplot(rows, columns, place), title, names, series, epochs, unit)
    return figure


def _numbers(name, values):
    try:
        return np.asarray(values, np.float64).reshape(len(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"history[{name!r}] is not a list of numbers: {values!r}.") from error


def _base(name):
    return name.removeprefix("val_")


def _panels(series):
    """Put names of curves into panels: dict from title to names, in the order to draw."""
    panels = {title: [] for title, _ in HISTORY_PANELS}
    for name in series:
        words = set(_base(name).split("_"))
        for title, keys in HISTORY_PANELS:
            in_group = any(_base(name).startswith(f"{key}_") for key in keys if "_" in key)
            if _base(name) in keys or words & set(keys) or in_group:  # learning_rate_head
                panels[title].append(name)
                break
        else:
            panels.setdefault(_base(name), []).append(name)
    return {title: names for title, names in panels.items() if names}


def _draw_panel(axes, title, names, series, epochs, unit):
    bases = list(dict.fromkeys(_base(name) for name in names))
    for name in names:
        values = series[name]
        finite = np.flatnonzero(np.isfinite(values))
        validation = name.startswith("val_")
        axes.plot(
            finite + 1,
            values[finite],
            color=f"C{bases.index(_base(name)) % 10}",
            linestyle="--" if validation else "-",
            linewidth=1.8,
            # One point makes no line; few points are worth seeing.
            marker="o" if epochs <= 30 else None,
            markersize=4 if epochs > 1 else 7,
            markerfacecolor="white" if validation else None,
            label=name if len(finite) else f"{name}: no values",
        )
    axes.set_xlabel(unit)
    axes.set_ylabel(title.replace("_", " "))
    margin = 0.5 if epochs < 3 else 0.02 * epochs
    axes.set_xlim(1 - margin, epochs + margin)
    if title == SCORE_PANEL:
        axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.8)
