"""What a run found, in plain words: the first paragraph of every report."""

from datetime import datetime

import pandas as pd

from bench.metrics import METRICS
from bench.results import Results
from reports.tables import interval, number, systems_of

TOLD = ("secs", "wer", "rtf")


def headline(results: Results) -> list[str]:
    """Sentences: what was run, what failed, what each system reached in each suite."""
    return [_what_was_run(results), _what_failed(results), *_what_was_reached(results)]


def _what_was_run(results: Results) -> str:
    systems = [s for s in systems_of(results) if s not in results.anchors]
    trials = {name: len(suite.trials) for name, suite in results.suites.items()}
    each = _listed([f"{n} in {name}" for name, n in trials.items()])
    anchors = f", beside the recordings {_listed(list(results.anchors))}" if results.anchors else ""
    text = (
        f"{_listed(systems) or 'No system'} {'was' if len(systems) == 1 else 'were'} given "
        f"{sum(trials.values())} trials ({each}){anchors}."
    )
    processor = results.provenance.get("machine", {}).get("processor")
    gpus = results.provenance.get("machine", {}).get("gpus")
    hardware = _listed(list(gpus)) if gpus else processor
    created = results.provenance.get("created")
    if created:
        text += f" Finished {_date(str(created))}" + (f" on {hardware}." if hardware else ".")
    return text


def _what_failed(results: Results) -> str:
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


def _what_was_reached(results: Results) -> list[str]:
    sentences = []
    for suite in results.suites:
        summary = results.summary[results.summary["suite"] == suite]
        for system in [s for s in systems_of(results, suite) if s not in results.anchors]:
            told = []
            for metric in TOLD:
                rows = summary[(summary["metric"] == metric) & (summary["system"] == system)]
                told += [_reached(results, summary, row) for _, row in rows.iterrows() if row["n"]]
            if told:
                sentences.append(f"{suite}, {system}: {' '.join(told)}")
    return sentences


def _reached(results: Results, summary: pd.DataFrame, row: pd.Series) -> str:
    """One metric of one system, between floor and ceiling where they have it too."""
    metric, judge, value = row["metric"], row["judge"], row["value"]
    m = METRICS[metric]
    unit = f" {m.unit}" if m.unit else ""
    text = f"{m.label} {number(metric, value)}{unit}"
    if bounds := interval(metric, row["low"], row["high"]):
        text += f" {bounds}"
    if metric == "rtf":
        return f"{text}."
    same = summary[(summary["judge"] == judge) & (summary["metric"] == metric)]
    values = same.set_index("system")["value"].dropna()
    anchors = {role: values[system] for system, role in results.anchors.items() if system in values}
    floor, ceiling = anchors.get("floor"), anchors.get("ceiling")
    text += f" by {judge}"
    if floor is not None and ceiling is not None and m.higher_is_better and ceiling > floor:
        text += (
            f", {(value - floor) / (ceiling - floor):.0%} of the way from the unconverted source "
            f"({number(metric, floor)}) to the target's own speech ({number(metric, ceiling)})"
        )
    elif floor is not None:
        text += f"; the unconverted source has {number(metric, floor)}{unit}"
    return f"{text}."


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
