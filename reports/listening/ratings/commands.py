"""The verb `vcbench ratings`: from listeners' answers to scores."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bench.cli.arguments import Setting, listed, one_of, parse_settings
from bench.cli.console import Printed
from bench.errors import UserError, choose_one_of
from bench.run.folder import write_table
from reports.listening.ratings.exported import ExportedTest
from reports.listening.ratings.readers import FORMATS, read_answers
from reports.listening.ratings.report import (
    READING,
    READING_OF_PAIRS,
    summary_lines,
    tables,
    write_report,
)
from reports.listening.ratings.results import read_results
from reports.listening.ratings.screening import ScreeningRules
from reports.listening.ratings.table import COLUMNS, FIRST, REFUSE, checked

VERBS = ("import", "report")
USAGE = """\
vcbench ratings import test=FOLDER from=FILE_OR_FOLDER out=ratings.csv [format=page|pymushra|
        webmushra|p808|csv] [twice=refuse|first]
    answers of listeners as one table, checked against the test that was exported
vcbench ratings report test=FOLDER ratings=ratings.csv [out=FOLDER] [by=gender_pair]
        [without=traps,gold,unplayed,constant,repeats,hidden_reference,fast]
    screening, scores with intervals, differences, agreement of the listeners; writes report.md,
    checklist.md and CSV files, into test=FOLDER/results by default
"""
TEST = Setting("folder of the exported test", needed=True)
SETTINGS = {
    "ratings import": {
        "test": TEST,
        "from": Setting("file or folder of the answers", needed=True),
        "out": Setting("CSV file that is written: one answer a row", needed=True),
        "format": Setting("of the answers; default: detected", one_of(*FORMATS)),
        "twice": Setting(
            "a listener with two sessions: refuse (default), or first: the first one counts",
            one_of(REFUSE, FIRST),
        ),
    },
    "ratings report": {
        "test": TEST,
        "ratings": Setting("CSV file of `vcbench ratings import`", needed=True),
        "out": Setting("folder of the report; default: results/ in the test's folder"),
        "by": Setting("factors whose values get scores too; default: gender_pair", listed),
        "without": Setting("screening rules that are not applied; default: all are", listed),
    },
}
LOG_WIDTH = 120  # characters of a line in a file or a pipe


def ratings(arguments: Sequence[str]) -> int:
    """`vcbench ratings import …` and `vcbench ratings report …`.

    Returns:
        The exit code; 2 without arguments, when the usage is printed.

    Raises:
        UserError: if an argument or an answer is wrong.
    """
    if not arguments:
        print(USAGE)
        return 2
    verb = arguments[0]
    if verb not in VERBS:
        raise UserError(f"unknown ratings verb {verb!r}; {choose_one_of(verb, VERBS)}")
    return _import(arguments[1:]) if verb == "import" else _report(arguments[1:])


def _import(arguments: Sequence[str]) -> int:
    settings = parse_settings(arguments, "ratings import", SETTINGS["ratings import"])
    test = ExportedTest.load(Path(settings["test"]))
    answers = read_answers(test, Path(settings["from"]), settings.get("format"))
    result = checked(test, answers, settings.get("twice", REFUSE))
    out = Path(settings["out"])
    write_table(result.table[list(COLUMNS)], out)
    console = _console()
    for note in result.notes:
        console.print(Text(note, style="yellow"))
    listeners = result.table["listener"].nunique()
    console.print(Text(f"{out}: {len(result.table)} answers of {listeners} listeners"))
    return 0


def _report(arguments: Sequence[str]) -> int:
    settings = parse_settings(arguments, "ratings report", SETTINGS["ratings report"])
    folder = Path(settings["test"])
    results = read_results(
        folder,
        Path(settings["ratings"]),
        ScreeningRules.without(settings.get("without", [])),
        settings.get("by", ["gender_pair"]),
    )
    console = _console()
    for line in summary_lines(results):
        console.print(Text(line))
    for table in tables(results):
        console.print(table)
    for note in results.notes:
        console.print(Text(note, style="yellow"))
    reading = READING_OF_PAIRS if results.test.paired else READING
    console.print(Text(reading, style="dim"))
    for path in write_report(results, Path(settings.get("out", folder / "results"))):
        console.print(Text(f"wrote {path}"))
    return 0


def _console() -> Console:
    console = Printed()
    return console if console.is_terminal else Printed(width=LOG_WIDTH)
