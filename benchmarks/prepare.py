"""What prepare costs beside the tools a person would take instead, its memory, and what a second run costs.

    python benchmarks/prepare.py [--tracks 48] [--rounds 5] [--rows 1000]

Throughput: the stages of prepare, in one process, on songs of 3 minutes and on files of 30 s (44.1 kHz, stereo; WAV,
FLAC, OGG, MP3 in turn), beside ``librosa.load`` and a FLAC written by soundfile, and beside soundfile and soxr alone.
Printed are files a second of CPU time and ratios within a round; M4A and WebM, which FFmpeg's decoders read, beside the
``ffmpeg`` program. Then prepare as a whole on a Ray of this machine: CPU
time of all its processes, so that other work on the machine counts little; the time of a run in which 1 % of the tracks
have changed; and memory at ``--rows`` and at ten times as many, each on a fresh Ray.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr

from flows.runtime.settings import read_settings
from mulan_core.config import PrepareConfig
from mulan_core.data.clips import cut_clip, encode_clip, fetch_clip

CONFIG = PrepareConfig(shard_mb=8)
KINDS = ("wav", "flac", "ogg", "mp3")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=48, help="songs in the runs as a whole; at least 8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000, help="rows of the smaller of the two memory runs")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    read_settings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in (180, 30):
            songs = make_songs(folder / str(seconds), seconds)
            compare(seconds, songs, WAYS, arguments.rounds)
            if shutil.which("ffmpeg"):
                compare(seconds, by_ffmpeg(songs[0]), {"prepare": ours, "ffmpeg": with_ffmpeg}, arguments.rounds)
        from flows.runtime.stack import ray_for_stage

        with ray_for_stage():
            whole_runs(folder, arguments.tracks)
        print("peak memory of this process and of all Ray's workers, MB; 1 kB of text a row")
        for rows in (arguments.rows, arguments.rows * 10):
            with ray_for_stage():
                memory(folder, rows)


def make_songs(folder: Path, seconds: int) -> list[Path]:
    """One song in each of four formats."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    time_s = np.arange(44_100 * seconds) / 44_100
    song = sum(
        0.1 * np.sin(2 * np.pi * pitch * time_s * (1 + 0.001 * np.sin(time_s))) for pitch in (110, 277, 440, 1760)
    )
    song = (song * (1 + 0.5 * np.sin(4 * time_s)) + 0.02 * rng.standard_normal(len(time_s))).astype(np.float32)
    for kind in KINDS:
        with soundfile.SoundFile(folder / f"song.{kind}", "w", 44_100, 2) as file:
            for first in range(0, len(song), 44_100):
                file.write(np.stack([song[first : first + 44_100], song[::-1][first : first + 44_100]], axis=1))
    return [folder / f"song.{kind}" for kind in KINDS]


def by_ffmpeg(song: Path) -> list[Path]:
    """The same song in two formats that libsndfile does not read."""
    made = []
    for kind, codec in (("m4a", "aac"), ("webm", "libopus")):
        made.append(song.with_suffix(f".{kind}"))
        with av.open(str(song)) as source, av.open(str(made[-1]), "w") as target:
            rate_hz = 48_000 if kind == "webm" else 44_100
            stream: Any = target.add_stream(codec, rate=rate_hz, layout="stereo")
            for frame in source.decode(audio=0):
                frame.pts = None
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    return made


def ours(path: Path) -> bytes:
    """The stages of prepare, one after the other."""
    row = {
        "shard": "",
        "track_id": "t",
        "uri": str(path),
        "mark": None,
        "known": None,
        "start_s": None,
        "duration_s": None,
    }
    return encode_clip(cut_clip(fetch_clip(row, CONFIG, path.parent), CONFIG, path.parent), CONFIG)["audio"]


def with_librosa(path: Path) -> bytes:
    """As most scripts do it."""
    wave, _ = librosa.load(path, sr=16_000, mono=True)
    return written(middle(wave))


def with_soxr(path: Path) -> bytes:
    """The fastest two libraries, without checks, hashes or bounds."""
    wave, rate_hz = soundfile.read(path, dtype="float32")
    return written(middle(soxr.resample(wave.mean(axis=1), rate_hz, 16_000)))


def with_soxr_and_a_sum(path: Path) -> bytes:
    """The same by somebody who knows that the mean over two channels is slow."""
    wave, rate_hz = soundfile.read(path, dtype="float32")
    return written(middle(soxr.resample((wave[:, 0] + wave[:, 1]) / 2, rate_hz, 16_000)))


def with_ffmpeg(path: Path) -> bytes:
    """By the program, as many do it."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-threads",
        "1",
        "-i",
        str(path),
        "-ac",
        "1",
        "-ar",
        "16000",
        "-f",
        "f32le",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, check=True)
    return written(middle(np.frombuffer(done.stdout, np.float32)))


WAYS: dict[str, Callable[[Path], bytes]] = {
    "prepare": ours,
    "librosa": with_librosa,
    "soundfile + soxr": with_soxr,
    "the same, adding": with_soxr_and_a_sum,
}


def middle(wave: np.ndarray) -> np.ndarray:
    """The clip that prepare cuts."""
    start = max(0, (len(wave) - 480_000) // 2)
    return wave[start : start + 480_000]


def written(wave: np.ndarray) -> bytes:
    """The clip as FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16_000, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def compare(seconds: int, songs: list[Path], ways: dict[str, Callable[[Path], bytes]], rounds: int) -> None:
    """Time the ways in turn on each format."""
    taken_s = np.empty((rounds, len(ways), len(songs)))
    for song in songs:
        for way in ways.values():
            way(song)
    for r in range(rounds):
        for k, song in enumerate(songs):
            for w, way in enumerate(ways.values()):
                started = cpu_s()
                way(song)
                taken_s[r, w, k] = cpu_s() - started
    print(f"files of {seconds} s, {rounds} rounds, CPU time")
    for w, name in enumerate(ways):
        speed = len(songs) / np.median(taken_s[:, w].sum(axis=1))
        ratio = np.median(taken_s[:, w].sum(axis=1) / taken_s[:, 0].sum(axis=1))
        each = ", ".join(
            f"{k.suffix[1:]} {np.median(taken_s[:, w, i] / taken_s[:, 0, i]):.2f}" for i, k in enumerate(songs)
        )
        print(f"  {name:18} {speed:6.1f} files/s   prepare is {ratio:5.2f} times as fast ({each})")


def cpu_s() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def catalogue(folder: Path, uris: list[str], text: str = "calm piano") -> Path:
    """A manifest with one row a uri, each with a text of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [[{"source": "sf", "text": f"{text} {i}"}] for i in range(len(uris))]
    ids = [f"t{i}" for i in range(len(uris))]
    pq.write_table(pa.table({"track_id": ids, "uri": uris, "texts": texts}), folder / "manifest.parquet")
    return folder


def whole_runs(folder: Path, num_tracks: int) -> None:
    """A full run beside soundfile and soxr in CPU time; then runs with nothing and with 1 % changed."""
    from flows.pipeline.prepare import build_shards

    songs = [folder / "180" / f"song.{KINDS[i % 4]}" for i in range(num_tracks)]
    started = time.process_time()
    for song in songs[:8]:
        with_soxr(song)
    alone_s = (time.process_time() - started) / 8
    source = catalogue(folder / "whole", [str(song) for song in songs])
    build_shards(catalogue(folder / "warm", [str(song) for song in songs[:8]]), folder / "warm-out", CONFIG)
    out = folder / "out"
    with cpu_time() as used:
        full_s = timed(lambda: build_shards(source, out, CONFIG))
    print(
        f"prepare as a whole, {num_tracks} songs of 180 s: {used[0] / num_tracks * 1000:.0f} ms of CPU a file over all "
        f"processes of Ray, {alone_s * used[0] ** -1 * num_tracks:.2f} times as fast as soundfile + soxr on one core"
    )
    nothing_s = timed(lambda: build_shards(source, out, CONFIG))
    changed = max(1, num_tracks // 100)
    other = folder / "180" / "other.flac"
    other.write_bytes((folder / "180" / "song.flac").read_bytes() + b"\0")
    catalogue(source, [str(other)] * changed + [str(song) for song in songs[changed:]])
    some_s = timed(lambda: build_shards(source, out, CONFIG))
    print(
        f"  full {full_s:.1f} s, nothing changed {nothing_s:.1f} s, {changed} of {num_tracks} changed {some_s:.1f} s: "
        f"{(some_s - nothing_s) / full_s:.1%} of the full run and the start-up"
    )


def memory(folder: Path, num_rows: int) -> None:
    """Peak memory of a full run."""
    from flows.pipeline.prepare import build_shards

    config = PrepareConfig(clip_s=1.0, min_s=0.5, shard_mb=8)
    short = folder / "short.wav"
    soundfile.write(short, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    source = catalogue(folder / f"rows-{num_rows}", [str(short)] * num_rows, "word " * 200)
    with peak_memory() as peak:
        build_shards(source, folder / f"rows-{num_rows}-out", config)
    print(f"  {num_rows:7,} rows: {peak['driver']:5.0f} {peak['workers']:6.0f} of {peak['count']:.0f} workers")


def timed(work: Callable[[], object]) -> float:
    """Seconds on the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def cpu_time() -> Iterator[list[float]]:
    """CPU seconds of this process and all below it."""

    def now() -> float:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return sum(t.user + t.system for p in processes if p.is_running() for t in [p.cpu_times()])

    used, before = [0.0], now()
    yield used
    used[0] = now() - before


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Most memory that is held at once, looked at five times a second; shared pages are left out."""
    stop, peak = threading.Event(), {"driver": 0.0, "workers": 0.0, "count": 0.0}

    def watch() -> None:
        while not stop.wait(0.2):
            driver, total, count = psutil.Process(), 0, 0
            for process in driver.children(recursive=True):
                with suppress(psutil.Error):
                    if process.name().startswith("ray::"):
                        total, count = total + process.memory_full_info().uss, count + 1
            now = {"driver": driver.memory_full_info().uss / 2**20, "workers": total / 2**20, "count": count}
            peak.update({name: max(peak[name], value) for name, value in now.items()})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
