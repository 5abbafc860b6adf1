"""What the stages behind prepare would say of a catalogue, told before any work: training, evaluation, gate, room.

Only what the rows, the files' headers and the numbers tell is asked; nothing is decoded. Files are hashed where two of
one size stand in training and evaluation.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from mulan_core import sizing
from mulan_core.config import Config
from mulan_core.counts import counted
from mulan_core.data.overlap import check_overlaps, find_overlaps
from mulan_core.data.playlists import check_known
from mulan_core.data.uris import is_remote, local_path
from mulan_core.errors import UserError
from mulan_core.evaluation.sets.content import playlist_content
from mulan_core.evaluation.tagging import split_label
from mulan_core.gate.quality import ITEMS, MIN_ITEMS, least_items
from mulan_core.text.filters import REASONS
from mulan_core.text.tokens import Tokens, open_tokens
from mulan_core.yaml_file import format_yaml

MAX_UNKNOWN = 0.05
"""A larger share of unknown tokens is told; of English texts BERT's tokenizer knows all but a few signs."""
MIN_TRACKS = 100
"""With fewer, a training teaches the towers too little to search by; another catalogue's model serves better."""
_AT_ONCE = 1000


class Outlook:
    """What ``check_manifest`` shows it, track by track; then the verdict."""

    def __init__(self, config: Config, playlists: Sequence[Mapping[str, Any]] = ()) -> None:
        """Start with no track.

        Args:
            config: the numbers of the catalogue.
            playlists: rows of its table of playlists.
        """
        self.config = config
        self._playlists = playlists
        self._rows: list[tuple[str, str, str, str, int]] = []
        self._segments: dict[str, tuple[float | None, float | None]] = {}
        self._usable: Counter[str] = Counter()
        self._with_text: Counter[str] = Counter()
        self._dropped: dict[str, Counter[str]] = {}
        self._texts: Counter[str] = Counter()
        self._queries: set[str] = set()
        self._facets: Counter[str] = Counter()
        self._held_out = 0
        self._words = _Words(config.model.text.pretrained)

    def add(self, row: Mapping[str, Any], judged: Sequence[Mapping[str, Any]], *, location: str) -> None:
        """Count a usable track.

        Args:
            row: of the manifest.
            judged: its texts with ``drop``.
            location: of its file, a path or a URL.
        """
        split, train = row["split"], self.config.train
        path = "" if is_remote(location) else local_path(location)
        self._rows.append((row["track_id"], row["dataset"], split, path, Path(path).stat().st_size if path else 0))
        if row["start_s"] or row["duration_s"]:
            self._segments[row["track_id"]] = row["start_s"], row["duration_s"]
        self._usable[split] += 1
        given = [text for text in judged if text["text"].strip()]
        kept = [text for text in given if text["drop"] is None]
        weighted = [
            text
            for text in (kept if train.use_filtered_text else given)
            if train.source_weights.get(text["source"], 0.0) > 0
        ]
        self._with_text[split] += bool(weighted)
        if split == "train":
            for text in judged:
                self._texts[text["source"]] += 1
                self._dropped.setdefault(text["source"], Counter())[text["drop"]] += text["drop"] is not None
        if split == "test":
            own = [text["text"].strip() for text in kept if text["source"] != "pl"]
            self._queries |= {max(own, key=len)} if own else set()
            self._facets.update({split_label(label)[0] for label in row["labels"]})
            self._held_out += bool(row.get("held_out"))
        self._words.add([text["text"] for text in given] + [split_label(label)[1] for label in row["labels"]])

    def report(self, *, seconds: float, disk_free: int, memory: int) -> dict[str, Any]:
        """The verdict.

        Args:
            seconds: of clips, all tracks together.
            disk_free: bytes that are free where the catalogue will be prepared.
            memory: bytes of memory of this machine.

        Returns:
            ``refusals``: why `mulan run` would stop or the gate refuse, in sentences; ``few``: the
            usable tracks where these are fewer than ``MIN_TRACKS``, or null; ``proposal``: YAML for a file of
            ``--params``, or null; ``advice``: how the splits would do, or null; ``needs``: disk and memory in a
            sentence; ``notes``: what will not stop it.
        """
        few, proposal, advice = self._gate()
        needs, short = self._room(seconds, disk_free, memory)
        refusals = [*self._training(), *few, *self._overlaps(), *short]
        notes = list(self._words.notes())
        if self.config.text.lf_classifier:
            notes.append("texts of source lf are judged here by the rule; prepare asks your classifier")
        if remote := sum(not path for *_, path, _ in self._rows):
            notes.append(
                f"{counted(remote, 'remote file is', 'remote files are')} compared "
                "once fetched: the same audio in two splits"
            )
        few_tracks = self._usable.total() if 0 < self._usable.total() < MIN_TRACKS else None
        verdict = {"refusals": refusals, "few": few_tracks}
        return verdict | {"proposal": proposal, "advice": advice, "needs": needs, "notes": notes}

    def _training(self) -> Iterator[str]:
        usable, train = self._usable, self.config.train
        if not usable["train"]:
            yield "no usable track is in split train, so there is nothing to train on"
        elif not self._with_text["train"]:
            yield f"no training track has a text to train on: {'; '.join(self._why_textless())}"
        if train.checkpoint_selection == "best" and self._with_text["valid"] < 2:
            yield (
                "train.checkpoint_selection is best, but fewer than two validation tracks have a text; take last, or "
                "put more tracks in split valid"
            )
        if not usable["test"]:
            yield "no usable track is in split test, so nothing can be evaluated"

    def _why_textless(self) -> Iterator[str]:
        if not self._texts:
            yield "there is none in the table (columns text and texts), nor in the tags of a folder's files"
        for source, number in self._texts.items():
            reasons = {reason: count for reason, count in self._dropped[source].most_common() if count}
            if not self.config.train.source_weights.get(source):
                yield f"{source}: train.source_weights gives it no weight"
            elif reasons:
                counts = ", ".join(f"{count:,} {reason} ({REASONS[reason]})" for reason, count in reasons.items())
                yield f"{source}: the filters drop {sum(reasons.values()):,} of {number:,}: {counts}"
            else:
                yield f"{source}: {counted(number, 'text is', 'texts are')} white space"

    def _counts(self) -> tuple[dict[str, int], list[str]]:
        """On how many items the gate's metrics would be measured, and what is wrong with the playlists."""
        tests = [track_id for track_id, _, split, *_ in self._rows if split == "test"]
        queries, pairs, _ = playlist_content(self._playlists, tests)
        wrong = []
        try:
            check_known(self._playlists, [[row[0] for row in self._rows]])
        except UserError as error:
            wrong.append(str(error))
        counts = {
            "test_tracks": len(tests),
            "held_out_tracks": self._held_out,
            "text_queries": len(self._queries),
            "title_queries": len(queries["title"]),
            "description_queries": len(queries["description"]),
            "triplet_anchors": len(pairs),
        }
        return counts, wrong

    def _gate(self) -> tuple[list[str], str | None, str | None]:
        """What the gate would refuse for too few items, and two ways out: numbers for YAML, and splits in words."""
        gate, usable = self.config.gate, self._usable
        counts, refusals = self._counts()
        least = least_items(gate, counts["test_tracks"])
        few: dict[str, int] = {}
        for metric in dict.fromkeys((*gate.floors, *gate.compare)):
            key = next(key for start, key in ITEMS if metric.startswith(start))
            if (facet := _facet_of(metric)) is not None and not (self._facets if facet == "" else self._facets[facet]):
                such = f"of the facet {facet}" if facet else "at all"
                refusals.append(f"gate: {metric} cannot be measured, no test track has a label {such}")
            elif counts.get(key, 0) < least:
                few[metric] = counts.get(key, 0)
                what = key.replace("_", " ")
                refusals.append(
                    f"gate: {metric} would be measured on {few[metric]:,} {what}, at least {least:,} needed"
                )
        if not few or not usable["test"]:
            return refusals, None, self._splits(least, 1.0) if few else None
        smallest = min(few.values())
        proposal = format_yaml({"gate": {"min_items": smallest}}) if smallest >= MIN_ITEMS else None
        return refusals, proposal, self._splits(least, smallest / usable["test"])

    def _splits(self, least: int, rate: float) -> str | None:
        """Numbers of tracks for each split with which the gate has enough, where a test track gives ``rate`` items."""
        total = self._usable.total()
        if not rate:
            return None  # more of what has none is not the remedy
        test = max(math.ceil(least / rate), total // 10)
        valid = max(1, total // 10)
        if test > total // 2:
            return f"give more tracks: {2 * test:,} or more, of which {test:,} are test"
        return (
            f"it passes with a column split in which {total - valid - test:,} of the {total:,} tracks are train, "
            f"{valid:,} valid and {test:,} test"
        )

    def _overlaps(self) -> list[str]:
        """Recordings that are in training and evaluation both, as far as ids and files tell."""
        if self.config.prepare.allow_overlap:
            return []
        splits: dict[int, set[bool]] = {}
        for *_, split, _, size in self._rows:
            splits.setdefault(size, set()).add(split == "train")
        hashes: dict[str, str] = {}
        for *_, path, size in self._rows:
            if size and len(splits[size]) > 1 and path not in hashes:
                with Path(path).open("rb") as file:
                    hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
        sides: tuple[list[dict[str, Any]], ...] = ([], [])
        for track_id, dataset, split, path, _ in self._rows:
            start_s, duration_s = self._segments.get(track_id, (None, None))
            row = {"track_id": track_id, "dataset": dataset, "split": split, "sha256": hashes.get(path)}
            sides[split != "train"].append(row | {"start_s": start_s, "duration_s": duration_s})
        try:
            if all(sides):
                check_overlaps(
                    find_overlaps(*(pa.Table.from_pylist(side) for side in sides)),
                    remedy="give each recording one split, or allow it with --allow-overlap",
                )
        except UserError as error:
            return [str(error)]
        return []

    def _room(self, seconds: float, disk_free: int, memory: int) -> tuple[str, list[str]]:
        disk, held = sizing.disk_of_catalogue(self.config, seconds), sizing.memory_of_clips(self.config, seconds)
        disk, held = disk + sizing.DISK_BESIDE, held + sizing.MEMORY_BESIDE
        rows = ((disk, disk_free, "disk, {} are free"), (held, memory, "memory, this machine has {}"))
        needs = [f"{_gigabytes(needed)} of {words.format(_gigabytes(free))}" for needed, free, words in rows]
        short = [f"it takes {words}" for words, (needed, free, _) in zip(needs, rows, strict=True) if needed > free]
        return f"it takes about {' and '.join(needs)}", short


class _Words:
    """How much of the texts and labels the text tower's tokenizer does not know."""

    def __init__(self, pretrained: str | None) -> None:
        self._name = pretrained
        self._waiting: list[str] = []
        self._total = self._unknown = 0
        self._such = ""
        self._closed = ""

    def add(self, texts: Sequence[str]) -> None:
        """Count the tokens of some more texts."""
        self._waiting += texts
        if len(self._waiting) >= _AT_ONCE:
            self._count()

    def notes(self) -> Iterator[str]:
        """What should be said of them, if anything."""
        self._count()
        if self._closed:
            yield f"the text tower's tokenizer does not open here, and training will need it: {self._closed}"
        if self._unknown > MAX_UNKNOWN * self._total:
            share, such = f"{self._unknown / self._total:.0%}", repr(self._such[:60])
            yield (
                f"{share} of the tokens of your texts and labels are unknown to the text tower's tokenizer "
                f"({self._name}), such as in {such}: the model cannot tell such words apart; take a text tower of "
                "their language (model.text.pretrained) and name their scripts (text.scripts, null for all)"
            )

    def _count(self) -> None:
        texts, self._waiting = self._waiting, []
        if not texts or self._closed or self._name is None:
            return
        try:
            tokens = self._tokens
        except UserError as error:
            self._closed = str(error)
            return
        for text, ids in zip(texts, tokens.encode(texts), strict=True):
            unknown = ids.count(tokens.unknown_id) if tokens.unknown_id is not None else 0
            self._total, self._unknown = self._total + len(ids), self._unknown + unknown
            self._such = self._such or (text if unknown else "")

    @cached_property
    def _tokens(self) -> Tokens:
        return open_tokens(str(self._name))


def _facet_of(metric: str) -> str | None:
    """The facet whose labels a metric needs; empty for any label, None for no label."""
    suite, *names = metric.replace("/held_out/", "/", 1).split("/")
    if suite not in ("tagging", "probe"):
        return None
    return names[0] if len(names) > 1 else ""


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
