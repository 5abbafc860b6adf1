"""Fixtures of a small release whose parts fit together: a saved model, audio files, Milvus and a collection."""

import pytest
import soundfile
from serving_fixtures import DATA_HASH, MODEL, NUM_TRACKS, Catalogue, tone

from mulan_core.audio.decode import decode_audio
from mulan_core.embedding import embed_with_windows
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor
from serving.edits import Edits
from serving.milvus import MilvusServer
from serving.release import Release, preprocessing_hash
from serving.store import TrackStore, collection_name


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
def edits(tmp_path_factory):
    """Of the catalogue, over the API; whoever serves its release shares them."""
    return Edits(tmp_path_factory.mktemp("edits"))


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
    store.windows.build(
        name,
        [
            [{"track_id": track_id, "place": i, "start_s": i, "end_s": i + 2, "vector": v} for i, v in enumerate(of)]
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
