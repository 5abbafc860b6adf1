"""What the filters did, in the layout of the paper's Table 2: tokens and annotations per track by source.

One pass over judged texts, in any order and in any batches: counts add up, and the samples are the texts with the
smallest hashes, so the report of the same texts is always the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mulan_core.config import SOURCES
from mulan_core.errors import UserError
from mulan_core.text.filters import REASONS

REPORT, TABLE = "report.json", "report.md"

NUM_SAMPLES = 5
"""Kept and dropped texts shown of each source."""


class TextStatistics:
    """Counts over judged texts."""

    def __init__(self, count_tokens: Callable[[Sequence[str]], Sequence[int]], *, tokens: str) -> None:
        """Start from nothing.

        Args:
            count_tokens: the number of tokens of each text.
            tokens: what they are, for the report.
        """
        self._count, self._tokens = count_tokens, tokens
        self._num_tracks = 0
        self._sources = {source: _Source() for source in SOURCES}

    def add(self, tracks: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """Count some tracks: of each its ``{"source", "text", "drop"}``."""
        self._num_tracks += len(tracks)
        texts = [text for track in tracks for text in track]
        for text, num_tokens in zip(texts, self._count([text["text"] for text in texts]), strict=True):
            self._sources[text["source"]].add(text["text"], text["drop"], num_tokens)

    def report(self) -> dict[str, Any]:
        """The counts as plain values.

        Returns:
            ``tracks``, ``tokens`` (what they are) and, for each source that has texts, under ``sources``: ``before``
            and ``after`` with ``texts``, ``tokens`` and ``per_track`` (tracks without texts included), ``reasons``
            with the number of texts dropped for each, most frequent first, and samples ``kept`` and ``dropped``.
        """
        sources = {
            name: source.report(self._num_tracks) for name, source in self._sources.items() if source.before["texts"]
        }
        return {"tracks": self._num_tracks, "tokens": self._tokens, "sources": sources}


def count_words(texts: Sequence[str]) -> list[int]:
    """Words at white space, where there is no text tower whose tokens could be counted."""
    return [len(text.split()) for text in texts]


def to_markdown(report: Mapping[str, Any]) -> str:
    """A report as Markdown: the table, the reasons, the samples."""
    lines = [
        "# Texts before and after the filters",
        "",
        f"{report['tracks']} tracks. Tokens: {report['tokens']}. Per track: annotations, tracks without any included.",
        "",
        "| source | tokens before | per track before | tokens after | per track after | tokens a text after |",
        "|---|---|---|---|---|---|",
    ]
    for name, source in report["sources"].items():
        before, after = source["before"], source["after"]
        mean = f"{after['tokens'] / after['texts']:.1f}" if after["texts"] else "-"
        lines.append(
            f"| {name.upper()} | {before['tokens']:,} | {before['per_track']:.2f} | {after['tokens']:,} | "
            f"{after['per_track']:.2f} | {mean} |"
        )
    for name, source in report["sources"].items():
        lines += ["", f"## {name.upper()}"]
        if source["reasons"]:
            lines += ["", "| dropped for | texts | share | meaning |", "|---|---|---|---|"]
        for reason, number in source["reasons"].items():
            share = 100 * number / source["before"]["texts"]
            lines.append(f"| {reason} | {number} | {share:.1f} % | {REASONS.get(reason, '')} |")
        for title, samples in (("Kept", source["kept"]), ("Dropped", source["dropped"])):
            if samples:
                lines += ["", f"{title}, for example:", ""]
            for sample in samples:
                reason = f" *{sample['reason']}*" if "reason" in sample else ""
                lines.append(f"- {_plain(sample['text'])}{reason}")
    return "\n".join(lines) + "\n"


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write a report as ``report.json`` and ``report.md``."""
    (folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / TABLE).write_text(to_markdown(report), encoding="utf-8")


def read_report(folder: Path) -> dict[str, Any]:
    """The report in a folder of judged texts.

    Raises:
        UserError: if there is none.
    """
    path = folder / REPORT
    if not path.exists():
        raise UserError(f"there is no report {path}; run `mulan prepare` first")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@dataclass
class _Source:
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    samples: dict[bool, dict[str, dict[str, str]]] = field(default_factory=lambda: {True: {}, False: {}})

    def add(self, text: str, reason: str | None, num_tokens: int) -> None:
        self.before.update(texts=1, tokens=num_tokens)
        if reason is None:
            self.after.update(texts=1, tokens=num_tokens)
        else:
            self.reasons[reason] += 1
        samples = self.samples[reason is None]
        samples[hashlib.sha256(text.encode()).hexdigest()] = {"text": text} | ({"reason": reason} if reason else {})
        if len(samples) > NUM_SAMPLES:
            del samples[max(samples)]

    def report(self, num_tracks: int) -> dict[str, Any]:
        def counts(counter: Counter[str]) -> dict[str, float]:
            return {"texts": counter["texts"], "tokens": counter["tokens"], "per_track": counter["texts"] / num_tracks}

        return {
            "before": counts(self.before),
            "after": counts(self.after),
            "reasons": dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))),
            "kept": [self.samples[True][key] for key in sorted(self.samples[True])],
            "dropped": [self.samples[False][key] for key in sorted(self.samples[False])],
        }


def _plain(text: str) -> str:
    """One line of at most 120 characters that Markdown shows as it is."""
    text = " ".join(text.split())
    text = text if len(text) <= 120 else f"{text[:117]}..."
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text) or "(nothing)"
