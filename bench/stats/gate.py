"""Decides whether a candidate may replace a baseline, with reasons, for people and for CI."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS, Measure, Metric
from bench.stats.compare import FAILED, compare, margins_by_measure, measured_in
from bench.stats.sides import Side

PASS, REGRESSION, UNDECIDED = "pass", "regression", "undecided"
EXIT = {PASS: 0, REGRESSION: 1, UNDECIDED: 3}  # 2 is a mistake in the command
DEFAULT = Path(__file__).parents[1] / "conf" / "gate.yaml"


@dataclass(frozen=True)
class Rules:
    """The rules that a candidate must meet.

    Attributes:
        margins: metric or family → how much worse it may be, in the metric's unit or as "10%" of
            the baseline's value. A metric's margin applies to every judge that measures it. A
            family's margin applies to the leading metric of each judge that measures the family,
            and every such judge must pass. A metric's margin goes before its family's.
        failures: number of trials, converted by the baseline, that the candidate may fail on.
        min_trials: with fewer common trials the outcome is undecided.
        level: of the intervals, such as 0.95.
        by: factors of the trials; the trials of each value must pass too.
    """

    margins: Mapping[str, float | str]
    failures: int = 0
    min_trials: int = 8
    level: float = 0.95
    by: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path = DEFAULT) -> "Rules":
        """Reads the rules from a YAML file.

        Raises:
            UserError: names the key that is wrong.
        """
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"there are no margins at {path}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not YAML: {error}") from error
        if not isinstance(given, dict) or not isinstance(given.get("margins"), dict):
            raise UserError(
                f"{path} has no margins; write margins: {{similarity: 0.02, intelligibility: 2}}"
            )
        known = cls.__dataclass_fields__
        for key in given:
            if key not in known:
                raise UserError(f"{path}: unknown key {key!r}; {choose_one_of(str(key), known)}")
        directed = {n: m for n, m in METRICS.items() if m.higher_is_better is not None}
        possible = {m.family for m in directed.values()} - {""} | set(directed)
        for name in given["margins"]:
            if name not in possible:
                raise UserError(
                    f"{path}: {name!r} has no margin; {choose_one_of(str(name), possible)}"
                )
        for name, margin in given["margins"].items():
            if margin is None:
                raise UserError(f"{path}: the margin of {name} has no value; write {name}: 0.02")
        by = given.get("by") or ()
        if not isinstance(by, str | list | tuple) or not all(isinstance(f, str) for f in by):
            raise UserError(f"{path}: by is {by!r}; it must be a list of factors: [gender_pair]")
        rules = cls(**{**given, "by": (by,) if isinstance(by, str) else tuple(by)})
        for name, low, high in (("failures", 0, None), ("min_trials", 1, None), ("level", 0.5, 1)):
            value = getattr(rules, name)
            whole = name == "level" or type(value) is int
            if not whole or not isinstance(value, int | float) or isinstance(value, bool):
                raise UserError(f"{path}: {name} is {value!r}, which is no number of that kind")
            if value < low or (high is not None and not value < high):
                raise UserError(f"{path}: {name} is {value}; it must be at least {low}" + (
                    f" and below {high}" if high is not None else ""))  # fmt: skip
        return rules


@dataclass(frozen=True)
class Check:
    """One line of the decision.

    Attributes:
        name: suite, slice, metric and judge that were checked.
        outcome: `PASS`, `REGRESSION` or `UNDECIDED`.
        reason: why, with the numbers.
        suite: name of the suite.
        row: of the comparison; None for failures and for metrics that were not measured.
    """

    name: str
    outcome: str
    reason: str
    suite: str
    row: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Decision:
    """The gate's decision on one candidate.

    Attributes:
        baseline: label of the system that the candidate was compared with.
        candidate: label of the candidate.
        checks: every check, with its outcome.
        notes: what was left out and why.
    """

    baseline: str
    candidate: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def outcome(self) -> str:
        """REGRESSION if any check regressed, else UNDECIDED if any is undecided, else PASS."""
        return _worst(check.outcome for check in self.checks)

    @property
    def sentence(self) -> str:
        """The decision in words."""
        counts = {o: sum(c.outcome == o for c in self.checks) for o in EXIT}
        sentence = {
            PASS: f"{self.candidate} may replace {self.baseline}",
            REGRESSION: f"{self.candidate} is worse than {self.baseline}",
            UNDECIDED: f"whether {self.candidate} may replace {self.baseline} could not be decided",
        }[self.outcome]
        return (
            f"{sentence} ({counts[PASS]} passed, {counts[REGRESSION]} worse, "
            f"{counts[UNDECIDED]} undecided)."
        )


def decide(baseline: Side, candidate: Side, rules: Rules) -> Decision:
    """Decides whether a candidate may replace a baseline.

    A metric passes if its whole interval is within the margin. It is a regression if it does not
    pass and the whole interval is worse than the baseline. Otherwise the suite is too small a test.
    The number of metrics needs no correction, since a candidate must pass every one of them (an
    intersection-union test, Berger 1982).

    Raises:
        UserError: if the runs are not comparable (see `bench.stats.sides.check_comparable`).
    """
    margins = rules.margins
    metrics = [n for n, m in METRICS.items() if n in margins or m.family in margins]
    differences = compare([(baseline, candidate)], metrics, rules.by, margins, rules.level)
    checks, notes = [], [*differences.notes]
    for suite, rows in differences.table.groupby("suite", sort=False):
        checks.append(_failures(baseline, candidate, str(suite), rules.failures))
        pairs = list(rows[["judge", "metric"]].drop_duplicates().itertuples(index=False, name=None))
        margin_names = margins_by_measure(baseline, pairs, margins)
        applied = 0
        for name in margins:
            of_margin = [pair for pair, margin in margin_names.items() if margin == name]
            for row in rows.to_dict("records"):
                if (row["judge"], row["metric"]) in of_margin:
                    checks.append(_check(row, METRICS[row["metric"]], rules))
            missing = _not_compared(baseline, candidate, str(suite), name, rules, of_margin)
            checks += missing
            applied += len(of_margin) + len(missing)
            if not of_margin and not missing:
                notes.append(f"{name} over {suite}: no judge of either run measures it.")
        if not applied:
            reason = f"nothing that has a margin was measured ({', '.join(margins) or 'none'})"
            checks.append(Check(f"{suite} · margins", UNDECIDED, reason, str(suite)))
    for suite in baseline.run.facts["suites"]:
        if suite not in candidate.run.facts["suites"]:
            reason = f"{candidate.label} was not run over it, {baseline.label} was"
            checks.append(Check(suite, UNDECIDED, reason, suite))
    return Decision(baseline.label, candidate.label, tuple(checks), tuple(notes))


def decide_all(pairs: Sequence[tuple[Side, Side]], rules: Rules) -> list[Decision]:
    """A decision for each pair."""
    return [decide(baseline, candidate, rules) for baseline, candidate in pairs]


def outcome(decisions: Sequence[Decision]) -> str:
    """The worst outcome of several decisions."""
    return _worst(decision.outcome for decision in decisions)


def junit(decisions: Sequence[Decision]) -> str:
    """JUnit XML: a test case for each check; regressions are failures, undecided ones errors."""
    root = ElementTree.Element("testsuites", name="vcbench gate")
    for decision in decisions:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{decision.candidate} against {decision.baseline}",
            tests=str(len(decision.checks)),
            failures=str(sum(c.outcome == REGRESSION for c in decision.checks)),
            errors=str(sum(c.outcome == UNDECIDED for c in decision.checks)),
        )
        for check in decision.checks:
            case = ElementTree.SubElement(
                suite, "testcase", classname=_printable(check.suite), name=_printable(check.name)
            )
            if check.outcome != PASS:
                kind = "failure" if check.outcome == REGRESSION else "error"
                mark = ElementTree.SubElement(case, kind, message=_printable(check.reason))
                mark.set("type", check.outcome)
            else:
                ElementTree.SubElement(case, "system-out").text = _printable(check.reason)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _worst(outcomes: Iterable[str]) -> str:
    given = set(outcomes)
    return next((o for o in (REGRESSION, UNDECIDED) if o in given), PASS)


def _failures(baseline: Side, candidate: Side, suite: str, allowed: int) -> Check:
    """Checks that the candidate fails on no more new trials than allowed."""
    before = baseline.rows(suite)["status"]
    before, after = before.align(candidate.rows(suite)["status"], join="inner")
    lost = before.index[(before == "ok") & (after == "failed")]
    name = f"{suite} · {FAILED}"
    both = f"{(before == 'failed').sum()} and {(after == 'failed').sum()} of {len(before)} failed"
    if len(lost) <= allowed:
        return Check(name, PASS, f"{both}; {len(lost)} new, {allowed} allowed", suite)
    reason = (
        f"{both}; {len(lost)} that {baseline.label} converted, {allowed} allowed, first {lost[0]}: "
        "what failed is not in the other numbers"
    )
    return Check(name, UNDECIDED, reason, suite)


def _not_compared(
    baseline: Side,
    candidate: Side,
    suite: str,
    name: str,
    rules: Rules,
    compared: Sequence[Measure],
) -> list[Check]:
    """A check for each measure that a margin applies to and that could not be compared.

    Args:
        baseline: the system that the candidate is compared with.
        candidate: the candidate.
        suite: name of the suite.
        name: of the margin: a metric or a family.
        rules: the rules that have the margin.
        compared: the measures that the margin was applied to.
    """

    def measured(side: Side) -> list[Measure]:
        pairs = margins_by_measure(side, measured_in([side.rows(suite)]), rules.margins)
        return [pair for pair, margin in pairs.items() if margin == name]

    def undecided(what: str, reason: str) -> Check:
        return Check(f"{suite} · {what}", UNDECIDED, reason, suite)

    if name in METRICS:
        reason = "measured in only one of the runs, or in neither"
        return [] if compared else [undecided(name, reason)]
    judges = {judge for judge, _ in compared}
    reason = f"{baseline.label} has it, {candidate.label} has nothing to compare with it"
    checks = [
        undecided(f"{metric} · {judge}", reason)
        for judge, metric in measured(baseline)
        if judge not in judges
    ]
    if not compared and not checks:
        if measured(candidate):
            checks.append(undecided(name, f"measured for {candidate.label} alone"))
        elif name in _families(baseline) | _families(candidate):
            checks.append(undecided(name, "its judge measured nothing in either run"))
    return checks


def _families(side: Side) -> set[str]:
    """The families that the judges of a run were set to measure, even if they could not."""
    judges = side.run.facts.get("judges", {}).values()
    names = [name for facts in judges for name in facts.get("metrics") or ()]
    return {METRICS[name].family for name in names if name in METRICS}


def _check(row: Mapping[str, Any], metric: Metric, rules: Rules) -> Check:
    """Checks one metric in one slice against its margin."""
    sign = -1 if metric.higher_is_better else 1  # worsening is positive
    worse, margin = sign * row["effect"], row["margin"]
    low, high = sorted((sign * row["low"], sign * row["high"]))
    name = " · ".join(
        part for part in (row["suite"], row["slice"], row["metric"], row["judge"]) if part
    )
    unit = f" {metric.unit}" if metric.unit else ""
    numbers = (
        f"{row['baseline_value']:.4g} → {row['candidate_value']:.4g}{unit}, worse by {worse:+.3g}"
        + (f" [{low:+.3g}, {high:+.3g}]" if low <= high else "")
        + f", margin {margin:.3g}, n={row['n']}"
    )

    def check(outcome: str, why: str) -> Check:
        return Check(name, outcome, f"{numbers}: {why}", row["suite"], row)

    if row["n"] < rules.min_trials:
        return check(UNDECIDED, f"fewer than {rules.min_trials} trials that both completed")
    if not low <= high:  # NaN
        return check(UNDECIDED, "too few speakers for an interval")
    if high < margin:
        return check(PASS, "worse, but by less than the margin" if low > 0 else "within the margin")
    if low > 0:
        return check(REGRESSION, "worse beyond doubt, and perhaps by more than the margin")
    needed = row["n"] * (row["detectable"] / margin) ** 2
    return check(
        UNDECIDED,
        f"too small a test: it can see {row['detectable']:.3g}; the margin asks for about "
        f"{max(needed, row['n'] + 1):.0f} trials, with speakers in proportion",
    )


def _printable(text: str) -> str:
    """The text without characters that XML does not allow."""
    return "".join(c for c in text if c >= " " or c in "\t\n")
