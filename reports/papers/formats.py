"""A paper's table as Markdown, LaTeX, HTML and CSV."""

import csv as csv_module
import io
from pathlib import Path

import jinja2

from reports.papers.published import Published
from reports.papers.table import PaperRow, PaperTable
from reports.text.markup import escape, grid

TEMPLATES = Path(__file__).parent.parent / "html" / "templates"
NONE = "–"
PARTS = ("low", "high", "judge", "kinship")  # of a measured number, beside its value


def markdown(filled: PaperTable) -> str:
    """The table as GitHub-flavoured Markdown."""
    table = filled.table
    heads = ["", *(f"{escape(column.head)} {column.arrow}".strip() for column in table.columns)]
    rows = [
        [
            f"{escape(row.name)}<br><sub>{escape(row.remark)}</sub>",
            *(escape(cell.text) or NONE for cell in row.cells),
        ]
        for row in filled.rows
    ]
    lines = [f"# {escape(table.title)}", "", f"Printed: {escape(source_of(table))}", ""]
    lines += grid(heads, ["---", *["---:"] * (len(heads) - 1)], rows)
    lines += ["", *(escape(note) for note in filled.notes)] if filled.notes else []
    lines += ["", "What differs here:", ""]
    lines += [
        f"- **{escape(what)}**: there {escape(there)}; here {escape(here)}"
        for what, there, here in filled.deviations
    ]
    return "\n".join(lines) + "\n"


def latex(filled: PaperTable) -> str:
    """The table as LaTeX. It needs only `\\usepackage{booktabs}`."""
    table = filled.table
    arrows = {"↑": r" $\uparrow$", "↓": r" $\downarrow$", "": ""}
    heads = [f"{tex(column.head)}{arrows[column.arrow]}" for column in table.columns]
    body = ["  " + " & ".join(_tex_row(row)) + r" \\" for row in filled.rows]
    deviations = [
        rf"  \item {tex(what)}: there {tex(there)}; here {tex(here)}."
        for what, there, here in filled.deviations
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
    lines += [tex(note) for note in filled.notes]
    if deviations:
        lines += [r"\begin{itemize}", *deviations, r"\end{itemize}"]
    return "\n".join(lines) + "\n"


def html(filled: PaperTable) -> str:
    """The table as a page that opens from disk and needs no network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("paper.html.j2").render(
        table=filled.table,
        rows=filled.rows,
        deviations=filled.deviations,
        notes=filled.notes,
        source=source_of(filled.table),
    )


def csv(filled: PaperTable) -> str:
    """The table as CSV: a value and its interval for each row and column.

    Columns: row, remark, measured (true for a row of this run), system, checkpoint; then for each
    column of the paper its head, and "<head> low", "<head> high", "<head> judge" and "<head>
    kinship" (of judge and system, in words), which are empty in printed rows.
    """
    heads = ["row", "remark", "measured", "system", "checkpoint"]
    for column in filled.table.columns:
        heads += [column.head, *(f"{column.head} {part}" for part in PARTS)]
    file = io.StringIO()
    writer = csv_module.writer(file, lineterminator="\n")
    writer.writerow(heads)
    for row in filled.rows:
        texts = [row.name, row.remark, str(row.measured).lower(), row.system, row.checkpoint]
        for cell in row.cells:
            texts += [cell.value, *(cell.bounds or ("", "")), cell.judge, cell.kinship]
        writer.writerow([" ".join(text.split()) for text in texts])
    return file.getvalue()


def source_of(table: Published) -> str:
    """The source of the printed table, in a sentence."""
    parts = ", ".join(table.source[k] for k in ("paper", "venue", "place") if k in table.source)
    return f"{parts}. {table.source['note']}" if "note" in table.source else f"{parts}."


def _tex_row(row: PaperRow) -> list[str]:
    """The cells of a row. The parts of the remark and the intervals are below, in small type."""
    remark = [rf"{{\tiny {tex(part)}}}" for part in row.remark.split("; ")]
    cells = [r"\shortstack[l]{" + r"\\".join([tex(row.name), *remark]) + "}"]
    for cell in row.cells:
        if cell.interval:
            value = tex(f"{cell.value}{cell.mark}")
            cells.append(rf"\shortstack[r]{{{value}\\{{\tiny {tex(cell.interval)}}}}}")
        else:
            cells.append(tex(f"{cell.value}{cell.mark}") or "--")
    return cells


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$\dagger$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def tex(text: str) -> str:
    """Escapes every character that LaTeX would interpret; the result is ASCII."""
    escaped = "".join(_TEX.get(c, c) for c in " ".join(text.split()))
    return "".join(c if ord(c) < 128 else "?" for c in escaped)
