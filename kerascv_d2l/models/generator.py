"""What all models that generate images share: networks, pixels, random codes, exports."""

import keras
import tensorflow as tf

from kerascv_d2l.devices import replica_slice
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.batch_norm import BatchNorm
from kerascv_d2l.layers.spectral_norm import SpectralNormalization
from kerascv_d2l.models.common import any_images
from kerascv_d2l.ops.checks import as_image_size
from kerascv_d2l.ops.geometry import ALGORITHM
from kerascv_d2l.ops.resize import resize

PIXEL_MAX = 255.0
NORMALIZATIONS = ("batch", "spectral", "none")
SIDE_STEP = 16  # sides of images are multiples of it
LARGE_SIDE = 64  # from here on a network halves four times, below three times
KERNEL, SLOPE = 4, 0.2  # DCGAN's


class ImageGenerator(keras.Model):
    """A model that turns codes, float `(batch, latent_size)`, into images.

    A subclass has `_images_of(codes, training)`, to float `(batch, h, w, channels)`, values 0-1.

    Args:
        image_size: int or `(height, width)`, pixels, multiples of 16.
        channels: int, 3 (RGB) or 1 (grey; RGB images that come in become grey).
        latent_size: int, length of a code.
        width: int, channels of the largest feature map; each smaller one has twice as many.

    Attributes:
        task: "generation".
        image_size: `(height, width)`.
        channels: int.
        latent_size: int.

    Raises:
        InputError: if an argument is out of range.
    """

    task = "generation"
    class_names = ()

    def __init__(self, image_size, channels, latent_size, width, **kwargs):
        super().__init__(**kwargs)
        self.image_size = as_image_size(image_size)
        if channels not in (1, 3):
            raise InputError(f"channels is {channels}; wanted 3 (RGB) or 1 (grey)")
        for name, value in (("latent_size", latent_size), ("width", width)):
            if not (isinstance(value, int) and value >= 1):
                raise InputError(f"{name} is {value!r}; wanted a whole number of at least 1")
        self.channels, self.latent_size, self.width = channels, latent_size, width
        self.noise = keras.random.SeedGenerator()

    def draw_codes(self, count):
        """Draw noise for this device's part of a batch, float32 `(count, latent_size)`.

        Several devices together get what one would get.
        """
        seed = tf.cast(self.noise.next(), tf.int32)
        return replica_slice(
            lambda total: tf.random.stateless_normal(
                (total, self.latent_size), seed, alg=ALGORITHM
            ),
            count,
        )

    def shares(self, images):
        """Take images as they are to what the network computes with.

        Of images that are not of the network's size the middle is cut out, as in training, as much
        as has its proportions, and resized.

        Args:
            images: `(batch, h, w, 3 or 1)` of any size, pixels 0-255, uint8 or float.

        Returns:
            float32 `(batch, height, width, channels)`, values 0-1.
        """
        images = tf.convert_to_tensor(images)
        if images.shape[1:3] != self.image_size:
            images = resize(_middle(images, *self.image_size), self.image_size)
        images = tf.cast(images, tf.float32)
        if images.shape[-1] != self.channels:
            grey = images.shape[-1] == 3
            images = tf.image.rgb_to_grayscale(images) if grey else tf.repeat(images, 3, -1)
        return tf.ensure_shape(images, (None, *self.image_size, self.channels)) / PIXEL_MAX

    def _codes_of(self, noise):
        """Turn standard normal noise `(batch, latent_size)` into codes."""
        return noise

    def decode(self, codes):
        """Make images of codes.

        Args:
            codes: float `(batch, latent_size)`.

        Returns:
            dict: `images`, uint8 `(batch, height, width, channels)`.
        """
        shares = self._images_of(tf.cast(codes, tf.float32), False)
        pixels = tf.round(tf.clip_by_value(tf.cast(shares, tf.float32), 0, 1) * PIXEL_MAX)
        return {"images": tf.cast(pixels, tf.uint8)}

    def sample(self, n, seed=0):
        """Make new images.

        Args:
            n: int, how many.
            seed: int; the same seed gives the same images.

        Returns:
            dict: `images`, uint8 `(n, height, width, channels)`; and `codes`, float32
            `(n, latent_size)`, of which `decode` makes them.
        """
        seeds = tf.stack([tf.cast(seed, tf.int32), 0])
        noise = tf.random.stateless_normal((n, self.latent_size), seeds, alg=ALGORITHM)
        codes = self._codes_of(noise)
        return {**self.decode(codes), "codes": codes}

    def endpoints(self):
        """Give what an export offers: `sample`, `decode`, and `encode` where there is one."""
        number = [tf.TensorSpec((), tf.int32, name=name) for name in ("n", "seed")]
        codes = tf.TensorSpec((None, self.latent_size), tf.float32, name="codes")
        found = {"sample": (self.sample, tuple(number)), "decode": (self.decode, (codes,))}
        for name in ("encode", "reconstruct"):
            if hasattr(self, name):
                found[name] = (getattr(self, name), (any_images(),))
        return found

    def get_config(self):
        """Give the arguments of the constructor."""
        names = ("image_size", "channels", "latent_size", "width", "name")
        return {name: getattr(self, name) for name in names} | {"dtype": self.dtype_policy.name}


def _middle(images, height, width):
    """Cut out as much of the middle of images `(batch, h, w, c)` as has the shape of a size."""
    given = tf.shape(images)[1:3]
    fitting = tf.stack([given[1] * height // width, given[0] * width // height])
    taken = tf.clip_by_value(fitting, 1, given)
    top, left = tf.unstack((given - taken) // 2)
    return images[:, top : top + taken[0], left : left + taken[1]]


def walk(start, end, steps, spherical=True):
    """Go from one code to another.

    Args:
        start: float `(d,)`.
        end: float `(d,)`.
        steps: int, at least 2, codes with both ends.
        spherical: bool: along the arc, on which codes stay as long as random normal ones are;
            else along the straight line, whose middle is shorter.

    Returns:
        float32 `(steps, d)`.

    Source:
        White 2016, "Sampling Generative Networks", section 2.1.
    """
    start, end = tf.cast(start, tf.float32), tf.cast(end, tf.float32)
    t = tf.linspace(0.0, 1.0, steps)[:, None]  # (steps, 1)
    cosine = tf.tensordot(tf.math.l2_normalize(start), tf.math.l2_normalize(end), 1)
    angle = tf.acos(tf.clip_by_value(cosine, -1, 1))
    if not spherical or tf.abs(tf.sin(angle)) < 1e-4:
        return (1 - t) * start + t * end
    return (tf.sin((1 - t) * angle) * start + tf.sin(t * angle) * end) / tf.sin(angle)


def encoder(image_size, channels, width, outputs, normalization="batch", name="encoder"):
    """Make a network from images, values of about -1 to 1, to numbers; strides, no pooling.

    Args:
        image_size: `(height, width)`, multiples of 16.
        channels: int, of the images.
        width: int, channels of the first feature map.
        outputs: int, numbers `(batch, outputs)`, float32; or None for the last feature map.
        normalization: one of `NORMALIZATIONS`; `"batch"` not before the first activation.
        name: str.

    Returns:
        `keras.Model`.

    Raises:
        InputError: if a side is no multiple of 16, or the normalisation is unknown.

    Source:
        Radford, Metz, Chintala: Unsupervised Representation Learning with DCGAN (2016).
    """
    if normalization not in NORMALIZATIONS:
        wanted = ", ".join(NORMALIZATIONS)
        raise InputError(f"normalization is {normalization!r}; wanted one of {wanted}")
    x = inputs = keras.Input((*image_size, channels))
    for k in range(_halvings(image_size)):
        batch = normalization == "batch" and k > 0
        x = _linear(
            keras.layers.Conv2D, normalization, batch, width * 2**k, KERNEL, 2, padding="same"
        )(x)
        x = BatchNorm()(x) if batch else x
        x = keras.layers.LeakyReLU(SLOPE)(x)
    if outputs is not None:
        x = keras.layers.Flatten()(x)
        x = _linear(keras.layers.Dense, normalization, False, outputs)(x)
        x = keras.layers.Activation("linear", dtype="float32")(x)
    return keras.Model(inputs, x, name=name)


def _linear(kind, normalization, without_bias, *args, **kwargs):
    """A convolution or a dense layer, spectrally normalised if so wanted."""
    if normalization == "spectral":
        return SpectralNormalization(kind(*args, use_bias=False, **kwargs))
    return kind(*args, use_bias=not without_bias, **kwargs)


def decoder(image_size, channels, width, latent_size, name="decoder"):
    """Make a network from codes to images without bounds: logits, or a mean.

    Args:
        image_size: `(height, width)`, multiples of 16.
        channels: int, of the images.
        width: int, channels of the last feature map but the image.
        latent_size: int.
        name: str.

    Returns:
        `keras.Model` from `(batch, latent_size)` to float32 `(batch, height, width, channels)`.

    Raises:
        InputError: if a side is no multiple of 16.

    Source:
        As `encoder`.
    """
    halvings = _halvings(image_size)
    least = [side // 2**halvings for side in image_size]
    filters = width * 2 ** (halvings - 1)
    x = inputs = keras.Input((latent_size,))
    x = keras.layers.Dense(least[0] * least[1] * filters, use_bias=False)(x)
    x = keras.layers.Reshape((*least, filters))(x)
    for k in reversed(range(halvings)):
        x = keras.layers.ReLU()(BatchNorm()(x))
        last = k == 0
        filters = channels if last else width * 2 ** (k - 1)
        x = keras.layers.Conv2DTranspose(filters, KERNEL, 2, padding="same", use_bias=last)(x)
    return keras.Model(inputs, keras.layers.Activation("linear", dtype="float32")(x), name=name)


def _halvings(image_size):
    if any(side % SIDE_STEP for side in image_size):
        height, width = image_size
        raise InputError(f"image_size {height} x {width}: wanted multiples of {SIDE_STEP} pixels")
    return 4 if min(image_size) >= LARGE_SIDE else 3
