"""The page of a report: well-formed, self-contained, true to the report, safe against texts of users."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_fixtures import make_evidence, make_report
from sklearn.metrics import precision_recall_curve

from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.page import to_html
from mulan_core.evaluation.page.numbers import (
    BINS,
    MAX_POINTS,
    RECALLS,
    histogram,
    interpolated_precision,
    principal_plane,
    query_histogram,
)
from mulan_core.evaluation.paper import TABLE_4, TABLE_5, TABLE_6, paper_tables, paper_value
from mulan_core.evaluation.report import to_markdown, write_evaluation, write_report

PAPER = Path(__file__).resolve().parents[3] / "shared" / "docs" / "PAPER.md"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that every element is closed, and keeps tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.headings: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.text += f" {data}"


def nothing_of(evidence: Evidence) -> Evidence:
    """The evidence of texts alone."""
    return replace(
        evidence,
        track_ids=(),
        tracks_ND=evidence.tracks_ND[:0],
        classes=(),
        positives_NC=np.zeros((0, 0), dtype=bool),
        class_text_C=np.zeros(0, dtype=np.int64),
        query_sets=(),
        query_ids=(),
        query_text_Q=np.zeros(0, dtype=np.int64),
        relevant=(),
    )


def test_the_page_is_well_formed_and_asks_nothing_of_anybody() -> None:
    html = to_html(make_report(), make_evidence())
    page = Page(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form", "a"}
    assert not {name for name, _ in page.attributes} & {"src", "href", "xlink:href", "srcset"}
    assert not re.search(r"url\(|@import|https?:|//[a-z]", html)
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    assert html == to_html(make_report(), make_evidence())


def test_every_number_of_the_report_is_on_the_page() -> None:
    report = make_report()
    text = Page(to_html(report, make_evidence())).text
    shown = [*report["metrics"].values(), *report["chance"].values()]
    shown += [bound for interval in report["intervals"].values() for bound in interval]
    shown += [row["roc_auc"] for row in report["per_class"]]
    shown += [row[key] for row in report["per_query"] for key in ("ap", "auc")]
    shown += [hit["score"] for row in report["per_query"] for hit in row["top"]]
    for value in shown:
        assert f"{value:.3f}" in text
    for words in ("two genres", "test of what is made up", "d" * 32, report["set"]["hash"], "{} music", "even", "abc"):
        assert words in text
    assert "mood:Sad music (no track has it)" in text and report["notes"][0] in text
    better = json.loads(json.dumps(report))
    better["metrics"]["tagging/genre/roc_auc"] = 0.853
    assert Page(to_html(better, make_evidence())).text.count("0.853") == text.count("0.810")


def test_texts_of_users_stay_text() -> None:
    report = make_report()
    report["notes"].append("<b>bold</b>")
    report["set"]["model"]["name"] = '"><script>x</script>'
    evidence = replace(make_evidence(), track_ids=("t<0>", *make_evidence().track_ids[1:]))
    html = to_html(report, evidence)
    assert "script" not in Page(html).tags
    for raw in ("<b>bold", "<script>", "<bass>", "<made>", "t<0>"):
        assert raw not in html
    assert "Drum | &lt;bass&gt;" in html and "t&lt;0&gt;" in html


def test_empty_sections_do_not_appear() -> None:
    full = Page(to_html(make_report(), make_evidence())).headings
    assert full == [
        "Beside the paper",
        "Classes",
        "Precision and recall",
        "Scores",
        "Hardest queries",
        "Map of the tracks",
        "All metrics",
        "How it was measured",
    ]
    bare = make_report() | {"per_class": [], "per_query": [], "notes": []}
    bare["metrics"] = {"triplets/playlist/accuracy": 0.9}
    page = Page(to_html(bare, nothing_of(make_evidence())))
    assert page.headings == ["Beside the paper", "Scores", "All metrics", "How it was measured"]
    assert "Table 6" in page.text and "Table 4" not in page.text and "Notes" not in page.text


def test_the_verdict_names_what_is_not_above_chance() -> None:
    report = make_report()
    report["intervals"]["retrieval/title/auc"] = [0.45, 0.9]
    text = Page(to_html(report, make_evidence())).text
    assert "2 of 3 main measures are clearly above chance; not: Search by title." in text
    assert text.count("not above chance") == 1


@pytest.mark.parametrize("rounded", [False, True])
def test_interpolated_precision_is_scikit_learn_s_curve_from_above(rounded: bool) -> None:
    generator = np.random.default_rng(3)
    scores_N, positives_N = generator.standard_normal(200), generator.random(200) < 0.2
    scores_N = scores_N.round(1) if rounded else scores_N
    precision, recall, _ = precision_recall_curve(positives_N, scores_N)
    found = positives_N.sum()
    # scikit-learn ends its curve with a made-up precision of 1 at recall 0.
    expected = [precision[:-1][np.round(recall[:-1] * found) >= np.ceil(round(r * found, 9))].max() for r in RECALLS]
    assert interpolated_precision(scores_N, positives_N) == pytest.approx(expected, abs=1e-9)


def test_histograms_share_bins_and_add_up_to_one() -> None:
    counted = histogram(np.array([0.2, 0.9]), np.array([-0.5, 0.1, 0.2, 0.3]))
    assert counted is not None
    assert (counted.low, counted.high, counted.num_right, counted.num_wrong) == (-0.5, 0.9, 2, 4)
    assert counted.right_B.sum() == counted.wrong_B.sum() == 1.0
    assert len(counted.right_B) == BINS and counted.right_B[-1] == 0.5
    assert histogram(np.zeros(0), np.ones(3)) is None
    of_queries = query_histogram(make_evidence(), "title")
    assert of_queries is not None and (of_queries.num_right, of_queries.num_wrong) == (8, 2 * 90 - 8)


def test_the_map_is_the_first_two_principal_components() -> None:
    tracks_ND = make_evidence().tracks_ND
    points_N2, share = principal_plane(tracks_ND)
    centred_ND = tracks_ND.astype(np.float64) - tracks_ND.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred_ND, compute_uv=False)
    assert np.linalg.norm(points_N2, axis=0) == pytest.approx(values[:2], rel=1e-6)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-6)
    assert principal_plane(np.ones((5, 4), np.float32))[1] == 0.0


def test_a_large_set_keeps_the_page_small() -> None:
    evidence = make_evidence(tracks=20_000)
    html = to_html(make_report(), evidence)
    assert html.count('<circle class="c') + html.count('<circle class="other') == MAX_POINTS
    assert f"{MAX_POINTS} of 20,000 test tracks" in html
    assert len(html) < 400_000


def test_a_set_of_the_paper_fills_its_column() -> None:
    report = make_report()
    report["set"]["name"] = "magnatagatune-top50-minz"
    report["metrics"] = {"tagging/tag/roc_auc": 0.75, "probe/tag/roc_auc": 0.9}
    report["intervals"] = {}
    (table,) = paper_tables([report])
    assert table.columns == ("MTAT Top-50", "Gen-25", "Mu-141", "MTAT All-188")
    ours = {row.name: [cell and cell.value for cell in row.cells] for row in table.rows if not row.is_paper}
    assert ours == {
        "made by hand, zero-shot": [0.75, None, None, None],
        "made by hand, probe": [0.9, None, None, None],
    }
    assert paper_value(report, "tagging/tag/roc_auc") == (0.782, "MTAT Top-50")
    assert paper_value(report, "probe/tag/roc_auc") == (0.927, "MTAT Top-50")
    assert paper_value(make_report(), "tagging/genre/roc_auc") == (0.840, "Gen-25")
    assert paper_value(make_report(), "tagging/mood/roc_auc") is None
    both = paper_tables([report, json.loads(json.dumps(report).replace("-minz", ""))])
    assert both[0].columns[:3] == ("MTAT Top-50", "tag, magnatagatune-top50", "Gen-25")


def test_several_sets_have_one_page_that_leads_to_theirs(tmp_path: Path) -> None:
    report, texts = make_report(), make_report()
    report["set"]["suites"] = texts["set"]["suites"] = ["tagging", "triplets"]
    texts["set"] |= {"name": "ontology-triplets", "title": "Ontology"}
    texts |= {"metrics": {"triplets/ontology/accuracy": 0.937}, "per_class": [], "per_query": []}
    write_report(report, make_evidence(), tmp_path / "made up")
    result = {"model": {"name": "a <model>"}, "sets": {"made up": report, "ontology-triplets": texts}, "notes": []}
    write_evaluation(result, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8")) == result
    page = Page((tmp_path / "evaluation.html").read_text(encoding="utf-8"))
    assert [value for name, value in page.attributes if name == "href"] == ["made up/report.html"]
    assert "a <model>" in page.text and page.text.count("0.937") == 2
    table_6 = paper_tables(list(result["sets"].values()))[2]
    assert table_6.columns == TABLE_6.columns
    assert [cell and cell.value for cell in table_6.rows[0].cells] == [0.88, 0.937]


@pytest.mark.skipif(not PAPER.exists(), reason="the notes on the paper are not there")
def test_the_paper_s_numbers_are_those_of_the_notes() -> None:
    notes = PAPER.read_text(encoding="utf-8").partition("## 7. Results")[2].partition("\n## ")[0]
    lines = [line.replace("*", "") for line in notes.splitlines() if line.startswith("|")]
    expected = sorted(number for line in lines for number in re.findall(r"(?<!\d)\.\d{3}", line))
    values = [value for table in (TABLE_4, TABLE_5, TABLE_6) for row in table.rows.values() for value in row]
    assert sorted(f"{value:.3f}"[1:] for value in values if value is not None) == expected


def test_behaviour_and_cost_are_shown_where_they_were_measured() -> None:
    report = make_report() | {
        "behaviour": {
            "silence": {"share": 0.0142, "chance": 0.036, "queries": 573, "clips": 1, "first_hits": 10},
            "negation": {"below": 0.66, "roc_auc": 0.123, "chance": 0.5, "classes": 33},
        },
        "cost": {"encode_ms_text": 33.51, "runs": 9, "parameters": 22_939_057, "machine": "a <desk>"},
        "slices": [
            {"kind": "source", "name": "lf", "metric": "text auc", "value": 0.9671, "items": 217},
            {"kind": "class", "name": "genre:Jazz", "metric": "roc_auc", "value": 0.9, "items": 9},
        ],
    }
    page = Page(to_html(report, make_evidence()))
    assert "Behaviour and cost" in page.headings
    for text in (" ".join(page.text.split()), to_markdown(report)):
        for said in ("in 1.4 % of 573 queries", "3.6 %", "on 66 % of the tracks", "0.123", "33.5 ms", "22,939,057"):
            assert said in text
        assert "a <desk>" in text and "text auc 0.967 (217)" in text and "noise among" not in text
    assert "Behaviour" not in to_markdown(make_report())
