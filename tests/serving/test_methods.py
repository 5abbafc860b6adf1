"""HEAD beside every GET, the methods that an address takes, one slash too many: over a plain server of this process."""

import re

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
