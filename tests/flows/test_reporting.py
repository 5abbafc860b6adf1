"""What commands print of an answer."""

import pytest
from typer.testing import CliRunner

from flows.cli import reporting, stages
from flows.cli.app import app

HIT = {"track_id": "t1", "title": "One", "labels": ["pitch:low"], "score": 0.5, "match": 0.9}
ANSWER = {
    "no_good_match": False,
    "timing_ms": {"total": 20.0, "encode": 10.0, "search": 5.0},
    "release": {"model_version": "7", "collection": "tracks_7_d"},
}


@pytest.mark.parametrize(("start_s", "end_s", "shown"), [(65.0, 75.5, "1:05-1:15"), (None, None, None)])
def test_a_hit_shows_the_window_where_the_index_keeps_windows(start_s, end_s, shown, capfd):
    reporting.show_hits("low", ANSWER | {"hits": [HIT | {"start_s": start_s, "end_s": end_s}]})
    out = "".join(capfd.readouterr())
    assert "t1" in out and "90%" in out and "version" not in out
    assert (shown in out and "where" in out) if shown else "where" not in out


@pytest.mark.parametrize("passed", [True, False])
def test_a_run_ends_with_the_gates_word_and_its_reasons(passed, monkeypatch, capfd):
    """What stands last is seen: a table of times below it would hide why nothing was promoted."""
    gate = {"version": "3", "passed": passed, "reasons": ["floor: auc is 0.5 [not 0.6]"], "notes": ["silence: told"]}
    about = {"title": "own", "counts": {"test_tracks": 12}}
    report = {"set": about, "metrics": {"auc": 0.5}, "intervals": {}, "chance": {}, "notes": []}
    result = {"evaluate": report, "register": gate, "stages": {"train": 1.0}, "seconds": 2.0}
    result["index"] = {"edits": {"added": 2, "deleted": 0, "superseded": [], "left": []}}
    monkeypatch.setattr(stages, "run_flow", lambda *_, **__: dict(result))
    done = CliRunner().invoke(app, ["run", "--manifest", "tracks.csv"])
    assert done.exit_code == 1 - passed
    *_, verdict, reason, note = "".join(capfd.readouterr()).strip().splitlines() or done.output.strip().splitlines()
    assert verdict == f"gate: version 3 {'passed' if passed else 'is refused'}"
    assert (reason.strip(), note.strip()) == (gate["reasons"][0], gate["notes"][0])
