"""What layers that show a window of each image share."""

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation.base import RandomTransform, pair
from kerascv_d2l.ops.geometry import as_dtype, crop_and_resize, crop_boxes, crop_mask, overlap
from kerascv_d2l.ops.segmentation import IGNORE_LABEL


class RandomWindow(RandomTransform):
    """Cut a window, which `draw` gives, out of an image, its boxes and its masks.

    Args:
        size: int or `(height, width)` of the results; None for that of the image.
        antialias: bool or None, as for `crop_and_resize`.
        fill: what is outside the image, where windows reach there; None where
            they never do.
        mask_fill: class of mask pixels outside.
    """

    full_resolution = True
    cuts_first = True
    by_centre = False  # whether objects that are not ignored go with their centre

    def __init__(self, size=None, antialias=None, fill=None, mask_fill=IGNORE_LABEL, **kwargs):
        super().__init__(**kwargs)
        self.supports_jit = False  # Keras': XLA cuts no windows of any size
        self.size = None if size is None else pair(size, "size")
        self.antialias = antialias
        self.fill = tuple(fill) if isinstance(fill, (tuple, list)) else fill
        self.mask_fill = None if fill is None else mask_fill

    def apply(self, example, draw, dtype=None):
        """Show the window `draw`, int32 `(4,)`; `dtype` is that of the pixels."""
        channels = example.image.shape[-1]
        if isinstance(self.fill, tuple) and len(self.fill) not in (1, channels):
            raise InputError(
                f"fill is {self.fill}, {len(self.fill)} numbers; wanted one, or one for each of "
                f"the {channels} channels of the images"
            )
        return cut_window(
            example,
            draw,
            self.output_size(*example.image.shape[:2]),
            self.antialias,
            self.fill,
            self.mask_fill,
            self.by_centre,
            dtype,
        )

    def output_size(self, height, width):
        """Height and width of the results."""
        return (height, width) if self.size is None else self.size


def cut_window(
    example,
    window,
    size,
    antialias=None,
    fill=None,
    mask_fill=IGNORE_LABEL,
    by_centre=False,
    dtype=None,
):
    """Cut a window out of an `Example`.

    Boxes are clipped to the window, and do not follow what is left of their masks (as in
    torchvision and Detectron2). An object of whose mask nothing is left goes. What is ignored
    stays while any of it is left, `by_centre` or not: it would be learned as background.

    Args:
        example: `Example`.
        window: int32 `(4,)`.
        size: `(height, width)` of the result; where they are None the image's.
        antialias: bool or None, as for `crop_and_resize`.
        fill: likewise.
        mask_fill: likewise for `crop_mask`, where there is a `fill`.
        by_centre: as for `crop_boxes`.
        dtype: of the pixels; None for the image's, to which they are rounded.

    Returns:
        `Example`.
    """
    old_size = example.size
    size = [old_size[axis] if side is None else side for axis, side in enumerate(size)]
    pixels = crop_and_resize(example.image, window, size, antialias, fill)
    found = example._replace(image=as_dtype(pixels, dtype or example.image.dtype))
    if example.boxes is not None:
        if by_centre and example.ignore is not None:
            by_centre = ~example.ignore
        boxes, kept = crop_boxes(example.boxes, window, old_size, size, by_centre)
        found = found._replace(boxes=boxes).keep(kept)
    if example.masks is not None:
        masks = example.masks
        if callable(masks):
            masks = masks(size, *overlap(window, old_size, size))
        else:
            masks = crop_mask(masks, window, size, None if fill is None else 0, axis=1)
        found = found._replace(masks=masks).keep(tf.reduce_any(masks > 0, axis=[1, 2]))
    if example.mask is not None:
        mask = crop_mask(example.mask, window, size, None if fill is None else mask_fill)
        found = found._replace(mask=mask)
    return found
