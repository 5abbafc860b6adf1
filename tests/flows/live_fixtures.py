"""A catalogue with real models, registry and Milvus Lite, served in this process; a switch that ends at any step."""

import asyncio
import shutil
from functools import cache
from pathlib import Path

import mlflow
import pytest
import torch
import yaml
from serving_fixtures import MODEL, tone, wav

from flows.pipeline import switch
from flows.pipeline.index import build_index, keep_rows
from flows.pipeline.switch import Live
from flows.registry import Registry
from flows.runtime.database import database_uri
from mulan_core.config import IndexConfig
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from serving.collection import Collections
from serving.edits import Edits, to_flac
from serving.encoder import Encoder
from serving.release import preprocessing_hash
from serving.service import Service
from serving.store import TrackStore
from serving.timing import Timing

WEIGHTS = {"1": "a", "2": "a", "3": "b"}
"""Of each version."""
RUN = "a run of old"


class Killed(BaseException):
    """The process is no more: nothing is put right on the way out."""


class Steps:
    """What a switch does to the world outside, step by step; at one of them it ends."""

    def __init__(self, monkeypatch):
        self.at, self.error, self.said = 0, Killed, []
        for what, names in {
            mlflow.MlflowClient: ("set_registered_model_alias", "set_registered_model_tag"),
            TrackStore: ("upsert", "delete"),
            Collections: ("switch_alias",),
            Served: ("deploy",),
        }.items():
            for name in names:
                monkeypatch.setattr(what, name, self._around(getattr(what, name), name))
        for name in ("write_journal", "remove_journal"):
            monkeypatch.setattr(switch, name, self._around(getattr(switch, name), name))

    def end_at(self, number, error=Killed):
        """From now on, the step of this number is the last one; 0 lets all of them be."""
        self.at, self.error, self.said = number, error, []

    def _around(self, whole, name):
        def called(*args, **more):
            self._step(f"before {name}")
            result = whole(*args, **more)
            self._step(f"after {name}")
            return result

        return called

    def _step(self, name):
        self.said.append(name)
        if len(self.said) == self.at:
            raise self.error(name)


class Served:
    """The endpoint, but for Ray: a release open in this process, which goes on when the one who deploys dies."""

    def __init__(self, home):
        self.home, self.service = home, None

    def runs(self):
        return self.service is not None

    def version(self):
        return self.service.release.model_version if self.service else None

    def deploy(self, release):
        self.service = Service(release, self.home.store, edits=self.home.edits, media_root=None, max_audio_s=20)
        return "http://here"


class Home:
    """One catalogue; versions 1 and 2 have the same weights, 3 has others."""

    def __init__(self, folder, models, database):
        self.models, self.state = models, folder / "state"
        self.store = TrackStore(str(folder / "lite.db"))
        self.edits = Edits(self.state / "edits")
        self.registry = Registry(database_uri(Path(shutil.copy(database, folder))), folder / "models")
        self.endpoint = Served(self)
        for number, weights in WEIGHTS.items():
            kept = self.registry.cache / f"{number}-{RUN[:12]}"
            kept.mkdir(parents=True)
            (kept / "model").symlink_to(models[weights].folder)
            card = {"flavors": {"python_function": {"artifacts": {"model": {"path": "model"}}}}}
            (kept / "MLmodel").write_text(yaml.safe_dump(card))

    def live(self):
        """As the next command finds it."""
        return Live(self.registry, self.store, self.edits, self.state, self.endpoint)

    def build(self, version, tracks):
        """The collection of a version over a catalogue of track id -> the seed of its tone, as ``index`` builds it."""
        model = self.models[WEIGHTS[version]]
        edited = {edit.track_id: edit.keeps_out for edit in self.edits.all()}
        rows = [
            {"track_id": track_id, "dataset": "d", "content_hash": f"{seed:032x}", "vector": model.vector(seed)}
            for track_id, seed in tracks.items()
        ]
        kept_out = [row for row in rows if edited.get(row["track_id"])]
        rows = [row for row in rows if not edited.get(row["track_id"])]
        about = {"version": version, "data_hash": "d" * 32, "preprocessing_hash": preprocessing_hash(model.folder)}
        name, _ = build_index(self.store, rows, IndexConfig(), **about, edited=edited)
        keep_rows(self.edits, name, kept_out)
        client = mlflow.MlflowClient(self.registry.uri)
        client.set_model_version_tag("mulan", version, "mulan.collection", name)
        client.set_model_version_tag("mulan", version, "mulan.preprocessing_hash", about["preprocessing_hash"])
        return name

    def go_over(self, version, champions=None, *, start=False):
        """Promote a version, or name these champions."""
        live = self.live()
        live.recover()
        champions = champions or self.registry.champions_with(version)
        return live.go_over(self.registry.release(version), champions, start=start)

    def add(self, track_id, seed):
        """Over the API."""
        fields = {"track_id": track_id, "title": "", "artist": "", "dataset": "added", "labels": []}
        service, timing = self.endpoint.service, Timing()

        async def ask():
            await service.add(fields, await service.hear(sound(seed), timing), timing)

        asyncio.run(ask())

    def delete(self, track_id):
        """Over the API."""
        return asyncio.run(self.endpoint.service.delete(track_id, Timing()))

    def heard(self, collection):
        """Track id -> the seed of the tone whose vector it has."""
        version = self.store.collections.describe(collection).properties["model_version"]
        model = self.models[WEIGHTS[version]]
        names = [track_id for page in self.store.scroll(collection) for track_id, _ in page]
        found = self.store.tracks.get(names, collection=collection)
        return {track_id: model.seed_of(vector) for track_id, (_, vector) in found.items()}

    def check(self):
        """Endpoint, registry and Milvus agree; returns the version."""
        version = self.registry.find("champion").number
        assert self.registry.champions()[-1] == version
        assert self.store.collections.live_collection() == self.registry.find(version).tag("collection")
        assert self.endpoint.version() in (version, None)
        assert not (self.state / "switch.json").exists()
        return version


@cache
def sound(seed):
    return wav(tone(seed, 0.6))


class Model:
    """A saved model, and the tones that it has heard."""

    def __init__(self, folder):
        self.folder, self._heard = folder, {}
        self._encoder = Encoder(folder)

    def vector(self, seed):
        if seed not in self._heard:
            self._heard[seed] = self._encoder.encode_flac(to_flac(sound(seed), max_s=20))[0]
        return self._heard[seed]

    def seed_of(self, vector):
        return max(self._heard, key=lambda seed: float(self._heard[seed] @ vector))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of other weights."""
    made = {}
    for number, name in enumerate("ab"):
        torch.manual_seed(number)
        folder = tmp_path_factory.mktemp(f"model-{name}")
        MuLanModel.from_config(MODEL).save_pretrained(folder)
        MuLanProcessor.from_config(MODEL).save_pretrained(folder)
        made[name] = Model(folder)
        for seed in range(12):
            made[name].vector(seed)
    return made


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A database with the three versions, all of which the gate has passed."""
    folder = tmp_path_factory.mktemp("registry")
    client = mlflow.MlflowClient(database_uri(folder / "mlflow.db"))
    client.create_registered_model("mulan")
    for weights in WEIGHTS.values():
        tags = {"mulan.gate": "passed", "mulan.data_hash": "d" * 32, "mulan.weights": weights}
        client.create_model_version("mulan", "/nowhere", RUN, tags=tags)
    return folder / "mlflow.db"


@pytest.fixture
def home(tmp_path, models, registered):
    """Version 1 is live and not served; the others are built."""
    home = Home(tmp_path, models, registered)
    for version in WEIGHTS:
        home.build(version, {"t0": 0, "t1": 1, "t2": 2})
    home.go_over("1")
    yield home
    home.store.close()
