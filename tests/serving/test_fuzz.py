"""Requests drawn from the API's own OpenAPI document, right, nearly right and wrong: never a 5xx, always JSON."""

import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_fixtures import SERVE, tone, wav

from serving.app import create_api

pytestmark = pytest.mark.slow

AUDIO = wav(tone(2, 0.6))
ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.just([]) | st.just({})
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["", " ", "song-1", "\0", "a\r\nb", "\ud800", "a" * 3_000, '" or 1 == 1 or "', "日本", "{}"]
)


def values(schema):
    """What a JSON schema allows, and now and then what it does not."""
    if "anyOf" in schema:
        return st.one_of([values(one) for one in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object":
        fields = {name: values(one) for name, one in schema.get("properties", {}).items()}
        right = st.fixed_dictionaries({}, optional=fields) | st.fixed_dictionaries(
            {name: fields[name] for name in schema.get("required", ()) if name in fields}
        )
        return right | st.dictionaries(st.sampled_from(sorted(fields)) | TEXTS, ODD, max_size=3)
    if kind == "array":
        return st.lists(values(schema.get("items", {})), max_size=4) | ODD
    numbers = st.integers(schema.get("minimum", -100), schema.get("maximum", 1_000))
    return {"string": TEXTS, "integer": numbers, "number": numbers | st.floats()}.get(kind, ODD) | ODD


def fuzz(examples):
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks, derandomize=True)


@pytest.fixture(scope="module")
def document(service):
    return create_api(service, SERVE).openapi()


def body_schema(document, path, kind):
    """The schema of a request's body, what it refers to put in its place."""

    def whole(schema):
        if isinstance(schema, list):
            return [whole(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return whole(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
        return {key: whole(value) for key, value in schema.items()}

    return whole(document["paths"][path]["post"]["requestBody"]["content"][kind]["schema"])


def check(response, where):
    assert response.status_code < 500, (where, response.text)
    if response.status_code >= 400:
        if response.request.method == "HEAD":
            assert response.content == b"", where
            return
        assert sorted(response.json()["error"]) == ["code", "message", "request_id"], where
        assert "Traceback" not in response.text


@pytest.mark.parametrize("path", ["/v1/search", "/v1/tag", "/v1/embed", "/v1/feedback"])
@fuzz(120)
@given(data=st.data())
def test_json_from_the_document(bare, document, path, data):
    value = data.draw(values(body_schema(document, path, "application/json")))
    body = json.dumps(value).encode("utf-8", "surrogatepass")
    for _ in range(data.draw(st.integers(0, 1))):  # and sometimes not even JSON
        place = data.draw(st.integers(0, len(body)))
        body = body[:place] + data.draw(st.binary(max_size=3)) + body[place:]
    check(bare.post(path, content=body, headers={"Content-Type": "application/json"}), (path, body))


@pytest.mark.parametrize("path", ["/v1/search", "/v1/tag", "/v1/embed", "/v1/tracks"])
@fuzz(60)
@given(data=st.data())
def test_forms_from_the_document(bare, document, path, data):
    form = body_schema(document, path, "multipart/form-data")
    names = st.sampled_from([name for name in form["properties"] if name != "audio"] or ["x"]) | st.text(max_size=5)
    written = st.one_of(TEXTS, st.builds(json.dumps, ODD | st.lists(TEXTS, max_size=3)), st.integers().map(str))
    clean = written.map(lambda text: text.encode("utf-8", "replace").decode())
    fields = data.draw(st.dictionaries(names, clean, max_size=4))
    if path == "/v1/tracks":
        fields |= {"track_id": data.draw(st.sampled_from(["", "fuzz", "\n"]))}
    fields = {name.encode("utf-8", "replace").decode(): value for name, value in fields.items()}
    audio = data.draw(st.sampled_from([AUDIO, b"", AUDIO[:50], b"ID3" + bytes(20)]))
    try:
        check(bare.post(path, files={"audio": ("x", audio)}, data=fields), (path, fields))
    finally:
        if path == "/v1/tracks":
            bare.delete("/v1/tracks/fuzz")


@fuzz(80)
@given(
    method=st.sampled_from(["GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"]),
    track_id=TEXTS,
    tail=st.sampled_from(["", "/audio", "/x"]),
)
def test_addresses(bare, method, track_id, tail):
    if method == "DELETE" and track_id.startswith("song-"):
        return
    address = f"/v1/tracks/{quote(track_id.encode('utf-8', 'replace'), safe='')}{tail}"
    check(bare.request(method, address), (method, address))
