"""Generated images with objects in them: a data set that needs no network.

Shaded, rotated and partly hidden shapes lie on textured ground, among clutter
that looks like them but is no object. Only additions, multiplications,
divisions and square roots of NumPy arrays decide about pixels, which IEEE
arithmetic fixes to the last bit, and uniform draws of PCG64: the same seed gives
the same bytes on any machine.
"""

import dataclasses
import functools
import math
import time

import numpy as np

from kerascv_d2l.data.splits import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    UNLABELLED,
    DataSet,
    Split,
    first_of,
)
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.rle import encode_masks

CLASS_NAMES = (
    "star",
    "ring",
    "cross",
    "moon",
    "triangle",
    "disc",
    "arrow",
    "square",
    "hourglass",
    "corner",
)
CLUTTER_NAMES = ("bar", "ellipse", "half disc", "wedge")
# Sines and cosines may differ in their last bit between machines: rounded to
# this many steps they do not.
TRIG_STEPS = 2**16
# A placement that hides too much is drawn again this many times, then given up.
PLACEMENT_TRIES = 8
# Least distance between the colour of a thing and the mean of the ground under
# it, in the channel where they differ most: below, nobody could see it.
MIN_CONTRAST = 70
# Where things are lighter than the ground: least value of their colour's channels, and what the
# ground is multiplied by.
LIGHT = 140
DARKER = np.float32(0.5)
TRAIN_STREAM, VAL_STREAM = 0, 1


@dataclasses.dataclass(frozen=True)
class SceneSettings:
    """How hard the generated images are.

    Attributes:
        max_objects: int: most objects on an image.
        object_size: `(smallest, largest)` longer side of an object, as a share
            of the shorter side of the image.
        empty: float in [0, 1]: share of images without any object.
        clutter: int: most pieces of clutter on an image.
        occlusion: float in [0, 1]: chance of each object to have a bar, or
            another thing, laid over it.
        min_visible: float in (0, 1]: share of its area that stays visible of
            each object, whatever lies over it or is cut off by the border.
        texture: float: strength of the pattern of ground and things, 0 for none.
        turn: float in [0, 1]: how far things are turned at most, as a share of a
            full turn; 1 for any direction.
        margin: float from 0 to 0.5: how far the middle of a thing keeps from the border, as a
            share of its longer side; at 0.5 things are inside as a whole.
        lighter: bool: whether things are light and the ground dark. Otherwise both have any
            colour, as long as they differ.
    """

    max_objects: int = 4
    object_size: tuple = (0.16, 0.6)
    empty: float = 0.1
    clutter: int = 4
    occlusion: float = 0.3
    min_visible: float = 0.55
    texture: float = 1.0
    turn: float = 1.0
    margin: float = 0.3
    lighter: bool = False

    def __post_init__(self):
        low, high = self.object_size
        if not 0 < low <= high <= 1:
            raise InputError(
                f"object_size is {self.object_size}; wanted 0 < smallest <= largest <= 1"
            )
        shares = dict.fromkeys(("empty", "occlusion", "min_visible", "turn"), 1) | {"margin": 0.5}
        for field, most in shares.items():
            if not 0 <= getattr(self, field) <= most:
                raise InputError(f"{field} is {getattr(self, field)}; wanted 0 to {most}")
        if self.max_objects < 1 or self.clutter < 0:
            raise InputError(
                f"max_objects is {self.max_objects} and clutter {self.clutter}; "
                "wanted at least 1 and at least 0"
            )


# One large thing, turned little, on quiet ground: a network learns that in minutes from random
# weights, which it does not where shapes are small or turned in every direction.
ONE_OBJECT = SceneSettings(
    max_objects=1,
    object_size=(0.65, 0.95),
    empty=0.0,
    clutter=0,
    occlusion=0.15,
    min_visible=0.7,
    texture=0.5,
    turn=0.125,
)

# For images of 32 x 32 pixels: a network from random weights has it after some 7000 images
# because things are always light; with either lighter or darker ones it needs many more. A linear
# classifier fails on where they lie and how large they are.
ONE_LIGHT_OBJECT = dataclasses.replace(
    ONE_OBJECT, object_size=(0.5, 0.9), occlusion=0.0, margin=0.4, lighter=True
)

# As little variety as colours, light, place and size make: for models that learn to make images.
PLAIN_OBJECT = dataclasses.replace(
    ONE_LIGHT_OBJECT, object_size=(0.6, 0.85), texture=0.0, turn=0.04, margin=0.5
)

# One or two large things, turned little: a segmenter learns them from random weights in minutes.
LARGE_OBJECTS = dataclasses.replace(
    ONE_OBJECT, max_objects=2, object_size=(0.5, 0.85), min_visible=0.6
)


@dataclasses.dataclass
class Scene:
    """One generated image.

    Attributes:
        image: uint8 `(h, w, 3)`.
        classes: int `(objects,)`, 0-based.
        boxes_px: float32 `(objects, 4)` corners in pixels: the whole extent of
            each object inside the image, hidden parts included.
        instances: int16 `(h, w)`: 0 for ground and clutter, k + 1 where object
            k is what one sees.
    """

    image: np.ndarray
    classes: np.ndarray
    boxes_px: np.ndarray
    instances: np.ndarray

    @property
    def class_mask(self):
        """int16 `(h, w)`: 0 for ground and clutter, class + 1 elsewhere."""
        return np.concatenate([[0], self.classes + 1]).astype(np.int16)[self.instances]


# Many things, small and large, upright or leaning, among as much that is none: what detectors
# differ on.
CROWDED = SceneSettings(
    max_objects=8, object_size=(0.08, 0.5), empty=0.05, clutter=8, turn=0.1, min_visible=0.5
)

# What can be asked for by name.
SCENES = {
    "usual": SceneSettings(),
    "crowded": CROWDED,
    "one": ONE_OBJECT,
    "one-light": ONE_LIGHT_OBJECT,
    "large": LARGE_OBJECTS,
    "plain": PLAIN_OBJECT,
}

# `load("generated_scenes", …)`.
CROWDED_OPTIONS = {"num_classes": 4, "image_size": 192, "scenes": "crowded"}

# What models that make images learn in minutes.
FOR_GENERATORS = {"num_train": 3000, "num_val": 1000, "num_classes": 4, "scenes": "plain"}


def generate(
    task,
    num_train=800,
    num_val=200,
    seed=0,
    *,
    num_classes=None,
    image_size=None,
    scenes=None,
    masks=False,
    **unknown,
):
    """Generate a data set for a task.

    The images of a split are drawn one by one, each from its own stream of random numbers: its
    first k do not depend on how many follow.

    Args:
        task: `"detection"`, `"segmentation"`, `"unlabelled"` (the images of these three are the
            same), or `"classification"`: one object on each image, whose kind is its class.
        num_train: int: images to train on.
        num_val: int: images to validate on, from a stream of their own.
        seed: int, 0 or more.
        num_classes: int from 1 (classification: 2) to `len(CLASS_NAMES)`: kinds of objects; None
            for 1 (detection) or 4. For segmentation class 0 is the background, ground and
            clutter, and these come after it.
        image_size: int, or `(height, width)`, pixels, at least 32; None for 96 (classification)
            or 128.
        scenes: name of `SCENES`, or `SceneSettings`; None for the task's own.
        masks: bool, for detection: whether targets have the mask of each object, too: its
            visible pixels.
        unknown: none.

    Returns:
        `DataSet` with uint8 arrays of images and, for segmentation, of masks.

    Raises:
        InputError: if an argument is out of range or unknown.
    """
    if unknown or (masks and task != DETECTION):
        raise InputError(
            f"unknown option {first_of(sorted(unknown) or ['masks'])} for generated images; known: "
            "num_train, num_val, num_classes, image_size, scenes and, for detection, masks"
        )
    if isinstance(scenes, str) and scenes not in SCENES:
        raise InputError(f"scenes is {scenes!r}; wanted one of {', '.join(SCENES)}")
    start = time.perf_counter()
    one = task == CLASSIFICATION
    if num_classes is None:
        num_classes = 1 if task in (DETECTION, UNLABELLED) else 4
    if image_size is None:
        image_size = 96 if one else 128
    size = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    scenes = scenes or ("one" if one else "usual")
    settings = SCENES[scenes] if isinstance(scenes, str) else scenes
    if one and (settings.max_objects != 1 or settings.empty > 0):
        known = (n for n, each in SCENES.items() if each.max_objects == 1 and each.empty == 0)
        raise InputError(
            f"scenes is {scenes} (generated_scenes are crowded): their images have several objects "
            "or none, and classification needs one on each; wanted one of "
            f"{first_of(known)}, or the data set generated"
        )
    if one and num_classes < 2:
        raise InputError(f"num_classes is {num_classes}; a classifier needs at least 2")
    if min(num_train, num_val) < 1:
        raise InputError(f"{min(num_train, num_val)} images asked for; wanted at least 1")
    if seed < 0:
        raise InputError(f"seed is {seed}; wanted 0 or more")
    if not 1 <= num_classes <= len(CLASS_NAMES):
        raise InputError(f"num_classes is {num_classes}; wanted 1 to {len(CLASS_NAMES)}")
    if min(size) < 32:
        raise InputError(f"image_size is {image_size}; wanted at least 32 pixels")
    splits = []
    for count, stream in ((num_train, TRAIN_STREAM), (num_val, VAL_STREAM)):
        images, rows = [], []
        for index in range(count):
            scene = generate_scene((seed, stream, index), size, num_classes, settings)
            images.append(scene.image)
            rows.append(_target(task, scene, masks))
        targets = {name: [row[name] for row in rows] for name in rows[0]}
        if task == SEGMENTATION:
            targets["mask"] = np.stack(targets["mask"])
        splits.append(Split(np.stack(images), targets, [f"generated-{i}" for i in range(count)]))
    names = ("background",) * (task == SEGMENTATION) + CLASS_NAMES[:num_classes]
    source = f"generated shapes, seed {seed}"
    return DataSet(names, *splits, source, seconds=time.perf_counter() - start)


def generate_detection(num_train=800, num_val=200, seed=0, **options):
    """Generate a detection data set: `generate`, which has the options."""
    return generate(DETECTION, num_train, num_val, seed, **options)


def generate_segmentation(num_train=800, num_val=200, seed=0, **options):
    """Generate a segmentation data set: `generate`, which has the options."""
    return generate(SEGMENTATION, num_train, num_val, seed, **options)


def generate_classification(num_train=800, num_val=200, seed=0, **options):
    """Generate images of one object each: `generate`, which has the options."""
    return generate(CLASSIFICATION, num_train, num_val, seed, **options)


def _target(task, scene, masks):
    """The entries of an image in `Split.targets`."""
    if task == CLASSIFICATION:
        # No other thing lies on the object, which fits into the image: it is always there.
        return {"label": scene.classes[0]}
    if task == SEGMENTATION:
        return {"mask": scene.class_mask.astype(np.uint8)}
    if task == UNLABELLED:
        return {}
    height, width = scene.instances.shape
    boxes = scene.boxes_px / np.array([width, height, width, height], np.float32)
    found = {"boxes": boxes, "classes": scene.classes}
    return found | {"masks": _encoded_instances(scene)} if masks else found


def _encoded_instances(scene):
    """Run-length encodings of the visible pixels of each object of a scene."""
    numbers = np.arange(1, len(scene.classes) + 1)
    return encode_masks(scene.instances == numbers[:, None, None])  # (objects, h, w)


def generate_scene(seeds, size, num_classes, settings):
    """Compose one image: ground, then clutter and objects over one another.

    Args:
        seeds: tuple of ints, 0 or more, that name the image.
        size: `(height, width)`, pixels.
        num_classes: int.
        settings: `SceneSettings`.

    Returns:
        `Scene`.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))
    ground = _ground(rng, size, settings.texture)
    canvas = _Canvas(ground * DARKER if settings.lighter else ground, settings)
    num_objects = 0
    if rng.random() >= settings.empty:
        num_objects = int(rng.integers(1, settings.max_objects + 1))
    things = [int(rng.integers(num_classes)) for _ in range(num_objects)]
    things += [None] * int(rng.integers(settings.clutter + 1))
    # Large things first: they would hide the small ones, and be drawn in vain.
    longest = [_draw_between(rng, *settings.object_size) * min(size) for _ in things]
    for k in sorted(range(len(things)), key=lambda k: -longest[k]):
        canvas.place(rng, things[k], longest[k])
        if things[k] is not None and rng.random() < settings.occlusion:
            canvas.cover_last(rng)
    return canvas.scene()


class _Canvas:
    """An image in the making, and what is known of the objects on it."""

    def __init__(self, ground, settings):
        self.image = ground  # float32 (h, w, 3)
        self.settings = settings
        self.instances = np.zeros(ground.shape[:2], np.int16)
        self.classes, self.boxes, self.areas = [], [], []

    def scene(self):
        return Scene(
            image=np.floor(np.clip(self.image, 0, 255) + 0.5).astype(np.uint8),
            classes=np.array(self.classes, np.int64),
            boxes_px=np.array(self.boxes, np.float32).reshape(-1, 4),
            instances=self.instances,
        )

    def place(self, rng, kind, longest):
        """Lay an object of class `kind`, or clutter (None), somewhere it hides little."""
        height, width = self.instances.shape
        name = (
            CLUTTER_NAMES[rng.integers(len(CLUTTER_NAMES))] if kind is None else CLASS_NAMES[kind]
        )
        shape = _draw_shape(rng, name, longest, self.settings.turn)
        margin = self.settings.margin * longest
        for _ in range(PLACEMENT_TRIES):
            x = _draw_between(rng, margin, width - margin)
            y = _draw_between(rng, margin, height - margin)
            if self._lay(rng, shape, x, y, kind):
                return True
        return False

    def cover_last(self, rng):
        """Lay a bar over a part of the object that was placed last, if it hides not too much."""
        if not self.boxes:
            return
        x_min, y_min, x_max, y_max = self.boxes[-1]
        longest = max(x_max - x_min, y_max - y_min)
        shape = _draw_shape(rng, "bar", _draw_between(rng, 0.6, 1.3) * longest)
        x, y = _draw_between(rng, x_min, x_max), _draw_between(rng, y_min, y_max)
        self._lay(rng, shape, x, y, None)

    def _lay(self, rng, shape, x, y, kind):
        """Draw `shape` with its middle at (x, y), unless it hid too much; says if it did."""
        height, width = self.instances.shape
        opacity, u, v, left, top = _rasterise(shape, x, y)
        solid = opacity >= 0.5  # (patch height, patch width)
        inside = (
            slice(max(0, -top), max(0, min(solid.shape[0], height - top))),
            slice(max(0, -left), max(0, min(solid.shape[1], width - left))),
        )
        there = (
            slice(max(0, top), max(0, min(height, top + solid.shape[0]))),
            slice(max(0, left), max(0, min(width, left + solid.shape[1]))),
        )
        visible = solid[inside]
        area = int(np.count_nonzero(solid))
        if np.count_nonzero(visible) < self.settings.min_visible * area or not visible.any():
            return False
        under = self.instances[there]
        hidden = np.bincount(under[visible], minlength=len(self.classes) + 1)
        for k in np.flatnonzero(hidden[1:]):
            left_over = np.count_nonzero(self.instances == k + 1) - hidden[k + 1]
            if left_over < self.settings.min_visible * self.areas[k]:
                return False
        ground = self.image[there]
        paint = _paint(rng, u[inside], v[inside], ground, self.settings)
        self.image[there] = ground + opacity[inside][..., None] * (paint - ground)
        if kind is None:
            under[visible] = 0
        else:
            self.classes.append(kind)
            self.areas.append(area)
            self.boxes.append(_extent(visible, there[1].start, there[0].start))
            under[visible] = len(self.classes)
        return True


def _extent(mask, left, top):
    """Corners of the true pixels of a mask whose first pixel is at (left, top)."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)


@dataclasses.dataclass
class _Shape:
    name: str
    half_width: float  # pixels along u, before rotation
    half_height: float  # pixels along v
    cosine: float
    sine: float
    lean: float  # whatever else varies within a kind of shape, in [0, 1)


def _draw_shape(rng, name, longest, turn=1.0):
    cosine, sine = _direction(turn * rng.random())
    aspect = _draw_between(rng, 0.75, 1.0)  # things are a bit wider than high, or the reverse
    if name in ("bar", "ellipse"):
        aspect = _draw_between(rng, 0.15, 0.3) if name == "bar" else _draw_between(rng, 0.35, 0.55)
    sides = [longest / 2, longest / 2 * aspect]
    if rng.random() < 0.5:
        sides.reverse()
    return _Shape(name, *sides, cosine, sine, rng.random())


def _rasterise(shape, x, y):
    """Draw a shape on a patch that holds all of it.

    Returns:
        `(opacity, u, v, left, top)`: float32 `(patch height, patch width)`
        arrays, the last two the shape's own coordinates from about -1 to 1; and
        where in the image the patch begins, in pixels.
    """
    # Half sides of the upright box around the rotated box around the shape.
    reach_x = abs(shape.cosine) * shape.half_width + abs(shape.sine) * shape.half_height + 1
    reach_y = abs(shape.sine) * shape.half_width + abs(shape.cosine) * shape.half_height + 1
    left, right = math.floor(x - reach_x), math.ceil(x + reach_x)
    top, bottom = math.floor(y - reach_y), math.ceil(y + reach_y)
    across = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)  # (patch width,)
    down = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    u = (shape.cosine * across + shape.sine * down) / shape.half_width
    v = (shape.cosine * down - shape.sine * across) / shape.half_height
    # The distance to the edge, in pixels, gives the share of a pixel that is covered.
    distance = _DISTANCES[shape.name](u, v, shape.lean) * min(shape.half_width, shape.half_height)
    return np.clip(0.5 - distance, 0, 1), u, v, left, top


def _paint(rng, u, v, ground, settings):
    """Colour of a thing at its own coordinates: shaded, with a pattern or without."""
    texture = settings.texture
    if settings.lighter:
        colour = rng.integers(LIGHT, 256, 3).astype(np.float32)
    else:
        colour = _draw_colour(rng, ground)
    toward_x, toward_y = _draw_direction(rng)
    strength = _draw_between(rng, 0.1, 0.45)
    bulge = _draw_between(rng, 0.0, 0.4)
    light = 1 + strength * (toward_x * u + toward_y * v) + bulge * (0.5 - (u * u + v * v))
    if rng.random() < 0.5:
        along_x, along_y = _draw_direction(rng)
        waves = _draw_between(rng, 1.0, 3.0) * (along_x * u + along_y * v) + rng.random()
        light = light + texture * _draw_between(rng, 0.1, 0.3) * _triangle_wave(waves)
    grain = rng.random(u.shape, dtype=np.float32) - 0.5
    return light[..., None] * colour + (12 * texture * grain)[..., None]


def _draw_colour(rng, ground):
    """A colour, float32 (3,), that stands out from the pixels around."""
    colour = rng.integers(20, 236, 3).astype(np.float32)
    middle = ground[ground.shape[0] // 2, ground.shape[1] // 2]
    if np.abs(colour - middle).max() < MIN_CONTRAST:
        colour = np.where(middle < 128, middle + MIN_CONTRAST, middle - MIN_CONTRAST)
    return colour


def _ground(rng, size, texture):
    """Textured ground, float32 (h, w, 3): smooth blotches, stripes and grain."""
    height, width = size
    ground = np.zeros((height, width, 3), np.float32) + rng.integers(50, 206, 3).astype(np.float32)
    for cells, strength in ((2, 50), (6, 35), (20, 25)):
        strength = strength * texture * rng.random()
        coarse = rng.random((cells + 1, cells + 1, 3), dtype=np.float32) * 2 - 1
        ground += strength * _enlarge(_enlarge(coarse, height, 0), width, 1)
    along_x, along_y = _draw_direction(rng)
    period = _draw_between(rng, 4.0, 40.0)
    across = np.arange(width, dtype=np.float32) * (along_x / period)
    down = np.arange(height, dtype=np.float32)[:, None] * (along_y / period)
    stripes = _triangle_wave(across + down + rng.random())[..., None]  # (h, w, 1)
    ground += (35 * texture * rng.random()) * stripes * rng.random(3, dtype=np.float32)
    ground += 24 * texture * rng.random() * (rng.random((height, width, 1), np.float32) - 0.5)
    return ground


def _enlarge(grid, size, axis):
    """Linear interpolation of the points of an axis to `size` pixels."""
    cells = grid.shape[axis] - 1
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    cell = np.minimum(position.astype(np.int64), cells - 1)
    share = (position - cell).astype(np.float32)
    share = share.reshape([-1 if k == axis else 1 for k in range(grid.ndim)])
    low = np.take(grid, cell, axis=axis)
    return low + share * (np.take(grid, cell + 1, axis=axis) - low)


def _triangle_wave(x):
    """Between -1 and 1, period 1."""
    return 4 * np.abs(x - np.floor(x) - 0.5) - 1


def _draw_between(rng, low, high):
    return low + (high - low) * rng.random()


def _draw_direction(rng):
    """Cosine and sine of a random angle."""
    return _direction(rng.random())


def _direction(turns):
    angle = 2 * math.pi * turns
    return tuple(round(f(angle) * TRIG_STEPS) / TRIG_STEPS for f in (math.cos, math.sin))


# Distances to the edge of each shape, negative inside, in its own coordinates:
# u and v float32 (h, w), and `lean` in [0, 1) for what varies within a kind.


def _disc(u, v, lean):
    return np.sqrt(u * u + v * v) - 1


def _box(u, v, lean):
    return np.maximum(np.abs(u), np.abs(v)) - 1


def _ring(u, v, lean):
    thickness = 0.18 + 0.1 * lean
    return np.abs(np.sqrt(u * u + v * v) - (1 - thickness)) - thickness


def _cross(u, v, lean):
    arm = 0.25 + 0.12 * lean
    wide, high = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(wide - 1, high - arm), np.maximum(wide - arm, high - 1))


def _moon(u, v, lean):
    bite = 0.45 + 0.2 * lean
    away = u - bite
    return np.maximum(_disc(u, v, lean), 0.85 - np.sqrt(away * away + v * v))


def _half_planes(u, v, count, inner):
    """Distances to each of the `count` edges of a regular polygon, (h, w) one by one."""
    for k in range(count):
        cosine, sine = _direction(k / count)
        yield cosine * u + sine * v - inner


def _star(u, v, lean):
    # A tip is inside all but one of the edges of the pentagon between the tips:
    # the second largest distance counts.
    first = second = np.full_like(u, -np.inf)
    for distance in _half_planes(u, v, 5, 0.309):
        second = np.maximum(second, np.minimum(first, distance))
        first = np.maximum(first, distance)
    return second


def _arrow(u, v, lean):
    shaft = np.maximum(np.abs(v) - (0.15 + 0.1 * lean), np.abs(u + 0.45) - 0.55)
    # A head from u = 0 to its tip at u = 1, one high at its widest.
    head = np.maximum(-u, (u + np.abs(v) - 1) * 0.7071)
    return np.minimum(shaft, head)


def _hourglass(u, v, lean):
    # Two triangles that meet at a waist.
    waist = 0.1 + 0.15 * lean
    side = (np.abs(v) - (waist + (1 - waist) * np.abs(u))) * 0.7071
    return np.maximum(np.abs(u) - 1, side)


def _corner(u, v, lean):
    # A square without the square in one of its corners: the letter L.
    arm = 0.5 + 0.2 * lean
    return np.maximum(_box(u, v, lean), np.minimum(u, v) + 1 - arm)


def _wedge(u, v, lean):
    # A trapezium: one side shorter than the side it faces, and never a triangle.
    narrow = 0.35 + 0.3 * lean
    side = np.abs(v) - (narrow + (1 - narrow) * 0.5 * (u + 1))
    return np.maximum(np.abs(u) - 1, side)


_DISTANCES = {
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "moon": _moon,
    "triangle": lambda u, v, lean: functools.reduce(np.maximum, _half_planes(u, v, 3, 0.5)),
    "disc": _disc,
    "arrow": _arrow,
    "square": _box,
    "hourglass": _hourglass,
    "corner": _corner,
    "bar": _box,
    "ellipse": _disc,
    "half disc": lambda u, v, lean: np.maximum(_disc(u, v, lean), 0.1 * lean - u),
    "wedge": _wedge,
}
