"""Read image files of any kind as upright RGB, the same way everywhere."""

import concurrent.futures
import contextlib
import glob
import io
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from kerascv_d2l.errors import InputError

EXIF_ORIENTATION = 0x0112
UPRIGHT = 1
BLACK, WHITE = 0, 255
SIDEWAYS = (5, 6, 7, 8)  # orientations in which height and width are exchanged
# Checking needs every byte decoded, but not every pixel: a JPEG decodes to an
# eighth of its size for less than half the time.
_DRAFT_SHRINK = 8
# Pillow decodes outside the interpreter's lock, and disks like a few requests at once.
_THREADS_PER_CORE = 2
_MOST_AT_ONCE = 64  # images handed over to a thread
# By how much a JPEG can be shrunk while it is decoded, for less than the whole work.
_JPEG_SHRINKS = (1, 2, 4, 8)
_PNG_BIT_DEPTH = 24  # offset in the file: the header chunk is always the first
_PNG_SIGNATURE = 8  # bytes before the first chunk
_PNG_AROUND = (8, 4)  # bytes of a chunk before its content, length and kind; and behind, the CRC
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"


class ImageInfo(NamedTuple):
    """What is known about an image file that was decoded without an error.

    Attributes:
        height: int, pixels, after the EXIF rotation.
        width: int, pixels, after the EXIF rotation.
        plain: bool: an upright JPEG or PNG of 8-bit grey or RGB without alpha,
            which TensorFlow's decoder reads to the very pixels Pillow gives.
        orientation: int 1-8, the EXIF rotation; 1 is upright, 5-8 are stored
            with height and width exchanged.
        brightest: int 0-255, the highest value of a channel (of a JPEG about), as `read_image`
            gives it; 255 where that is not known.
    """

    height: int
    width: int
    plain: bool
    orientation: int = UPRIGHT
    brightest: int = 255


def find_images(sources):
    """List the image files that files, folders and patterns stand for, each once.

    Args:
        sources: list of str.

    Returns:
        list of str.

    Raises:
        InputError: if one of them stands for nothing.
    """
    from kerascv_d2l.data.layouts.files import walk  # here, for layouts read images

    found = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files = walk(path, any_name=True)
            missing = "a folder without images"
        elif path.exists() or not glob.has_magic(source):
            files, missing = [path], None  # a missing one is named where it is read
        else:
            files = [Path(file) for file in sorted(glob.glob(source, recursive=True))]
            files = [file for file in files if file.is_file()]
            missing = "no such file, and none that matches"
        if not files:
            raise InputError(f"{source}: {missing}")
        for file in files:
            found.setdefault(os.path.realpath(file), str(file))
    return list(found.values())


def read_image(path, content=None, behind=WHITE):
    """Read an image file as upright RGB.

    Takes whatever Pillow reads: of several frames the first; grey, palette and
    CMYK become RGB; 16-bit grey is scaled to 8 bit; what is transparent shows
    what is behind; EXIF rotation is applied.

    Args:
        path: file name, `str`, `bytes` or `Path`.
        content: bytes of the file, where they are at hand; `path` is then only for messages.
        behind: int 0-255, the grey behind what is transparent.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: for a file that is missing, empty, no image, or damaged;
            the message begins with the file's name.
    """
    with opened(path, content) as image:
        return upright_rgb(image, behind)


def upright_rgb(image, behind=WHITE):
    """Convert an image of Pillow's as `read_image` does.

    Args:
        image: `PIL.Image` of any mode.
        behind: as for `read_image`.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: if its pixels have more than 8 bits and no known range.
    """
    image.load()
    upright = _to_rgb(image, behind)
    if (orientation := _orientation(image)) != UPRIGHT:
        # What `_to_rgb` gives has lost its EXIF, or has it malformed.
        upright.getexif()[EXIF_ORIENTATION] = orientation
        upright = ImageOps.exif_transpose(upright)
    return np.array(upright)


def check_image(path, content=None):
    """Decode an image file to see that it is whole, and say how large it is.

    Args:
        path: as for `read_image`.
        content: as for `read_image`.

    Returns:
        `ImageInfo`.

    Raises:
        InputError: as `read_image`.
    """
    with opened(path, content) as image:
        width, height = image.size
        plain = _is_plain(image)
        image.draft(None, (max(1, width // _DRAFT_SHRINK), max(1, height // _DRAFT_SHRINK)))
        image.load()
        brightest = _brightest(image)
        orientation = _orientation(image)
    if orientation in SIDEWAYS:
        height, width = width, height
    return ImageInfo(height, width, plain and orientation == UPRIGHT, orientation, brightest)


def check_images(paths, skip_bad=False):
    """Check many image files at once, on several threads.

    Args:
        paths: sequence of file names.
        skip_bad: bool: go on where a file cannot be read.

    Returns:
        `(infos, reasons)`: a list with the `ImageInfo` of each file, `None`
        where it is bad; and a list of the messages of the bad ones, in order.

    Raises:
        InputError: for the first bad file, unless `skip_bad`.
    """

    def check(path):
        try:
            return check_image(path)
        except InputError as error:
            return error

    infos, reasons = [], []
    for info in on_threads(check, paths, _THREADS_PER_CORE):
        if isinstance(info, InputError):
            if not skip_bad:
                raise info
            reasons.append(str(info))
        infos.append(None if isinstance(info, InputError) else info)
    return infos, reasons


def on_threads(function, items, threads_per_core=1):
    """Yield `function(item)` in the order of a sequence of items, computed on several threads.

    Whoever stops asking before the end, stops the threads.
    """
    threads = threads_per_core * (os.cpu_count() or 1)
    # Handing over takes as long as a small image: several at once, but so that all have some.
    size = min(max(len(items) // (8 * threads), 1), _MOST_AT_ONCE)
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    try:
        for results in pool.map(lambda chunk: list(map(function, chunk)), chunks):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def decode_image(path, plain, window=None, enough=None):
    """Read an image file, or a window of it, inside `Dataset.map`: `read_image` as a graph.

    Plain files are decoded by TensorFlow, without Python; the rest by Pillow.

    Args:
        path: string tensor `()`.
        plain: bool tensor `()`, `ImageInfo.plain` of that file.
        window: as for `decode_content`, of the image upright.
        enough: as for `decode_content`.

    Returns:
        uint8 `(height, width, 3)`, equal to `read_image(path)` (there).

    Raises:
        tf.errors.OpError: if the file has gone or changed since it was checked.
    """
    import tensorflow as tf  # here, so that reading an image does not wait for it

    def by_tensorflow():
        return decode_content(tf.io.read_file(path), window, enough)

    def by_pillow():
        image = tf.numpy_function(read_image, [path], tf.uint8, stateful=False)
        image = tf.ensure_shape(image, (None, None, 3))
        return image if window is None else crop(image, window)

    return tf.cond(tf.convert_to_tensor(plain), by_tensorflow, by_pillow)


def decode_content(content, window=None, enough=None):
    """Decode the bytes of a plain JPEG or PNG (`ImageInfo.plain`), or a window, without Python.

    Of a JPEG only what the window shows is decoded.

    Args:
        content: string tensor `()`.
        window: int32 `(4,)`: top, left, height and width, pixels, inside the image; or None
            for all of it.
        enough: `(height, width)`: a JPEG whose window is at least twice, four or eight
            times as large both ways is decoded that much smaller, which averages
            pixels. (The window then begins and ends at multiples of that.)

    Returns:
        uint8 `(height, width, 3)`; smaller than the window where it was shrunk.
    """
    import tensorflow as tf  # here, as above

    # The accurate DCT is the one Pillow uses; TensorFlow's default one is up to 16 grey
    # levels off. decode_jpeg reads PNG as well.
    options = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}

    def whole():
        return tf.ensure_shape(tf.io.decode_jpeg(content, **options), (None, None, 3))

    if window is None:
        return whole()
    window = tf.cast(window, tf.int32)

    def of_jpeg():
        times = tf.reduce_min(window[2:] // tf.constant(enough))
        step = tf.reduce_sum(tf.cast(times >= _JPEG_SHRINKS[1:], tf.int32))

        def shrunk(ratio):
            last = -(-(window[:2] + window[2:]) // ratio)  # rounded up
            first = window[:2] // ratio
            place = tf.concat([first, last - first], 0)
            return lambda: tf.io.decode_and_crop_jpeg(content, place, ratio=ratio, **options)

        return tf.switch_case(step, [shrunk(ratio) for ratio in _JPEG_SHRINKS])

    image = tf.cond(tf.io.is_jpeg(content), of_jpeg, lambda: crop(whole(), window))
    return tf.ensure_shape(image, (None, None, 3))


def crop(image, window):
    """Cut a window, int32 `(4,)` top, left, height and width, out of an image in a graph."""
    top, left, height, width = (window[k] for k in range(4))
    return image[top : top + height, left : left + width]


@contextlib.contextmanager
def opened(path, content=None, kind="image"):
    """Open an image with Pillow; whatever goes wrong inside becomes an `InputError`."""
    path = Path(os.fsdecode(path))
    try:
        content = path.read_bytes() if content is None else content
        if not content:
            raise InputError("empty file (0 bytes), not an image")
        with Image.open(io.BytesIO(content)) as image:
            yield image
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__
    # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error,
    # EOFError and more for damaged files: all of them mean the same here.
    except Exception as error:
        raise InputError(f"{path}: {_explanation(path, content, error, kind)}") from error


def _explanation(path, content, error, kind):
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if path.is_dir():
        return "a folder, where an image file is expected"
    if isinstance(error, PermissionError):
        return "no permission to read this file"
    if isinstance(error, Image.UnidentifiedImageError):
        begins = f"it begins with {content[:16]!r}"
        return f"not an image, or of a kind that Pillow cannot read ({begins})"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large an image ({error}); make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    return f"damaged or truncated {kind} ({error})"


def _is_wide(image):
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _brightest(image):
    """The highest value of a loaded image as `ImageInfo` has it.

    Raises:
        InputError: where pixels of more than 8 bits have no known range.
    """
    if _is_wide(image):
        return int(_wide_to_uint8(image).max())
    if image.mode not in ("L", "RGB"):  # of a palette these would be indices
        return 255
    extrema = image.getextrema()
    return extrema[1] if image.mode == "L" else max(high for _, high in extrema)


def _to_rgb(image, behind=WHITE):
    """Any loaded Pillow image as mode RGB of the same size."""
    if _is_wide(image):
        return Image.fromarray(_wide_to_uint8(image)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        grey = Image.new("RGBA", image.size, (behind, behind, behind, 255))
        return Image.alpha_composite(grey, image).convert("RGB")
    return image.convert("RGB")  # Pillow itself would clip 16-bit grey here


def _wide_to_uint8(image):
    """Grey pixels of 16 bits `(h, w)` -> uint8; 65535 becomes 255."""
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise InputError(
            f"its pixels are {grey.dtype} from {grey.min()} to {grey.max()}, "
            "and nothing says which of them is white: save it with 8 or 16 bits"
        )
    return ((grey.astype(np.int64) + 128) // 257).astype(np.uint8)


def _orientation(image):
    """EXIF orientation 1-8 of a loaded image (some formats keep EXIF at the end)."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # malformed EXIF says nothing: the image counts as upright
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def _is_plain(image):
    """Whether TensorFlow decodes this freshly opened image as Pillow does."""
    if image.mode not in ("L", "RGB") or image.has_transparency_data:
        return False
    # Pillow forgives a lost end of file once all pixels are there, and wrong checksums;
    # TensorFlow does not.
    content = image.fp.getvalue()
    if image.format == "PNG":
        return content[_PNG_BIT_DEPTH] == 8 and _has_whole_chunks(content)
    return image.format == "JPEG" and content.endswith(_JPEG_END)


def _has_whole_chunks(content):
    """Whether a PNG consists of chunks with right checksums, and ends with the last of them."""
    before, behind = _PNG_AROUND
    place, view = _PNG_SIGNATURE, memoryview(content)
    while place + before + behind <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + before + length
        checksum = zlib.crc32(view[place + 4 : end])  # of kind and content
        if content[end : end + behind] != checksum.to_bytes(behind, "big"):
            return False
        place = end + behind
    return place == len(content) and content.endswith(_PNG_END)
