"""Searches of several parts, pages, and what a score is said to be worth."""

import asyncio
import json

import numpy as np
import pytest
from serving_fixtures import SERVE, check_error, ids

from serving.calibration import Calibration, Curve, calibrate
from serving.drift import QueryDrift
from serving.edits import Edits
from serving.service import Part, Service
from serving.timing import Timing

pytestmark = pytest.mark.slow

REAL = [
    "piano",
    "calm piano music",
    "heavy metal",
    "a happy reggae song",
    "flute",
    "sad violin",
    "techno",
    "jazz trumpet",
]
NONSENSE = [
    "qwx zzgh plov",
    "income tax return form",
    "404 not found",
    "kernel panic",
    "SELECT * FROM users",
    "asdf jkl",
]


def search(client, **asked):
    response = client.post("/v1/search", json=asked)
    assert response.status_code == 200, response.text
    return response.json()


def exact(catalogue, query_D, *, without=()):
    query_D = query_D / np.linalg.norm(query_D)
    scores = {i: float(v @ query_D) for i, v in catalogue.vectors.items() if i not in without}
    return sorted(scores, key=scores.get, reverse=True)


def test_several_queries_are_a_weighted_sum(bare, catalogue, encode):
    piano, sad, loud = encode("piano", "sad", "loud")
    asked = [{"text": "piano"}, {"text": "sad", "weight": -0.8}, {"track_id": "song-3", "weight": 2}]
    answer = search(bare, queries=asked, negative_text="loud", k=12)
    query = piano - 0.8 * sad + 2 * catalogue.vectors["song-3"] - 0.5 * loud
    assert ids(answer) == exact(catalogue, query, without=["song-3"])
    assert ids(search(bare, text="piano", negative_text="sad")) == ids(
        search(bare, queries=[{"text": "piano"}, {"text": "sad", "weight": -0.5}])
    )


def test_an_upload_and_words_are_one_query(bare, catalogue, encode):
    data = (catalogue.folder / "4.ogg").read_bytes()
    form = {"k": "12", "weight": "0.5", "queries": json.dumps([{"text": "calm", "weight": 3}, {"track_id": "song-2"}])}
    answer = bare.post("/v1/search", files={"audio": data}, data=form).json()
    query = 0.5 * catalogue.vectors["song-4"] + 3 * encode("calm")[0] + catalogue.vectors["song-2"]
    assert ids(answer) == exact(catalogue, query, without=["song-2"])


def test_a_hit_names_the_window_that_fits_best(bare, catalogue, encode):
    hits = search(bare, text="piano", k=6, offset=2)["hits"]
    best = {hit["track_id"]: int(np.argmax(catalogue.windows[hit["track_id"]] @ encode("piano")[0])) for hit in hits}
    assert {hit["track_id"]: (hit["start_s"], hit["end_s"]) for hit in hits} == {
        i: (at, at + 2) for i, at in best.items()
    }


def test_without_windows_a_hit_names_no_window(told_apart, store, tmp_path):
    service, timing = Service(told_apart, store, edits=Edits(tmp_path), media_root=None, max_audio_s=20), Timing()

    async def ask():
        return await service.search(await service.combine([Part(text="piano")], timing), timing, k=1)

    (hit,) = asyncio.run(ask()).hits
    assert (hit["start_s"], hit["end_s"]) == (None, None)


def test_pages_follow_one_another(bare):
    whole = search(bare, track_id="song-1", k=100)
    assert whole["next_offset"] is None and len(ids(whole)) == 11
    pages, offset = [], 0
    while offset is not None:
        page = search(bare, track_id="song-1", k=4, offset=offset)
        pages += ids(page)
        offset = page["next_offset"]
    assert pages == ids(whole)
    assert ids(search(bare, track_id="song-1", offset=900)) == []


@pytest.mark.parametrize("k", [1, 5, 11, 12, 100])
def test_no_more_is_said_when_there_is_no_more(bare, k):
    """Of eleven tracks: no last page is empty, also where the one before it was full."""
    offset, pages = 0, []
    while offset is not None:
        page = search(bare, track_id="song-1", k=k, offset=offset)
        assert page["hits"] and page["has_more"] == (page["next_offset"] is not None)
        pages, offset = [*pages, page], page["next_offset"]
    assert sum(len(page["hits"]) for page in pages) == 11 and len(pages) == -(-11 // k)


def test_the_end_of_paging_is_not_no_more(bare, monkeypatch):
    monkeypatch.setattr("serving.queries.MAX_DEPTH", 10)
    pages = [search(bare, track_id="song-1", k=4, offset=offset) for offset in (0, 4, 8)]
    assert [len(page["hits"]) for page in pages] == [4, 4, 2]
    assert [page["next_offset"] for page in pages] == [4, 8, None]
    assert [page["has_more"] for page in pages] == [True, True, True]
    assert not search(bare, track_id="song-1", k=4, filter={"dataset": "nowhere"})["has_more"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"queries": []}, "queries: .*at least 1"),
        ({"queries": [{"text": "a"}] * 17}, "queries: .*at most 16"),
        ({"queries": [{}]}, "queries.0: give either text or track_id"),
        ({"queries": [{"text": "a", "weight": 11}]}, "queries.0.weight: .*less than or equal to 10"),
        ({"queries": [{"text": "a", "weight": "1e400"}]}, "queries.0.weight"),
        ({"text": "a", "queries": [{"text": "b"}]}, "one of text, track_id and queries"),
        ({"queries": [{"text": "a"}, {"text": "a", "weight": -1}]}, "cancel each other out"),
        ({"queries": [{"text": "a", "weight": 0}]}, "cancel each other out"),
        ({"text": "a", "offset": -1}, "offset: "),
        ({"text": "a", "offset": 1000}, "offset: "),
    ],
)
def test_bad_combinations(bare, asked, words):
    check_error(bare.post("/v1/search", json=asked), 422, "invalid", words)


def test_a_curve_is_the_share_of_fitting_pairs():
    """Pairs drawn from a known curve give it back; the rule for audio is checked pair by pair on a small catalogue."""
    random = np.random.default_rng(0)
    tracks = random.normal(size=(400, 32))
    tracks /= np.linalg.norm(tracks, axis=1, keepdims=True)
    words = random.normal(size=(20, 32))
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    known = Curve(14.0, -2.0)
    names = [f"l{i}" for i in range(20)]
    chances = np.vectorize(known)(tracks @ words.T)
    carries = random.random(chances.shape) < chances
    labels = [[name for name, fits in zip(names, row, strict=True) if fits] for row in carries]
    found = calibrate(tracks, labels, words, names)
    for score in (-0.2, 0.0, 0.2, 0.4):
        assert found.words(score) == pytest.approx(known(score), abs=0.03)
    assert found.match(0.2, {"words"}) == found.words(0.2)
    assert Calibration(Curve(0, 1), Curve(0, -1)).match(0.3, {"words", "audio"}) == Curve(0, -1)(0.3)
    assert Calibration(Curve(0, 1)).match(0.3, {"audio"}) is None
    assert calibrate(tracks, labels, words[:0], []) == Calibration()
    # a model that has it backwards is worth no more than the base rate, whatever the score
    backwards = calibrate(-tracks, labels, words, names)
    assert backwards.words(-1) == pytest.approx(carries.mean(), abs=1e-6) == pytest.approx(backwards.words(1))


async def matches(service, texts):
    found = []
    for text in texts:
        timing = Timing()
        found.append(await service.search(await service.combine([Part(text=text)], timing), timing, k=5))
    return found


@pytest.fixture(scope="module")
def trained(told_apart, store, tmp_path_factory):
    edits = Edits(tmp_path_factory.mktemp("edits"))
    return Service(told_apart, store, edits=edits, media_root=None, max_audio_s=SERVE.max_audio_s)


def test_nonsense_is_flagged_and_real_queries_are_not(trained):
    async def ask():
        return await matches(trained, REAL), await matches(trained, NONSENSE)

    real, nonsense = asyncio.run(ask())
    flagged = [np.mean([found.no_good_match for found in group]) for group in (real, nonsense)]
    assert flagged[0] + 0.3 <= flagged[1], "nonsense is flagged more often"
    best = [[found.hits[0]["match"] for found in group] for group in (real, nonsense)]
    assert np.median(best[0]) > np.median(best[1])
    for found in real + nonsense:
        values = [hit["match"] for hit in found.hits]
        assert values == sorted(values, reverse=True) and 0 <= min(values) <= max(values) <= 1


def test_a_match_is_calibrated(trained, told_apart, store, encode):
    """Of the tracks found for the catalogue's labels, the mean match is about the share that carries the label."""
    labels = trained.collection.labels

    async def ask():
        return await matches(trained, [label.partition(":")[2] for label in labels])

    hits = [(label, hit) for label, found in zip(labels, asyncio.run(ask()), strict=True) for hit in found.hits]
    share = np.mean([label in hit["labels"] for label, hit in hits])
    assert np.mean([hit["match"] for _, hit in hits]) == pytest.approx(share, abs=0.15)


def test_an_answer_without_hits_has_no_good_match(bare):
    answer = search(bare, text="piano", filter={"dataset": "nowhere"})
    assert (answer["hits"], answer["no_good_match"]) == ([], True)


def test_a_catalogue_of_few_tracks_says_that_it_cannot_tell(bare):
    answer = search(bare, track_id="song-1")
    assert {hit["match"] for hit in answer["hits"]} == {None} and answer["no_good_match"] is None


def test_drift_rises_when_people_ask_for_something_else():
    labels = np.eye(4)[:2]
    drift = QueryDrift(labels, window=3)
    assert drift.note(np.eye(4)[0]) == pytest.approx(1 - 0.5**0.5)
    assert drift.note(np.eye(4)[1]) == pytest.approx(0, abs=1e-9)
    values = [drift.note(np.eye(4)[3]) for _ in range(3)]
    assert values == sorted(values) and values[-1] == pytest.approx(1)
