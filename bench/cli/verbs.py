"""What each verb of the command line does: builds the parts, runs the stages."""

import fcntl
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import provenance
from bench.cli.doctor import doctor
from bench.cli.entries import plain, started
from bench.cli.settings import GROUPS, load, options
from bench.errors import UserError, choose_one_of
from bench.judges import Judge
from bench.metrics import METRICS
from bench.objects import build, locate
from bench.run.folder import RUN, SCORES, write_run
from bench.run.results import Results, load_suites
from bench.stages.cache import Columns, ScoreCache
from bench.stages.convert import (
    Conversion,
    Entry,
    altered,
    check_belongs,
    convert_suite,
    read_conversions,
    settings_fingerprint,
)
from bench.stages.isolated import Isolated
from bench.stages.score import rows_of, score_rows, score_table, wav_hashes
from bench.stats.pooling import Measured, summarise
from bench.systems import System
from bench.trials import Suite
from bench.validity.exposure import TRAINED_ON, columns
from bench.weights.find import WeightsMissing

console = Console(stderr=True)


def run(arguments: Sequence[str]) -> int:
    """All stages: convert, score, report."""
    config = load(arguments)
    with _run_folder(config) as folder:
        with _prepared(config, folder) as (suites, entries):
            _convert(config, folder, suites, entries)
        _score(config, folder, suites, entries)
        return _report(config, folder)


def convert(arguments: Sequence[str]) -> int:
    """Only the systems: waveforms and their records."""
    config = load(arguments)
    with _run_folder(config) as folder:
        with _prepared(config, folder) as (suites, entries):
            _convert(config, folder, suites, entries)
        console.print(
            f"converted; score with: vcbench score {shlex.join(arguments)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return 0


def score(arguments: Sequence[str]) -> int:
    """Only the judges, over what is converted."""
    config = load(arguments)
    with _run_folder(config) as folder:
        with _prepared(config, folder) as (suites, entries):
            if config.wavs is not None:  # there is nothing to compute: files are only taken over
                ready = [e for e in entries if not isinstance(e.system, System)]
                _convert(config, folder, suites, ready)
        _score(config, folder, suites, entries)
        console.print(_relative(folder / SCORES), highlight=False, soft_wrap=True)
    return 0


def report(arguments: Sequence[str]) -> int:
    """Only the report of a scored run."""
    config = load(arguments)
    if not (Path(config.outputs) / config.name).is_dir():
        raise UserError(f"no run {config.name!r} in {config.outputs}; `vcbench ls runs` lists them")
    with _run_folder(config) as folder:
        return _report(config, folder)


def ls(arguments: Sequence[str]) -> int:
    """Lists what can be named: systems, suites, judges, reports, presets, metrics, runs."""
    out = Console()
    kinds: dict[str, dict[str, str]] = {f"{group}s": options(group) for group in GROUPS}
    kinds["presets"] = options("preset")
    kinds["metrics"] = {name: f"{m.label} {m.arrow}  {m.about}" for name, m in METRICS.items()}
    outputs = Path(load(()).outputs)
    runs = sorted(outputs.glob(f"*/{RUN}")) if outputs.is_dir() else []
    kinds["runs"] = {path.parent.name: str(path.parent) for path in runs}
    for kind in arguments:
        if kind not in kinds:
            raise UserError(f"ls {kind!r}: {choose_one_of(kind, kinds)}")
    for kind in arguments or kinds:
        out.print(f"[bold]{kind}[/]")
        width = max(map(len, kinds[kind]), default=0)
        for name, about in kinds[kind].items():
            out.print(f"  {name:{width}}  [dim]{about}[/]", highlight=False, soft_wrap=True)
    return 0


def _of_package(path: str) -> Callable[[Sequence[str]], int]:
    """A verb of another package, which this one does not import."""
    return lambda arguments: locate(path, "verb")(arguments)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "convert": convert,
    "score": score,
    "report": report,
    "compare": _of_package("reports.text.commands.compare"),
    "gate": _of_package("reports.text.commands.gate"),
    "history": _of_package("reports.text.commands.history"),
    "doctor": doctor,
    "ls": ls,
    "corpus": _of_package("suites.commands.corpus"),
    "suite": _of_package("suites.commands.suite"),
}


@contextmanager
def _run_folder(config: DictConfig) -> Iterator[Path]:
    """The run's folder, held by this process alone.

    Raises:
        UserError: if another process works in it.
    """
    folder = Path(config.outputs).absolute() / config.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another vcbench works in {folder}; wait for it, or take another name=…"
            ) from error
        for torn in folder.rglob(".*.part"):  # left by a kill
            torn.unlink()
        yield folder


def built_suites(config: DictConfig) -> list[Suite]:
    suites = list(load_suites(config).values())
    if not suites:
        raise UserError("no suite to run; name at least one: suite=mini_cross_gender")
    return suites


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def _prepared(config: DictConfig, folder: Path) -> Iterator[tuple[list[Suite], list[Entry]]]:
    """The suites, their audio checked, and the systems; their processes end with the block."""
    with started(config, folder) as systems:
        suites = _checked_suites(config)
        entries = systems.entries()
        for entry in entries:
            if entry.code is None:
                console.print(
                    f"[yellow]caution[/] {entry.name}: where its code lies cannot be told; if you "
                    "change it, add overwrite=true",
                    highlight=False,
                )
        yield suites, entries


def _checked_suites(config: DictConfig) -> list[Suite]:
    suites = built_suites(config)
    if config.allow_changed:
        suites = [suite.as_found() for suite in suites]
    for suite in suites:
        if suite.changed:
            console.print(
                f"[yellow]caution[/] {suite.name}: {len(suite.changed)} recordings are not those "
                f"that the manifest was made with, first {suite.changed[0]}; the report says so",
                highlight=False,
            )
        for caution in suite.check_audio():
            console.print(f"[yellow]caution[/] {escape(caution)}", highlight=False)
    return suites


def _convert(
    config: DictConfig, folder: Path, suites: Sequence[Suite], entries: Sequence[Entry]
) -> None:
    with _progress() as progress:
        for entry in entries:
            total = sum(len(suite.trials) for suite in suites)
            task = progress.add_task(f"convert {entry.name}", total=total)
            for suite in suites:
                conversions = convert_suite(
                    entry,
                    suite,
                    folder,
                    seed=config.seed,
                    overwrite=config.overwrite,
                    advance=lambda task=task: progress.advance(task),  # type: ignore[misc]
                )
                for line in _remarks(entry, suite, folder, list(conversions.values())):
                    progress.console.print(line, highlight=False)
            if isinstance(entry.system, Isolated):
                entry.system.close()


def _remarks(
    entry: Entry, suite: Suite, folder: Path, conversions: Sequence[Conversion]
) -> list[str]:
    """What the user should hear of at once: failures, and files that somebody changed."""
    remarks = []
    failed = [c for c in conversions if c.status == "failed"]
    if failed:
        remarks.append(
            f"[yellow]{entry.name} failed on {len(failed)} of {len(conversions)} trials of "
            f"{suite.name}[/], first {failed[0].trial_id}: {escape(failed[0].error)}"
        )
    if changed := altered(folder, conversions):
        remarks.append(
            f"[yellow]{len(changed)} files of {entry.name} in {suite.name} were changed since they "
            f"were converted[/] (first {changed[0]}); they are scored as they are now"
        )
    return remarks


def _score(
    config: DictConfig, folder: Path, suites: Sequence[Suite], entries: Sequence[Entry]
) -> None:
    conversions = {
        (entry.name, suite.name): read_conversions(folder, entry.name, suite.name)
        for entry in entries
        for suite in suites
    }
    for entry in entries:
        settings = settings_fingerprint(entry, config.seed)
        for suite in suites:
            records = conversions[entry.name, suite.name]
            for trial in suite.trials:
                if (record := records.get(trial.trial_id)) is not None:
                    check_belongs(record, trial, settings, entry.name, suite.name, folder)
    rows = rows_of(entries, suites, conversions)
    hashes = wav_hashes(rows, folder)
    cache = ScoreCache(Path(config.cache).absolute())
    scores: dict[str, list[Columns]] = {}
    measured: dict[str, Measured] = {}
    judges: dict[str, dict[str, Any]] = {}
    with _progress() as progress:
        for key, node in config.judge.items():
            name = str(key)
            try:
                judge: Judge = build(node, f"judge {name}")
            except WeightsMissing as error:
                metrics, needs = _judge_class(node)
                measured[name] = Measured(metrics, needs, f"no weights: {error}")
                judges[name] = {"metrics": list(metrics), "unavailable": str(error)}
                progress.console.print(
                    f"[yellow]{name} cannot judge[/]: {escape(str(error))}",
                    highlight=False,
                    soft_wrap=True,
                )
                continue
            _check_metrics(name, judge)
            task = progress.add_task(f"score {name}", total=len(rows))
            scores[name] = score_rows(
                rows,
                name,
                judge,
                folder,
                cache,
                advance=lambda n, task=task: progress.advance(task, n),  # type: ignore[misc]
            )
            measured[name] = Measured(judge.metrics, judge.needs_source_words)
            judges[name] = {
                "metrics": list(judge.metrics),
                "fingerprint": judge.fingerprint,
                "weights": [vars(w) for w in judge.weights],
                "settings": plain(node),
            }
    cache.close()
    trained_on = {e.name: e.trained_on for e in entries}
    scores[TRAINED_ON] = [
        {} if (corpora := trained_on[row.system]) is None else columns(row.trial, corpora)
        for row in rows
    ]
    measured[TRAINED_ON] = Measured(("unseen",))
    recordings = {e.name: e.says_source_words for e in entries if e.is_recording}
    write_run(
        folder,
        {
            "name": config.name,
            **provenance.describe(),
            "systems": {
                e.name: {
                    "settings": dict(e.settings),
                    "trained_on": sorted(e.trained_on or ()),
                    "code": None if e.code is None else dict(e.code),
                }
                for e in entries
            },
            "anchors": {name: "floor" if says else "ceiling" for name, says in recordings.items()},
            "suites": {
                s.name: {
                    "sha256": s.sha256,
                    "trials": len(s.trials),
                    **({"changed": list(s.changed)} if s.changed else {}),
                }
                for s in suites
            },
            "judges": judges,
            "pooling": {name: metric.pooling for name, metric in METRICS.items()},
            "settings": OmegaConf.to_container(config, resolve=False),
        },
        score_table(rows, folder, hashes, scores),
        lambda table: summarise(table, measured, recordings),
    )


def _check_metrics(name: str, judge: Judge) -> None:
    """Raises UserError unless the judge's metrics are known."""
    for metric in judge.metrics:
        if metric not in METRICS:
            raise UserError(
                f"judge {name} measures {metric!r}, which is no metric; "
                f"{choose_one_of(str(metric), METRICS)}"
            )


def _judge_class(node: DictConfig) -> tuple[tuple[str, ...], bool]:
    """What a judge that could not be built would have measured."""
    judge: Any = locate(node["_target_"], "judge")
    metrics = judge.metrics_for(node) if hasattr(judge, "metrics_for") else judge.metrics
    return tuple(metrics), bool(judge.needs_source_words)


def _relative(path: Path) -> str:
    """The path as a user would type it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _report(config: DictConfig, folder: Path) -> int:
    """Writes every form of the report; 1 if some system completed no trial at all."""
    results = Results.load(folder)
    wanted = config.report.items() if config.table is None else [("table", config.paper)]
    for name, node in wanted:
        if (path := build(node, f"report {name}").render(results)) is not None:
            print(_relative(path))
    done = results.scores.groupby("system")["status"].agg(lambda s: bool((s != "failed").any()))
    if not done.all():
        console.print(f"[red]{', '.join(done.index[~done])}: no trial was completed[/]")
        return 1
    return 0
