"""Who gets in, how often, and what gets out: keys, rates, origins, headers, slow bodies, and secrets in no log."""

import io
import json
import logging
import socket
import time
from dataclasses import replace

import httpx
import pytest
from serving_fixtures import SERVE, check_error, run_bare, tone, wav

from mulan_core.errors import UserError
from serving.access import Bucket, scope_needed
from serving.access_log import JsonLines
from serving.app import create_api
from serving.keys import KeyFile, check_exposed
from serving.loopback import is_loopback

pytestmark = pytest.mark.slow


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "home" / "keys.json")


@pytest.fixture(scope="module")
def guarded(service, tmp_path_factory):
    """An endpoint with keys that is bound to the world, as far as it knows; and a key of each scope."""
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    secrets = {scope: keys.create(scope, scope)[0] for scope in ("read", "write", "admin")}
    config = replace(SERVE, host="0.0.0.0", cors_origins=("https://radio.example",), body_timeout_s=0.5)
    with run_bare(create_api(service, config, keys)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client, secrets, keys


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


HOSTS = dict.fromkeys(("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"), True)
HOSTS |= dict.fromkeys(("0.0.0.0", "::", "10.0.0.7", "mulan.example", ""), False)


@pytest.mark.parametrize(("host", "own"), HOSTS.items())
def test_an_address_that_others_reach_needs_a_key(keys, host, own):
    assert is_loopback(host) == own
    if own:
        check_exposed(host, None, allow_open=False)
        return
    for file in (None, keys):
        with pytest.raises(UserError, match="can be reached by others and there is no API key; make one with"):
            check_exposed(host, file, allow_open=False)
    check_exposed(host, None, allow_open=True)
    keys.create("website", "read")
    check_exposed(host, keys, allow_open=False)
    keys.revoke("website")
    with pytest.raises(UserError, match="there is no API key"):
        check_exposed(host, keys, allow_open=False)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/", None),
        ("GET", "/page/app.js", None),
        ("GET", "/readyz", None),
        ("GET", "/metrics", "admin"),
        ("POST", "/v1/search", "read"),
        ("GET", "/v1/tracks/x/audio", "read"),
        ("GET", "/v1/map", "read"),
        ("POST", "/v1/tracks", "write"),
        ("POST", "/v1/tracks/", "write"),
        ("DELETE", "/v1/tracks/x", "write"),
        ("GET", "/pages", "read"),
        ("PUT", "/anything", "read"),
    ],
)
def test_what_needs_which_scope(method, path, scope):
    assert scope_needed(method, path) == scope


def test_every_route_but_probes_and_page_asks_for_a_key(guarded):
    client, secrets, _ = guarded
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            response = client.request(method, path.replace("{track_id}", "song-1"))
            if path in ("/livez", "/readyz"):
                assert response.status_code == 200
            else:
                check_error(response, 401, "unauthorized", "Authorization: Bearer KEY")
                assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/").status_code == client.get("/page/app.js").status_code == 200
    for header in ({"Authorization": secrets["read"]}, bearer("mulan_00000000_" + 43 * "x"), {"X-API-Key": "x"}):
        check_error(client.get("/v1/release", headers=header), 401, "unauthorized")
    assert client.get("/v1/release", headers=bearer(secrets["read"])).status_code == 200


def test_scopes_hold_one_another(guarded):
    client, secrets, _ = guarded
    for scope, statuses in (("read", (200, 403, 403)), ("write", (200, 404, 403)), ("admin", (200, 404, 200))):
        head = bearer(secrets[scope])
        found = client.get("/v1/release", headers=head), client.delete("/v1/tracks/none", headers=head)
        assert (*(r.status_code for r in found), client.get("/metrics", headers=head).status_code) == statuses
    refused = client.delete("/v1/tracks/none", headers=bearer(secrets["read"]))
    check_error(refused, 403, "forbidden", "needs a key of scope write; yours is for read")


def test_nothing_of_a_body_is_read_before_the_key(guarded):
    client, _, _ = guarded
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port)) as connection:
        head = (
            f"POST /v1/embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )
        connection.sendall(head.encode())
        connection.settimeout(5)
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


def test_a_body_that_drips_is_cut_off(guarded):
    client, secrets, _ = guarded
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port)) as connection:
        head = f"POST /v1/embed HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secrets['read']}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        connection.settimeout(5)
        started, answer = time.monotonic(), b""
        while not answer and time.monotonic() < started + 5:
            try:
                connection.sendall(b"1\r\n \r\n")  # a byte at a time keeps the connection alive, not the request
                connection.settimeout(0.1)
                answer = connection.recv(1000)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408") and b'"too_slow"' in answer
        assert 0.4 < time.monotonic() - started < 3


def test_a_key_has_a_rate(guarded):
    client, _, keys = guarded
    slow = bearer(keys.create("slow", "read", rate_per_s=2)[0])
    time.sleep(1.05)
    answers = [client.get("/v1/release", headers=slow) for _ in range(8)]
    assert [a.status_code for a in answers[:4]] == [200] * 4
    limited = next(a for a in answers if a.status_code == 429)
    check_error(limited, 429, "too_many_requests", "2 times a second")
    assert limited.headers["retry-after"] == "1"
    bucket = Bucket(10, burst=2)
    now = bucket.filled
    assert [bucket.take(now) for _ in range(3)] == [0, 0, pytest.approx(0.1)]
    assert bucket.take(now + 0.11) == 0


def test_security_headers_are_on_every_answer(guarded):
    client, secrets, _ = guarded
    for path in ("/", "/page/app.js", "/livez", "/v1/release", "/nothing", "/openapi.json"):
        for headers in ({}, bearer(secrets["read"])):
            found = client.get(path, headers=headers).headers
            assert found["x-content-type-options"] == "nosniff", path
            assert found["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in found["content-security-policy"]
            assert found["referrer-policy"] == "no-referrer"
            assert found["cache-control"]


def test_pages_of_other_sites_may_not_ask(bare, guarded):
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        response = bare.post("/v1/search", json={"text": "a"}, headers={"Origin": origin})
        check_error(response, 403, "forbidden", "pages of other sites may not ask")
        assert "access-control-allow-origin" not in response.headers
    own = f"http://{bare.base_url.host}:{bare.base_url.port}"
    assert bare.post("/v1/search", json={"text": "a"}, headers={"Origin": own}).status_code == 200
    assert "access-control-allow-origin" not in bare.options("/v1/search", headers={"Origin": own}).headers
    client, secrets, _ = guarded
    site = {"Origin": "https://radio.example"}
    allowed = client.get("/v1/release", headers=bearer(secrets["read"]) | site)
    assert allowed.headers["access-control-allow-origin"] == "https://radio.example"
    ask = site | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert client.options("/v1/search", headers=ask).status_code == 200
    ask["Origin"] = "https://evil.example"
    assert client.options("/v1/search", headers=ask).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "10.0.0.7"]
)
def test_without_keys_the_endpoint_goes_by_local_names_alone(bare, host):
    """Else a name that a web page owns could be pointed at 127.0.0.1, and the page would be of the same site."""
    check_error(bare.get("/v1/release", headers={"Host": host}), 403, "forbidden", "127.0.0.1 and localhost alone")


def test_no_address_without_keys_but_loopback(service):
    api = create_api(service, replace(SERVE, host="0.0.0.0"), None)
    with run_bare(api) as url:
        check_error(httpx.get(f"{url}/v1/release"), 401, "unauthorized", "lets nobody in")
    with run_bare(create_api(service, replace(SERVE, host="0.0.0.0", allow_open=True), None)) as url:
        assert httpx.get(f"{url}/v1/release", headers={"Host": "mulan.example"}).status_code == 200


def test_secrets_and_queries_are_in_no_log_and_no_answer(guarded, capfd):
    """Everything that Python logs during good, bad and failing requests."""
    client, secrets, _ = guarded
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in ("", "mulan"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("mulan").setLevel(logging.INFO)
    words = "velvet rhinoceros"
    try:
        answers = [
            client.post("/v1/search", json={"text": words}, headers=bearer(secrets["read"])),
            client.post("/v1/search", json={"text": words, "k": 0}, headers=bearer(secrets["read"])),
            client.post("/v1/search", content=b"{", headers=bearer(secrets["write"])),
            client.get("/v1/release", headers=bearer(secrets["admin"] + "x")),
            client.get(f"/v1/tracks/{secrets['write']}", headers=bearer(secrets["admin"])),
            client.post("/v1/embed", files={"audio": wav(tone(0))}, headers=bearer(secrets["read"])),
            client.get("/metrics", headers=bearer(secrets["admin"])),
        ]
    finally:
        for name in ("", "mulan"):
            logging.getLogger(name).removeHandler(handler)
    log = stream.getvalue() + "".join(capfd.readouterr())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["status"] for line in lines if line["message"] == "request"].count(200) >= 3
    del answers[4]  # names what it was asked for, as it should
    told = log + "".join(a.text + str(a.headers) for a in answers)
    for secret in secrets.values():
        assert secret not in told and secret.split("_", 2)[2] not in told
    assert words not in log and words.split()[1] not in log
    done = next(line for line in lines if line["message"] == "request" and line["status"] == 200)
    assert {"time", "request_id", "route", "method", "ms", "release", "collection", "encode_ms", "key"} <= set(done)
