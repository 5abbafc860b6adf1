"""Statistics of texts: the counts of the paper's Table 2, reasons, samples."""

import json
import random

import pytest

from mulan_core.errors import UserError
from mulan_core.text.statistics import (
    NUM_SAMPLES,
    TextStatistics,
    count_words,
    read_report,
    to_markdown,
    write_report,
)


def text(source, text, drop=None):
    return {"source": source, "text": text, "drop": drop}


TRACKS = [
    [text("sf", "sad piano"), text("sf", "2019", "number"), text("sf", "x.com", "url"), text("pl", "for rainy days")],
    [
        text("sf", "jazz"),
        text("sf", "2020", "number"),
        text("lf", "slow piano over a pad"),
        text("lf", "lol", "too_short"),
    ],
    [],
    [text("lf", "first comment here", "not_about_music")],
]


def statistics(tracks):
    counted = TextStatistics(count_words, tokens="words")
    for one in tracks:
        counted.add([one])
    return counted.report()


def test_tokens_and_annotations_are_counted_over_all_tracks():
    report = statistics(TRACKS)
    assert report["tracks"] == 4
    sf, lf = report["sources"]["sf"], report["sources"]["lf"]
    assert sf["before"] == {"texts": 5, "tokens": 6, "per_track": 1.25}
    assert sf["after"] == {"texts": 2, "tokens": 3, "per_track": 0.5}
    assert sf["reasons"] == {"number": 2, "url": 1}
    assert lf["before"] == {"texts": 3, "tokens": 9, "per_track": 0.75}
    assert lf["after"]["tokens"] == 5
    assert report["sources"]["pl"]["before"] == report["sources"]["pl"]["after"]
    assert "aset" not in report["sources"]


def test_the_report_does_not_depend_on_order_or_batches():
    tracks = [[text("sf", f"tag {i}", "url" if i % 3 else None)] for i in range(200)]
    shuffled = random.Random(0).sample(tracks, len(tracks))
    whole = TextStatistics(count_words, tokens="words")
    whole.add(tracks)
    assert statistics(shuffled) == statistics(tracks) == whole.report()
    sample = whole.report()["sources"]["sf"]
    assert len(sample["kept"]) == len(sample["dropped"]) == NUM_SAMPLES
    assert {one["reason"] for one in sample["dropped"]} == {"url"}
    assert sample["kept"] != [{"text": f"tag {i}"} for i in range(0, 15, 3)]  # drawn, not the first


def test_a_repeated_text_is_one_sample():
    report = statistics([[text("sf", "jazz")]] * 9)
    assert report["sources"]["sf"]["kept"] == [{"text": "jazz"}]


def test_markdown_holds_the_table_the_reasons_and_plain_samples(tmp_path):
    tracks = [*TRACKS, [text("sf", "a|b *c*\n<d>", "boilerplate")]]
    markdown = to_markdown(statistics(tracks))
    assert "| SF | 9 | 1.20 | 3 | 0.40 | 1.5 |" in markdown
    assert "| LF | 9 | 0.60 | 5 | 0.20 | 5.0 |" in markdown
    assert "| number | 2 | 33.3 % | digits, dates, years, file names, codes |" in markdown
    assert r"- a\|b \*c\* \<d\> *boilerplate*" in markdown
    assert "- sad piano\n" in markdown
    write_report(tmp_path, statistics(tracks))
    assert (tmp_path / "report.md").read_text() == markdown
    assert read_report(tmp_path) == json.loads(json.dumps(statistics(tracks)))
    with pytest.raises(UserError, match="run `mulan prepare` first"):
        read_report(tmp_path / "nowhere")
