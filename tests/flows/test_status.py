"""``mulan status``: of an empty home, and of one where a champion stands."""

import pytest
from flow_fixtures import mulan, result_of

from flows.cli.find_status import _differences


def test_an_empty_home_has_nothing_and_says_so(tmp_path):
    done = mulan("status", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "none yet" in done.stdout and "nothing answers" in done.stdout


@pytest.mark.slow
def test_runs_and_champion_of_a_home(home, first):
    found = result_of(mulan("status", "--json", home=home))
    assert first["train"]["run_id"] in {run["run_id"] for run in found["runs"]} or len(found["runs"]) == 3
    assert found["champion"]["gate"] == "passed" and found["endpoint"] is None
    assert all(run["step"] for run in found["runs"] if run["status"] == "finished")
    assert "champion   version" in " ".join(mulan("status", home=home).stdout.split("\n"))


CHAMPION = {"version": "2", "gate": "passed", "data_hash": "a" * 8}
REFUSED = {"version": "3", "gate": "refused", "data_hash": "b" * 8}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((CHAMPION, CHAMPION, {"model_version": "2"}, "a" * 32), []),
        ((CHAMPION, None, {"model_version": "1"}, None), ["serves version 1, the champion is 2"]),
        ((CHAMPION, REFUSED, None, None), ["candidate 3 was refused by the gate"]),
        ((CHAMPION, None, None, "c" * 32), ["is not the champion's"]),
        ((None, None, None, None), []),
    ],
)
def test_what_does_not_agree_is_named(state, said):
    found = _differences(*state)
    assert len(found) == len(said) and all(part in sentence for part, sentence in zip(said, found, strict=True))
