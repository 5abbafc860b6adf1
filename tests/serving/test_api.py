"""The endpoint as a user meets it: real Ray Serve, real Milvus Lite server, a real if untrained model."""

import asyncio
import http.client
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import ray
import torch
from serving_fixtures import NUM_TRACKS, SERVE, ids, tone, wav
from serving_fixtures import check_error as check_shape

from mulan_core.errors import UserError
from serving.app import PAGE
from serving.client import MulanClient
from serving.deployment import build_app, deploy, undeploy
from serving.ports import free_port

pytestmark = pytest.mark.slow

ODD_ID = "folder/söng 0?&"


@pytest.fixture(scope="module")
def endpoint(release, milvus, edits, catalogue):
    # Ray takes our word for the GPU; see test_a_gpu_that_torch_does_not_see.
    ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        places = {"edits": edits.location, "media_root": catalogue.folder}
        app = build_app(release.to_dict(), SERVE, milvus_uri=milvus.uri, **places)
        yield deploy(app, host="127.0.0.1", port=free_port())
        undeploy()
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def client(endpoint):
    with httpx.Client(base_url=endpoint, timeout=30) as client:
        yield client


def nearest(catalogue, query_D, passes=lambda row: True):
    """Exact search, worked out here."""
    scores = {i: float(v @ query_D) for i, v in catalogue.vectors.items() if passes(catalogue.rows[i])}
    return sorted(scores, key=scores.get, reverse=True), scores


def check_error(response, status, code, words=""):
    """The one shape, under the name that Ray Serve gave the request."""
    check_shape(response, status, code, words)
    assert response.headers.get_list("x-request-id") == [response.json()["error"]["request_id"]], "once"


def test_search_by_text_is_exact_search(client, catalogue, encode, release):
    response = client.post("/v1/search", json={"text": "  calm piano ", "k": 5})
    answer = response.json()
    order, scores = nearest(catalogue, encode("calm piano")[0])
    assert ids(answer) == order[:5]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([scores[i] for i in order[:5]], abs=1e-4)
    assert answer["release"] == {
        name: getattr(release, name) for name in ("model_version", "preprocessing_hash", "collection", "data_hash")
    }
    timing = answer["timing_ms"]
    assert 0 < timing["encode"] + timing["search"] <= timing["total"]
    assert re.fullmatch(r"encode;dur=[\d.]+, search;dur=[\d.]+, total;dur=[\d.]+", response.headers["server-timing"])


def test_search_by_audio_finds_the_same_audio(client, catalogue):
    for i in (2, 5):
        data = (catalogue.folder / f"{i}.ogg").read_bytes()
        answer = client.post("/v1/search", files={"audio": ("x.ogg", data)}, data={"k": "3"}).json()
        assert (len(ids(answer)), ids(answer)[0]) == (3, f"song-{i}")
        assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
        assert answer["timing_ms"]["decode"] > 0


def test_search_by_track_leaves_the_track_out(client, catalogue):
    for track_id in (ODD_ID, "song-3"):
        answer = client.post("/v1/search", json={"track_id": track_id, "k": 100}).json()
        order, _ = nearest(catalogue, catalogue.vectors[track_id])
        assert order[0] == track_id
        assert ids(answer) == order[1:]


def test_negative_text_takes_away(client, catalogue, encode):
    positive, negative = encode("guitar", "loud")
    query = positive - 0.5 * negative
    answer = client.post("/v1/search", json={"text": "guitar", "negative_text": "loud"}).json()
    assert ids(answer) == nearest(catalogue, query / np.linalg.norm(query))[0][:10]


def test_filters(client, catalogue, encode):
    def passes(row):
        return "genre:Reggae" in row["labels"] and row["dataset"] == "even"

    narrow = {"labels": ["genre:Reggae"], "dataset": "even"}
    order, _ = nearest(catalogue, encode("music")[0], passes)
    assert ids(client.post("/v1/search", json={"text": "music", "filter": narrow}).json()) == order
    data = (catalogue.folder / "1.ogg").read_bytes()
    answer = client.post("/v1/search", files={"audio": data}, data={"filter": json.dumps(narrow)}).json()
    assert sorted(ids(answer)) == sorted(order)
    attack = {"dataset": '" or dataset != "'}
    assert ids(client.post("/v1/search", json={"text": "music", "filter": attack}).json()) == []


@pytest.mark.parametrize("text", ["спокойное пианино", "静かなピアノ", "😀", "ا" * 1999, "a\u0000b", "\u202e\u200b"])
def test_any_text_is_searched(client, text):
    assert len(client.post("/v1/search", json={"text": text}).json()["hits"]) == 10


def test_tag(client, catalogue, encode):
    default = client.post("/v1/tag", json={"track_id": "song-4"}).json()["labels"]
    vectors = encode("Calm", "Jazz", "Reggae")
    labels = ["mood:Calm", "genre:Jazz", "genre:Reggae"]
    expected = dict(zip(labels, (vectors @ catalogue.vectors["song-4"]).tolist(), strict=True))
    assert {item["label"]: item["score"] for item in default} == pytest.approx(expected, abs=1e-4)
    assert [item["label"] for item in default] == sorted(expected, key=expected.get, reverse=True)
    data = (catalogue.folder / "4.ogg").read_bytes()
    own = client.post("/v1/tag", files={"audio": data}, data={"labels": '["Jazz", "wild:Reggae"]'}).json()["labels"]
    assert {item["label"]: item["score"] for item in own} == pytest.approx(
        {"Jazz": expected["genre:Jazz"], "wild:Reggae": expected["genre:Reggae"]}, abs=1e-3
    )


def test_embed(client, catalogue, encode):
    answer = client.post("/v1/embed", json={"texts": ["calm piano", "techno", "calm piano"]}).json()
    np.testing.assert_allclose(answer["vectors"], encode("calm piano", "techno", "calm piano"), atol=1e-5)
    assert answer["dim"] == 128
    data = (catalogue.folder / "6.ogg").read_bytes()
    vectors = client.post("/v1/embed", files={"audio": data}).json()["vectors"]
    np.testing.assert_allclose(vectors, catalogue.vectors["song-6"][None], atol=1e-4)


def test_tracks_and_their_audio(client, catalogue):
    path = f"/v1/tracks/{quote(ODD_ID, safe='')}"
    track = client.get(path).json()["track"]
    assert (track["track_id"], track["title"]) == (ODD_ID, 'Title <b>0</b> "é"')
    assert track["audio_url"] == f"{path}/audio"
    whole = client.get(track["audio_url"])
    data = (catalogue.folder / "0.ogg").read_bytes()
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, data, "audio/ogg")
    part = client.get(track["audio_url"], headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, data[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
    assert client.head(track["audio_url"]).headers["content-length"] == str(len(data))


def test_only_audio_under_the_media_root_plays(client, endpoint):
    for track_id in ("song-9", "song-10", "song-11"):  # a text file, /etc/passwd, a path with ..
        check_error(client.get(f"/v1/tracks/{track_id}/audio"), 404, "not_found", "no audio")
    assert client.get("/v1/tracks/song-10").json()["track"]["audio_url"] is None
    # httpx would tidy these paths
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"))
    for path in (
        "/v1/tracks/../../../../etc/passwd/audio",
        "/v1/tracks/..%2f..%2fetc%2fpasswd/audio",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/v1/tracks/%00/audio",
    ):
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status in (404, 422), path
        assert json.loads(body)["error"]["code"] in ("not_found", "invalid"), path


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ("{", 400, "bad_request", "JSON"),
        ("", 400, "bad_request", "JSON"),
        ("[1]", 422, "invalid", "object|dictionary"),
        ("{}", 422, "invalid", "one of text, track_id and queries"),
        ('{"text": "a", "track_id": "b"}', 422, "invalid", "one of text, track_id and queries"),
        ('{"text": "  "}', 422, "invalid", "text: .*at least 1"),
        ('{"text": 7}', 422, "invalid", "text: .*string"),
        ('{"text": "\\ud800"}', 400, "bad_request", "JSON"),
        (json.dumps({"text": "a" * 2001}), 422, "invalid", "text: .*2000"),
        ('{"text": "a", "k": 0}', 422, "invalid", "k: .*greater than or equal to 1"),
        ('{"text": "a", "k": 101}', 422, "invalid", "k: .*less than or equal to 100"),
        ('{"text": "a", "k": 1e400}', 422, "invalid", "k: "),
        ('{"text": "a", "k": "ten"}', 422, "invalid", "k: .*integer"),
        ('{"text": "a", "n": 3}', 422, "invalid", "n: .*not permitted"),
        ('{"text": "a", "filter": "labels == 1"}', 422, "invalid", "filter: "),
        ('{"text": "a", "filter": {"path": "x"}}', 422, "invalid", "filter.path: .*not permitted"),
        ('{"text": "a", "filter": {"labels": ["a\\nb"]}}', 422, "invalid", "control characters"),
        ('{"track_id": "nobody"}', 404, "not_found", "no track nobody"),
        ('{"track_id": "x\\" or track_id != \\""}', 404, "not_found", "no track"),
        ("[" * 100_000, 400, "bad_request", "JSON"),
    ],
)
def test_bad_searches(client, body, status, code, words):
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    check_error(response, status, code, words)


@pytest.mark.parametrize(
    ("audio", "code"),
    [
        (b"", "audio_empty"),
        (b"RIFF junk junk", "audio_undecodable"),
        (np.random.default_rng(0).bytes(5_000), "audio_undecodable"),
        (wav(tone(0))[:30], "audio_undecodable"),
        (wav(np.zeros(32_000)), "audio_silent"),
        (wav(tone(0, 0.1)), "audio_too_short"),
        (wav(tone(0, 21.0)), "audio_too_long"),
    ],
)
def test_bad_audio(client, audio, code):
    for path in ("/v1/search", "/v1/tag", "/v1/embed"):
        check_error(client.post(path, files={"audio": ("x.wav", audio)}), 422, code)


def test_bad_uploads(client):
    good = {"audio": wav(tone(0))}
    check_error(client.post("/v1/search", files={"sound": good["audio"]}), 422, "invalid", "named audio")
    check_error(client.post("/v1/search", files=good, data={"k": "1000"}), 422, "invalid", "k: ")
    check_error(client.post("/v1/search", files=good, data={"filter": "{"}), 422, "invalid", "filter: must be JSON")
    check_error(client.post("/v1/search", files=good, data={"x": "1"}), 422, "invalid", "x: ")
    check_error(client.post("/v1/embed", files=good, data={"k": "1"}), 422, "invalid", "unknown field k")
    check_error(client.post("/v1/search", files=[("audio", b"a"), ("audio", b"b")]), 400, "bad_request", "Too many")
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        response = client.post("/v1/search", content=b"text=a", headers={"Content-Type": kind})
        check_error(response, 415, "unsupported_media_type", kind)
    broken = client.post("/v1/search", content=b"--x", headers={"Content-Type": "multipart/form-data"})
    check_error(broken, 400, "bad_request", "boundary")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "track_id"),
        ({"track_id": "song-1", "labels": []}, "labels"),
        ({"track_id": "song-1", "labels": ["x"] * 501}, "labels"),
    ],
)
def test_bad_tags(client, body, words):
    check_error(client.post("/v1/tag", json=body), 422, "invalid", words)


@pytest.mark.parametrize("texts", [[], ["a"] * 65, [""], "a", [1]])
def test_bad_texts_to_embed(client, texts):
    check_error(client.post("/v1/embed", json={"texts": texts}), 422, "invalid", "texts")


def test_unknown_addresses_and_methods(client):
    for path in ("/v2/search", "/v1", "/page/nothing.js", "/favicon.ico"):
        check_error(client.get(path), 404, "not_found")
    check_error(client.get("/v1/search"), 405, "method_not_allowed")
    check_error(client.put("/v1/tracks/song-1"), 405, "method_not_allowed")
    check_error(client.get("/v1/tracks/nobody"), 404, "not_found", "no track nobody")
    assert client.get("/v1/search").headers["allow"] == "POST"


def test_the_body_is_capped_before_it_is_parsed(client, endpoint):
    over = SERVE.max_body_mb * 2**20 + 1
    by_header = client.post("/v1/search", content=b"x" * over, headers={"Content-Type": "application/json"})
    check_error(by_header, 413, "too_large", "at most 1 MB")
    check_error(client.post("/v1/search", files={"audio": b"x" * over}), 413, "too_large", "at most 1 MB")

    def pieces(head):  # no Content-Length goes before these
        yield head
        for _ in range(40):
            yield b"x" * 50_000

    form = b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
    for kind, head in (("application/json", b"{"), ("multipart/form-data; boundary=x", form)):
        streamed = client.post("/v1/search", content=pieces(head), headers={"Content-Type": kind})
        check_error(streamed, 413, "too_large", "at most 1 MB")


def test_a_caller_may_name_the_request(client):
    response = client.get("/v1/tracks/nobody", headers={"X-Request-ID": "my-request-7"})
    check_error(response, 404, "not_found")
    assert response.json()["error"]["request_id"] == "my-request-7"
    for path in ("/", "/livez", "/page/app.js", "/v1/release", "/v1/tracks/song-1/audio"):
        for named in ({}, {"X-Request-ID": "mine"}):
            names = client.get(path, headers=named).headers.get_list("x-request-id")
            assert len(names) == 1 and (not named or names == ["mine"]), path


def test_a_websocket_is_refused_through_ray(client):
    """Ray's proxy names no answers to these, so we do."""
    asks = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    refused = client.get("/v1/search", headers=asks | {"Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw=="})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
    assert refused.headers.get_list("x-request-id") == [refused.json()["error"]["request_id"]]


def test_too_many_requests_are_told_so_in_json(endpoint):
    # 2 at work and 4 waiting are allowed; uploads of 20 s take long enough to pile up
    data = wav(tone(1, 19.0))

    async def burst():
        async with httpx.AsyncClient(base_url=endpoint, timeout=60) as client:
            posts = [client.post("/v1/embed", files={"audio": data}) for _ in range(24)]
            probe = client.get("/livez")
            return await asyncio.gather(probe, *posts)

    alive, *answers = asyncio.run(burst())
    assert alive.status_code == 200
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    check_error(refused, 503, "overloaded", "try again")
    assert refused.headers["retry-after"] == "2"


def test_release_probes_and_metrics(client, release):
    about = client.get("/v1/release").json()
    assert (about["model_version"], about["num_tracks"], about["created_at"]) == ("7", NUM_TRACKS, release.created_at)
    assert about["labels"] == ["mood:Calm", "genre:Jazz", "genre:Reggae"]
    assert "model_path" not in about
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"

    def count(name):
        found = re.search(rf"^{re.escape(name)} ([\d.]+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    searches = 'mulan_requests_total{method="POST",route="/v1/search",status="200"}'
    unknown = 'mulan_requests_total{method="GET",route="other",status="404"}'
    encoded = 'mulan_stage_seconds_count{stage="encode"}'
    before = [count(name) for name in (searches, unknown, encoded)]
    client.post("/v1/search", json={"text": "counted"})
    client.get("/made/up/name")
    assert [count(name) for name in (searches, unknown, encoded)] == [value + 1 for value in before]
    assert count(f'mulan_release_info{{collection="{release.collection}",model_version="7"}}') == 1


def test_a_part_that_the_file_does_not_have(client):
    answer = client.get("/v1/tracks/song-1/audio", headers={"Range": "bytes=999999999-"})
    check_error(answer, 416, "no_such_part")
    assert answer.headers["content-range"].startswith("bytes */")


def test_through_ray_head_is_get_without_a_body_and_a_prefix_is_taken_off(client):
    """Ray's proxy hands on methods, paths and headers as a plain server does; the rest of it is in test_methods.py."""
    for path in ("/", "/page/app.js", "/livez", "/metrics", "/v1/release", "/v1/tracks/song-1/audio", "/v1/nothing"):
        head, got = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-length"] == got.headers["content-length"] or path == "/metrics"
    told = {"X-Forwarded-Prefix": "/music"}
    track = client.get("/music/v1/tracks/song-1", headers=told).json()["track"]
    assert track["audio_url"] == "/music/v1/tracks/song-1/audio"
    assert client.get(track["audio_url"], headers=told).content
    assert client.get("/v1/release/").headers["location"] == "../release"


@pytest.mark.parametrize("odd", ["a%2Fb?#;\\+%", "%2e%2e", "日本/ü b", "a\xa0b\u200d👩", "...", "audio", "x" * 512])
def test_odd_ids_through_ray(client, odd):
    path = f"/v1/tracks/{quote(odd, safe='')}"
    added = client.post("/v1/tracks", files={"audio": wav(tone(61, 0.6))}, data={"track_id": odd})
    assert added.json()["track"]["track_id"] == odd
    assert client.get(path).json()["track"]["track_id"] == odd
    assert client.get(f"{path}/audio").headers["content-type"] == "audio/flac"
    assert client.delete(path).json()["deleted"] == odd
    check_error(client.get(f"{path}/audio"), 404, "not_found", "there is no track")


def test_page_and_openapi(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    linked = re.findall(r'(?:src|href)="\.(/page/[^"]+)"', page.text)
    assert len(linked) >= 3
    for path in linked:
        assert client.get(path).status_code == 200, path
    # nothing is fetched from elsewhere
    modules = [f"/page/{path.name}" for path in PAGE.glob("*.js")]
    texts = [page.text, *(client.get(path).text for path in {*linked, *modules})]
    assert not [url for text in texts for url in re.findall(r"https?://[^\s\"'`)]+", text) if "w3.org" not in url]
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    for path in ("/v1/search", "/v1/tag", "/v1/embed"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}
    references = set(re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])


def test_python_client(endpoint, catalogue, tmp_path):
    client = MulanClient(endpoint)
    path = catalogue.folder / "2.ogg"
    assert client.ready()["status"] == "ready"
    assert len(client.search_text("calm", k=3, filter={"dataset": "odd"})["hits"]) == 3
    assert client.search_audio(path, k=1)["hits"][0]["track_id"] == "song-2"
    assert "song-2" not in ids(client.search_track("song-2"))
    assert len(client.tag(audio=path, labels=["a", "b"])["labels"]) == 2
    assert client.embed(texts=["a"])["dim"] == client.embed(audio=path.read_bytes())["dim"] == 128
    assert client.track(ODD_ID)["track"]["track_id"] == ODD_ID
    assert client.release()["model_version"] == "7"
    assert ODD_ID in {point["track_id"] for point in client.map()["points"]}
    with pytest.raises(UserError, match="no track nobody"):
        client.search_track("nobody")
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        client.search_audio(tmp_path / "gone.wav")
    with pytest.raises(UserError, match=r"no MuLan endpoint answers at .*; start one with `mulan serve`"):
        MulanClient(f"http://127.0.0.1:{free_port()}").release()


def test_a_release_that_does_not_fit_never_reaches_serve(client, release, milvus, edits):
    wrong = release.to_dict() | {"model_version": "8"}
    with pytest.raises(UserError, match="model version is 8 in the release and 7 in the collection"):
        build_app(wrong, SERVE, milvus_uri=milvus.uri, edits=edits.location)
    assert client.get("/readyz").status_code == 200


def test_a_new_release_replaces_the_old_without_a_gap(endpoint, release, milvus, edits, catalogue):
    port = int(endpoint.rsplit(":", 1)[1])
    places = {"edits": edits.location, "media_root": catalogue.folder}
    app = build_app(release.to_dict() | {"created_at": "2027-01-01"}, SERVE, milvus_uri=milvus.uri, **places)
    statuses, done = [], False
    write = {"data": {"track_id": "kept"}, "headers": {"Idempotency-Key": "before the switch"}, "timeout": 30}
    write |= {"files": {"audio": wav(tone(60, 0.6))}}
    first = httpx.post(f"{endpoint}/v1/tracks", **write)

    def ask():
        while not done:
            statuses.append(httpx.post(f"{endpoint}/v1/search", json={"text": "a"}, timeout=30).status_code)
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            assert deploy(app, host="127.0.0.1", port=port) == endpoint
        finally:
            done = True
        asking.result()
    assert set(statuses) == {200}
    client = MulanClient(endpoint)
    assert client.release()["created_at"] == "2027-01-01"
    # Another replica answers, and knows what the one before it did.
    again = httpx.post(f"{endpoint}/v1/tracks", **write)
    client.delete_track("kept")
    assert again.headers["idempotency-replayed"] == "true" and again.json() == first.json()
    assert again.json()["release"]["collection"] == release.collection and not again.json()["replaced"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here torch sees one")
def test_a_gpu_that_torch_does_not_see(endpoint, client, release, milvus, edits):
    app = build_app(release.to_dict(), replace(SERVE, num_gpus=0.5), milvus_uri=milvus.uri, edits=edits.location)
    with pytest.raises(UserError, match=r"^serve.num_gpus asks for a GPU and torch sees none.*goes on serving$"):
        deploy(app, host="127.0.0.1", port=int(endpoint.rsplit(":", 1)[1]))
    assert client.get("/readyz").status_code == 200


def test_a_dead_milvus_is_a_503_and_comes_back(client, milvus):
    milvus.stop()
    check_error(client.post("/v1/search", json={"text": "calm"}), 503, "unavailable", "Milvus does not answer")
    check_error(client.post("/v1/search", json={"track_id": "song-1"}), 503, "unavailable", "Milvus")
    check_error(client.get("/readyz"), 503, "not_ready", "Milvus does not answer")
    assert client.get("/livez").status_code == 200
    assert client.post("/v1/embed", json={"texts": ["a"]}).status_code == 200
    milvus.start()
    assert client.get("/readyz").status_code == 200
    assert len(client.post("/v1/search", json={"text": "calm"}).json()["hits"]) == 10


def test_a_taken_port_is_said_before_serve_starts(endpoint, release, milvus, edits):
    undeploy()
    app = build_app(release.to_dict(), SERVE, milvus_uri=milvus.uri, edits=edits.location)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"port \d+ on 127.0.0.1 is taken"):
            deploy(app, host="127.0.0.1", port=taken.getsockname()[1])
