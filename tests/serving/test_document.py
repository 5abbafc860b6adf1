"""The OpenAPI document: names that are words, the key, bodies; and a client that a public generator makes of it."""

import json
import re
import subprocess
import textwrap

import pytest
from generator import generate
from openapi_spec_validator import validate
from serving_fixtures import SERVE, run_bare

from serving.access import scope_needed
from serving.app import create_api
from serving.keys import KeyFile
from serving.query_log import QueryLog

pytestmark = pytest.mark.slow

OPERATIONS = {
    "search": ("post", "/v1/search"),
    "tag": ("post", "/v1/tag"),
    "embed": ("post", "/v1/embed"),
    "send_feedback": ("post", "/v1/feedback"),
    "add_track": ("post", "/v1/tracks"),
    "get_track": ("get", "/v1/tracks/{track_id}"),
    "delete_track": ("delete", "/v1/tracks/{track_id}"),
    "play_track": ("get", "/v1/tracks/{track_id}/audio"),
    "get_map": ("get", "/v1/map"),
    "get_release": ("get", "/v1/release"),
    "livez": ("get", "/livez"),
    "readyz": ("get", "/readyz"),
    "metrics": ("get", "/metrics"),
}
UPLOADS = {
    "/v1/search": "SearchUpload",
    "/v1/tag": "TagUpload",
    "/v1/embed": "EmbedUpload",
    "/v1/tracks": "TrackUpload",
}


@pytest.fixture(scope="module")
def document(service):
    return create_api(service, SERVE).openapi()


def test_it_is_openapi_and_each_operation_has_a_word(document):
    validate(document)
    found = {
        operation["operationId"]: (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert found == OPERATIONS, "a new operation gets a word and a line here"
    assert sum(len(operations) for operations in document["paths"].values()) == len(found), "unique"
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)?", name) and "v1" not in name for name in found)
    assert [server["url"] for server in document["servers"]] == ["."]


def test_it_says_what_needs_a_key(document):
    assert document["security"] == [{"key": []}]
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_open = scope_needed(method.upper(), path) is None
            assert operation.get("security") == ([] if is_open else None), path
            assert is_open or {"401", "403"} <= set(operation["responses"]), path


def test_bodies_have_names_and_examples_that_fit(document):
    schemas = document["components"]["schemas"]

    def resolved(content):
        return schemas[content["schema"]["$ref"].rpartition("/")[2]]

    for path, name in UPLOADS.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert content["multipart/form-data"]["schema"]["$ref"].endswith(f"/{name}")
        assert resolved(content["multipart/form-data"])["properties"]["audio"]["format"] == "binary"
        for example in content.get("application/json", {"examples": {}})["examples"].values():
            assert set(example["value"]) <= set(resolved(content["application/json"])["properties"])
    played = document["paths"]["/v1/tracks/{track_id}/audio"]["get"]["responses"]
    assert {"audio/*", "application/octet-stream"} <= set(played["200"]["content"]) <= set(played["206"]["content"])
    assert set(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}


USE = """
import io, json, sys
sys.path.insert(0, "@FOLDER@")
from mu_lan_client import AuthenticatedClient, models
from mu_lan_client.api.catalogue import add_track, delete_track, get_map, get_release, get_track, play_track
from mu_lan_client.api.operation import livez, metrics, readyz
from mu_lan_client.api.search import embed, search, send_feedback, tag
from mu_lan_client.types import File

client = AuthenticatedClient(base_url="@URL@", token="@KEY@")
data = open("@AUDIO@", "rb").read()
sound = lambda: File(payload=io.BytesIO(data), file_name="x.ogg", mime_type="audio/ogg")
ask = lambda operation, *path, **named: operation.sync_detailed(*path, client=client, **named)

def good(answer):
    assert answer.status_code == 200, (answer.status_code, answer.content)
    return answer.parsed

words = good(ask(search, body=models.SearchRequest(text="calm piano", k=3, filter_=models.TrackFilter(dataset="odd"))))
assert len(words.hits) == 3 and words.hits[0].dataset == "odd"
parts = [models.WeightedQuery(text="piano"), models.WeightedQuery(track_id="song-2", weight=-0.5)]
assert len(good(ask(search, body=models.SearchRequest(queries=parts))).hits) == 10
heard = good(ask(search, body=models.SearchUpload(audio=sound(), k=1, filter_=json.dumps({"dataset": "even"}))))
assert [hit.track_id for hit in heard.hits] == ["song-2"]
assert len(good(ask(tag, body=models.TagRequest(track_id="song-4", labels=["a", "b"]))).labels) == 2
assert len(good(ask(tag, body=models.TagUpload(audio=sound()))).labels) == 3
assert good(ask(embed, body=models.EmbedRequest(texts=["a", "b"]))).dim == 128
assert len(good(ask(embed, body=models.EmbedUpload(audio=sound()))).vectors) == 1
new = models.TrackUpload(audio=sound(), track_id="new/1 ü", title="New", labels='["genre:Jazz"]')
made = good(ask(add_track, body=new))
assert (made.track.track_id, made.track.labels, made.replaced) == ("new/1 ü", ["genre:Jazz"], False)
assert good(ask(get_track, "new/1 ü")).track.title == "New"
assert good(ask(delete_track, "new/1 ü")).deleted == "new/1 ü"
gone = ask(get_track, "new/1 ü")
assert gone.status_code == 404 and gone.parsed.error.code == "not_found"
assert good(ask(play_track, "song-2")).payload.read() == data
assert len(good(ask(get_map)).points) == good(ask(get_release)).num_tracks
chosen = models.FeedbackRequest(request_id=words.request_id, track_id="song-1")
assert good(ask(send_feedback, body=chosen)).status == "noted"
assert good(ask(livez)).status == "alive" and good(ask(readyz)).status == "ready"
assert "mulan_requests_total" in good(ask(metrics))
wrong = ask(search, body=models.SearchRequest(text="a", k=1000))
assert wrong.status_code == 422 and "k" in wrong.parsed.error.message
stranger = AuthenticatedClient(base_url="@URL@", token="wrong")
assert search.sync_detailed(client=stranger, body=models.SearchRequest(text="a")).status_code == 401
"""


@pytest.mark.parametrize("prefix", ["", "/music"])
def test_a_client_made_of_it_does_all_that_the_api_does(service, catalogue, tmp_path, prefix):
    """Made without a warning; in an interpreter that has the generator's dependencies alone."""
    keys = KeyFile(tmp_path / "keys.json")
    key, _ = keys.create("generated", "admin")
    api = create_api(service, SERVE, keys, query_log=QueryLog(tmp_path / "queries", "hashed"))
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(api.openapi()))
    made, python = generate(document, tmp_path / "client")
    assert made.returncode == 0 and "arning" not in made.stdout + made.stderr, made.stdout + made.stderr
    with run_bare(_under(prefix, api)) as url:
        text = USE
        values = {"FOLDER": tmp_path / "client", "URL": url + prefix, "KEY": key, "AUDIO": catalogue.folder / "2.ogg"}
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        used = subprocess.run([python, "-c", textwrap.dedent(text)], capture_output=True, text=True, cwd=tmp_path)
    assert used.returncode == 0, used.stderr


def _under(prefix, api):
    """The API as a proxy shows it that passes paths on with its prefix."""

    async def shown(scope, receive, send):
        if scope["type"] == "http" and prefix:
            assert scope["path"].startswith(f"{prefix}/")
            scope = {**scope, "headers": [*scope["headers"], (b"x-forwarded-prefix", prefix.encode())]}
        await api(scope, receive, send)

    return shown
