"""checklist.md: what a reviewer asks of a listening test, filled from its design and answers.

The items are those that Cooper, Le Maguer, Klabbers and Yamagishi 2025 ("Good practices for
evaluation of synthesized speech", arXiv 2503.03250) put into a checklist for reviewers, and what
Chiang et al. 2023 (arXiv 2306.02044) found missing from most papers: recruitment, pay, instructions
and filtering. The words are ours. What only a person knows is left blank.
"""

from dataclasses import fields

import numpy as np
import pandas as pd

from bench.stats.listening import ALL
from reports.listening.format import GOLD, MUSHRA, REPEAT, TRAINING, TRAP
from reports.listening.ratings.exported import ExportedTest
from reports.listening.ratings.results import TestResults
from reports.text.markup import escape

BLANK = "**to fill in**"
QUESTIONS = {
    "nmos": "naturalness",
    "smos": "similarity of the voice to a reference",
    "ab": "preference between two systems",
    "abx": "which of two systems is nearer to a reference",
    "cmos": "comparison of two systems",
    "mushra": "quality beside a reference (MUSHRA)",
}


def checklist(results: TestResults) -> str:
    """The checklist as Markdown, with a paragraph for the methods section at its end."""
    sections: list[tuple[str, list[tuple[str, str]]]] = [
        ("Listeners", _listeners(results)),
        ("Stimuli", _stimuli(results)),
        ("Procedure", _procedure(results)),
        ("Screening", _screening(results)),
        ("Analysis", _analysis(results)),
    ]
    lines = [
        "# Checklist of the listening test",
        "",
        "After the reviewers' checklist of Cooper et al. 2025 (arXiv 2503.03250), and what Chiang "
        "et al. 2023 (arXiv 2306.02044) found unreported. Filled from the design and the answers; "
        "only a person knows the rest.",
        "",
    ]
    for title, items in sections:
        lines += [f"## {title}", ""]
        for question, answer in items:
            mark = " " if BLANK in answer else "x"
            lines.append(f"- [{mark}] {question} {answer}")
        lines.append("")
    lines += ["## Paragraph for the methods section", "", methods_paragraph(results), ""]
    return "\n".join(lines)


def methods_paragraph(results: TestResults) -> str:
    """How the test was made and analysed, as Markdown text; `BLANK` where only a person knows."""
    test, people = results.test, results.screened.listeners
    out = int((people["excluded_by"] != "").sum())
    votes = _votes(results)
    recordings = sorted(
        {
            str(f["system"])
            for f in map(test.facts, test.stimuli)
            if f["what"] in ("source", "target")
        }
    )
    sentences = [
        f"We ran a listening test of {QUESTIONS[test.kind]} "
        f"on a scale from {test.lowest:g} to {test.highest:g} in steps of {test.step:g}.",
        f"{len(people)} listeners ({BLANK}: recruitment, native language, pay per hour) rated "
        f"{_systems(results)} systems over {results.unblinded['trial_id'].nunique()} sentences of "
        f"{_count(results.unblinded, 'source_speaker')} source and "
        f"{_count(results.unblinded, 'target_speaker')} target speakers.",
    ]
    if recordings:
        sentences.append(f"Recordings of people were rated too ({', '.join(recordings)}).")
    sentences += [
        f"Stimuli were blinded{_level(results)}; listeners were assigned to {len(test.groups)} "
        "groups, balanced over systems and sentences by a Latin square.",
        f"{_checks(results)} {out} listeners were excluded (rules: {_rules(results)}), "
        f"which leaves {len(results.screened.kept)} ratings, {votes}.",
        "Intervals (95%) and tests treat listeners, source speakers, target speakers and sentences "
        "as crossed random effects, whose variances are solved for by moments; p values are "
        "corrected for multiple comparisons by the method of Benjamini and Hochberg.",
    ]
    if np.isfinite(results.alpha):
        sentences.append(f"Krippendorff's alpha ({results.alpha_scale}) was {results.alpha:.2f}.")
    return " ".join(escape(s) if BLANK not in s else s for s in sentences)


def _listeners(results: TestResults) -> list[tuple[str, str]]:
    people = results.screened.listeners
    kept = people[people["excluded_by"] == ""]
    return [
        ("How many listeners took part, and how many count?", f"{len(people)}; {len(kept)} count."),
        ("How were they recruited, on which platform?", BLANK),
        ("What is their native language, and is it that of the stimuli?", BLANK),
        ("Age, gender, experience with such tests?", BLANK),
        ("Do they hear normally?", BLANK),
        ("How were they paid (per hour)?", BLANK + _minutes(people)),
        ("Did they consent; is there approval of an ethics board?", BLANK),
        ("What did they listen with (headphones, a quiet room)?", BLANK),
    ]


def _stimuli(results: TestResults) -> list[tuple[str, str]]:
    test = results.test
    facts = pd.DataFrame([test.facts(s) for s in test.stimuli])
    rated = results.unblinded
    real = facts[facts["what"].isin(["source", "target"])]["system"].unique()
    anchors = facts[facts["what"].str.startswith("anchor")]["what"].unique()
    return [
        (
            "How many systems, sentences and speakers?",
            f"{_systems(results)} systems, {rated['trial_id'].nunique()} sentences, "
            f"{_count(rated, 'source_speaker')} source and {_count(rated, 'target_speaker')} "
            "target speakers.",
        ),
        (
            "Is natural speech among the stimuli, and are there anchors?",
            f"Recordings: {', '.join(real) or 'none'}; anchors: {', '.join(anchors) or 'none'}.",
        ),
        ("Which baselines, trained on what, with which vocoder and checkpoint?", BLANK),
        ("Were the systems trained on these speakers or sentences?", BLANK
         + f" (`vcbench report name={test.run}` states it)"),
        ("How were the sentences chosen?", "Balanced and seeded, by `vcbench stimuli`."),
        ("Are the levels equal?", _level(results).removeprefix(", with ") or BLANK),
        ("Which sample rate?", _rate(results) or BLANK),
        ("Can readers listen to the stimuli?", BLANK),
    ]  # fmt: skip


def _procedure(results: TestResults) -> list[tuple[str, str]]:
    test = results.test
    in_order = sorted(test.labels.items(), key=lambda item: item[1])
    labels = ", ".join(f"{value:g} {text}" for text, value in in_order)
    return [
        ("What was asked, and in which words?", f"{QUESTIONS[test.kind]}; words: " + BLANK),
        (
            "Which scale, with which labels and steps?",
            f"{test.lowest:g} to {test.highest:g} in steps of {test.step:g}"
            + (f" ({escape(labels)})." if labels else "; no labels."),
        ),
        ("In which language were the instructions?", test.language or BLANK),
        ("Was there a training phase?", _training(test)),
        (
            "How many stimuli did a listener rate, and how often was each rated?",
            f"{_range(results.screened.listeners['answers'])} a listener; {_votes(results)}.",
        ),
        (
            "Were order and assignment balanced?",
            f"{len(test.groups)} groups of listeners, by the Latin square of `vcbench stimuli`.",
        ),
        ("When and with which software was it run?", BLANK),
    ]


def _screening(results: TestResults) -> list[tuple[str, str]]:
    screened = results.screened
    by_rule = screened.excluded[screened.excluded["screen"] == ""].groupby("rule").size()
    counts = ", ".join(f"{rule} {n}" for rule, n in by_rule.items()) or "none"
    changed = [
        f"{system} {results.unscreened[system]:.2f}" for system in sorted(results.unscreened)
    ]
    return [
        ("Which checks did the test have?", _checks(results)),
        ("Which rules exclude listeners, and were they fixed beforehand?",
         f"Rules: {_rules(results)}; fixed beforehand: " + BLANK),
        ("How many were excluded by which rule?", f"{counts} (a listener may break several)."),
        ("What would the means be without screening?", escape("; ".join(changed)) + "."),
    ]  # fmt: skip


def _analysis(results: TestResults) -> list[tuple[str, str]]:
    scores = results.scores[results.scores["slice"] == ALL]
    half = (scores["high"] - scores["low"]) / 2
    known = half.dropna()
    width = f"half widths {known.min():.2f} to {known.max():.2f}" if len(known) else "not known"
    alpha = f"{results.alpha:.2f} ({results.alpha_scale})" if np.isfinite(results.alpha) else "none"
    verdicts = results.scores if results.test.paired else results.differences
    verdicts = verdicts[verdicts["slice"] == ALL]
    clear = int((verdicts["verdict"] != "not told apart").sum())
    return [
        ("Are there intervals, and what are they about?",
         f"95%, about other listeners, speakers and sentences; {width}."),
        ("Are differences tested, with correction for their number?",
         f"{clear} of {len(verdicts)} pairs differ (q < 0.05, Benjamini and Hochberg)."),
        ("Was the number of listeners planned for a difference that matters?",
         BLANK + " (`vcbench stimuli plan`)"),
        ("Do listeners agree?", f"Krippendorff's alpha {alpha}."),
        ("Are the scores compared within this test only?",
         "The report says so; " + BLANK + ": check the paper's tables."),
    ]  # fmt: skip


def _checks(results: TestResults) -> str:
    """How many checks a listener had."""
    test = results.test
    parts = []
    for role, noun in ((TRAP, "trap screens"), (GOLD, "gold screens"), (REPEAT, "repeats")):
        counts = [sum(test.roles[s] == role for s in group) for group in test.groups]
        if any(counts):
            parts.append(f"{_range(pd.Series(counts))} {noun}")
    if test.kind == MUSHRA:
        parts.append("a hidden reference on every screen")
    return f"Checks of each listener: {', '.join(parts)}." if parts else "There were no checks."


def _training(test: ExportedTest) -> str:
    count = sum(role == TRAINING for role in test.roles.values())
    if not count:
        return BLANK
    return f"{count} screens before the test on the self-contained page; they do not count."


def _rules(results: TestResults) -> str:
    """The rules that were applied, with their limits."""
    rules = results.screened.rules
    limits = {f.name: getattr(rules, f.name) for f in fields(rules)}
    skipped = {note.split()[1] for note in results.screened.notes}
    if results.test.kind != MUSHRA:
        skipped.add("hidden_reference")
    parts = [f"{k} {v:g}" for k, v in limits.items() if v is not None and k not in skipped]
    return ", ".join(parts) or "none"


def _votes(results: TestResults) -> str:
    unit = "screen" if results.test.paired else "stimulus"
    counts = results.screened.kept.groupby(unit).size()
    return f"{_range(counts)} per {'pair' if results.test.paired else 'stimulus'}"


def _systems(results: TestResults) -> int:
    names = set(results.unblinded["system"])
    return len(names | set(results.unblinded.get("other_system", [])))


def _count(table: pd.DataFrame, column: str) -> int:
    return int(table[column][table[column] != ""].nunique())


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _minutes(people: pd.DataFrame) -> str:
    total = (people["seconds"] * people["answers"]).median() / 60
    return f" (about {total:.0f} minutes a listener)" if np.isfinite(total) else ""


def _level(results: TestResults) -> str:
    level = results.test.processing.get("level_lufs")
    return f", with loudness matched to {level:g} LUFS" if isinstance(level, int | float) else ""


def _rate(results: TestResults) -> str:
    rate = results.test.processing.get("sample_rate")
    return f"{rate:g} Hz." if isinstance(rate, int | float) else ""
