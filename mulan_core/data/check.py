"""What prepare would say of a manifest, told before any work: rows, files by their headers, texts, hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mulan_core.audio.decode import AudioError, read_length
from mulan_core.config import PrepareConfig
from mulan_core.data.folder import remedy_of_missing
from mulan_core.data.names import same_but_typed_otherwise
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
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Read a manifest and the header of every file it names; decode nothing.

    Args:
        manifest: a table or a folder of audio, by path or URL.
        config: the numbers of prepare, and whether addresses that are not public may be asked.
        allow_outside: take local files outside the manifest's folder.
        outlook: is shown each usable track, to tell later what the stages behind prepare would say. The texts are
            judged by its numbers.
        progress: called with the number of rows looked at.

    Returns:
        ``rows``; ``bad_rows`` with row and problems, of which ``duplicate_ids``; ``bad_files`` with track_id, uri,
        reason, detail; ``reasons``, their counts; ``usable`` tracks as far as headers tell; ``hours`` of clips and
        ``splits`` of those; ``remote``, files that were asked for but not opened; ``texts`` by source before and after
        the rules, and how many of each are ``dropped`` for which reason; ``without_text``, usable tracks that have
        none; ``warnings``, sentences about what is allowed but hardly meant. What it tells is without the passwords
        that uris may hold.

    Raises:
        UserError: if the manifest cannot be read at all.
    """
    problems = Problems(str(manifest), most=None)
    bad_files: list[dict[str, str]] = []
    splits: Counter[str] = Counter()
    before: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {}
    text_config = outlook.config.text if outlook else DEFAULTS
    remote = rows = without_text = 0
    seconds = 0.0
    alike: dict[str, str] = {}
    warnings: list[str] = []
    refusals: dict[str, str] = {}
    allow_private = config.allow_private
    with open_manifest(manifest, problems=problems, allow_outside=allow_outside, allow_private=allow_private) as opened:
        for batch in opened.batches:
            tracks = batch.to_pylist()
            for track_id in (row["track_id"] for row in tracks if not row["track_id"].isascii()):
                other = alike.setdefault(same_but_typed_otherwise(track_id), track_id)
                if other != track_id:
                    warnings.append(_alike_words(other, track_id))
            places = [locate(row["uri"], opened.root) for row in tracks]
            marks = fingerprints(places, allow_private=allow_private, refusals=refusals)
            for row, place, mark in zip(tracks, places, marks, strict=True):
                remote += is_remote(place)
                try:
                    if place in refusals:
                        raise AudioError("refused", f"{place} is not asked for: {refusals[place]}")
                    seconds += _clip_length(row, place, mark, config)
                    splits[row["split"]] += 1
                except AudioError as error:
                    told = {"track_id": row["track_id"], "uri": without_secrets(row["uri"]), "reason": error.reason}
                    remedy = remedy_of_missing(row["uri"]) if error.reason == "missing" else ""
                    bad_files.append(told | {"detail": f"{error}{remedy}"})
                    continue
                without_text += not any(text["text"].strip() for text in row["texts"])
                judged = filter_texts(row["texts"], text_config, names=names_of(row))
                for text in judged:
                    before[text["source"]] += 1
                    if text["drop"]:
                        dropped.setdefault(text["source"], Counter())[text["drop"]] += 1
                if outlook:
                    outlook.add(row, judged, place=place)
            rows += len(batch)
            if progress:
                progress(rows)
    bad_rows = [{"row": number, "problems": list(said)} for number, said in sorted(problems.told)]
    if without_text:
        warnings.append(
            f"{without_text:,} of {splits.total():,} usable tracks have no text; they are indexed and evaluated, and "
            "training on texts passes over them"
        )
    return {
        "manifest": without_secrets(str(manifest)),
        "rows": rows + len(bad_rows),
        "bad_rows": bad_rows,
        "duplicate_ids": sum(said[-1].startswith("id ") for _, said in problems.told),
        "bad_files": bad_files,
        "reasons": dict(Counter(file["reason"] for file in bad_files).most_common()),
        "usable": splits.total(),
        "splits": dict(sorted(splits.items())),
        "hours": round(seconds / 3600, 3),
        "remote": remote,
        "texts": {
            source: {"before": before[source], "after": before[source] - dropped.get(source, Counter()).total()}
            for source in sorted(before)
        },
        "dropped": {source: dict(reasons.most_common()) for source, reasons in sorted(dropped.items())},
        "without_text": without_text,
        "warnings": warnings,
    }


def _alike_words(one: str, other: str) -> str:
    return (
        f"the ids {one!a} and {other!a} look the same, but are typed with other characters (one is not NFC), "
        "so they are two tracks; give them one spelling if they are one"
    )


def _clip_length(row: dict[str, Any], place: str, mark: str | None, config: PrepareConfig) -> float:
    """Seconds of the clip that would be cut; of a remote file that answers, the configured length."""
    if is_remote(place):
        if mark is None:
            raise AudioError("missing", f"there is no file {place}, or its server is out of reach")
        length = float("inf")
    else:
        length = read_length(place, max_s=config.max_s)
    segment = max(0.0, length - (row["start_s"] or 0.0))
    segment = min(segment, row["duration_s"] or segment, config.clip_s)
    if segment < config.min_s:
        raise AudioError("too_short", f"the segment lasts {segment:.2f} s; at least {config.min_s:g} s are needed")
    return segment
