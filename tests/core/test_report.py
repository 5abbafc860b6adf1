"""Reports for readers: Markdown, JSON, the ablation's tables. The page has its own tests."""

import json
import math
from pathlib import Path

import pytest
from report_fixtures import make_evidence, make_report

from mulan_core.evaluation.report import PAPER, ROWS, ablation_table, to_json, to_markdown, write_report


def test_markdown_shows_every_metric_beside_chance_with_its_interval() -> None:
    text = to_markdown(make_report())
    assert "| genre ROC-AUC | **0.810** | 0.760 to 0.860 | 0.500 |" in text
    assert text.index("## Zero-shot tagging\n") < text.index("held-out combinations alone") < text.index("Linear probe")
    for shown in ("made up", "`0123456789abcdef`", "90 test tracks", "`{} music`", "- even", "200 bootstrap"):
        assert shown in text
    assert "Class mood:Sad music skipped" in text
    assert text.count(" | 0.500 |\n") == len(make_report()["metrics"])


def test_texts_of_users_do_not_break_tables() -> None:
    text = to_markdown(make_report())
    assert "| night jazz \\| slow <script>alert(1)</script> | 4 |" in text
    assert "| genre | Drum \\| <bass> | 9 |" in text
    for line in text.splitlines():
        if line.startswith("| genre | "):
            assert line.replace("\\|", "").count("|") == 9


def test_json_holds_everything_and_no_nan() -> None:
    report = make_report()
    assert json.loads(to_json(report)) == report
    report["metrics"]["tagging/genre/roc_auc"] = math.nan
    with pytest.raises(ValueError, match="JSON"):
        to_json(report)


def test_write_report_writes_one_page_beside_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    paths = write_report(make_report(), make_evidence(), folder)
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html", "tables.json"]
    assert json.loads(paths[0].read_text(encoding="utf-8")) == make_report()
    tables = json.loads(paths[3].read_text(encoding="utf-8"))["tables"]
    assert [table["heading"][:7] for table in tables] == ["Table 4", "Table 5", "Table 6"]
    unlike = make_report() | {"metrics": {"tagging/held_out/genre/roc_auc": 0.6}}
    assert len(write_report(unlike, make_evidence(), folder)) == 3
    assert not (folder / "tables.json").exists()


def test_ablation_table_has_the_rows_and_the_paper_s_values() -> None:
    rows = [
        {"name": name, "metrics": {"tagging/genre/roc_auc": 0.6 + i / 100, "retrieval/title/map": 0.2 - i / 100}}
        for i, name in enumerate(ROWS)
    ]
    rows[0]["intervals"] = {"tagging/genre/roc_auc": [0.55, 0.65]}
    del rows[1]["metrics"]["retrieval/title/map"]
    text = ablation_table(rows)
    assert "| ASET | 0.600 (0.550-0.650) | *0.886* |" in text
    assert "| all, SF/LF unfiltered | **0.640** | *0.845* |" in text
    assert "| ASET | **0.200** | *0.005* |" in text
    assert "| ASET + SF | - | *0.089* |" in text
    assert "*paper: Gen-25*" in text
    assert "triplets" not in text  # no row has the metric
    assert "compare the order of the rows" in text
    assert set(PAPER) == set(ROWS)


def test_markdown_has_the_paper_s_tables_with_our_row_first() -> None:
    text = to_markdown(make_report())
    assert "### Table 4: music tagging, ROC-AUC" in text
    assert "| **made by hand, zero-shot** | **0.810** (0.760-0.860) | - | - | - | - |" in text
    assert "| *M-Resnet-50, zero-shot* | - | *0.840* | *0.899* | *0.782* | *0.772* |" in text
    assert text.index("made by hand, probe") < text.index("M-AST, zero-shot")


def test_ablation_table_takes_rows_the_paper_has_not() -> None:
    text = ablation_table([{"name": "mine", "metrics": {"triplets/playlist/accuracy": 0.7}}])
    assert "| mine | **0.700** | - |" in text
    assert ablation_table([]) == "No row has a metric.\n"
