"""What commands print of an answer."""

import pytest

from flows.cli import reporting

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
