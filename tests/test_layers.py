"""The imports between modules run downward: no circle, no package that imports a higher one."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "takin_vc", "baselines", "suites", "reports")
MOST_LINES = 450
LONGER = {"takin_vc/fast/kernels.py"}  # one kernel after another

# From the lowest to the highest; a module may import its layer and those below it.
LAYERS = {
    "bench": (
        (
            "errors",
            "files",
            "objects",
            "devices",
            "provenance",
            "audio",
            "guard",
            "metrics",
            "onednn",
        ),
        ("trials", "manifest", "systems", "weights", "results"),
        ("judges",),
        ("validity", "stats"),
        ("stages",),
        ("run",),
        ("callback",),
        ("cli",),
    ),
    "takin_vc": (
        ("conf", "tensors", "layers", "snake", "mel"),
        (
            "frontends",
            "content",
            "quantize",
            "timbre",
            "memory",
            "flow",
            "estimator",
            "vocoder",
            "vocos",
        ),
        ("inputs", "chunks", "model", "parts", "config", "checkpoint"),
        ("fast",),
        ("system",),
        ("train", "tools"),
    ),
}
MAY_IMPORT = {
    "bench": (),
    "takin_vc": ("bench",),
    "baselines": ("bench", "takin_vc"),
    "suites": ("bench",),
    "reports": ("bench",),
}


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    named = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


MODULES = modules()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path, everywhere: bool = True) -> tuple[str, ...]:
    """The modules of the project that a file imports; those for type checkers alone are left out.

    Args:
        path: the file.
        everywhere: also inside functions.
    """
    return tuple(imports_of(parsed(path), everywhere))


def imports_of(tree: ast.Module, everywhere: bool) -> Iterator[str]:
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    if not everywhere:
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                skipped |= {id(node) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name:
                yield name


def layer(module: str) -> tuple[int, str] | None:
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    for level, parts in enumerate(LAYERS.get(package, ())):
        if part in parts:
            return level, part
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_below_them(package):
    for name, path in MODULES.items():
        if name.partition(".")[0] != package:
            continue
        for other in imported(path):
            assert other.partition(".")[0] in (package, *MAY_IMPORT[package]), f"{name} → {other}"


@pytest.mark.parametrize("package", LAYERS)
def test_no_module_imports_a_higher_layer(package):
    unplaced, upward = [], []
    for name, path in MODULES.items():
        if name.partition(".")[0] != package or name in (package, f"{package}.__main__"):
            continue
        here = layer(name)
        if here is None:
            unplaced.append(name)
            continue
        for other in imported(path):
            there = layer(other) if other.partition(".")[0] == package else None
            if there is not None and there[0] > here[0]:
                upward.append(f"{name} → {other}")
    assert unplaced == []
    assert upward == []


def test_the_architecture_has_the_layers():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d) \| (.*) \|$", page, re.MULTILINE))
    assert [*rows] == [str(n) for n in range(1, len(LAYERS["bench"]) + 1)]
    for row, parts in zip(rows.values(), LAYERS["bench"], strict=True):
        named = re.findall(r"`(\w+)/?`", row.partition(":")[0] if "/`:" in row else row)
        assert [part for part in parts if part not in named] == [], row


def test_no_modules_import_one_another():
    edges = {n: {o for o in imported(p, everywhere=False) if o != n} for n, p in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for other in sorted(edges[name]):
            visit(other, (*path, name))
        done.add(name)

    for name in edges:
        visit(name, ())


def test_only_two_modules_of_the_model_import_the_harness():
    importers = {
        name
        for name, path in MODULES.items()
        if name.startswith("takin_vc")
        and any(other.partition(".")[0] == "bench" for other in imported(path))
    }
    assert importers == {"takin_vc.system", "takin_vc.train.validation.judging"}


def test_no_two_public_classes_share_a_name():
    modules_of: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        if name.startswith("baselines.isolated."):  # each has an `Adapter`, and runs alone
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules_of.setdefault(node.name, []).append(name)
    assert {
        name: definitions for name, definitions in modules_of.items() if len(definitions) > 1
    } == {}


def test_no_file_is_long():
    folders = (*PACKAGES, "tests", "benchmarks")
    paths = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    lines = {
        p.relative_to(ROOT).as_posix(): len(p.read_text(encoding="utf-8").splitlines())
        for p in paths
    }
    assert {p: n for p, n in lines.items() if n > MOST_LINES and p not in LONGER} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import bench",
        "from bench.__main__ import main; main(['ls', 'presets'])",
        "import reports.text.commands",
    ],
)
def test_light_commands_do_not_import_torch(code):
    check = f"""
import sys
try:
    {code}
except SystemExit:
    pass
assert not {{'torch', 'transformers', 'speechbrain'}} & set(sys.modules), 'heavy'
"""
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
