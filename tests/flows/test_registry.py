"""The model registry, on a real MLflow: versions by alias and number, their files, and two models side by side."""

import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from flow_fixtures import ROOT, promote

sys.path.insert(0, str(ROOT / "tests" / "serving"))

from serving_fixtures import DATA_HASH, MODEL

from flows.ray_service import app_from_environment
from flows.registry import Registry
from flows.runtime.database import database_uri
from flows.runtime.tracking import NoRegistryError, tracking
from mulan_core.errors import UserError
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from serving.release import preprocessing_hash
from serving.store import TrackStore, collection_name


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A registry with three versions, the first with a model, of which the gate passed all but the last."""
    folder = tmp_path_factory.mktemp("registry")
    MuLanModel.from_config(MODEL).save_pretrained(folder / "saved")
    MuLanProcessor.from_config(MODEL).save_pretrained(folder / "saved")
    with tracking(database_uri(folder / "mlflow.db")) as client:
        with mlflow.start_run():
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(ROOT / "serving" / "pyfunc.py"),
                artifacts={"model": str(folder / "saved")},
                pip_requirements=["torch"],
                registered_model_name="mulan",
            )
        for number in range(1, 4):
            if number > 1:
                client.create_model_version("mulan", str(folder))
            tags = {"gate": "passed" if number < 3 else "refused", "weights": "w", "data_hash": f"{number}" * 32}
            for name, value in tags.items():
                client.set_model_version_tag("mulan", str(number), f"mulan.{name}", value)
    return folder


@pytest.fixture
def registry(database, tmp_path):
    """A copy of it, whose files lie where they were."""
    return Registry(database_uri(Path(shutil.copy(database / "mlflow.db", tmp_path))), tmp_path / "models")


def test_a_version_is_the_same_by_alias_by_number_and_in_the_list(registry):
    promote(registry, "2")
    registry.nominate("2", {"mulan.weights": "others"}, card="# A card")
    version = registry.find("champion")
    assert version == registry.find("2") == registry.get("candidate") == registry.versions()[1]
    assert (version.number, version.aliases, version.tag("weights")) == ("2", ("candidate", "champion"), "others")
    assert [version.number for version in registry.versions()] == ["3", "2", "1"]
    assert mlflow.MlflowClient(registry.uri).get_model_version("mulan", "2").description == "# A card"


@pytest.mark.parametrize("name", ["nobody", "99", "9" * 30, "", "ä ö", "²", "-1", "x" * 999])
def test_a_name_that_is_no_version_is_one_sentence(registry, name):
    assert registry.get(name) is None
    with pytest.raises(UserError, match=r"is no alias or version of the model `mulan`; see `mulan release list`.+$"):
        registry.find(name)


def test_each_registered_model_has_versions_and_aliases_of_its_own(registry):
    other = Registry(registry.uri, registry.cache, "of another catalogue")
    assert other.versions() == other.champions() == [] and other.get("1") is None
    client = mlflow.MlflowClient(registry.uri)
    client.create_registered_model(other.name)
    client.create_model_version(other.name, "/nowhere", tags={"mulan.gate": "passed"})
    promote(registry, "2")
    promote(other, "1")
    assert (registry.champions(), other.champions()) == (["2"], ["1"])
    assert (len(registry.versions()), len(other.versions())) == (3, 1)
    with pytest.raises(UserError, match="version 1 of of another catalogue has no collection"):
        other.release("1")


def test_a_run_and_its_own_data_have_one_version(registry):
    run_id = registry.find("1").run_id
    assert registry.trained(run_id) == registry.find("1")
    assert registry.version_for_data("1", "a" * 32).run_id == run_id
    assert registry.trained(run_id) == registry.find("1"), "a version over other data is none of the run's own"
    with pytest.raises(UserError, match="is not registered; run `mulan evaluate` first"):
        registry.trained("nobody's")


def test_a_model_over_other_data_is_one_version_for_each(registry):
    registry.tag("1", {"mulan.collection": "tracks_1"})
    assert registry.version_for_data("1", "1" * 32) == registry.find("1")
    made = registry.version_for_data("1", "a" * 32)
    assert made == registry.version_for_data("1", "a" * 32) and made.number == "4"
    assert made.tag("collection") is None and made.tag("gate") == "passed"
    assert (made.tag("data_hash"), made.trained_on) == ("a" * 32, "1" * 32)
    again = registry.version_for_data("4", "b" * 32)
    assert (again.number, again.trained_on, again.tag("data_hash")) == ("5", "1" * 32, "b" * 32)
    with pytest.raises(UserError, match="no alias or version"):
        registry.version_for_data("nobody", "a" * 32)
    mlflow.MlflowClient(registry.uri).create_model_version("mulan", "/nowhere")
    with pytest.raises(UserError, match="version 6 of mulan does not say what data it was trained on"):
        registry.version_for_data("6", "a" * 32)


def test_a_release_brings_its_model_once(registry, database):
    with pytest.raises(NoRegistryError, match="no runs and no models are kept yet"):
        Registry(database_uri(registry.cache / "mlflow.db"), registry.cache).release()
    with pytest.raises(UserError, match="'champion' is no alias or version"):
        registry.release()
    promote(registry, "1")
    with pytest.raises(UserError, match="has no collection"):
        registry.release()
    parts = {"collection": "tracks_1", "preprocessing_hash": preprocessing_hash(database / "saved")}
    registry.tag("1", {f"mulan.{name}": value for name, value in parts.items()})
    release = registry.release()
    assert (release.model_version, release.collection, release.data_hash) == ("1", "tracks_1", "1" * 32)
    assert preprocessing_hash(release.model_path) == release.preprocessing_hash
    assert Path(release.model_path).is_relative_to(registry.cache)
    mlflow.MlflowClient(registry.uri).create_model_version("mulan", "/nowhere", tags=registry.find("1").tags)
    with pytest.raises(UserError, match="cannot fetch version 4 of mulan"):
        registry.release("4")
    (Path(release.model_path) / "weights are not looked at").touch()
    assert registry.release("1") == release and len(list(Path(release.model_path).glob("weights are*"))) == 1
    (Path(release.model_path) / "config.json").unlink()
    with pytest.raises(UserError, match="is damaged; delete that folder"):
        registry.release("1")


def test_a_rayservice_is_given_the_champion(registry, database, monkeypatch, tmp_path):
    for name in ("MULAN_MILVUS_URI", "MULAN_KEYS_FILE", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    with pytest.raises(UserError, match="set MULAN_MILVUS_URI"):
        app_from_environment({})
    monkeypatch.setenv("MULAN_MILVUS_URI", str(tmp_path / "lite.db"))
    with pytest.raises(UserError, match="key"):
        app_from_environment({})
    with pytest.raises(UserError, match="'champion' is no alias or version"):
        app_from_environment({"allow_open": True})
    name, hashed = collection_name("1", DATA_HASH), preprocessing_hash(database / "saved")
    tags = {"data_hash": DATA_HASH, "preprocessing_hash": hashed, "collection": name}
    registry.tag("1", {f"mulan.{name}": value for name, value in tags.items()})
    promote(registry, "1")
    store = TrackStore(str(tmp_path / "lite.db"))
    rows = [{"track_id": "t", "vector": np.eye(128)[0], "dataset": "d", "content_hash": "h"}]
    properties = {"model_version": "1", "data_hash": DATA_HASH, "preprocessing_hash": hashed}
    store.build(name, [rows], dim=128, properties=properties, hnsw_from=10_000, recall_floor=0.95)
    app = app_from_environment({"allow_open": True, "num_replicas": 3})
    assert app._bound_deployment.num_replicas == 3
    assert app._bound_deployment.init_args[0] == registry.release().to_dict()
    store.close()
