"""The verb `ls`: lists the names that other verbs accept."""

from collections.abc import Sequence
from pathlib import Path

from bench.cli.console import Printed
from bench.cli.settings import GROUPS, load, options
from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS
from bench.run.folder import RUN


def ls(arguments: Sequence[str]) -> int:
    """Lists systems, suites, judges, reports, presets, executors, metrics, runs; or some kinds.

    Raises:
        UserError: if a kind is unknown.
    """
    out = Printed()
    kinds: dict[str, dict[str, str]] = {f"{group}s": options(group) for group in GROUPS}
    kinds["presets"] = options("preset")
    kinds["executors"] = options("executor")
    kinds["metrics"] = {name: f"{m.label} {m.arrow}  {m.about}" for name, m in METRICS.items()}
    names, settings = [a for a in arguments if "=" not in a], [a for a in arguments if "=" in a]
    outputs = Path(load(settings).outputs)
    runs = sorted(outputs.glob(f"*/{RUN}")) if outputs.is_dir() else []
    kinds["runs"] = {path.parent.name: str(path.parent) for path in runs}
    for kind in names:
        if kind not in kinds:
            raise UserError(f"ls {kind!r}: {choose_one_of(kind, kinds)}")
    for kind in names or kinds:
        out.print(f"[bold]{kind}[/]")
        width = max(map(len, kinds[kind]), default=0)
        for name, about in kinds[kind].items():
            out.print(f"  {name:{width}}  [dim]{about}[/]", highlight=False, soft_wrap=True)
    return 0
