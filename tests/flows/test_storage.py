"""Checkpoints in a bucket: trained there, fetched from there, and told where it is not to be had."""

import io
import shutil
import sys
from pathlib import Path

import fsspec
import mlflow
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from prepared_fixtures import TINY_MODEL, write_prepared

from flows.stack import ray_for_stage
from flows.steps.salvage import LIST_FILE, drop_damaged_list, newest_state
from flows.steps.storage import address_of, fetch_model, open_storage
from flows.steps.train import train
from mulan_core.config import Config, from_mapping
from mulan_core.errors import UserError
from mulan_core.model import MuLanModel

NUMBERS = {
    "model": TINY_MODEL,
    "train": {
        "steps": 4,
        "batch_size": 8,
        "num_workers": 1,
        "checkpoint_every": 1,
        "log_every": 1,
        "keep": "best",
        "audio_lr": 0.5,
        "warmup_steps": 0,
    },
}


def test_a_folder_is_used_as_it_is(tmp_path):
    storage = open_storage(str(tmp_path / "new"), variable="X")
    assert storage.run_options() == {"storage_path": str(tmp_path / "new"), "storage_filesystem": None}
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "new" / "model").mkdir()
    assert fetch_model(str(tmp_path / "new"), tmp_path / "copy") == tmp_path / "new" / "model"
    assert fetch_model(str(tmp_path / "gone"), tmp_path / "copy") is None


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("{}/file/in/it", "correct X"),
        ("s4://bucket/path", "s4"),
        ("s3://no-such-bucket/path", "correct X or the credentials"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_sentence(place, said, tmp_path, bucket):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        open_storage(place.format(tmp_path), variable="X")
    assert said in str(error.value) and place.format(tmp_path) in str(error.value)


def test_addresses_have_their_scheme_again():
    assert address_of("s3://bucket/runs", "bucket/runs/a/b") == "s3://bucket/runs/a/b"
    assert address_of("/home/runs", "/home/runs/a/b") == "/home/runs/a/b"


@pytest.mark.slow
def test_training_keeps_its_checkpoints_in_a_bucket(bucket, tmp_path):
    prepared, home = write_prepared(tmp_path / "prepared"), tmp_path / "home"
    place = {"home": home, "checkpoints": "s3://music/runs", "mlflow_uri": f"sqlite:///{home}/mlflow.db"}
    with ray_for_stage():
        trained = train(from_mapping(Config, NUMBERS), prepared, data_hash="d", **place)
    assert trained.model == home / "models" / trained.run_id
    assert MuLanModel.from_pretrained(trained.model).num_parameters() > 0
    client = mlflow.MlflowClient(place["mlflow_uri"])
    checkpoint = client.get_run(trained.run_id).data.tags["mulan.checkpoint"]
    assert checkpoint.startswith("s3://music/runs/train-") and bucket.isdir(checkpoint)
    # At such a rate it gets worse again: what is kept is not the last one.
    losses = [point.value for point in client.get_metric_history(trained.run_id, "valid/loss")]
    state = torch.load(bucket.open(f"{checkpoint}/state.pt"), weights_only=True)
    assert len(losses) == 4 and state["step"] == 1 + losses.index(min(losses)), losses
    shutil.rmtree(trained.model)  # as on another machine: fetched again, not trained again
    assert train(from_mapping(Config, NUMBERS), prepared, data_hash="d", **place) == trained
    assert (trained.model / "model.safetensors").exists()


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_damaged_list_of_checkpoints_is_dropped_and_the_newest_whole_one_found(where, bucket, tmp_path):
    run = str(tmp_path / "run") if where == "folder" else "s3://music/damaged"
    files, path = fsspec.core.url_to_fs(run)

    def write(name, content):
        files.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe_file(f"{path}/{name}", content)

    whole = io.BytesIO()
    torch.save({"step": 3}, whole)
    write("checkpoint_2026-01-01/state.pt", whole.getvalue())
    write("checkpoint_2026-01-02/state.pt", whole.getvalue()[:200])
    assert drop_damaged_list(run) == []  # no list: a run that has not begun
    write(LIST_FILE, b'{"checkpoint_results": []}')
    assert drop_damaged_list(run) == []
    write(LIST_FILE, b"")
    found = drop_damaged_list(run)
    assert found == [f"{run}/checkpoint_2026-01-02", f"{run}/checkpoint_2026-01-01"]
    assert newest_state(found) == {"step": 3} and newest_state(found[:1]) is None
    assert not files.exists(f"{path}/{LIST_FILE}")
