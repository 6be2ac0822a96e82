"""Where data sets come from: sums, mirrors, folders at hand, hostile names, interruptions."""

import dataclasses
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path
from unittest import mock

import fake_archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kerascv_d2l.data import archives, builders, prepared
from kerascv_d2l.errors import InputError

HOTDOG = builders.Hotdog.ARCHIVE


@pytest.fixture
def hotdog(tmp_path):
    """A small hotdog.zip and a builder class that takes it for the real one."""
    path = tmp_path / "at_hand" / "hotdog.zip"
    sha1 = fake_archives.write(fake_archives.hotdogs(bad=False), path)
    fake = dataclasses.replace(HOTDOG, sha1=sha1)
    with mock.patch.object(builders.Hotdog, "ARCHIVE", fake):
        yield path


@pytest.fixture
def no_network():
    with mock.patch.object(
        tfds.download.DownloadManager, "download", side_effect=ConnectionError("host not found")
    ) as download:
        yield download


def left_behind(data_dir):
    return [p for p in Path(data_dir).rglob("*") if p.is_file()]


def counts(builder):
    return {name: split.num_examples for name, split in builder.info.splits.items()}


@pytest.mark.quick
def test_archive_at_hand(hotdog, tmp_path, no_network):
    builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds", archive=hotdog)
    assert counts(builder) == {"train": 8, "test": 8}
    no_network.assert_not_called()
    # The second time nothing but the records is needed.
    hotdog.unlink()
    again = tfds.load("hotdog", data_dir=tmp_path / "tfds", split="train")
    assert again.cardinality() == 8


@pytest.mark.parametrize("given", ["hotdog", ""], ids=["its own folder", "the folder around"])
def test_unpacked_folder(tmp_path, no_network, given):
    fake_archives.write(fake_archives.hotdogs(bad=False), tmp_path / "data")
    folder = tmp_path / "data" / given
    builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds", archive=folder)
    assert counts(builder) == {"train": 8, "test": 8}
    no_network.assert_not_called()


def test_what_was_prepared_from_other_files_is_not_taken(tmp_path, no_network):
    """`archive` and `skip_bad` belong to the key of what is prepared."""
    fake_archives.write(fake_archives.hotdogs(), tmp_path / "bad")
    fake_archives.write(fake_archives.hotdogs(num=3, bad=False), tmp_path / "good")
    tfds_folder = tmp_path / "tfds"

    def prepare(archive=None, skip_bad=False):
        return prepared.prepare("hotdog", data_dir=tfds_folder, archive=archive, skip_bad=skip_bad)

    skipping = prepare(tmp_path / "bad", skip_bad=True)
    assert counts(skipping)["train"] == 7 and len(skipping.skipped) == 1
    # The same files: what was left out is known again. Strictly, they are still bad.
    again = prepare(tmp_path / "bad", skip_bad=True)
    assert again.data_dir == skipping.data_dir and again.skipped == skipping.skipped
    with pytest.raises(InputError, match=r"hotdog/2\.png: damaged"):
        prepare(tmp_path / "bad")
    with pytest.raises(InputError, match="could not be downloaded"):
        prepare()
    # Other files.
    assert counts(prepare(tmp_path / "good"))["train"] == 6
    assert counts(prepare(tmp_path / "bad", skip_bad=True))["train"] == 7
    # Without files: what was prepared from a folder without leaving anything out.
    assert counts(prepare())["train"] == 6
    # Nothing was bad: no second copy is made for skip_bad.
    assert prepare(tmp_path / "good", skip_bad=True).data_dir == prepare().data_dir
    # A file that changed, and one that is not there.
    (tmp_path / "good/hotdog/train/hotdog/0.png").unlink()
    assert counts(prepare(tmp_path / "good"))["train"] == 5
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        prepare(tmp_path / "nowhere")


@pytest.mark.parametrize("unpacked", [False, True])
def test_manual_folder(hotdog, tmp_path, no_network, unpacked):
    manual = tmp_path / "tfds" / "downloads" / "manual"
    if unpacked:
        fake_archives.write(fake_archives.hotdogs(bad=False), manual)
    else:
        manual.mkdir(parents=True)
        hotdog.rename(manual / "hotdog.zip")
    builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    assert counts(builder) == {"train": 8, "test": 8}
    no_network.assert_not_called()


@pytest.mark.quick
def test_wrong_sum_shows_both_and_leaves_nothing(hotdog, tmp_path):
    expected = builders.Hotdog.ARCHIVE.sha1
    with open(hotdog, "ab") as stream:
        stream.write(b"x")
    found = archives.sha1_of(hotdog)
    with (
        mock.patch.object(zipfile, "ZipFile", side_effect=AssertionError("opened")),
        pytest.raises(InputError, match=rf"(?s)hotdog\.zip.*{found}.*{expected}"),
    ):
        prepared.prepare("hotdog", data_dir=tmp_path / "tfds", archive=hotdog)
    assert left_behind(tmp_path / "tfds") == []
    assert hotdog.exists()  # the user's own file


def test_damaged_download_is_deleted(hotdog, tmp_path):
    copy = tmp_path / "tfds" / "downloads" / "hotdog" / "xyz.zip"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(hotdog.read_bytes()[:-9])
    copy.with_name("xyz.zip.INFO").write_text("{}")
    with (
        mock.patch.object(tfds.download.DownloadManager, "download", return_value=copy),
        pytest.raises(InputError, match="SHA-1"),
    ):
        prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    assert left_behind(tmp_path / "tfds") == []


def test_next_mirror_where_one_is_down(hotdog, tmp_path):
    first, second = HOTDOG.urls[:2]

    def download(self, url):
        if url == first:
            raise ConnectionError("down")
        assert url == second
        return hotdog

    with mock.patch.object(tfds.download.DownloadManager, "download", download):
        builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    assert counts(builder) == {"train": 8, "test": 8}


@pytest.mark.quick
def test_no_network_says_what_to_do(tmp_path, no_network):
    with pytest.raises(InputError) as error:
        prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    for text in (
        *HOTDOG.urls,
        "host not found",
        str(tmp_path / "tfds/downloads/manual"),
        "as `archive`",
    ):
        assert text in str(error.value)
    assert no_network.call_count == len(HOTDOG.urls)
    assert left_behind(tmp_path / "tfds") == []


@pytest.mark.quick
@pytest.mark.parametrize(
    ("builder", "name", "sha1"),
    [
        ("BananaDetection", "banana-detection.zip", "5de26c8fce5ccdea9f91267273464dc968d20d72"),
        ("Hotdog", "hotdog.zip", "fba480ffa8aa7e0febbb511d181409f899b9baa5"),
        (
            "Voc2012Segmentation",
            "VOCtrainval_11-May-2012.tar",
            "4e443f8a2eca6b1dac8a6c57641b67dd40621a49",
        ),
    ],
)
def test_archives_are_the_book_s(builder, name, sha1):
    archive = getattr(builders, builder).ARCHIVE
    assert archive.urls[0] == "http://d2l-data.s3-accelerate.amazonaws.com/" + name
    assert (archive.name, archive.sha1) == (name, sha1)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "hotdog/../../evil", "..\\evil"])
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_names_that_point_outside(tmp_path, name, ending):
    folder = tmp_path / "a" / "b"
    files = {**fake_archives.hotdogs(bad=False), name: b"evil"}
    path = folder / f"hotdog.{ending}"
    fake = dataclasses.replace(HOTDOG, sha1=fake_archives.write(files, path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="outside"):
        archives.open_source(path, fake)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.quick
def test_links_in_a_tar_lead_nowhere(tmp_path):
    path = tmp_path / "hotdog.tar"
    fake_archives.write(fake_archives.hotdogs(bad=False), path)
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("hotdog/train/hotdog/9.png")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
    source = archives.open_source(path, dataclasses.replace(HOTDOG, sha1=archives.sha1_of(path)))
    assert "train/hotdog/9.png" not in source.names()
    with pytest.raises(InputError, match=r"hotdog/train/hotdog/9\.png: no such file"):
        source.read("train/hotdog/9.png")


@pytest.mark.parametrize("ending", ["zip", "tar", "folder"])
def test_every_kind_of_source_reads_the_same(tmp_path, ending):
    files = fake_archives.hotdogs()
    path = tmp_path / f"hotdog.{ending}"
    archive = dataclasses.replace(HOTDOG, sha1=fake_archives.write(files, path) or "")
    source = archives.open_source(path, archive)
    names = [name.removeprefix("hotdog/") for name in files]
    assert source.names() == sorted(names)
    assert source.names("train/hotdog/1") == ["train/hotdog/1.png"]
    assert all(source.read(name) == files[f"hotdog/{name}"] for name in names)
    with pytest.raises(InputError, match=r"hotdog.*nothing\.png: no such file"):
        source.read("nothing.png")


@pytest.mark.quick
def test_what_is_no_archive(tmp_path):
    path = tmp_path / "hotdog.zip"
    path.write_bytes(b"<html>Sign in</html>")
    archive = dataclasses.replace(HOTDOG, sha1=archives.sha1_of(path))
    with pytest.raises(InputError, match="neither a zip nor a plain tar"):
        archives.open_source(path, archive)
    with pytest.raises(InputError, match=r"empty: this folder does not hold.*hotdog/train/hotdog"):
        (tmp_path / "empty").mkdir()
        archives.open_source(tmp_path / "empty", archive)
    with pytest.raises(InputError, match=r"nothing\.zip: no such file or folder"):
        archives.open_source(tmp_path / "nothing.zip", archive)
    other = fake_archives.write(fake_archives.bananas(), tmp_path / "other.zip")
    with pytest.raises(InputError, match=r"other\.zip: holds no hotdog/train/hotdog"):
        archives.open_source(tmp_path / "other.zip", dataclasses.replace(HOTDOG, sha1=other))


def prepare_voc(tmp_path, change):
    files = fake_archives.voc(bad=False)
    change(files)
    fake_archives.write(files, tmp_path / "data")
    prepared.prepare("voc2012_segmentation", data_dir=tmp_path / "tfds", archive=tmp_path / "data")


ROOT = "VOCdevkit/VOC2012/"


def cut(name):
    def change(files):
        files[ROOT + name] = fake_archives.truncated(files[ROOT + name])

    return change


def put(name, content):
    return lambda files: files.update({ROOT + name: content})


def rgb_mask(color):
    pixels = np.zeros((150, 200, 3), np.uint8)
    pixels[7, 9] = color
    return fake_archives.encoded(pixels)


def index_mask(height, width, value):
    classes = np.zeros((height, width), np.uint8)
    classes[3, 4] = value
    return fake_archives.mask_png(classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut("JPEGImages/2007_000003.jpg"), r"2007_000003\.jpg: damaged or truncated"),
        (cut("SegmentationClass/2007_000003.png"), r"Class/2007_000003\.png: damaged or truncated"),
        (cut("Annotations/2007_000003.xml"), r"2007_000003\.xml: not a whole XML file"),
        (lambda files: files.pop(f"{ROOT}JPEGImages/2007_000003.jpg"), r"003\.jpg: no such file"),
        (
            put("SegmentationClass/2007_000003.png", index_mask(150, 201, 1)),
            r"2007_000003\.png: 150 x 201 .* its image is 150 x 200",
        ),
        (
            put("SegmentationClass/2007_000003.png", index_mask(150, 200, 21)),
            r"2007_000003\.png: index 21 at row 3, column 4 is no class",
        ),
        (
            put("SegmentationClass/2007_000003.png", rgb_mask([1, 2, 3])),
            r"2007_000003\.png: colour \(1, 2, 3\) at row 7, column 9 is no class",
        ),
        (
            lambda f: f.update(
                {k: v.replace(b">person<", b">wizard<") for k, v in f.items() if "000003.xml" in k}
            ),
            r"2007_000003\.xml, object 2: unknown class 'wizard'",
        ),
        (
            lambda f: f.update(
                {k: v.replace(b"60.5", b"260") for k, v in f.items() if "000003.xml" in k}
            ),
            r"2007_000003\.xml, object 2: the box is outside the image",
        ),
    ],
)
def test_bad_voc_files_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        prepare_voc(tmp_path, change)
    assert left_behind(tmp_path / "tfds") == []


def test_masks_in_colours_become_the_same_indices(tmp_path):
    classes = fake_archives.voc_mask(0, 150, 200)
    colors = np.reshape(fake_archives.palette(), (256, 3)).astype(np.uint8)[classes]
    prepare_voc(tmp_path, put("SegmentationClass/2007_000000.png", fake_archives.encoded(colors)))
    builder = prepared.prepare("voc2012_segmentation", data_dir=tmp_path / "tfds")
    data = builder.as_dataset(split="train")
    masks = {bytes(e["file_name"]): e["segmentation_mask"] for e in tfds.as_numpy(data)}
    np.testing.assert_array_equal(masks[b"2007_000000.jpg"][..., 0], classes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"0.png,0,10,20,60,120", b"0.png,0,10,20,60", r"label\.csv, line 2: .*is not img_name"),
        (b"0.png,0,10,", b"0.png,1,10,", r"label\.csv, line 2: unknown class 1"),
        (b"1.png,0,11,21,61", b"1.png,0,61,21,11", r"label\.csv, line 3: the box is .*inside out"),
        (b"1.png,0,11,21,61", b"1.png,0,11,21,211", r"label\.csv, line 3: the box is outside"),
        (b"1.png,0,11,21,61", b"1.png,0,11,21,nan", r"label\.csv, line 3: the box is outside"),
        (b"3.png,", b"33.png,", r"images/33\.png: no such file"),
        (b"3.png,", b"../3.png,", r"label\.csv, line 5: '\.\./3\.png' is not the name"),
        (
            b"xmin,ymin",
            b"ymin,xmin",
            r"label\.csv: the first line is .*expected img_name,",
        ),
    ],
)
def test_bad_banana_labels_are_named(tmp_path, old, new, message):
    files = fake_archives.bananas(bad=False)
    table = "banana-detection/bananas_train/label.csv"
    assert old in files[table]
    files[table] = files[table].replace(old, new)
    fake_archives.write(files, tmp_path / "data")
    with pytest.raises(InputError, match=message):
        prepared.prepare("banana_detection", data_dir=tmp_path / "tfds", archive=tmp_path / "data")
    assert left_behind(tmp_path / "tfds") == []


def test_interrupted_preparation_is_not_taken_for_whole(hotdog, tmp_path):
    def stop(source, name, read=builders.base.image):
        if name.endswith("not-hotdog/2.png"):
            raise KeyboardInterrupt
        return read(source, name)

    with mock.patch.object(builders.base, "image", stop), pytest.raises(KeyboardInterrupt):
        prepared.prepare("hotdog", data_dir=tmp_path / "tfds", archive=hotdog)
    builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds", archive=hotdog)
    assert counts(builder) == {"train": 8, "test": 8}


def test_sideways_images_are_stored_upright(tmp_path):
    upright = fake_archives.random_image(1, 30, 50)
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(upright)).save(stream, "PNG", exif=exif)
    files = fake_archives.hotdogs(bad=False)
    files["hotdog/train/hotdog/7.png"] = stream.getvalue()
    fake_archives.write(files, tmp_path / "data")
    builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds", archive=tmp_path / "data")
    examples = tfds.as_numpy(builder.as_dataset(split="train"))
    (found,) = (e["image"] for e in examples if e["file_name"] == b"7.png")
    np.testing.assert_array_equal(found, upright)


def test_an_interrupted_download_leaves_nothing(hotdog, tmp_path):
    def download(self, url):
        part = Path(self._download_dir) / "hotdog.tmp.0123" / "hotdog.zip"
        part.parent.mkdir(parents=True)
        part.write_bytes(hotdog.read_bytes()[:-9])
        raise KeyboardInterrupt

    theirs = tmp_path / "tfds" / "downloads" / "other.tmp.4567"  # another process' download
    theirs.mkdir(parents=True)
    (theirs / "other.zip").write_bytes(b"part")
    with (
        mock.patch.object(tfds.download.DownloadManager, "download", download),
        pytest.raises(KeyboardInterrupt),
    ):
        prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    assert left_behind(tmp_path / "tfds") == [theirs / "other.zip"]


class _Mirror(http.server.BaseHTTPRequestHandler):
    """Serves hotdog.zip below /good/, half of it below /short/, and nothing elsewhere."""

    content = b""

    def do_GET(self):
        if not self.path.startswith(("/good/", "/short/")):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        half = len(self.content) // 2 if self.path.startswith("/short/") else None
        self.wfile.write(self.content[:half])

    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(hotdog):
    """Function that makes the builder download from paths on a server of this machine."""
    handler = type("Mirror", (_Mirror,), {"content": hotdog.read_bytes()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    original = builders.Hotdog.ARCHIVE

    def use(*folders):
        base = f"http://127.0.0.1:{server.server_port}"
        urls = tuple(f"{base}/{folder}/hotdog.zip" for folder in folders)
        builders.Hotdog.ARCHIVE = dataclasses.replace(original, urls=urls)

    yield use
    builders.Hotdog.ARCHIVE = original
    server.shutdown()
    server.server_close()


def test_download_from_the_second_mirror(mirrors, tmp_path):
    mirrors("missing", "good")
    builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    assert counts(builder) == {"train": 8, "test": 8}


def test_a_download_that_breaks_off_is_not_kept(mirrors, tmp_path):
    mirrors("short")
    with pytest.raises(InputError, match=r"hotdog\.zip"):
        prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    assert list((tmp_path / "tfds").rglob("*hotdog*.tmp.*")) == []
    assert left_behind(tmp_path / "tfds") == []
    mirrors("good")
    builder = prepared.prepare("hotdog", data_dir=tmp_path / "tfds")
    assert counts(builder) == {"train": 8, "test": 8}
