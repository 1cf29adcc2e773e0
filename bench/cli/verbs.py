"""The verbs `run`, `convert`, `score`, `merge` and `report`: they build a `Run` from settings."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from bench.cli.arguments import Setting, one_of, parse
from bench.cli.console import Printed
from bench.cli.executor import executor_of
from bench.cli.rendered import Rendered
from bench.cli.settings import PROGRESS, load
from bench.cli.shown import Shown, shown_as
from bench.cli.sweep import FLAGS, points
from bench.errors import UserError
from bench.files import fingerprint
from bench.objects import build
from bench.run.folder import SCORES, read_run
from bench.run.judges import DeclaredJudge, plain
from bench.run.merge import merge_shards
from bench.run.run import Run
from bench.run.shards import Shard
from bench.systems import EXISTING, declared_facts
from bench.trials import Suite
from bench.weights.find import WeightsMissing

UNRECORDED = frozenset(("progress", "executor"))  # settings that are not in run.json
SETTINGS = {
    "merge": {
        "out": Setting("folder of the whole run, which is new or an earlier merge", needed=True),
        "cache": Setting(
            "file of the score cache that takes the shards' scores; default: .cache/ beside out"
        ),
        "progress": Setting("on stderr; default: bars", one_of(*PROGRESS)),
    }
}


def run(arguments: Sequence[str]) -> int:
    """Converts, scores and reports; 1 if some system completed no trial, else 0.

    A shard writes no report. With -m, a run for every value: see `bench.cli.sweep`.
    """
    if any(flag in arguments for flag in FLAGS):
        return _sweep(arguments)
    config = load(arguments)
    judges = judges_of(config)
    with shown_as(config.progress) as shown:
        of_settings = run_of(config, shown)
        of_settings.check(judges)
        with of_settings.locked():
            of_settings.convert(overwrite=config.overwrite, judges=judges)
            of_settings.score(judges)
            shown.end()
            if of_settings.shard is not None:
                shown.note(_merged_by(of_settings))
                return 0
            return _report(config, of_settings, shown, again=config.overwrite)


def _sweep(arguments: Sequence[str]) -> int:
    """Converts every run of the sweep, scores all by each judge in turn, then writes reports."""
    configs = []
    for point in points(arguments):
        config = load(point.overrides)
        config.name = f"{config.name}{point.suffix}"
        configs.append(config)
    judges = [judges_of(config) for config in configs]
    with shown_as(configs[0].progress) as shown:
        runs = [run_of(config, shown) for config in configs]
        for of_settings, declared in zip(runs, judges, strict=True):
            of_settings.check(declared)
        for config, of_settings, declared in zip(configs, runs, judges, strict=True):
            shown.note(f"run {of_settings.name}")
            of_settings.convert(overwrite=config.overwrite, judges=declared)
        # Equal judges of several runs: name and settings → the judge and its runs.
        alike: dict[str, tuple[str, DeclaredJudge, list[Run]]] = {}
        for of_settings, declared in zip(runs, judges, strict=True):
            if of_settings.executor is not None:  # it has scored meanwhile
                continue
            for name, judge in declared.items():
                key = fingerprint([name, plain(judge.settings)])
                alike.setdefault(key, (name, judge, []))[2].append(of_settings)
        for name, judge, of_judge in alike.values():
            with suppress(WeightsMissing):  # `Run.score` notes it
                built = judge.build(name)
                for of_settings in of_judge:
                    of_settings.score_ahead(name, built)
                del built
        code = 0
        for config, of_settings, declared in zip(configs, runs, judges, strict=True):
            with of_settings.locked():
                of_settings.score(declared)
                shown.end()
                if of_settings.shard is None:
                    code |= _report(config, of_settings, shown, again=config.overwrite)
        return code


def convert(arguments: Sequence[str]) -> int:
    """Converts: writes audio and its records."""
    config = load(arguments)
    with shown_as(config.progress) as shown:
        run_of(config, shown).convert(overwrite=config.overwrite)
        shown.end()
        shown.note(f"converted; score with: vcbench score {shlex.join(arguments)}")
    return 0


def score(arguments: Sequence[str]) -> int:
    """Scores finished conversions; builds no system."""
    config = load(arguments)
    with shown_as(config.progress) as shown:
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
        if of_settings.shard is not None:
            shown.note(_merged_by(of_settings))
        else:
            shown.note(relative(of_settings.folder / SCORES))
    return 0


def merge(arguments: Sequence[str]) -> int:
    """Joins the shards of a run: `vcbench merge A B C out=D`."""
    folders, settings = parse(arguments, "merge", SETTINGS["merge"])
    out = Path(settings["out"])
    with shown_as(settings.get("progress", "bars")) as shown:
        scored = merge_shards(
            [Path(folder) for folder in folders], out, cache=settings.get("cache"), progress=shown
        )
        shown.end()
        if not scored:
            shown.note(f"{relative(out.absolute())} has all conversions; score with: vcbench score")
            return 0
        shown.note(f"report with: vcbench report name={out.name} outputs={out.parent}")
        return _completed(read_run(out).scores)


def report(arguments: Sequence[str]) -> int:
    """Writes the reports of a scored run; 1 if some system completed no trial, else 0."""
    config = load(arguments)
    folder = Path(config.outputs) / config.name
    if not folder.is_dir():
        raise UserError(f"no run {config.name!r} in {config.outputs}; `vcbench ls runs` lists them")
    of_settings = Run(folder)
    with shown_as(config.progress) as shown, of_settings.locked():
        return _report(config, of_settings, shown)


def run_of(config: DictConfig, shown: Shown | None = None) -> Run:
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
        settings=_recorded(config),
        progress=shown,
        shard=None if config.shard is None else Shard.parse(config.shard),
        executor=executor_of(config),
    )


def _recorded(config: DictConfig) -> dict[str, Any]:
    """The settings as run.json records them: those that can change a result."""
    settings: Any = OmegaConf.to_container(config, resolve=False)
    return {name: value for name, value in settings.items() if name not in UNRECORDED}


def _merged_by(shard: Run) -> str:
    """What to do when all shards are done."""
    return f"shard {shard.shard} is done; after the last: vcbench merge {shard.whole} out=FOLDER"


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


def _report(config: DictConfig, of_settings: Run, shown: Shown, again: bool = True) -> int:
    """Writes every form of the report; 1 if some system completed no trial, else 0.

    Args:
        config: the settings.
        of_settings: the scored run.
        shown: shows the progress.
        again: also render the forms that are up to date.
    """
    results = of_settings.results
    rendered = Rendered(results)
    forms: Mapping[Any, Any] = config.report if config.table is None else {"table": config.paper}
    for name, node in forms.items():
        settings: Any = OmegaConf.to_container(node, resolve=True)
        advance = shown.task("report", str(name), 1)
        path = None if again else rendered.path(str(name), settings)
        if path is None:
            path = build(node, f"report {name}").render(results)
            if path is not None:
                rendered.add(str(name), settings, path)
        advance(1)
        if path is not None:
            print(relative(path))
    return _completed(results.scores)


def _completed(scores: pd.DataFrame) -> int:
    """0, or 1 if some system completed no trial."""
    completed = scores.groupby("system")["status"].agg(lambda s: bool((s != "failed").any()))
    if not completed.all():
        names = ", ".join(completed.index[~completed])
        Printed(stderr=True).print(f"[red]{names}: no trial was completed[/]")
        return 1
    return 0
