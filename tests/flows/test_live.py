"""What is live: one truth at the end of each switch, wherever it is cut off, and no edit lost on the way."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from live_fixtures import *  # noqa: F403 - its fixtures
from live_fixtures import WEIGHTS, Home, Killed, Steps

from flows.runtime.journal import FILE, read_journal
from mulan_core.errors import UserError
from serving.tracks import ADDED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHANGED = {"new": 5, "t1": 6}
"""What was added over the API, by its tone; t2 was deleted."""
SAID = {"t0": 0, "t1": 6, "new": 5}


@pytest.fixture
def edited(home):
    """The home after edits, when nothing is served any more."""
    home.endpoint.deploy(home.registry.release("1"))
    for track_id, seed in CHANGED.items():
        home.add(track_id, seed)
    home.delete("t2")
    home.endpoint.service = None
    return home


@pytest.mark.parametrize("version", ["2", "3"])
def test_a_switch_brings_the_edits_along_and_back(edited, version):
    done = edited.go_over(version)
    assert done == {"url": None, "edits": {"added": 2, "deleted": 1, "superseded": [], "left": []}}
    assert edited.check() == version and edited.heard(edited.store.collections.live_collection()) == SAID
    assert edited.go_over("1", ["1"], start=True)["url"] == "http://here"
    assert edited.check() == "1" and edited.registry.champions() == ["1"]
    edited.add("newer", 7)
    edited.go_over(version)
    assert edited.endpoint.version() == edited.check() == version
    assert edited.heard(edited.store.collections.live_collection()) == SAID | {"newer": 7}


SWITCHES = {"the same weights": ("2", ["1", "2"]), "other weights": ("3", ["1", "3"]), "back": ("1", ["1"])}


@pytest.mark.parametrize("served", [True, False], ids=["served", "not served"])
@pytest.mark.parametrize("which", SWITCHES)
def test_a_switch_that_is_cut_off_at_any_step_is_ended_by_the_next_command(edited, which, served, monkeypatch, capfd):
    version, champions = SWITCHES[which]
    first = ("3", ["1", "3"]) if which == "back" else ("1", ["1"])
    steps, ends = Steps(monkeypatch), {}
    for number in itertools.count(1):
        edited.go_over(*first, start=served)
        edited.store.delete(edited.registry.find(version).tag("collection"), list(CHANGED))  # as many steps each time
        capfd.readouterr()
        steps.end_at(number)
        try:
            edited.live().go_over(edited.registry.release(version), champions)
        except Killed as killed:
            cut_at = str(killed)
        else:
            break
        steps.end_at(0)
        answers, began = edited.endpoint.version(), read_journal(edited.state) is not None
        edited.live().recover()
        said = capfd.readouterr().err
        assert said.count("\n") == began, said
        assert edited.check() in (version, first[0]) and edited.endpoint.version() == answers
        assert edited.registry.champions() == (champions if edited.check() == version else first[1])
        assert edited.heard(edited.store.collections.live_collection()) == SAID
        ends.setdefault(edited.check(), []).append(cut_at)
    assert edited.check() == version and len(steps.said) == number - 1
    assert set(ends) == {version, first[0]}, "some are taken back, some go on"
    assert "before deploy" in ends[first[0]] if served else "after switch_alias" in ends[version]
    assert not served or "after deploy" in ends[version]


@pytest.mark.parametrize("served", [True, False], ids=["served", "not served"])
def test_a_switch_that_fails_at_any_step_leaves_all_as_it_was_or_says_what_follows(edited, served, monkeypatch, capfd):
    steps, followed = Steps(monkeypatch), []
    for number in itertools.count(1):
        edited.go_over("1", ["1"], start=served)
        steps.end_at(number, UserError)
        try:
            edited.live().go_over(edited.registry.release("2"), ["1", "2"])
        except UserError as error:
            said = str(error)
        else:
            break
        steps.end_at(0)
        if not said.endswith("has the rest follow"):
            if (edited.state / FILE).exists():  # it failed when the journal was written, or removed
                assert "journal" in said
                edited.live().recover()
            assert edited.check() == ("2" if "remove_journal" in said else "1")
        else:
            assert edited.endpoint.version() == "2"
            edited.live().recover()
            assert edited.check() == "2"
            followed.append(said.partition(";")[0])
        assert edited.heard(edited.store.collections.live_collection()) == SAID
    assert edited.check() == "2"
    assert ("after deploy" in followed and "before deploy" not in followed) if served else not followed
    capfd.readouterr()


def test_what_was_added_without_its_audio_goes_along_under_the_same_weights_alone(edited):
    """By a version of MuLan that kept none."""
    of_old = {"track_id": "of old", "vector": edited.models["a"].vector(8), "dataset": "added", "content_hash": ADDED}
    edited.store.upsert(edited.store.collections.live_collection(), [of_old])
    assert edited.go_over("2")["edits"] == {"added": 3, "deleted": 1, "superseded": [], "left": []}
    assert edited.heard(edited.store.collections.live_collection()) == SAID | {"of old": 8}
    assert edited.go_over("3")["edits"] == {"added": 2, "deleted": 1, "superseded": [], "left": ["of old"]}
    assert edited.heard(edited.store.collections.live_collection()) == SAID
    assert edited.go_over("2", ["1", "2"])["edits"]["added"] == 3, "the collection before still has it"


def test_a_collection_that_stands_is_put_right(edited):
    """By its content, whatever has become of it; the API's word stays."""
    name = edited.store.collections.live_collection()
    stranger = {"track_id": "stranger", "vector": edited.models["a"].vector(8), "dataset": "d", "content_hash": "ff"}
    edited.store.upsert(name, [stranger, stranger | {"track_id": "t0"}])
    edited.edits.forget("t2")
    assert edited.heard(name) == SAID | {"stranger": 8, "t0": 8}
    assert edited.build("1", {"t0": 0, "t1": 1, "t2": 2}) == name
    assert edited.heard(name) == SAID | {"t2": 2}
    edited.edits.forget("t1")
    edited.edits.forget("new")
    edited.build("1", {"t0": 0, "t1": 1, "t2": 2})
    edited.go_over("1")
    assert edited.heard(name) == {"t0": 0, "t1": 1, "t2": 2}


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("built", ["before", "meanwhile"])
def test_what_is_taken_back_is_right_in_each_release(edited, version, built):
    """A rollback indexes nothing: the release before has its rows again all the same, under whichever weights."""
    if built == "meanwhile":  # it never had the row of t2
        edited.store.collections.drop(edited.registry.find(version).tag("collection"))
        edited.build(version, {"t0": 0, "t1": 1, "t2": 2})
    edited.go_over(version)
    for track_id in (*CHANGED, "t2"):
        assert edited.edits.forget(track_id)
    for champions in (["1"], ["1", version]):
        edited.go_over(champions[-1], champions)
        assert edited.heard(edited.store.collections.live_collection()) == {"t0": 0, "t1": 1, "t2": 2}


def test_a_deletion_of_what_no_catalogue_had_keeps_no_later_row_out(edited):
    edited.endpoint.deploy(edited.registry.release("1"))
    edited.delete("new")
    assert edited.edits.get("new").kind == "deleted"
    edited.store.collections.drop(edited.registry.find("2").tag("collection"))
    edited.build("2", {"t0": 0, "t2": 2, "new": 9})
    assert edited.go_over("2")["edits"] == {"added": 1, "deleted": 1, "superseded": ["new"], "left": []}
    assert edited.heard(edited.store.collections.live_collection()) == {"t0": 0, "t1": 6, "new": 9}


def test_what_is_refused_changes_nothing(edited):
    edited.store.collections.drop(edited.registry.find("2").tag("collection"))
    with pytest.raises(
        UserError, match=r"the collection tracks_2_dddddddd of version 2 is gone; `mulan index --model 2`"
    ):
        edited.go_over("2")
    assert edited.check() == "1"
    refused = edited.registry.release("3")
    wrong = type(refused)(**refused.to_dict() | {"data_hash": "e" * 32})
    with pytest.raises(UserError, match="does not fit together"):
        edited.live().go_over(wrong, ["1", "3"])
    assert edited.check() == "1"


def test_a_first_release_that_is_cut_off_leaves_none(home, monkeypatch):
    home.registry.name_champions([])
    home.store.collections.drop_alias()
    steps = Steps(monkeypatch)
    steps.end_at(3)
    with pytest.raises(Killed):
        home.go_over("2")
    steps.end_at(0)
    home.live().recover()
    assert home.registry.champions() == [] and home.store.collections.live_collection() is None


def test_a_collection_that_is_gone_does_not_stop_the_next_command(home, monkeypatch):
    steps = Steps(monkeypatch)
    home.go_over("1", start=True)
    said = []
    for number in itertools.count(1):
        steps.end_at(number)
        try:
            home.go_over("2")
        except Killed as killed:
            said.append(str(killed))
            if said[-1] == "after deploy":
                break
    steps.end_at(0)
    collection = home.registry.find("2").tag("collection")
    home.store.collections.drop(collection)
    home.live().recover()
    assert home.registry.champions() == ["1", "2"] and home.store.collections.live_collection() is None
    assert read_journal(home.state) is None


def journal_with(**after):
    standing = {"champions": ["1"], "collection": None}
    return json.dumps({"before": standing, "after": standing | after, "process": 1, "since": "now"})


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"before": 1, "after": 2}', '{"before": {}}'),
        *(journal_with(champions=champions) for champions in ({"1": 1}, {}, [], "1", [1], None)),
        *(journal_with(collection=1), journal_with(of=1)),
    ],
)
def test_a_damaged_journal_is_one_sentence(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(UserError, match=r"switch.json cannot be read .* delete it, and promote the release that is to"):
        read_journal(tmp_path)


def test_no_edit_is_lost_whatever_is_done(tmp_path_factory, models, registered, monkeypatch):
    """A plain model beside it: what each release has of the catalogue, and over it the API's last word on a track.

    The API's word gives way where a release was built after it, of a row of the catalogue that is another than the one
    which it took the place of; not a deletion of such a row. Where it is taken back, each release has its own row.
    """
    steps = Steps(monkeypatch)

    class Machine(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            steps.end_at(0)
            self.home = Home(tmp_path_factory.mktemp("home"), models, registered)
            self.catalogue, self.seeds = {"t0": 0, "t1": 1, "t2": 2}, itertools.cycle(range(3, 12))
            self.built, self.words, self.now = {}, {}, 0
            for version in WEIGHTS:
                self._build(version)
            self.home.go_over("1", start=True)

        def _build(self, version):
            self.now += 1
            self.home.build(version, self.catalogue)
            stands = self.built.get(version)
            self.built[version] = (stands[0] if stands else self.now, dict(self.catalogue))

        def _word(self, track_id, seed):
            self.now += 1
            live = self.home.check()
            shown = self._found(live).get(track_id)
            own = self.built[live][1].get(track_id)
            _, _, replaced = self.words.get(track_id, (0, None, None))
            is_own = self._rules(live, track_id) is None and shown == own
            self.words[track_id] = (self.now, seed, own if is_own and own is not None else replaced)

        def _rules(self, version, track_id):
            """The API's word on a track, where it counts in a release."""
            if track_id not in self.words:
                return None
            at, seed, replaced = word = self.words[track_id]
            built, rows = self.built[version]
            may_give_way = seed is not None or replaced is None  # a deletion stays, but of what no catalogue had
            gives_way = may_give_way and track_id in rows and rows[track_id] != replaced and built > at
            return None if gives_way else word

        def _found(self, version):
            found = dict(self.built[version][1])
            for track_id in self.words:
                if word := self._rules(version, track_id):
                    found[track_id] = word[1]
            return {track_id: seed for track_id, seed in found.items() if seed is not None}

        @rule(track_id=st.sampled_from(["t0", "t1", "x", "y"]))
        def add(self, track_id):
            seed = next(self.seeds)
            self._word(track_id, seed)
            self.home.add(track_id, seed)

        @rule(track_id=st.sampled_from(["t0", "t2", "x"]))
        def delete(self, track_id):
            if track_id in self._found(self.home.check()):
                self._word(track_id, None)
                assert self.home.delete(track_id)

        @rule(track_id=st.sampled_from(["t0", "t1", "t2", "x"]))
        def take_back(self, track_id):
            assert self.home.edits.forget(track_id) is (self.words.pop(track_id, None) is not None)
            self.restart()

        @rule(version=st.sampled_from(list(WEIGHTS)))
        def index_again(self, version):
            """Of the same data: its collection stands."""
            self._build_as_it_was(version)
            self.home.go_over(version)

        def _build_as_it_was(self, version):
            self.home.build(version, self.built[version][1])

        @rule(version=st.sampled_from(list(WEIGHTS)), track_id=st.sampled_from(["t0", "t1", "x"]))
        def index_changed(self, version, track_id):
            """Of a catalogue that has changed: its collection is another, built now."""
            if version == self.home.check():
                return
            self.catalogue = self.catalogue | {track_id: next(self.seeds)}
            self.home.store.collections.drop(self.home.registry.find(version).tag("collection"))
            del self.built[version]
            self._build(version)
            self.home.go_over(version)

        @rule()
        def roll_back(self):
            champions = self.home.registry.champions()
            if len(champions) > 1:
                self.home.go_over(champions[-2], champions[:-1])

        @rule()
        def restart(self):
            self.home.endpoint.service = None
            self.home.go_over(self.home.check(), self.home.registry.champions(), start=True)

        @rule(version=st.sampled_from(list(WEIGHTS)), number=st.integers(1, 30))
        def die(self, version, number):
            steps.end_at(number)
            try:
                self.home.go_over(version)
            except Killed:
                pass
            finally:
                steps.end_at(0)
            self.home.live().recover()

        @invariant()
        def all_agree_and_nothing_is_lost(self):
            live = self.home.check()
            assert self.home.endpoint.version() == live
            assert self.home.heard(self.home.store.collections.live_collection()) == self._found(live)

        def teardown(self):
            self.home.store.close()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
