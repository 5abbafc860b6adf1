"""The endpoint over a small release (release_fixtures.py), in this process."""

import httpx
import numpy as np
import pytest
import torch
from release_fixtures import *  # noqa: F403 - its fixtures
from serving_fixtures import DATA_HASH, SERVE, run_bare

from mulan_core.embedding import embed_texts
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from serving.app import create_api
from serving.release import Release, preprocessing_hash
from serving.service import Service
from serving.store import collection_name


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encode(model_folder):
    """Texts to vectors, worked out here."""
    model, processor = MuLanModel.from_pretrained(model_folder), MuLanProcessor.from_pretrained(model_folder)
    return lambda *texts: embed_texts(model, processor, texts, batch_size=1)


@pytest.fixture(scope="module")
def service(release, store, edits, catalogue):
    """The catalogue's release, open in this process."""
    return Service(release, store, edits=edits, media_root=catalogue.folder, max_audio_s=SERVE.max_audio_s)


@pytest.fixture(scope="module")
def bare(service):
    """A client of the API behind a plain HTTP server of this process; Ray takes ten times as long to start."""
    with run_bare(create_api(service, SERVE)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


LABELS = {
    "genre": ["Reggae", "Techno", "Heavy metal", "Jazz", "Salsa music", "Waltz", "Bossa nova", "Hip hop music"],
    "instrument": ["Piano", "Acoustic guitar", "Flute", "Church organ", "Violin", "Trumpet", "Drum kit", "Choir"],
    "mood": ["Calm", "Sad", "Happy", "Aggressive"],
}


@pytest.fixture(scope="session")
def told_apart(store, encode, model_folder):
    """A release like one of a trained model: a track's vector lies near those of its labels, with noise of its own."""
    random = np.random.default_rng(3)
    words = {f"{kind}:{name}": encode(name)[0] for kind, names in LABELS.items() for name in names}
    centre = np.mean(list(words.values()), axis=0)  # an untrained text tower says nearly the same of everything
    rows = []
    for i in range(300):
        labels = [f"{kind}:{random.choice(names)}" for kind, names in LABELS.items()]
        vector = sum(words[label] - centre for label in labels)
        vector = vector / np.linalg.norm(vector) + 0.6 * random.normal(0, 128**-0.5, 128)
        rows.append(
            {"track_id": f"t{i}", "dataset": "made", "labels": labels, "vector": vector / np.linalg.norm(vector)}
        )
    name, data_hash = collection_name("8", DATA_HASH), DATA_HASH
    properties = {"model_version": "8", "data_hash": data_hash, "preprocessing_hash": preprocessing_hash(model_folder)}
    store.build(name, iter([rows]), dim=128, properties=properties, hnsw_from=10_000, recall_floor=0.95)
    made = {"model_path": str(model_folder), "created_at": "2026-11-24T00:00:00+00:00"}
    return Release(collection=name, **properties, **made)
