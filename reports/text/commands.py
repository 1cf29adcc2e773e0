"""The verbs that read finished runs and compare them: compare, gate, history, agreement.

They must start fast: nothing here loads torch.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from bench.cli.arguments import Setting, boolean, listed, parse
from bench.cli.console import Printed
from bench.cli.settings import load
from bench.errors import UserError, choose_one_of
from bench.files import write_text
from bench.metrics import METRICS
from bench.results import ScoredRun
from bench.run.folder import RUN, read_run, read_runs, write_table
from bench.run.ratings import read_ratings
from bench.stats.agreement import agreement as agreement_of
from bench.stats.compare import compare as compare_pairs
from bench.stats.gate import DEFAULT, EXIT, Rules, decide_all, junit, outcome
from bench.stats.history import history as history_of
from bench.stats.sides import Side, named_apart, sides, without_partner
from bench.stats.variance import split_variance
from bench.validity.kinship import Kinship, kinships
from reports.kinship import kinship_note, with_kinship
from reports.listening.ratings.results import for_agreement, read_results
from reports.text.agreement import (
    READING as READING_OF_AGREEMENT,
)
from reports.text.agreement import (
    agreement_markdown,
    agreement_table,
    count_groups,
    count_table,
    groups,
)
from reports.text.comparison import (
    READING,
    comparison_markdown,
    comparison_table,
    decision_table,
    gate_markdown,
    history_markdown,
    history_notes,
    history_table,
    split_table,
)

LOG_WIDTH = 120  # characters of a line in a file or a pipe
WIDE = 140  # the same, for four coefficients with their intervals

OUTPUTS = Setting("the folder of all runs, for a run that is named; default: the setting outputs")
MARGINS = Setting("YAML file of margins; default: bench/conf/gate.yaml")
MARKDOWN = Setting("file that the tables are written to as Markdown")
SETTINGS = {
    "compare": {
        "by": Setting(
            "factors, such as gender_pair: also compares over each of their values", listed
        ),
        "metrics": Setting("keys of metrics; default: all that both sides have", listed),
        "margins": MARGINS,
        "split": Setting(
            "true: splits the variance into systems, trials and seeds instead, over runs that "
            "differ in their seed alone",
            boolean,
        ),
        "csv": Setting("file that the differences are written to"),
        "markdown": MARKDOWN,
        "outputs": OUTPUTS,
    },
    "gate": {
        "margins": MARGINS,
        "junit": Setting("file that the decisions are written to as JUnit XML"),
        "markdown": MARKDOWN,
        "outputs": OUTPUTS,
    },
    "history": {
        "system": Setting("names of systems; default: all", listed),
        "metrics": Setting("keys of metrics; default: the leading ones of each run", listed),
        "suite": Setting("names of suites; default: all", listed),
        "csv": Setting("file that the numbers are written to"),
        "markdown": MARKDOWN,
        "outputs": OUTPUTS,
    },
    "agreement": {
        "run": Setting("the run whose metrics are compared with the ratings", needed=True),
        "test": Setting("folder of the exported listening test that the ratings are answers to"),
        "metrics": Setting("keys of metrics; default: all that have a direction", listed),
        "systems": Setting("names of systems; default: all that were rated", listed),
        "out": Setting("file that the coefficients are written to, as CSV"),
        "markdown": MARKDOWN,
        "outputs": OUTPUTS,
    },
}


def compare(arguments: Sequence[str]) -> int:
    """`vcbench compare A[:system] B[:system] … [by=] [metrics=] [margins=] [csv=] [markdown=]`."""
    operands, settings = parse(
        arguments,
        "compare",
        SETTINGS["compare"],
    )
    runs = [_operand(o, settings.get("outputs")) for o in operands]
    if not runs:
        raise UserError("name what to compare: vcbench compare outputs/old outputs/new")
    metrics = _known_metrics(settings.get("metrics"))
    console = _console()
    if settings.get("split"):
        console.print(split_table(split_variance(_repeats(runs), metrics)))
        return 0
    rules = Rules.load(Path(settings.get("margins", DEFAULT)))
    pairs = sides(runs)
    differences = compare_pairs(pairs, metrics, settings.get("by", ()), rules.margins)
    notes = (*without_partner(runs), *differences.notes)
    table = with_kinship(differences.table, _kin(pairs))
    keys = ["baseline", "candidate", "suite", "slice"]
    for (baseline, candidate, *where), rows in table.groupby(keys, sort=False):
        title = " · ".join([f"{candidate} against {baseline}", *filter(None, where)])
        console.print(comparison_table(title, rows))
    for note in (*notes, *kinship_note(table)):
        console.print(Text(note, style="yellow"))
    console.print(Text(READING, style="dim"))
    if "csv" in settings:
        write_table(differences.table, Path(settings["csv"]))
    if "markdown" in settings:
        text = comparison_markdown(table, notes)
        write_text(Path(settings["markdown"]), text)
    return 0


def _kin(pairs: Sequence[tuple[Side, Side]]) -> dict[tuple[str, str], Kinship]:
    """The kinships of compared systems: (label, judge) → how they are kin."""
    kin = {}
    for side in (side for pair in pairs for side in pair):
        for (system, judge), kinship in kinships(side.run.facts).items():
            if system == side.system:
                kin[side.label, judge] = kinship
    return kin


def gate(arguments: Sequence[str]) -> int:
    """`vcbench gate BASELINE[:system] CANDIDATE[:system] [margins=] [junit=] [markdown=]`.

    Returns:
        0 pass, 1 regression, 3 undecided.

    Raises:
        UserError: if the runs cannot be compared.
    """
    operands, settings = parse(arguments, "gate", SETTINGS["gate"])
    if len(operands) != 2:
        raise UserError(
            f"gate takes a baseline and a candidate, not {len(operands)} runs: "
            "vcbench gate outputs/v12 outputs/v13"
        )
    rules = Rules.load(Path(settings.get("margins", DEFAULT)))
    runs = [_operand(o, settings.get("outputs")) for o in operands]
    first, *others = decide_all(sides(runs), rules)
    first = replace(first, notes=(*without_partner(runs), *first.notes))
    decisions = [first, *others]
    console = _console()
    for decision in decisions:
        console.print(decision_table(decision))
        for note in decision.notes:
            console.print(Text(note, style="yellow"))
    if "junit" in settings:
        write_text(Path(settings["junit"]), junit(decisions))
    if "markdown" in settings:
        write_text(Path(settings["markdown"]), gate_markdown(decisions))
    return EXIT[outcome(decisions)]


def history(arguments: Sequence[str]) -> int:
    """`vcbench history [RUN …] [system=] [metrics=] [suite=] [csv=] [markdown=] [outputs=]`."""
    operands, settings = parse(
        arguments,
        "history",
        SETTINGS["history"],
    )
    outputs = settings.get("outputs") or _outputs()
    in_outputs = (path.parent for path in sorted(Path(outputs).glob(f"*/{RUN}")))
    folders = [_folder(o, outputs) for o in operands] or [*in_outputs]
    if not folders:
        raise UserError(f"no run in {outputs}; make one: vcbench run")
    once = {folder.absolute(): folder for folder in folders}
    runs, notes = read_runs([*once.values()])
    numbers = history_of(
        named_apart(runs),
        systems=settings.get("system") or None,
        metrics=_known_metrics(settings.get("metrics")),
        suites=settings.get("suite") or None,
        notes=notes,
    )
    console = _console()
    for title, rows in numbers.groups():
        console.print(history_table(title, rows))
    for note in history_notes(numbers):
        console.print(Text(note, style="yellow"))
    if "csv" in settings:
        write_table(numbers.table, Path(settings["csv"]))
    if "markdown" in settings:
        write_text(Path(settings["markdown"]), history_markdown(numbers))
    return 0


def agreement(arguments: Sequence[str]) -> int:
    """`vcbench agreement RATINGS.csv run= [test=] [metrics=] [systems=] [out=] [markdown=]`.

    With `test`, the folder of an exported listening test, the file is what `vcbench ratings import`
    wrote: the key says which system and trial each answer is about, and screening applies.
    """
    operands, settings = parse(
        arguments,
        "agreement",
        SETTINGS["agreement"],
    )
    if len(operands) != 1:
        raise UserError(
            f"agreement takes one file of ratings, not {len(operands)}: "
            "vcbench agreement ratings.csv run=outputs/mini"
        )
    run = read_run(_folder(settings["run"], settings.get("outputs")))
    notes: list[str] = []
    if "test" in settings:
        rated = read_results(Path(settings["test"]), Path(operands[0]))
        ratings, notes = for_agreement(rated, run)
    else:
        ratings = read_ratings(Path(operands[0]))
    result = agreement_of(
        run,
        ratings,
        metrics=_known_metrics(settings.get("metrics")),
        systems=settings.get("systems") or None,
        source=operands[0],
    )
    console = _console(WIDE)
    for title, rows in count_groups(result.counts):
        console.print(count_table(title, rows))
    for title, rows in groups(result.table):
        console.print(agreement_table(title, rows))
    for note in (*notes, *result.notes):
        console.print(Text(note, style="yellow"))
    console.print(Text(READING_OF_AGREEMENT, style="dim"))
    if "out" in settings:
        write_table(result.table, Path(settings["out"]))
    if "markdown" in settings:
        write_text(Path(settings["markdown"]), agreement_markdown(result, run.name))
    return 0


def _operand(text: str, outputs: str | None) -> tuple[ScoredRun, str | None]:
    """RUN or RUN:system; a run is a folder, or a name in `outputs` (None: the default folder)."""
    run, _, system = text.rpartition(":")
    if not run or (Path(text) / RUN).is_file():
        run, system = text, ""
    return read_run(_folder(run, outputs)), system or None


def _folder(name: str, outputs: str | None) -> Path:
    return Path(name) if Path(name).is_dir() else Path(outputs or _outputs()) / name


def _outputs() -> str:
    """The folder of all runs, as the settings have it."""
    return load(()).outputs


def _known_metrics(names: Sequence[str] | None) -> Sequence[str] | None:
    """The names; None for none. A judge's metrics are known once a run that has them is read.

    Raises:
        UserError: if one is unknown.
    """
    for name in names or ():
        if name not in METRICS:
            raise UserError(f"unknown metric {name!r}; {choose_one_of(name, METRICS)}")
    return names or None


def _repeats(runs: Sequence[tuple[ScoredRun, str | None]]) -> list[Side]:
    """The one system of each run that is repeated under other seeds."""
    repeats = []
    for run, system in runs:
        if system is None and len(run.systems) != 1:
            raise UserError(
                f"{run.folder} has {', '.join(run.systems) or 'no system'}; say which: "
                f"{run.folder}:SYSTEM"
            )
        repeats.append(Side(run.name, run, system or run.systems[0]))
    return repeats


def _console(width: int = LOG_WIDTH) -> Printed:
    console = Printed()
    return console if console.is_terminal else Printed(width=width)
