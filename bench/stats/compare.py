"""Is one system better than another? Asked over the trials that both completed, in pairs."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS, Measure, Metric, held_to
from bench.run.folder import read_run
from bench.run.results import timed_on
from bench.stats.crossed import LEVEL, Crossed, Estimate
from bench.stats.pooling import TIMING, judge_table, measures_in

FAILED = "failed"  # a metric of every comparison: the share of trials that could not be converted
CONVERSION = "conversion"  # stands for the judge in its rows
DURATION = "duration"  # a factor that every suite has: of the baseline's output
DURATION_SECONDS = (4, 8)
SAME = "the same in every trial"
POWER = 0.8  # of the smallest effect that is called detectable


@dataclass(frozen=True)
class Run:
    """A scored run, as far as comparing needs it: its folder may have come without its sounds.

    Attributes:
        name: of the run.
        folder: where it lies.
        scores: see `bench.run.results.Results.scores`.
        facts: what run.json says.
    """

    name: str
    folder: Path
    scores: pd.DataFrame
    facts: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """The run in `folder`.

        Raises:
            UserError: if it holds none that is scored, or one that is damaged.
        """
        run = read_run(folder)
        return cls(folder.name, folder, run.scores, run.facts)

    @property
    def systems(self) -> list[str]:
        """Its systems without the recordings that mark floor and ceiling."""
        return [s for s in self.scores["system"].unique() if s not in self.facts["anchors"]]


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: a system of a run.

    Attributes:
        label: what it is called here.
        run: where it was scored.
        system: its name there.
    """

    label: str
    run: Run
    system: str


@dataclass(frozen=True)
class Differences:
    """What a comparison found.

    Attributes:
        table: one row per pair × suite × slice × judge × metric, see `compare`.
        notes: what was left out and why.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = field(default_factory=tuple)


def sides(operands: Sequence[tuple[Run, str | None]]) -> list[tuple[Side, Side]]:
    """The pairs to compare: each later operand with the first.

    Args:
        operands: runs, each with the system meant or None for all. One run without a system is
            compared within itself: each of its systems with its first.

    Raises:
        UserError: if nothing tells which systems belong together.
    """
    if len(operands) == 1:
        run, system = operands[0]
        if system is not None or len(run.systems) < 2:
            raise UserError(
                f"nothing to compare {run.name} with; name a second run, or a system: "
                f"{run.folder}:{run.systems[0] if run.systems else 'SYSTEM'}"
            )
        first, *others = run.systems
        return [(Side(first, run, first), Side(other, run, other)) for other in others]
    pairs = []
    (base, base_system), *rest = operands
    for run, system in rest:
        for a, b in _matched(base, base_system, run, system):
            pairs.append((_side(base, a, run, b), _side(run, b, base, a)))
    return pairs


def check_comparable(a: Run, b: Run) -> list[str]:
    """What cannot be compared between the runs, in words; the rest can.

    Raises:
        UserError: names the field that differs, where the same name stands for different judges,
            suites or poolings: such numbers are on different scales.
    """

    def field_of(run: Run, *path: str) -> Any:
        value: Any = run.facts
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def refuse(*path: str) -> None:
        mine, theirs = field_of(a, *path), field_of(b, *path)
        if mine is not None and theirs is not None and mine != theirs:
            raise UserError(
                f"{a.folder} and {b.folder} differ in {'.'.join(path)} ({brief(mine)} against "
                f"{brief(theirs)}): their numbers cannot be compared; make one of them again"
            )

    notes = []
    for kind, keys in (("suites", ("sha256", "trials")), ("judges", ("fingerprint",))):
        mine, theirs = field_of(a, kind) or {}, field_of(b, kind) or {}
        for name in [n for n in mine if n in theirs]:
            for key in keys:
                refuse(kind, name, key)
        if not set(mine) & set(theirs):
            raise UserError(
                f"{a.folder} and {b.folder} have no {kind} in common "
                f"({', '.join(mine) or 'none'} against {', '.join(theirs) or 'none'})"
            )
        for name in sorted(set(mine) ^ set(theirs)):
            notes.append(f"{name} stands in only one of the runs and is left out.")
    for metric in field_of(a, "pooling") or {}:
        refuse("pooling", metric)
    return notes


def other_machines(baseline: Side, candidate: Side, suite: str) -> str:
    """Why their times cannot be compared: the first two machines that differ, in words.

    "" where every trial of the suite was timed on one machine by both.
    """
    before, after = (timed_on(rows_of(s, suite), s.run.facts) for s in (baseline, candidate))
    trials = before.index.intersection(after.index, sort=False)
    pairs = zip(before[trials], after[trials], strict=True)
    return next((f"{a} against {b}" for a, b in pairs if a != b), "")


def compare(
    pairs: Sequence[tuple[Side, Side]],
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = (),
    margins: Mapping[str, float | str] | None = None,
    level: float = LEVEL,
) -> Differences:
    """Every metric of every pair, over the trials of each suite that both completed.

    Args:
        pairs: (baseline, candidate).
        metrics: keys of METRICS; None for all that both have.
        by: factors of the trials to slice by, each on its own, beside the whole; or `DURATION`.
        margins: metric or family → the smallest difference that matters, in the metric's unit or as
            "10%" of the baseline's value: tells "no difference" from "too small a test". See
            `held_by`.
        level: of intervals and tests.

    Returns:
        One row per pair × suite × slice × judge × metric with the columns: baseline, candidate,
        suite, slice ("" for all trials, else "factor=value"), judge, metric, baseline_value,
        candidate_value (both over the common trials), effect (candidate less baseline), low, high,
        p, q (p after Benjamini and Hochberg 1995 over all rows), detectable (the smallest true
        effect that a test like this finds with 80% power), n (common trials),
        baseline_failed, candidate_failed (trials, of the slice), margin (NaN where none), verdict.

    Raises:
        UserError: as `check_comparable`, and where nothing remains.
    """
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for baseline, candidate in pairs:
        if baseline.run is not candidate.run:
            notes |= dict.fromkeys(check_comparable(baseline.run, candidate.run))
        suites = set(baseline.run.facts["suites"]) & set(candidate.run.facts["suites"])
        for suite in [s for s in baseline.run.facts["suites"] if s in suites]:
            elsewhere = other_machines(baseline, candidate, suite)
            if elsewhere and (metrics is None or "rtf" in metrics):
                said = f"RTF over {suite} is left out: it was measured on other machines"
                notes[f"{said} ({elsewhere})."] = None
            own = (baseline, candidate, suite, metrics, not elsewhere)
            rows += _compared(*own, by, margins or {}, level)
    if not rows:
        raise UserError("nothing to compare: the runs have no metric in common that was measured")
    table = pd.DataFrame(rows)
    table["q"] = benjamini_hochberg(table["p"].to_numpy(float))
    table["verdict"] = [_verdict(row, level) for _, row in table.iterrows()]
    return Differences(table, tuple(notes))


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjusted p of each test (Benjamini and Hochberg 1995); NaN stays NaN and counts as no test.

    Calling those below 0.05 real lets at most 5% of what is called real be false.
    """
    adjusted = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted


def detectable(estimate: Estimate, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true effect that a test with this standard error finds with this power."""
    if not np.isfinite(estimate.se):
        return float("nan")
    quantiles = stats.t.ppf([(1 + level) / 2, power], estimate.df)
    return float(quantiles.sum() * estimate.se)


def _side(run: Run, system: str, other: Run, other_system: str) -> Side:
    if run.folder == other.folder:
        return Side(system, run, system)
    return Side(run.name if system == other_system else f"{run.name}:{system}", run, system)


def _matched(a: Run, of_a: str | None, b: Run, of_b: str | None) -> list[tuple[str, str]]:
    """Systems that belong together: of the same name, or each the only one."""
    for run, system in ((a, of_a), (b, of_b)):
        known = list(run.scores["system"].unique())
        if system is not None and system not in known:
            raise UserError(
                f"{run.folder} has no system {system!r}; {choose_one_of(system, known)}"
            )
    mine = [of_a] if of_a else a.systems
    theirs = [of_b] if of_b else b.systems
    if a.folder == b.folder and of_a is None and of_b is None:
        raise UserError(f"{a.folder} is named twice; name the systems: {a.folder}:SYSTEM")
    if of_a and of_b:
        return [(of_a, of_b)]
    if common := [system for system in mine if system in theirs]:
        return [(system, system) for system in common]
    if len(mine) == len(theirs) == 1:
        return [(mine[0], theirs[0])]
    raise UserError(
        f"{a.folder} has {', '.join(mine) or 'no system'}, {b.folder} has "
        f"{', '.join(theirs) or 'no system'}; "
        f"say which are meant: {a.folder}:SYSTEM {b.folder}:SYSTEM"
    )


def rows_of(side: Side, suite: str) -> pd.DataFrame:
    """The rows of one side over one suite, by trial id."""
    scores = side.run.scores
    own = scores[(scores["suite"] == suite) & (scores["system"] == side.system)]
    return own.set_index("trial_id")


def shared_measures(
    tables: Sequence[pd.DataFrame], metrics: Sequence[str] | None, timing: bool
) -> list[Measure]:
    """(judge, metric) that every table has columns for."""
    shared = set.intersection(*(set(map(str, t.columns)) for t in tables))
    return [
        (judge, metric)
        for judge, metric in measures_in(c for c in tables[0].columns if c in shared)
        if (timing or judge != TIMING) and (metrics is None or metric in metrics)
    ]


def measured_in(tables: Sequence[pd.DataFrame]) -> list[Measure]:
    """(judge, metric) that some trial has a value of in every table, and the share of failures.

    Args:
        tables: score tables of one system and suite each, by trial id.
    """
    found = []
    for judge, metric in shared_measures(tables, None, timing=True):
        terms = [METRICS[metric].terms(judge_table(table, judge)) for table in tables]
        if set.intersection(*(set(t.index) for t in terms)):
            found.append((judge, metric))
    return [*found, (CONVERSION, FAILED)]


def held_by(side: Side, measures: Sequence[Measure], margins: Container[str]) -> dict[Measure, str]:
    """Which margin holds for which measure of a system: see `bench.metrics.held_to`.

    A family's margin is for the metrics that the judges were set to measure. Other counts that they
    keep (a recogniser keeps those of every normalisation) do not lead.
    """
    judges = side.run.facts.get("judges", {})
    named = {judge: facts["metrics"] for judge, facts in judges.items() if facts.get("metrics")}
    reported = [(j, m) for j, m in measures if j not in named or m in named[j]]
    by_key = {pair: pair[1] for pair in measures if pair[1] in margins}
    return held_to(margins, reported) | by_key


def _compared(
    baseline: Side,
    candidate: Side,
    suite: str,
    metrics: Sequence[str] | None,
    timing: bool,
    by: Sequence[str],
    margins: Mapping[str, float | str],
    level: float,
) -> list[dict[str, Any]]:
    """Rows of one suite; without times, if `timing` is false."""
    a, b = rows_of(baseline, suite), rows_of(candidate, suite)
    trials = a.index.intersection(b.index, sort=False)
    a, b = a.loc[trials], b.loc[trials]
    measures = shared_measures([a, b], metrics, timing)
    # A failure of either leaves the trial out of every metric, and shows in the metric of failures.
    columns = []
    for judge, name in measures:
        terms = [METRICS[name].terms(judge_table(t, judge)).reindex(trials) for t in (a, b)]
        columns.append((judge, name, METRICS[name], *(t.to_numpy(float) for t in terms)))
    asked = (a["status"] != "absent") & (b["status"] != "absent")
    failures = []
    for table in (a, b):
        failed = np.where(asked, 100.0 * (table["status"] == "failed"), np.nan)
        failures.append(np.column_stack([failed, np.where(asked, 1.0, np.nan)]))
    columns.append((CONVERSION, FAILED, METRICS[FAILED], *failures))
    held = held_by(baseline, measured_in([a, b]), margins) if margins else {}
    rows = []
    for label, chosen in _slices(a, by):
        if not chosen.any():
            continue
        crossed = Crossed(a["source_speaker"][chosen], a["target_speaker"][chosen])
        both = np.stack([np.stack([x[chosen], y[chosen]]) for *_, x, y in columns])
        both = np.where(np.isnan(both).any(axis=(1, 3))[:, None, :, None], np.nan, both)
        flat = both.reshape(-1, *both.shape[2:]).transpose(1, 0, 2)  # (N, 2 × measures, 2)
        contrast = np.kron(np.eye(len(columns)), [-1.0, 1.0])
        estimates = crossed.contrasts(flat[:, :, 0], flat[:, :, 1], contrast)
        for k, (judge, name, metric, *_) in enumerate(columns):
            estimate = estimates[k]
            if estimate.n == 0 and name != FAILED:
                continue
            values = np.nansum(both[k], axis=1)
            value = [float(v[0] / v[1]) if v[1] > 0 else np.nan for v in values]
            low, high = estimate.interval(level)
            same = estimate.se == 0 and estimate.value == 0  # nothing is asked: this is no test
            rows.append(
                {
                    "baseline": baseline.label,
                    "candidate": candidate.label,
                    "suite": suite,
                    "slice": label,
                    "judge": judge,
                    "metric": name,
                    "baseline_value": value[0],
                    "candidate_value": value[1],
                    "effect": estimate.value,
                    "low": low,
                    "high": high,
                    "p": np.nan if same else estimate.p_of_no_difference(),
                    "detectable": detectable(estimate, level),
                    "n": estimate.n,
                    "baseline_failed": int((a["status"][chosen] == "failed").sum()),
                    "candidate_failed": int((b["status"][chosen] == "failed").sum()),
                    "margin": margin_of(margins.get(held.get((judge, name), "")), value[0], metric),
                }
            )
    return rows


def margin_of(margin: float | str | None, baseline: float, metric: Metric) -> float:
    """A margin in the metric's unit; NaN where there is none.

    Raises:
        UserError: if it is neither a positive number nor a percentage such as "10%".
    """
    if margin is None:
        return float("nan")
    text = str(margin)
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not (number > 0 and np.isfinite(number)) or isinstance(margin, bool):
        raise UserError(
            f"the margin of {metric.label} is {margin!r}; give a positive number in its unit"
            f"{' (' + metric.unit + ')' if metric.unit else ''}, or a share of the baseline: 10%"
        )
    return abs(baseline) * number / 100 if text.endswith("%") else number


def _slices(table: pd.DataFrame, by: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    found = [("", np.ones(len(table), bool))]
    for factor in by:
        values = _values(table, factor)
        found += [(f"{factor}={v}", (values == v).to_numpy()) for v in sorted(set(values) - {""})]
    return found


def _values(table: pd.DataFrame, factor: str) -> pd.Series:
    """The factor's value of each trial, "" where it has none.

    Raises:
        UserError: if there is no such factor.
    """
    if f"factor.{factor}" in table:
        return table[f"factor.{factor}"].fillna("")
    if factor == DURATION:
        seconds = table["audio_seconds"]
        bins = np.digitize(seconds, DURATION_SECONDS)
        low, high = DURATION_SECONDS
        names = np.array([f"under {low} s", f"{low} to {high} s", f"{high} s and more"])
        return pd.Series(np.where(seconds.notna(), names[bins], ""), table.index)
    known = [c.removeprefix("factor.") for c in table.columns if c.startswith("factor.")]
    raise UserError(
        f"no factor {factor!r} to slice by; {choose_one_of(factor, [*known, DURATION])}"
    )


def _verdict(row: pd.Series, level: float) -> str:
    """What may be said of a row, in words."""
    metric = METRICS[str(row["metric"])]
    if np.isnan(row["p"]):
        return SAME if row["low"] == row["high"] else "too few speakers"
    if row["q"] < 1 - level and row["effect"] != 0:
        if metric.higher_is_better is None:
            return "different"
        better = (row["effect"] > 0) == metric.higher_is_better
        word = "better" if better else "worse"
        ours, theirs = row["candidate_failed"], row["baseline_failed"]
        if row["metric"] != FAILED and (ours > theirs if better else theirs > ours):
            return f"{word} where both converted"  # the one that looks better failed more often
        return word
    if np.isnan(row["margin"]):
        return "not told apart"
    within = -row["margin"] < row["low"] and row["high"] < row["margin"]
    return "no difference that matters" if within else "too small a test"


def brief(value: Any) -> str:
    """The value in an error: the beginning of a long one."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
