"""Checkpoints in a bucket: trained there, fetched from there, and told where it is not to be had."""

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from pyarrow.fs import LocalFileSystem

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from prepared_fixtures import TINY_MODEL, write_prepared

from flows.pipeline.checkpoint_recovery import LIST_FILE, read_state, salvage
from flows.pipeline.train import fit_model
from flows.runtime.catalogues import Catalogue
from flows.runtime.settings import read_settings
from flows.runtime.stack import ray_for_stage
from flows.runtime.storage import address_of, fetch_model, files_of, open_edits, open_storage
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
        "checkpoint_selection": "best",
        "audio_lr": 0.5,
        "warmup_steps": 0,
    },
}


def test_a_folder_is_used_as_it_is(tmp_path):
    storage = open_storage(str(tmp_path / "new"), variable="X")
    assert storage.run_options() == {"storage_path": str(tmp_path / "new"), "storage_filesystem": LocalFileSystem()}
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
def test_edits_are_kept_in_the_bucket_of_the_checkpoints(bucket, tmp_path, monkeypatch):
    """Two replicas, each with a view of its own: what one writes, the other has at once."""
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    catalogue = Catalogue("tones", "workspaces/tones-01234567", "mulan-tones")
    assert open_edits(read_settings(), catalogue).location == str(tmp_path / "workspaces/tones-01234567/.mulan/edits")
    monkeypatch.setenv("MULAN_CHECKPOINTS", "s3://music/runs/")
    one, other = (open_edits(read_settings(), catalogue) for _ in range(2))
    assert one.location == "s3://music/runs/edits/mulan-tones" and one.folder is None
    assert other.all() == [] and other.get("a") is None
    fields = {"title": "T", "artist": "", "dataset": "added", "labels": []}
    for flac in (b"one", b"two"):
        with one.adding("a/ü 100%", fields, flac, row_hash=None) as added:
            pass
        assert other.all() == [added] and other.get("a/ü 100%") == added and other.audio(added) == flac
    assert len(bucket.ls("music/runs/edits/mulan-tones", refresh=True)) == 2
    with pytest.raises(UserError, match="away"), one.deleting("a/ü 100%", row_hash=None):
        raise UserError("away")
    assert other.all() == [added] and one.media_path(added) == ""
    renamed = open_edits(read_settings(), replace(catalogue, name="pure", model="mulan-pure"))
    one.move(renamed.location)
    assert renamed.all() == [added] and renamed.audio(added) == b"two" and other.all() == []
    renamed.remove()
    assert renamed.all() == [] and not bucket.exists("music/runs/edits/mulan-pure")


def test_training_keeps_its_checkpoints_in_a_bucket(bucket, tmp_path):
    prepared, home = write_prepared(tmp_path / "prepared"), tmp_path / "home"
    place = {"home": home, "checkpoints": "s3://music/runs", "mlflow_uri": f"sqlite:///{home}/mlflow.db"}
    with ray_for_stage():
        trained = fit_model(from_mapping(Config, NUMBERS), prepared, data_hash="d", **place)
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
    assert fit_model(from_mapping(Config, NUMBERS), prepared, data_hash="d", **place) == trained
    assert (trained.model / "model.safetensors").exists()


OLD, NEW = "checkpoint_2026-01-01", "checkpoint_2026-01-02"


@pytest.fixture(params=["folder", "bucket", "a folder?%20#[x]::y"])
def run(request, bucket, tmp_path):
    """A run's address, and what writes a file of it."""
    place = "s3://music/damaged" if request.param == "bucket" else str(tmp_path / request.param)
    files, path = files_of(place)
    if files.exists(path):
        files.rm(path, recursive=True)

    def write(name, content):
        files.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe_file(f"{path}/{name}", content)

    def exists(name):
        files.invalidate_cache()
        return files.exists(f"{path}/{name}")

    return place, write, exists


def whole(step):
    file = io.BytesIO()
    torch.save({"step": step, "weights": torch.zeros(100)}, file)
    return file.getvalue()


def listing(latest):
    result = None if latest is None else {"checkpoint_dir_name": latest, "metrics": {}}
    return json.dumps({"latest_checkpoint_result": result, "checkpoint_results": []}).encode()


@pytest.mark.parametrize("listed", [b"", b"{", b"[]", b"\xff", listing("checkpoint_gone"), None, listing(NEW)])
def test_what_ray_cannot_go_on_from_is_salvaged_from_the_newest_whole_checkpoint(listed, run):
    place, write, exists = run
    write(f"{OLD}/state.pt", whole(3))
    write(f"{NEW}/state.pt", whole(4)[:200])
    if listed is not None:
        write(LIST_FILE, listed)
    found = salvage(place)
    assert found == f"{place}/{OLD}" and read_state(found)["step"] == 3
    assert not exists(LIST_FILE) and exists(f"{LIST_FILE}.damaged") is (listed is not None)
    assert exists(f"{NEW}/state.pt")


def test_ray_goes_on_by_itself_where_it_can(run):
    place, write, exists = run
    assert salvage(place) is None  # a run that has not begun
    write(LIST_FILE, listing(None))
    assert salvage(place) is None  # nor come to its first checkpoint
    write(f"{OLD}/state.pt", whole(3))
    write(LIST_FILE, listing(OLD))
    assert salvage(place) is None and exists(LIST_FILE)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "changed in the middle"])
@pytest.mark.parametrize("listed", [b"", listing(NEW)])
def test_a_run_of_which_nothing_can_be_read_asks_instead_of_beginning_anew(listed, damage, run):
    place, write, exists = run
    write(LIST_FILE, listed)
    state = whole(4)
    damaged = {"cut": state[:300], "empty": b"", "changed in the middle": state[:100] + bytes(200) + state[300:]}
    if damage == "changed in the middle" and listed:
        pytest.skip("a list in order is believed; the worker says what ails the checkpoint, as read_state does")
    for name in (OLD, NEW):
        if damage != "gone":
            write(f"{name}/state.pt", damaged[damage])
    with pytest.raises(UserError, match=r"^the training in .* cannot go on: [^\n]+ to train from step 0$") as error:
        salvage(place)
    assert place in str(error.value) and exists(LIST_FILE)
    if damage != "gone":
        with pytest.raises(UserError, match=r"^the checkpoint [^\n]+ cannot be read [^\n]+$"):
            read_state(f"{place}/{NEW}")
