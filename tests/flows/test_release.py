"""Releases through the real command: the same model over changed data, promoted, compared, rolled back, pruned."""

import json

import pyarrow.parquet as pq
import pytest
import soundfile
from flow_fixtures import CATALOGUE, mulan, result_of
from prepared_fixtures import tone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def changed(home, first):
    """The same home with one track more, one less, one of another title and one of other audio; the file as it was."""
    manifest = home / "tones.jsonl"
    before = manifest.read_text()
    rows = [json.loads(line) for line in before.splitlines()]
    rows = [row for row in rows if row.get("track_id") not in ("t3", None)]
    rows[0]["title"] = "Another title"
    soundfile.write(home / "new.wav", tone("low", "smooth", seed=99), 16_000)
    soundfile.write(home / "other.wav", tone("high", "smooth", seed=98), 16_000)
    rows[1]["uri"] = "other.wav"
    rows.append(rows[2] | {"track_id": "new", "uri": "new.wav", "title": "New"})
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    yield before
    manifest.write_text(before)


@pytest.fixture(scope="module")
def second(home, changed):
    """The champion's weights over the changed catalogue, built and not promoted."""
    result_of(mulan("prepare", *CATALOGUE, "--json", home=home))
    command = ("index", *CATALOGUE, "--model", "champion", "--no-promote", "--json")
    return result_of(mulan(*command, home=home))


def test_the_same_model_over_changed_data_is_a_version_of_its_own(home, first, second):
    assert second["version"] != first["register"]["version"]
    assert second["collection"] != first["index"]["collection"]
    assert second["changes"] == {"new": 1, "changed": 2, "removed": 1, "unchanged": 57}
    assert (second["count"], second["built"], second["promoted"]) == (60, True, False)
    parts = list((home / "embeddings").glob("*/part-*.parquet"))
    counts = sorted(pq.read_metadata(path).num_rows for path in parts)
    assert sum(counts) == 60 + 2, "only the new and the changed audio was embedded"
