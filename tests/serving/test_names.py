"""What a manifest or the API takes can be shown, filtered by, asked for, chosen and deleted, letter for letter."""

import json
import random
import sys
import unicodedata
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_fixtures import NUM_TRACKS, SERVE, check_error, ids, run_bare, tone, wav

from mulan_core.data.names import MAX_BYTES, MAX_LABELS, why_misnamed
from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError
from serving.app import create_api
from serving.client import MulanClient
from serving.query_log import QueryLog, read_query_log

pytestmark = pytest.mark.slow

AUDIO = wav(tone(5, 0.6))
ODD = [
    "a\xa0b",
    "\u202ea\u200d",
    "e\u0301",
    "é",
    "👩\u200d🎤",
    "\uffffx",
    "'\"<b>&amp;",
    "a%2Fb?#;\\+%",
    "{x} $1 \\u0041",
    "ß" * 120,
]
BAD = ["a\nb", "\x00", "\x85", "a\u2028b", " a", "a\u3000", "x" * 2_049, "\u200b", "\u2060\u200d", "\ufe0f", "\u3164"]
NO_IDS = [".", "..", "a/../b", "/a", "a/", "a//b", "a/audio", "x" * 513]


def path_of(track_id):
    return f"/v1/tracks/{quote(track_id, safe='')}"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log")


@pytest.fixture(scope="module")
def noting(service, log):
    """A client of the API with a query log."""
    api = create_api(service, SERVE, query_log=QueryLog(log, "full"))
    with run_bare(api) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def check_found_everywhere(client, log, name):
    """A track of these names answers to each of them by every door; then it is deleted."""
    track_id = name["track_id"]
    shown = client.get(path_of(track_id)).json()["track"]
    assert {key: shown[key] for key in name} == name
    for label in name["labels"]:
        narrow = {"labels": [label], "artist": name["artist"], "dataset": name["dataset"]}
        answer = client.post("/v1/search", json={"text": "x", "filter": narrow}).json()
        assert ids(answer) == [track_id], narrow
        assert {key: answer["hits"][0][key] for key in name} == name
    assert client.post("/v1/search", json={"track_id": track_id, "k": 1}).status_code == 200
    assert client.post("/v1/tag", json={"track_id": track_id}).status_code == 200
    chosen = {"request_id": "r", "track_id": track_id}
    assert client.post("/v1/feedback", json=chosen).status_code == 200
    noted = [line for line in read_query_log(log) if line["kind"] == "feedback"][-1]
    assert {key: noted[key] for key in chosen} == chosen
    assert client.delete(path_of(track_id)).json()["deleted"] == track_id
    assert client.get(path_of(track_id)).status_code == 404


def test_random_names_of_a_manifest_are_the_same_out(noting, log, service, store, tmp_path):
    rng = random.Random(7)
    every = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
    ]

    def draw(field):
        while True:
            name = rng.choice(["", f"{rng.choice(ODD)}/"]) + "".join(rng.choices(every, k=rng.randint(1, 12)))
            if why_misnamed(field, name) is None:
                return name

    rows = [
        {field: draw(field) for field in ("track_id", "title", "artist", "dataset")}
        | {"labels": [draw("labels") for _ in range(2)], "uri": f"{n}.wav"}
        for n in range(40)
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    read = [{key: row[key] for key in rows[0] if key != "uri"} for row in read_manifest(path).to_pylist()]
    vectors = np.random.default_rng(0).standard_normal((len(read), 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store.upsert(service.release.collection, [row | {"vector": v} for row, v in zip(read, vectors, strict=True)])
    for row in read:
        check_found_everywhere(noting, log, row)


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_of_the_api_are_the_same_out(noting, log, odd):
    name = {"track_id": odd, "title": odd, "artist": odd, "dataset": odd, "labels": [odd, f"genre:{odd}"]}
    added = noting.post("/v1/tracks", files={"audio": AUDIO}, data=name | {"labels": json.dumps(name["labels"])})
    assert added.status_code == 200, added.text
    check_found_everywhere(noting, log, name)


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    fields=st.fixed_dictionaries(
        {"track_id": texts | st.sampled_from([*NO_IDS, *ODD]), "title": texts | st.sampled_from(BAD)}
        | {"artist": texts, "dataset": texts, "labels": st.lists(texts, max_size=3)}
    )
)
def test_the_api_takes_what_a_manifest_takes(noting, tmp_path, fields):
    track_id, labels = fields["track_id"], fields["labels"]
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(fields | {"uri": "a.wav"}))
    try:
        read_manifest(path)
        taken = bool(track_id)  # without one the manifest makes one, the API has nothing to make it from
    except UserError:
        taken = False
    answer = noting.post("/v1/tracks", files={"audio": AUDIO}, data=fields | {"labels": json.dumps(labels)})
    assert answer.status_code == (200 if taken else 422), answer.text
    if taken:
        assert noting.delete(path_of(track_id)).status_code == 200


@pytest.mark.parametrize("field", MAX_BYTES)
def test_what_cannot_be_named_is_refused_by_field(noting, field):
    for name in [*BAD, *(NO_IDS if field == "track_id" else [])]:
        value = json.dumps([name]) if field == "labels" else name
        answer = noting.post("/v1/tracks", files={"audio": AUDIO}, data={"track_id": "x"} | {field: value})
        check_error(answer, 422, "invalid", f"^{field}: ")
    many = {"track_id": "x", "labels": json.dumps([f"l{i}" for i in range(MAX_LABELS + 1)])}
    check_error(noting.post("/v1/tracks", files={"audio": AUDIO}, data=many), 422, "invalid", "may carry 256 labels")
    assert noting.get("/v1/release").json()["num_tracks"] == NUM_TRACKS


def test_what_an_older_version_let_in_can_be_seen_and_deleted(noting, service, store, catalogue):
    """The rule is for what comes in: the store keeps what it has until it is deleted or the catalogue is indexed."""
    vector = catalogue.vectors["song-1"]
    for track_id in ("a/audio", "lead ", " b\u3000", "a//b", "/c", "d/../e", "f/"):
        row = {"track_id": track_id, "vector": vector, "labels": ["odd "], "artist": " Ann"}
        store.upsert(service.release.collection, [row])
        answer = noting.post("/v1/search", json={"text": "x", "filter": {"labels": ["odd "], "artist": " Ann"}})
        assert ids(answer.json()) == [track_id]
        assert noting.post("/v1/search", json={"track_id": track_id, "k": 1}).status_code == 200
        assert noting.delete(path_of(track_id)).json()["deleted"] == track_id
    assert noting.get("/v1/release").json()["num_tracks"] == NUM_TRACKS


def test_the_client_says_of_an_id_without_an_address_that_there_is_none(noting):
    with MulanClient(str(noting.base_url)) as client:
        for track_id in ("", ".", "..", "\ud800"):
            for ask in (client.track, client.delete_track):
                with pytest.raises(UserError, match="there is no track"):
                    ask(track_id)
        with pytest.raises(UserError, match="not UTF-8 text"):
            client.search_text("\ud800")
