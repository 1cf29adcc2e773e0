"""What the model imports: the benchmark in two modules, none of the packages above it."""

import ast
from pathlib import Path

import takin_vc


def test_two_modules_of_the_model_import_the_benchmark_and_only_run_imports_its_judges():
    root = Path(takin_vc.__file__).parent
    importers: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                importers.setdefault(name.split(".")[0], set()).add(str(path.relative_to(root)))
                if "judging" in name:
                    importers.setdefault("judging", set()).add(str(path.relative_to(root)))
    assert importers["bench"] == {"system.py", "train/validation/judging.py"}
    assert importers["judging"] == {"train/run.py"}
    assert not {"baselines", "suites", "reports"} & importers.keys()
