"""Two versions of prepared data side by side."""

import pyarrow as pa

from mulan_core.data.changes import compare_versions

TEXT = {"source": "sf", "text": "calm", "drop": None}


def table(*rows):
    plain = {"sha256": "a", "num_samples": 10, "texts": [TEXT], "labels": ["x"], "split": "train"}
    return pa.Table.from_pylist([plain | row for row in rows])


def test_tracks_are_added_removed_and_changed_each_by_what_differs():
    before = table(*({"track_id": name} for name in "abcdefg"))
    after = table(
        {"track_id": "a"},
        {"track_id": "b", "sha256": "other"},
        {"track_id": "c", "texts": [TEXT, {"source": "lf", "text": "Slow.", "drop": None}]},
        {"track_id": "d", "labels": ["y"], "split": "test"},
        {"track_id": "e", "texts": [TEXT | {"drop": "name"}]},
        {"track_id": "f", "num_samples": 9},
        {"track_id": "new"},
    )
    changes = compare_versions(before, after)
    assert changes["added"] == ["new"] and changes["removed"] == ["g"]
    assert changes["changed"] == {
        "b": ["audio"],
        "c": ["texts"],
        "d": ["labels", "split"],
        "e": ["texts"],
        "f": ["clip"],
    }
    assert changes["texts"] == {"lf": {"before": 0, "after": 1}, "sf": {"before": 7, "after": 6}}
    assert changes["splits"] == {"test": {"before": 0, "after": 1}, "train": {"before": 7, "after": 6}}


def test_order_of_rows_texts_and_labels_is_no_change():
    two = [TEXT, {"source": "pl", "text": "Evening", "drop": None}]
    before = table({"track_id": "a", "texts": two, "labels": ["x", "y"]}, {"track_id": "b"})
    after = table({"track_id": "b"}, {"track_id": "a", "texts": two[::-1], "labels": ["y", "x"]})
    assert compare_versions(before, after)["changed"] == {}
