"""No proxy is asked for an address of this machine, whatever library asks and however the environment names one."""

import asyncio
import http.server
import itertools
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import aiohttp
import grpc
import httpx
import pytest
import requests
from proxy_fixtures import VARIABLES, RefusingProxy, without_proxies

from mulan_core.errors import UserError
from serving import loopback
from serving.client import MulanClient
from serving.connection import Connection
from serving.errors import StoreError
from serving.loopback import http_client, keep_loopback_direct, stays_here
from serving.ports import free_port, is_up

UNUSABLE = ("socks5h://127.0.0.1:9", "socks://127.0.0.1:9", "::::", "ftp://x", "http://x:abc")
"""Of these httpx makes no client; the first needs a package that is not of the lock."""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No proxy of whoever runs the tests; what a test sets is gone after it."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in (*VARIABLES, "no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(loopback, "_set_aside", [])


@pytest.fixture
def proxy():
    """One that counts."""
    made = RefusingProxy()
    yield made
    made.close()


@pytest.fixture(params=["127.0.0.1", "localhost", "::1"])
def server(request):
    """A server that answers 200 to all, on each kind of loopback address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if request.param == "::1" else socket.AF_INET

    try:
        made = Server((request.param, 0), Handler)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    threading.Thread(target=made.serve_forever, daemon=True).start()
    host = f"[{request.param}]" if ":" in request.param else request.param
    yield f"http://{host}:{made.server_port}"
    made.shutdown()


async def _by_aiohttp(url):
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
        return answer.status == 200


def _by_grpc(url):
    channel = grpc.insecure_channel(url.removeprefix("http://"))
    with channel, pytest.raises(grpc.FutureTimeoutError):  # an HTTP server: it is the way there that counts
        grpc.channel_ready_future(channel).result(timeout=0.3)
    return True


LIBRARIES = {
    "httpx": lambda url: httpx.get(url).status_code == 200,
    "requests": lambda url: requests.get(url, timeout=5).status_code == 200,
    "aiohttp": lambda url: asyncio.run(_by_aiohttp(url)),
    "grpc": _by_grpc,
    "our client": lambda url: MulanClient(url).release() == {},
    "ports": is_up,
}


@pytest.mark.parametrize(
    ("scheme", "already"),
    [
        ("http", None),
        ("http", "corp.example, [::1]"),
        ("http", "fe80::/10,localhost"),
        ("", "corp.example"),
        ("socks5", None),
        ("socks5h", "[fe80::1]"),
        ("socks", ""),
    ],
)
def test_no_library_asks_the_proxy_for_loopback(scheme, already, server, proxy, monkeypatch):
    for name, value in proxy.environment(scheme).items():
        monkeypatch.setenv(name, value.removeprefix("://"))
    if already is not None:
        monkeypatch.setenv("no_proxy", already)
    keep_loopback_direct()
    assert {name: ask(server) for name, ask in LIBRARIES.items()} == dict.fromkeys(LIBRARIES, True)
    assert proxy.asked == []


@pytest.mark.parametrize("variable", VARIABLES)
def test_our_own_client_needs_no_help(variable, server, proxy, monkeypatch):
    for value in (f"http://{proxy.address}", *UNUSABLE):
        monkeypatch.setenv(variable, value)
        assert MulanClient(server).release() == {} and is_up(server)
    assert proxy.asked == []


def test_milvus_on_loopback_is_not_looked_for_behind_a_proxy(proxy, monkeypatch):
    for name, value in proxy.environment().items():
        monkeypatch.setenv(name, value)
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(StoreError, match="does not answer"):
            Connection(f"http://{host}:{free_port()}", None, timeout_s=0.5).call(lambda client: client)
    assert proxy.asked == []


def test_others_are_asked_through_the_proxy(proxy, monkeypatch):
    for name, value in proxy.environment().items():
        monkeypatch.setenv(name, value)
    keep_loopback_direct()
    with pytest.raises(UserError):
        MulanClient("http://music.example", retries=0).release()
    with pytest.raises(requests.RequestException):
        requests.get("http://music.example", timeout=5)
    with pytest.raises(StoreError):
        Connection("http://music.example:19530", None, timeout_s=0.5).call(lambda client: client)
    asked = b" ".join(proxy.asked)
    assert b"GET http://music.example/v1/release" in asked and b"CONNECT music.example:19530" in asked


def test_who_asks_through_a_proxy_that_is_away_is_told_of_the_proxy(proxy, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "near.example")
    monkeypatch.setenv("no_proxy", "near.example")
    monkeypatch.setenv("HTTP_PROXY", f"http://me:SECRET@127.0.0.1:{free_port()}")
    with pytest.raises(
        UserError, match=r"the proxy http://\*\*\*@127\.0\.0\.1:\d+ \(HTTP_PROXY\) does not answer for"
    ) as error:
        MulanClient("http://music.example:8000").release()
    assert "add music.example to NO_PROXY" in str(error.value) and "SECRET" not in str(error.value)
    assert "mulan serve" not in str(error.value)
    with pytest.raises(UserError, match="no MuLan endpoint answers"):
        MulanClient(f"http://127.0.0.1:{free_port()}").release()
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    with pytest.raises(UserError, match=r"asked through the proxy http://127\.0\.0\.1:\d+ \(HTTP_PROXY\), hangs up"):
        MulanClient("http://music.example:8000").release()


def test_what_no_proxy_says_already_stays():
    own = "no_grpc_proxy"
    os.environ.update({"HTTP_PROXY": "http://x:1", "NO_PROXY": "corp.example 10.0.0.0/8", own: "milvus"})
    keep_loopback_direct()
    keep_loopback_direct()  # once is as often as many times
    names = ["corp.example", "10.0.0.0/8", *loopback.OWN, *loopback.METADATA]
    assert os.environ["NO_PROXY"].split(",") == os.environ["no_proxy"].split(",") == names
    assert os.environ[own].split(",") == ["milvus", *loopback.OWN, *loopback.METADATA]


def test_an_environment_without_proxies_is_left_alone():
    before = dict(os.environ)
    assert keep_loopback_direct() == [] and dict(os.environ) == before


@pytest.mark.parametrize(("case", "value"), itertools.product((str.lower, str.upper), UNUSABLE))
def test_a_variable_that_names_no_proxy_is_told_and_nothing_goes_past_it(case, value, monkeypatch):
    monkeypatch.setenv(case("ALL_PROXY"), value)
    with pytest.raises(UserError, match=f"{case('ALL_PROXY')} holds what cannot be used"):
        MulanClient("http://music.example")
    (said,) = keep_loopback_direct()
    assert said.startswith(f"{case('ALL_PROXY')} is set aside") and "\n" not in said
    with pytest.raises(httpx.ConnectError):  # rather than without the proxy that somebody wanted
        http_client("http://music.example", timeout=5).get("http://music.example")


def test_a_password_in_a_proxys_address_is_not_shown(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks://me:secret@proxy:1080")
    assert "secret" not in " ".join(keep_loopback_direct())


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.9.9.9", True),
        ("http://LOCALHOST:1", True),
        ("http://a.localhost", True),
        ("http://[::1]:1", True),
        ("http://[::ffff:127.0.0.1]", True),
        ("http://0.0.0.0:80", True),
        ("127.0.0.1:6379", True),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
        ("http://10.0.0.1", False),
        ("http://[2001:db8::1]", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_which_addresses_are_loopback(url, is_ours):
    assert stays_here(url) is is_ours


@pytest.mark.parametrize("module", ["serving.client", "flows.pipeline.end_to_end"])
def test_no_variable_keeps_a_module_from_being_imported(module):
    env = without_proxies() | {"ALL_PROXY": "socks5h://127.0.0.1:9", "http_proxy": "::::", "NO_PROXY": "[::1]"}
    command = [sys.executable, "-c", f"import {module}"]
    done = subprocess.run(command, env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("url", "read"), [("http://127.0.0.1:1", 0), ("HTTP://localhost:1", 0), ("https://[::1]:1", 1)]
)
def test_certificates_are_read_where_they_are_asked_for(url, read, monkeypatch):
    seen, load = [], ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *args, **more: (seen.append(1), load(*args, **more))
    )
    http_client(url, timeout=1).close()
    assert len(seen) == read
