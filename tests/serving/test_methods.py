"""HEAD beside every GET, the methods that an address takes, one slash too many: over a plain server of this process."""

import asyncio
import logging
import re
import socket

import httpx
import pytest
from serving_fixtures import SERVE, check_error, metric, run_bare

from serving.app import PAGE, create_api
from serving.keys import KeyFile

pytestmark = pytest.mark.slow

VARIES = {"date", "x-request-id", "server-timing"}


@pytest.fixture(scope="module")
def guarded(service, tmp_path_factory):
    """An endpoint with keys, and a reader's."""
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    secret, _ = keys.create("reader", "read", rate_per_s=1e6)
    with run_bare(create_api(service, SERVE, keys)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client, {"Authorization": f"Bearer {secret}"}


def addresses(client):
    """Every address that GET knows: by the document, and the pages that are not in it; and some that are not there."""
    paths = client.get("/openapi.json").json()["paths"]
    known = [path.replace("{track_id}", "song-1") for path, operations in paths.items() if "get" in operations]
    assert len(known) >= 7
    pages = ["/", "/docs", "/openapi.json", *(f"/page/{path.name}" for path in PAGE.iterdir() if path.is_file())]
    return [*known, *pages, "/page/none.js", "/v1/nothing", "/v1/tracks/nobody", "/v1/tracks/song-9/audio"]


def test_head_is_get_without_a_body(bare, guarded):
    client, key = guarded
    for asked, headers in ((bare, {}), (client, {}), (client, key)):
        for path in addresses(bare):
            got, head = asked.get(path, headers=headers), asked.head(path, headers=headers)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            assert set(head.headers) == set(got.headers), path
            for name, value in got.headers.items():
                if name in VARIES or (name == "content-length" and ("/v1/" in path or path == "/metrics")):
                    continue  # the number of digits of a time
                assert head.headers[name] == value, (path, name)
    assert client.head("/v1/release").status_code == 401 and client.head("/metrics", headers=key).status_code == 403
    sound = bare.get("/v1/tracks/song-1/audio")
    assert bare.head("/v1/tracks/song-1/audio").headers["content-length"] == str(len(sound.content))


def test_head_is_counted_under_its_route(bare):
    def count(route):
        return metric(bare.get("/metrics").text, "mulan_requests_total", method="HEAD", route=route)

    routes = {"/v1/release": "/v1/release", "/v1/tracks/song-1": "/v1/tracks/{track_id:path}", "/nothing": "other"}
    before = {route: count(route) for route in routes.values()}
    for path in routes:
        bare.head(path)
    assert {route: count(route) for route in routes.values()} == {route: n + 1 for route, n in before.items()}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/livez", "GET, HEAD"),
        ("/page/app.js", "GET, HEAD"),
        ("/v1/search", "POST"),
        ("/v1/feedback", "POST"),
        ("/v1/tracks", "POST"),
        ("/v1/map", "GET, HEAD"),
        ("/v1/tracks/song-1", "GET, HEAD, DELETE"),
        ("/v1/tracks/song-1/audio", "GET, HEAD, DELETE"),  # which may be an id too
    ],
)
def test_other_methods_are_refused_in_the_one_shape(bare, path, allowed):
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"} - set(
        allowed.split(", ")
    ):
        answer = bare.request(method, path)
        if method == "HEAD":
            assert (answer.status_code, answer.content) == (405, b"")
        else:
            check_error(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed, (method, path)
    check_error(bare.options("/v1/nothing"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "location"),
    [
        ("GET", "/docs/", "../docs"),
        ("HEAD", "/docs/", "../docs"),
        ("GET", "/openapi.json/", "../openapi.json"),
        ("POST", "/v1/search/", "../search"),
        ("GET", "/v1/map/?x=%2F&y", "../map?x=%2F&y"),
        ("GET", "/livez/", "../livez"),
    ],
)
def test_a_slash_too_many_leads_to_the_address_without_it(bare, method, path, location):
    """As the caller sees it, whatever proxies make of scheme, name and path."""
    answer = bare.request(method, path)
    assert (answer.status_code, answer.headers["location"]) == (307, location)
    asked = httpx.URL(f"https://radio.example/music{path}")
    assert str(asked.join(location)) == re.sub(r"/(\?|$)", r"\1", str(asked))
    for other in ("/v1/nothing/", "/v1/search//", "//evil.example/", "//", "/page", "/v1/"):
        answer = bare.send(httpx.Request("GET", f"{str(bare.base_url).rstrip('/')}{other}"))
        check_error(answer, 404, "not_found")


def test_no_key_no_redirect(guarded):
    client, key = guarded
    check_error(client.get("/v1/map/"), 401, "unauthorized")
    assert client.get("/v1/map/", headers=key).status_code == 307
    assert client.get("/docs/").status_code == client.get("/livez/").status_code == 307


UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
UPGRADE |= {"Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw=="}


@pytest.mark.parametrize("path", ["/", "/v1/search", "/page/app.js", "/v1/nothing"])
def test_a_websocket_is_refused_counted_and_logged(bare, caplog, path):
    def count():
        return metric(bare.get("/metrics").text, "mulan_requests_total", route="other", method="GET", status="400")

    before = count()
    with caplog.at_level(logging.INFO, "mulan"):
        for headers in (UPGRADE, UPGRADE | {"X-Request-ID": "mine"}):
            refused = bare.get(path, headers=headers)
            check_error(refused, 400, "bad_request", "no WebSockets here; ask by plain HTTP")
            name = refused.json()["error"]["request_id"]
            assert refused.headers.get_list("x-request-id") == [name] != ["none"]
            assert refused.headers["x-content-type-options"] == "nosniff"
            lines = [
                record.fields for record in caplog.records if getattr(record, "fields", {}).get("request_id") == name
            ]
            assert [(line["status"], line["error"]) for line in lines] == [(400, "bad_request")]
    assert name == "mine" and count() == before + 2


def test_a_server_that_cannot_say_why_closes_the_websocket(service):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [], "subprotocols": []}
    asyncio.run(create_api(service, SERVE)(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "name", ["Host", "Origin", "Sec-Fetch-Site", "Authorization", "Content-Type", "Idempotency-Key", "HOST"]
)
def test_a_header_that_decides_something_comes_once(bare, name):
    """Two lines, equal or not, before the address is looked at; as raw bytes, since clients join or drop them."""
    host = f"{bare.base_url.host}:{bare.base_url.port}"
    for method, path in (("GET", "/"), ("GET", "/livez"), ("POST", "/v1/search"), ("DELETE", "/v1/tracks/song-1")):
        for second in ("x", host):
            lines = [f"{method} {path} HTTP/1.1", *([] if name.lower() == "host" else [f"Host: {host}"])]
            lines += [f"{name}: {host}", f"{name.lower()}: {second}", "Content-Length: 0", "Connection: close"]
            with socket.create_connection((bare.base_url.host, bare.base_url.port), timeout=10) as connection:
                connection.sendall("\r\n".join([*lines, "", ""]).encode())
                answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
            assert answer.startswith("HTTP/1.1 400"), (method, path)
            assert f"the header {name.title()} comes more than once; send it once" in answer and "request_id" in answer
    assert bare.get("/v1/tracks/song-1").status_code == 200
