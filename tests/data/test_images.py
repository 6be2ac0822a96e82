"""Images of every kind come out as the same upright RGB, and bad files are named."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerascv_d2l.data.images import (
    EXIF_ORIENTATION,
    ImageInfo,
    check_image,
    check_images,
    decode_content,
    decode_image,
    read_image,
)
from kerascv_d2l.errors import InputError

pytestmark = pytest.mark.quick
HEIGHT, WIDTH = 50, 70


@pytest.fixture(scope="module")
def pixels():
    """A smooth uint8 image without any symmetry, (50, 70, 3)."""
    small = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def grey(pixels):
    return np.asarray(Image.fromarray(pixels).convert("L"))


def exif(orientation):
    tags = Image.Exif()
    tags[EXIF_ORIENTATION] = orientation
    return tags


def test_lossless_kinds_give_their_pixels(tmp_path, pixels):
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, 40:] = 0
    on_white = np.where(alpha[..., None] == 255, pixels, 255)
    grey_rgb = np.repeat(grey(pixels)[..., None], 3, axis=-1)
    black = np.asarray(Image.fromarray(grey(pixels)).convert("1").convert("RGB"))
    transparent = Image.fromarray(pixels).quantize(16)
    palette = np.array(transparent.convert("RGB"))
    transparent.info["transparency"] = 3
    palette[np.asarray(transparent) == 3] = 255
    cases = {
        "rgb.png": (Image.fromarray(pixels), pixels),
        "rgb.webp": (Image.fromarray(pixels), pixels),
        "rgb.bmp": (Image.fromarray(pixels), pixels),
        "rgb.tiff": (Image.fromarray(pixels), pixels),
        "cmyk.tiff": (Image.fromarray(pixels).convert("CMYK"), pixels),
        "grey.png": (Image.fromarray(grey(pixels)), grey_rgb),
        "one_bit.png": (Image.fromarray(grey(pixels)).convert("1"), black),
        "alpha.png": (Image.fromarray(np.dstack([pixels, alpha])), on_white),
        "grey_alpha.png": (
            Image.merge("LA", [Image.fromarray(grey(pixels)), Image.fromarray(alpha)]),
            np.where(alpha[..., None] == 255, grey_rgb, 255),
        ),
        "palette.png": (transparent, palette),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name, lossless=True)
        result = read_image(tmp_path / name)
        assert result.dtype == np.uint8, name
        np.testing.assert_array_equal(result, expected, err_msg=name)
        plain = name in ("rgb.png", "grey.png")
        assert check_image(str(tmp_path / name))[:4] == (HEIGHT, WIDTH, plain, 1), name


def test_half_transparent_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (4, 3), (0, 100, 200, 51)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [204, 224, 244]


def test_half_transparent_is_mixed_with_what_is_behind(tmp_path):
    Image.new("RGBA", (4, 3), (0, 100, 200, 51)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", behind=0)[0, 0].tolist() == [0, 20, 40]


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    wide = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    expected = np.round(wide / 257).astype(np.uint8)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(wide).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 1], expected)
        assert check_image(tmp_path / name)[:4] == (HEIGHT, WIDTH, False, 1)
    Image.fromarray(wide.astype(np.float32) * 10).save(tmp_path / "f.tiff")
    for function in (read_image, check_image):
        with pytest.raises(InputError, match=r"f\.tiff: its pixels are float32 from 0.0 to 655350"):
            function(tmp_path / "f.tiff")


def test_first_frame_of_several(tmp_path, pixels):
    first, second = (Image.fromarray(grey(p)) for p in (pixels, 255 - pixels))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif")[..., 2], grey(pixels))
    assert check_image(tmp_path / "a.gif")[:4] == (HEIGHT, WIDTH, False, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path, pixels, orientation):
    # What a camera stores for each orientation, by the EXIF standard: from the
    # upright scene to the stored rows and columns.
    store = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p),  # shown after a quarter turn clockwise
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(store(pixels)))
    for name in ("a.png", "a.jpg"):
        stored.save(tmp_path / name, exif=exif(orientation), quality=100, subsampling=0)
        info = check_image(tmp_path / name)
        assert info[:4] == (HEIGHT, WIDTH, orientation == 1, orientation)
        assert abs(info.brightest - int(pixels.max())) < (1 if name == "a.png" else 60)
        close = np.abs(read_image(tmp_path / name).astype(int) - pixels)
        assert close.max() <= (0 if name == "a.png" else 4)


def test_size_of_checked_jpeg_is_that_of_the_whole_image(tmp_path):
    # Checked at an eighth of its size inside; 1 pixel must not become 0.
    for size in [(1, 1), (1, 9), (641, 427)]:
        Image.new("RGB", size).save(tmp_path / "a.jpg")
        assert check_image(tmp_path / "a.jpg") == ImageInfo(size[1], size[0], True, brightest=0)


def test_decoding_in_a_dataset_equals_read_image(tmp_path, pixels):
    image = Image.fromarray(pixels)
    for quality in (60, 95):
        for subsampling in (0, 2):
            name = f"{quality}{subsampling}.jpg"
            image.save(tmp_path / name, quality=quality, subsampling=subsampling)
    image.convert("L").save(tmp_path / "grey.jpg", progressive=True)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "rotated.jpg", exif=exif(6))
    image.save(tmp_path / "a.png")
    image.quantize(8).save(tmp_path / "palette.png")
    image.save(tmp_path / "a.gif")
    (tmp_path / "no_end.png").write_bytes((tmp_path / "a.png").read_bytes()[:-5])
    paths = sorted(str(path) for path in tmp_path.iterdir())
    infos, reasons = check_images(paths)
    assert reasons == []
    plain = [info.plain for info in infos]
    assert sum(plain) == 6
    decoded = tf.data.Dataset.from_tensor_slices((paths, plain)).map(decode_image)
    assert decoded.element_spec == tf.TensorSpec((None, None, 3), tf.uint8)
    for path, info, image in zip(paths, infos, decoded.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(image, read_image(path), err_msg=path)
        assert image.shape == (info.height, info.width, 3), path


def _wrong_checksum(png):
    """The bytes of a PNG with another CRC of its first IDAT."""
    place = png.index(b"IDAT") - 4
    end = place + 8 + int.from_bytes(png[place : place + 4], "big")
    return png[:end] + bytes([png[end] ^ 0xFF]) + png[end + 1 :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("a.png", _wrong_checksum),
        ("a.png", lambda png: png + b"junk"),
        ("a.jpg", lambda jpg: jpg[:-2] + bytes(300)),
        ("a.jpg", lambda jpg: jpg[:-10] + bytes(300)),
    ],
)
def test_what_pillow_forgives_is_left_to_it(tmp_path, pixels, name, damage):
    Image.fromarray(pixels).save(tmp_path / name)
    assert check_image(tmp_path / name).plain
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    plain = check_image(tmp_path / name).plain
    assert not plain
    files = tf.data.Dataset.from_tensors(str(tmp_path / name))
    image = files.map(lambda file: decode_image(file, plain)).get_single_element()
    np.testing.assert_array_equal(image, read_image(tmp_path / name))


@pytest.fixture
def bad_files(tmp_path, pixels):
    """File name -> what the message must say of it."""
    Image.fromarray(pixels).save(tmp_path / "good.jpg")
    Image.fromarray(pixels).save(tmp_path / "good.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("<html>not here")
    (tmp_path / "short.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:-40])
    (tmp_path / "short.png").write_bytes((tmp_path / "good.png").read_bytes()[:-200])
    (tmp_path / "folder.jpg").mkdir()
    return {
        "missing.jpg": "no such file",
        "empty.jpg": r"empty file \(0 bytes\)",
        "text.jpg": r"not an image, .*begins with b'<html>not here'",
        "short.jpg": "damaged or truncated image",
        "short.png": "damaged or truncated image",
        "folder.jpg": "a folder, where an image",
    }


def test_errors_name_the_file_and_the_fault(tmp_path, bad_files):
    for name, fault in bad_files.items():
        for function in (read_image, check_image):
            with pytest.raises(InputError, match=rf"{name}: {fault}"):
                function(tmp_path / name)


def test_first_bad_image_raises_or_all_are_listed(tmp_path, bad_files):
    names = ["good.jpg", "missing.jpg", "good.png", "empty.jpg"]
    paths = [tmp_path / name for name in names]
    with pytest.raises(InputError, match=r"missing\.jpg"):
        check_images(paths)
    infos, reasons = check_images(paths, skip_bad=True)
    assert [info and info[:3] for info in infos] == [(HEIGHT, WIDTH, True), None] * 2
    assert len(reasons) == 2
    assert "missing.jpg: no such file" in reasons[0]
    assert "empty.jpg: empty file" in reasons[1]
    assert check_images([]) == ([], [])


def _saved(tmp_path, height, width, name, **options):
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    image = np.stack([rows % 150, columns % 170, (rows + columns) % 190], -1) + noise
    path = tmp_path / name
    Image.fromarray(image.astype(np.uint8)).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "grey.jpg"])
@pytest.mark.parametrize("window", [(0, 0, 61, 83), (7, 9, 20, 30), (30, 51, 31, 32), (5, 5, 1, 1)])
def test_decodes_only_the_window(tmp_path, name, window):
    path = _saved(tmp_path, 61, 83, name)
    if name == "grey.jpg":
        Image.open(path).convert("L").save(path)
    content = tf.constant(path.read_bytes())
    top, left, height, width = window
    whole = decode_content(content).numpy()
    found = decode_content(content, tf.constant(window), (40, 40)).numpy()
    assert found.shape == (height, width, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, whole[top : top + height, left : left + width])
    for plain in (True, False):
        files = tf.data.Dataset.from_tensors(str(path))
        read = files.map(lambda file, plain=plain: decode_image(file, plain, window, (40, 40)))
        np.testing.assert_array_equal(read.get_single_element(), found)


@pytest.mark.parametrize(("enough", "shrink"), [((100, 90), 1), ((60, 60), 2), ((25, 40), 4)])
def test_large_windows_are_decoded_smaller(tmp_path, enough, shrink):
    path = _saved(tmp_path, 240, 300, "a.jpg", quality=95)
    content, window = tf.constant(path.read_bytes()), (24, 40, 160, 200)
    found = decode_content(content, tf.constant(window), enough).numpy()
    assert found.shape == (160 // shrink, 200 // shrink, 3)
    whole = decode_content(content).numpy()[24:184, 40:240].astype(float)
    blocks = whole.reshape(160 // shrink, shrink, 200 // shrink, shrink, 3).mean((1, 3))
    assert np.abs(found - blocks).mean() < 5  # of noise of 60
