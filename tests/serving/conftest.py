"""A small catalogue for the endpoint: a saved model, audio files, and a release whose parts fit together."""

import httpx
import numpy as np
import pytest
import soundfile
import torch
from serving_fixtures import DATA_HASH, MODEL, NUM_TRACKS, SERVE, Catalogue, run_bare, tone

from mulan_core.audio.decode import decode_audio
from mulan_core.embedding import embed_texts, embed_with_windows
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from serving.app import create_api
from serving.milvus import MilvusServer
from serving.release import Release, preprocessing_hash
from serving.service import Service
from serving.store import TrackStore, collection_name


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    MuLanModel.from_config(MODEL).save_pretrained(folder)
    MuLanProcessor.from_config(MODEL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def catalogue(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    model, processor = MuLanModel.from_pretrained(model_folder), MuLanProcessor.from_pretrained(model_folder)
    rows = {}
    for i in range(NUM_TRACKS):
        track_id = "folder/söng 0?&" if i == 0 else f"song-{i}"
        path = folder / f"{i}.ogg"
        soundfile.write(path, tone(i), 16_000)
        rows[track_id] = {
            "track_id": track_id,
            "title": f'Title <b>{i}</b> "é"',
            "artist": "Nobody",
            "dataset": "even" if i % 2 == 0 else "odd",
            "labels": ["genre:Jazz" if i % 3 else "genre:Reggae", "mood:Calm"],
            "media_path": str(path),
        }
    (folder / "notes.txt").write_text("no audio")
    rows["song-9"]["media_path"] = str(folder / "notes.txt")
    rows["song-10"]["media_path"] = "/etc/passwd"
    rows["song-11"]["media_path"] = str(folder / ".." / "secret.ogg")
    waves = [decode_audio(folder / f"{i}.ogg")[0] for i in range(NUM_TRACKS)]
    vectors, windows = embed_with_windows(model, processor, waves, batch_size=8)
    return Catalogue(folder, *(dict(zip(rows, of, strict=True)) for of in (vectors, windows)), rows)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory):
    with MilvusServer(tmp_path_factory.mktemp("milvus") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def store(milvus):
    store = TrackStore(milvus.uri)
    yield store
    store.close()


@pytest.fixture(scope="session")
def release(store, catalogue, model_folder):
    name = collection_name("7", DATA_HASH)
    properties = {
        "model_version": "7",
        "data_hash": DATA_HASH,
        "preprocessing_hash": preprocessing_hash(model_folder),
    }
    rows = [row | {"vector": catalogue.vectors[track_id]} for track_id, row in catalogue.rows.items()]
    store.build(name, iter([rows]), dim=128, properties=properties, hnsw_from=10_000, recall_floor=0.95)
    store.build_windows(
        name,
        [
            [{"track_id": track_id, "start_s": i, "end_s": i + 2, "vector": v} for i, v in enumerate(of)]
            for track_id, of in catalogue.windows.items()
        ],
    )
    return Release(
        model_version="7",
        preprocessing_hash=properties["preprocessing_hash"],
        collection=name,
        data_hash=DATA_HASH,
        model_path=str(model_folder),
        created_at="2026-11-24T00:00:00+00:00",
    )


@pytest.fixture(scope="session")
def encode(model_folder):
    """Texts to vectors, worked out here."""
    model, processor = MuLanModel.from_pretrained(model_folder), MuLanProcessor.from_pretrained(model_folder)
    return lambda *texts: embed_texts(model, processor, texts, batch_size=1)


@pytest.fixture(scope="module")
def service(release, store, catalogue):
    """The catalogue's release, open in this process."""
    return Service(release, store, media_root=catalogue.folder, max_audio_s=SERVE.max_audio_s)


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
