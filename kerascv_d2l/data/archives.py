"""Archives of data sets: finding or downloading them, checking their sum, reading from them.

Nothing is ever unpacked: images and labels are read straight from the zip or
tar file. So no half-unpacked folder can be taken for a whole one, a name such
as `../x` in an archive has nowhere to go, and no second copy fills the disk.
"""

import contextlib
import dataclasses
import functools
import hashlib
import lzma
import os
import shutil
import tarfile
import textwrap
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from kerascv_d2l.errors import InputError

# What zipfile, tarfile and the decompressors raise for damaged members.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
)


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive that holds one data set.

    Attributes:
        name: file name, `"hotdog.zip"`.
        sha1: hexadecimal SHA-1 of the file.
        urls: where to get it, the first choice first.
        folder: the folder inside that holds the data set, `"VOCdevkit/VOC2012"`.
        landmark: beginning of a name inside that folder, by which the folder
            is recognised, `"ImageSets/Segmentation/train.txt"`.
    """

    name: str
    sha1: str
    urls: tuple
    folder: str
    landmark: str


def sha1_of(path):
    """SHA-1 of a file: 40 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, _sha1).hexdigest()


_sha1 = functools.partial(hashlib.sha1, usedforsecurity=False)


def check(path, archive):
    """See that what is at hand is the `Archive`, or a folder unpacked from it.

    Returns:
        `Path` of the data set's folder, or None for an archive file of the right sum.

    Raises:
        InputError: as `open_source`.
    """
    path = Path(path).expanduser()
    if path.is_file():
        if (found := sha1_of(path)) != archive.sha1:
            raise InputError(
                f"{path}: this is not {archive.name}, or it is damaged or incomplete: its SHA-1 "
                f"is {found}, expected {archive.sha1} ({path.stat().st_size:,} bytes). Nothing "
                "was read from it. Delete it and get it again."
            )
        return None
    if not path.is_dir():
        raise InputError(
            f"{path}: no such file or folder; give {archive.name}, or the folder unpacked from it"
        )
    root = _root_in(path, archive)
    if root is None:
        raise InputError(
            f"{path}: this folder does not hold the data set of {archive.name}: "
            f"{archive.folder}/{archive.landmark} is missing in it"
        )
    return root


def fingerprint(folder):
    """Tell a folder by the names, sizes and times of its files: 12 hexadecimal digits."""
    digest = _sha1()
    for file in sorted(Path(folder).rglob("*")):
        if file.is_file():
            status = file.stat()
            name = os.fsencode(file.relative_to(folder))
            digest.update(b"%s\0%d %d\n" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:12]


def find(archive, dl_manager, at_hand=None):
    """Find the data set on this machine, or download it.

    Looked for in this order: `at_hand`; TFDS' manual folder (the archive, then
    the unpacked folder); earlier downloads; the mirrors.

    Args:
        archive: `Archive`.
        dl_manager: `tfds.download.DownloadManager`.
        at_hand: as `path` of `open_source`, or None.

    Returns:
        A source, as `open_source`.

    Raises:
        InputError: as `open_source`, or if no mirror could be reached.
    """
    if at_hand is not None:
        return open_source(at_hand, archive)
    with contextlib.suppress(AssertionError):  # TFDS': that folder is missing or empty
        manual = Path(dl_manager.manual_dir)
        if (manual / archive.name).is_file():
            return open_source(manual / archive.name, archive)
        if _root_in(manual, archive) is not None:
            return open_source(manual, archive)
    return open_source(_download(archive, dl_manager), archive, downloaded=True)


def open_source(path, archive, downloaded=False):
    """Open an archive, or a folder that was unpacked from one.

    Args:
        path: file name of the archive, or an unpacked folder: the data set's own, or one that
            holds it (as the book leaves it in `../data`).
        archive: the `Archive` that it should be.
        downloaded: whether the file is a copy of ours, to be deleted if its
            sum is wrong, so that the next run downloads it anew.

    Returns:
        A source: `names(prefix)`, `read(name)`, `where(name)`.

    Raises:
        InputError: if there is nothing of that name, the sum is wrong, the
            file cannot be read, or the data set is not inside.
    """
    path = Path(path).expanduser()
    try:
        root = check(path, archive)
    except InputError:
        if downloaded:
            path.unlink()
            path.with_name(path.name + ".INFO").unlink(missing_ok=True)  # TFDS' note on it
        raise
    if root is not None:
        return _Folder(root)
    try:
        members = _zip(path) if zipfile.is_zipfile(path) else _tar(path)
    except _DAMAGE as error:
        raise InputError(f"{path}: neither a zip nor a plain tar file ({error})") from error
    root = next((r for r in _roots(archive) if members.names(r + archive.landmark)), None)
    if root is None:
        raise InputError(f"{path}: holds no {archive.folder}/{archive.landmark}")
    members.root = root
    return members


class _Source:
    """Files by their names inside the data set, with `/` between folders."""

    def text(self, name):
        """Content of a text file; UTF-8 with or without byte-order mark."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.where(name)}: not a text file ({error})") from error


class _Folder(_Source):
    def __init__(self, root):
        self._folder = root

    def where(self, name):
        return str(self._folder / name)

    def names(self, prefix=""):
        folder = self._folder / PurePosixPath(prefix + "_").parent
        found = (p.relative_to(self._folder).as_posix() for p in folder.rglob("*") if p.is_file())
        return sorted(name for name in found if name.startswith(prefix))

    def read(self, name):
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise InputError(f"{self.where(name)}: no such file") from None
        except OSError as error:
            raise InputError(f"{self.where(name)}: cannot be read ({error})") from error


class _Members(_Source):
    """Members of an archive; only regular files count, links and devices do not exist."""

    root = ""

    def __init__(self, path, members, read):
        self._path, self._read = path, read
        self._members = {}
        for name, member in members:
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if name.startswith(("/", "\\")) or ".." in parts or ":" in name.split("/")[0]:
                raise InputError(
                    f"{path}: holds the name {name!r}, which points outside the archive's folder; "
                    "nothing was read from it"
                )
            self._members["/".join(part for part in parts if part != ".")] = member

    def where(self, name):
        return f"{self._path}: {self.root}{name}"

    def names(self, prefix=""):
        wanted = self.root + prefix
        return sorted(n.removeprefix(self.root) for n in self._members if n.startswith(wanted))

    def read(self, name):
        member = self._members.get(self.root + name)
        if member is None:
            raise InputError(f"{self.where(name)}: no such file")
        try:
            return self._read(member)
        except _DAMAGE as error:
            raise InputError(f"{self.where(name)}: damaged ({error})") from error


def _zip(path):
    file = zipfile.ZipFile(path)
    members = ((i.filename, i) for i in file.infolist() if not i.is_dir())
    return _Members(path, members, file.read)


def _tar(path):
    # "r:" takes uncompressed files only: a compressed one would be read from the start for every
    # image.
    file = tarfile.open(path, "r:")  # noqa: SIM115 - lives as long as the source

    def read(member):
        content = file.extractfile(member).read()
        if len(content) != member.size:
            raise EOFError(f"{len(content)} of {member.size} bytes")
        return content

    return _Members(path, ((m.name, m) for m in file if m.isreg()), read)


def _roots(archive):
    """Prefixes under which the data set may stand, the longest first: `a/b/`, `b/`, ``."""
    parts = archive.folder.split("/")
    return ["".join(part + "/" for part in parts[i:]) for i in range(len(parts) + 1)]


def _root_in(folder, archive):
    candidates = (folder / root for root in _roots(archive))
    return next((c for c in candidates if (c / archive.landmark).exists()), None)


def _download(archive, dl_manager):
    failures = []
    for url in archive.urls:
        try:
            with _no_partial_downloads(dl_manager):
                return Path(dl_manager.download(url))
        # requests, urllib3 and TFDS have no common base class for "not there".
        except Exception as error:
            text = textwrap.shorten(str(error), 200, placeholder=" …")
            failures.append(f"  {url}: {type(error).__name__}: {text}")
    hint = "the folder `manual` in TFDS' download folder"
    manual = getattr(dl_manager, "_manual_dir", None)
    raise InputError(
        f"{archive.name} could not be downloaded:\n"
        + "\n".join(failures)
        + f"\nWhere there is no network: put {archive.name}, or the folder unpacked from it, into "
        f"{manual or hint}, or name it as `archive`."
    )


@contextlib.contextmanager
def _no_partial_downloads(dl_manager):
    """Remove what a download of TFDS leaves when it breaks off: a folder NAME.tmp.NUMBER.

    It would never be taken for the archive, but a part of VOC is up to 2 GB.
    """
    folder = getattr(dl_manager, "_download_dir", None)

    def partial():
        return set() if folder is None else set(Path(folder).rglob("*.tmp.*"))

    before = partial()
    try:
        yield
    except BaseException:  # KeyboardInterrupt above all
        for path in partial() - before:
            shutil.rmtree(path, ignore_errors=True)
        raise
