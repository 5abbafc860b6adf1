"""Label lines as music-descriptive or not: what to ask, in which order, and the file that nothing is lost from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.config import TextConfig
from mulan_core.errors import UserError
from mulan_core.text.filters import duplicate_key, form_reason, normalised
from mulan_core.text.music_score import music_score

CLEAR = 1.5
"""A line whose score lies this far from the rule's limit is a clear one."""


class Labelling:
    """One sitting: the line to ask next, the answers, one step back.

    Each answer is appended to the file at once; an answer that is taken back is followed by a line that says so.
    What the file has labelled is not asked again; a skipped line is, another time.
    """

    def __init__(self, lines: Sequence[str], path: Path, config: TextConfig) -> None:
        """Prepare the questions.

        Args:
            lines: what may be asked; those that the rules of form drop never reach a classifier and are left out.
            path: the file of labels, made where there is none.
            config: the rules.

        Raises:
            UserError: if the file is no file of labels.
        """
        self.path = path
        self.labels = read_labels(path) if path.exists() else {}
        labelled = {duplicate_key(text) for text in self.labels}
        distinct = {duplicate_key(line): normalised(line) for line in lines if not form_reason("lf", line, config)}
        self.queue = in_order([line for key, line in distinct.items() if key not in labelled], config)
        self._position = 0

    @property
    def current(self) -> str | None:
        """The line to ask about; None when all are done."""
        return self.queue[self._position] if self._position < len(self.queue) else None

    @property
    def left(self) -> int:
        """How many lines are left to ask."""
        return len(self.queue) - self._position

    def answer(self, describes: bool | None) -> None:
        """Label the current line, or with None skip it, and go on."""
        text = self.queue[self._position]
        if describes is not None:
            self.labels[text] = describes
            _append(self.path, text, describes)
        self._position += 1

    def undo(self) -> None:
        """Go back to the line before, of this sitting, and forget its label."""
        if self._position:
            self._position -= 1
            text = self.queue[self._position]
            if self.labels.pop(text, None) is not None:
                _append(self.path, text, None)


def in_order(lines: Iterable[str], config: TextConfig) -> list[str]:
    """Two lines that the rule is unsure of, a clear description, a clear other, and again; the least sure first.

    Hard lines teach a classifier most, and clear ones keep it from learning hard ones only. The order of the same
    lines is always the same.
    """
    doubts: list[tuple[float, bytes, str]] = []
    clear: dict[bool, list[tuple[bytes, str]]] = {True: [], False: []}
    for line in lines:
        margin, mark = music_score(line) - config.min_lf_score, hashlib.sha256(line.encode()).digest()
        if abs(margin) < CLEAR:
            doubts.append((abs(margin), mark, line))
        else:
            clear[margin > 0].append((mark, line))
    hard = iter([line for *_, line in sorted(doubts)])
    sides = [iter([line for _, line in sorted(clear[side])]) for side in (True, False)]
    ordered: list[str] = []
    while batch := [*islice(hard, 2), *islice(sides[0], 1), *islice(sides[1], 1)]:
        ordered += batch
    return ordered


def read_lines(path: Path) -> list[str]:
    """Lines of a file: the LF texts of a ``.parquet`` or ``.jsonl`` table with ``texts`` (or ``text``); else its lines.

    Raises:
        UserError: if the file is missing, cannot be read, or holds no line.
    """
    try:
        lines = [line for line in _lines(path) if line.strip()]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (pa.ArrowInvalid, ValueError) as error:
        raise UserError(f"cannot read {path} as {path.suffix[1:] or 'text'}: {error}") from error
    if not lines:
        raise UserError(f"{path} holds no line of text (and no text of source lf)")
    return lines


def read_labels(path: Path) -> dict[str, bool]:
    """Labelled lines of a file; of several labels for a line the last counts.

    Raises:
        UserError: if the file is missing or holds anything else.
    """
    labels: dict[str, bool] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the labels {path}: {error.strerror or error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["text"], str) or row["describes"] not in (True, False, None):
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            if number == len(text.splitlines()) and not text.endswith("\n"):
                break  # a kill tore the last line; its question is asked again
            raise UserError(
                f'{path}, line {number}: expected {{"text": ..., "describes": true or false}}, '
                "as `mulan text label` writes it"
            ) from error
        if row["describes"] is None:
            labels.pop(row["text"], None)
        else:
            labels[row["text"]] = row["describes"]
    return labels


def _append(path: Path, text: str, describes: bool | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    with path.open("ab") as file:
        if not written.endswith(b"\n"):
            file.truncate(written.rfind(b"\n") + 1)  # what a kill left of a line
        file.write(json.dumps({"text": text, "describes": describes}, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        columns = [name for name in ("texts", "text") if name in pq.read_schema(path).names]
        for row in pq.read_table(path, columns=columns).to_pylist():
            yield from _texts(row)
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if path.suffix == ".jsonl":
                yield from _texts(json.loads(line))
            else:
                yield line.rstrip("\n")


def _texts(row: dict[str, Any]) -> Iterator[str]:
    if row.get("text"):
        yield row["text"]
    yield from (text["text"] for text in row.get("texts") or () if text["source"] == "lf")
