"""The forms of a published table with measured rows: Markdown, LaTeX, HTML, CSV."""

import csv as csv_module
import io
from pathlib import Path

import jinja2

from reports.papers.published import Laid, Line, Published
from reports.text.markup import escape, grid

TEMPLATES = Path(__file__).parent.parent / "html" / "templates"
NONE = "–"


def markdown(laid: Laid) -> str:
    """The table as GitHub-flavoured Markdown."""
    table = laid.table
    heads = ["", *(f"{escape(column.head)} {column.arrow}".strip() for column in table.columns)]
    rows = [
        [
            f"{escape(line.name)}<br><sub>{escape(line.remark)}</sub>",
            *(escape(cell.text) or NONE for cell in line.cells),
        ]
        for line in laid.lines
    ]
    lines = [f"# {escape(table.title)}", "", f"Printed: {escape(source_of(table))}", ""]
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
    arrows = {"↑": r" $\uparrow$", "↓": r" $\downarrow$", "": ""}
    heads = [f"{tex(column.head)}{arrows[column.arrow]}" for column in table.columns]
    body = ["  " + " & ".join(_tex_row(line)) + r" \\" for line in laid.lines]
    deviations = [
        rf"  \item {tex(what)}: there {tex(there)}; here {tex(here)}."
        for what, there, here in laid.deviations
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering\scriptsize\setlength{\tabcolsep}{2pt}",
        rf"\caption{{{tex(table.title)}. Printed: {tex(source_of(table))}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
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
        source=source_of(laid.table),
    )


def csv(laid: Laid) -> str:
    """The table as CSV: a line a row, with a value and its interval for each column.

    Columns: row, remark, measured (true for a row of this run), system, checkpoint; then for each
    column of the paper its head, and "<head> low", "<head> high" and "<head> judge", which are
    empty in printed rows.
    """
    heads = ["row", "remark", "measured", "system", "checkpoint"]
    for column in laid.table.columns:
        heads += [column.head, *(f"{column.head} {part}" for part in ("low", "high", "judge"))]
    file = io.StringIO()
    writer = csv_module.writer(file, lineterminator="\n")
    writer.writerow(heads)
    for line in laid.lines:
        row = [line.name, line.remark, str(line.measured).lower(), line.system, line.checkpoint]
        for cell in line.cells:
            row += [cell.value, *(cell.bounds or ("", "")), cell.judge]
        writer.writerow([" ".join(text.split()) for text in row])
    return file.getvalue()


def source_of(table: Published) -> str:
    """Where the table was printed, in a sentence."""
    parts = ", ".join(table.source[k] for k in ("paper", "venue", "place") if k in table.source)
    return f"{parts}. {table.source['note']}" if "note" in table.source else f"{parts}."


def _tex_row(line: Line) -> list[str]:
    """The cells of a row: the parts of its remark and the intervals stand below, in small type."""
    remark = [rf"{{\tiny {tex(part)}}}" for part in line.remark.split("; ")]
    row = [r"\shortstack[l]{" + r"\\".join([tex(line.name), *remark]) + "}"]
    for cell in line.cells:
        if cell.interval:
            row.append(rf"\shortstack[r]{{{tex(cell.value)}\\{{\tiny {tex(cell.interval)}}}}}")
        else:
            row.append(tex(cell.value) or "--")
    return row


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
