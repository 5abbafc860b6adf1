"""Builds the demo corpus on disk: audio files, manifest and playlists.

The folder appears whole or not at all: it is built beside its place and renamed at the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from mulan_core.config import CorpusConfig
from mulan_core.data.tracks import PLAYLIST_SCHEMA, SCHEMA
from mulan_core.demo.composer import compose, hash_notes
from mulan_core.demo.player import Player
from mulan_core.demo.playlists import Playlist, make_playlists
from mulan_core.demo.render import RATE_HZ, render
from mulan_core.demo.soundfont import find_soundfont, read_soundfont
from mulan_core.demo.spec import TrackSpec, draw_spec, draw_specs
from mulan_core.demo.texts import draw_credits, write_texts
from mulan_core.errors import UserError

MIN_RMS = 0.03
"""A quieter clip is composed anew."""
MAX_ATTEMPTS = 5
MARKER = "corpus.json"
"""Written last, with the configuration and the counts; only a folder that holds it is ever replaced."""
LICENSE = "CC0-1.0 (notes and text); the sound is under the terms of the SoundFont"
_DEMO_FIELDS = [
    ("artist", pa.string()),
    ("held_out", pa.bool_()),
    ("tempo_bpm", pa.int64()),
    ("key", pa.string()),
    ("notes_sha256", pa.string()),
]


@dataclass(frozen=True)
class _Job:
    """What a worker needs for one track; plain values, so it travels to a spawned process."""

    index: int
    seed: int
    clip_s: float
    folder: str


@dataclass(frozen=True)
class _Rendered:
    index: int
    sha256: str
    notes_sha256: str
    attempts: int


def build_corpus(
    config: CorpusConfig,
    out: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Compose, render and describe the demo corpus.

    Args:
        config: size, seed, clip length and SoundFont.
        out: folder to make; an existing demo corpus there is replaced.
        workers: processes; None takes one per core.
        progress: called with (tracks done, tracks in all).

    Returns:
        counts: tracks, train, valid, test, held_out, texts, playlists, test_playlists, redrawn.

    Raises:
        UserError: for an impossible size, a missing or broken SoundFont, or a folder that is not a corpus.
    """
    if config.size < 1 or config.clip_s < 1:
        raise UserError(f"corpus.size is {config.size} and corpus.clip_s {config.clip_s}; both must be at least 1")
    soundfont = find_soundfont(config.soundfont)
    read_soundfont(soundfont)  # a broken font must be found here: in a worker it would be found once per process
    specs = draw_specs(config.size, config.seed)
    with _new_folder(Path(out)) as folder:
        (folder / "audio").mkdir()
        jobs = [_Job(spec.index, config.seed, config.clip_s, str(folder)) for spec in specs]
        rendered = []
        for done, result in enumerate(_render_all(jobs, soundfont, workers), start=1):
            rendered.append(result)
            if progress:
                progress(done, len(jobs))
        playlists = make_playlists(specs, config.seed)
        manifest = _manifest(specs, rendered, playlists, config.clip_s)
        pq.write_table(manifest, folder / "manifest.parquet")
        pq.write_table(_playlist_table(playlists), folder / "playlists.parquet")
        splits = Counter(spec.split for spec in specs)
        counts = {
            "tracks": len(specs),
            **{split: splits[split] for split in ("train", "valid", "test")},
            "held_out": sum(spec.held_out for spec in specs),
            "texts": sum(map(len, manifest["texts"].to_pylist())),
            "playlists": len(playlists),
            "test_playlists": sum(p.split == "test" for p in playlists),
            "redrawn": sum(r.attempts > 1 for r in rendered),
        }
        marker = {"config": dataclasses.asdict(config), "soundfont": soundfont.name, "counts": counts}
        (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    return counts


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A sibling of ``out`` that takes its place when the block ends well, and vanishes when it does not."""
    if out.exists() and not (out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))):
        raise UserError(f"{out} exists and is not a demo corpus; name another folder or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.building-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    for stale in out.parent.glob(f".{out.name}.building-*"):
        if not _is_running(int(stale.name.rpartition("-")[2])):  # left by a build that was killed outright
            shutil.rmtree(stale, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_player: Player | None = None  # one per worker process, so that the font is parsed once


def _load_player(soundfont: Path) -> None:
    global _player  # noqa: PLW0603
    _player = Player(read_soundfont(soundfont))


def _start_worker(soundfont: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent winds the pool up
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _load_player(soundfont)


def _leave_with_parent() -> None:
    """End this worker when the process that started it is gone, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _render_all(jobs: list[_Job], soundfont: Path, workers: int | None) -> Iterator[_Rendered]:
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers == 1:
        _load_player(soundfont)
        yield from map(_render_job, jobs)
        return
    # Spawned, not forked: the caller may hold threads (torch, Ray), which a fork would copy in mid-flight.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(soundfont,))
    try:
        yield from pool.map(_render_job, jobs, chunksize=4)
    except (KeyboardInterrupt, GeneratorExit):
        for worker in set(multiprocessing.active_children()) - others:  # seconds of starting, and of tracks under way
            worker.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _render_job(job: _Job) -> _Rendered:
    """Compose, render, check and write one track."""
    if _player is None:
        raise RuntimeError("the worker has no player")
    spec = draw_spec(job.index, job.seed)
    for attempt in range(MAX_ATTEMPTS):
        parts = compose(spec, seconds=job.clip_s, attempt=attempt)
        wave = render(spec, parts, _player, seconds=job.clip_s, attempt=attempt)
        if float(np.sqrt(np.mean(np.square(wave)))) > MIN_RMS:
            break
    else:
        raise UserError(
            f"track {spec.track_id} came out near silent {MAX_ATTEMPTS} times; "
            f"is {_player.font.path} a complete General-MIDI SoundFont?"
        )
    path = Path(job.folder) / "audio" / f"{spec.track_id}.flac"
    soundfile.write(path, wave, RATE_HZ, format="FLAC", subtype="PCM_16")
    return _Rendered(job.index, hashlib.sha256(path.read_bytes()).hexdigest(), hash_notes(parts), attempt + 1)


def _manifest(specs: list[TrackSpec], rendered: list[_Rendered], playlists: list[Playlist], clip_s: float) -> pa.Table:
    """The manifest; playlist titles go to the texts of train and valid tracks only, those of test are queries."""
    titles: dict[str, list[str]] = {}
    for playlist in playlists:
        if playlist.split != "test":
            for track_id in playlist.track_ids:
                titles.setdefault(track_id, []).append(playlist.title)
    rows = []
    for spec, result in zip(specs, rendered, strict=True):
        names = draw_credits(spec)
        playlist_texts = [{"source": "pl", "text": title} for title in titles.get(spec.track_id, [])]
        rows.append(
            {
                "track_id": spec.track_id,
                "uri": f"audio/{spec.track_id}.flac",
                "start_s": None,
                "duration_s": round(clip_s * RATE_HZ) / RATE_HZ,
                "split": spec.split,
                "dataset": "demo",
                "title": names.title,
                "texts": write_texts(spec) + playlist_texts,
                "labels": spec.labels,
                "license": LICENSE,
                "sha256": result.sha256,
                "artist": names.artist,
                "held_out": spec.held_out,
                "tempo_bpm": spec.tempo_bpm,
                "key": spec.key,
                "notes_sha256": result.notes_sha256,
            }
        )
    schema = pa.schema([*SCHEMA, *(pa.field(name, kind) for name, kind in _DEMO_FIELDS)])
    return pa.Table.from_pylist(rows, schema=schema)


def _playlist_table(playlists: list[Playlist]) -> pa.Table:
    rows = [
        {
            "playlist_id": p.playlist_id,
            "title": p.title,
            "description": p.description,
            "track_ids": list(p.track_ids),
            "split": p.split,
        }
        for p in playlists
    ]
    return pa.Table.from_pylist(rows, schema=PLAYLIST_SCHEMA)
