"""The notebooks run, say what is true, and are what their sources give, in both languages."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

import kerascv_d2l

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks/build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

MAX_FOLDER = 15_000_000  # bytes
every_source = pytest.mark.parametrize("path", build.sources(), ids=lambda path: path.stem)
# These take longest: an ordinary run has some minutes for everything.
TRAINING = ("01", "02", "08", "11", "12", "13", "14", "15", "16", "17", "18")


def run(path, monkeypatch, folder, quick):
    """Run a source as a script, each cell under a name that a traceback shows."""
    monkeypatch.chdir(folder)
    names = {"__name__": path.stem}
    for number, cell in enumerate(build.read(path, quick)):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{path.name}, cell {number}", "exec"), names)
    assert not list(folder.iterdir()), "a notebook leaves nothing in the reader's folder"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.long] * path.stem.startswith(TRAINING), id=path.stem)
        for path in build.sources()
    ],
)
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_it_runs(path, monkeypatch, tmp_path, pyplot):
    run(path, monkeypatch, tmp_path, quick=True)


@pytest.mark.long
@every_source
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_it_runs_as_readers_run_it(path, monkeypatch, tmp_path, pyplot):
    run(path, monkeypatch, tmp_path, quick=False)


@every_source
def test_committed_notebooks_are_of_their_source(path):
    cells = build.read(path)
    shown = []
    for language in build.LANGUAGES:
        content = build.target(path, language).read_text("utf-8")
        assert not re.search(r"/home/|/tmp/|/root/|\\\\Users|site-packages|ms/step", content)
        notebook = nbformat.reads(content, as_version=4)
        nbformat.validate(notebook)
        wanted = build.write(cells, path, language)
        keys = ("id", "cell_type", "source")
        found, expected = ([[c[k] for k in keys] for c in n.cells] for n in (notebook, wanted))
        assert found == expected, f"run: python notebooks/build.py {path.stem}"
        shown.append([[c.source, c.outputs] for c in build.code_cells(notebook)])
        for output in (o for cell in shown[-1] for o in cell[1]):
            assert output.output_type in ("stream", "display_data")
            assert len(output.get("data", {}).get("image/png", "")) <= build.MAX_PICTURE * 1.4
    assert shown[0] == shown[1]


@every_source
def test_both_languages_say_the_same(path):
    """Each English cell is followed by its Chinese one, with the same formulas and names."""
    cells = [cell for cell in build.read(path) if cell.cell_type == "markdown"]
    assert [build.tags(cell) for cell in cells] == [["en"], ["zh"]] * (len(cells) // 2)
    for english, chinese in zip(cells[::2], cells[1::2], strict=True):
        assert facts(english.source) == facts(chinese.source), english.source[:60]


@every_source
def test_names_of_the_package_exist(path):
    """In those too that an ordinary run does not run."""
    code = "\n".join(cell.source for cell in build.read(path) if cell.cell_type == "code")
    missing = set(re.findall(r"\bd2l\.(\w+)", code)) - set(kerascv_d2l.__all__)
    assert not missing


def facts(text):
    """Set of what is in code font, the formulas and the decimal fractions of a text."""
    return set(re.findall(r"`[^`]+`|\$\$[^$]+\$\$|\$[^$]+\$|\d+\.\d+", text))


def test_the_folder_stays_small():
    files = [path for path in (ROOT / "notebooks").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_FOLDER
    made = {
        path.stem for language in build.LANGUAGES for path in (build.FOLDER / language).iterdir()
    }
    assert made == {path.stem for path in build.sources()}


def test_quick_setting_and_chinese_lines(tmp_path):
    source = tmp_path / "00_example.py"
    source.write_text(
        '# %% [markdown] tags=["en"]\n# One 1.\n\n# %% [markdown] tags=["zh"]\n# 一，\n# 二。\n'
        '\n# %%\nx = 10  # quick: 2\n\n# %% tags=["check-full"]\nassert x == 10\n',
        "utf-8",
    )
    full, quick = build.read(source), build.read(source, quick=True)
    assert [cell.source for cell in full][2:] == ["x = 10", "assert x == 10"]
    assert [cell.source for cell in quick][2:] == ["x = 2"]
    notebook = build.write(full, source, "zh")
    assert [cell.source for cell in notebook.cells] == ["一，二。", "x = 10"]
