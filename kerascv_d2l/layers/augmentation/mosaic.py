"""Mosaics of four images."""

import keras
import tensorflow as tf

from kerascv_d2l.devices import map_batch
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation.base import Example, RandomTransform, bounds, chance, pair
from kerascv_d2l.layers.augmentation.windows import cut_window
from kerascv_d2l.ops.geometry import ALGORITHM
from kerascv_d2l.ops.windows import (
    MOSAIC_AREA,
    MOSAIC_CENTRE,
    join_quarters,
    quarter_windows,
    random_mosaic,
    whole_window,
)

QUARTERS = 4


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class Mosaic(RandomTransform):
    """Join windows of four images around a random point.

    Each image of a batch is joined by three that are drawn from the batch, in
    random places. (An image alone is joined by itself; `data.batches` draws partners from the
    whole split.) Objects whose centre is outside their window go, but for ignored ones; the others
    are clipped. With n rows of boxes an image, 4·n come out. Takes what `RandomTransform` takes,
    without other entries.

    Args:
        size: int or `(height, width)` of the results; None for that of the images.
        centre: `(low, high)` of the meeting point over the sides.
        area: `(low, high)` of each window's area over that of the largest that has
            the shape of its quarter.
        p: float, probability of a mosaic.
        otherwise: layer, of the same `size`, for the other images; None to resize them.
        antialias: bool or None, as for `crop_and_resize`.

    Raises:
        InputError: if a size, range or probability is out of bounds.

    Source:
        After Bochkovskiy et al. 2020, "YOLOv4", section 3.3.
    """

    full_resolution = True
    cuts_first = True
    partners = QUARTERS - 1

    def __init__(
        self,
        size=None,
        centre=MOSAIC_CENTRE,
        area=MOSAIC_AREA,
        p=1.0,
        otherwise=None,
        antialias=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_jit = False  # Keras': XLA cuts no windows of any size
        self.size = None if size is None else pair(size, "size")
        if self.size is not None and min(self.size) < 2:
            raise InputError(f"size is {size!r}; wanted 2 pixels or more a side, for four images")
        self.centre = bounds(centre, "centre", 0, 1)
        self.area = bounds(area, "area", 0, 1)
        self.p = chance(p, "p")
        self.otherwise = otherwise
        self.antialias = antialias

    def transform(self, data, seed):
        """Transform with draws that depend on `seed` only, as `RandomTransform.transform`."""
        names = {"images", "bounding_boxes", "segmentation_masks"}
        if isinstance(data, dict) and not set(data) <= names:
            raise InputError(
                f"the data has the entries {sorted(data)}; a mosaic can only be made of "
                f"{', '.join(sorted(names))}"
            )
        return super().transform(data, seed)

    def transform_one(self, example, seed):
        """Join an example with itself."""
        return self.transform_members(lambda k: example, seed)

    def transform_batch(self, example, seed):
        """Join each example with three of the batch."""
        fields, count = example.fields(), tf.shape(example.image)[0]

        def one(both):
            number, own_seed = both
            partner_seed, own_seed = tf.unstack(tf.random.split(own_seed, 2, alg=ALGORITHM))
            partners = tf.random.stateless_uniform(
                (self.partners,), partner_seed, 0, count, tf.int32, alg=ALGORITHM
            )
            members = tf.concat([[number], partners], 0)

            def member(k):
                return Example(**{name: value[members[k]] for name, value in fields.items()})

            return self.transform_members(member, own_seed).fields()

        seeds = tf.random.split(seed, count, alg=ALGORITHM)
        fields = map_batch(
            one, (tf.range(count), seeds), fn_output_signature=self._signature(example)
        )
        return Example(**fields)

    def transform_members(self, member, seed):
        """Join `member(0)` with `member(1)` … `member(3)`, or not; members are read only then."""
        which, order_seed, seed = tf.unstack(tf.random.split(seed, 3, alg=ALGORITHM))

        def of_four():
            places = tf.random.stateless_uniform((QUARTERS,), order_seed, alg=ALGORITHM)
            order = tf.argsort(places)
            return self.join([member(order[k]) for k in range(QUARTERS)], seed).fields()

        def of_one():
            example = member(0)
            if self.otherwise is not None:
                example = self.otherwise.transform_one(example, seed)
            else:
                size = self.output_size(*example.image.shape[:2])
                window = whole_window(example.size)
                example = cut_window(example, window, size, self.antialias, by_centre=True)
            if example.boxes is not None:
                example = example.pad(QUARTERS * tf.shape(example.boxes)[0])
            return example.fields()

        if self.p == 1:
            return Example(**of_four())
        is_mosaic = tf.random.stateless_uniform((), which, alg=ALGORITHM) < self.p
        return Example(**tf.cond(is_mosaic, of_four, of_one))

    def output_size(self, height, width):
        """Height and width of the results."""
        return (height, width) if self.size is None else self.size

    def output_rows(self, count):
        """Rows of boxes in a result for `count` rows in the data."""
        return QUARTERS * count

    def join(self, examples, seed):
        """Make a mosaic of four examples, whose sizes may differ.

        Args:
            examples: four `Example`, upper left, upper right, lower left, lower
                right; all of them with boxes and masks, or none.
            seed: integers `(2,)`.

        Returns:
            `Example`, with the rows of all boxes one after the other.
        """
        static = self.output_size(*examples[0].image.shape[:2])
        size = [examples[0].size[k] if side is None else side for k, side in enumerate(static)]
        sizes = tf.stack([example.size for example in examples])
        meeting, windows = random_mosaic(sizes, size, seed, self.centre, self.area)
        places = quarter_windows(meeting, size)

        def quarter(fields, window, sides):
            example = Example(**fields)
            return cut_window(
                example, window, tf.unstack(sides), self.antialias, by_centre=True
            ).fields()

        # As a function, the graph of a quarter is built once, not four times. (Masks that are
        # still to be decoded are of one image each.)
        if not callable(examples[0].masks):
            quarter = tf.function(quarter, autograph=False)
        quarters = [
            Example(**quarter(example.fields(), windows[k], places[k, 2:]))
            for k, example in enumerate(examples)
        ]

        def joined(images):
            return tf.ensure_shape(join_quarters(images), (*static, *images[0].shape[2:]))

        image, mask = joined([quarter.image for quarter in quarters]), quarters[0].mask
        if mask is not None:
            mask = joined([quarter.mask for quarter in quarters])
        if quarters[0].boxes is None:
            return Example(image, mask=mask)
        # Each image's objects in the whole: boxes (n, 4), instance masks (n, height, width).
        moved = [_moved(quarter, places[k], size) for k, quarter in enumerate(quarters)]
        rows = {
            name: tf.concat([example.fields()[name] for example in moved], 0)
            for name in moved[0].fields()
            if name not in ("image", "mask")
        }
        if "masks" in rows:
            count = rows["classes"].shape[0]
            rows["masks"] = tf.ensure_shape(rows["masks"], (count, *static))
        return Example(image, mask=mask, **rows)


def _moved(quarter, place, size):
    """Put the objects of a quarter where it lies, `place` int32 `(4,)`, in a whole of `size`."""
    whole = tf.tile(tf.cast(tf.stack(size), tf.float32), [2])  # height width height width
    share = tf.gather(tf.cast(place, tf.float32) / whole, [1, 0, 3, 2])  # x y width height
    found = quarter._replace(
        boxes=quarter.boxes * tf.tile(share[2:], [2]) + tf.tile(share[:2], [2])
    )
    if quarter.masks is None:
        return found
    after = tf.stack(size) - place[:2] - place[2:]
    margins = tf.pad(tf.stack([place[:2], after], -1), [[1, 0], [0, 0]])  # (3, 2)
    return found._replace(masks=tf.pad(quarter.masks, margins))
