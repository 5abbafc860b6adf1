"""What prepare would say of a manifest, told before any work: rows, files by their headers, texts, hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mulan_core.audio.decode import AudioError, read_length
from mulan_core.config import PrepareConfig
from mulan_core.data.folder import remedy_of_missing
from mulan_core.data.names import same_but_typed_otherwise
from mulan_core.data.playlist_match import add_titles
from mulan_core.data.tables import Problems
from mulan_core.data.tracks import open_manifest
from mulan_core.data.uris import fingerprints, is_remote, locate
from mulan_core.errors import without_secrets
from mulan_core.text.filters import DEFAULTS, filter_texts, names_of

if TYPE_CHECKING:
    from mulan_core.outlook import Outlook


def check_manifest(
    manifest: str | Path,
    config: PrepareConfig,
    *,
    allow_outside: bool = False,
    outlook: Outlook | None = None,
    titles: Mapping[str, list[str]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Read a manifest and the header of every file it names; decode nothing.

    Args:
        manifest: a table or a folder of audio, by path or URL.
        config: the numbers of prepare, and whether addresses that are not public may be asked.
        allow_outside: take local files outside the manifest's folder.
        outlook: is shown each usable track, to tell later what the stages behind prepare would say. The texts are
            judged by its numbers.
        titles: by track, those of playlists that become its texts.
        progress: called with the number of rows looked at.

    Returns:
        ``rows``; ``left_out``, of a folder what it holds besides audio (``listing.Listing``), else null; ``bad_rows``
        with row and problems, of which ``duplicate_ids``; ``bad_files`` with track_id, uri, reason, detail;
        ``reasons``, their counts; ``usable`` tracks as far as headers tell; ``hours`` of clips and ``splits`` of those;
        ``remote``, files that were asked for but not opened; ``texts`` by source before and after
        the rules, and how many of each are ``dropped`` for which reason; ``without_text``, usable tracks that have
        none; ``warnings``, sentences about what is allowed but hardly meant. What it tells is without the passwords
        that uris may hold.

    Raises:
        UserError: if the manifest cannot be read at all.
    """
    problems = Problems(str(manifest), most=None)
    tally = _Tally(config, outlook)
    outside, private, moved = allow_outside, config.allow_private, config.moved
    with open_manifest(
        manifest, problems=problems, allow_outside=outside, allow_private=private, moved=moved
    ) as opened:
        tally.warnings += opened.notes
        for batch in opened.batches:
            tally.add([add_titles(row, titles or {}) for row in batch.to_pylist()], opened.root)
            if progress:
                progress(tally.rows)
        left_out = opened.left_out
    bad_rows = [{"row": number, "problems": list(sentences)} for number, sentences in sorted(problems.bad_rows)]
    return {
        "manifest": without_secrets(str(manifest)),
        "rows": tally.rows + len(bad_rows),
        "bad_rows": bad_rows,
        "left_out": left_out,
        "duplicate_ids": sum(sentences[-1].startswith("id ") for _, sentences in problems.bad_rows),
        **tally.as_mapping(),
    }


class _Tally:
    """What the rows and files have shown so far."""

    def __init__(self, config: PrepareConfig, outlook: Outlook | None) -> None:
        self.rows = 0
        self._config, self._outlook = config, outlook
        self._texts = outlook.config.text if outlook else DEFAULTS
        self._bad_files: list[dict[str, str]] = []
        self._splits: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._dropped: dict[str, Counter[str]] = {}
        self._remote = self._without_text = 0
        self._seconds = 0.0
        self._alike: dict[str, str] = {}
        self.warnings: list[str] = []
        self._refusals: dict[str, str] = {}

    def add(self, tracks: Sequence[dict[str, Any]], root: str) -> None:
        """Look at some rows and the headers of their files."""
        for track_id in (row["track_id"] for row in tracks if not row["track_id"].isascii()):
            other = self._alike.setdefault(same_but_typed_otherwise(track_id), track_id)
            if other != track_id:
                self.warnings.append(_alike_words(other, track_id))
        locations = [locate(row["uri"], root) for row in tracks]
        marks = fingerprints(locations, allow_private=self._config.allow_private, refusals=self._refusals)
        for row, location, mark in zip(tracks, locations, marks, strict=True):
            self._remote += is_remote(location)
            try:
                if location in self._refusals:
                    raise AudioError("refused", f"{location} is not asked for: {self._refusals[location]}")
                self._seconds += _clip_length(row, location, mark, self._config)
            except AudioError as error:
                bad_file = {"track_id": row["track_id"], "uri": without_secrets(row["uri"]), "reason": error.reason}
                remedy = remedy_of_missing(row["uri"]) if error.reason == "missing" else ""
                self._bad_files.append(bad_file | {"detail": f"{error}{remedy}"})
            else:
                self._add_usable(row, location)
        self.rows += len(tracks)

    def _add_usable(self, row: dict[str, Any], location: str) -> None:
        self._splits[row["split"]] += 1
        self._without_text += not any(text["text"].strip() for text in row["texts"])
        judged = filter_texts(row["texts"], self._texts, names=names_of(row))
        for text in judged:
            self._before[text["source"]] += 1
            if text["drop"]:
                self._dropped.setdefault(text["source"], Counter())[text["drop"]] += 1
        if self._outlook:
            self._outlook.add(row, judged, location=location)

    def as_mapping(self) -> dict[str, Any]:
        """The part of the answer that the files and texts decide; see ``check_manifest``."""
        warnings, before, dropped = list(self.warnings), self._before, self._dropped
        if self._without_text:
            warnings.append(
                f"{self._without_text:,} of {self._splits.total():,} usable tracks have no text; they are indexed and "
                "evaluated, and training on texts passes over them"
            )
        return {
            "bad_files": self._bad_files,
            "reasons": dict(Counter(file["reason"] for file in self._bad_files).most_common()),
            "usable": self._splits.total(),
            "splits": dict(sorted(self._splits.items())),
            "hours": round(self._seconds / 3600, 3),
            "remote": self._remote,
            "texts": {
                source: {"before": before[source], "after": before[source] - dropped.get(source, Counter()).total()}
                for source in sorted(before)
            },
            "dropped": {source: dict(reasons.most_common()) for source, reasons in sorted(dropped.items())},
            "without_text": self._without_text,
            "warnings": warnings,
        }


def _alike_words(first: str, second: str) -> str:
    return (
        f"the ids {first!a} and {second!a} look the same, but are typed with other characters (one is not NFC), "
        "so they are two tracks; give them one spelling if they are one"
    )


def _clip_length(row: dict[str, Any], location: str, mark: str | None, config: PrepareConfig) -> float:
    """Seconds of the clip that would be cut; of a remote file that answers, the configured length."""
    if is_remote(location):
        if mark is None:
            raise AudioError("missing", f"there is no file {location}, or its server is out of reach")
        length = float("inf")
    else:
        length = read_length(location)
    segment = max(0.0, length - (row["start_s"] or 0.0))
    segment = min(segment, row["duration_s"] or segment)
    if config.max_s < segment < float("inf"):
        raise AudioError("too_long", f"the audio lasts {segment:.1f} s; at most {config.max_s:g} s are taken")
    segment = min(segment, config.clip_s)
    if segment < config.min_s:
        raise AudioError("too_short", f"the segment lasts {segment:.2f} s; at least {config.min_s:g} s are needed")
    return segment
