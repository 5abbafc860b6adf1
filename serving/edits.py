"""What was added to a catalogue and deleted from it over the API, which no manifest knows: one record a track.

Records lie beside the catalogue, in a folder or a bucket, with the audio of what was added as FLAC. So every collection
that is built or goes live is given the same edits (``serving/edited_collection.py``), under whichever model. A
catalogue's row that an edit takes the place of lies there too, one a collection, until the edit is taken back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec

from mulan_core.audio.decode import decode_audio, rate_of
from mulan_core.data.shards import encode_flac
from mulan_core.errors import UserError
from serving.edit import FIELDS, Edit
from serving.errors import DamagedEditError, EditsError
from serving.tracks import is_added

MAX_RATE_HZ = 48_000
"""Audio is kept at its own rate up to this one."""
_RECORD, _ROW = ".json", ".row"
_AUDIO = re.compile(r"[0-9a-f]+-[0-9a-f]{16}\.flac")
_READERS = 16
_FULL = ("No space left on device", "Disk quota exceeded")


class Edits:
    """The edits of one catalogue; replicas and flows may use them at the same time.

    Args:
        location: a folder, made when it is first written to, or a URL that fsspec knows.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location) if "://" in str(location) else str(Path(location).absolute())

    @property
    def folder(self) -> Path | None:
        """The folder where audio lies; None where it lies on a server."""
        return None if "://" in self.location else Path(self.location)

    def media_path(self, edit: Edit) -> str:
        """The path of a track's audio for its row; empty where none plays from here."""
        return str(self.folder / edit.audio) if self.folder and edit.audio else ""

    def all(self) -> list[Edit]:
        """Every edit, by track id.

        Raises:
            EditsError: if a record is damaged, or the location cannot be read.
        """
        with _sentences(self.location):
            with ThreadPoolExecutor(_READERS) as pool:
                edits = pool.map(self._read, [name for name in self._names() if name.endswith(_RECORD)])
            return sorted((edit for edit in edits if edit is not None), key=lambda edit: edit.track_id)

    def get(self, track_id: str) -> Edit | None:
        """The edit of a track, or None."""
        with _sentences(self.location):
            return self._read(_name(track_id) + _RECORD)

    def audio(self, edit: Edit) -> bytes | None:
        """The FLAC of a track that was added; None where it is gone."""
        files, path = self._files
        with _sentences(self.location):
            try:
                return bytes(files.cat_file(f"{path}/{edit.audio}"))
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def adding(self, track_id: str, fields: Mapping[str, Any], flac: bytes, *, row_hash: str | None) -> Iterator[Edit]:
        """Record that a track is added, its audio first; where the block fails, the word before stands again.

        Args:
            track_id: whose.
            fields: ``FIELDS``.
            flac: its audio; see ``to_flac``.
            row_hash: content hash of the row that it takes the place of; None where there is none.

        Raises:
            EditsError: if it cannot be kept, as on a full disk; then nothing is.
        """
        name = f"{_name(track_id)}-{hashlib.sha256(flac).hexdigest()[:16]}.flac"
        kept = {field: fields[field] for field in FIELDS}
        edit = Edit(track_id, "added", _now(), self._replaced(track_id, row_hash), kept, name)
        with self._recording(edit, flac):
            yield edit

    @contextlib.contextmanager
    def deleting(self, track_id: str, *, row_hash: str | None) -> Iterator[Edit]:
        """Record that a track is deleted; see ``adding``. The audio of one that was added goes."""
        with self._recording(Edit(track_id, "deleted", _now(), self._replaced(track_id, row_hash)), b"") as edit:
            yield edit

    def forget(self, track_id: str) -> bool:
        """Remove the record of a track and its audio, as if the API had never had a word on it; whether there was one.

        Collections have what it did until the records are applied to them again.
        """
        before = self.get(track_id)
        if before is not None:
            self._remove(_name(track_id) + _RECORD)
            self._remove(before.audio)
        return before is not None

    def keep_row(self, collection: str, row: Mapping[str, Any], windows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the catalogue's row of a track in a collection; it goes back when the track's edit is taken back.

        Args:
            collection: its name.
            row: see ``TrackStore.build``.
            windows: of the track; see ``Windows.build``.
        """
        kept = json.dumps([dict(row), [dict(window) for window in windows]], default=lambda vector: vector.tolist())
        self._write(_row_name(collection, row["track_id"]), kept.encode())

    def kept_row(self, collection: str, track_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """What ``keep_row`` was given last; None where there is nothing, or it is damaged: an index mends that."""
        return self._read_row(_row_name(collection, track_id))

    def taken_back(self, collection: str) -> list[str]:
        """Tracks whose rows are kept of a collection, and on which the API has no word any more."""
        with _sentences(self.location):
            names, ending = self._names(), _row_name(collection)
            recorded = {name.removesuffix(_RECORD) for name in names if name.endswith(_RECORD)}
            of_collection = [name for name in names if name.endswith(ending)]
            rows = (self._read_row(name) for name in of_collection if name.removesuffix(ending) not in recorded)
            return [row[0]["track_id"] for row in rows if row]

    def forget_rows(self, collection: str) -> None:
        """Remove what was kept of a collection, which is no more."""
        with _sentences(self.location):
            for name in self._names():
                if name.endswith(_row_name(collection)):
                    self._remove(name)

    def move(self, location: str) -> None:
        """Have all of it at another location, which is empty; nothing where that is the same."""
        files, path = self._files
        there = Edits(location)
        if there.location != self.location:
            with _sentences(self.location):
                # One by one, records last: a bucket's own move asks for keys that are gone.
                for name in sorted(self._names(), key=lambda name: name.endswith(_RECORD)):
                    with contextlib.suppress(FileNotFoundError):
                        there._write(name, files.cat_file(f"{path}/{name}"))
            self.remove()

    def remove(self) -> None:
        """Forget everything."""
        files, path = self._files
        with _sentences(self.location):
            files.invalidate_cache()
            if files.exists(path):
                files.rm(path, recursive=True)

    @contextlib.contextmanager
    def _recording(self, edit: Edit, flac: bytes) -> Iterator[Edit]:
        record, before = _name(edit.track_id) + _RECORD, self.get(edit.track_id)
        old, new = before.audio if before else "", edit.audio
        try:
            if flac:
                self._write(new, flac)
            self._write(record, _encode(edit))
            yield edit
        except BaseException:
            with contextlib.suppress(EditsError):  # the first error tells more; the next edit of the track clears up
                if self._stands(edit):  # else somebody has written it since this write's turn has ended
                    if before is None:
                        self._remove(record)
                    else:
                        self._write(record, _encode(before))
                self._clear(edit.track_id, old, new)
            raise
        self._clear(edit.track_id, old, new)

    def _stands(self, edit: Edit) -> bool:
        """Whether this edit is its track's record, or what a full disk has let through of it."""
        try:
            return self.get(edit.track_id) == edit
        except DamagedEditError:
            return True

    def _clear(self, track_id: str, *audio: str) -> None:
        """Remove audio that the record of its track does not name."""
        stands = self.get(track_id)
        for name in set(audio) - {"", stands.audio if stands else ""}:
            self._remove(name)

    def _replaced(self, track_id: str, row_hash: str | None) -> str:
        """What the catalogue's row was: that which stands there, or that which an earlier edit took the place of."""
        if row_hash and not is_added(row_hash):
            return row_hash
        before = self.get(track_id)
        return before.replaces if before else ""

    def _read(self, name: str) -> Edit | None:
        files, path = self._files
        try:
            data = files.cat_file(f"{path}/{name}")
        except FileNotFoundError:  # none, or removed a moment ago
            return None
        try:
            edit = Edit(**json.loads(data))
            if name != _name(edit.track_id) + _RECORD or edit.kind not in ("added", "deleted"):
                raise ValueError
            # What names a file is followed: a record that somebody has written must not lead out of the folder.
            if not (_AUDIO.fullmatch(edit.audio) if edit.kind == "added" else edit.audio == ""):
                raise ValueError
            if not isinstance(edit.when, str) or (edit.kind == "added" and set(edit.fields) != set(FIELDS)):
                raise ValueError
        except (ValueError, TypeError, AttributeError) as error:
            raise DamagedEditError(
                f"{self.location}/{name} is damaged, so what was done to a track over the API is not known; put it "
                "back from a copy, or delete it, and add or delete that track again",
                "what was done to this track over the API before cannot be read, so nothing was changed; the "
                "endpoint's log names the file that its operator must put right",
            ) from error
        return edit

    def _read_row(self, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        files, path = self._files
        with _sentences(self.location):
            try:
                row, windows = json.loads(files.cat_file(f"{path}/{name}"))
                return (row, windows) if row["track_id"] and row["vector"] else None
            except (FileNotFoundError, ValueError, TypeError, KeyError):
                return None

    def _names(self) -> list[str]:
        """All that lies there; nothing where the folder is not made yet."""
        files, path = self._files
        files.invalidate_cache()
        try:
            return [str(name).rsplit("/", 1)[-1] for name in files.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def _write(self, name: str, data: bytes) -> None:
        files, path = self._files
        with _sentences(self.location):
            if self.folder is None:  # a bucket shows an object when all of it is there
                files.pipe_file(f"{path}/{name}", data)
                return
            partial = f"{path}/.{name}.{uuid.uuid4().hex[:8]}"
            try:
                files.makedirs(path, exist_ok=True)
                files.pipe_file(partial, data)
                files.mv(partial, f"{path}/{name}")
            except OSError:
                with contextlib.suppress(OSError):
                    files.rm_file(partial)
                raise

    def _remove(self, name: str) -> None:
        files, path = self._files
        with _sentences(self.location), contextlib.suppress(FileNotFoundError):
            if name:
                files.rm_file(f"{path}/{name}")

    @cached_property
    def _files(self) -> tuple[fsspec.AbstractFileSystem, str]:
        if self.folder is not None:  # a folder may have any name, fsspec's own signs too
            return fsspec.filesystem("file"), self.location
        with _sentences(self.location):
            files, path = fsspec.core.url_to_fs(self.location)
            return files, str(path).rstrip("/")


def to_flac(data: bytes, *, max_s: float) -> bytes:
    """Uploaded audio as it is kept: mono, 16 bit, at its own rate up to ``MAX_RATE_HZ``.

    Raises:
        AudioError: as of ``decode_audio``.
    """
    rate_hz = min(rate_of(data), MAX_RATE_HZ)
    return encode_flac(decode_audio(data, max_s=max_s, sample_rate_hz=rate_hz)[0], rate_hz)


def _name(track_id: str) -> str:
    """A name that every file system takes; an id may be longer than a file's name, and hold any letter."""
    return hashlib.sha256(track_id.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _row_name(collection: str, track_id: str | None = None) -> str:
    """The name of a kept row; without a track, how those of a collection end."""
    return f"{'' if track_id is None else _name(track_id)}.{collection}{_ROW}"


def _encode(edit: Edit) -> bytes:
    return json.dumps(asdict(edit), indent=1).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextlib.contextmanager
def _sentences(location: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of any of the libraries behind fsspec
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        if any(words in str(error) for words in _FULL):
            raise EditsError(
                f"the disk of {location} is full; free some of it and try again",
                "the disk where added tracks are kept is full, so nothing was changed; try again when its operator has "
                "freed some of it",
            ) from error
        raise EditsError(
            f"{location}, where tracks added over the API are kept, cannot be used: {reason}",
            "the place where added and deleted tracks are recorded cannot be used, so nothing was changed; the "
            "endpoint's log says why",
        ) from error
