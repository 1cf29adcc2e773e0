"""Defines `Run`: systems convert the trials of suites, judges score them, reports show them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from bench import provenance
from bench.errors import UserError, choose_one_of
from bench.judges import Judge, register_metrics_of
from bench.judges.checks import check_languages
from bench.metrics import METRICS, definitions
from bench.objects import TARGET, build
from bench.results import TRAINED_ON, ScoredRun
from bench.run.executors import RayExecutor, known_facts, remarks_of
from bench.run.folder import read_report, read_run, write_run
from bench.run.judges import DeclaredJudge, JudgedRows
from bench.run.lock import locked_folder
from bench.run.progress import Progress, Silent
from bench.run.recordings import store_trials
from bench.run.shards import CACHE, SHARDS, Shard, take_conversions, write_columns, write_shard
from bench.run.systems import StartedSystems, recorded_entries, settings_of
from bench.stages.cache import Columns, ScoreCache
from bench.stages.convert import (
    Entry,
    WarmUps,
    check_belongs,
    convert_suite,
    read_conversions,
    remarks_on,
    settings_fingerprint,
)
from bench.stages.isolated import Isolated
from bench.stages.remote import JudgeFacts
from bench.stages.score import Row, rows_of, score_rows, score_table, wav_hashes
from bench.stats.compare import CONVERSION, compare
from bench.stats.pooling import NO_JUDGES, TIMING, summarise
from bench.stats.sides import Side
from bench.systems import SYSTEM
from bench.trials import CheckedAudio, Suite, Utterance
from bench.weights.find import WeightsMissing

# What stands for a judge, or before a column's name, in the tables; no judge may be called so.
RESERVED = frozenset((*NO_JUDGES, TIMING, TRAINED_ON, CONVERSION))
HTML = "reports.html.page.HtmlReport"  # a name, because this package imports no other


class Run:
    """A run in a folder: conversions, scores and reports. A step that was killed resumes.

    Args:
        folder: of the run; its name is the run's name.
        suites: the trials.
        systems: name → a system (see `bench.systems`), or the dotted path or settings of its class.
            A system that is given by path or settings converts in a separate process.
        seed: the seed of each conversion is derived from it and the trial's id.
        cache: the file of scores that runs share; by default <folder>/../.cache/scores.sqlite.
        isolated: False to run systems that are given by settings in this process as well.
        trial_seconds: a conversion that takes longer is ended and fails; None for no limit.
        allow_changed: use recordings that differ from the manifest's; reports say so.
        settings: the settings that the run was built from, to be recorded in run.json.
        progress: receives progress and notes; by default nothing is shown.
        shard: the part of the run that is worked on, in a folder of its own inside `folder` and
            with a score cache of its own (see `bench.run.shards`); None for the whole run.
        executor: converts and scores elsewhere; None for this process.

    Raises:
        UserError: if there are more shards than trials.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        suites: Sequence[Suite] = (),
        systems: Mapping[str, Any] | None = None,
        seed: int = 0,
        cache: str | Path | None = None,
        isolated: bool = True,
        trial_seconds: float | None = 900.0,
        allow_changed: bool = False,
        settings: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        shard: Shard | None = None,
        executor: RayExecutor | None = None,
    ) -> None:
        self.whole = Path(folder).absolute()
        self.folder = self.whole if shard is None else shard.folder(self.whole)
        self.shard = shard
        self.all_suites = list(suites)
        self.suites = self.all_suites if shard is None else shard.part_of(self.all_suites)
        self.systems = dict(systems or {})
        self.seed = seed
        default = self.whole.parent / ".cache" / CACHE if cache is None else cache
        self.cache = Path(default).absolute() if shard is None else self.folder / CACHE
        self.isolated = isolated
        self.trial_seconds = trial_seconds
        self.allow_changed = allow_changed
        self.settings = dict(settings or {})
        self.progress = progress or Silent()
        self.executor = executor
        self._judged: dict[str, tuple[Any, JudgeFacts | str]] = {}  # judge → settings, facts
        self._locks = 0

    @property
    def name(self) -> str:
        """The name of its folder; that of the whole run for a shard."""
        return self.whole.name

    def convert(
        self,
        *,
        overwrite: bool = False,
        only: Sequence[str] | None = None,
        judges: Mapping[str, Judge | DeclaredJudge] | None = None,
    ) -> None:
        """Converts every trial by every system; finished conversions are kept.

        Args:
            overwrite: also convert again what is already converted.
            only: names of systems; None for all.
            judges: an executor other than this process scores by them meanwhile; `score` follows.

        Raises:
            UserError: if a system cannot be built, a recording cannot be used, or the folder has
                conversions by other settings or code.
        """
        systems = {n: s for n, s in self.systems.items() if only is None or n in only}
        if not systems and only is None:
            raise UserError("no system to run; name at least one: system=world")
        started = StartedSystems(
            systems,
            self.folder,
            isolated=self.isolated,
            trial_seconds=self.trial_seconds,
            rebuild=overwrite,
        )
        with self.locked(), self.executor.begun() if self.executor else nullcontext(), started:
            suites = self._checked_suites
            entries = started.entries()
            for entry in entries:
                if entry.facts.code is None and entry.facts.kind == SYSTEM:
                    self.progress.note(
                        f"{entry.name}: its code cannot be located; if you change it, add "
                        "overwrite=true",
                        caution=True,
                    )
            if self.executor is not None:
                started.close()
                self._judged |= self.executor.execute(
                    self, suites, entries, judges or {}, convert=True, overwrite=overwrite
                )
                return
            for entry in entries:
                self._convert(entry, suites, overwrite)

    def check(self, judges: Mapping[str, Judge | DeclaredJudge]) -> None:
        """Checks, before anything is converted, that the judges can judge these suites.

        Raises:
            UserError: if a judge has a name of `RESERVED`, or a suite is in a language that it
                cannot judge.
        """
        for name, judge in judges.items():
            if name in RESERVED:
                raise UserError(
                    f"judge {name!r}: the tables use this name themselves; call the judge otherwise"
                )
            declared = isinstance(judge, DeclaredJudge)
            languages = (
                judge.languages(name) if declared else getattr(judge, "languages", None)  # type: ignore[union-attr]
            )
            check_languages(name, languages, self.suites)

    def score(self, judges: Mapping[str, Judge | DeclaredJudge]) -> None:
        """Scores all conversions by each judge and writes the tables; builds no system.

        Args:
            judges: name → judge. A `DeclaredJudge` is built just before it scores; if its weights
                are missing, the tables say so.

        Raises:
            UserError: if a conversion is missing or is by other settings or code, or as `check`.
            JudgeError: if a judge fails.
        """
        self.check(judges)
        with self.locked():
            if self.shard is not None:
                take_conversions(self.whole, self.folder, self.systems, self.suites, self.seed)
            entries = recorded_entries(self.systems, self.folder)
            suites = self._suites
            rows = self._rows(entries, suites)
            if self.executor is not None:
                new = {n: j for n, j in judges.items() if self._judged.get(n, (None,))[0] != j}
                if new:
                    self._judged |= self.executor.execute(self, suites, entries, new)
            shard = {}
            hashes = wav_hashes(rows, self.folder)
            scored = self._scored(rows, judges)
            scored.add_exposure(entries, rows)
            recordings = {e.name: e.facts.has_source_words for e in entries if e.facts.role}
            if self.shard is not None:
                columns = write_columns(self.folder, rows, scored.columns)
                shard = {"shard": {"part": str(self.shard), "columns": columns}}
            write_run(
                self.folder,
                {
                    "name": self.name,
                    **provenance.describe(),
                    "systems": {
                        e.name: {
                            "settings": dict(e.settings),
                            "trained_on": sorted(e.facts.trained_on),
                            "networks": e.facts.networks_json,
                            "code": None if e.facts.code is None else dict(e.facts.code),
                        }
                        for e in entries
                    },
                    "anchors": {e.name: e.facts.role for e in entries if e.facts.role},
                    "suites": {suite.name: self._about(suite) for suite in suites},
                    "judges": scored.judges,
                    "metrics": definitions(scored.metrics),
                    "pooling": {name: metric.pooling for name, metric in METRICS.items()},
                    "settings": self.settings,
                    **shard,
                },
                score_table(rows, self.folder, hashes, scored.columns),
                lambda table: summarise(table, scored.measured, recordings),
            )
        self.__dict__.pop("scored", None)
        self.__dict__.pop("results", None)

    def score_ahead(self, name: str, judge: Judge) -> None:
        """Scores all conversions by one judge into the score cache; writes no table.

        A judge that scores several runs in turn processes each source and reference once.

        Args:
            name: of the judge.
            judge: the judge.

        Raises:
            UserError, JudgeError: as `score`.
        """
        with self.locked():
            entries = recorded_entries(self.systems, self.folder)
            rows = self._rows(entries, self._suites)
            self._columns(rows, name, judge, cache := self.open_cache())
            cache.close()

    @cached_property
    def scored(self) -> ScoredRun:
        """The tables and facts of the scored run, read from the folder.

        Raises:
            UserError: if it is not scored, or the folder is damaged.
        """
        return read_run(self.folder)

    @cached_property
    def results(self) -> ScoredRun:
        """The scored run with its trials, for reports.

        Raises:
            UserError: as `scored`; if a sound or the list of trials was changed.
        """
        return read_report(self.folder)

    @property
    def scores(self) -> pd.DataFrame:
        """One row per system × suite × trial: see `bench.results.ScoredRun.scores`."""
        return self.scored.scores

    @property
    def summary(self) -> pd.DataFrame:
        """Metrics pooled over trials: see `bench.results.ScoredRun.summary`."""
        return self.scored.summary

    def compare(
        self,
        baseline: str,
        candidate: str,
        *,
        by: str | Sequence[str] = (),
        metrics: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Compares two systems over the trials that both converted.

        Args:
            baseline: name of a system.
            candidate: name of another.
            by: factors to slice by, such as "gender_pair".
            metrics: keys of `METRICS`; None for all.

        Returns:
            One row per suite × slice × judge × metric: see `bench.stats.compare.compare`.

        Raises:
            UserError: if a system is unknown, and as `bench.stats.compare.compare`.
        """
        known = list(self.scores["system"].unique())
        for name in (baseline, candidate):
            if name not in known:
                raise UserError(f"no system {name!r} in {self.name}; {choose_one_of(name, known)}")
        sides = Side(baseline, self.scored, baseline), Side(candidate, self.scored, candidate)
        factors = [by] if isinstance(by, str) else list(by)
        return compare([sides], metrics, factors).table

    def report(self, form: str | Mapping[str, Any] = HTML) -> Path | None:
        """Writes a report.

        Args:
            form: dotted path or settings of a report's class; the HTML page by default.

        Returns:
            The report's main file; None where it is printed.
        """
        settings = {TARGET: form} if isinstance(form, str) else form
        return build(settings, "report").render(self.results)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the run's folder for this process.

        Raises:
            UserError: if another process has locked it.
        """
        if self._locks:  # already locked by an enclosing block
            yield
            return
        caution = partial(self.progress.note, caution=True)
        with locked_folder(self.folder, SHARDS, caution):
            self._locks += 1
            try:
                if self.shard is not None:
                    systems = {name: settings_of(s) for name, s in self.systems.items()}
                    write_shard(self.folder, self.shard, systems, self.all_suites, self.seed)
                yield
            finally:
                self._locks -= 1

    @cached_property
    def _suites(self) -> list[Suite]:
        if not self.suites:
            raise UserError("no suite to run; name at least one: suite=mini_cross_gender")
        suites = self.suites
        if self.allow_changed:
            suites = [suite.with_changed_recordings() for suite in suites]
        for suite in suites:
            if suite.changed:
                self.progress.note(
                    f"{suite.name}: {len(suite.changed)} recordings are not those that the "
                    f"manifest was made with, first {suite.changed[0]}; the report says so",
                    caution=True,
                )
        return suites

    @cached_property
    def _checked_suites(self) -> list[Suite]:
        checked: dict[Utterance, CheckedAudio] = {}  # suites share recordings
        cautions: dict[str, None] = {}
        for suite in self._suites:
            advance = self.progress.task("check", suite.name, len(suite.utterances))
            cautions |= dict.fromkeys(suite.check_audio(checked, advance))
        for caution in cautions:
            self.progress.note(caution, caution=True)
        return self._suites

    def _convert(self, entry: Entry, suites: Sequence[Suite], overwrite: bool) -> None:
        total = sum(len(suite.trials) for suite in suites)
        advance = self.progress.task("convert", entry.name, total)
        warm_ups = WarmUps()
        for suite in suites:
            conversions = convert_suite(
                entry,
                suite,
                self.folder,
                seed=self.seed,
                overwrite=overwrite,
                advance=lambda: advance(1),
                warm_ups=warm_ups,
            )
            for text in remarks_on(entry, suite, self.folder, list(conversions.values())):
                self.progress.note(text)
        if isinstance(entry.system, Isolated):
            entry.system.close()

    def _rows(self, entries: Sequence[Entry], suites: Sequence[Suite]) -> list[Row]:
        """Every system × suite × trial.

        Raises:
            UserError: if a conversion belongs to another trial or to other settings.
        """
        conversions = {}
        for entry in entries:
            settings = settings_fingerprint(entry, self.seed)
            for suite in suites:
                records = read_conversions(self.folder, entry.name, suite.name)
                for trial in suite.trials:
                    if (record := records.get(trial.trial_id)) is not None:
                        check_belongs(record, trial, settings, entry.name, suite.name, self.folder)
                conversions[entry.name, suite.name] = records
        return rows_of(entries, suites, conversions)

    def _scored(
        self, rows: Sequence[Row], judges: Mapping[str, Judge | DeclaredJudge]
    ) -> JudgedRows:
        scored = JudgedRows()
        cache = self.open_cache()
        for name, given in judges.items():
            declared = given if isinstance(given, DeclaredJudge) else None
            try:
                if self.executor is not None:
                    judge: Any = known_facts(self._judged[name][1])
                else:
                    judge = given if declared is None else declared.build(name)
            except WeightsMissing as error:
                assert declared is not None
                scored.add_unavailable(name, declared.measured(name, f"no weights: {error}"))
                self.progress.note(f"{name} cannot judge: {error}")
                continue
            scored.columns[name] = self._columns(rows, name, judge, cache)
            scored.add(name, judge, declared.settings if declared else settings_of(judge))
            del judge
        cache.close()
        return scored

    def open_cache(self) -> ScoreCache:
        """Opens the score cache."""
        return ScoreCache(self.cache, alone=self.shard is not None)

    def _columns(
        self, rows: Sequence[Row], name: str, judge: Judge, cache: ScoreCache
    ) -> list[Columns]:
        """One judge's columns of every row."""
        register_metrics_of(judge, name)
        advance = self.progress.task("score", name, len(rows))
        return score_rows(rows, name, judge, self.folder, cache, advance, remarks_of(self))

    def _about(self, suite: Suite) -> dict[str, Any]:
        """Stores the suite's trials in the folder and returns its description for run.json."""
        about: dict[str, Any] = {
            "sha256": suite.sha256,
            "trials": len(suite.trials),
            "list": store_trials(self.folder, suite),
        }
        return {**about, "changed": list(suite.changed)} if suite.changed else about
