"""Reads answers as each presentation stores them.

- `page`: the CSV of the self-contained page, one file a listener. It has the columns of `COLUMNS`.
- `pymushra`: its JSON (`/admin/download/<test>.json`) or its CSV (`;` between values, columns in no
  order). It turns texts that look like numbers into numbers.
- `webmushra`: the CSV files of webMUSHRA's PHP service. Those of single ratings have no session:
  the question for the listener's name must have been asked.
- `p808`: the results of Mechanical Turk for the P.808 toolkit (`Answer.q1`, `Answer.Q1_URL`, …).
- `csv`: a table with at least listener, stimulus and rating.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from bench.errors import UserError, shown
from bench.files import read_text
from bench.run.ratings import read_ratings
from reports.listening.format import MUSHRA, REPEAT, TRAINING
from reports.listening.ratings.exported import ExportedTest
from reports.listening.ratings.table import SESSION, WHERE, Answers, rows_table

PAGE, PYMUSHRA, WEBMUSHRA, P808, PLAIN = "page", "pymushra", "webmushra", "p808", "csv"
# Names of the question for the listener's name, in the order of preference.
ASKED = ("listener", "participant", "prolific_pid", "worker", "workerid", "email", "name")
UNANSWERED = ("", "na", "nan", "none", "null", "unknown")


def read_answers(test: ExportedTest, path: Path, form: str | None = None) -> Answers:
    """Reads a file, or all CSV and JSON files of a folder.

    Args:
        test: the test that was answered.
        path: a file or a folder.
        form: one of `FORMATS`; None to guess for each file.

    Raises:
        UserError: if there is none, or one is broken; with its line where it is known.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".csv", ".json"))
        if not files:
            raise UserError(f"{path} has no .csv and no .json file; give the answers")
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"there is no {path}; give the file or the folder of the answers")
    parts = [FORMATS[form or guessed(file)](test, file) for file in files]
    table = pd.concat([part.table for part in parts], ignore_index=True)
    return Answers(table, [note for part in parts for note in part.notes])


def guessed(path: Path) -> str:
    """The format of a file, by its ending and its first line.

    Raises:
        UserError: if it looks like none.
    """
    if path.suffix.lower() == ".json":
        return PYMUSHRA
    first = read_text(path).partition("\n")[0].lower().replace('"', "")
    heads = {head.strip() for head in re.split("[;,\t]", first)}
    if any(head.startswith("answer.") for head in heads):
        return P808
    if "wm_id" in heads or "responses_stimulus" in heads:
        return PYMUSHRA
    if "session_test_id" in heads:
        return WEBMUSHRA
    if {"test_id", "listener", "screen", "stimulus", "rating"} <= heads:
        return PAGE
    if {"listener", "stimulus", "rating"} <= heads:
        return PLAIN
    raise UserError(
        f"{path}: no known format (its first line is {shown(first)}); give format= one of "
        f"{', '.join(FORMATS)}, or a CSV with the columns listener, stimulus, rating"
    )


def _page(test: ExportedTest, path: Path) -> Answers:
    return _table(test, path, ("test_id", "listener", "screen", "stimulus", "rating"))


def _plain(test: ExportedTest, path: Path) -> Answers:
    return _table(test, path, ("listener", "stimulus", "rating"))


def _table(test: ExportedTest, path: Path, needed: Iterable[str]) -> Answers:
    raw = read_ratings(path)
    for name in needed:
        if name not in raw:
            raise UserError(f"{path} has no column {name!r}; answers have {', '.join(needed)}")
    raw[WHERE] = [f"{path}:{line}" for line in raw.index]
    rows = raw.to_dict("records")
    for row in rows:
        if not row.get("screen"):
            row["screen"] = _screen(test, row["stimulus"], row[WHERE])
        if row.get("phase") == TRAINING and test.roles.get(row["screen"]) != TRAINING:
            raise UserError(
                f"{row[WHERE]}: marked as {TRAINING}, but screen {shown(row['screen'])} of "
                f"{test.folder} counts; give the CSV as the page saved it"
            )
        if test.paired and not row.get("other"):
            row["other"] = _other(test, row["screen"], row["stimulus"])
    notes = []
    if raw.empty:
        notes.append(f"{path} has no answer.")
    return Answers(rows_table(rows), notes)


def _pymushra(test: ExportedTest, path: Path) -> Answers:
    if path.suffix.lower() == ".json":
        try:
            records = json.loads(read_text(path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(
                f"{path}: broken JSON ({error}); download it again: /admin/download/TEST.json"
            ) from error
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise UserError(
                f"{path}: no list of answers; give what /admin/download/TEST.json gives"
            )
        numbered = [(f"{path}: answer {i + 1}", record) for i, record in enumerate(records)]
    else:
        numbered = list(_csv_records(path, ";"))
    return _webmushra_rows(test, path, (_of_pymushra(w, record) for w, record in numbered))


def _of_pymushra(where: str, record: Mapping[str, Any]) -> dict[str, Any]:
    asked = {k.removeprefix("questionaire_").lower(): v for k, v in record.items()
             if k.startswith("questionaire_")}  # fmt: skip
    value = record.get("responses_score")
    if value is None or _text(value).lower() in UNANSWERED:
        value = record.get("responses_stimulusRating")
    group = re.search(r"_(\d+)\.ya?ml$", _text(record.get("wm_config")))
    return {
        WHERE: where,
        "test_id": record.get("wm_testId"),
        "listener": _named(asked) or _text(asked.get("uuid")),
        SESSION: _text(asked.get("uuid")),
        "group": group[1] if group else "",
        "page": record.get("wm_id"),
        "stimulus": record.get("responses_stimulus"),
        "value": value,
        "reference": record.get("responses_reference"),
        "condition": record.get("responses_nonReference"),
        "answer": record.get("responses_answer"),
        "milliseconds": record.get("responses_time"),
    }


def _webmushra(test: ExportedTest, path: Path) -> Answers:
    def rows() -> Iterator[dict[str, Any]]:
        for where, record in _csv_records(path, ","):
            lowered = {k.lower(): v for k, v in record.items()}
            listener = _named(lowered) or lowered.get("session_uuid", "")
            if not listener:
                raise UserError(
                    f"{where}: nothing tells listeners apart (webMUSHRA stores no session with "
                    "such answers); ask for a name, or take pymushra's JSON"
                )
            value = lowered.get("rating_score")
            yield {
                WHERE: where,
                "test_id": lowered.get("session_test_id"),
                "listener": listener,
                SESSION: lowered.get("session_uuid", ""),
                "page": lowered.get("trial_id"),
                "stimulus": lowered.get("rating_stimulus") or lowered.get("stimuli"),
                "value": lowered.get("stimuli_rating") if value is None else value,
                "reference": lowered.get("choice_reference"),
                "condition": lowered.get("choice_non_reference"),
                "answer": lowered.get("choice_answer"),
                "milliseconds": lowered.get("rating_time") or lowered.get("choice_time"),
            }

    return _webmushra_rows(test, path, rows())


def _webmushra_rows(
    test: ExportedTest, path: Path, records: Iterable[Mapping[str, Any]]
) -> Answers:
    """Answers of webMUSHRA's pages: mushra, likert_single_stimulus, paired_comparison."""
    rows: list[dict[str, Any]] = []
    unanswered: dict[str, int] = {}
    positions: dict[tuple[str, str], dict[str, int]] = {}
    # pymushra turns "12e3" and "007" into numbers: ids are found by what they are turned into
    ids = _as_cast((*test.stimuli, *test.screens), path)
    for record in records:
        where, page = record[WHERE], ids.get(_cast(record["page"]), _text(record["page"]))
        listener = _text(record["listener"])
        stimulus = ids.get(_cast(record["stimulus"]), _text(record["stimulus"]))
        other, value = "", record["value"]
        if _text(record.get("answer")):
            stimulus, other, value = _pair(test, page, record, ids)
        elif stimulus in test.screens and test.paired:  # a pair in one file
            page = stimulus
            stimulus, other = test.screens[page][:2]
        elif stimulus == "reference" and test.kind == MUSHRA and page in test.screens:
            hidden = test.hidden_reference(page)
            if hidden is None:
                raise UserError(f"{where}: screen {page!r} has no hidden reference to be rated")
            stimulus = hidden
        if page not in test.screens and stimulus in test.stimuli:
            page = _screen(test, stimulus, where)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else value
        number = test.labels.get(_text(value).lower(), value)
        if _text(number).lower() in UNANSWERED:
            unanswered[listener] = unanswered.get(listener, 0) + 1
            continue
        session = _text(record[SESSION])
        order = positions.setdefault((listener, session), {})
        order.setdefault(page, len(order))
        time = _text(record["milliseconds"])
        try:
            seconds = f"{float(time) / 1000:.3f}" if time else ""
        except ValueError:
            raise UserError(f"{where}: the time {shown(time)} is not a number") from None
        rows.append(
            {
                **{"test_id": record["test_id"], "listener": listener, "screen": page},
                **{"group": record.get("group", ""), "stimulus": stimulus, "other": other},
                **{"rating": number, "position": order[page], "seconds": seconds},
                **{WHERE: where, SESSION: session},
            }
        )
    notes = [f"{path}: {n} questions without an answer, of {who}." for who, n in unanswered.items()]
    return Answers(rows_table(rows), notes)


def _pair(
    test: ExportedTest, page: str, record: Mapping[str, Any], ids: Mapping[str, str]
) -> tuple[str, str, Any]:
    """First, second and rating of a paired comparison.

    webMUSHRA's "correct" means that the listener chose the clip that it calls the reference.
    """
    condition = ids.get(_cast(record["condition"]), _text(record["condition"]))
    known = test.screens.get(page, ())
    if len(known) != 2 or condition not in known:
        raise UserError(f"{record[WHERE]}: {shown(condition)} is no stimulus of a pair {page!r}")
    reference = next(s for s in known if s != condition)
    values = {"correct": 1, "incorrect": -1, "undecided": 0}
    answer = _text(record["answer"]).lower()
    if answer not in values and answer not in UNANSWERED:
        raise UserError(f"{record[WHERE]}: unknown answer {shown(answer)}")
    return reference, condition, values.get(answer, "")


def _p808(test: ExportedTest, path: Path) -> Answers:
    rows: list[dict[str, Any]] = []
    notes: dict[str, int] = {}
    for where, raw in _csv_records(path, ","):
        record = {k.lower(): v for k, v in raw.items()}
        worker, status = record.get("workerid", ""), record.get("assignmentstatus", "")
        if status.lower() == "rejected":
            text = f"{path}: assignments that were rejected on Mechanical Turk and are left out"
            notes[text] = notes.get(text, 0) + 1
            continue
        names = [m[1] for key in record if (m := re.fullmatch(r"answer\.q(\d+)_url", key))]
        if not names:
            raise UserError(f"{where}: no column Answer.Q1_URL; give the results of a P.808 test")
        for position, name in enumerate(sorted(names, key=int)):
            url, value = record[f"answer.q{name}_url"], record.get(f"answer.q{name}", "")
            stimulus = PurePosixPath(urlsplit(url).path).stem
            if not value or not url:
                text = f"{path}: questions without an answer, of {worker}"
                notes[text] = notes.get(text, 0) + 1
                continue
            if stimulus not in test.stimuli and url == record.get("input.tp"):
                text = f"{path}: answers to trap clips that are not of this test and are left out"
                notes[text] = notes.get(text, 0) + 1
                continue
            screen = _screen(test, stimulus, where)
            finished = [
                record[key]
                for suffix in (name, f"_{name}", f"_a{name}", f"_b{name}")
                if (key := f"answer.audio_n_finish_q{suffix}") in record
            ]
            rows.append(
                {
                    **{"test_id": test.test_id, "listener": worker, "screen": screen},
                    **{"stimulus": stimulus, "other": _other(test, screen, stimulus)},
                    **{"rating": value, "position": position, "played": min(finished, default="")},
                    **{WHERE: where, SESSION: record.get("assignmentid", "")},
                }
            )
    return Answers(rows_table(rows), [f"{text}: {count}." for text, count in notes.items()])


def _csv_records(path: Path, separator: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, column → text) of each row."""
    reader = csv.reader(io.StringIO(read_text(path, newline="")), delimiter=separator, strict=True)
    try:
        heads = [head.strip() for head in next(reader, [])]
        for row in reader:
            if not row:
                continue
            if len(row) != len(heads):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(row)} values, but {len(heads)} columns; the "
                    "file is cut off or broken: save it again"
                )
            yield f"{path}:{reader.line_num}", dict(zip(heads, map(str.strip, row), strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: no CSV ({error}); save it again") from error


def _screen(test: ExportedTest, stimulus: str, where: str) -> str:
    """The screen of a stimulus that is on one alone, repeats aside.

    Raises:
        UserError: if it is on none or on several.
    """
    if stimulus not in test.stimuli:
        raise UserError(
            f"{where}: unknown stimulus {shown(stimulus)}; the key of {test.folder} does not have "
            "it"
        )
    screens = [s for s, stimuli in test.screens.items()
               if stimulus in stimuli and test.roles[s] != REPEAT]  # fmt: skip
    if test.paired and len(screens) > 1:
        screens = [s for s in screens if test.screens[s][0] == stimulus]
    if len(screens) != 1:
        raise UserError(
            f"{where}: stimulus {stimulus!r} is on {len(screens)} screens; the file must name the "
            "screen of each answer"
        )
    return screens[0]


def _other(test: ExportedTest, screen: str, stimulus: str) -> str:
    stimuli = test.screens.get(screen, ())
    if not test.paired or len(stimuli) != 2:
        return ""
    return stimuli[1] if stimulus == stimuli[0] else stimuli[0]


def _named(asked: Mapping[str, Any]) -> str:
    """The listener's name in the answers to the questionnaire; "" if it was not asked."""
    for name in ASKED:
        if _text(asked.get(name)).lower() not in UNANSWERED:
            return _text(asked[name])
    return ""


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()


def _cast(value: Any) -> str:
    """The text of a value after pymushra's conversion to bool, int or float."""
    text = _text(value)
    if text.lower() in ("true", "false"):
        return str(text.lower() == "true")
    for number in (int, float):
        try:
            return str(number(text))
        except (ValueError, OverflowError):
            continue
    return text


def _as_cast(names: Iterable[str], path: Path) -> dict[str, str]:
    cast: dict[str, str] = {}
    for name in names:
        if cast.setdefault(_cast(name), name) != name:
            raise UserError(
                f"{path}: pymushra turns the ids {cast[_cast(name)]!r} and {name!r} into the same "
                "number; the answers cannot be told apart"
            )
    return cast


FORMATS: dict[str, Callable[[ExportedTest, Path], Answers]] = {
    PAGE: _page,
    PYMUSHRA: _pymushra,
    WEBMUSHRA: _webmushra,
    P808: _p808,
    PLAIN: _plain,
}
