"""Four pictures in one."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation.base import Example, RandomTransform, bounds, pair
from kerascv_d2l.layers.augmentation.windows import cut_window
from kerascv_d2l.ops.geometry import ALGORITHM
from kerascv_d2l.ops.windows import (
    MOSAIC_AREA,
    MOSAIC_CENTRE,
    join_quarters,
    quarter_windows,
    random_mosaic,
)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class Mosaic(RandomTransform):
    """Puts windows of four pictures together around a random point.

    Each picture of a batch is joined by three that are drawn from the batch, in
    random places. (A picture alone is joined by itself.) Objects whose centre is
    outside their window go, the others are clipped. With n rows of boxes a
    picture, 4·n come out. Data may be whatever `RandomTransform` takes, without
    other entries.

    Args:
        size: int or `(height, width)` of the results; None for that of the pictures.
        centre: `(low, high)` of the meeting point over the sides.
        area: `(low, high)` of each window's area over that of the largest that has
            the shape of its quarter.
        antialias: bool or None, as for `crop_and_resize`.
        bounding_box_format: of the boxes, "rel_xyxy" unless said otherwise.
        seed: int or None.

    Raises:
        InputError: for a size or range that is none.

    Source:
        After Bochkovskiy et al. 2020, "YOLOv4", section 3.3.
    """

    def __init__(self, size=None, centre=MOSAIC_CENTRE, area=MOSAIC_AREA, antialias=None, **kwargs):
        super().__init__(**kwargs)
        self.size = None if size is None else pair(size, "size")
        self.centre = bounds(centre, "centre", 0, 1)
        self.area = bounds(area, "area", 0, 1)
        self.antialias = antialias

    def _transform(self, data, seed):
        names = {"images", "bounding_boxes", "segmentation_masks"}
        if isinstance(data, dict) and not set(data) <= names:
            raise InputError(
                f"the data has the entries {sorted(data)}; a mosaic can only be made of "
                f"{', '.join(sorted(names))}"
            )
        return super()._transform(data, seed)

    def _transform_one(self, fields, seed):
        batch = {name: value[None] for name, value in fields.items()}
        batch = self._transform_batch(batch, seed[None])
        return {name: value[0] for name, value in batch.items()}

    def _transform_batch(self, fields, seeds):
        count = tf.shape(fields["images"])[0]

        def one(number, seed):
            partner_seed, order_seed, mosaic_seed = tf.unstack(
                tf.random.split(seed, 3, alg=ALGORITHM)
            )
            partners = tf.random.stateless_uniform(
                (3,), partner_seed, 0, count, tf.int32, alg=ALGORITHM
            )
            places = tf.random.stateless_uniform((4,), order_seed, alg=ALGORITHM)
            members = tf.gather(tf.concat([[number], partners], 0), tf.argsort(places))
            four = [{name: value[members[k]] for name, value in fields.items()} for k in range(4)]
            example = self.join([self._as_example(each) for each in four], mosaic_seed)
            if "labels" in fields:
                old = {
                    "boxes": fields["boxes"],
                    "labels": tf.concat([each["labels"] for each in four], 0),
                }
                return self._as_fields(example, old)
            return self._as_fields(example, {})

        return tf.map_fn(
            lambda pair: one(*pair),
            (tf.range(count), seeds),
            fn_output_signature={
                name: tf.TensorSpec(self._static_shape(name, value), value.dtype)
                for name, value in fields.items()
            },
        )

    def _static_shape(self, name, value):
        shape = super()._static_shape(name, value)
        if name in ("boxes", "labels"):
            rows = None if shape[0] is None else 4 * shape[0]
            return (rows, *shape[1:])
        return shape

    def output_size(self, height, width):
        """Height and width of the results."""
        return (height, width) if self.size is None else self.size

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
        quarters = [
            cut_window(
                example, windows[k], tf.unstack(places[k, 2:]), self.antialias, None, None, True
            )
            for k, example in enumerate(examples)
        ]
        image = join_quarters([quarter.image for quarter in quarters])
        image = tf.ensure_shape(image, (*static, examples[0].image.shape[-1]))
        boxes = is_object = mask = None
        if quarters[0].boxes is not None:
            whole = tf.cast(tf.stack(size), tf.float32)
            places = tf.cast(places, tf.float32) / tf.tile(whole, [2])  # (4, 4) y x height width
            places = tf.gather(places, [1, 0, 3, 2], axis=1)  # x y width height
            boxes = tf.concat(
                [
                    quarter.boxes * tf.tile(places[k, 2:], [2]) + tf.tile(places[k, :2], [2])
                    for k, quarter in enumerate(quarters)
                ],
                0,
            )
            is_object = tf.concat([quarter.is_object for quarter in quarters], 0)
        if quarters[0].mask is not None:
            mask = join_quarters([quarter.mask for quarter in quarters])
            mask = tf.ensure_shape(mask, (*static, *examples[0].mask.shape[2:]))
        return Example(image, boxes, is_object, mask)

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "size": self.size,
            "centre": self.centre,
            "area": self.area,
            "antialias": self.antialias,
        }
