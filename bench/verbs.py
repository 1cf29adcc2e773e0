"""What each verb of the command line does: builds the parts, runs the stages."""

import fcntl
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import get_class, get_method, get_object
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import provenance
from bench.cache import Columns, ScoreCache
from bench.config import GROUPS, build, load, options
from bench.convert import (
    Conversion,
    Entry,
    altered,
    check_belongs,
    convert_suite,
    read_conversions,
    settings_fingerprint,
)
from bench.decisions import compare_verb, gate_verb, history_verb
from bench.errors import UserError, choose_one_of
from bench.files import write_json
from bench.judges import Judge
from bench.leaks import TRAINED_ON, columns
from bench.metrics import METRICS
from bench.results import (
    RUN,
    SCORES,
    SUMMARY,
    Results,
    load_suites,
    read_table,
    write_table,
)
from bench.score import rows_of, score_rows, score_table, wav_hashes
from bench.summary import Measured, summarise
from bench.systems import Finished, Recording, System
from bench.trials import Suite, Utterance
from bench.weights import MEGABYTE, Download, WeightsMissing, short

console = Console(stderr=True)


def run(arguments: Sequence[str]) -> int:
    """All stages: convert, score, report."""
    config = load(arguments)
    with _run_folder(config) as folder:
        suites, entries = _prepare(config)
        _convert(config, folder, suites, entries)
        _score(config, folder, suites, entries)
        return _report(config, folder)


def convert(arguments: Sequence[str]) -> int:
    """Only the systems: waveforms and their records."""
    config = load(arguments)
    with _run_folder(config) as folder:
        _convert(config, folder, *_prepare(config))
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
        suites, entries = _prepare(config)
        if config.wavs is not None:  # there is nothing to compute: the files are only taken over
            ready = [e for e in entries if not isinstance(e.system, System)]
            _convert(config, folder, suites, ready)
        _score(config, folder, suites, entries)
        console.print(f"{folder / SCORES}")
    return 0


def report(arguments: Sequence[str]) -> int:
    """Only the report of a scored run."""
    config = load(arguments)
    if not (Path(config.outputs) / config.name).is_dir():
        raise UserError(f"no run {config.name!r} in {config.outputs}; `vcbench ls runs` lists them")
    with _run_folder(config) as folder:
        return _report(config, folder)


def doctor(arguments: Sequence[str]) -> int:
    """Checks every judge on recordings whose answers are known; 1 if one answers wrongly.

    With --fetch it first downloads the weights that judges and systems lack.
    """
    fetch = "--fetch" in arguments
    config = load([a for a in arguments if a != "--fetch"])
    recordings: list[Utterance] = build(config.known_recordings, "known_recordings")
    if not recordings:
        raise UserError("known_recordings: there are none; name a table with recordings in it")
    out = Console()
    machine = provenance.machine()
    out.print(
        f"[bold]machine[/] {machine['processor']}, {machine['cores']} cores, "
        f"GPU: {', '.join(machine['gpus']) or 'none'}"
    )
    out.print(
        f"[bold]known recordings[/] {len(recordings)} utterances, "
        f"{len({r.speaker for r in recordings})} speakers"
    )
    broken = [
        str(name)
        for name, node in config.system.items()
        if not _has_weights(node, str(name), fetch, out)
    ]
    wrong = []
    for name, node in config.judge.items():
        try:
            judge = _fetched(node, str(name), out) if fetch else build(node, f"judge {name}")
        except WeightsMissing as error:
            _not_available(str(name), error, out)
            continue
        with console.status(f"{name} …"):
            test = judge.self_test(recordings)
        mark = "[green]✓[/]" if test.passed else "[red]✗[/]"
        out.print(f"{mark} [bold]{name}[/]", highlight=False)
        for finding, value in test.findings.items():
            out.print(f"    {finding}: {value}", highlight=False, soft_wrap=True)
        for weights in judge.weights:
            out.print(
                f"    weights: {weights.name}, sha256 {weights.sha256[:12]}…, "
                f"{weights.licence}, {short(Path(weights.path))}",
                highlight=False,
                soft_wrap=True,
            )
        if not test.passed:
            wrong.append(str(name))
    if wrong:
        out.print(
            f"[red]{', '.join(wrong)}: wrong answers on known recordings; do not use these "
            "scores. Reinstall the package or get the weights again.[/]"
        )
    return 1 if wrong or broken else 0


def _has_weights(node: DictConfig, name: str, fetch: bool, out: Console) -> bool:
    """Shows which weights a system lacks, downloaded before where `fetch` says so.

    False where its settings are wrong; weights that are missing are no error, as for judges.
    """
    try:
        offer = getattr(get_object(node["_target_"]), "missing_weights", None)
        if offer is None:
            return True
        settings = {key: value for key, value in _plain(node).items() if key != "_target_"}
        for missing in offer(**settings) if fetch else ():
            if missing.download is not None:
                _download(missing.download, name, out)
        lacking = offer(**settings)
    except WeightsMissing as error:
        _not_available(name, error, out)
        return True
    except Exception as error:  # whatever a class of anyone's raises
        reason = " ".join(str(error).split()) or type(error).__name__
        out.print(f"[red]✗[/] [bold]{name}[/]: {escape(reason)}", highlight=False, soft_wrap=True)
        return False
    for missing in lacking:
        _not_available(name, missing, out)
    if not lacking:
        out.print(f"[green]✓[/] [bold]{name}[/] has its weights", highlight=False)
    return True


def _not_available(name: str, error: WeightsMissing, out: Console) -> None:
    size = f" ({_size(error.download)})" if error.download is not None else ""
    out.print(
        f"[yellow]–[/] [bold]{name}[/] not available: {escape(str(error))}{size}",
        highlight=False,
        soft_wrap=True,
    )


def _size(download: Download) -> str:
    return f"{download.size / MEGABYTE:.0f} MB" if download.size else "size unknown"


def _download(download: Download, name: str, out: Console) -> None:
    """Downloads weights, having said how much.

    Raises:
        WeightsMissing: if there is no connection.
    """
    out.print(f"[bold]{name}[/] {_size(download)}: {escape(download.how)}", soft_wrap=True)
    try:
        download.fetch()
    except UserError as failed:
        raise WeightsMissing(str(failed)) from failed


def _fetched(node: DictConfig, name: str, out: Console) -> Judge:
    """The judge, its weights downloaded where they are missing and can be.

    Raises:
        WeightsMissing: if nothing can be downloaded, or it was and is not what the judge needs.
        UserError: if there is no connection.
    """
    try:
        return build(node, f"judge {name}")
    except WeightsMissing as error:
        if error.download is None:
            raise
        _download(error.download, name, out)
        return build(node, f"judge {name}")


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
    return lambda arguments: get_method(path)(arguments)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "convert": convert,
    "score": score,
    "report": report,
    "compare": compare_verb,
    "gate": gate_verb,
    "history": history_verb,
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
    folder = Path(config.outputs) / config.name
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


def built_entries(config: DictConfig) -> list[Entry]:
    """The systems of the settings, built."""
    entries = []
    for name, node in config.system.items():
        system = build(node, f"system {name}")
        if not isinstance(system, System | Recording | Finished):
            raise UserError(
                f"system {name}: {type(system).__name__} is no system; it needs "
                "convert(source, reference, *, seed) and trained_on, see bench/systems.py"
            )
        entries.append(Entry(str(name), system, _plain(node)))
    if not entries:
        raise UserError("no system to run; name at least one: system=world")
    return entries


def built_suites(config: DictConfig) -> list[Suite]:
    suites = list(load_suites(config).values())
    if not suites:
        raise UserError("no suite to run; name at least one: suite=mini_cross_gender")
    return suites


def _plain(node: Any) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _prepare(config: DictConfig) -> tuple[list[Suite], list[Entry]]:
    """The suites, their audio checked, and the systems, built: once for all stages."""
    suites, entries = built_suites(config), built_entries(config)
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
    return suites, entries


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
    cache = ScoreCache(Path(config.cache))
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
                "settings": _plain(node),
            }
    cache.close()
    trained_on = {e.name: getattr(e.system, "trained_on", None) for e in entries}
    scores[TRAINED_ON] = [
        {} if (heard := trained_on[row.system]) is None else columns(row.trial, frozenset(heard))
        for row in rows
    ]
    measured[TRAINED_ON] = Measured(("unseen",))
    table = score_table(rows, hashes, scores)
    recordings = {e.name: e.says_source_words for e in entries if e.is_recording}
    write_table(table, folder / SCORES)
    # Read back, so that a report of this run and a report made again later see the same digits.
    table = read_table(folder / SCORES)
    write_table(summarise(table, measured, recordings), folder / SUMMARY)
    write_json(
        folder / RUN,
        {
            "name": config.name,
            **provenance.describe(),
            "systems": {
                e.name: {
                    "settings": dict(e.settings),
                    "trained_on": sorted(getattr(e.system, "trained_on", ())),
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
    )


def _judge_class(node: DictConfig) -> tuple[tuple[str, ...], bool]:
    """What a judge that could not be built would have measured."""
    judge: Any = get_class(node["_target_"])
    metrics = judge.metrics_for(node) if hasattr(judge, "metrics_for") else judge.metrics
    return tuple(metrics), bool(judge.needs_source_words)


def _report(config: DictConfig, folder: Path) -> int:
    """Writes every form of the report; 1 if some system completed no trial at all."""
    results = Results.load(folder)
    wanted = config.report.items() if config.table is None else [("table", config.paper)]
    for name, node in wanted:
        if (path := build(node, f"report {name}").render(results)) is not None:
            print(path)
    done = results.scores.groupby("system")["status"].agg(lambda s: bool((s != "failed").any()))
    if not done.all():
        console.print(f"[red]{', '.join(done.index[~done])}: no trial was completed[/]")
        return 1
    return 0
