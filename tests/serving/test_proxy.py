"""The endpoint behind a real nginx, as its manual shows one and as docs/serving.md does, at / and under a path."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urljoin

import httpx
import pytest
from chromium import CHROMIUM, run_chromium
from nginx import MANUAL, NGINX, documented, run_nginx
from serving_fixtures import NUM_TRACKS, SERVE, check_error, ids, run_bare, tone, wav

from mulan_core.errors import UserError
from serving.app import create_api
from serving.client import MulanClient
from serving.keys import KeyFile

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

ODD_ID = "folder/söng 0?&"
HITS = "document.querySelectorAll('.hit').length"
SENTENCE = "pages of other sites may not ask: Origin is 'http://{0}', Host is '{1}'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """For it music.test is this machine, so that a page can have a name that is not loopback's."""
    with run_chromium(tmp_path_factory.mktemp("chromium"), "--host-resolver-rules=MAP music.test 127.0.0.1") as page:
        page.resize(1100, 860)
        yield page


def locations(how, path):
    return MANUAL[path] if how == "manual" else documented(path)


@needs_browser
@pytest.mark.parametrize("path", ["/", "/music/"])
@pytest.mark.parametrize("how", ["manual", "documented"])
def test_the_page_works_through_nginx(browser, bare, catalogue, tmp_path, *, how, path):
    with run_nginx(tmp_path / "nginx", str(bare.base_url).rstrip("/"), locations(how, path)) as site:
        home = site + path
        browser.errors.clear()
        browser.requests.clear()
        browser.open(home)
        browser.wait("document.querySelectorAll('#labels .chip').length == 3")
        assert browser.value("document.querySelector('#no-script')") is None
        browser.click("#query")
        browser.type("calm piano")
        browser.press("Enter")
        browser.wait(f"{HITS} == {NUM_TRACKS}")
        assert browser.value("location.href") == f"{home}?q=calm+piano"
        if shots := os.environ.get("MULAN_SCREENSHOTS"):
            browser.screenshot(Path(shots) / f"{how}{path.replace('/', '-')}.png")

        browser.click(".hit:has(.play:enabled) .play")
        browser.wait("document.querySelector('#audio').currentTime > 0.1")
        browser.value("document.querySelector('#audio').currentTime = 2")
        browser.wait("document.querySelector('#audio').currentTime > 2")
        browser.wait(
            "new Set(document.querySelector('#wave').getContext('2d').getImageData(0, 10, 300, 1).data).size > 4"
        )
        browser.click(".hit .tagger")
        browser.wait("document.querySelectorAll('.tagview li').length == 3")
        browser.upload("#file", catalogue.folder / "5.ogg")
        browser.wait("document.querySelector('#asked').textContent.includes('5.ogg')")
        browser.wait(
            f"document.querySelector('.hit strong').textContent == {json.dumps(catalogue.rows['song-5']['title'])}"
        )
        browser.click("#to-map")
        browser.wait("document.querySelectorAll('#legend .chip').length == 2")
        browser.value("history.back()")
        browser.wait("!location.hash")
        browser.value("history.back()")
        browser.wait("location.search == '?q=calm+piano' && document.querySelector('#query').value == 'calm piano'")
        links = browser.value("[...document.querySelectorAll('footer a')].map(a => a.href)")
        assert links == [f"{home}{name}" for name in ("docs", "v1/release", "metrics")]
        browser.wait("!document.querySelector('#results.busy')")
        assert browser.errors == []
        assert [url for _, url in browser.requests if not url.startswith((home, f"blob:{site}"))] == []
        browser.open("about:blank")


@needs_browser
@pytest.mark.parametrize("path", ["/", "/music/"])
def test_a_name_of_the_network_needs_host_and_a_key_and_the_page_says_which(browser, service, tmp_path, path):
    """Over plain http, where browsers do not say of which site a request is."""
    keys = KeyFile(tmp_path / "keys.json")
    with run_bare(create_api(service, SERVE, keys)) as url:
        with run_nginx(tmp_path / "nginx", url, locations("manual", path)) as site:
            name = f"music.test:{site.rsplit(':', 1)[1]}"
            browser.open(f"http://{name}{path}?q=piano")
            browser.wait("!!document.querySelector('#status.error')")
            said = browser.value("document.querySelector('#status').textContent")
            assert SENTENCE.format(name, url.removeprefix("http://")) in said
            assert "proxy_set_header Host $http_host;" in said
            assert browser.value("document.querySelector('#no-script')") is None
        with run_nginx(tmp_path / "nginx", url, locations("documented", path)) as site:
            name = f"music.test:{site.rsplit(':', 1)[1]}"
            browser.open(f"http://{name}{path}")
            said = browser.value("document.body.textContent")
            assert f"Host is '{name}'" in said and "mulan keys create NAME" in said and "--open" in said
            key, _ = keys.create("page", "read")
            browser.open(f"http://{name}{path}?q=piano")
            browser.wait("document.querySelector('#key').open")
            browser.click("#key-value")
            browser.type(key)
            browser.press("Enter")
            browser.wait(f"{HITS} == {NUM_TRACKS}")
            browser.click(".hit:has(.play:enabled) .play")
            browser.wait("document.querySelector('#audio').currentTime > 0.1")


@pytest.mark.parametrize("path", ["/", "/music/"])
def test_addresses_of_answers_are_those_of_the_proxy(bare, catalogue, tmp_path, path):
    """Track ids of all kinds, audio in parts, redirects, the client and the command line."""
    audio = wav(tone(7))
    odd = "a%2Fb/ü ?c#d;e&+"
    assert bare.post("/v1/tracks", files={"audio": audio}, data={"track_id": odd}).status_code == 200
    try:
        with run_nginx(tmp_path / "nginx", str(bare.base_url).rstrip("/"), documented(path)) as site:
            asked = f"{site}{path}v1/tracks/{quote(ODD_ID, safe='')}"
            track = httpx.get(asked).json()["track"]
            data = (catalogue.folder / "0.ogg").read_bytes()
            part = httpx.get(urljoin(asked, track["audio_url"]), headers={"Range": "bytes=100-199,-1"})
            assert part.status_code == 206 and data[100:200] in part.content
            points = httpx.get(f"{site}{path}v1/map").json()["points"]
            played = [p["audio_url"] for p in points if p["audio_url"]]
            assert played and all(url.startswith(f"{path}v1/tracks/") for url in played)
            sent_on = httpx.get(f"{site}{path}docs/?x=1")
            assert (sent_on.status_code, sent_on.headers["location"]) == (307, "../docs?x=1")
            assert str(sent_on.next_request.url) == f"{site}{path}docs?x=1"
            with MulanClient(site + path) as client:
                assert client.track(odd)["track"]["track_id"] == odd
                assert len(client.search_audio(catalogue.folder / "2.ogg", k=3)["hits"]) == 3
                assert client.ready()["status"] == "ready"
            if path == "/":
                return
            command = [sys.executable, "-m", "flows.cli.app", "search", "piano", "--url", site + path, "--json"]
            done = subprocess.run(
                command, env=os.environ | {"MULAN_HOME": str(tmp_path)}, capture_output=True, text=True
            )
            assert len(json.loads(done.stdout)["hits"]) == 10, done.stderr
    finally:
        assert bare.delete(f"/v1/tracks/{quote(odd, safe='')}").status_code == 200


def test_uploads_up_to_our_own_limit_pass(bare, tmp_path):
    """nginx takes 1 MB by default."""
    with run_nginx(tmp_path / "nginx", str(bare.base_url).rstrip("/"), documented("/music/")) as site:
        answer = httpx.post(f"{site}/music/v1/tag", files={"audio": bytes(1_047_000)})
        assert answer.json()["error"]["code"] == "audio_undecodable", "it has reached us"
        with socket.create_connection(("127.0.0.1", int(site.rsplit(":", 1)[1])), timeout=20) as connection:
            # By its head alone: where a body is cut short, what the caller still reads is a matter of luck.
            connection.sendall(b"POST /music/v1/tag HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_client_that_is_sent_elsewhere_is_told_where(bare, tmp_path):
    moved = "location /old {{ return 301 /music/; }}"
    with (
        run_nginx(tmp_path / "nginx", str(bare.base_url).rstrip("/"), moved, documented("/music/")) as site,
        MulanClient(f"{site}/old") as client,
        pytest.raises(UserError, match=f"sends on to {site}/music/"),
    ):
        client.release()


def test_open_endpoints_answer_to_every_name(service, tmp_path):
    with (
        run_bare(create_api(service, replace(SERVE, allow_open=True))) as url,
        run_nginx(tmp_path / "nginx", url, documented("/music/")) as site,
    ):
        port = site.rsplit(":", 1)[1]
        search = {"url": f"{site}/music/v1/search", "json": {"text": "piano", "k": 3}}
        own = {"Host": f"music.test:{port}", "Origin": f"http://music.test:{port}"}
        hits = httpx.post(**search, headers=own)
        assert len(ids(hits.json())) == 3
        assert {hit["audio_url"] for hit in hits.json()["hits"] if hit["audio_url"]} <= {
            f"/music/v1/tracks/{quote(hit['track_id'], safe='')}/audio" for hit in hits.json()["hits"]
        }
        check_error(httpx.post(**search, headers=own | {"Origin": "http://evil.test"}), 403, "forbidden", "other sites")
