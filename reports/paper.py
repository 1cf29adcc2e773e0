"""Published tables with what a run measured beside every printed number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from bench.errors import UserError, choose_one_of
from bench.files import write_text
from bench.leaks import in_short
from bench.markdown import escape, grid
from bench.metrics import METRICS
from bench.results import Results
from bench.summary import summarise
from reports.tables import interval, measured, number, systems_of

PUBLISHED = Path(__file__).parent / "published"
TEMPLATES = Path(__file__).parent / "templates"
NONE = "–"
NO_WEIGHTS = "no public weights: printed only"
WEIGHTS = ("public", "none", "recordings")


@dataclass(frozen=True)
class Column:
    """A column of a published table.

    Attributes:
        key: of the printed values.
        head: as the paper writes it.
        metric: key of METRICS that measures it; "" where nothing here does.
        higher: whether higher is better; None where neither.
    """

    key: str
    head: str
    metric: str = ""
    higher: bool | None = None

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher]


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes:
        name: as the paper writes it.
        systems: names of systems of a run that stand for it, the first that the run has.
        weights: "public", "none" or "recordings" (a row that no system made).
        printed: column key → the printed text.
        value: of the table's factor or setting, where it has one.
        only: column keys that mean something for a recording; empty for all.
    """

    name: str
    systems: tuple[str, ...]
    weights: str
    printed: Mapping[str, str]
    value: str = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A table as it was printed.

    Attributes:
        name: of its file.
        title: what it shows.
        source: paper, venue, place, note.
        setup: how it was measured there: field → text.
        columns: in the paper's order.
        rows: in the paper's order.
        factor: factor of the trials that tells the rows apart; "" for none.
        setting: setting of the systems that tells the rows apart; "" for none.
    """

    name: str
    title: str
    source: Mapping[str, str]
    setup: Mapping[str, str]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    factor: str = ""
    setting: str = ""

    @classmethod
    def load(cls, name: str, folder: Path = PUBLISHED) -> "Published":
        """The table of this name.

        Raises:
            UserError: if there is none, or its file is not whole.
        """
        known = published(folder)
        if name not in known:
            raise UserError(f"no published table {name!r}; {choose_one_of(name, known)}")
        path = folder / f"{name}.yaml"
        try:
            # Numbers stay the texts that were printed: 2.20 has two decimals.
            given = yaml.load(path.read_text(encoding="utf-8"), Loader=_Texts)  # noqa: S506
            columns = tuple(
                Column(
                    column["key"],
                    column["head"],
                    column.get("metric", ""),
                    {"true": True, "false": False, "": None}[column.get("higher", "")],
                )
                for column in given["columns"]
            )
            rows = tuple(
                Row(
                    row["name"],
                    tuple(row["systems"]),
                    row["weights"],
                    row["printed"],
                    row.get("value", ""),
                    tuple(row.get("only", ())),
                )
                for row in given["rows"]
            )
            table = cls(
                name,
                given["title"],
                given["source"],
                given.get("setup", {}),
                columns,
                rows,
                given.get("factor", ""),
                given.get("setting", ""),
            )
        except (KeyError, TypeError, yaml.YAMLError) as error:
            raise UserError(f"{path} is not a published table: {error!r}") from error
        keys = {column.key for column in columns}
        for column in columns:
            if column.metric and column.metric not in METRICS:
                raise UserError(f"{path}: {column.head}: unknown metric {column.metric!r}")
        for row in rows:
            if set(row.printed) - keys or row.weights not in WEIGHTS:
                raise UserError(f"{path}: row {row.name} has a column or weights of no known name")
        return table


class _Texts(yaml.SafeLoader):
    """YAML in which every value is a text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


@dataclass(frozen=True)
class Cell:
    """Printed beside measured; "" where there is none.

    Attributes:
        printed: the paper's text.
        measured: the run's number.
        interval: its interval, "[low, high]".
    """

    printed: str
    measured: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Line:
    """A row, laid out.

    Attributes:
        name: the paper's.
        remark: which system stands for it here, or why none does.
    """

    name: str
    remark: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Laid:
    """A published table with measured numbers beside it.

    Attributes:
        table: as printed.
        lines: a line a row.
        deviations: what was done otherwise here: (what, there, here).
    """

    table: Published
    lines: tuple[Line, ...]
    deviations: tuple[tuple[str, str, str], ...] = field(default_factory=tuple)


def published(folder: Path = PUBLISHED) -> dict[str, str]:
    """The names of the published tables, each with the sentence that its file begins with."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.removeprefix("#").strip()
    return found


class PaperReport:
    """Writes tables/<table>.md, .tex and .html into a run's folder.

    Args:
        table: name of a published table.
        suite: of the run; None for the first that has what the table needs.
    """

    def __init__(self, table: str, suite: str | None = None) -> None:
        self.table = table
        self.suite = suite

    def render(self, results: Results) -> Path:
        """Writes the three files and returns the Markdown."""
        laid = lay(Published.load(self.table), results, self.suite)
        folder = results.folder / "tables"
        write_text(folder / f"{self.table}.tex", latex(laid))
        write_text(folder / f"{self.table}.html", html(laid))
        write_text(folder / f"{self.table}.md", markdown(laid))
        return folder / f"{self.table}.md"


def lay(table: Published, results: Results, suite: str | None = None) -> Laid:
    """The table with the run's numbers.

    Raises:
        UserError: if the run has no such suite, or none with the factor that the table needs.
    """
    suite = _suite(table, results, suite)
    summary = results.summary[results.summary["suite"] == suite]
    by_value = None
    if table.factor:
        scores = results.scores[results.scores["suite"] == suite]
        by_value = summarise(
            scores, *measured(results.summary, results.anchors), by=[f"factor.{table.factor}"]
        )
    judges = _judges(table, summary)
    lines = []
    used: dict[str, None] = {}
    for row in table.rows:
        system = _system(row, table, results)
        if system is not None:
            used[system] = None
        cells = []
        for column in table.columns:
            cell = Cell(row.printed.get(column.key, ""))
            judge = judges.get(column.metric)
            if system is not None and judge and (not row.only or column.key in row.only):
                rows = summary
                if by_value is not None and row.value:
                    rows = by_value[by_value[f"factor.{table.factor}"] == row.value]
                rows = rows[
                    (rows["system"] == system)
                    & (rows["judge"] == judge)
                    & (rows["metric"] == column.metric)
                    & (rows["n"] > 0)
                ]
                if len(rows):
                    found = rows.iloc[0]
                    cell = Cell(
                        cell.printed,
                        number(column.metric, found["value"]),
                        interval(column.metric, found["low"], found["high"]),
                    )
            cells.append(cell)
        lines.append(Line(row.name, _remark(row, system), tuple(cells)))
    for system in _own_systems(results):
        if system not in used and not table.factor and not table.setting:
            cells = [_measured_cell(summary, system, column, judges) for column in table.columns]
            lines.append(Line(system, "measured here only", tuple(cells)))
    deviations = _deviations(table, results, suite, judges, list(used))
    return Laid(table, tuple(lines), tuple(deviations))


def markdown(laid: Laid) -> str:
    """The table as GitHub-flavoured Markdown."""
    table = laid.table
    heads = [""]
    for column in table.columns:
        name = f"{escape(column.head)} {column.arrow}".strip()
        heads += [f"{name}<br>printed", f"{name}<br>measured"] if column.metric else [name]
    rows = []
    for line in laid.lines:
        row = [f"{escape(line.name)}<br><sub>{escape(line.remark)}</sub>"]
        for column, cell in zip(table.columns, line.cells, strict=True):
            row.append(escape(cell.printed) or NONE)
            if column.metric:
                row.append(f"{cell.measured} {cell.interval}".strip() or NONE)
        rows.append(row)
    lines = [f"# {escape(table.title)}", "", f"Printed: {escape(_source(table))}", ""]
    lines += grid(heads, ["---", *["---:"] * (len(heads) - 1)], rows)
    lines += ["", "What was done otherwise here:", ""]
    lines += [
        f"- **{escape(what)}**: there {escape(there)}; here {escape(here)}"
        for what, there, here in laid.deviations
    ]
    return "\n".join(lines) + "\n"


def latex(laid: Laid) -> str:
    """The table as LaTeX: needs `\\usepackage{booktabs}` and nothing else."""
    table = laid.table
    spans, heads, rules = [], [], []
    place = 2
    for column in table.columns:
        arrow = {"↑": r" $\uparrow$", "↓": r" $\downarrow$", "": ""}[column.arrow]
        width = 2 if column.metric else 1
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{tex(column.head)}{arrow}}}")
        heads += [rf"{{\tiny {h}}}" for h in ("printed", "measured")[:width]]
        if column.metric:
            rules.append(rf"\cmidrule(lr){{{place}-{place + 1}}}")
        place += width
    body = []
    for line in laid.lines:
        row = [tex(line.name) + (r"$^{\ast}$" if line.remark == NO_WEIGHTS else "")]
        for column, cell in zip(table.columns, line.cells, strict=True):
            row.append(tex(cell.printed) or "--")
            if column.metric and cell.interval:
                row.append(
                    rf"\shortstack[r]{{{tex(cell.measured)}\\{{\tiny {tex(cell.interval)}}}}}"
                )
            elif column.metric:
                row.append(tex(cell.measured) or "--")
        body.append("  " + " & ".join(row) + r" \\")
    deviations = [
        rf"  \item {tex(what)}: there {tex(there)}; here {tex(here)}."
        for what, there, here in laid.deviations
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering\scriptsize\setlength{\tabcolsep}{2pt}",
        rf"\caption{{{tex(table.title)}. Printed: {tex(_source(table))} "
        r"$\ast$: no public weights, printed only.}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
        "  & " + " & ".join(spans) + r" \\",
        "".join(rules),
        "  & " + " & ".join(heads) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    if deviations:
        lines += [r"\begin{itemize}", *deviations, r"\end{itemize}"]
    return "\n".join(lines) + "\n"


def html(laid: Laid) -> str:
    """The table as a page that opens from disk and asks nothing of the network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("paper.html.j2").render(
        table=laid.table,
        lines=laid.lines,
        deviations=laid.deviations,
        source=_source(laid.table),
    )


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def tex(text: str) -> str:
    """The text with everything that LaTeX would take for its own made inert; ASCII alone."""
    escaped = "".join(_TEX.get(c, c) for c in " ".join(text.split()))
    return "".join(c if ord(c) < 128 else "?" for c in escaped)


def _source(table: Published) -> str:
    said = ", ".join(table.source[k] for k in ("paper", "venue", "place") if k in table.source)
    return f"{said}. {table.source['note']}" if "note" in table.source else f"{said}."


def _suite(table: Published, results: Results, suite: str | None) -> str:
    names = list(results.suites)
    if suite is not None:
        if suite not in names:
            raise UserError(f"the run has no suite {suite!r}; {choose_one_of(suite, names)}")
        names = [suite]
    if not table.factor:
        return names[0]
    wanted = {row.value for row in table.rows if row.value}
    for name in names:
        trials = results.suites[name].trials
        if wanted <= {trial.factors.get(table.factor) for trial in trials}:
            return name
    raise UserError(
        f"{table.name} has a row for each {table.factor} ({', '.join(sorted(wanted))}); "
        f"{', '.join(names)} has not all of them: run a suite that has"
    )


def _own_systems(results: Results) -> list[str]:
    return [s for s in systems_of(results) if s not in results.anchors]


def _system(row: Row, table: Published, results: Results) -> str | None:
    """The system of the run that stands for the row."""
    if table.setting:
        settings = results.provenance.get("systems", {})
        for system in _own_systems(results):
            value = settings.get(system, {}).get("settings", {}).get(table.setting)
            if value is not None and str(value) == row.value:
                return system
        return None
    present = systems_of(results)
    return next((system for system in row.systems if system in present), None)


def _remark(row: Row, system: str | None) -> str:
    if system is not None:
        return f"here: {system}"
    if row.weights == "none":
        return NO_WEIGHTS
    return "not in this run: printed only"


def _judges(table: Published, summary: pd.DataFrame) -> dict[str, str]:
    """Metric → the judge of the run that measured it (the first, where several did)."""
    found = {}
    for column in table.columns:
        rows = summary[(summary["metric"] == column.metric) & (summary["n"] > 0)]
        if len(rows):
            found[column.metric] = str(rows["judge"].iloc[0])
    return found


def _measured_cell(
    summary: pd.DataFrame, system: str, column: Column, judges: Mapping[str, str]
) -> Cell:
    rows = summary[
        (summary["system"] == system)
        & (summary["metric"] == column.metric)
        & (summary["judge"] == judges.get(column.metric, ""))
        & (summary["n"] > 0)
    ]
    if rows.empty:
        return Cell("")
    row = rows.iloc[0]
    bounds = interval(column.metric, row["low"], row["high"])
    return Cell("", number(column.metric, row["value"]), bounds)


def _deviations(
    table: Published,
    results: Results,
    suite: str,
    judges: Mapping[str, str],
    used: Sequence[str],
) -> list[tuple[str, str, str]]:
    """Everything that was stated there, with what holds here. Nothing is claimed to be equal."""
    facts = results.provenance
    systems = facts.get("systems", {})
    here = {
        "suite": f"{suite}, {len(results.suites[suite].trials)} trials",
        "data": "; ".join(
            f"{s}: {in_short(systems[s].get('trained_on') or ())}"
            for s in used
            if s in systems and s not in results.anchors
        ),
        "steps": _of_settings(systems, used, "steps"),
        "vocoder": _of_settings(systems, used, "vocoder"),
        "rtf": _hardware(facts),
    }
    judged = {metric: judge for metric, judge in judges.items() if metric != "rtf"}
    judged["dnsmos"] = next((j for m, j in judges.items() if m.startswith("dnsmos")), "")
    names = {"suite": "trials", "data": "training data", "rtf": "hardware", "dnsmos": "DNSMOS"}
    unknown = "not known from this run"
    lines = []
    for what, there in table.setup.items():
        mine = here.get(what) or judged.get(what) or unknown
        if what in METRICS and what not in judges and what != "rtf":
            mine = "no judge of this run measured it"
        lines.append(
            (names.get(what, METRICS[what].label if what in METRICS else what), there, mine)
        )
    for column in table.columns:
        if not column.metric:
            lines.append((column.head, "as printed", "not measured"))
        elif column.metric not in judges and column.metric not in table.setup:
            lines.append((column.head, "as printed", "no judge of this run measured it"))
    return lines


def _of_settings(systems: Mapping[str, Any], used: Sequence[str], key: str) -> str:
    found = [
        f"{s}: {systems[s]['settings'][key]}"
        for s in used
        if systems.get(s, {}).get("settings", {}).get(key) is not None
    ]
    return "; ".join(found)


def _hardware(facts: Mapping[str, Any]) -> str:
    machine = facts.get("machine", {})
    gpus = ", ".join(machine.get("gpus") or [])
    return (
        gpus
        or f"{machine.get('processor', 'unknown')}, {machine.get('torch_threads', '?')} threads"
    )
