"""Make the notebooks in both languages from one source each, and run them.

    python notebooks/build.py              # all; those whose code changed are run
    python notebooks/build.py 01 07        # these, run in any case

`src/NN_name.py` is in jupytext's percent format. A text cell has the tag `en` or `zh`, each English
one followed by its Chinese one; code cells are for both languages, and run once. More tags of code:

- `check`: asserts about what the text says. They run, and are in no notebook.
- `check-full`: the same, but not true of the quick setting, in which tests run the sources.

`x = 10  # quick: 2` is 10 in the notebooks and 2 in the quick setting.
"""

import base64
import io
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from PIL import Image

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "src"
LANGUAGES = ("en", "zh")
CHECK, CHECK_FULL = "check", "check-full"
PERCENT = {"extension": ".py", "format_name": "percent", "comment_magics": False}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
TIMEOUT = 900  # seconds, of a cell
MAX_PICTURE = 100_000  # bytes
COLORS = 256  # of a picture that was too large
QUICK = re.compile(r"(?P<name>[^#\n]*?= )(?P<full>.*?)  # quick: (?P<quick>.*)")
# A Chinese sentence may go on in the next line of the source; Markdown would put a blank there.
_WIDE = r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
CHINESE_BREAK = re.compile(rf"(?<={_WIDE})\n(?={_WIDE})")
# What differs from one run to the next.
NOISE = re.compile(
    r"[^\n]*(examples/sec|ms/step|s/step| s left|WARNING:tensorflow|/tmp/|/home/)[^\n]*\n?"
)


def sources(names=()):
    """Paths of the sources whose file name starts with one of `names`; all without."""
    found = sorted(SOURCES.glob("*.py"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            raise SystemExit(f"{name}: no such notebook; there are {[p.stem for p in found]}")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def read(path, quick=False):
    """Cells of a source, as jupytext reads them, in the quick setting or the full one."""
    text = QUICK.sub(
        r"\g<name>\g<quick>" if quick else r"\g<name>\g<full>", path.read_text("utf-8")
    )
    cells = jupytext.reads(text, fmt=PERCENT).cells
    return [cell for cell in cells if not (quick and CHECK_FULL in tags(cell))]


def tags(cell):
    """Tags of a cell, a list of str."""
    return cell.metadata.get("tags", [])


def is_check(cell):
    """Whether a cell is for the builder and the tests, and in no notebook."""
    return CHECK in tags(cell) or CHECK_FULL in tags(cell)


def write(cells, path, language):
    """Make the notebook of one language.

    Args:
        cells: as `read` gives them; code cells with outputs, if they ran.
        path: of the source, for the cells' ids.
        language: `"en"` or `"zh"`.

    Returns:
        `nbformat.NotebookNode`.
    """
    made = []
    for number, cell in enumerate(cells):
        name = f"{path.stem.replace('_', '-')}-{number:03d}"
        if cell.cell_type == "code":
            if not is_check(cell):
                count = 1 + sum(each.cell_type == "code" for each in made)
                made.append(nbformat.v4.new_code_cell(cell.source, id=name, execution_count=count))
                made[-1].outputs = cell.get("outputs", [])
        elif language in tags(cell):
            text = CHINESE_BREAK.sub("", cell.source) if language == "zh" else cell.source
            made.append(nbformat.v4.new_markdown_cell(text, id=name))
        elif not set(LANGUAGES) & set(tags(cell)):
            raise SystemExit(f"{path.name}: a text cell has no language: {cell.source[:60]!r}")
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=metadata)


def target(path, language):
    """Path of the notebook that a source becomes."""
    return FOLDER / language / f"{path.stem}.ipynb"


def code_cells(notebook):
    """Code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_at_hand(path, cells):
    """Outputs of the notebook as it is, or None if its code is another."""
    if not target(path, LANGUAGES[0]).exists():
        return None
    old = code_cells(nbformat.read(target(path, LANGUAGES[0]), as_version=4))
    new = [cell.source for cell in cells if cell.cell_type == "code" and not is_check(cell)]
    return [cell.outputs for cell in old] if [cell.source for cell in old] == new else None


def run(path, cells):
    """Run the code cells in a kernel of their own, and put the outputs into them."""
    from nbclient import NotebookClient  # here, for tests run sources without

    code = [cell for cell in cells if cell.cell_type == "code"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.source) for cell in code],
        metadata={"kernelspec": KERNEL},
    )
    NotebookClient(notebook, timeout=TIMEOUT, record_timing=False).execute()
    for cell, done in zip(code, notebook.cells, strict=True):
        cell.outputs = [kept for output in joined(done.outputs) if (kept := cleaned(output))]
        if is_check(cell) and cell.outputs:
            print(f"{path.name}: {cell.outputs}", flush=True)


def joined(outputs):
    """Join texts that the kernel happened to send in pieces."""
    kept = []
    for output in outputs:
        text = output.output_type == "stream" and output.name
        if text and kept and kept[-1].get("name") == text:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def cleaned(output):
    """Drop what another run or machine would have otherwise; None if nothing is left."""
    output.pop("execution_count", None)
    if output.output_type == "execute_result":
        output.output_type = "display_data"  # it has no count, which cells left out would shift
    if output.output_type == "stream":
        output.text = NOISE.sub("", output.text)
        return output if output.name == "stdout" and output.text.strip() else None
    output.metadata = {}
    if "image/png" in output.get("data", {}):
        content = base64.b64decode(output.data["image/png"])
        output.data = {"image/png": base64.b64encode(smaller(content)).decode() + "\n"}
    return output


def smaller(content):
    """Take fewer colours for a PNG that is too large, bytes to bytes."""
    if len(content) <= MAX_PICTURE:
        return content
    for colors in (COLORS, COLORS // 4):
        picture = Image.open(io.BytesIO(content)).convert("RGB").quantize(colors)
        stream = io.BytesIO()
        picture.save(stream, "png", optimize=True)
        if stream.tell() <= MAX_PICTURE:
            return stream.getvalue()
    raise SystemExit(f"a picture has {stream.tell()} bytes; make it smaller than {MAX_PICTURE}")


def build(path, always=False):
    """Write both notebooks of a source."""
    cells = read(path)
    outputs = None if always else outputs_at_hand(path, cells)
    if outputs is None:
        print(f"running {path.name}", flush=True)
        run(path, cells)
    else:
        shown = [cell for cell in cells if cell.cell_type == "code" and not is_check(cell)]
        for cell, kept in zip(shown, outputs, strict=True):
            cell.outputs = kept
    for language in LANGUAGES:
        target(path, language).parent.mkdir(exist_ok=True)
        nbformat.write(write(cells, path, language), target(path, language))


def main(names):
    """Build the notebooks whose number or name starts with one of `names`; all without."""
    for path in sources(names):
        build(path, always=bool(names))


if __name__ == "__main__":
    main(sys.argv[1:])
