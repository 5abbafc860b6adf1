"""Answers cut off on the wire: a retry reports what the first request did, and nothing is done twice."""

import asyncio
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from cut_wire import BEFORE, cut_wire
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from serving_fixtures import NUM_TRACKS, SERVE, check_error, run_bare, tone, wav

from mulan_core.errors import UserError
from serving import repeats
from serving.app import create_api
from serving.client import MulanClient
from serving.errors import StoreUnavailableError
from serving.query_log import QueryLog, read_query_log
from serving.query_log_export import to_playlists
from serving.repeats import FirstAnswers, alone_at
from serving.service import Service

pytestmark = pytest.mark.slow

AUDIO = wav(tone(50, 0.6))
CUTS = [BEFORE, "nothing", "head", "body"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log")


@pytest.fixture(scope="module")
def endpoint(service, log):
    with run_bare(create_api(service, SERVE, query_log=QueryLog(log, "full"))) as url:
        yield url


@pytest.fixture(scope="module")
def wire(endpoint):
    with cut_wire(endpoint) as (url, wire):
        wire.url = url
        yield wire


@pytest.fixture
def client(wire):
    """A client whose answers come through the wire."""
    wire.plan.clear()
    with MulanClient(wire.url) as client:
        yield client


@pytest.fixture
def other(endpoint):
    """Somebody else, whose answers arrive."""
    with MulanClient(endpoint) as client:
        yield client


@pytest.fixture(autouse=True)
def _as_before(other):
    yield
    for track_id in ("x", "y"):
        try:
            other.delete_track(track_id)
        except UserError:
            continue
    assert other.release()["num_tracks"] == NUM_TRACKS


@pytest.mark.parametrize("plan", [[cut] for cut in CUTS] + [["body", "nothing", BEFORE]], ids=str)
def test_what_was_done_is_reported_whatever_was_cut(wire, client, other, log, plan):
    for replaced in (False, True):
        wire.plan[:] = plan
        added = client.add_track("x", AUDIO, title="X")
        assert added["replaced"] is replaced and added["track"]["title"] == "X"
        assert not wire.plan
    wire.plan[:] = plan
    assert client.delete_track("x")["deleted"] == "x"
    with pytest.raises(UserError, match="there is no track x"):
        other.track("x")
    wire.plan[:] = plan
    with pytest.raises(UserError, match="there is no track x"):
        client.delete_track("x")
    wire.plan[:] = plan
    found = client.search_text("piano", k=3)
    assert found["hits"] == other.search_text("piano", k=3)["hits"]
    wire.plan[:] = plan
    client.feedback(found["request_id"], found["hits"][0]["track_id"])
    rows, counts = to_playlists(line for line in read_query_log(log) if line["request_id"] == found["request_id"])
    assert (counts["choices"], counts["used"], len(rows)) == (1, 1, 1)


def test_the_retry_of_an_add_does_not_undo_somebodys_delete(wire, client, other):
    """Add, its answer lost; somebody deletes; the retry says what was done, and adds nothing."""
    deleted = threading.Event()

    def cut(request):
        wire.exchange = whole
        answer = whole(request)
        assert b"200 OK" in answer
        other.delete_track("x")
        deleted.set()
        return b""

    whole, wire.exchange = wire.exchange, cut
    try:
        assert client.add_track("x", AUDIO)["replaced"] is False
    finally:
        wire.exchange = whole
    assert deleted.is_set()
    with pytest.raises(UserError, match="there is no track"):
        other.track("x")


@pytest.mark.parametrize("was_there", [True, False])
def test_the_retry_of_a_delete_does_not_take_what_came_since(wire, client, other, was_there):
    """Delete, its answer lost; somebody adds the track anew; the retry leaves that one alone."""
    if was_there:
        other.add_track("x", AUDIO)

    def cut(request):
        wire.exchange = whole
        whole(request)
        other.add_track("x", AUDIO, title="of somebody else")
        return b""

    whole, wire.exchange = wire.exchange, cut
    if was_there:
        assert client.delete_track("x")["deleted"] == "x"
    else:
        with pytest.raises(UserError, match="there is no track x"):
            client.delete_track("x")
    assert other.track("x")["track"]["title"] == "of somebody else"


def test_an_endpoint_that_never_answers_a_write_leaves_it_open(wire, client):
    wire.plan[:] = ["nothing"] * 9
    with pytest.raises(UserError, match=r"hangs up: .*; whether it was done is not known"):
        client.add_track("x", AUDIO)
    wire.plan[:] = [BEFORE] * 9
    with pytest.raises(UserError, match="hangs up") as error:
        client.search_text("x")
    assert "known" not in str(error.value)


def send(endpoint, key, *, track_id="x", audio=AUDIO, **fields):
    headers = {"Idempotency-Key": key} if key else {}
    data = {"track_id": track_id} | fields
    return httpx.post(f"{endpoint}/v1/tracks", files={"audio": audio}, data=data, headers=headers, timeout=30)


def test_a_replay_is_the_first_answer_and_says_so(endpoint):
    first, again = send(endpoint, "k1"), send(endpoint, "k1")
    assert first.status_code == 200 and first.json() == again.json()
    assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
    assert first.json()["replaced"] is False and send(endpoint, "k2").json()["replaced"] is True
    assert send(endpoint, None).json()["replaced"] is True
    for other in ({"title": "other"}, {"audio": wav(tone(51, 0.6))}, {"track_id": "y"}):
        check_error(send(endpoint, "k1", **other), 422, "invalid", "this Idempotency-Key was used for another request")
    check_error(send(endpoint, "k" * 256), 422, "invalid", "idempotency-key: ")


def test_a_key_is_of_one_write_alone(endpoint):
    """Another track's delete is not answered with the first one's result, nor done; nor is an add's key a delete's."""

    def delete(track_id, key):
        return httpx.delete(f"{endpoint}/v1/tracks/{track_id}", headers={"Idempotency-Key": key})

    for track_id in ("x", "y"):
        send(endpoint, f"added {track_id}", track_id=track_id)
    check_error(delete("x", "added x"), 422, "invalid", "this Idempotency-Key was used for another request")
    assert [delete("x", "gone").json()["deleted"] for _ in range(2)] == ["x", "x"]
    check_error(delete("y", "gone"), 422, "invalid", "this Idempotency-Key was used for another request")
    check_error(send(endpoint, "gone"), 422, "invalid", "this Idempotency-Key was used for another request")
    assert delete("y", "gone too").json()["deleted"] == "y"
    for _ in range(2):
        check_error(delete("y", "missing"), 404, "not_found", "there is no track y")
    check_error(delete("x", "missing"), 422, "invalid", "this Idempotency-Key was used for another request")


def test_refusals_that_did_nothing_are_not_kept(endpoint):
    check_error(send(endpoint, "k3", audio=b"no audio"), 422, "audio_undecodable")
    check_error(send(endpoint, "k3", labels="["), 422, "invalid")
    assert send(endpoint, "k3").json()["replaced"] is False


def test_who_comes_while_the_first_is_at_work_waits_for_it(endpoint, service, monkeypatch):
    """Five at once with one key: one write, one answer. The real store, made slow."""
    written, upsert = [], service._store.upsert

    def slow(*args, **options):
        time.sleep(0.5)
        written.append(args)
        return upsert(*args, **options)

    monkeypatch.setattr(service._store, "upsert", slow)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: send(endpoint, "k4"), range(5)))
    assert len(written) == 1
    assert [one.json() for one in answers] == [answers[0].json()] * 5
    assert sum("idempotency-replayed" in one.headers for one in answers) == 4


def test_of_writes_at_once_each_finds_what_the_one_before_left(release, store, edits, endpoint):
    """Deletes and adds of one track through two replicas, with own keys or none: one is the first."""
    shared = FirstAnswers()
    services = [Service(release, store, edits=edits, media_root=None, max_audio_s=SERVE.max_audio_s) for _ in range(2)]
    replicas = itertools.cycle([create_api(service, SERVE, answers=shared) for service in services])

    async def next_one(scope, receive, send):
        await next(replicas)(scope, receive, send)

    with run_bare(next_one) as both, ThreadPoolExecutor(6) as pool:

        def delete(n):
            headers = {"Idempotency-Key": f"own {n}"} if n % 2 else {}
            return httpx.delete(f"{both}/v1/tracks/x", headers=headers, timeout=30).status_code

        for i in range(3):
            send(endpoint, None)
            assert sorted(pool.map(delete, range(10 * i, 10 * i + 6))) == [200, *[404] * 5]
        added = list(pool.map(lambda _: send(both, None).json()["replaced"], range(4)))
        assert sorted(added) == [False, True, True, True]


@pytest.mark.parametrize("write, place", [("upsert", "before"), ("upsert", "after"), ("delete", "after")])
def test_a_store_that_fails_over_a_write_changes_no_report(monkeypatch, endpoint, service, write, place):
    """Milvus is lost once, before or after it did the write: the retry still says what was there at first."""

    def delete(key):
        return httpx.delete(f"{endpoint}/v1/tracks/x", headers={"Idempotency-Key": key})

    if write == "delete":
        send(endpoint, None)
    real, failed = getattr(service._store, write), []

    def once(*args, **options):
        if failed:
            return real(*args, **options)
        failed.append(True)
        if place == "after":
            real(*args, **options)
        raise StoreUnavailableError("Milvus is away")

    monkeypatch.setattr(service._store, write, once)
    ask, key = delete if write == "delete" else lambda key: send(endpoint, key), f"{write} {place}"
    check_error(ask(key), 503, "unavailable", "away")
    answer = ask(key).json()
    assert answer.get("deleted") == "x" if write == "delete" else answer["replaced"] is False


def test_a_caller_who_hangs_up_finds_the_answer_later(endpoint, service, monkeypatch):
    upsert = service._store.upsert

    def slow(*args, **options):
        time.sleep(1)
        return upsert(*args, **options)

    monkeypatch.setattr(service._store, "upsert", slow)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{endpoint}/v1/tracks",
            files={"audio": AUDIO},
            data={"track_id": "x"},
            headers={"Idempotency-Key": "k5"},
            timeout=0.5,
        )
    again = send(endpoint, "k5")
    assert again.json()["replaced"] is False and again.headers["idempotency-replayed"] == "true"


class Writes(RuleBasedStateMachine):
    """Two people add and delete two tracks; wires break where they like. The model is a set."""

    endpoint = wire = None

    def __init__(self):
        super().__init__()
        self.wire.plan.clear()
        self.there = set()
        self.people = [MulanClient(self.wire.url), MulanClient(self.endpoint)]

    cuts = st.lists(st.sampled_from(CUTS), max_size=3)
    who = st.integers(0, 1)
    which = st.sampled_from(["x", "y"])

    @rule(who=who, track_id=which, cuts=cuts)
    def add(self, who, track_id, cuts):
        self.wire.plan[:] = cuts if who == 0 else []
        assert self.people[who].add_track(track_id, AUDIO)["replaced"] is (track_id in self.there)
        self.there.add(track_id)

    @rule(who=who, track_id=which, cuts=cuts)
    def delete(self, who, track_id, cuts):
        self.wire.plan[:] = cuts if who == 0 else []
        if track_id in self.there:
            assert self.people[who].delete_track(track_id)["deleted"] == track_id
            self.there.remove(track_id)
        else:
            with pytest.raises(UserError, match="there is no track"):
                self.people[who].delete_track(track_id)

    @invariant()
    def as_many_as_there_are(self):
        assert self.people[1].release()["num_tracks"] == NUM_TRACKS + len(self.there)

    def teardown(self):
        for track_id in self.there:
            self.people[1].delete_track(track_id)
        for client in self.people:
            client.close()


def test_two_people_and_breaking_wires(endpoint, wire):
    Writes.endpoint, Writes.wire = endpoint, wire
    checks = settings(max_examples=4, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Writes, settings=checks)


async def take(answers, key, content, known):
    """Its turn's token, with what it must know."""
    claimed = await answers.claim(key, content)
    token = claimed.pop("token")
    assert claimed == {"turn": "mine", "known": known}
    return token


def test_who_comes_back_after_its_lease_ends_nobody_elses_turn():
    async def play():
        answers = FirstAnswers(lease_s=0.1)
        late = await take(answers, "a", "1", {})
        own = await take(answers, "a", "1", {})  # the lease has ended by then
        await answers.note("a", late, {"was_there": False})
        await answers.keep("a", late, {"body": b"late"})
        await answers.give_up("a", late)
        await answers.note("a", own, {"was_there": True})
        await answers.give_up("a", late)
        assert (await answers.claim("a", "2"))["turn"] == "other", "it was not given up"
        last = await take(answers, "a", "1", {"was_there": True})
        await answers.keep("a", last, {"body": b"last"})
        await answers.keep("a", own, {"body": b"own"})
        assert (await answers.claim("a", "1"))["kept"] == {"body": b"last"}

    asyncio.run(play())


@pytest.mark.parametrize("fails", [False, True])
def test_a_write_that_outlives_its_lease_lets_go_of_its_own_turn_alone(fails):
    async def play():
        answers = FirstAnswers(lease_s=0.1)

        async def write():
            async with alone_at(answers, "x"):
                await asyncio.sleep(0.3)
                if fails:
                    raise ValueError

        slow = asyncio.create_task(write())
        await asyncio.sleep(0.15)
        answers._lease_s = 60
        async with alone_at(answers, "x"):
            await asyncio.wait([slow])
            third = asyncio.create_task(answers.claim(json.dumps(["write", "x"]), ""))
            await asyncio.sleep(0.1)
            assert not third.done(), "the second one is at work"
        assert (await third)["turn"] == "mine" and (slow.exception() is not None) is fails

    asyncio.run(play())


def test_keys_are_each_callers_own_and_forgotten_in_time():
    async def play():
        answers = FirstAnswers(keep_s=0.3, lease_s=0.1, most=2)
        token = await take(answers, "a", "1", {})
        await answers.keep("a", token, {"body": b"A"})
        await answers.keep("a", token, {"body": b"late"})
        assert await answers.claim("a", "1") == {"turn": "answered", "kept": {"body": b"A"}}
        assert await answers.claim("a", "2") == {"turn": "other"}
        await asyncio.sleep(0.3)
        await answers.note("a", await take(answers, "a", "2", {}), {"was_there": True})
        # Its process dies: after the lease another one goes on with what it knew.
        await answers.give_up("a", await take(answers, "a", "2", {"was_there": True}))
        await take(answers, "a", "2", {"was_there": True})
        for key in ("b", "c"):
            await answers.keep(key, await take(answers, key, "1", {}), {"body": b"x"})
        await take(answers, "a", "3", {})  # the oldest went first
        assert answers._num_bytes <= 2
        big = {"body": bytes(repeats.MAX_BYTES // 2 + 1)}
        for key in ("d", "e"):
            await answers.keep(key, await take(answers, key, "1", {}), big)
        assert answers._num_bytes <= repeats.MAX_BYTES

    asyncio.run(play())


def test_replicas_share_first_answers(release, store, edits):
    """Two replicas, each with a service of its own; what one answered, the other knows."""
    shared = FirstAnswers()
    services = [Service(release, store, edits=edits, media_root=None, max_audio_s=SERVE.max_audio_s) for _ in range(2)]
    with run_bare(create_api(services[0], SERVE, answers=shared)) as one:
        first = send(one, "k6")
    with run_bare(create_api(services[1], SERVE, answers=shared)) as two:
        again = send(two, "k6")
        assert again.headers["idempotency-replayed"] == "true" and again.json() == first.json()
        assert httpx.delete(f"{two}/v1/tracks/x").status_code == 200
