"""The verbs `run`, `convert`, `score` and `report`: they build a `Run` from the settings."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars

from bench.cli.rendered import Rendered
from bench.cli.settings import load
from bench.errors import UserError
from bench.objects import build
from bench.run.folder import SCORES
from bench.run.judges import DeclaredJudge
from bench.run.run import Run
from bench.systems import EXISTING, declared_facts
from bench.trials import Suite


def run(arguments: Sequence[str]) -> int:
    """Converts, scores and reports; 1 if some system completed no trial, else 0."""
    config = load(arguments)
    judges = judges_of(config)
    with Shown() as shown:
        of_settings = run_of(config, shown)
        of_settings.check(judges)
        with of_settings.locked():
            of_settings.convert(overwrite=config.overwrite)
            of_settings.score(judges)
            shown.end()
            return _report(config, of_settings, again=config.overwrite)


def convert(arguments: Sequence[str]) -> int:
    """Converts: writes audio and its records."""
    config = load(arguments)
    with Shown() as shown:
        run_of(config, shown).convert(overwrite=config.overwrite)
        shown.end()
        shown.note(f"converted; score with: vcbench score {shlex.join(arguments)}")
    return 0


def score(arguments: Sequence[str]) -> int:
    """Scores finished conversions; builds no system."""
    config = load(arguments)
    with Shown() as shown:
        of_settings = run_of(config, shown)
        with of_settings.locked():
            if config.wavs is not None:  # these files are copied, nothing is computed
                existing = [
                    name
                    for name, settings in of_settings.systems.items()
                    if declared_facts(settings, f"system {name}").kind == EXISTING
                ]
                of_settings.convert(overwrite=config.overwrite, only=existing)
            of_settings.score(judges_of(config))
        shown.end()
        shown.note(relative(of_settings.folder / SCORES))
    return 0


def report(arguments: Sequence[str]) -> int:
    """Writes the reports of a scored run; 1 if some system completed no trial, else 0."""
    config = load(arguments)
    folder = Path(config.outputs) / config.name
    if not folder.is_dir():
        raise UserError(f"no run {config.name!r} in {config.outputs}; `vcbench ls runs` lists them")
    of_settings = Run(folder)
    with of_settings.locked():
        return _report(config, of_settings)


def run_of(config: DictConfig, shown: "Shown | None" = None) -> Run:
    """The run that the settings describe."""
    return Run(
        Path(config.outputs) / config.name,
        suites=suites_of(config),
        systems=systems_of(config),
        seed=config.seed,
        cache=config.cache,
        isolated=config.isolated,
        trial_seconds=config.trial_seconds,
        allow_changed=config.allow_changed,
        settings=OmegaConf.to_container(config, resolve=False),  # type: ignore[arg-type]
        progress=shown,
    )


def suites_of(config: DictConfig) -> list[Suite]:
    """The suites that the settings name."""
    return [
        build(node, f"suite {name}", name=str(name), limit=config.limit)
        for name, node in config.suite.items()
    ]


def systems_of(config: DictConfig) -> dict[str, dict[str, Any]]:
    """The plain settings of the systems that the settings name."""
    return {
        str(name): OmegaConf.to_container(node, resolve=True)  # type: ignore[misc]
        for name, node in config.system.items()
    }


def judges_of(config: DictConfig) -> dict[str, DeclaredJudge]:
    """The judges that the settings name; settings that need no weights are checked."""
    judges = {str(name): DeclaredJudge(node) for name, node in config.judge.items()}
    for name, judge in judges.items():
        judge.check(name)
    return judges


def relative(path: Path) -> str:
    """The path relative to the working directory if it lies inside, else as it is."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _report(config: DictConfig, of_settings: Run, again: bool = True) -> int:
    """Writes every form of the report; 1 if some system completed no trial, else 0.

    Args:
        config: the settings.
        of_settings: the scored run.
        again: also render the forms that are up to date.
    """
    results = of_settings.results
    rendered = Rendered(results)
    forms: Mapping[Any, Any] = config.report if config.table is None else {"table": config.paper}
    for name, node in forms.items():
        settings: Any = OmegaConf.to_container(node, resolve=True)
        path = None if again else rendered.path(str(name), settings)
        if path is None:
            path = build(node, f"report {name}").render(results)
            if path is not None:
                rendered.add(str(name), settings, path)
        if path is not None:
            print(relative(path))
    completed = results.scores.groupby("system")["status"].agg(
        lambda s: bool((s != "failed").any())
    )
    if not completed.all():
        names = ", ".join(completed.index[~completed])
        Console(stderr=True).print(f"[red]{names}: no trial was completed[/]")
        return 1
    return 0


class Shown:
    """Shows a run's progress in the terminal; see `bench.run.progress.Progress`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._started = False

    def __enter__(self) -> "Shown":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def task(self, name: str, total: int) -> Callable[[int], None]:
        """See `bench.run.progress.Progress`."""
        if not self._started:
            self._bars.start()
            self._started = True
        task: TaskID = self._bars.add_task(name, total=total)
        return lambda steps: self._bars.advance(task, steps)

    def note(self, text: str, caution: bool = False) -> None:
        """See `bench.run.progress.Progress`."""
        mark = "[yellow]caution[/] " if caution else ""
        self.console.print(f"{mark}{escape(text)}", highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Stops the progress bars and leaves them on the screen."""
        if self._started:
            self._bars.stop()
            self._started = False
