"""Reads listeners' ratings from a CSV file."""

import csv
from pathlib import Path

import pandas as pd

from bench.errors import UserError
from bench.files import read_text


def read_ratings(path: Path) -> pd.DataFrame:
    """The table as it is in the file: every value a text, the index the line that a row ends in.

    `bench.stats.ratings.checked` describes the columns and checks the values.

    Raises:
        UserError: if the file is missing, is not UTF-8 text or no CSV, or a row has too few or too
            many values; with its line.
    """
    if not path.is_file():
        raise UserError(f"there are no ratings at {path}; give a CSV file")
    text = read_text(path, newline="")
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    rows, lines = [], []
    try:
        heads = [head.strip() for head in next(reader, [])]
        if len(set(heads)) < len(heads):
            name = next(h for h in heads if heads.count(h) > 1)
            raise UserError(f"{path}:{reader.line_num}: the column {name!r} is there twice")
        for row in reader:
            if not row:
                continue
            if len(row) != len(heads):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(row)} values, but {len(heads)} columns "
                    f"({', '.join(heads)}); a CSV has a comma between values"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: no CSV ({error}); correct the line") from error
    return pd.DataFrame(rows, columns=heads, index=lines, dtype=str)
