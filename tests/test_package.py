"""What holds for the package as a whole: lazy names, direction of imports, dependencies."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import children
import pytest

import kerascv_d2l

pytestmark = pytest.mark.quick
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kerascv_d2l"

# Each may import from those before it (and from its own).
LAYERS = (
    ("errors", "outputs"),
    ("files", "colors", "classes"),
    ("devices",),
    ("ops",),
    ("initializers", "losses", "metrics"),
    ("layers",),
    ("models",),
    ("data",),
    ("style_transfer", "rcnn", "explain"),
    ("export", "plotting"),
    ("training",),
    ("cli", "book"),
)


def test_import_reads_two_files_and_brings_no_tensorflow():
    """Seconds would depend on what else the machine does; what is opened does not."""
    code = """
import os, sys
opened, before = [], set(sys.modules)
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import kerascv_d2l
assert {"TinySSD", "multibox_target"} < set(dir(kerascv_d2l))
home = os.path.dirname(kerascv_d2l.__file__)
opened = {path for path in opened if path.startswith(home) and "__pycache__" not in path}
brought = set(sys.modules) - before
print(*sorted(os.path.basename(path) for path in opened | {kerascv_d2l.__file__}))
print(*(name for name in brought if name.partition(".")[0] not in sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["__init__.py __init__.pyi", "kerascv_d2l"], done


def test_every_name_resolves_where_it_says():
    for name in kerascv_d2l.__all__:
        assert getattr(kerascv_d2l, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = kerascv_d2l.nonsense


def test_models_load_without_further_imports(tmp_path):
    """`load_model` imports every module that registers a class with Keras."""
    registering = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if "@keras.saving.register_keras_serializable" in path.read_text(encoding="utf-8")
    }
    assert len(registering) > 15
    code = """
import sys, kerascv_d2l.models.weights as weights
try:
    weights._read_model("of another class.keras")  # knows them all before it is opened
except weights.InputError:
    print(*sys.modules)
"""
    (tmp_path / "load.py").write_text(code)
    done = children.run(tmp_path / "load.py", folder=ROOT)
    assert done.returncode == 0 and not registering - set(done.stdout.split()), done.stderr


def imports(path):
    """Modules of this package that a file imports, relative to the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(p for p in (base, node.module) if p)
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_point_downwards():
    rank = {name: i for i, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        home = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if home == "__init__":
            continue
        assert home in rank, f"{home} has no place in LAYERS"
        for name in imports(path):
            match = re.match(r"kerascv_d2l\.(\w+)", name)
            if match and match[1] in rank and rank[match[1]] > rank[home]:
                wrong.append(f"{path.relative_to(ROOT)} imports {match[1]}")
    assert not wrong


def test_only_cli_knows_argparse():
    """Not the library, which takes values, and no script, whose flags come from `cli`."""
    knowing = [
        path.relative_to(ROOT).as_posix()
        for folder in (PACKAGE, ROOT / "scripts")
        for path in folder.rglob("*.py")
        if "argparse" in imports(path)
        or any(name.startswith("argparse.") for name in imports(path))
    ]
    assert knowing == ["kerascv_d2l/cli.py"]


def test_models_import_no_data():
    for path in (PACKAGE / "models").rglob("*.py"):
        assert not [n for n in imports(path) if n.startswith("kerascv_d2l.data")], path


def test_requirements_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["test"] + extras["notebooks"] + ["-e ."]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == wanted
    for line in wanted[:-1]:
        assert "<" in line, f"{line} has no upper bound"
