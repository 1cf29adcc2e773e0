"""report.html: tables, figures, sounds and their origin in one file that needs no network."""

import base64
import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bench.files import write_text
from bench.metrics import METRICS
from bench.run.results import Results
from bench.stats.compare import FAILED, SAME
from bench.validity.flags import FLAGS
from reports import figures
from reports.findings import Standing, standing
from reports.headline import headline
from reports.html.cards import listing
from reports.tables import in_headline, label, slice_tables, slices, summary_table
from reports.text.comparison import HEADS, READING, cells_of

TEMPLATES = Path(__file__).parent / "templates"


class HtmlReport:
    """Writes report.html, and its figures once more into figures/.

    Args:
        embed_trials: so many trials of each suite carry their sounds and spectrograms: the worst.
            The others are listed with links to their files.
        max_audio_megabytes: no further sounds are embedded past this size.
        beside_trials: so many further trials of each suite get source and reference in `audio/`
            beside the report.
    """

    def __init__(
        self,
        embed_trials: int = 12,
        max_audio_megabytes: float = 10.0,
        beside_trials: int = 200,
    ) -> None:
        self.embed_trials = embed_trials
        self.max_audio_megabytes = max_audio_megabytes
        self.beside_trials = beside_trials

    def render(self, results: Results) -> Path:
        """Writes report.html into the run's folder."""
        share = self.max_audio_megabytes * 1e6 / max(len(results.suites), 1)
        known = standing(results)
        suspicious = known.by_trial(without=results.anchors)
        with ThreadPoolExecutor(1) as background:  # sounds are encoded while figures are drawn
            listings = background.submit(
                lambda: [
                    listing(
                        results,
                        s,
                        self.embed_trials,
                        share,
                        suspicious.get(s),
                        self.beside_trials,
                    )
                    for s in results.suites
                ]
            )
            by_factor = slices(results)
            drawn = figures.draw(results, by_factor)
        for figure in drawn:
            figure.write(results.folder / "figures")
        suites = [
            {
                "name": name,
                "table": summary_table(
                    results, name, best=known.best, notes=known.notes(name, results.anchors)
                ),
                "differences": _differences(known.differences, name),
                "confounds": (related := [c for c in known.confounds if c.suite == name]),
                "related_to": " and ".join(dict.fromkeys(METRICS[c.metric].label for c in related)),
                "slices": slice_tables(
                    results, {k: v for k, v in by_factor.items() if k[0] == name}
                ),
                "figures": [figure for figure in drawn if figure.suite == name],
                "listing": trials,
            }
            for name, trials in zip(results.suites, listings.result(), strict=True)
        ]
        script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
        page = (
            _environment()
            .get_template("report.html.j2")
            .render(
                name=results.name,
                headline=headline(results),
                suites=suites,
                failures=_failures(results),
                flags=_flags(known, results),
                suspicious=known.suspicious(results.anchors),
                metrics=_metrics(results),
                difference_heads=HEADS[1:],
                difference_reading=READING,
                provenance=results.provenance,
                colours=figures.colours(results),
                style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
                script=Markup(script),  # noqa: S704
                script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            )
        )
        path = results.folder / "report.html"
        write_text(path, page)
        return path


def _environment() -> jinja2.Environment:
    """Everything that a template prints is escaped: names, errors and transcripts are not ours."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    # An arrow and a unit stay on the line of their metric.
    environment.filters["keep_arrow"] = lambda head: re.sub(r" (?=[↑↓])|(?<=[↑↓]) ", "\u00a0", head)
    environment.tests["records"] = _are_records
    return environment


def _are_records(value: Any) -> bool:
    """Whether it is a list of mappings, to be shown as a table with their keys as columns."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(item, Mapping) for item in value)
    )


def _failures(results: Results) -> list[dict[str, Any]]:
    """Failed conversions by system, suite and error, each with its trials."""
    failed = results.scores[results.scores["status"] == "failed"]
    groups = failed.groupby(["system", "suite", "error"], sort=False)["trial_id"]
    return [
        {"system": system, "suite": suite, "error": error, "trials": list(trials)}
        for (system, suite, error), trials in groups
    ]


def _differences(table: pd.DataFrame, suite: str) -> list[dict[str, Any]]:
    """The pairs of systems over a suite: the comparison's cells by their heads."""
    if table.empty:
        return []
    rows = table[(table["suite"] == suite) & (in_headline(table) | (table["metric"] == FAILED))]
    rows = rows[rows["verdict"] != SAME]
    found = []
    for row in rows.to_dict("records"):
        cells = cells_of(row)[1:]  # without its place
        found.append({"pair": f"{row['candidate']} against {row['baseline']}", "cells": cells})
    return found


def _flags(known: Standing, results: Results) -> list[dict[str, Any]]:
    """Flags by system and kind, with how many of the conversions raised them."""
    counts = known.flags.groupby(["system", "flag"], sort=False)["trial_id"]
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


def _metrics(results: Results) -> list[dict[str, Any]]:
    """The legend: every metric of the run with its judges."""
    judges = results.summary[["metric", "judge"]].drop_duplicates().groupby("metric", sort=False)
    return [
        {"label": label(m), "about": METRICS[m].about, "judges": ", ".join(own["judge"])}
        for m, own in judges
    ]
