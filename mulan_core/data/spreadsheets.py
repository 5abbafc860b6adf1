"""Spreadsheets (.xlsx, .ods) as tables: the first sheet that is shown, its cells as the text that people see.

Read with calamine. It tells values and not their formats: a number is written as briefly as it can be, so the digits
that a format adds (00042, 50 %) are not there.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from typing import BinaryIO

from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum, XmlError

from mulan_core.data.tables import Problems, Table, table_of_cells
from mulan_core.errors import UserError


def read_spreadsheet(file: BinaryIO, path: str, problems: Problems) -> Table:
    """The first sheet of a spreadsheet, whose first line that holds anything is the header; held in memory as a whole.

    Args:
        file: open for reading.
        path: where it lies.
        problems: takes the rows that cannot be read.

    Raises:
        UserError: if it is no spreadsheet, needs a password, or shows no sheet.
    """
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
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
