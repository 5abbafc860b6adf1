"""Prepare on a real Ray: what it makes, what a second run leaves alone, and how it bears bad files and kills."""

import http.server
import ipaddress
import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from flow_fixtures import ROOT

from flows.pipeline.prepare import build_shards
from flows.runtime.stack import ray_for_stage
from flows.runtime.workspace import open_workspace
from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.data.shard_builder import work_folder
from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CONFIG = PrepareConfig(clip_s=1.5, min_s=0.5, max_s=60.0, shard_mb=1)
ENDINGS = ("wav", "flac", "ogg", "mp3")


@pytest.fixture(scope="module", autouse=True)
def running_ray(bucket):
    with ray_for_stage():
        yield


def make_audio(path, seed, seconds=2.0, rate_hz=22_050, channels=2):
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * rng.uniform(100, 2_000) * np.arange(int(seconds * rate_hz)) / rate_hz
    soundfile.write(path, 0.3 * np.sin(phase)[:, None].repeat(channels, 1) + 0.01 * rng.random(channels), rate_hz)


@pytest.fixture
def catalogue(tmp_path):
    """90 tracks in four formats: enough for several shards."""
    folder = tmp_path / "catalogue"
    folder.mkdir()
    rows = []
    for i in range(90):
        name = f"{i}.{ENDINGS[i % 4]}"
        make_audio(folder / name, i)
        texts = [{"source": "sf", "text": "calm piano"}, {"source": "lf", "text": "first!!"}]
        rows.append({"track_id": f"t{i}", "uri": name, "title": f"Track {i}", "texts": texts, "year": 1990 + i % 9})
    write_manifest(folder, rows)
    return folder


def write_manifest(folder, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")


def rows_of(folder):
    return pq.read_table(folder / "manifest.parquet").to_pylist()


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def inodes(folder):
    return {p.name: p.stat().st_ino for p in (folder / "train").glob("*.parquet")}


def test_any_history_ends_in_what_a_run_from_scratch_makes(catalogue, tmp_path):
    out = tmp_path / "prepared"
    first = build_shards(catalogue, out, CONFIG)
    assert first["changes"] == {"new": 90, "changed": 0, "removed": 0, "unchanged": 0}
    assert first["texts"]["lf"] == {"before": 90, "after": 0, "dropped": {"too_short": 90}}
    assert len(inodes(out)) == 4
    assert set(json.loads((out / "counts.json").read_text())) == set(first) - {"changes"}

    before = content(out)
    linked = inodes(out)
    assert build_shards(catalogue, out, CONFIG)["changes"] == {"new": 0, "changed": 0, "removed": 0, "unchanged": 90}
    assert content(out) == before
    assert inodes(out) == linked, "unchanged shards are linked, not written"

    make_audio(catalogue / "0.wav", seed=1000)  # another recording
    (catalogue / "1.flac").write_bytes(b"broken")
    (catalogue / "2.ogg").touch()  # the same bytes at another time
    rows = [row for row in rows_of(catalogue) if row["track_id"] not in ("t10", "t11", "t12")]
    rows[3]["texts"][0]["text"] = "wild drums"
    make_audio(catalogue / "new.wav", seed=2000)
    write_manifest(catalogue, [{**rows[0], "track_id": "new", "uri": "new.wav"}, *rows])
    second = build_shards(catalogue, out, CONFIG)
    # Of a small catalogue a tenth are test and valid: two of the training split take the places of those that went.
    moved = 2
    assert second["changes"] == {"new": 1 + moved, "changed": 3, "removed": 3 + moved, "unchanged": 84 - moved}
    assert second["quarantined"] == {"undecodable": 1}
    scratch = tmp_path / "scratch"
    build_shards(catalogue, scratch, CONFIG)
    assert content(out) == content(scratch)

    # Fewer shards, then more again: clips move between files, and none is decoded.
    coarse = PrepareConfig(clip_s=1.5, min_s=0.5, max_s=60.0, shard_mb=8)
    assert build_shards(catalogue, out, coarse)["changes"]["unchanged"] == 88
    assert len(inodes(out)) == 1
    assert build_shards(catalogue, out, CONFIG)["changes"]["unchanged"] == 88
    assert content(out) == content(scratch)

    # Other numbers: every clip anew.
    shorter = PrepareConfig(clip_s=1.0, min_s=0.5, max_s=60.0, shard_mb=1)
    assert build_shards(catalogue, out, shorter)["changes"]["changed"] == 88
    again = tmp_path / "again"
    build_shards(catalogue, again, shorter)
    assert content(out) == content(again)


def test_a_changed_text_decodes_nothing(catalogue, tmp_path):
    """The audio is gone, so a clip that is there can only be the old one."""
    rows = [row | {"file_mark": "1:1"} for row in rows_of(catalogue)[:12]]
    write_manifest(catalogue, rows)
    out = tmp_path / "prepared"
    build_shards(catalogue, out, CONFIG)
    for path in catalogue.glob("[0-9]*"):
        path.unlink()
    judged = [
        {"track_id": row["track_id"], "texts": [{"source": "lf", "text": "A new word.", "drop": "judge"}]}
        for row in reversed(rows)
    ]
    texts = tmp_path / "texts.parquet"
    schema = pa.schema([("track_id", pa.string()), ("texts", pa.list_(shards.PREPARED_TEXT))])
    pq.write_table(pa.Table.from_pylist(judged, schema=schema), texts)
    counts = build_shards(catalogue, out, CONFIG, texts=texts)
    assert counts["changes"] == {"new": 0, "changed": 12, "removed": 0, "unchanged": 0}
    assert counts["usable"] == 12
    assert counts["texts"] == {"lf": {"before": 12, "after": 0, "dropped": {"judge": 12}}}
    pq.write_table(pa.Table.from_pylist(judged[1:], schema=schema), texts)
    with pytest.raises(UserError, match="has no row for the track 't11'"):
        build_shards(catalogue, out, CONFIG, texts=texts)


def test_a_lost_work_folder_costs_reading_alone(catalogue, tmp_path):
    out = tmp_path / "prepared"
    build_shards(catalogue, out, CONFIG)
    before, linked = content(out), inodes(out)
    import shutil

    shutil.rmtree(work_folder(out))
    assert build_shards(catalogue, out, CONFIG)["changes"]["unchanged"] == 90
    assert (content(out), inodes(out)) == (before, linked)


def test_half_of_the_files_broken_and_nothing_lost(tmp_path):
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    bad = {
        "missing": [],
        "empty": [],
        "undecodable": [],
        "too_short": [],
        "too_long": [],
        "silent": [],
        "not_finite": [],
    }
    rows = []
    for i in range(7):
        soundfile.write(tmp_path / f"good{i}.wav", wave * (1 - i / 20), 16_000)
        rows.append({"uri": f"good{i}.wav", "text": "piano"})
    (tmp_path / "empty.wav").touch()
    (tmp_path / "undecodable.mp3").write_bytes(rng.bytes(5_000))
    soundfile.write(tmp_path / "too_short.wav", wave[:2_000], 16_000)
    soundfile.write(tmp_path / "too_long.flac", np.zeros(16_000 * 600, np.int16), 16_000)  # a bomb: 60 kB, ten minutes
    soundfile.write(tmp_path / "silent.wav", 0 * wave, 16_000)
    soundfile.write(tmp_path / "not_finite.wav", np.where(wave > 0.3, np.nan, wave), 16_000, subtype="FLOAT")
    names = {reason: next(iter(tmp_path.glob(f"{reason}.*")), Path("missing.wav")).name for reason in bad}
    rows += [{"uri": name, "text": "x"} for name in names.values()]
    write_manifest(tmp_path, rows)
    counts = build_shards(tmp_path, tmp_path / "out", CONFIG)
    assert (counts["tracks"], counts["usable"]) == (14, 7)
    assert counts["quarantined"] == dict.fromkeys(sorted(bad), 1)
    table = pq.read_table(tmp_path / "out" / shards.QUARANTINE).to_pylist()
    assert {row["reason"]: Path(row["uri"]).name for row in table} == names
    assert all(row["detail"] for row in table)

    for path in tmp_path.glob("good*"):
        path.unlink()
    with pytest.raises(UserError, match=r"not one track of .* is usable \(8 missing"):
        build_shards(tmp_path, tmp_path / "out", CONFIG)
    assert json.loads((tmp_path / "out" / "counts.json").read_text())["usable"] == 7, "the last good folder stays"


def test_a_killed_run_goes_on_with_the_clips_it_has(catalogue, tmp_path):
    out = tmp_path / "prepared"
    program = f"""
        from pathlib import Path
        from flows.runtime.settings import read_settings
        read_settings()
        from flows.runtime.stack import ray_for_stage
        from flows.pipeline.prepare import build_shards
        from mulan_core.config import PrepareConfig

        with ray_for_stage():
            build_shards(Path({str(catalogue)!r}), Path({str(out)!r}), PrepareConfig(**{vars(CONFIG)!r}),
                    progress=lambda done, _: print(done, flush=True))
    """
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for line in running.stdout:
        if int(line) > 0:
            break
    running.send_signal(signal.SIGKILL)
    running.wait()
    time.sleep(2)  # its Ray notices
    assert not out.exists()
    seen = []
    counts = build_shards(catalogue, out, CONFIG, progress=lambda done, _: seen.append(done))
    assert seen[0] > 0, "finished clips must not be done again"
    assert counts["changes"]["new"] == 90
    build_shards(catalogue, tmp_path / "scratch", CONFIG)
    assert content(out) == content(tmp_path / "scratch")
    assert {path.name for path in work_folder(out).iterdir()} == {"ledger"}


def test_table_and_audio_on_s3(bucket, tmp_path):
    make_audio(tmp_path / "a.flac", 1)
    bucket.put(str(tmp_path / "a.flac"), "music/audio/a.flac")
    bucket.pipe("music/tracks.csv", b"uri,text\naudio/a.flac,calm piano\ns3://music/audio/a.flac,x\naudio/no.flac,x\n")
    workspace = open_workspace(tmp_path / "home", manifest="s3://music/tracks.csv")
    catalogue = workspace.folder / workspace.config.catalogue
    rows = rows_of(catalogue)
    assert [row["uri"] for row in rows] == [f"s3://music/audio/{name}.flac" for name in ("a", "a", "no")]
    assert rows[0]["file_mark"] and rows[2]["file_mark"] is None
    counts = build_shards(catalogue, tmp_path / "out", CONFIG)
    assert (counts["usable"], counts["quarantined"]) == (2, {"missing": 1})

    assert [row["uri"] for row in read_manifest("s3://music/audio").to_pylist()] == ["a.flac"]

    make_audio(tmp_path / "a.flac", 2)
    bucket.put(str(tmp_path / "a.flac"), "music/audio/a.flac")
    bucket.invalidate_cache()
    open_workspace(tmp_path / "home", manifest="s3://music/tracks.csv")
    changes = build_shards(catalogue, tmp_path / "out", CONFIG)["changes"]
    assert changes == {"new": 0, "changed": 2, "removed": 0, "unchanged": 1}


def test_a_name_that_leads_inside_goes_to_quarantine_and_the_job_goes_on(tmp_path):
    """By the machine's own name, which leads to itself or to its network; a table may not make us ask there."""
    try:
        at = socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine's name has no address")
    if ipaddress.ip_address(at).is_global:
        pytest.skip("this machine's name has a public address")
    folder, asked = tmp_path / "catalogue", []
    folder.mkdir()
    for i in range(5):
        make_audio(folder / f"{i}.wav", i)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def send_response(self, *args):
            asked.append(self.path)
            super().send_response(*args)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer((at, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uris = [*(f"{i}.wav" for i in range(4)), f"http://{socket.gethostname()}:{server.server_port}/4.wav"]
        write_manifest(folder, [{"track_id": f"t{i}", "uri": uri} for i, uri in enumerate(uris)])
        closed = build_shards(folder, tmp_path / "out", CONFIG)
        assert (closed["usable"], closed["quarantined"], asked) == (4, {"refused": 1}, [])
        (row,) = pq.read_table(tmp_path / "out" / shards.QUARANTINE).to_pylist()
        assert f"{socket.gethostname()} is at {at}, a" in row["detail"] and "prepare.allow_private" in row["detail"]
        allowed = build_shards(folder, tmp_path / "out", replace(CONFIG, allow_private=True))
        server.shutdown()
    assert (allowed["usable"], allowed["quarantined"]) == (5, {}) and "/4.wav" in asked
