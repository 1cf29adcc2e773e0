"""report.html: tables, figures, sounds and provenance in one file that needs no network."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from bench.files import write_text
from bench.metrics import METRICS
from bench.results import ScoredRun
from bench.stats.compare import FAILED, SAME
from bench.validity.flags import FLAGS
from reports import figures
from reports.findings import Findings, findings_of
from reports.headline import headline
from reports.html.cards import listing
from reports.html.environment import environment, inlined
from reports.html.listening import listening_sections
from reports.listening.ratings.results import RatingsFiles
from reports.slices import slice_tables
from reports.tables import in_headline, label, summary_table
from reports.text.agreement import naturalness_note
from reports.text.comparison import HEADS, READING, cells_of


class HtmlReport:
    """Writes report.html, and a copy of its figures into figures/.

    Args:
        ratings: files of `vcbench ratings import`; each has a section on its listening test.
        test: the folders of their exported tests, in the same order.
        embed_trials: number of trials of each suite, the worst first, whose sounds and spectrograms
            are embedded. The others are listed with links to their files.
        max_audio_megabytes: limit of all embedded sounds; each suite and each listening test has an
            equal share.
        beside_trials: number of further trials of each suite whose source and reference are written
            to `audio/`, next to the report.
    """

    def __init__(
        self,
        embed_trials: int = 12,
        max_audio_megabytes: float = 10.0,
        beside_trials: int = 200,
        ratings: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
    ) -> None:
        self.rated = RatingsFiles(ratings, test)
        self.embed_trials = embed_trials
        self.max_audio_megabytes = max_audio_megabytes
        self.beside_trials = beside_trials

    def render(self, results: ScoredRun) -> Path:
        """Writes report.html into the run's folder."""
        rated = self.rated.read()
        share = self.max_audio_megabytes * 1e6 / max(len(results.suites) + len(rated), 1)
        listening = listening_sections(results, rated, share)
        findings = findings_of(results)
        flagged = findings.flags_by_trial()
        with ThreadPoolExecutor(1) as background:  # sounds are encoded while figures are drawn
            listings = background.submit(
                lambda: [
                    listing(
                        results,
                        s,
                        self.embed_trials,
                        share,
                        flagged.get(s),
                        self.beside_trials,
                    )
                    for s in results.suites
                ]
            )
            drawn = figures.draw(results, findings.slices)
        for figure in (*drawn, *(s["figure"] for s in listening if s["figure"])):
            figure.write(results.folder / "figures")
        suites = [
            {
                "name": name,
                "table": summary_table(
                    results, name, best=findings.best, notes=findings.notes(name)
                ),
                "differences": _differences(findings.differences, name),
                "confounds": (related := [c for c in findings.confounds if c.suite == name]),
                "related_to": " and ".join(dict.fromkeys(METRICS[c.metric].label for c in related)),
                "slices": slice_tables(
                    results, {k: v for k, v in findings.slices.items() if k[0] == name}
                ),
                "figures": [figure for figure in drawn if figure.suite == name],
                "listing": trials,
            }
            for name, trials in zip(results.suites, listings.result(), strict=True)
        ]
        page = (
            environment()
            .get_template("report.html.j2")
            .render(
                name=results.name,
                headline=headline(results),
                suites=suites,
                listening=listening,
                failures=_failures(results),
                flags=_flags(findings),
                suspicious=findings.suspicious_systems,
                metrics=_metrics(results),
                naturalness=naturalness_note(results),
                difference_heads=HEADS[1:],
                difference_reading=READING,
                provenance=results.facts,
                colours=figures.colours(results),
                **inlined(["report.css"], "report.js"),
            )
        )
        path = results.folder / "report.html"
        write_text(path, page)
        return path


def _failures(results: ScoredRun) -> list[dict[str, Any]]:
    """Failed conversions by system, suite and error, with their trials."""
    failed = results.scores[results.scores["status"] == "failed"]
    groups = failed.groupby(["system", "suite", "error"], sort=False)["trial_id"]
    return [
        {"system": system, "suite": suite, "error": error, "trials": list(trials)}
        for (system, suite, error), trials in groups
    ]


def _differences(table: pd.DataFrame, suite: str) -> list[dict[str, Any]]:
    """The comparisons of systems over a suite: the pair and the cells of each."""
    if table.empty:
        return []
    rows = table[(table["suite"] == suite) & (in_headline(table) | (table["metric"] == FAILED))]
    return [
        {
            "pair": f"{row['candidate']} against {row['baseline']}",
            "cells": cells_of(row)[1:],  # without the suite
        }
        for row in rows[rows["verdict"] != SAME].to_dict("records")
    ]


def _flags(findings: Findings) -> list[dict[str, Any]]:
    """Flags by system and kind, with the number of conversions that raised them."""
    results = findings.results
    counts = findings.flags.groupby(["system", "flag"], sort=False)["trial_id"]
    converted = results.scores[results.scores["status"] == "ok"]["system"].value_counts()
    return [
        {
            "system": system,
            "role": results.anchors.get(str(system), ""),
            "label": FLAGS[str(flag)].label,
            "about": FLAGS[str(flag)].about,
            "count": f"{len(trials)} of {converted[system]}",
            "trials": ", ".join(list(trials)[:5]) + (" …" if len(trials) > 5 else ""),
        }
        for (system, flag), trials in counts
    ]


def _metrics(results: ScoredRun) -> list[dict[str, Any]]:
    """The legend: every metric of the run, with its judges."""
    judges = results.summary[["metric", "judge"]].drop_duplicates().groupby("metric", sort=False)
    return [
        {"label": label(m), "about": METRICS[m].about, "judges": ", ".join(rows["judge"])}
        for m, rows in judges
    ]
