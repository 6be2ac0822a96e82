"""Class maps of pictures of any size, through windows that a network can take."""

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.segmentation import class_map

WINDOW = (512, 512)
OVERLAP = 64  # pixels: two of the network's coarsest cells, so that no seam lies on a border


def window_starts(size, window, overlap):
    """Spread windows evenly along one side of a picture.

    Args:
        size: int or int32 scalar tensor, the picture's side in pixels, at least
            `window`.
        window: same, side of the windows.
        overlap: same, least overlap of two neighbours; cut down to half a window.

    Returns:
        int32 `(n,)`, the first pixel of each window: the first one 0, the last
        one `size - window`, and as few as reach every pixel.
    """
    overlap = tf.minimum(overlap, window // 2)
    number = 1 + -(-(size - window) // (window - overlap))
    steps = tf.range(number)
    # Floor division of integers: never further apart than `window - overlap`.
    return tf.cast(steps * (size - window) // tf.maximum(number - 1, 1), tf.int32)


class Segmenter:
    """Class maps of whole pictures, in windows whose sides the network's stride divides.

    Windows are as large as allowed and as the picture. A side that the stride
    does not divide takes two windows or more, which together reach every pixel.
    Where windows overlap, the scores (before the softmax) are averaged. A
    picture smaller than the stride is lengthened to it and the scores cut. A
    picture that is a single window gets exactly `model(picture)`.

    Windows run down the picture, column after column of windows. Scores are
    kept only where a later window will add to them, so memory hardly grows with
    the picture but for the picture and its class map.

    Args:
        model: function of float32 or uint8 `(n, h, w, 3)` pixels to float scores `(n, h, w,
            num_classes)`, usually a `keras.Model` such as `FCN`.
        window: `(height, width)` of the largest window, multiples of `stride`.
        overlap: int, least overlap of two windows in pixels; at most half a
            window is used.
        windows_at_a_time: int, how many go through the network together.
        flip: whether to average with the scores of the mirrored windows (left
            to right), at twice the time.
        stride: int that divides the sides of windows; by default the model's
            `size_multiple`, or else 32.
        num_classes: int, by default the last number of the model's output shape.

    Raises:
        InputError: if an argument is out of range.
    """

    def __init__(
        self,
        model,
        window=WINDOW,
        overlap=OVERLAP,
        windows_at_a_time=4,
        flip=False,
        stride=None,
        num_classes=None,
    ):
        stride = stride or getattr(model, "size_multiple", 32)
        if len(window) != 2 or any(side < stride or side % stride for side in window):
            raise InputError(
                f"window={tuple(window)}: expected (height, width), multiples of the network's "
                f"stride {stride}."
            )
        if overlap < 0:
            raise InputError(f"overlap={overlap}: expected at least 0 pixels.")
        if windows_at_a_time < 1:
            raise InputError(f"windows_at_a_time={windows_at_a_time}: expected at least 1.")
        self.model = model
        self.window = tuple(window)
        self.overlap = overlap
        self.windows_at_a_time = windows_at_a_time
        self.flip = flip
        self.stride = stride
        self.num_classes = num_classes or model.output_shape[-1]
        self._compiled = {}

    def __call__(self, images, return_scores=False):
        """Find the class of every pixel.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, or `(height, width, 3)`,
                uint8 or float, RGB.
            return_scores: whether to give the averaged scores too. They take
                memory for the whole picture.

        Returns:
            int32 classes `(batch, height, width)`, or `(height, width)`; or a pair of
            these and float32 scores `(..., num_classes)`.

        Raises:
            InputError: if the images have another rank or no pixels.
        """
        images = tf.convert_to_tensor(images)
        single = images.shape.rank == 3
        if single:
            images = images[None]
        if images.shape.rank != 4 or 0 in images.shape[1:]:
            raise InputError(
                f"images of shape {tuple(images.shape)}: expected (batch, height, width, 3) or "
                "(height, width, 3), with at least one pixel."
            )
        key = images.dtype, images.shape[-1], bool(return_scores)
        if key not in self._compiled:
            self._compiled[key] = tf.function(
                lambda images: self.segment(images, return_scores=return_scores),
                input_signature=[tf.TensorSpec([None, None, None, key[1]], key[0])],
                autograph=False,
            )
        outputs = self._compiled[key](images)
        if single:
            outputs = tf.nest.map_structure(lambda output: output[0], outputs)
        return outputs

    def segment(self, images, return_scores=False):
        """Do the work of a call as a plain function of a batch, for use in a graph or an export.

        Args:
            images: `(batch, height, width, 3)`, as for a call.
            return_scores: as for a call.

        Returns:
            as a call.
        """
        signature = tf.TensorSpec([None, None], tf.int32)
        if return_scores:
            signature = signature, tf.TensorSpec([None, None, None], tf.float32)
        return tf.map_fn(
            lambda image: self._segment_one(image, return_scores),
            images,
            fn_output_signature=signature,
            parallel_iterations=1,  # one picture in memory at a time
        )

    def _score(self, windows):
        """`(n, h, w, 3)` to float32 `(n, h, w, num_classes)`."""
        scores = tf.cast(self.model(windows), tf.float32)
        if self.flip:
            mirrored = tf.cast(self.model(tf.reverse(windows, [2])), tf.float32)
            scores = (scores + tf.reverse(mirrored, [2])) / 2
        return scores

    def _segment_one(self, image, return_scores):
        """Segment `(height, width, 3)`: a loop over columns of windows.

        Loops down a column pass on the lower part of each window's scores, to
        which the next window adds, and loops across pass on the right part of
        each column of windows.
        """
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        # Only sides below one stride are lengthened; larger ones are reached by a further window.
        image = _lengthen_short_sides(image, self.stride)
        size = tf.shape(image)[:2]
        sides = tf.minimum(size // self.stride * self.stride, self.window)
        rows = _Windows(size[0], sides[0], self.overlap)
        columns = _Windows(size[1], sides[1], self.overlap)
        maps = tf.TensorShape([None, None, self.num_classes])

        def one_column(c, from_left, columns_done):
            left, end = columns.starts[c], columns.ends[c]

            def one_window(r, group, from_above, to_right, pieces):
                top, bottom = rows.starts[r], rows.ends[r]
                group = tf.cond(
                    r % self.windows_at_a_time == 0,
                    lambda: self._score(self._cut(image, rows, r, columns, left)),
                    lambda: group,
                )
                scores = group[r % self.windows_at_a_time]  # (h, w, num_classes)
                scores = _add_at_start(scores, from_above, axis=0)
                # Rows before the next window are finished, no later window reaches them ...
                from_above = scores[bottom - top :]
                scores = _add_at_start(scores[: bottom - top], from_left[top:bottom], axis=1)
                # ... and so are columns before the next column of windows.
                to_right = to_right.write(r, scores[:, end - left :])
                scores = scores[:, : end - left]
                if return_scores:
                    times = rows.times(top, bottom)[:, None] * columns.times(left, end)
                    scores /= tf.cast(times, tf.float32)[..., None]  # (rows, columns, 1)
                else:
                    scores = class_map(scores)  # a sum is highest where the mean is
                return r + 1, group, from_above, to_right, pieces.write(r, scores)

            *_, to_right, pieces = tf.while_loop(
                lambda r, *_: r < rows.number,
                one_window,
                [
                    tf.constant(0),
                    tf.zeros([0, 0, 0, self.num_classes]),
                    tf.zeros([0, 0, self.num_classes]),
                    tf.TensorArray(tf.float32, rows.number, element_shape=maps, infer_shape=False),
                    self._pieces(rows.number, return_scores),
                ],
                [tf.TensorShape(shape) for shape in ([], [None, *maps], maps, None, None)],
                parallel_iterations=1,
            )
            # Columns lie side by side, and a TensorArray joins along the first axis: transpose.
            return c + 1, to_right.concat(), columns_done.write(c, _swap(pieces.concat()))

        *_, columns_done = tf.while_loop(
            lambda c, *_: c < columns.number,
            one_column,
            [
                tf.constant(0),
                tf.zeros([size[0], 0, self.num_classes]),
                self._pieces(columns.number, return_scores),
            ],
            [tf.TensorShape(shape) for shape in ([], maps, None)],
            parallel_iterations=1,
        )
        result = _swap(columns_done.concat())[:height, :width]
        return (class_map(result), result) if return_scores else result

    def _cut(self, image, rows, r, columns, left):
        """`(n, h, w, 3)`, the windows from the r-th down in one column."""
        tops = rows.starts[r : r + self.windows_at_a_time]
        windows = tf.map_fn(
            lambda top: image[top : top + rows.side, left : left + columns.side],
            tops,
            fn_output_signature=tf.TensorSpec([None, None, image.shape[-1]], image.dtype),
        )
        return windows

    def _pieces(self, number, return_scores):
        """Room for parts of the class map, or of the scores."""
        if return_scores:
            shape, dtype = [None, None, self.num_classes], tf.float32
        else:
            shape, dtype = [None, None], tf.int32
        return tf.TensorArray(dtype, number, element_shape=shape, infer_shape=False)


class _Windows:
    """Windows along one side of a picture.

    Attributes:
        side: int32 scalar, pixels of a window.
        number: int32 scalar.
        starts: int32 `(number,)`.
        ends: int32 `(number,)`, where the pixels end that no later window
            reaches.
    """

    def __init__(self, size, side, overlap):
        self.side = side
        self.starts = window_starts(size, side, overlap)
        self.ends = tf.concat([self.starts[1:], size[None]], 0)
        self.number = tf.size(self.starts)

    def times(self, start, end):
        """How many windows reach each pixel from `start` to `end`, int32 `(end - start,)`."""
        pixel = tf.range(start, end)[:, None]  # (end - start, 1)
        inside = (pixel >= self.starts) & (pixel < self.starts + self.side)
        return tf.reduce_sum(tf.cast(inside, tf.int32), axis=1)


def _add_at_start(scores, others, axis):
    """Add a smaller map to the first rows or columns of a larger one."""
    length = tf.shape(others)[axis]
    if axis == 0:
        first, rest = scores[:length], scores[length:]
    else:
        first, rest = scores[:, :length], scores[:, length:]
    return tf.cond(length > 0, lambda: tf.concat([first + others, rest], axis), lambda: scores)


def _swap(x):
    """Exchange the first two axes."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def _lengthen_short_sides(image, stride):
    """Repeat the last row and column of `(height, width, 3)` up to `stride` of each."""
    for axis in (0, 1):
        size = tf.shape(image)[axis]
        image = tf.gather(
            image, tf.minimum(tf.range(tf.maximum(size, stride)), size - 1), axis=axis
        )
    return image
