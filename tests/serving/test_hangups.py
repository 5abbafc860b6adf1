"""What becomes of a request when something goes wrong around it: our own failures, callers that leave, drip or queue.

Callers are sockets on the real HTTP server, so what they do on the wire is what they do.
"""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import rude_callers
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rude_callers import SEARCH
from serving_fixtures import SERVE, check_error, metric, run_bare, tone, wav

from serving.app import create_api
from serving.metrics import Metrics

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICK = replace(SERVE, body_timeout_s=1.0, queue_timeout_s=0.5)


@contextmanager
def served(service, config=QUICK):
    """The API with metrics of its own: a client, and what the server saw of each request."""
    kept, service.metrics = service.metrics, Metrics()
    try:
        with run_bare(create_api(service, config)) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield client
    finally:
        service.metrics = kept


@pytest.fixture
def log():
    """Records of the endpoint's log."""
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    handler, logger = Keep(), logging.getLogger("mulan")
    level, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.level = level


def head(client, path="/v1/search", **options):
    return rude_callers.head(client.base_url.port, path, **options)


def connect(client):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def statuses(client):
    """How many requests ended with which status."""
    found = Counter()
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "mulan_requests_total" and sample.labels["route"] != "/metrics":
                found[sample.labels["status"]] += int(sample.value)
    return found


def wait_for(read, wanted, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while (found := read()) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found == wanted


@pytest.fixture
def slow_search(service, monkeypatch):
    """Searches that take as long as the test wants."""
    go, asked = threading.Event(), threading.Semaphore(0)
    search = service._store.tracks.pages

    def wait(*args, **kwargs):
        asked.release()
        go.wait(20)
        return search(*args, **kwargs)

    monkeypatch.setattr(service._store.tracks, "pages", wait)
    yield go, asked
    go.set()


@pytest.mark.parametrize("origin", [None, "https://radio.example"])
def test_a_failure_of_ours_is_an_answer_like_all_others(service, log, monkeypatch, origin):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(service._store.collections, "count", fail)
    with served(service, replace(QUICK, cors_origins=(origin,) if origin else ())) as client:
        named = {"X-Request-ID": "mine"} | ({"Origin": origin} if origin else {})
        found = client.get("/v1/release", headers=named)
        check_error(found, 500, "internal", "its log has the reason")
        assert found.headers.get_list("x-request-id") == ["mine"] and found.json()["error"]["request_id"] == "mine"
        assert found.headers["x-content-type-options"] == "nosniff" and found.headers["cache-control"] == "no-store"
        assert found.headers.get("access-control-allow-origin") == origin
        assert "secret" not in found.text
        text = client.get("/metrics").text
        assert metric(text, "mulan_errors_total", code="internal") == 1
        assert metric(text, "mulan_requests_total", route="/v1/release", status="500") == 1
    (failed,) = [record for record in log if record.exc_info]
    assert failed.fields == {"request_id": "mine"} and failed.exc_info[0] is ZeroDivisionError
    (line,) = [record.fields for record in log if getattr(record, "fields", {}).get("route") == "/v1/release"]
    assert (line["status"], line["error"]) == (500, "internal")


def test_every_answer_has_its_name(service):
    with served(service, replace(QUICK, cors_origins=("https://radio.example",))) as client:
        for method, path in (
            ("GET", "/livez"),
            ("GET", "/nothing"),
            ("PUT", "/v1/search"),
            ("HEAD", "/"),
            ("POST", "/v1/x"),
        ):
            for headers in ({}, {"Origin": "https://other.example"}, {"X-Forwarded-Prefix": "//x"}):
                found = client.request(method, path, headers=headers)
                assert len(found.headers["x-request-id"]) == 32 and found.headers["x-frame-options"] == "DENY", path
        asks = {"Origin": "https://radio.example", "Access-Control-Request-Method": "POST"}
        preflight = client.options("/v1/search", headers=asks)
        assert preflight.status_code == 200 and preflight.headers["x-content-type-options"] == "nosniff"
        assert statuses(client)["200"] >= 1


def test_an_answer_that_breaks_in_the_middle_is_cut_off_and_counted(service, catalogue, log, monkeypatch):
    import serving.media

    async def broken(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        raise OSError("the disk is gone")

    monkeypatch.setattr(serving.media.SentFile, "__call__", broken)
    with served(service) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"/v1/tracks/{quote(next(iter(catalogue.rows)))}/audio")
        wait_for(lambda: statuses(client)["500"], 1)
        assert metric(client.get("/metrics").text, "mulan_errors_total", code="internal") == 1
    assert len([record for record in log if record.exc_info]) == 1


LEAVE = ["before the body", "within the body", "while it waits", "while it is worked on"]


@pytest.mark.parametrize("when", LEAVE)
def test_who_hangs_up_is_no_error_of_ours(service, log, slow_search, when):
    go, asked = slow_search
    config = replace(QUICK, max_ongoing_requests=1, queue_timeout_s=20, body_timeout_s=20)
    with served(service, config) as client, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(client.post, "/v1/search", json={"text": "busy"}) if when == "while it waits" else None
        if busy:
            asked.acquire(timeout=10)
        with connect(client) as caller:
            sent = {"before the body": b"", "within the body": SEARCH[:5]}.get(when, SEARCH)
            caller.sendall(head(client, length=len(SEARCH)) + sent)
            if when == "while it waits":
                wait_for(lambda: metric(client.get("/metrics").text, "mulan_waiting_requests"), 1)
            elif when == "while it is worked on":
                assert asked.acquire(timeout=10)
            else:
                time.sleep(0.2)
        wait_for(lambda: statuses(client)["499"], 1)
        assert metric(client.get("/metrics").text, "mulan_waiting_requests") == 0
        go.set()
        assert busy is None or busy.result().status_code == 200
        assert client.post("/v1/search", json={"text": "next"}).status_code == 200, "its turn is free again"
        text = client.get("/metrics").text
        assert metric(text, "mulan_errors_total") == 0
        assert not any(status.startswith("5") for status in statuses(client))
        of_answers = {"name": "mulan_request_seconds_count", "route": "/v1/search"}
        wait_for(lambda: metric(client.get("/metrics").text, **of_answers), 2 if busy else 1)
    lines = [record for record in log if getattr(record, "fields", {}).get("status") == 499]
    assert [(line.levelname, line.fields["error"]) for line in lines] == [("INFO", "hung_up")]
    assert not [record for record in log if record.exc_info]


def test_who_leaves_while_audio_streams_is_no_error(service, tmp_path, log, monkeypatch):
    (tmp_path / "long.wav").write_bytes(b"\0" * 40_000_000)
    monkeypatch.setattr("serving.catalogue.locate_media", lambda *_: (tmp_path / "long.wav", "audio/wav"))
    with served(service) as client:
        track_id = service._store.tracks.search(
            np.eye(1, 128, dtype=np.float32), 1, collection=service.release.collection
        )
        path = f"/v1/tracks/{quote(track_id[0][0].track.track_id)}/audio"
        with connect(client) as caller:
            caller.sendall(head(client, path, method="GET"))
            assert caller.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(lambda: statuses(client)["499"], 1)
    assert not [record for record in log if record.exc_info]


def test_a_track_that_is_being_added_is_added_though_its_caller_leaves(service, monkeypatch):
    began, go = threading.Event(), threading.Event()
    encode = service._encoder.encode_windows

    def wait(wave):
        began.set()
        go.wait(20)
        return encode(wave)

    monkeypatch.setattr(service._encoder, "encode_windows", wait)
    with served(service) as client:
        request = client.build_request("POST", "/v1/tracks", data={"track_id": "left"}, files={"audio": wav(tone(1))})
        body = request.read()
        with connect(client) as caller:
            lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            caller.sendall(f"POST /v1/tracks HTTP/1.1\r\n{lines}\r\n".encode() + body)
            assert began.wait(10)
        time.sleep(0.2)
        go.set()
        wait_for(lambda: client.get("/v1/tracks/left").status_code, 200)
        assert client.delete("/v1/tracks/left").status_code == 200


def test_a_write_whose_request_is_cancelled_is_carried_through(service):
    """As Ray Serve cancels the request of a caller that has gone, in the middle of a large upload's work."""
    import asyncio

    api = create_api(service, QUICK)
    request = httpx.Request(
        "POST", "http://127.0.0.1/v1/tracks", data={"track_id": "cancelled"}, files={"audio": wav(tone(4, 15.0))}
    )
    body = request.read()
    assert len(body) > 2**18, "more than one piece"

    async def run():
        scope = {"type": "http", "method": "POST", "path": "/v1/tracks", "query_string": b"", "headers": []}
        scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
        sent, messages = [], iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive():
            for message in messages:
                return message
            return await asyncio.get_running_loop().create_future()

        async def send(message):
            sent.append(message)

        task = asyncio.create_task(api(scope, receive, send))
        for _ in range(6):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            if service._store.tracks.get(["cancelled"], collection=service.release.collection):
                return sent
            await asyncio.sleep(0.05)
        raise AssertionError("the track was not added")

    assert asyncio.run(run()) == [], "nobody is there to be answered"
    service._edited.delete("cancelled")


def test_waiting_is_no_slow_body(service, slow_search):
    """One works, one waits longer than a body may take, and gets a 503; nobody gets a 408."""
    go, asked = slow_search
    config = replace(QUICK, max_ongoing_requests=1, body_timeout_s=0.2, queue_timeout_s=1.0)
    with served(service, config) as client, ThreadPoolExecutor(2) as pool:
        busy = pool.submit(client.post, "/v1/search", json={"text": "busy"})
        assert asked.acquire(timeout=10)
        started = time.monotonic()
        late = client.post("/v1/search", json={"text": "late"})
        check_error(late, 503, "overloaded", "no turn came within 1 s")
        assert late.headers["retry-after"] and time.monotonic() - started >= 0.9
        go.set()
        assert busy.result().status_code == 200
        assert client.post("/v1/search", json={"text": "next"}).status_code == 200


def test_who_sends_slowly_keeps_nobody_else_waiting(service):
    """As many half bodies as there are turns, and searches in between."""
    with served(service, replace(QUICK, body_timeout_s=3.0)) as client:
        callers = [connect(client) for _ in range(QUICK.max_ongoing_requests + 1)]
        for caller in callers:
            caller.sendall(head(client, length=len(SEARCH)) + SEARCH[:5])
        for i in range(5):
            assert client.post("/v1/search", json={"text": f"words {i}"}).status_code == 200
        assert statuses(client)["408"] == 0
        for caller in callers:
            assert caller.recv(1000).startswith(b"HTTP/1.1 408")
            caller.close()


def test_too_many_that_send_at_once_are_told_so(service):
    with served(service, replace(QUICK, max_ongoing_requests=1, max_queued_requests=1)) as client:
        callers = [connect(client) for _ in range(3)]
        for caller in callers:
            caller.sendall(head(client, length=len(SEARCH)) + SEARCH[:5])
            time.sleep(0.1)
        assert b"503" in callers[2].recv(100)
        for caller in callers:
            caller.close()
        wait_for(lambda: statuses(client)["499"], 2)


def test_a_large_body_comes_through_whole(service):
    """One that is kept on disk until its turn comes, and is read again in pieces."""
    with served(service, replace(QUICK, max_body_mb=8)) as client:
        found = client.post("/v1/embed", files={"audio": wav(tone(2, 60.0, 22_050), 22_050)})
        check_error(found, 422, "audio_too_long")
        words = [f"{'long words ' * 180}{i}" for i in range(64)]
        padded = json.dumps({"texts": words}).encode() + b" " * 3_000_000
        found = client.post("/v1/embed", content=padded, headers={"Content-Type": "application/json"})
        assert found.status_code == 200 and len(found.json()["vectors"]) == 64


def searched(client, number):
    """Seconds of searches, one after the other, and their statuses."""
    seconds, found = [], Counter()
    for i in range(number):
        started = time.perf_counter()
        found[client.post("/v1/search", json={"text": f"calm piano {i % 7}"}).status_code] += 1
        seconds.append(time.perf_counter() - started)
    return seconds, found


def beside(client, manners, number, a_second):
    """Seconds of searches while callers come in a process of their own, and the searches' statuses."""
    words = (rude_callers.__file__, client.base_url.port, number, number, a_second, manners)
    callers = subprocess.Popen([sys.executable, *map(str, words)])
    seconds, found = [], Counter()
    while callers.poll() is None:
        some, ended = searched(client, 5)
        seconds, found = seconds + some, found + ended
    assert callers.returncode == 0
    return seconds, found


@pytest.mark.parametrize(
    ("rounds", "number"),
    [(1, 300), pytest.param(10, 1_000, marks=[pytest.mark.load, pytest.mark.timeout(1800)])],
    ids=["some", "all"],
)
def test_a_storm_of_hang_ups_counts_as_no_error_and_the_alert_stays_quiet(service, log, rounds, number):
    """`-m load -s` prints what each of the others waits: with nobody else, beside as many polite callers, beside rude
    ones, in turns, since machines are noisy.
    """
    waited, found = {"nobody": [], "polite": [], "rude": []}, Counter()
    with served(service, replace(QUICK, max_ongoing_requests=64, max_queued_requests=256)) as client:
        searched(client, 20)
        for _ in range(rounds):
            quiet, some = searched(client, number // 4)
            waited["nobody"] += quiet
            found += some
            for manners in ("polite", "rude") if rounds > 1 else ("rude",):
                seconds, some = beside(client, manners, number, 200)
                waited[manners] += seconds
                found += some
        time.sleep(1.2)  # half bodies whose caller stays on are cut off by now
        ended = statuses(client)
        text = client.get("/metrics").text
    assert set(found) == {200}
    assert ended["499"] > rounds * number / 8 and not [status for status in ended if status.startswith("5")], ended
    assert not [record for record in log if record.exc_info]
    p99 = {who: 1000 * float(np.quantile(seconds, 0.99)) for who, seconds in waited.items() if seconds}
    told = ", ".join(f"{value:.1f} ms beside {who} ({p99['rude'] / value:.2f})" for who, value in p99.items())
    print(f"\n{rounds * number} rude: {dict(ended)}; p99 {told}")  # noqa: T201
    assert share_of_errors(text) == 0.0


def share_of_errors(text):
    """The alert MulanErrors on counters as they are, instead of on their rates."""
    rules = yaml.safe_load((ROOT / "infra/prometheus/rules.yaml").read_text())
    (expr,) = [rule["expr"] for rule in rules["groups"][0]["rules"] if rule["alert"] == "MulanErrors"]
    assert expr == (
        'sum(rate(mulan_requests_total{status=~"5.."}[5m])) / sum(rate(mulan_requests_total{status!="499"}[5m])) > 0.01'
    ), "this test works out that expression"
    errors = answers = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "mulan_requests_total":
                errors += sample.value if sample.labels["status"].startswith("5") else 0
                answers += sample.value if sample.labels["status"] != "499" else 0
    return errors / answers
