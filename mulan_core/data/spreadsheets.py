"""Spreadsheets (.xlsx, .ods) as tables: the first sheet that is shown, its cells as the text that people see.

Read with calamine. It tells values and not their formats: a number is written as briefly as it can be, so the digits
that a format adds (00042, 50 %) are not there.
"""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from collections.abc import Iterator
from typing import IO, BinaryIO

from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum, XmlError

from mulan_core.data.tables import Problems, Table, table_of_cells
from mulan_core.errors import UserError

MAX_CELLS, MAX_UNPACKED_BYTES = 16_000_000, 1 << 30
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_CELL = re.compile(rb"""\br=["']([A-Z]{1,3})([0-9]{1,7})["']""")
_MAX_CELL_BYTES = 16


def read_spreadsheet(file: BinaryIO, path: str, problems: Problems) -> Table:
    """The first sheet of a spreadsheet, whose first line that holds anything is the header; held in memory as a whole.

    Args:
        file: open for reading.
        path: where it lies.
        problems: takes the rows that cannot be read.

    Raises:
        UserError: if it is no spreadsheet, needs a password, or shows no sheet.
    """
    data = io.BytesIO(file.read())
    _check_size(data, path)
    try:
        book = CalamineWorkbook.from_filelike(data)
        shown = (
            index
            for index, sheet in enumerate(book.sheets_metadata)
            if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible
        )
        index = next(shown, None)
        if index is None:
            raise UserError(f"the spreadsheet {path} shows no sheet; save the one with the tracks as CSV")
        lines = book.get_sheet_by_index(index).to_python(skip_empty_area=False)
    except PasswordError as error:
        raise UserError(f"the spreadsheet {path} needs a password; save it without one") from error
    except (CalamineError, XmlError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read the spreadsheet {path}: {reason}; save it anew, or as CSV") from error

    def cells() -> Iterator[tuple[int, list[str] | str]]:
        for number, line in enumerate(lines, start=1):
            yield number, [seen_text(value) for value in line]

    return table_of_cells(cells(), path, problems)


def _check_size(data: BinaryIO, path: str) -> None:
    """Refuse what calamine would set memory aside for without a word: it holds the cells between two as well."""
    try:
        with zipfile.ZipFile(data) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
            sheets = [part for part in parts.infolist() if _SHEET.fullmatch(part.filename)]
            if unpacked > MAX_UNPACKED_BYTES:
                raise UserError(f"the spreadsheet {path} unpacks to {unpacked / 1e6:,.0f} MB; save it as CSV")
            for sheet in sheets:
                with parts.open(sheet) as cells:
                    columns, rows = _corner(cells)
                if columns * rows > MAX_CELLS:
                    raise UserError(
                        f"the spreadsheet {path} has a sheet of {columns:,} columns and {rows:,} rows, which do not "
                        "fit in memory; delete the cell far from the others, or save the table as CSV"
                    )
    except zipfile.BadZipFile:
        return  # calamine says what it is
    finally:
        data.seek(0)


def _corner(sheet: IO[bytes]) -> tuple[int, int]:
    """How many columns and rows there are up to the last cell of a sheet's XML."""
    columns = rows = 0
    behind = b""
    while block := sheet.read(1 << 20):
        for letters, digits in _CELL.findall(behind + block):
            column = 0
            for letter in letters:
                column = 26 * column + letter - 64
            columns, rows = max(columns, column), max(rows, int(digits))
        behind = block[-_MAX_CELL_BYTES:]
    return columns, rows


def seen_text(value: object) -> str:
    """What a cell shows.

    >>> seen_text(1999.0), seen_text(0.1 + 0.2), seen_text(True), seen_text(datetime.timedelta(minutes=3, seconds=45))
    ('1999', '0.3', 'TRUE', '0:03:45')
    >>> seen_text(datetime.datetime(2026, 11, 30)), seen_text(datetime.datetime(2026, 11, 30, 18, 5))
    ('2026-11-30', '2026-11-30 18:05:00')
    """
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    return str(value).removesuffix(" 00:00:00") if isinstance(value, datetime.datetime) else str(value)
