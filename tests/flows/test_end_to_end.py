"""The whole flow through the real command, on a small catalogue with bad files, and what a second run does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from mulan_core import MuLanModel
from mulan_core.classifier import AudioClassifier
from mulan_core.config import load_config
from mulan_core.data import shards

ROOT = Path(__file__).parents[2]
MULAN = Path(sys.executable).parent / "mulan"
sys.path.insert(0, str(ROOT / "tests" / "core"))

from prepared_fixtures import PITCHES, SHAPES, tone  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PARAMS = """
prepare: {clip_s: 2.5, min_s: 1.0, shard_mb: 1}
model:
  frontend: {window_s: 2.0, num_mels: 32}
  audio: {kind: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1]}
  text: {pretrained: demo-minilm, max_tokens: 32, trainable_layers: 0, pooling: mean}
train: {steps: 40, batch_size: 16, num_workers: 2, audio_lr: 0.003, warmup_steps: 4, checkpoint_every: 10, log_every: 5,
        spec_time_mask: 0, spec_freq_mask: 0}
evaluate: {bootstrap: 20}
gate: {floors: {tagging/pitch/roc_auc: 0.6, retrieval/text/auc: 0.5}, min_items: 5}
serve: {port: PORT}
ablate: {steps: 10, rows: [aset, unfiltered]}
"""


def environment(home):
    return {**os.environ, "MULAN_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def mulan(*arguments, home, timeout=900):
    return subprocess.run(
        [MULAN, *arguments], cwd=home, env=environment(home), capture_output=True, text=True, timeout=timeout
    )


def running_below(home):
    """Processes that name this home on their command line, the test's own aside."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(home) in line and process.pid != os.getpid():
            found.append(line[:160])
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A catalogue of 60 tones in 4 formats, with 5 files that cannot be used."""
    home = tmp_path_factory.mktemp("home")
    rows = []
    for i in range(60):
        pitch, shape = list(PITCHES)[i % 3], list(SHAPES)[(i // 3) % 2]
        wave, ending = tone(pitch, shape, seed=i), ("wav", "flac", "ogg", "mp3")[i % 4]
        soundfile.write(home / f"{i}.{ending}", wave, 16_000)
        split = "test" if i % 5 == 0 else "valid" if i % 5 == 1 else "train"
        texts = [{"source": "sf", "text": f"{pitch} {shape}"}, {"source": "aset", "text": shape}]
        texts += [
            {"source": "lf", "text": f"A {shape} synth melody at a {pitch} pitch."},
            {"source": "lf", "text": "first!!"},
        ]
        rows.append(
            {
                "track_id": f"t{i}",
                "uri": f"{i}.{ending}",
                "split": split,
                "title": f"Tone {i}",
                "texts": texts,
                "labels": [f"pitch:{pitch}", f"shape:{shape}"],
            }
        )
    (home / "empty.wav").write_bytes(b"")
    (home / "junk.mp3").write_bytes(b"no audio at all" * 100)
    soundfile.write(home / "short.wav", tone("low", "smooth", 1)[:1000], 16_000)
    soundfile.write(home / "silent.wav", 0 * tone("low", "smooth", 1), 16_000)
    rows += [{"uri": name, "text": "x"} for name in ("gone.wav", "empty.wav", "junk.mp3", "short.wav", "silent.wav")]
    (home / "tones.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    from serving.ports import free_port

    (home / "params.yaml").write_text(PARAMS.replace("PORT", str(free_port())))
    return home


def run(home, *more):
    done = mulan("run", "--manifest", "tones.jsonl", "--params", "params.yaml", "--json", *more, home=home)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(home):
    return run(home)


def prepared_of(home):
    return next((home / "workspaces").glob("tones-*")) / ".mulan" / "data" / "prepared"


def test_bad_files_are_quarantined_each_with_its_reason(home, first):
    assert first["prepare"]["usable"] == 60
    assert first["prepare"]["quarantined"] == dict.fromkeys(
        ("missing", "empty", "undecodable", "too_short", "silent"), 1
    )
    table = pq.read_table(prepared_of(home) / shards.QUARANTINE).to_pylist()
    assert {Path(row["uri"]).name: row["reason"] for row in table}["junk.mp3"] == "undecodable"


def test_shards_hold_16_khz_clips_and_filtered_texts(home, first):
    table = shards.read_split(prepared_of(home), "train").to_pylist()
    assert len(table) == first["prepare"]["splits"]["train"]
    assert all(abs(len(shards.decode_flac(row["audio"])) - 40_000) < 3_000 for row in table)
    assert {text["text"] for row in table for text in row["texts"] if text["drop"]} == {"first!!"}


def test_the_champion_carries_its_lineage(home, first):
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    version = client.get_model_version_by_alias("mulan", "champion")
    assert str(version.version) == first["register"]["version"]
    assert version.tags["mulan.data_hash"] == first["prepare"]["data_hash"]
    assert version.tags["mulan.gate"] == "passed"
    assert version.tags["mulan.collection"] == first["index"]["collection"]
    assert version.tags["mulan.git_commit"] and version.tags["mulan.flow_run_id"] != "none"
    losses = [point.value for point in client.get_metric_history(first["train"]["run_id"], "loss")]
    assert len(losses) == 8 and losses[-1] < losses[0]
    names = {item.path for item in client.list_artifacts(first["train"]["run_id"], "evaluation")}
    assert {"evaluation/report.json", "evaluation/report.md", "evaluation/overview.png"} <= names


def test_the_registered_model_loads_as_pyfunc_and_holds_no_pickle(home, first):
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    folder = Path(mlflow.artifacts.download_artifacts("models:/mulan@champion"))
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    assert list(folder.rglob("model.safetensors"))
    vectors = mlflow.pyfunc.load_model("models:/mulan@champion").predict(["low smooth", "high buzzing"])
    assert vectors.shape == (2, 128)


def test_a_second_run_does_nothing_again(home, first):
    before = {path: path.stat().st_mtime_ns for path in prepared_of(home).rglob("*.parquet")}
    second = run(home, "--no-serve")
    assert {path: path.stat().st_mtime_ns for path in prepared_of(home).rglob("*.parquet")} == before
    assert second["train"] == first["train"]
    assert second["register"]["version"] == first["register"]["version"]
    assert second["index"]["built"] is False
    # ``dvc repro`` by hand agrees that everything is up to date.
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status"], cwd=prepared_of(home).parents[2], capture_output=True, text=True
    )
    assert "up to date" in status.stdout


def test_nothing_is_left_running(home, first):
    assert running_below(home) == []


def test_serve_search_and_a_second_owner(home, first):
    server = subprocess.Popen(
        [MULAN, "serve", "--manifest", "tones.jsonl", "--params", "params.yaml"],
        cwd=home,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        for line in server.stdout:
            lines.append(line)
            if "Ctrl-C stops it" in line:
                break
        url = next(word for line in lines for word in line.split() if word.startswith("http://127.")).rstrip("/.")
        found = mulan("search", "high buzzing", "--k", "5", "--url", url, "--json", home=home)
        answer = json.loads(found.stdout)
        assert len(answer["hits"]) == 5
        assert answer["release"]["model_version"] == first["register"]["version"]
        tagged = mulan("tag", "0.wav", "--url", url, "--json", home=home)
        assert json.loads(tagged.stdout)["labels"]
        # Another owner is refused in one sentence; a flow joins and leaves the endpoint as it was.
        refused = mulan("serve", "--manifest", "tones.jsonl", "--params", "params.yaml", home=home)
        assert refused.returncode == 2 and "another mulan is running" in refused.stderr
        joined = run(home)
        assert joined["serve"]["url"] == url
        assert mulan("search", "low", "--url", url, home=home).returncode == 0
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=120) == 0
    assert running_below(home) == []


def test_ctrl_c_in_training_leaves_nothing_and_the_next_run_goes_on(home, first):
    """Cut off after its first checkpoint, a run goes on in the same MLflow run."""
    longer = (home / "params.yaml").read_text().replace("steps: 40", "steps: 120")
    (home / "longer.yaml").write_text(longer)
    arguments = [MULAN, "train", "--manifest", "tones.jsonl", "--params", "longer.yaml", "--json"]
    cut = subprocess.Popen(
        arguments, cwd=home, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    deadline, run_id = time.monotonic() + 300, None
    while time.monotonic() < deadline:
        runs = client.search_runs(["1"], "params.`train.steps` = '120'")
        points = client.get_metric_history(runs[0].info.run_id, "loss") if runs else []
        if points and points[-1].step >= 25:
            run_id = runs[0].info.run_id
            break
        time.sleep(0.5)
    assert run_id, "training did not get going"
    cut.send_signal(signal.SIGINT)
    assert cut.wait(timeout=120) != 0
    assert running_below(home) == []
    again = mulan(*arguments[1:], home=home)
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads(again.stdout)["run_id"] == run_id
    steps = [point.step for point in client.get_metric_history(run_id, "loss")]
    assert max(steps) == 120
    assert steps.count(5) == 1, "the second half must go on from the checkpoint, not from the start"


def test_a_classifier_of_the_labels_is_trained_once_and_warms_up_the_towers(home, first):
    """The paper's start of its audio tower, through the command; its folder is then a warm start."""
    arguments = ("train", "--task", "audioset", "--manifest", "tones.jsonl", "--json")
    done = mulan(*arguments, "--params", "params.yaml", home=home)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    classifier = AudioClassifier.from_pretrained(result["model"])
    assert classifier.labels == tuple(sorted(f"pitch:{p}" for p in PITCHES) + sorted(f"shape:{s}" for s in SHAPES))
    assert result["run_id"] != first["train"]["run_id"]
    config = load_config(home / "params.yaml").model
    warm = MuLanModel.from_config(replace(config, audio=replace(config.audio, pretrained=result["model"])))
    for name, value in classifier.audio_tower.encoder.state_dict().items():
        assert torch.equal(value, warm.audio_tower.encoder.state_dict()[name]), name


def test_the_ablation_is_one_table_under_one_parent(home, first):
    done = mulan("ablate", "--manifest", "tones.jsonl", "--params", "params.yaml", "--json", home=home)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["rows"]] == ["aset", "unfiltered"]
    assert "unfiltered" in result["table"]
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert "ablation.md" in {item.path for item in client.list_artifacts(result["run_id"])}
    children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{result['run_id']}'")
    assert {run.info.run_id for run in children} == {row["run_id"] for row in result["rows"]}
    wrong = mulan("ablate", "--rows", "nope", "--manifest", "tones.jsonl", "--params", "params.yaml", home=home)
    assert wrong.returncode == 2 and "there is no ablation row 'nope'" in wrong.stderr
