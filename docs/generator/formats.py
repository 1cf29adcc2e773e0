"""The pages of the file formats, made from the modules that read and write them."""

import re

from bench import manifest, metrics
from bench.cli.settings import options
from bench.results import COLUMNS, SUMMARY_COLUMNS
from bench.run.folder import CONTENTS, LAYOUT
from bench.trials import Trial, Utterance
from docs.generator.sources import code, entries, metrics_of, page, table, upper


def manifest_page() -> str:
    """The format of a trial list."""
    text = (manifest.__doc__ or "").partition("One trial a line:")[2]
    blocks = [b for b in text.split("\n\n") if b.strip()]
    example = next(b for b in blocks if "trial_id" in b)
    texts = [" ".join(b.split()) for b in blocks if b is not example]
    trial, utterance = entries(Trial, "Attributes"), entries(Utterance, "Attributes")
    return page(
        [
            "# Manifest",
            "A suite is a JSON Lines file in UTF-8, one trial a line. "
            "`vcbench run suite=trials.jsonl root=corpus` runs it; "
            "[bench/manifest.py](../../bench/manifest.py) reads and writes it.",
            "```text\n" + re.sub(r"^ {4}", "", example.strip("\n"), flags=re.MULTILINE) + "\n```",
            upper(texts[0]),
            *texts[1:],
            "## A trial",
            table(("key", "meaning"), [(code(k), v) for k, v in trial.items()]),
            "## An utterance",
            table(("key", "meaning"), [(code(k), v) for k, v in utterance.items()]),
            "Errors name the file, the line, the trial and the key.",
        ]
    )


def run_folder_page() -> str:
    """The format of a run's folder."""
    return page(
        [
            "# Run folder",
            "A run is a folder, `outputs/<name>/`. It stands alone: a copy on another machine can "
            "be compared, gated and reported without the corpus, the systems and the judges. "
            "[scores.csv has its own page](scores.md).",
            table(("path", "content"), [(code(k), v) for k, v in LAYOUT.items()]),
            "The score cache (`outputs/.cache/scores.sqlite`) is shared by all runs and is no part "
            "of a folder.",
            "## run.json",
            "It is written last and has hashes of both tables and of itself. `report`, `compare`, "
            "`gate` and `history` refuse a folder whose tables are not those of its run.json.",
            table(("key", "content"), [(code(k), v) for k, v in CONTENTS.items()]),
            "## summary.csv",
            "One row per suite × system × judge × metric.",
            table(("column", "meaning"), [(code(k), v) for k, v in SUMMARY_COLUMNS.items()]),
        ]
    )


def score_page() -> str:
    """The columns of scores.csv."""
    columns: dict[str, set[str]] = {}
    for judge in options("judge"):
        for key in metrics_of(judge):
            metric = metrics.METRICS[key]
            for column in filter(None, (metric.numerator, metric.denominator)):
                columns.setdefault(column, set()).add(key)
    return page(
        [
            "# Columns of scores.csv",
            "One row per system × suite × trial, failures included; CSV in UTF-8. An empty cell "
            "was not measured.",
            table(("column", "meaning"), [(code(k), v) for k, v in COLUMNS.items()]),
            "## Columns of the judges",
            "A judge called `wer_whisper_base` writes `wer_whisper_base.word_errors` and others. "
            "These columns are summed for metrics; judges may write further ones, such as "
            "`hypothesis`, the transcript.",
            table(
                ("column", "metrics"),
                [(code(k), ", ".join(map(code, sorted(v)))) for k, v in sorted(columns.items())],
            ),
        ]
    )
