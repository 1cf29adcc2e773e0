"""Decides which runs of a site are comparable, and names the field of run.json that differs."""

from collections.abc import Sequence

from bench.metrics import Measure
from bench.stats.sides import differs
from reports.site.runs import ShownRun


def comparable(runs: Sequence[ShownRun], suite: str) -> list[list[ShownRun]]:
    """Groups runs whose numbers over a suite are on one scale.

    A run joins the first group without a run that it differs from (see `differing`).

    Args:
        runs: that have the suite, the newest first.
        suite: its name.

    Returns:
        The group with the most trials first, of equally many the one with the newest run: a short
        try does not push a whole run aside.
    """
    groups: list[list[ShownRun]] = []
    for shown in runs:
        for group in groups:
            if not any(differing(shown, other, suite) for other in group):
                group.append(shown)
                break
        else:
            groups.append([shown])
    return sorted(groups, key=lambda g: -int(g[0].run.facts["suites"][suite]["trials"]))


def differing(
    a: ShownRun, b: ShownRun, suite: str, measures: Sequence[Measure] | None = None
) -> str:
    """The first field of run.json for which numbers of two runs over a suite are not comparable.

    The fields are the suite's manifest, its number of trials (the setting `limit`) and its changed
    recordings; the fingerprint of each judge and the pooling of each metric that both runs
    measured there.

    Args:
        a: one run.
        b: the other.
        suite: that both have.
        measures: only these numbers; None for all.

    Returns:
        The field with both values, "" if none differs.
    """
    for key in ("sha256", "trials"):
        if field := differs(a.run, b.run, "suites", suite, key):
            return field
    changed = [list(r.run.facts["suites"][suite].get("changed", ())) for r in (a, b)]
    if changed[0] != changed[1]:
        return f"suites.{suite}.changed ({len(changed[0])} against {len(changed[1])} recordings)"
    of_a, of_b = a.measures[suite], b.measures[suite]
    both = [m for m in of_a if m in of_b and (measures is None or m in measures)]
    for judge in dict.fromkeys(judge for judge, _ in both):
        if field := differs(a.run, b.run, "judges", judge, "fingerprint"):
            return field
    for metric in dict.fromkeys(metric for _, metric in both):
        if field := differs(a.run, b.run, "pooling", metric):
            return field
    return ""


def why_apart(shown: ShownRun, first: Sequence[ShownRun], suite: str) -> str:
    """Why a run is not in the first group."""
    for other in first:
        if field := differing(shown, other, suite):
            return (
                f"Not comparable with table 1 of this suite: {shown.run.name} and "
                f"{other.run.name} differ in {field}."
            )
    raise AssertionError("a run without a difference is in the first group")
