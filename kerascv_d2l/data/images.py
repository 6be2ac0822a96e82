"""Reading picture files of any kind as upright RGB, the same way everywhere."""

import concurrent.futures
import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from kerascv_d2l.errors import InputError

EXIF_ORIENTATION = 0x0112
# What undoes each EXIF orientation; 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations in which height and width change places
# Checking needs every byte decoded, but not every pixel: a JPEG decodes to an
# eighth of its size for less than half the time.
_DRAFT_SHRINK = 8
# Pillow decodes outside the interpreter's lock, and disks like a few requests at once.
_THREADS_PER_CORE = 2
# By how much a JPEG can be shrunk while it is decoded, for less than the whole work.
_JPEG_SHRINKS = (1, 2, 4, 8)
_PNG_BIT_DEPTH = 24  # offset in the file: the header chunk is always the first
_PNG_END = b"IEND\xaeB`\x82"


class PictureInfo(NamedTuple):
    """What is known about a picture file that was decoded without an error.

    Attributes:
        height: int, pixels, after the EXIF rotation.
        width: int, pixels, after the EXIF rotation.
        plain: bool: an upright JPEG or PNG of 8-bit grey or RGB without alpha,
            which TensorFlow's decoder reads to the very pixels Pillow gives.
        orientation: int 1-8, the EXIF rotation; 1 is upright, 5-8 are stored
            with height and width exchanged.
    """

    height: int
    width: int
    plain: bool
    orientation: int = 1


def read_picture(path):
    """Read a picture file as upright RGB.

    Takes whatever Pillow reads: of several frames the first; grey, palette and
    CMYK become RGB; 16-bit grey is scaled to 8 bit; what is transparent shows
    white; EXIF rotation is applied.

    Args:
        path: file name, `str`, `bytes` or `Path`.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: for a file that is missing, empty, no picture, or damaged;
            the message begins with the file's name.
    """
    with _opened(path) as picture:
        picture.load()
        upright = _to_rgb(picture)
        turn = _UPRIGHT.get(_orientation(picture))
        if turn is not None:
            upright = upright.transpose(turn)
        return np.array(upright)


def check_picture(path):
    """Decode a picture file to see that it is whole, and say how large it is.

    Args:
        path: file name, `str`, `bytes` or `Path`.

    Returns:
        `PictureInfo`.

    Raises:
        InputError: as `read_picture`.
    """
    with _opened(path) as picture:
        width, height = picture.size
        has_range = picture.mode in ("I", "F")
        plain = _is_plain(picture)
        picture.draft(None, (max(1, width // _DRAFT_SHRINK), max(1, height // _DRAFT_SHRINK)))
        picture.load()
        if has_range:
            _to_rgb(picture)  # raises where the pixels have no known range
        orientation = _orientation(picture)
    if orientation in SIDEWAYS:
        height, width = width, height
    return PictureInfo(height, width, plain and orientation == 1, orientation)


def check_pictures(paths, skip_bad=False):
    """Check many picture files at once, on several threads.

    Args:
        paths: sequence of file names.
        skip_bad: bool: go on where a file cannot be read.

    Returns:
        `(infos, reasons)`: a list with the `PictureInfo` of each file, `None`
        where it is bad; and a list of the messages of the bad ones, in order.

    Raises:
        InputError: for the first bad file, unless `skip_bad`.
    """
    threads = _THREADS_PER_CORE * (os.cpu_count() or 1)
    infos, reasons = [], []
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    try:
        for future in [pool.submit(check_picture, path) for path in paths]:
            try:
                infos.append(future.result())
            except InputError as error:
                if not skip_bad:
                    raise
                infos.append(None)
                reasons.append(str(error))
    finally:
        pool.shutdown(cancel_futures=True)
    return infos, reasons


def decode_picture(path, plain):
    """Read a picture file inside `Dataset.map`: `read_picture` as a graph.

    Plain files are decoded by TensorFlow, without Python; the rest by Pillow.

    Args:
        path: string tensor `()`.
        plain: bool tensor `()`, `PictureInfo.plain` of that file.

    Returns:
        uint8 `(height, width, 3)`, equal to `read_picture(path)`.

    Raises:
        tf.errors.OpError: if the file has gone or changed since it was checked.
    """
    import tensorflow as tf  # here, so that reading a picture does not wait for it

    def by_tensorflow():
        return decode_content(tf.io.read_file(path))

    def by_pillow():
        return tf.numpy_function(read_picture, [path], tf.uint8, stateful=False)

    picture = tf.cond(tf.convert_to_tensor(plain), by_tensorflow, by_pillow)
    return tf.ensure_shape(picture, (None, None, 3))


def decode_content(content):
    """Decode the bytes of a plain JPEG or PNG (`PictureInfo.plain`), without Python.

    Args:
        content: string tensor `()`.

    Returns:
        uint8 `(height, width, 3)`.
    """
    import tensorflow as tf  # here, as above

    # decode_jpeg reads PNG as well. The accurate DCT is the one Pillow uses;
    # TensorFlow's default one is up to 16 grey levels off.
    picture = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(picture, (None, None, 3))


def decode_window(content, window, enough):
    """Decode a window of a plain JPEG or PNG; of a JPEG only what the window shows.

    Args:
        content: string tensor `()`, the bytes of the file.
        window: int32 `(4,)`: top, left, height and width, pixels, inside the picture.
        enough: `(height, width)`: a JPEG whose window is at least twice, four or eight
            times as large both ways is decoded that much smaller, which averages
            pixels. (The window then begins and ends at multiples of that.)

    Returns:
        uint8 `(height, width, 3)`: what `decode_content` gives there, to the grey
        level; smaller where it was shrunk.
    """
    import tensorflow as tf  # here, as above

    window = tf.cast(window, tf.int32)

    def of_jpeg():
        times = tf.reduce_min(window[2:] // tf.constant(enough))
        step = tf.reduce_sum(tf.cast(times >= _JPEG_SHRINKS[1:], tf.int32))

        def shrunk(shrink):
            last = -(-(window[:2] + window[2:]) // shrink)  # rounded up
            first = window[:2] // shrink
            return lambda: tf.io.decode_and_crop_jpeg(
                content,
                tf.concat([first, last - first], 0),
                channels=3,
                ratio=shrink,
                dct_method="INTEGER_ACCURATE",
            )

        return tf.switch_case(step, [shrunk(shrink) for shrink in _JPEG_SHRINKS])

    def of_png():
        return cut_out(decode_content(content), window)

    picture = tf.cond(tf.io.is_jpeg(content), of_jpeg, of_png)
    return tf.ensure_shape(picture, (None, None, 3))


def read_window(path, plain, window, enough):
    """Read a window of a picture file inside `Dataset.map`, decoding no more than needed.

    Args:
        path: string tensor `()`.
        plain: bool tensor `()`, `PictureInfo.plain` of that file.
        window: as for `decode_window`, of the picture upright.
        enough: as for `decode_window`.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        tf.errors.OpError: if the file has gone or changed since it was checked.
    """
    import tensorflow as tf  # here, as above

    return tf.cond(
        tf.convert_to_tensor(plain),
        lambda: decode_window(tf.io.read_file(path), window, enough),
        lambda: cut_out(decode_picture(path, False), window),
    )


def cut_out(picture, window):
    """Cut a window, int32 `(4,)` top, left, height and width, out of a picture in a graph."""
    top, left, height, width = (window[k] for k in range(4))
    return picture[top : top + height, left : left + width]


@contextlib.contextmanager
def _opened(path):
    """Open a picture with Pillow; whatever goes wrong inside becomes an InputError."""
    path = Path(os.fsdecode(path))
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty file (0 bytes), not a picture")
        with Image.open(path) as picture:
            yield picture
    except InputError:
        raise
    # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error,
    # EOFError and more for damaged files: all of them mean the same here.
    except Exception as error:
        raise InputError(f"{path}: {_explanation(path, error)}") from error


def _explanation(path, error):
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if path.is_dir():
        return "a folder, where a picture file is expected"
    if isinstance(error, PermissionError):
        return "no permission to read this file"
    if isinstance(error, Image.UnidentifiedImageError):
        with open(path, "rb") as stream:
            start = stream.read(16)
        return f"not a picture, or of a kind that Pillow cannot read (it begins with {start!r})"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large a picture ({error})"
    return f"damaged or truncated picture ({error})"


def _to_rgb(picture):
    """Any loaded Pillow picture as mode RGB of the same size."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Image.fromarray(_wide_to_uint8(picture)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")  # Pillow itself would clip 16-bit grey here


def _wide_to_uint8(picture):
    """Grey pixels of 16 bits `(h, w)` -> uint8; 65535 becomes 255."""
    grey = np.asarray(picture)
    if picture.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise InputError(
            f"{picture.filename}: its pixels are {grey.dtype} from {grey.min()} to {grey.max()}, "
            "and nothing says which of them is white: save it with 8 or 16 bits"
        )
    return ((grey.astype(np.int64) + 128) // 257).astype(np.uint8)


def _orientation(picture):
    """EXIF orientation 1-8 of a loaded picture (some formats keep EXIF at the end)."""
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # malformed EXIF says nothing: the picture counts as upright
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _is_plain(picture):
    """Whether TensorFlow decodes this freshly opened picture as Pillow does."""
    if picture.mode not in ("L", "RGB") or picture.has_transparency_data:
        return False
    if picture.format == "PNG":
        content = Path(picture.filename).read_bytes()
        # Pillow forgives a lost end of file once all pixels are there; TensorFlow does not.
        return content[_PNG_BIT_DEPTH] == 8 and content.endswith(_PNG_END)
    return picture.format == "JPEG"
