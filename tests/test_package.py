"""What holds for the package as a whole: lazy names, direction of imports, dependencies."""

import ast
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import kerascv_d2l

pytestmark = pytest.mark.quick
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kerascv_d2l"

# Each may import from those before it (and from its own).
LAYERS = (
    ("errors", "files", "colors"),
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


def test_import_is_quick_and_brings_no_tensorflow():
    code = """
import sys, time
start = time.perf_counter()
import kerascv_d2l
seconds = time.perf_counter() - start
names = dir(kerascv_d2l)
assert "TinySSD" in names and "multibox_target" in names
print(seconds, [m for m in ("tensorflow", "keras", "numpy") if m in sys.modules])
"""
    best = 1.0
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds, modules = done.stdout.split(maxsplit=1)
        assert modules.strip() == "[]"
        best = min(best, float(seconds))
        time.sleep(0.1)
    assert best < 0.05


def test_every_name_resolves_where_it_says():
    for name in kerascv_d2l.__all__:
        assert getattr(kerascv_d2l, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = kerascv_d2l.nonsense


def test_models_load_without_further_imports():
    """`load_model` imports every module that registers a class with Keras."""
    registering = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if "@keras.saving.register_keras_serializable" in path.read_text(encoding="utf-8")
    }
    assert len(registering) > 15
    code = "import sys, kerascv_d2l.export as e; e.register_classes(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not registering - set(done.stdout.split())


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
