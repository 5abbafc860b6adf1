"""Tables as people have them (CSV, TSV, JSONL, Parquet, spreadsheets) in chunks, their bad rows told together."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.data.uris import is_remote, local_path, open_uri
from mulan_core.errors import UserError, without_secrets

KINDS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx", ".ods")
ENDINGS = ".parquet, .csv, .tsv, .jsonl, .xlsx or .ods"
"""As a sentence names them."""
CHUNK_ROWS = 4096
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
MAX_CELL = 2**27
"""Characters of one cell of CSV; csv's own limit is 131,072, and a biography has more."""
SEPARATOR_LINE = re.compile(r'^"?sep=([^\w\s"]|\t)"?\1*\r?\n?$', re.I)
"""What Excel puts before a header to tell its separator."""
TWICE = "two columns with the name {!r}; rename or remove one"


@dataclass
class Problems:
    """Rows that cannot be used, each with a sentence for everything that is wrong with it."""

    table: str
    """Path or URL of the table."""
    most: int | None = 5
    """How many rows are kept with their sentences; null keeps all."""
    count: int = 0
    """Bad rows met; a row counts once."""
    bad_rows: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """(Row number, its sentences), the first of them."""
    last: int = 0
    """The last of the bad rows."""

    def add(self, number: int, *sentences: str) -> None:
        """Note all that is wrong with a row; rows count from 1, the header of a CSV file not among them."""
        self.count += 1
        self.last = max(self.last, number)
        if self.most is None or len(self.bad_rows) < self.most:
            self.bad_rows.append((number, tuple(map(without_secrets, sentences))))

    def raise_any(self, num_rows: int) -> None:
        """Raise one sentence about all of them, if there are any.

        Raises:
            UserError: with the first few rows, the first that is wrong with each, and the count.
        """
        if not self.count:
            return
        rows = "; ".join(
            f"row {number}, {sentences[0]}{_and_more(len(sentences) - 1)}"
            for number, sentences in sorted(self.bad_rows)
        )
        if self.count == 1:
            raise UserError(f"{self.table}, {rows}")
        more = self.count - len(self.bad_rows)
        rest = f"; and {more:,} more (`mulan data check` lists all)" if more else ""
        raise UserError(f"{self.table} has {self.count:,} bad rows of {num_rows:,}: {rows}{rest}")


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table, in order."""

    numbers: list[int]
    """Their row numbers, from 1."""
    rows: list[dict[str, Any]]
    """Their values by column; of Parquet the wanted columns alone."""
    batch: pa.RecordBatch | None = None
    """The same rows with all columns as they are typed in Parquet."""


@dataclass(frozen=True)
class Table:
    """An open table."""

    columns: list[str]
    """Names, where the table states them ahead: not in JSONL."""
    schema: pa.Schema | None
    """Types, where the table states them: in Parquet."""
    chunks: Iterator[Chunk]
    left_out: dict[str, Any] | None = None
    """Of a folder what it holds besides audio; see ``listing.Listing``."""


@contextmanager
def open_table(path: str | Path, problems: Problems, *, wanted: Sequence[str]) -> Iterator[Table]:
    """Open a table whose rows stream.

    Args:
        path: path or URL that ends in one of ``KINDS``.
        problems: takes the rows that cannot be read; the others stream on.
        wanted: columns that are converted to Python values, of Parquet.

    Raises:
        UserError: for a missing file, an unknown kind, a header that cannot be right, or a file that breaks off.
    """
    name = str(path)
    kind = Path(name.partition("?")[0] if is_remote(path) else name).suffix.lower()
    if kind not in KINDS and (is_remote(path) or Path(local_path(path)).is_file()):
        raise UserError(f"{path} has the ending {kind or 'none'!r}; a table must be {ENDINGS}")
    with ExitStack() as opened:
        with _user_errors(path):
            file = opened.enter_context(open_uri(path, allow_private=True))  # a person has named it
            if kind == ".parquet":
                table = _parquet(file, name, wanted)
            elif kind in (".xlsx", ".ods"):
                from mulan_core.data.spreadsheets import read_spreadsheet  # it stands on this file

                table = read_spreadsheet(file, name, problems)
            else:
                table = _text(file, name, kind, problems)
        yield Table(table.columns, table.schema, _telling(table.chunks, path))


@contextmanager
def _user_errors(path: str | Path) -> Iterator[None]:
    """What libraries raise while they read, as a sentence."""
    try:
        yield
    except UserError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        message = f"there is no file {path}" if is_remote(path) else str(error)
        raise UserError(f"{message}; give the path of a {ENDINGS} table") from error
    except Exception as error:
        # The libraries behind URLs raise what they like; of a local file anything else is a mistake of ours.
        if not is_remote(path) and not isinstance(error, OSError | ValueError | pa.ArrowException):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: {message}") from error


def _telling(chunks: Iterator[Chunk], path: str | Path) -> Iterator[Chunk]:
    with _user_errors(path):
        yield from chunks


def _text(file: BinaryIO, path: str, kind: str, problems: Problems) -> Table:
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var]
    if buffered.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is encoded in UTF-16; save it as UTF-8")
    # Bytes that are not UTF-8 pass as lone surrogates, so that they can be told by row and column.
    lines = io.TextIOWrapper(buffered, encoding="utf-8-sig", errors="surrogateescape", newline="")
    return _delimited(lines, path, kind, problems) if kind in (".csv", ".tsv") else _json(lines, problems)


def _parquet(file: BinaryIO, path: str, wanted: Sequence[str]) -> Table:
    table = pq.ParquetFile(file)
    refuse_repeated(table.schema_arrow.names, path)
    names = [name for name in table.schema_arrow.names if name in wanted]

    def chunks() -> Iterator[Chunk]:
        first = 1
        for batch in table.iter_batches(batch_size=CHUNK_ROWS):
            yield Chunk(list(range(first, first + len(batch))), batch.select(names).to_pylist(), batch)
            first += len(batch)

    return Table(table.schema_arrow.names, table.schema_arrow, chunks())


def _delimited(lines: io.TextIOBase, path: str, kind: str, problems: Problems) -> Table:
    csv.field_size_limit(MAX_CELL)  # one number for the process, which other libraries set too
    delimiter, first = "\t" if kind == ".tsv" else ",", lines.readline()
    stated = SEPARATOR_LINE.match(first)
    if stated:
        delimiter = stated[1]
    reader = csv.reader(lines if stated else chain([first], lines), delimiter=delimiter, strict=True)

    def cells() -> Iterator[tuple[int, list[str] | str]]:
        while True:
            try:
                row: list[str] | str = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row = f"{error}; look for a quote that is not closed"
            yield reader.line_num + bool(stated), row

    return table_of_cells(cells(), path, problems, delimiter)


def table_of_cells(
    lines: Iterator[tuple[int, list[str] | str]], path: str, problems: Problems, delimiter: str = ","
) -> Table:
    """A table whose first line is its header, without what spreadsheets leave: empty lines, and columns without a name.

    Args:
        lines: their numbers from 1, and their cells, or what is wrong with one.
        path: of the table.
        problems: takes the rows that have more or fewer cells than the header.
        delimiter: what stands between cells.

    Raises:
        UserError: for a header that cannot be right.
    """
    header = next((row for _, row in lines if _holds_any(row)), [])
    if isinstance(header, str):
        raise UserError(f"{path}, header: {header}")
    header = [name.strip() for name in header]
    while header and not header[-1]:
        header.pop()
    _check_header([name for name in header if name], path, delimiter)

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for line, row in lines:
            if not _holds_any(row):
                continue
            number += 1
            if isinstance(row, str):
                problems.add(number, f"line {line}: {row}")
            elif len(row) < len(header) or _holds_any(row[len(header) :]):
                fewer = "more" if len(row) > len(header) else "fewer"
                problems.add(
                    number,
                    f"line {line}: {fewer} cells than the header has columns ({len(row)}, {len(header)})"
                    + f"; put a cell that holds one of the {DELIMITERS.get(delimiter, delimiter)} in quotes"
                    * (fewer == "more"),
                )
            else:
                yield number, {name: cell for name, cell in zip(header, row, strict=False) if name and cell}

    return Table(list(filter(None, header)), None, _chunks(rows()))


def _holds_any(row: list[str] | str) -> bool:
    return any(map(str.strip, row))


def _check_header(header: list[str], path: str, delimiter: str) -> None:
    if len(header) == 1:
        for other, name in DELIMITERS.items():
            if other in header[0]:
                ending = "give it the ending .tsv" if other == "\t" else "save it with commas"
                raise UserError(
                    f"{path} looks separated by {name}, not {DELIMITERS.get(delimiter, delimiter)}; {ending}"
                )
    refuse_repeated(header, path)
    if any("\udc80" <= letter <= "\udcff" or letter == "\0" for name in header for letter in name):
        raise UserError(f"the header of {path} is not UTF-8 text; save the table as UTF-8")


def refuse_repeated(names: Sequence[str], path: str) -> None:
    """Refuse a table in which two columns have one name.

    Raises:
        UserError: with the name.
    """
    if (twice := _repeated(names)) is not None:
        raise UserError(f"{path} has {TWICE.format(twice)}")


def _repeated(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _json(lines: io.TextIOBase, problems: Problems) -> Table:
    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except _RepeatedError as error:
                problems.add(number, f"it has {TWICE.format(error.args[0])}")
                continue
            except json.JSONDecodeError as error:
                problems.add(number, f"not valid JSON from character {error.pos + 1} on")
                continue
            except (ValueError, RecursionError):
                problems.add(number, "not valid JSON (a number too long, or nested too deeply)")
                continue
            if not isinstance(row, dict):
                problems.add(number, "must be one JSON object a line")
                continue
            yield number, row

    return Table([], None, _chunks(rows()))


class _RepeatedError(Exception):
    """A JSON object has one name twice, of which ``json`` would keep the last."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise _RepeatedError(_repeated(name for name, _ in pairs))
    return row


def _chunks(rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Chunk]:
    numbers: list[int] = []
    values: list[dict[str, Any]] = []
    for number, row in rows:
        numbers.append(number)
        values.append(row)
        if len(values) == CHUNK_ROWS:
            yield Chunk(numbers, values)
            numbers, values = [], []
    if values:
        yield Chunk(numbers, values)


def unencodable(value: Any) -> str | None:
    """Say which part of a value is not text that UTF-8 can hold, or None."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            letter = ord(value[error.start])
            byte = f"the byte 0x{letter & 0xFF:02X}" if 0xDC80 <= letter <= 0xDCFF else f"the code U+{letter:04X}"
            return f"{byte} is not UTF-8 text; save the table as UTF-8"
        return None
    parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
    if isinstance(parts, list):
        return next((reason for part in parts if (reason := unencodable(part))), None)
    return None
