"""Find the files of a data set in a folder, and tell which part of it they are."""

import contextlib
import contextvars
import functools
import io
import json
import os
import re
import unicodedata
import urllib.parse
import xml.etree.ElementTree as ElementTree
from pathlib import Path, PurePosixPath

from kerascv_d2l.data.splits import first_of
from kerascv_d2l.errors import InputError
from kerascv_d2l.outputs import is_output

MAX_WRAPPING_FOLDERS = 3
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)
# What file managers and archives leave behind; names that begin with a dot are passed over too.
LITTER = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
ALL, TRAIN, VAL, TEST = "all", "train", "val", "test"
OTHER_CASE = "names that differ from those of the files in upper and lower case"
ABSENT = "does not exist"
# Words in the names of files and folders that say which part of a data set they are.
LIST_FOLDERS = (".", "ImageSets/Main", "ImageSets")  # for lists of the images of each part
_PART_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
    "trainval": ALL,
}


_known = contextvars.ContextVar("known", default=None)  # what was listed, inside `listed_once`
_OUTPUTS = "outputs"  # among it: what was passed over


@contextlib.contextmanager
def listed_once():
    """List each folder only once, as long as this lasts: nothing may change meanwhile."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def _once(function, *arguments):
    """`list(function(*arguments))`, inside `listed_once` the one that was made before."""
    known, key = _known.get(), (function, *arguments)
    if known is None:
        return function(*arguments)
    if key not in known:
        known[key] = function(*arguments)
    return list(known[key])


def outputs_passed_over():
    """List the paths of this package's own outputs that were met, inside `listed_once`."""
    return sorted((_known.get() or {}).get(_OUTPUTS, ()))


def visible(folder):
    """List what is in a folder but for what is never data: `Path`s sorted by name.

    That is hidden files, litter, and what this package wrote itself.

    Raises:
        InputError: for a folder that cannot be read, or a name that is not UTF-8.
    """
    return _once(_visible, folder)


def _visible(folder):
    return [folder / entry.name for entry in _entries(folder)]


def _entries(folder, any_name=False):
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    for entry in found:
        if entry.name.startswith(".") or entry.name.lower() in LITTER:
            continue
        try:
            entry.name.encode(errors="surrogateescape" if any_name else "strict")
        except UnicodeEncodeError:
            raise InputError(
                f"{folder}: the name of the file {os.fsencode(entry.name)!r} is not UTF-8 (an "
                "archive packed on Windows?): rename it"
            ) from None
        if not _passed_over(entry):
            yield entry


def _passed_over(entry):
    """Whether something is an output of this package; inside `listed_once` it is remembered."""
    try:
        if not is_output(entry):
            return False
    except OSError:  # a link to itself
        return False
    if (known := _known.get()) is not None:
        known.setdefault(_OUTPUTS, set()).add(entry.path)
    return True


def walk(folder, endings=IMAGE_ENDINGS, any_name=False):
    """List the files with some lower-case endings (or the same in upper case) in a folder.

    Args:
        folder: its path.
        endings: tuple of str.
        any_name: bool: take names that are not UTF-8, too, instead of refusing them.

    Returns:
        list of `Path`, sorted: of all folders in it, links too, without what is never
            data (`visible`).
    """
    return _once(_walk, folder, endings, any_name)


def _walk(folder, endings, any_name):
    files = _once(_walk_all, folder, any_name)
    return [Path(path) for path, ending in files if ending in endings]


def _walk_all(folder, any_name):
    """Sorted list of the path of every file in a folder, and its ending in lower case."""
    return sorted(_files_in(folder, (os.path.realpath(folder),), any_name))


def _files_in(folder, above, any_name):
    for entry in _entries(folder, any_name):
        if _is_folder(entry):
            real = os.path.realpath(entry.path)
            if real not in above:  # a link that leads back up has no end
                yield from _files_in(entry.path, (*above, real), any_name)
        else:
            yield entry.path, os.path.splitext(entry.name)[1].lower()


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def listing(folder):
    """Say what is in a folder: its first names, folders with a slash; `""` for nothing."""
    return first_of(child.name + "/" * child.is_dir() for child in visible(folder))


def unwrapped(path):
    """Yield a folder, and where it wraps but one folder (as archives often do), that too.

    Raises:
        InputError: if there is no such folder.
    """
    folder = Path(path)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: a file, where the folder of a data set is expected")
    for _ in range(MAX_WRAPPING_FOLDERS):
        yield folder
        inside = [child for child in visible(folder) if not _is_prose(child)]
        if len(inside) != 1 or not inside[0].is_dir():
            return
        folder = inside[0]


def _is_prose(path):
    """Whether a file is none of the data: what to read first, or the archive itself."""
    named = path.name.lower().startswith(("readme", "licen"))
    return path.is_file() and (named or path.suffix.lower() in (".md", ".pdf", ".zip", ".gz"))


def part_of(name):
    """Tell the part of a data set by the name of one file (without ending) or folder.

    Words are what stands between digits and signs: `instances_train2017` is of `train`,
    `instances_trainval2007` of `all`, and `constraint` of none.

    Returns:
        `train`, `val`, `test`, `all` (train and val in one), or None.
    """
    parts = {_PART_WORDS[w] for w in re.findall("[a-z]+", name.lower()) if w in _PART_WORDS}
    if parts == {TRAIN, VAL}:
        return ALL
    return parts.pop() if len(parts) == 1 else None


def part_of_path(path, root, own_name=False):
    """Tell the part of a data set by the folders in `root` that a file is in.

    The innermost comes first, or with `own_name` the name of the file itself. As `part_of`, but
    `all` for None.
    """
    folders, _, name = relative(path, root).rpartition("/")
    own = part_of(os.path.splitext(name)[0]) if own_name else None
    return own or _part_of_folders(folders)


@functools.lru_cache
def _part_of_folders(folders):
    return next(filter(None, map(part_of, reversed(folders.split("/")))), ALL)


def relative(path, root):
    """The path of a file in `root` from there on, with `/`: 20 times as fast as `relative_to`."""
    base = "" if str(root) == "." else os.path.join(root, "")
    path = str(path)
    if not path.startswith(base):
        raise ValueError(f"{path} is not in {root}")
    return path[len(base) :].replace(os.sep, "/")


def is_inside(path, root):
    """Whether a file is in `root` by the text of its path: then `relative` takes it."""
    path = str(path)
    if str(root) == ".":
        return not os.path.isabs(path) and not path.startswith(os.pardir)
    return path.startswith(os.path.join(root, ""))


def files_by_part(files, root):
    """Tell which part each label file in `root` is for, by its name or else its folder.

    Returns:
        dict from part to file; `all` beside `train` and `val` is left out, being both.

    Raises:
        InputError: if two files are for one part; lists them.
    """
    parts = {}
    for file in files:
        parts.setdefault(part_of_path(file, root, own_name=True), []).append(file)
    if {TRAIN, VAL} <= set(parts) and all(part_of(file.stem) == ALL for file in parts.get(ALL, ())):
        parts.pop(ALL, None)
    fit = set(parts) - {TEST} in ({ALL}, {TRAIN}, {TRAIN, VAL})
    if not fit or any(len(same) > 1 for same in parts.values()):
        found = [f"{f.relative_to(root)} ({part})" for part in parts for f in parts[part]]
        raise InputError(
            f"{root}: which files are to be read? Found {first_of(found)}; wanted one, or one "
            "each with train, val and perhaps test in its name"
        )
    return {part: file for part, (file,) in parts.items()}


def read_flag(value):
    """Read a yes or no: bool, or None for neither. Nothing, and `Unspecified`, are no."""
    text = str(value).strip().lower()
    if value is None or text in ("", "0", "0.0", "false", "no", "unspecified"):
        return False
    return True if text in ("1", "1.0", "true", "yes") else None


class ImageFiles:
    """The image files of a folder, to be found by what label files call them.

    Args:
        root: `Path`.
        faults: `Faults`, to note what is not called as it is.
    """

    def __init__(self, root, faults):
        self.root, self.faults = root, faults
        self.files = walk(root)
        self.prefixes = {}
        self.by_name, self.by_stem = {}, {}  # with its folders, and by its last part alone
        for file in self.files:
            name = relative(file, root)
            for table, called in (
                (self.by_name, name),
                (self.by_stem, os.path.splitext(name)[0]),
            ):
                for key in {_key(called), "/" + _key(called.rsplit("/", 1)[-1])}:
                    table.setdefault(key, []).append(file)

    def find(self, name, folders, part=ALL, stem=None):
        """Find the one image that a label file means.

        The name may have folders, of this or of another machine (`C:\\old\\a.jpg`,
        `..\\..\\media\\a.jpg`), and be quoted as in addresses (`a%20b.jpg`). As many of its
        folders as are there must agree. Upper and lower case may differ where that leaves
        one file.

        Args:
            name: str.
            folders: `Path`s in `root` to look in, each tried with the whole name, then
                without its first folder, and so on. The first that has the image counts. A
                name without folders may also be in another folder, but for those of another
                part, if it is the only one.
            part: str: the part of the labels.
            stem: bool: `name` has no ending; None: it may have none, where that leaves one file.

        Returns:
            `(path, problem)`: `Path` or None, and None or what is wrong: no such image,
            or several.
        """
        path, problem = self._find(name, folders, part, bool(stem))
        if path is None and stem is None and not name.lower().endswith(IMAGE_ENDINGS):
            path, other = self._find(name, folders, part, True)
            problem = problem if path is None and ABSENT in other else other
            stem = True
            if path is not None:
                self.faults.count("names of images without an ending", f"{name} ({path.name})")
        if path is not None and _differs_in_case(name, path, stem):
            self.faults.count(OTHER_CASE, f"{name} ({path.name})")
        return path, problem

    def _find(self, name, folders, part, stem):
        table = self.by_stem if stem else self.by_name
        prefixes = [self._prefix(folder) for folder in folders]
        for parts in dict.fromkeys((_name_parts(name), _name_parts(urllib.parse.unquote(name)))):
            for first in range(len(parts)):
                for prefix in prefixes:
                    inside = prefix + "/".join(parts[first:])
                    found = table.get(_key(inside), [])
                    if len(found) > 1 and not stem:
                        found = [f for f in found if f == self.root / inside] or found
                    if found:
                        return _only(found, name)
            if len(parts) == 1:
                found = table.get("/" + _key(parts[0]), [])
                allowed = (ALL, part)
                found = [f for f in found if part == ALL or part_of_path(f, self.root) in allowed]
                if found:
                    return _only(found, name)
        looked = first_of(dict.fromkeys(str(folder) for folder in folders))
        return None, f"the image {name} {ABSENT} in {looked}"

    def _prefix(self, folder):
        """`""` or `a/b/` for a folder in the root."""
        if folder not in self.prefixes:
            inside = folder.relative_to(self.root).as_posix()
            self.prefixes[folder] = "" if inside == "." else inside + "/"
        return self.prefixes[folder]


def _only(found, name):
    if len(found) == 1:
        return found[0], None
    return None, f"{name} may be {first_of(found)}"


def image_folders(file, root, part):
    """List where the images of a label file of some part may be, the likeliest first.

    Returns:
        list of `Path`: folders called as the file or as the part; beside the file; `images/`.
    """
    name = file.stem.removeprefix("instances_").removeprefix("annotations_")
    inside = [folder for folder in (root / "images", root) if folder.is_dir()]
    named = [folder / name for folder in reversed(inside)]
    for folder in inside:
        named += [
            f for f in visible(folder) if part != ALL and f.is_dir() and part_of(f.name) == part
        ]
    beside = [file.parent / "images", file.parent, root / "images", root / "data", root]
    return list(dict.fromkeys([*named, *beside]))


def _key(name):
    # Macs decompose accents in file names; cameras and Windows mix upper and lower case.
    return unicodedata.normalize("NFC", name).casefold()


def _differs_in_case(name, path, stem):
    """Whether the last part of a name is that of a path but for upper and lower case."""
    last = path.stem if stem else path.name
    if name.endswith(last):
        return False
    called = (_name_parts(urllib.parse.unquote(name)) or ("",))[-1]
    called, last = (unicodedata.normalize("NFC", text) for text in (called, last))
    return called != last and called.casefold() == last.casefold()


def _name_parts(name):
    if not {"/", "\\", ":"}.intersection(name) and name not in (".", "..", ""):
        return (name,)  # as nearly always
    parts = PurePosixPath(name.replace("\\", "/")).parts
    # Neither the root, a drive, nor steps upwards mean anything on this machine.
    return tuple(p for p in parts if p not in ("/", "..", ".") and not p.endswith(":"))


def read_text(file):
    """Give the text of a file in UTF-8; an `InputError` names one of another kind."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file}: not a text file in UTF-8, or unreadable ({error})") from error


def read_json(file, lists, what):
    """Give the dict that a JSON file holds.

    Raises:
        InputError: for a file that is missing, no JSON, or has not all of `lists` (names of
            lists, as `what` writes them) at its top.
    """
    text = read_text(file)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{file}, {place}: not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # numbers too long, lists too deep
        raise InputError(f"{file}: cannot be read as JSON ({error})") from error
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{file}: no list `{key}` at its top, as {what} files have")
    return content


def read_xml(file, content=None):
    """Give the top `Element` of an XML file (or of its bytes), its tags without namespaces.

    Raises:
        InputError: for a file that is missing, or no XML.
    """
    try:
        tree = ElementTree.parse(file if content is None else io.BytesIO(content)).getroot()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError, LookupError) as error:
        raise InputError(f"{file}: not a whole XML file ({error})") from error
    for element in tree.iter():
        if isinstance(element.tag, str):  # comments have a function
            element.tag = element.tag.rsplit("}", 1)[-1]
    return tree


def size_of(height, width):
    """Give `(height, width)` that a label file states, or None where it does not know."""
    try:
        size = int(float(height)), int(float(width))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def read_lines(file):
    """Give the lines of a text file in UTF-8; an `InputError` names one of another kind."""
    return read_text(file).splitlines()


# ---------------------------------------------------------------- parts


def read_lists(root, folders, known, faults, absence):
    """Read which images `train.txt`, `val.txt`, `trainval.txt` and `test.txt` name.

    Names stand one a line, with or without folder and ending. (`valid.txt` and `validation.txt`
    are read too.) Lists of which nothing is known are passed over, with a note.

    Args:
        root: `Path` of the data set.
        folders: folders of `root` to look for the lists in; the first that has one counts.
        known: what may be named, anything that iterates: str, with `/`.
        faults: `Faults`.
        absence: str: what a name that is not known lacks, for messages.

    Returns:
        dict from part to some of `known` in the order of the lines; None without such files.

    Raises:
        InputError: if there is `train.txt` and neither `val.txt` nor `test.txt`, and it does not
            name all; or `val.txt` alone; or a line is bad and `faults` does not skip it.
    """
    present = next(filter(None, (_lists(root / folder) for folder in folders)), None)
    if present is None:
        return None
    table = {}
    for name in known:
        for other in {*_spellings(name)}:
            table.setdefault(other, []).append(name)
    folded = {}
    for spelled, names in table.items():
        folded.setdefault(spelled.casefold(), []).extend(names)
    folded = {spelled: list(dict.fromkeys(names)) for spelled, names in folded.items()}
    table |= {name: [name] for name in known}
    if TRAIN in present and VAL in present:
        present.pop(ALL, None)  # both in one
    parts, seen = {}, {}
    both = present.pop(ALL, None) if {TRAIN, VAL} & set(present) else None
    for part, file in present.items():
        parts[part] = _read_list(file, part, (table, folded), seen, faults, absence)
    if both is not None:  # the other part is the rest
        names = _read_list(both, ALL, (table, folded), {}, faults, absence)
        rest, given = (VAL, TRAIN) if TRAIN in parts else (TRAIN, VAL)
        parts[rest] = [name for name in names if name not in set(parts[given])]
        faults.notes.append(f"{rest} is what {both.name} has and {present[given].name} has not")
        present[rest] = both
    unlisted = sorted(set(known).difference(*parts.values()))
    if set(parts) == {TEST}:
        return parts | {ALL: unlisted}
    if set(parts) == {TRAIN} and not unlisted:
        return {ALL: parts[TRAIN]}
    if set(parts) in ({TRAIN}, {VAL}, {VAL, TEST}):
        file, absent = next(iter(present.values())), VAL if TRAIN in parts else TRAIN
        raise InputError(f"{file} is there, but {file.with_name(absent + '.txt')} is missing")
    if unlisted:
        files = first_of(file.name for file in present.values())
        faults.notes.append(
            f"{len(unlisted)} labelled image(s) are in none of {files}, and are not read: "
            f"{first_of(unlisted, 3)}"
        )
    return parts


def note_other_lists(root, folders, known, faults):
    """Note the lists of parts in other folders than those of `read_lists`."""
    names = {spelling for name in known for spelling in _spellings(name)}
    places = [root / folder for folder in folders]
    others = [
        relative(file, root)
        for file in walk(root, (".txt",))
        if file.stem.lower() in _PART_WORDS
        and file.parent not in places
        and any(names.intersection(_spellings(line.strip())) for line in read_lines(file))
    ]
    if others:
        faults.notes.append(
            f"{len(others)} list(s) of parts are not read, for they are not in the outermost "
            f"folder: {first_of(others, 4)}. Give the folder that they belong to"
        )


def _lists(folder):
    """Dict from part to list file."""
    found = {}
    for file in visible(folder) if folder.is_dir() else ():
        part = _PART_WORDS.get(file.stem.lower()) if file.suffix.lower() == ".txt" else None
        if found.setdefault(part, file) != file and part:
            raise InputError(f"{found[part]} and {file}: keep one list for {part}")
    found.pop(None, None)
    return {part: found[part] for part in (TRAIN, VAL, ALL, TEST) if part in found}


def _read_list(file, part, table, seen, faults, absence):
    lines = [(n, line.strip()) for n, line in enumerate(read_lines(file), start=1) if line.strip()]
    # The whole name first, then without ending or folder: what is there under that name counts.
    exact, folded = table
    found = [next(filter(None, map(exact.get, _spellings(line))), []) for _, line in lines]
    for k, (_, line) in enumerate(lines):
        if not found[k]:
            spelled = (spelling.casefold() for spelling in _spellings(line))
            found[k] = next(filter(None, map(folded.get, spelled)), [])
            if len(found[k]) == 1:
                faults.count(OTHER_CASE, f"{line} in {file.name} ({found[k][0]})")
    if part == TEST and not any(found):
        faults.notes.append(f"{file}: none of its images is labelled, and it is not read")
        return []
    names = []
    for (number, line), matches in zip(lines, found, strict=True):
        where = f"{file}, line {number}"
        if not matches:
            faults.add(f"{where}: {line!r} has no {absence}")
        elif len(matches) > 1:
            faults.add(f"{where}: {line!r} may be {first_of(matches)}")
        elif matches[0] in seen:
            faults.add(f"{where}: {line!r} is already in {seen[matches[0]]}")
        else:
            seen[matches[0]] = where
            names.append(matches[0])
    return names


def _spellings(name):
    """A name, without its ending, without its folders, and without both."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))
    whole = [name]
    for ending in IMAGE_ENDINGS + (".xml", ".txt", ".json"):
        if name.lower().endswith(ending):
            whole.append(name[: -len(ending)])
    return whole + [spelling.rsplit("/", 1)[-1] for spelling in whole]
