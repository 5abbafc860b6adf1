"""A job that embeds a catalogue is killed outright and begun again: it goes on, and makes nothing twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from prepared_fixtures import write_prepared

from flows.pipeline.vector_cache import VectorCache
from mulan_core.config import AudioTowerConfig, FrontendConfig, ModelConfig, TextTowerConfig
from mulan_core.data import shards
from mulan_core.embedding import embed_tracks
from mulan_core.evaluation.encoders import weights_hash
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor

pytestmark = pytest.mark.slow

CLIPS = 400
JOB = """
import sys
from pathlib import Path
from flows.runtime.stack import ray_for_stage
from flows.pipeline.embed import embed_prepared

model, prepared, cache = map(Path, sys.argv[1:])
with ray_for_stage():
    tell = lambda done: print(done, flush=True)
    embed_prepared(model, prepared, cache=cache, batch_size=4, num_actors=1, progress=tell)
"""


@pytest.fixture
def model(tmp_path):
    """A ResNet-50, which takes its time, so that the job lasts for several parts."""
    config = ModelConfig(
        frontend=FrontendConfig(window_s=10.0),
        audio=AudioTowerConfig(hidden_sizes=(256, 512, 1024, 2048), depths=(3, 4, 6, 3)),
        text=TextTowerConfig(pretrained="demo-minilm", max_tokens=16, pooling="mean"),
    )
    for part in (MuLanModel, MuLanProcessor):
        part.from_config(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def prepared(tmp_path):
    folder = write_prepared(tmp_path / "prepared", train=CLIPS - 20, valid=10, test=10)
    for path in (*folder.glob("*/shard-*.parquet"), folder / shards.MANIFEST):
        table = pq.read_table(path)
        keys = pa.array([f"key {track_id}" for track_id in table["track_id"].to_pylist()])
        pq.write_table(table.append_column("clip_key", keys), path, row_group_size=8)
    return folder


def test_a_killed_job_goes_on(model, prepared, tmp_path):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", JOB, *map(str, (model, prepared, cache))]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 180
    while not list(cache.glob("*/part-*.parquet")):
        assert job.poll() is None and time.monotonic() < deadline, "nothing was kept"
        time.sleep(0.2)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    folder = cache / weights_hash(model)
    kept = sum(pq.read_metadata(path).num_rows for path in folder.glob("part-*.parquet"))
    assert 0 < kept < CLIPS

    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr[-3000:]
    told = [int(line) for line in again.stdout.splitlines() if line.isdigit()]
    assert (told[0], told[-1]) == (kept + 1, CLIPS)
    made = sum(pq.read_metadata(path).num_rows for path in folder.glob("part-*.parquet"))
    assert made == CLIPS, "each clip once"

    rows = pq.read_table(prepared / "train" / "shard-00000.parquet").to_pylist()
    some = [rows[i] for i in (0, kept // 2, -1)]
    opened = MuLanModel.from_pretrained(model), MuLanProcessor.from_pretrained(model)
    expected = embed_tracks(*opened, [shards.decode_flac(row["audio"]) for row in some], batch_size=1)
    np.testing.assert_allclose(VectorCache(folder).get([row["clip_key"] for row in some]), expected, atol=1e-5)
