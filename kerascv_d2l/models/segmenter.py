"""Class maps of images of any size, through windows that a network can take."""

import numpy as np
import tensorflow as tf

from kerascv_d2l.devices import map_batch
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.segmentation import class_map

WINDOW = (512, 512)
OVERLAP = 64  # pixels: two of the network's coarsest cells, so that no seam lies on a border
_NO_CLASS = -1  # label of the rows and columns by which a small image is padded


def window_starts(size, window, overlap):
    """Spread windows evenly along one side of an image.

    Args:
        size: int or int32 scalar tensor, the image's side in pixels, at least
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
    """Class maps of whole images, in windows whose sides the network's stride divides.

    Windows are as large as allowed and as the image. A side that the stride
    does not divide takes two windows or more, which together reach every pixel.
    Where windows overlap, the scores (before the softmax) are averaged. An
    image smaller than the stride is padded to it and the scores cropped. An
    image that is a single window gets exactly `model(image)`.

    Scores are kept for one column of windows at a time, so memory grows with the
    height of the image, but for the image and its class map.

    Args:
        model: function of float32 or uint8 `(n, h, w, 3)` pixels to float scores `(n, h, w,
            num_classes)`, usually a `keras.Model` such as `FCN`.
        window: `(height, width)` of the largest window, multiples of `stride`.
        overlap: int, least overlap of two windows in pixels; at most half a
            window is used.
        windows_at_a_time: int, how many go through the network together.
        flip: whether to average with the scores of the windows flipped left to right, at
            twice the time.
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
                memory for the whole image.

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
        outputs = self._compile(
            (images.dtype, bool(return_scores)),
            lambda images: self.segment(images, return_scores=return_scores),
            [tf.TensorSpec([None, None, None, images.shape[-1]], images.dtype)],
        )(images)
        if single:
            outputs = tf.nest.map_structure(lambda output: output[0], outputs)
        return outputs

    def segment(self, images, return_scores=False):
        """Do the work of a call as a plain function of a batch, for use in a graph or an export."""
        specs = [tf.TensorSpec([None, None], tf.int32)]
        if return_scores:
            specs.append(tf.TensorSpec([None, None, self.num_classes], tf.float32))

        def finish(scores, times, _):
            if not return_scores:
                return [class_map(scores)]  # a sum is highest where the mean is
            scores /= times
            return [class_map(scores), scores]

        outputs = map_batch(
            lambda image: self._segment_one(image, finish, specs),
            images,
            fn_output_signature=specs,
            parallel_iterations=1,  # one image in memory at a time
        )
        return tuple(outputs) if return_scores else outputs[0]

    def segment_fixed(self, images):
        """Do the work of a call with scores for a batch of one size, without loops and lists.

        TensorFlow Lite's builtin operators have no lists of tensors whose shapes vary. All windows
        go through the network together.

        Args:
            images: pixels 0-255 `(batch, height, width, 3)`, whose shape is known.

        Returns:
            int32 classes `(batch, height, width)`, and float32 scores `(..., num_classes)`.
        """
        batch, height, width = images.shape[:3]
        for axis, side in ((1, height), (2, width)):
            if side < self.stride:
                images = tf.gather(images, np.arange(self.stride).clip(max=side - 1), axis=axis)
        with tf.init_scope():  # where the windows lie is a number while a graph is built, too
            size = tf.constant(images.shape[1:3])
            rows, columns = self._windows(size)
            times = _times(rows, columns, size[0], 0, size[1]).numpy()  # (height, width, 1)
            places = [(top, left) for top in rows.starts.numpy() for left in columns.starts.numpy()]
            sides, size = (int(rows.side), int(columns.side)), size.numpy()
        windows = [images[:, y : y + sides[0], x : x + sides[1]] for y, x in places]
        scores = self._score(tf.concat(windows, 0))
        total = 0.0
        for k, place in enumerate(places):
            around = np.stack([place, size - sides - place], 1)  # (2, 2)
            piece = scores[k * batch : (k + 1) * batch]
            total += tf.pad(piece, [[0, 0], *around.tolist(), [0, 0]])
        scores = (total / times)[:, :height, :width]
        return class_map(scores), scores

    def with_loss(self, image, labels, loss):
        """Segment one image and sum up its loss, which takes no memory for all of the scores.

        Args:
            image: pixels 0-255 `(height, width, 3)`, uint8 or float.
            labels: int classes `(height, width)`.
            loss: `SegmentationCrossEntropy`.

        Returns:
            int32 classes `(height, width)`, and two float32 scalars: the sum of the weighted
            losses of the averaged scores, and that of the weights.
        """
        specs = [tf.TensorSpec([None, None], dtype) for dtype in (tf.int32, tf.float32, tf.float32)]

        def compute(image, labels):
            labels = tf.cast(labels, tf.int32)
            labels = _pad_to(labels, self.stride, constant=_NO_CLASS)

            def finish(scores, times, start):
                scores /= times
                truth = labels[:, start : start + tf.shape(scores)[1]]
                losses, weights = loss.weighted(truth[None], scores[None])
                return [class_map(scores), losses[0], weights[0]]

            classes, losses, weights = self._segment_one(image, finish, specs)
            return classes, tf.reduce_sum(losses), tf.reduce_sum(weights)

        image, labels = tf.convert_to_tensor(image), tf.convert_to_tensor(labels)
        return self._compile(
            (image.dtype, labels.dtype, id(loss)),
            compute,
            [
                tf.TensorSpec([None, None, image.shape[-1]], image.dtype),
                tf.TensorSpec([None, None], labels.dtype),
            ],
        )(image, labels)

    def _compile(self, key, function, signature):
        key = (*key, signature[0].shape[-1])
        if key not in self._compiled:
            self._compiled[key] = tf.function(function, input_signature=signature, autograph=False)
        return self._compiled[key]

    def _segment_one(self, image, finish, specs):
        """Segment `(height, width, 3)`, one column of windows after another.

        `finish` is a function of summed scores `(height, w, num_classes)`, the number of windows
        that reach each pixel `(height, w, 1)`, and the column where they start, to a list of
        tensors `(height, w, ...)` of `specs`. Returns the like `(height, width, ...)`.
        """
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        # Only sides below one stride are padded; larger ones are reached by a further window.
        image = _pad_to(image, self.stride)
        size = tf.shape(image)[:2]
        rows, columns = self._windows(size)
        maps = tf.TensorSpec([None, None, self.num_classes], tf.float32)

        def column(c):
            left = columns.starts[c]
            scores = self._score_strip(image[:, left : left + columns.side], rows)
            (strip,) = _overlap_add(
                rows, lambda r: scores[r], self.num_classes, 0, lambda sums, _: [sums], [maps]
            )
            return strip  # (height, w, num_classes)

        def finish_columns(scores, start):
            end = start + tf.shape(scores)[1]
            times = _times(rows, columns, size[0], start, end)
            return [_swap(output) for output in finish(scores, times, start)]

        outputs = _overlap_add(columns, column, self.num_classes, 1, finish_columns, specs)
        return [_swap(output)[:height, :width] for output in outputs]

    def _windows(self, size):
        """`_Windows` along both sides of an image of a size, int32 `(2,)`, of at least a stride."""
        sides = tf.minimum(size // self.stride * self.stride, self.window)
        pairs = zip(tf.unstack(size), tf.unstack(sides), strict=True)
        return [_Windows(whole, side, self.overlap) for whole, side in pairs]

    def _score_strip(self, strip, rows):
        """Score the windows `(h, w, 3)` of a strip `(height, w, 3)`: `(n, h, w, num_classes)`."""
        groups = -(-rows.number // self.windows_at_a_time)
        shape = [None, None, None, self.num_classes]

        def one_group(g, done):
            first = g * self.windows_at_a_time
            windows = map_batch(
                lambda top: strip[top : top + rows.side],
                rows.starts[first : first + self.windows_at_a_time],
                fn_output_signature=tf.TensorSpec([None, None, strip.shape[-1]], strip.dtype),
            )
            return g + 1, done.write(g, self._score(windows))

        _, done = tf.while_loop(
            lambda g, _: g < groups,
            one_group,
            [0, tf.TensorArray(tf.float32, groups, element_shape=shape, infer_shape=False)],
            parallel_iterations=1,
        )
        return done.concat()

    def _score(self, windows):
        """`(n, h, w, 3)` to float32 `(n, h, w, num_classes)`."""
        scores = tf.cast(self.model(windows), tf.float32)
        if self.flip:
            flipped = tf.cast(self.model(tf.reverse(windows, [2])), tf.float32)
            scores = (scores + tf.reverse(flipped, [2])) / 2
        return scores


class _Windows:
    """Windows along one side of an image.

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


def _times(rows, columns, height, start, end):
    """How many windows reach each pixel of the columns from `start` to `end`: `(height, w, 1)`."""
    times = rows.times(0, height)[:, None] * columns.times(start, end)
    return tf.cast(times, tf.float32)[..., None]


def _overlap_add(windows, piece, channels, axis, finish, specs):
    """Add up maps that overlap along an axis, and keep only what `finish` makes of the sums.

    `piece` is a function of the number of a window to its map, float32 `(h, w, channels)`. `finish`
    is one of the summed maps that no later window reaches, and of the place where they start, to a
    list of tensors of `specs`, which are joined along their first axis.
    """

    def one_window(i, carried, done):
        scores = piece(i)
        length = tf.shape(carried)[axis]
        scores = tf.cond(
            length > 0,
            lambda: tf.concat(
                [_cut(scores, axis, 0, length) + carried, _cut(scores, axis, length, None)], axis
            ),
            lambda: scores,
        )
        end = windows.ends[i] - windows.starts[i]
        outputs = finish(_cut(scores, axis, 0, end), windows.starts[i])
        done = [array.write(i, output) for array, output in zip(done, outputs, strict=True)]
        return i + 1, _cut(scores, axis, end, None), done

    nothing = tf.zeros([0, 0, channels])
    arrays = [
        tf.TensorArray(s.dtype, windows.number, element_shape=s.shape, infer_shape=False)
        for s in specs
    ]
    _, _, done = tf.while_loop(
        lambda i, *_: i < windows.number,
        one_window,
        [0, nothing, arrays],
        [tf.TensorShape([]), tf.TensorShape([None, None, channels]), [None] * len(specs)],
        parallel_iterations=1,
    )
    return [array.concat() for array in done]


def _cut(x, axis, start, end):
    """Cut `(h, w, channels)` from `start` to `end` along axis 0 or 1."""
    return x[start:end] if axis == 0 else x[:, start:end]


def _swap(x):
    """Exchange the first two axes."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def _pad_to(x, least, constant=None):
    """Pad `(height, width, ...)` below and to the right to `least` by the last row and column.

    With `constant` by that value instead.
    """
    size = tf.shape(x)[:2]
    if constant is not None:
        missing = tf.maximum(least - size, 0)
        return tf.pad(x, tf.stack([tf.zeros_like(missing), missing], 1), constant_values=constant)
    for axis in (0, 1):
        places = tf.range(tf.maximum(size[axis], least))
        x = tf.gather(x, tf.minimum(places, size[axis] - 1), axis=axis)
    return x
