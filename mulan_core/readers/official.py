"""Official files: found in a folder and read row by row; what is wrong with one is told with its row."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mulan_core.data.tables import MAX_CELL
from mulan_core.errors import UserError

csv.field_size_limit(MAX_CELL)  # FMA has biographies longer than csv's own limit


def find_file(folder: Path, *names: str) -> Path:
    """The first of these files, relative to the folder, that is there.

    Raises:
        UserError: naming the folder and the file.
    """
    path = find_optional(folder, *names)
    if path is None:
        raise UserError(f"there is no {' or '.join(names)} in {folder}; give the folder with the official files")
    return path


def find_optional(folder: Path, *names: str) -> Path | None:
    """The first of these files that is there, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_rows(
    path: Path, columns: Sequence[str], *, delimiter: str = ",", skip_blanks: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table with a header, each with its place in words (``FILE, row 7``).

    Args:
        path: a UTF-8 file; CRLF and a byte-order mark do no harm.
        columns: columns that must be there; others are read too.
        delimiter: a comma or a tab.
        skip_blanks: take the blank after a delimiter as layout.

    Raises:
        UserError: for a missing column or a row with more or fewer cells than the header.
    """
    rows = read_cells(path, delimiter=delimiter, skip_blanks=skip_blanks)
    header = next(rows, (str(path), []))[1]
    check_header(path, header, columns, delimiter)
    for where, cells in rows:
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells where the header has {len(header)}")
        yield where, dict(zip(header, cells, strict=True))


def read_cells(
    path: Path, *, delimiter: str = ",", skip_blanks: bool = False, headers: int = 1
) -> Iterator[tuple[str, list[str]]]:
    """Cells of every row that has some. Row 1 comes after the headers; without any, # starts a comment."""
    with reading(path), path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=skip_blanks)
        counted = (cells for cells in rows if cells and (headers or not cells[0].startswith("#")))
        for number, cells in enumerate(counted, start=1 - headers):
            if any("\0" in cell for cell in cells):
                raise UserError(f"{path}, row {number}: a cell holds a zero byte; the file is damaged")
            yield f"{path}, row {number}", cells


def check_header(path: Path, header: Sequence[str], columns: Sequence[str], delimiter: str = ",") -> None:
    """Refuse a header that lacks a column.

    Raises:
        UserError: naming the file, the column, and what was found instead.
    """
    missing = [name for name in columns if name not in header]
    if missing:
        layout = "tab-separated" if delimiter == "\t" else "comma-separated"
        start = one_line(", ".join(header[:8]) + (", ..." if len(header) > 8 else "")) or "nothing"
        raise UserError(f"{path} has no column {missing[0]!r}; the official file is {layout}; found: {start}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell what goes wrong inside as one sentence about this file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path}: {one_line(error.strerror or error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table of text in UTF-8: {error}") from error


def to_list(value: object, where: str, column: str) -> list[str]:
    """A list of names, or the cell that spells one as Python does: ``['calm', 'piano']``; empty cells are empty lists.

    Raises:
        UserError: naming file, row and column.
    """
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value.strip() or "[]")
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two of brackets nested too deeply
            value = ""
    if value is not None and not isinstance(value, list):
        raise UserError(f"{where}, column {column!r}: not a list such as ['calm', 'piano']")
    return [str(item).strip() for item in value or [] if str(item).strip()]


def to_number(value: str, where: str, column: str) -> float:
    """A number of seconds, or a track's, out of a cell: from 0 to a billion.

    Raises:
        UserError: naming file, row and column.
    """
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise UserError(f"{where}, column {column!r}: not a number from 0: {shown(value)}")
    return number


def to_text(value: object, where: str, column: str) -> str:
    """The text of a typed cell.

    Raises:
        UserError: naming file, row and column, if it is empty, of another type, or holds a zero byte.
    """
    if isinstance(value, str) and value and "\0" not in value:
        return value
    raise UserError(f"{where}, column {column!r}: expected text, got {shown(value)}")


def shown(value: object) -> str:
    """A cell as a sentence shows it."""
    return one_line(repr(value))


def one_line(value: object) -> str:
    """What was found or a library says, short enough for a sentence."""
    return " ".join(str(value)[:200].splitlines()).strip()
