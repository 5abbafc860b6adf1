"""What an operator sees: metrics that move, a dashboard of real ones, traces, and a query log that keeps its word."""

import asyncio
import http.server
import json
import os
import re
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from serving_fixtures import SERVE, check_error, ids, metric, run_bare, tone, wav

from mulan_core.data.tracks import read_playlists
from mulan_core.errors import UserError
from serving.access_log import Record
from serving.app import create_api
from serving.edits import Edits
from serving.query_log import QueryLog, read_query_log
from serving.query_log_export import to_playlists
from serving.service import Service
from serving.tracing import Traces, traces_from_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(told_apart, store, tmp_path_factory):
    """A release with enough labels for everything."""
    edits = Edits(tmp_path_factory.mktemp("edits"))
    return Service(told_apart, store, edits=edits, media_root=None, max_audio_s=SERVE.max_audio_s)


@pytest.fixture(scope="module")
def client(trained):
    with run_bare(create_api(trained, SERVE)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_every_metric_moves(client):
    def numbers():
        return client.get("/metrics").text

    def moves(name, act, **labels):
        before = metric(numbers(), name, **labels)
        act()
        deadline = time.monotonic() + 10  # a request counts when it has ended, which its caller may know before
        while metric(numbers(), name, **labels) <= before:
            assert time.monotonic() < deadline, (name, labels)

    def ask(text="calm piano", **more):
        return client.post("/v1/search", json={"text": text, **more})

    search = {"route": "/v1/search"}
    moves("mulan_requests_total", ask, **search, method="POST", status="200")
    moves("mulan_request_seconds_count", ask, **search)
    moves("mulan_errors_total", lambda: ask(k=0), code="invalid")
    moves("mulan_errors_total", lambda: client.get("/v1/tracks/nobody"), code="not_found")
    moves("mulan_requests_total", lambda: client.get("/made/up"), route="other", status="404")
    for stage in ("encode", "search"):
        moves("mulan_stage_seconds_sum", lambda: ask(f"new words {time.time()}"), stage=stage)
    moves("mulan_stage_seconds_sum", lambda: client.post("/v1/embed", files={"audio": wav(tone(0))}), stage="decode")
    moves("mulan_text_cache_total", lambda: ask("met before"), result="miss")
    moves("mulan_text_cache_total", lambda: ask("met before"), result="hit")
    moves("mulan_no_good_match_total", lambda: ask("a", filter={"dataset": "nowhere"}))
    assert metric(numbers(), "mulan_release_info", model_version="8") == 1
    assert metric(numbers(), "mulan_index_tracks") == 300
    drift = metric(numbers(), "mulan_query_drift")
    for _ in range(20):
        ask("income tax return form")
    assert metric(numbers(), "mulan_query_drift") != drift


def test_the_queue_and_the_batches_rise_under_load(client):
    """More at once than SERVE works on: some wait, and those at work share runs of encoder and search."""
    waiting, done = [], threading.Event()

    def watch():
        while not done.is_set():
            waiting.append(metric(client.get("/metrics").text, "mulan_waiting_requests"))

    def ask(i):
        return client.post("/v1/embed", files={"audio": wav(tone(i % 3, 10.0))}).status_code

    with ThreadPoolExecutor(7) as pool:
        watcher = pool.submit(watch)
        statuses = list(pool.map(ask, range(24)))
        done.set()
        watcher.result()
    assert set(statuses) == {200} and max(waiting) >= 1
    assert metric(client.get("/metrics").text, "mulan_waiting_requests") == 0


def test_texts_and_searches_that_wait_together_are_one_run(trained):
    """Also that each caller gets the answer to its own question."""

    async def at_once():
        vectors = await asyncio.gather(*(trained.encode_texts([f"tune {i}"]) for i in range(40)))
        found = await asyncio.gather(*(trained._find(vector[0], 5) for vector in vectors))
        return vectors, found

    before = trained.metrics.text().decode()
    vectors, found = asyncio.run(at_once())
    after = trained.metrics.text().decode()

    def rise(name, stage):
        return metric(after, name, stage=stage) - metric(before, name, stage=stage)

    for stage in ("encode", "search"):
        assert rise("mulan_batch_size_sum", stage) == 40
        assert rise("mulan_batch_size_count", stage) <= 6, "far fewer runs than callers"
    for vector, hits in zip(vectors, found, strict=True):
        alone = trained._store.tracks.search(vector, 5, collection=trained.release.collection)[0]
        assert [hit.track.track_id for hit in hits.hits] == [hit.track.track_id for hit in alone]
    assert trained._find._batches == {}, "nothing is left of filters that are done with"


def test_a_failed_run_reaches_all_its_callers_and_the_next_one_works(trained):
    from serving.batching import Batcher

    def run(items):
        if "bad" in items:
            raise UserError("no")
        return [item.upper() for item in items]

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batch = Batcher(run, pool, max_size=2)
            first = await asyncio.gather(*(batch(i) for i in ("a", "bad", "b", "c", "d")), return_exceptions=True)
            gone = asyncio.create_task(batch("x"))
            await asyncio.sleep(0)
            gone.cancel()
            return first, await batch("e"), batch.is_idle

    (a, bad, *rest), e, is_idle = asyncio.run(ask())
    assert isinstance(a, UserError) and a is bad
    assert (rest, e, is_idle) == (["B", "C", "D"], "E", True)


def test_the_dashboard_names_metrics_that_exist(client):
    dashboard = json.loads((ROOT / "infra/grafana/endpoint.json").read_text())
    named = set(re.findall(r"\bmulan_\w+", json.dumps(dashboard["panels"])))
    text = client.get("/metrics").text
    there = set(re.findall(r"^(mulan_\w+)", text, re.M))
    assert len(named) >= 12 and named <= there, named - there
    families = set(re.findall(r"^# TYPE (mulan_\w+)", text, re.M))
    stems = {name.removesuffix("_total") for name in families}
    shown = {stem for stem in stems if any(name.startswith(stem) for name in named)}
    assert shown == stems, "and shows all of them"
    documented = (ROOT / "docs/serving.md").read_text()
    assert not [name for name in families if name not in documented]


@contextmanager
def collector(status=200):
    """An OTLP collector that keeps what it gets."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()


def spans_of(got):
    """What a collector got, and the attributes of its source."""
    spans, resource = [], {}
    for _, _, body in got:
        (group,) = ExportTraceServiceRequest.FromString(body).resource_spans
        resource = {item.key: item.value.string_value for item in group.resource.attributes}
        spans += list(group.scope_spans[0].spans)
    return spans, resource


def test_traces_arrive_with_their_stages(service, monkeypatch):
    with collector() as (address, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address + "/")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%20b")
        traces = traces_from_environment("7", "tracks_7")
        with run_bare(create_api(service, SERVE, traces=traces)) as url:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
            httpx.post(f"{url}/v1/search", json={"text": "velvet rhinoceros"}, headers=headers)
            httpx.get(f"{url}/v1/tracks/nobody")
            httpx.get(f"{url}/v1/release", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        traces.close()
    assert {path for path, _, _ in got} == {"/v1/traces"} and got[0][1]["x-token"] == "a b"
    spans, resource = spans_of(got)
    assert resource["service.name"] == "mulan" and resource["mulan.model_version"] == "7"
    search = next(span for span in spans if span.name == "POST /v1/search")
    assert (search.trace_id.hex(), search.parent_span_id.hex()) == (TRACE, PARENT)
    assert search.trace_state == "vendor=1"
    stages = [span for span in spans if span.parent_span_id == search.span_id]
    assert {span.name for span in stages} == {"encode", "search"}
    for span in stages:
        assert span.trace_id == search.trace_id
        assert search.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= search.end_time_unix_nano + 1_000_000
    assert {span.name for span in spans if not span.parent_span_id} == {"GET /v1/tracks/{track_id:path}"}
    assert "rhinoceros" not in str(got) and "nobody" not in str(got)


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
JOINED = [
    f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-03", f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-more-yet",
    f" 00-{TRACE}-{PARENT}-01\t",
]  # fmt: skip
UNSAMPLED = [f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-02", f"cc-{TRACE}-{PARENT}-00-more"]
INVALID = [
    "", "x", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
    f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-more", f"00-{TRACE}-{PARENT}", f"0-{TRACE}-{PARENT}-01",
    f"00-{TRACE[1:]}-{PARENT}-01", f"00-{TRACE}-{PARENT}-0g", f"00_{TRACE}_{PARENT}_01", f"cc-{TRACE}-{PARENT}-01more",
    "00-" * 400, f"00-{TRACE}-{PARENT}-00-",
]  # fmt: skip
SAMPLED = (f"00-{TRACE}-{PARENT}-01",)


def record_of(*traceparent, status=200, request_id="r", tracestate=()):
    return Record(
        request_id=request_id, method="GET", route="/v1/release", status=status, began_ns=time.time_ns(), seconds=0.25,
        spans=[("encode", 0.1, 0.2)], error=None, key_id=None, traceparent=traceparent, tracestate=tracestate,
    )  # fmt: skip


def sent(records, monkeypatch, **environment):
    """The requests' own spans by their ids, as a collector gets them."""
    with collector() as (address, got):
        for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": address, **environment}.items():
            monkeypatch.setenv(name, value.replace("ADDRESS", address))
        traces = traces_from_environment("7", "tracks_7")
        if traces is None:
            return None
        for record in records:
            traces(record)
        traces.close()
    spans, _ = spans_of(got)
    roots = {attribute_of(span, "mulan.request_id"): span for span in spans if span.kind == span.SPAN_KIND_SERVER}
    assert len(spans) == 2 * len(roots), "each with its stage"
    return roots


def attribute_of(span, name):
    return next(item.value.string_value for item in span.attributes if item.key == name)


def test_a_caller_s_trace_is_joined_as_w3c_trace_context_says(monkeypatch):
    headers = [(one,) for one in JOINED + UNSAMPLED + INVALID] + [(), SAMPLED * 2, (*SAMPLED, UNSAMPLED[0])]
    records = [record_of(*header, request_id=str(number)) for number, header in enumerate(headers)]
    roots = sent(records, monkeypatch)
    for number, header in enumerate(headers):
        root = roots.get(str(number))
        if header[:1] and header[0] in UNSAMPLED and len(header) == 1:
            assert root is None, header
        elif header[:1] and header[0] in JOINED and len(header) == 1:
            assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT), header
        else:
            assert root.trace_id.hex() not in (TRACE, "0" * 32) and root.parent_span_id == b"", header
    ids = [root.trace_id for root in roots.values() if root.trace_id.hex() != TRACE]
    assert len(set(ids)) == len(ids), "traces of our own are each their own"


def test_tracestate_is_passed_on_with_the_trace_it_belongs_to(monkeypatch):
    state = ("vendor=1,other=2", "third=3")
    records = [record_of(*SAMPLED, request_id="a", tracestate=state), record_of("x", request_id="b", tracestate=state)]
    roots = sent(records, monkeypatch)
    assert (roots["a"].trace_state, roots["b"].trace_state) == ("vendor=1,other=2,third=3", "")


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, {"own", "joined"}),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, set()),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, {"own", "joined", "unsampled"}),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, {"joined"}),
        ({"OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ADDRESS/own/path", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
         {"own", "joined"}),
    ],
)  # fmt: skip
def test_the_usual_variables_decide_what_is_sent(environment, kept, monkeypatch):
    records = [record_of(request_id="own"), record_of(*SAMPLED, request_id="joined")]
    records += [record_of(UNSAMPLED[0], request_id="unsampled")]
    roots = sent(records, monkeypatch, **environment)
    assert (roots and set(roots)) == (kept and set(kept)) or (kept == set() and roots == {})


def test_a_collector_of_this_machine_is_not_asked_through_a_proxy(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    nobody = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
    assert set(sent([record_of()], monkeypatch, OTEL_EXPORTER_OTLP_TIMEOUT="1", **nobody)) == {"r"}


def test_only_what_is_our_fault_is_an_error(monkeypatch):
    roots = sent(
        [record_of(status=status, request_id=str(status)) for status in (200, 404, 499, 500, 503)], monkeypatch
    )
    assert {name for name, span in roots.items() if span.status.code == span.status.STATUS_CODE_ERROR} == {"500", "503"}
    assert all(span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000 for span in roots.values())


def test_nobody_else_s_traces_are_touched(monkeypatch):
    from opentelemetry import trace

    before = trace.get_tracer_provider()
    sent([record_of()], monkeypatch)
    assert trace.get_tracer_provider() is before


def test_a_collector_that_is_away_costs_nothing(service, monkeypatch, caplog):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert traces_from_environment("7", "tracks_7") is None
    for name, value in (("ENDPOINT", "http://127.0.0.1:9"), ("TIMEOUT", "1")):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    traces = traces_from_environment("7", "tracks_7")
    with run_bare(create_api(service, SERVE, traces=traces)) as url:
        for _ in range(3):
            assert httpx.get(f"{url}/v1/release").status_code == 200
            time.sleep(0.1)
        began = time.perf_counter()
        for _ in range(3_000):  # more than the queue holds
            traces(record_of())
        assert time.perf_counter() - began < 5
    began = time.perf_counter()
    traces.close()
    assert time.perf_counter() - began < 20


def test_a_collector_that_fails_is_told_once_until_it_is_back(caplog):
    answers = [SpanExportResult.FAILURE] * 3 + [SpanExportResult.SUCCESS] + [SpanExportResult.FAILURE] * 2

    class Flaky(SpanExporter):
        def export(self, spans):
            return answers.pop(0)

    traces = Traces(Flaky(), resource={})
    with caplog.at_level("WARNING", logger="mulan.serving"):
        while answers:
            traces(record_of())
            traces._provider.force_flush()
    assert caplog.text.count("traces are dropped") == 2
    traces._provider.shutdown()


@contextmanager
def logged(service, folder, mode):
    log = QueryLog(folder, mode, model_version="7")
    with run_bare(create_api(service, SERVE, query_log=log)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def lines_of(folder):
    time.sleep(0.1)  # lines of searches are written behind the answer
    return list(read_query_log(folder))


def test_the_query_log_is_off_unless_asked_for(bare, service, tmp_path):
    check_error(bare.post("/v1/feedback", json={"request_id": "x", "track_id": "song-1"}), 409, "conflict", "is off")
    with logged(service, tmp_path / "queries", "off") as client:
        client.post("/v1/search", json={"text": "calm"})
    assert not (tmp_path / "queries").exists()


def test_hashes_say_what_is_equal_and_nothing_else(service, tmp_path):
    with logged(service, tmp_path / "queries", "hashed") as client:
        for text in ("velvet rhinoceros", " Velvet Rhinoceros", "other"):
            client.post("/v1/search", json={"text": text, "negative_text": "loud"})
    lines = lines_of(tmp_path / "queries")
    first, second, third = (line["query"][0]["text_hash"] for line in lines)
    assert first == second != third and len(first) == 64
    assert {line["query"][1]["weight"] for line in lines} == {-0.5}
    everything = b"".join(path.read_bytes() for path in (tmp_path / "queries").iterdir())
    assert b"rhinoceros" not in everything and b"loud" not in everything
    for path in (tmp_path / "queries").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UserError, match=r"holds hashes, no words; set serve.query_log to full"):
        to_playlists([*lines, {"kind": "feedback", "request_id": lines[0]["request_id"], "track_id": "song-1"}])


def test_old_days_are_forgotten_when_a_day_begins(tmp_path, monkeypatch):
    def log_at(day, days):
        monkeypatch.setattr("serving.query_log.time.time", lambda: 86_400.0 * day)
        QueryLog(tmp_path, "full", days=days).search("r", [{"text": "a", "weight": 1}], ["t1"], 0)

    for day in (20_000, 20_001, 20_002):
        log_at(day, None)
    (tmp_path / "notes.jsonl").write_text("")
    days = ["2024-10-04", "2024-10-05", "2024-10-06"]
    assert [path.name[:10] for path in sorted(tmp_path.glob("2*.jsonl"))] == days
    log_at(20_003, 2)
    assert [path.name[:10] for path in sorted(tmp_path.glob("2*.jsonl"))] == ["2024-10-06", "2024-10-07"]
    assert (tmp_path / "notes.jsonl").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full: Linux only")
def test_on_a_full_disk_people_are_answered_all_the_same(service, tmp_path, caplog):
    folder = tmp_path / "queries"
    with logged(service, folder, "full") as client:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        (folder / f"{day}-{os.getpid()}.jsonl").symlink_to("/dev/full")
        answer = client.post("/v1/search", json={"text": "calm piano"})
        assert answer.status_code == 200
        chosen = {"request_id": answer.json()["request_id"], "track_id": "song-1"}
        check_error(client.post("/v1/feedback", json=chosen), 503, "store_failed", "cannot be written: No space left")
    assert "a search is missing in the query log: the query log cannot be written: No space left" in caplog.text


def test_what_people_choose_becomes_an_evaluation_set(service, catalogue, tmp_path):
    folder = tmp_path / "queries"
    with logged(service, folder, "full") as client:

        def choose(body, *track_ids, **files):
            answer = client.post("/v1/search", **({"json": body} if not files else {"data": body, "files": files}))
            for track_id in track_ids:
                sent = {"request_id": answer.json()["request_id"]}
                assert client.post("/v1/feedback", json=sent | {"track_id": track_id}).json() == {"status": "noted"}
            return answer.json()

        shown = ids(choose({"text": "calm piano", "k": 12}))
        choose({"text": "calm piano", "k": 12}, shown[0], shown[1])
        choose({"text": " Calm  piano", "k": 12}, shown[1])
        choose({"text": "loud", "k": 1}, "a track that was not shown")
        choose({"text": "loud", "negative_text": "calm"}, shown[0])
        choose({"k": "3"}, audio=wav(tone(2)))
    with (folder / "broken.jsonl").open("w") as file:
        file.write('{"kind": "search", "requ')
    lines = lines_of(folder)
    assert {line["release"] for line in lines if line["kind"] == "search"} == {"7"}
    rows, counts = to_playlists(lines)
    assert counts == {"searches": 6, "choices": 5, "used": 3, "unseen": 1, "other": 1}
    assert [(row["title"], row["track_ids"]) for row in rows] == [("calm piano", [shown[1], shown[0]])]
    assert to_playlists(lines, least=2)[0][0]["track_ids"] == [shown[1]]
    table = tmp_path / "playlists.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_playlists(table)["title"].to_pylist() == ["calm piano"]
    with pytest.raises(UserError, match="nothing to export: 0 searches, 0 choices"):
        to_playlists([])
