"""The search page as people use it: in a real browser, against the real endpoint."""

import json
import time
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from chromium import CHROMIUM, run_chromium
from serving_fixtures import NUM_TRACKS, SERVE, run_bare, tone, wav

from serving.app import create_api
from serving.edits import Edits
from serving.keys import KeyFile
from serving.query_log import QueryLog, read_query_log
from serving.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]

HITS = "document.querySelectorAll('.hit').length"
MARKUP = '<img src=/nothing onerror="document.title=\'broken\'"><script>document.title="broken"</script>'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with run_chromium(tmp_path_factory.mktemp("chromium")) as page:
        page.resize(1100, 860)
        yield page


@pytest.fixture
def page(browser, bare):
    """The page, freshly opened, which must leave no error and ask nobody else."""
    home = str(bare.base_url)
    browser.requests.clear()
    browser.errors.clear()
    browser.home = home
    browser.open(f"{home}/")
    browser.wait("document.querySelectorAll('#labels .chip').length == 3")
    yield browser
    assert browser.errors == []
    assert [url for _, url in browser.requests if not url.startswith((home, f"blob:{home}"))] == []


def ask(page, text):
    """Type a query and press Enter; waits for its hits."""
    page.value("document.querySelector('#query').value = ''")
    page.click("#query")
    page.type(text)
    page.press("Enter")
    page.wait("document.querySelector('#status').textContent.includes(' ms (')")


def first(page, part=""):
    """The text of the first hit, or of a part of it."""
    return page.value(f"document.querySelector('.hit {part}').textContent")


def like(page, title):
    """Wait until the tracks like one are shown."""
    page.wait(f"[...document.querySelectorAll('#asked .chip')].some(c => c.textContent.includes({json.dumps(title)}))")
    page.wait(f"{HITS} == {NUM_TRACKS - 1} && !document.querySelector('#results.busy')")


def test_type_play_more_like_this_and_tags(page, release):
    ask(page, "calm piano")
    assert page.value(HITS) == NUM_TRACKS
    assert release.collection in page.value("document.querySelector('#release').textContent")
    assert page.value("location.search") == "?q=calm+piano"

    playable = ".hit:has(.play:enabled)"
    title = page.value(f"document.querySelector('{playable} strong').textContent")
    page.click(f"{playable} .play")
    page.wait("document.querySelector('#audio').currentTime > 0.1")
    assert page.value("document.querySelector('#now-title').textContent") == title
    painted = "new Set(document.querySelector('#wave').getContext('2d').getImageData(0, 10, 300, 1).data).size > 4"
    page.wait(painted)
    page.click(f"{playable} .play")
    assert page.value("document.querySelector('#audio').paused")

    page.click(f"{playable} .tagger")
    page.wait("document.querySelectorAll('.tagview li').length == 3")

    page.click(f"{playable} .more")
    like(page, title)
    page.value("history.back()")
    page.wait(f"{HITS} == {NUM_TRACKS} && document.querySelector('#query').value == 'calm piano'")


def test_filters_and_words_to_be_away_from(page):
    ask(page, "music")
    page.click("#labels summary")
    page.click("#labels .chip[data-label='genre:Reggae']")
    page.wait(f"{HITS} == 4")
    page.click("#not")
    page.type("loud")
    page.press("Enter")
    page.wait("location.search.includes('not=loud') && !document.querySelector('#results.busy')")
    page.click("#asked .chip")
    page.wait(f"{HITS} == {NUM_TRACKS}")
    sent = [url for method, url in page.requests if method == "POST"]
    assert len(sent) == 4, "one search for each change"


def test_a_dropped_file_is_searched(page, catalogue):
    page.upload("#file", catalogue.folder / "5.ogg")
    page.wait(f"{HITS} == {NUM_TRACKS}")
    assert first(page, "strong") == catalogue.rows["song-5"]["title"]
    assert "5.ogg" in page.value("document.querySelector('#asked').textContent")


def test_a_hit_plays_from_the_window_that_fits_best(page):
    ask(page, "drums")
    row = ".hit:has(.play:enabled)"
    start, end = (int(at[-1]) for at in page.value(f"document.querySelector('{row} .window').textContent").split("–"))
    assert (start, end) in ((0, 2), (1, 3))
    page.click(f"{row} .play")
    page.wait(f"document.querySelector('#audio').currentTime > {start}")
    # The row above the bars, which only the mark of the window reaches.
    alpha = "(c => c.getContext('2d').getImageData({} * c.width, 1, 1, 1).data[3])(document.querySelector('#wave'))"
    page.wait(alpha.format(0.5))
    marked = [page.value(alpha.format(at)) > 0 for at in (0.1, 0.9)]
    assert marked == [start == 0, start == 1]


def test_keys_alone_are_enough(page):
    page.value("document.activeElement.blur()")
    page.press("/")
    page.type("drums")
    page.press("Enter")
    page.wait(f"{HITS} == {NUM_TRACKS}")
    title = first(page, "strong")
    page.press("ArrowDown", "t")
    page.wait("document.querySelectorAll('.tagview li').length == 3")
    page.press("Escape")
    assert page.value("document.querySelectorAll('.tagview').length") == 0
    page.press("Enter")
    like(page, title)
    page.press("/")
    assert page.value("document.activeElement.id") == "query"
    page.press("ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp")
    assert page.value("document.activeElement.id") == "query"


def test_a_title_with_markup_stays_text(page, bare):
    audio = wav(tone(99))
    fields = {"track_id": MARKUP, "title": MARKUP, "artist": MARKUP, "labels": json.dumps([f"genre:{MARKUP}"])}
    assert bare.post("/v1/tracks", files={"audio": audio}, data=fields).status_code == 200
    try:
        ask(page, "anything")
        shown = f"[...document.querySelectorAll('.hit strong')].filter(e => e.textContent == {json.dumps(MARKUP)})"
        assert page.value(f"{shown}.length") == 1
        page.value(f"{shown}[0].closest('.hit').querySelector('.more').click()")
        page.wait(f"document.querySelector('#asked').textContent.includes({json.dumps(MARKUP)})")
        assert page.value("document.querySelectorAll('main img, main script').length") == 0
        assert page.value("document.title") != "broken"
    finally:
        assert bare.delete(f"/v1/tracks/{quote(MARKUP, safe='')}").status_code == 200


ODD_LABELS = ['say "it"', "it's", "<b>bold</b>", "R&amp;B", "a\xa0b", "a\u200db", "x:\u202ey", "e\u0301", "a|b;c\\"]


def test_odd_names_are_shown_and_filtered_by(page, bare):
    odd = '<b>&amp;</b> "q" a\xa0b \u202eabc \ufeff%2F'
    fields = {"track_id": f"{odd}/é?#", "title": odd, "artist": odd, "labels": json.dumps(ODD_LABELS[:8])}
    assert bare.post("/v1/tracks", files={"audio": wav(tone(98))}, data=fields).status_code == 200
    fields |= {"track_id": "other", "labels": json.dumps(ODD_LABELS[8:])}
    assert bare.post("/v1/tracks", files={"audio": wav(tone(97))}, data=fields).status_code == 200
    try:
        for label in ODD_LABELS:
            page.open(f"{page.home}/?{urlencode({'q': 'music', 'label': label})}")
            page.wait(f"{HITS} == 1 && !document.querySelector('#results.busy')")
            assert first(page, "strong") == odd
            assert page.value("document.querySelector('#asked .chip').getAttribute('aria-label')").endswith(label)
        page.open(f"{page.home}/?q=music")
        page.wait(f"{HITS} == {NUM_TRACKS + 2}")
        row = f"[...document.querySelectorAll('.hit')].find(e => e.hit.track_id == {json.dumps(odd + '/é?#')})"
        for place, label in enumerate(ODD_LABELS[:8]):
            page.value(f"{row}.querySelectorAll('.tags .chip')[{place}].click()")
            page.wait(f"{HITS} == 1 && !document.querySelector('#results.busy')")
            assert page.value("[...new URLSearchParams(location.search).getAll('label')]") == [label]
            page.click("#asked .chip")
            page.wait(f"{HITS} == {NUM_TRACKS + 2} && !document.querySelector('#results.busy')")
        page.value(f"{row}.querySelector('.tagger').click()")
        page.wait("document.querySelectorAll('.tagview li').length == 3")
        page.value(f"{row}.querySelector('.more').click()")
        page.wait(f"{HITS} == {NUM_TRACKS + 1} && !document.querySelector('#results.busy')")
        assert page.value("document.querySelectorAll('main b').length") == 0
    finally:
        for track_id in (f"{odd}/é?#", "other"):
            assert bare.delete(f"/v1/tracks/{quote(track_id, safe='')}").status_code == 200


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (np.zeros(32_000), "Nothing can be heard in this file."),
        (tone(1, 0.1), "This file is too short to tell anything from."),
    ],
)
def test_what_cannot_be_heard_is_said_in_words(browser, bare, tmp_path, wave, words):
    (tmp_path / "x.wav").write_bytes(wav(wave))
    browser.open(f"{bare.base_url}/")
    browser.upload("#file", tmp_path / "x.wav")
    browser.wait("document.querySelector('#status').className == 'error'")
    assert browser.value("document.querySelector('#status').textContent") == words


def test_a_silent_microphone_is_asked_about(browser, bare):
    browser.open(f"{bare.base_url}/")
    browser.value(  # a real recording, of a stream that carries nothing
        "navigator.mediaDevices.getUserMedia = async () => { const c = new AudioContext(); await c.resume();"
        " const to = c.createMediaStreamDestination(), none = new ConstantSourceNode(c, {offset: 0});"
        " none.connect(to); none.start(); return to.stream }; 0"
    )
    browser.click("#record")
    browser.wait("document.querySelector('#status').textContent.startsWith('Listening')")
    time.sleep(1.5)
    browser.click("#record")
    browser.wait("document.querySelector('#status').className == 'error'")
    words = browser.value("document.querySelector('#status').textContent")
    assert words == "Nothing was heard. Is the microphone on?"


def test_a_label_that_nothing_can_have_is_said_in_words(browser, bare):
    browser.open(f"{bare.base_url}/?q=x&label=a%00b")
    browser.wait("document.querySelector('#status').className == 'error'")
    assert browser.value("document.querySelector('#status').textContent").startswith("There is no such label.")


def test_the_map_plays_what_is_clicked(page, bare):
    points = bare.get("/v1/map").json()
    assert len(points["points"]) == NUM_TRACKS and points["facet"] == "genre"
    assert max(point["x"] ** 2 + point["y"] ** 2 for point in points["points"]) == pytest.approx(1, abs=1e-3)
    page.click("#to-map")
    page.wait("document.querySelectorAll('#legend .chip').length == 2")
    # The farthest one that plays lies alone.
    point = max((p for p in points["points"] if p["audio_url"]), key=lambda p: p["x"] ** 2 + p["y"] ** 2)
    left, top, width, height = page.value(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelector('#chart').getBoundingClientRect())"
    )
    unit = min(width, height) / 2.15
    page.click_at(left + width / 2 + point["x"] * unit, top + height / 2 - point["y"] * unit)
    page.wait("!document.querySelector('#player').hidden")
    assert page.value("document.querySelector('#now-title').textContent") == point["title"]
    page.value("document.querySelector('#chart').focus()")
    page.press("ArrowLeft", "ArrowRight")
    page.click("#map-card .link")
    page.wait(f"{HITS} == {NUM_TRACKS - 1} && !location.hash")


def test_a_phone_needs_no_sideways_scrolling(page):
    page.resize(390, 844, is_phone=True)
    try:
        ask(page, "calm piano")
        page.click("#labels summary")
        for view in ("#to-map", "#to-search"):
            page.click(view)
            assert page.value("document.documentElement.scrollWidth") == 390
    finally:
        page.resize(1100, 860)


@pytest.mark.parametrize("name", ["jazz-2", "", MARKUP])
def test_the_catalogue_that_is_served_is_named(browser, service, monkeypatch, name):
    monkeypatch.setattr(service, "catalogue", name)
    with run_bare(create_api(service, SERVE)) as url:
        browser.open(f"{url}/")
        browser.wait("document.querySelectorAll('#labels .chip').length == 3")
        assert browser.value("document.title") == (f"{name} · " if name else "") + "MuLan: search music by meaning"
        assert browser.value("document.querySelector('h1').textContent").strip() == f"MuLan {name}".strip()
        assert browser.value("document.querySelectorAll('h1 script, h1 span img').length") == 0


def test_no_good_match_is_said(browser, told_apart, store, tmp_path):
    service = Service(told_apart, store, edits=Edits(tmp_path), media_root=None, max_audio_s=SERVE.max_audio_s)
    with run_bare(create_api(service, SERVE)) as url:
        for text, is_bad in (("income tax return form", True), ("jazz piano", False)):
            browser.open(f"{url}/?q={text.replace(' ', '+')}")
            browser.wait(f"{HITS} == 20")
            assert browser.value("!document.querySelector('#verdict').hidden") is is_bad
            assert ("match" in first(browser, ".fit")) is not is_bad
        browser.click("#next")
        browser.wait(f"{HITS} == 40")


def test_a_key_is_asked_for_and_clicks_reach_the_query_log(browser, service, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    key, _ = keys.create("page", "read")
    log = QueryLog(tmp_path / "queries", "full")
    with run_bare(create_api(service, SERVE, keys, query_log=log)) as url:
        browser.open(f"{url}/")
        for given, asked in (("wrong", "asks for an API key"), (key, "not in use")):
            browser.wait(f"document.querySelector('#key').open && "
                         f"document.querySelector('#key-words').textContent.includes('{asked}')")  # fmt: skip
            browser.click("#key-value")
            browser.type(given)
            browser.press("Enter")
        browser.wait("document.querySelectorAll('#labels .chip').length == 3")
        ask(browser, "calm piano")
        browser.click(".hit:has(.play:enabled) .play")
        browser.wait("document.querySelector('#audio').currentTime > 0.1")
        assert browser.value("document.querySelector('#audio').src").startswith("blob:")
        browser.wait("performance.getEntriesByName(location.origin + '/v1/feedback').length == 1")
        chosen = browser.value("document.querySelector('.hit.playing').dataset.id")
    assert [line["track_id"] for line in read_query_log(tmp_path / "queries") if line["kind"] == "feedback"] == [chosen]


def test_while_the_script_has_not_run_the_page_says_so(browser, bare):
    """Without JavaScript, or with one module that does not arrive; and /docs, whose scripts come from elsewhere."""
    shown = (
        "document.querySelector('#no-script')?.checkVisibility() && document.querySelector('#no-script').textContent"
    )
    home = f"{bare.base_url}/".replace("//", "/").replace(":/", "://", 1)
    for hinder, allow in (
        (
            ("Emulation.setScriptExecutionDisabled", {"value": True}),
            ("Emulation.setScriptExecutionDisabled", {"value": False}),
        ),
        (("Network.setBlockedURLs", {"urls": ["*/page/map.js"]}), ("Network.setBlockedURLs", {"urls": []})),
    ):
        browser.send(hinder[0], **hinder[1])
        try:
            browser.open(home)
            assert "works by a script, which has not run" in browser.value(shown)
            assert "reload" in browser.value(shown)
        finally:
            browser.send(allow[0], **allow[1])
        browser.open(home)
        browser.wait("document.querySelectorAll('#labels .chip').length == 3")
        assert browser.value("document.querySelector('#no-script')") is None
    browser.send("Network.setBlockedURLs", urls=["https://*"])
    try:
        browser.open(f"{home}docs")
        assert "have not run" in browser.value("document.body.textContent")
        assert browser.value("document.querySelector('#swagger-ui a').href") == f"{home}openapi.json"
    finally:
        browser.send("Network.setBlockedURLs", urls=[])
