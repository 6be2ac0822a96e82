"""Style transfer beyond the book: several styles, masks, sizes, optimizers, tiles, resuming."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer.book import EPSILON, LR_DECAY
from kerascv_d2l.style_transfer.images import (
    HIGHEST,
    LOWEST,
    as_rgb,
    grey,
    match_luminance,
    postprocess,
    preprocess,
    with_colors_of,
)
from kerascv_d2l.style_transfer.losses import LossWeights
from kerascv_d2l.style_transfer.objective import LOSS_NAMES, Objective, Style, as_targets

OPTIMIZERS = ("adam", "lbfgs")
STARTS = ("content", "style", "noise")
SCHEDULES = ("cosine", "steps")
# Adam's rate. With normalised losses the book's 0.3, a fifteenth of the whole range of colours,
# left a noisier image after 200 steps than 0.05 did (MobileNet, 150 x 225).
BOOK_LEARNING_RATE, LEARNING_RATE = 0.3, 0.1
DECAYS = 10  # by "steps": the book's 500 steps see ten decays of the rate
# A finer level starts from an image that is nearly done, which the full rate would undo.
LEVEL_DECAY = 0.5
# Normalised losses are around 1 whatever the image's size, so a pixel's gradient is far
# below 1e-8 in a large image, and must still count.
NORMALIZED_EPSILON = 1e-14
# SciPy does not give out the state of L-BFGS, so its memory is cleared every so many
# evaluations: only there can a run be saved and go on as if it had not stopped.
LBFGS_ROUND = 100
LBFGS_MEMORY = 10  # pairs of steps and gradients it remembers; SciPy's default too
# Above this many pixels the image is cut into tiles of this side. VGG-19 keeps some 300 float32
# values a pixel for the gradient (block 1 alone 2 x 64), so 1.5 megapixels are about 2 GB of them
# before what the convolutions need besides: an estimate, see benchmarks/style_step.py --memory.
AUTO_TILE_PIXELS = 1_500_000
AUTO_TILE = 512
LEAST_STYLE_SIDE = 32  # a style is enlarged to it, so that every layer sees something


class _StopRunError(Exception):
    """Carries the callback's wish to stop through SciPy."""


class StyleTransfer:
    """Paint one image in the style of another, step by step.

    `run` does all steps; `image` is the image so far. `state` and `set_state` carry a run over
    to another process: it goes on as if it had not been stopped.

    Attributes:
        steps: int, evaluations of the loss that the run consists of.
        history: list of float32 `(4,)`, one for every evaluation, in the order of
            `LOSS_NAMES`: weighted content, style and total-variation loss and their sum.
        level_shapes: list of `(height, width)`, coarse to fine.
        level: int, the level at work.
        done: bool.
    """

    def __init__(
        self,
        content,
        styles,
        network,
        image_shape=None,
        steps=500,
        weights=None,
        optimizer="adam",
        lr=None,
        schedule=None,
        start="content",
        levels=1,
        preserve_color=False,
        style_scale=1.0,
        bounded=None,
        tile="auto",
        seed=0,
    ):
        """Prepare a run.

        Args:
            content: uint8 array `(h, w, 3)` or `PIL.Image`.
            styles: one image, one `Style`, or a list of them.
            network: `Network`.
            image_shape: `(height, width)` of the result, None for the content's own.
            steps: int ≥ 1, evaluations of the loss over all levels, each of which gets an
                equal part.
            weights: `LossWeights`, None for the normalised defaults, `BOOK_WEIGHTS` for the
                book's.
            optimizer: "adam", or "lbfgs" (SciPy's L-BFGS-B), which needs fewer steps and, at
                160 bytes a colour value, more memory.
            lr: learning rate of Adam at the start, in units of the normalised image, and half
                of it with every level; None for 0.1, and the book's 0.3 with plain weights.
            schedule: of the learning rate over a level: "cosine", down to 0 along half a
                cosine, or "steps", times 0.8 ten times over; None for cosine, and the book's
                steps with plain weights. With plain weights, 0.6 along a cosine gets in
                about half of the steps to where 0.3 by steps ends.
            start: "content", "style" (the first one) or "noise".
            levels: int ≥ 1, coarse to fine: each level doubles height and width, and starts
                from the result of the one before.
            preserve_color: bool, whether only luminance is transferred, and the content
                keeps its colours.
            style_scale: float > 0, size of the style's brush: side of the style image in
                units of the result's (areas are compared, proportions kept).
            bounded: bool, whether the image stays among the colours that exist; None: yes,
                except with plain weights, as the book has it.
            tile: int, side in pixels of the tiles that bound memory, None for the whole
                image at once, or "auto": tiles for images above 1.5 megapixels.
            seed: int for the noise to start from.

        Raises:
            InputError: if an argument is none of these, or an image is too small.
        """
        self._weights = LossWeights() if weights is None else weights
        if lr is None:
            lr = LEARNING_RATE if self._weights.normalize else BOOK_LEARNING_RATE
        if schedule is None:
            schedule = "cosine" if self._weights.normalize else "steps"
        self._check(steps, optimizer, lr, schedule, start, levels, style_scale, tile)
        self._content = as_rgb(content, "content")
        styles = styles if isinstance(styles, (list, tuple)) else [styles]
        if not styles:
            raise InputError("styles is empty: give at least one image")
        self._source = grey(self._content) if preserve_color else self._content
        self._styles = []
        for i, style in enumerate(styles):
            style = style if isinstance(style, Style) else Style(style)
            image = as_rgb(style.image, f"styles[{i}]")
            if preserve_color:
                image = match_luminance(grey(image), self._source)
            self._styles.append(dataclasses.replace(style, image=image))
        self._network = network
        self._optimizer, self._lr, self._schedule = optimizer, float(lr), schedule
        self._start, self._seed = start, seed
        self._preserve_color, self._style_scale = preserve_color, style_scale
        self._bounded = self._weights.normalize if bounded is None else bounded
        self._tile = tile
        self.steps = int(steps)
        height, width = self._content.shape[:2] if image_shape is None else image_shape
        self.level_shapes = [
            (max(1, round(height / 2**k)), max(1, round(width / 2**k)))
            for k in reversed(range(levels))
        ]
        if levels > 1:
            self._check_coarsest()
        # The step at which each level ends.
        self._ends = [self.steps * (k + 1) // levels for k in range(levels)]
        self.history = []
        self.done = False
        self._saved = None
        self._start_level(0, None)

    @staticmethod
    def _check(steps, optimizer, lr, schedule, start, levels, style_scale, tile):
        for name, value, allowed in (
            ("optimizer", optimizer, OPTIMIZERS),
            ("schedule", schedule, SCHEDULES),
            ("start", start, STARTS),
        ):
            if value not in allowed:
                raise InputError(f"{name} = {value!r} must be one of {allowed}")
        if not 1 <= levels <= steps:
            raise InputError(
                f"levels = {levels}, steps = {steps}: at least one level, and one step for each"
            )
        for name, value in (("lr", lr), ("style_scale", style_scale)):
            if not value > 0:
                raise InputError(f"{name} = {value} must be > 0")
        if not (tile is None or tile == "auto" or (isinstance(tile, int) and tile > 0)):
            raise InputError(f'tile = {tile!r} must be "auto", None or a number of pixels > 0')

    def _check_coarsest(self):
        try:
            self._network.shapes(self.level_shapes[0])
        except InputError as error:
            raise InputError(
                f"levels = {len(self.level_shapes)}: the coarsest has {self.level_shapes[0]} "
                "pixels (height, width), too few for the network: take fewer levels or a larger "
                "image"
            ) from error

    # ---- levels

    def _start_level(self, level, image):
        """Compute the targets of a level and place the image on it."""
        self.level = level
        shape = self.level_shapes[level]
        tile = self._tile
        if tile == "auto":
            tile = AUTO_TILE if shape[0] * shape[1] > AUTO_TILE_PIXELS else None
        content = preprocess(self._source, shape)
        targets = [as_targets(style, self._style_shape(style, shape)) for style in self._styles]
        self._objective = Objective(self._network, content, targets, self._weights, tile)
        if image is None:
            image = self._first_image(content, shape)
        elif tuple(image.shape[1:3]) != shape:
            image = tf.image.resize(image, shape, method="bicubic", antialias=True)
        self._image = tf.Variable(self._within_bounds(tf.cast(image, tf.float32)))
        epsilon = NORMALIZED_EPSILON if self._weights.normalize else EPSILON
        self._adam = None
        if self._optimizer == "adam":
            self._adam = keras.optimizers.Adam(self._lr, epsilon=epsilon)
            self._adam.build([self._image])
        objective, adam = self._objective, self._adam

        def update(gradient):
            adam.apply([gradient])
            if self._bounded:
                self._image.assign(self._within_bounds(self._image))

        def step():
            losses, gradient = objective(self._image.value())
            update(gradient)
            return losses

        self._update = tf.function(update, autograph=False)
        self._step = tf.function(step, autograph=False)

    def _style_shape(self, style, shape):
        height, width = style.image.shape[:2]
        factor = self._style_scale * (shape[0] * shape[1] / (height * width)) ** 0.5
        return tuple(max(LEAST_STYLE_SIDE, round(side * factor)) for side in (height, width))

    def _first_image(self, content, shape):
        if self._start == "content":
            return content
        if self._start == "style":
            return preprocess(self._styles[0].image, shape)
        pixels = np.random.default_rng(self._seed).uniform(size=(1, *shape, 3))
        return LOWEST + (HIGHEST - LOWEST) * pixels.astype(np.float32)

    def _within_bounds(self, image):
        return tf.clip_by_value(image, LOWEST, HIGHEST) if self._bounded else image

    # ---- steps

    def run(self, callback=None):
        """Do all steps that are left.

        Args:
            callback: function of this object after every step of Adam and every evaluation
                of L-BFGS; the run stops where it returns True, and can be gone on with.

        Returns:
            `PIL.Image`: `image()` at the end.

        Raises:
            InputError: if the loss is no longer a number.
        """
        while not self.done:
            step = self._adam_step if self._adam else self._lbfgs_round
            stopped, converged = step(callback)
            within_round = self._saved is not None
            if not within_round and (converged or len(self.history) >= self._ends[self.level]):
                self._next_level()
            if stopped:
                break
        return self.image()

    def _next_level(self):
        if self.level + 1 < len(self.level_shapes):
            # A level that converged early leaves its steps to the next.
            self._start_level(self.level + 1, self._image.value())
        else:
            self.done = True

    def _adam_step(self, callback):
        begin = self._ends[self.level - 1] if self.level else 0
        share = (len(self.history) - begin) / (self._ends[self.level] - begin)
        if self._schedule == "cosine":
            factor = (1 + math.cos(math.pi * share)) / 2
        else:
            factor = LR_DECAY ** int(share * DECAYS)
        self._adam.learning_rate.assign(self._lr * LEVEL_DECAY**self.level * factor)
        if self._objective.tile is None:
            losses = self._step()
        else:
            losses, gradient = self._objective(self._image.value())
            self._update(gradient)
        self._record(losses)
        return bool(callback and callback(self)), False

    def _lbfgs_round(self, callback):
        """L-BFGS with a fresh memory: whether it was stopped, whether nothing is left to gain."""
        import scipy.optimize

        if self._saved is not None:  # stopped within a round: do all of it again
            self._image.assign(self._saved["image"])
            del self.history[self._saved["steps"] :]
        shape = self._image.shape
        self._saved = {"image": self._image.numpy(), "steps": len(self.history)}

        def value_and_gradient(x):
            image = tf.constant(x.reshape(shape), tf.float32)
            losses, gradient = self._objective(image)
            self._image.assign(image)
            self._record(losses)
            if callback and callback(self):
                raise _StopRunError
            return float(losses[-1]), gradient.numpy().ravel().astype(np.float64)

        bounds = None
        if self._bounded:
            size = shape[1] * shape[2]
            bounds = scipy.optimize.Bounds(np.tile(LOWEST, size), np.tile(HIGHEST, size))
        evaluations = min(LBFGS_ROUND, self._ends[self.level] - len(self.history))
        try:
            result = scipy.optimize.minimize(
                value_and_gradient,
                self._saved["image"].ravel().astype(np.float64),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={
                    "maxcor": LBFGS_MEMORY,
                    "maxfun": evaluations,
                    "maxiter": evaluations,
                    "ftol": 0.0,
                    "gtol": 0.0,
                },
            )
        except _StopRunError:
            return True, False
        accepted = result.x.reshape(shape).astype(np.float32)
        converged = np.array_equal(accepted, self._saved["image"])
        self._image.assign(accepted)
        self._saved = None
        return False, converged

    def _record(self, losses):
        losses = np.asarray(losses)
        if not np.isfinite(losses).all():
            named = dict(zip(LOSS_NAMES, losses.tolist(), strict=True))
            raise InputError(
                f"the loss is no longer a number at step {len(self.history) + 1} ({named}): take "
                "a smaller lr or smaller weights"
            )
        self.history.append(losses)

    # ---- results and state

    def losses(self):
        """Weighted losses of the image so far.

        Returns:
            float32 array `(4,)` in the order of `LOSS_NAMES`. (`history` holds those of before
            each step.)
        """
        return self._objective(self._image.value())[0].numpy()

    @property
    def normalised(self):
        """The image so far: float32 tensor `(1, h, w, 3)`."""
        return self._image.value()

    def image(self):
        """Give the image so far.

        Returns:
            `PIL.Image`, RGB, of the current level's shape.
        """
        image = postprocess(self._image)
        if self._preserve_color:
            height, width = self.level_shapes[self.level]
            content = np.asarray(postprocess(preprocess(self._content, (height, width))))
            image = Image.fromarray(with_colors_of(np.asarray(image), content))
        return image

    def state(self):
        """Give everything that changes over a run.

        Returns:
            dict of arrays. Within a round of L-BFGS it is the state at the round's beginning,
            at most `LBFGS_ROUND` evaluations ago.
        """
        state = {"image": self._image.numpy(), "steps": len(self.history)}
        state.update(self._saved or {})
        state["history"] = np.array(self.history[: state["steps"]], np.float32).reshape(-1, 4)
        state.update(level=self.level, done=self.done)
        if self._adam:
            state.update({f"adam_{i}": v.numpy() for i, v in enumerate(self._adam.variables)})
        return {name: np.asarray(value) for name, value in state.items()}

    def set_state(self, state):
        """Go on from what `state` gave, in this or another process.

        The images, the network and the settings must be the same; see `Run` for a check.

        Args:
            state: dict of arrays.

        Raises:
            InputError: if it belongs to images of another shape or to another optimizer.
        """
        names = {name for name in state if name.startswith("adam_")}
        level, image = int(state["level"]), np.asarray(state["image"], np.float32)
        if (
            bool(names) != (self._optimizer == "adam")
            or level >= len(self.level_shapes)
            or image.shape != (1, *self.level_shapes[level], 3)
        ):
            raise InputError("state is that of a run with other settings: give the same again")
        self._start_level(level, tf.constant(image))
        self._image.assign(image)
        self.history = list(np.asarray(state["history"], np.float32))
        self.done = bool(state["done"])
        self._saved = None
        if self._adam:
            for i, variable in enumerate(self._adam.variables):
                variable.assign(state[f"adam_{i}"])
