"""The result of a run in sentences: the first paragraph of every report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from bench.metrics import INTELLIGIBILITY, METRICS, SIMILARITY, SPEED, Measure, leading
from bench.results import ScoredRun
from bench.stats.pooling import TIMING, measures_of
from bench.validity.kinship import Kinship, kinships
from reports.kinship import DAGGER, cases
from reports.tables import interval, kinship_notes, number, systems_of

REACHED = (SIMILARITY, INTELLIGIBILITY, SPEED)  # families whose leading metrics are named
MOST_SENTENCES = 6  # about single systems


@dataclass(frozen=True)
class Headline:
    """The result of a run in sentences.

    Attributes:
        run: systems, trials, date and machine.
        preset: the publication whose judges the run uses, with every deviation; "" for none.
        failures: the failed conversions, or that there are none.
        any_failed: whether a conversion failed.
        reached: the leading metrics of each system in each suite, by judges that are kin to no
            system of the run if there are such judges.
        kinship: which judges are kin to which systems, and which were left out for it; "" for none.
    """

    run: str
    preset: str
    failures: str
    any_failed: bool
    reached: tuple[str, ...]
    kinship: str = ""

    @property
    def sentences(self) -> list[str]:
        """All sentences, in order."""
        return [s for s in (self.run, self.preset, self.failures, *self.reached, self.kinship) if s]


def headline(results: ScoredRun) -> Headline:
    """Summarises a run in sentences."""
    return Headline(
        run=_run(results),
        preset=preset_of(results),
        failures=_failures(results),
        any_failed=bool((results.scores["status"] == "failed").any()),
        reached=tuple(_reached_by_all(results)),
        kinship=_kinship(results),
    )


def preset_of(results: ScoredRun) -> str:
    """The publication whose judges a run uses, and every deviation from it; "" for none."""
    preset = results.facts.get("settings", {}).get("preset") or {}
    if not preset.get("publication"):
        return ""
    deviations = preset.get("deviations", [])
    listed = " ".join(f"({n}) {deviation}" for n, deviation in enumerate(deviations, 1))
    deviates = f" It deviates: {listed}" if listed else ""
    return f"Preset {preset['name']}, after {preset['publication']}.{deviates}"


def _run(results: ScoredRun) -> str:
    systems = [s for s in systems_of(results) if s not in results.anchors]
    trials = {name: len(suite.trials) for name, suite in results.suites.items()}
    each = _listed([f"{n} in {name}" for name, n in trials.items()])
    anchors = f", beside the recordings {_listed(list(results.anchors))}" if results.anchors else ""
    text = (
        f"{_listed(systems) or 'No system'} {'was' if len(systems) < 2 else 'were'} given "
        f"{sum(trials.values())} trials ({each}){anchors}."
    )
    processor = results.facts.get("machine", {}).get("processor")
    gpus = results.facts.get("machine", {}).get("gpus")
    hardware = _listed(list(gpus)) if gpus else processor
    created = results.facts.get("created")
    if created:
        text += f" Finished {_date(str(created))}" + (f" on {hardware}." if hardware else ".")
    return text


def _failures(results: ScoredRun) -> str:
    scores = results.scores
    counts = scores.loc[scores["status"] == "failed", "system"].value_counts(sort=False)
    asked = scores["system"].value_counts()
    failed = [f"{system}: {n} of {asked[system]}" for system, n in counts.items()]
    text = (
        f"Conversions that failed: {_listed(failed)}. They count in no mean, so compare means with "
        "the failures in mind."
        if failed
        else "No conversion failed."
    )
    absent = scores.loc[scores["status"] == "absent", "system"].value_counts(sort=False)
    if len(absent):
        each = _listed([f"{system} for {n} trials" for system, n in absent.items()])
        text += f" The corpus has no recording that could serve as {each}."
    return text


def _reached_by_all(results: ScoredRun) -> list[str]:
    """A sentence for each system in each suite; if those are many, one for each suite."""
    systems = [s for s in systems_of(results) if s not in results.anchors]
    many = len(systems) * len(results.suites) > MOST_SENTENCES
    sentences = []
    kin = kinships(results.facts)
    for suite in results.suites:
        summary = results.summary.query("suite == @suite and n > 0")
        rows = summary[summary["system"].isin(systems)].set_index("system")
        measures = leading(measures_of(summary[summary["system"].isin(systems)]), REACHED)
        measures = without_kin(measures, results)
        for name in [suite] if many else [s for s in systems if s in rows.index]:
            parts = []
            for measure in measures:
                judge, metric = measure
                of_measure = rows[(rows["judge"] == judge) & (rows["metric"] == metric)]
                anchors = _anchors(results, summary, measure)
                if many:
                    parts.append(_range(of_measure, anchors, kin))
                elif name in of_measure.index:
                    mark = DAGGER if (name, judge) in kin else ""
                    parts.append(_reached(of_measure.loc[name], anchors, mark))
            if parts:
                sentences.append(f"{suite if many else f'{suite}, {name}'}: {' '.join(parts)}")
    return sentences


def without_kin(measures: Sequence[Measure], results: ScoredRun) -> list[Measure]:
    """The measures whose judge is kin to no system of the run; of a family without any, all."""
    related = {judge for _, judge in kinships(results.facts)}
    unrelated = {METRICS[metric].family for judge, metric in measures if judge not in related}
    return [
        (judge, metric)
        for judge, metric in measures
        if judge not in related or METRICS[metric].family not in unrelated
    ]


def _kinship(results: ScoredRun) -> str:
    """The kinships of the judges that a headline names or leaves out, in a sentence."""
    kin = kinships(results.facts)
    systems = [s for s in systems_of(results) if s not in results.anchors]
    rows = results.summary[results.summary["system"].isin(systems)]
    measures = leading(measures_of(rows), REACHED)
    kept = {judge for judge, _ in without_kin(measures, results)}
    judges = list(dict.fromkeys(judge for judge, _ in measures))
    sentences = kinship_notes(kin, results, systems, [j for j in judges if j in kept])
    left_out = [j for j in judges if j not in kept]
    if pairs := [(s, j) for s in systems for j in left_out if (s, j) in kin]:
        sentences.append(f"Left out above is a judge that is kin to a system: {cases(kin, pairs)}.")
    return " ".join(sentences)


def _anchors(results: ScoredRun, summary: pd.DataFrame, measure: Measure) -> dict[str, float]:
    """The judge's values of the floor and the ceiling, if they have one."""
    judge, metric = measure
    same = summary[(summary["judge"] == judge) & (summary["metric"] == metric)]
    values = same.set_index("system")["value"]
    return {role: values[system] for system, role in results.anchors.items() if system in values}


def _reached(row: pd.Series, anchors: dict[str, float], mark: str) -> str:
    """One metric of one system, compared with floor and ceiling if they have it.

    Args:
        row: of the summary.
        anchors: see `_anchors`.
        mark: behind the value.
    """
    metric, value = row["metric"], row["value"]
    m = METRICS[metric]
    text = f"{m.label} {_with_unit(metric, value, mark)}"
    if bounds := interval(metric, row["low"], row["high"]):
        text += f" {bounds}"
    if row["judge"] == TIMING:
        return f"{text}."
    floor, ceiling = anchors.get("floor"), anchors.get("ceiling")
    text += f" by {row['judge']}"
    if floor is not None and ceiling is not None and m.higher_is_better and ceiling > floor:
        return (
            f"{text}, {(value - floor) / (ceiling - floor):.0%} of the way from the unconverted "
            f"source ({number(metric, floor)}) to the target's own speech "
            f"({number(metric, ceiling)})."
        )
    return text + _of_anchors(metric, anchors)


def _range(
    rows: pd.DataFrame, anchors: dict[str, float], kin: Mapping[tuple[str, str], Kinship]
) -> str:
    """One metric of many systems."""
    metric, judge = rows["metric"].iloc[0], rows["judge"].iloc[0]
    values = rows["value"]
    ends = [
        f"{_with_unit(metric, values[s], DAGGER if (s, judge) in kin else '')} ({s})"
        for s in (values.idxmin(), values.idxmax())
    ]
    text = f"{METRICS[metric].label} from {ends[0]} to {ends[1]}"
    return f"{text}." if judge == TIMING else f"{text} by {judge}{_of_anchors(metric, anchors)}"


def _of_anchors(metric: str, anchors: dict[str, float]) -> str:
    names = {"floor": "the unconverted source has", "ceiling": "the target's own speech has"}
    parts = [f"{names[r]} {_with_unit(metric, v)}" for r, v in anchors.items() if r in names]
    return f"; {_listed(parts)}." if parts else "."


def _with_unit(metric: str, value: float, mark: str = "") -> str:
    unit = METRICS[metric].unit
    return (
        f"{number(metric, value)}{mark}\u00a0{unit}" if unit else f"{number(metric, value)}{mark}"
    )


def _listed(parts: list[str]) -> str:
    return (
        parts[0]
        if len(parts) == 1
        else ", ".join(parts[:-1]) + " and " + parts[-1]
        if parts
        else ""
    )


def _date(created: str) -> str:
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return created
