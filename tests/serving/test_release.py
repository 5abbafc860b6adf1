"""A release is served only if its parts belong together, and is found in a real MLflow registry."""

import dataclasses
import json
import shutil
from pathlib import Path

import mlflow
import pytest

from mulan_core.errors import UserError
from serving.release import Release, check_release, preprocessing_hash, resolve_release

PYFUNC = Path(__file__).parents[2] / "serving" / "pyfunc.py"


def test_a_release_that_fits_passes(release, store):
    check_release(release, store)
    assert Release.from_dict(json.loads(json.dumps(release.to_dict()))) == release


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_version": "8"}, "model version is 8 in the release and 7 in the collection"),
        ({"data_hash": "0" * 32}, "data hash is 0000"),
        ({"preprocessing_hash": "beef"}, "preprocessing hash is .* in the model and beef in the release"),
        ({"collection": "tracks_gone"}, "tracks_gone"),
        ({"model_path": "/nowhere"}, "not a saved MuLan model"),
    ],
)
def test_whatever_disagrees_is_named(release, store, changes, words):
    with pytest.raises(UserError, match=words):
        check_release(dataclasses.replace(release, **changes), store)


@pytest.mark.parametrize(
    ("file", "change", "changes_hash"),
    [
        ("config.json", ('"num_mels": 64', '"num_mels": 32'), True),
        ("processor_config.json", ('"max_tokens": 32', '"max_tokens": 16'), True),
        ("tokenizer.json", ('"lowercase": true', '"lowercase": false'), True),
        ("config.json", ('"tau_init": 0.1', '"tau_init": 0.2'), False),
    ],
)
def test_preprocessing_hash_sees_preprocessing_only(model_folder, tmp_path, file, change, changes_hash):
    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    assert preprocessing_hash(copy) == preprocessing_hash(model_folder)
    text = (copy / file).read_text(encoding="utf-8")
    assert change[0] in text
    (copy / file).write_text(text.replace(*change), encoding="utf-8")
    assert (preprocessing_hash(copy) != preprocessing_hash(model_folder)) is changes_hash


def test_a_model_of_another_dimension_is_refused(release, store, model_folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    text = (copy / "config.json").read_text(encoding="utf-8")
    (copy / "config.json").write_text(text.replace('"embedding_dim": 128', '"embedding_dim": 64'), encoding="utf-8")
    with pytest.raises(UserError, match="dimension is 64 in the model and 128 in the collection"):
        check_release(release, store, copy)


def test_resolving_from_the_registry(release, model_folder, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(UserError, match="no champion of mulan"):
        resolve_release(mlflow_uri=uri, cache=tmp_path / "cache")
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("e")
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PYFUNC),
            artifacts={"model": str(model_folder)},
            pip_requirements=["torch"],
            registered_model_name="mulan",
        )
    client = mlflow.MlflowClient(uri)
    client.set_registered_model_alias("mulan", "champion", "1")
    with pytest.raises(UserError, match="has no collection"):
        resolve_release(mlflow_uri=uri, cache=tmp_path / "cache")
    for name in ("collection", "data_hash", "preprocessing_hash"):
        client.set_model_version_tag("mulan", "1", f"mulan.{name}", getattr(release, name))
    found = resolve_release(mlflow_uri=uri, cache=tmp_path / "cache")
    assert (found.model_version, found.collection, found.data_hash) == ("1", release.collection, release.data_hash)
    assert preprocessing_hash(found.model_path) == release.preprocessing_hash
    assert Path(found.model_path).is_relative_to(tmp_path / "cache")
    shutil.rmtree(tmp_path / "artifacts")  # the second time it is already here
    assert resolve_release("1", mlflow_uri=uri, cache=tmp_path / "cache") == found
