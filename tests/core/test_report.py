"""Reports for readers: Markdown, JSON, pictures, the ablation's tables."""

import io
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from mulan_core.evaluation.plots import classes_png, overview_png, retrieval_png
from mulan_core.evaluation.report import PAPER, ROWS, ablation_table, to_json, to_markdown, write_report


def make_report() -> dict[str, Any]:
    metrics = {
        "tagging/genre/roc_auc": 0.81,
        "tagging/genre/pr_auc": 0.41,
        "tagging/held_out/genre/roc_auc": 0.61,
        "probe/genre/roc_auc": 0.91,
        "retrieval/title/auc": 0.77,
        "retrieval/title/map": 0.33,
        "triplets/playlist/accuracy": 0.88,
    }
    return {
        "set": {
            "name": "made up",
            "hash": "0123456789abcdef" * 4,
            "counts": {"test_tracks": 90, "playlists": 2},
            "protocol": {"templates": ["{} music"], "window_policy": "even", "bootstrap": 200, "seed": 0},
        },
        "metrics": metrics,
        "intervals": {name: [value - 0.05, value + 0.05] for name, value in metrics.items()},
        "chance": dict.fromkeys(metrics, 0.5),
        "per_class": [
            {
                "label": f"genre:{name}",
                "facet": "genre",
                "text": name,
                "tracks": "test",
                "positives": 9,
                "negatives": 81,
                "roc_auc": auc,
                "roc_auc_interval": [auc - 0.1, min(1.0, auc + 0.1)],
                "pr_auc": 0.3,
                "pr_auc_interval": None,
                "chance_pr_auc": 0.12,
                "probe_roc_auc": 0.9,
            }
            for name, auc in (("Jazz", 0.9), ("Drum | bass", 0.3))
        ],
        "per_query": [
            {
                "query_set": "title",
                "playlist_id": f"p{i}",
                "query": "night\njazz | slow",
                "relevant": 4,
                "auc": 0.8,
                "ap": 0.2 + i / 10,
                "recall_at_10": 0.5,
                "best_rank": 2.5,
                "top": [
                    {"track_id": "t1", "score": 0.5, "relevant": True},
                    {"track_id": "t2", "score": 0.4, "relevant": False},
                ],
            }
            for i in range(2)
        ],
        "notes": ["Class mood:Sad music skipped: no track has it."],
    }


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
    assert "| night jazz \\| slow | 4 |" in text
    assert "| genre | Drum \\| bass | 9 |" in text
    for line in text.splitlines():
        if line.startswith("| genre | "):
            assert line.replace("\\|", "").count("|") == 9


def test_json_holds_everything_and_no_nan() -> None:
    report = make_report()
    assert json.loads(to_json(report)) == report
    report["metrics"]["tagging/genre/roc_auc"] = math.nan
    with pytest.raises(ValueError, match="JSON"):
        to_json(report)


def test_write_report_writes_readable_files(tmp_path: Path) -> None:
    paths = write_report(make_report(), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.json", "report.md", "overview.png", "classes.png", "retrieval.png"]
    for path in paths[2:]:
        pixels = image.imread(path)
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 0.02  # something is drawn
        assert f"({path.name})" in paths[1].read_text(encoding="utf-8")
    bare = make_report() | {"per_class": [], "per_query": []}
    bare["metrics"] = {"triplets/playlist/accuracy": 0.9}
    paths = write_report(bare, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.json", "report.md", "overview.png"]
    assert not (tmp_path / "new" / "folder" / "classes.png").exists()


def test_pictures_move_with_their_numbers_and_are_none_without() -> None:
    report = make_report()
    better = json.loads(json.dumps(report))
    better["metrics"]["tagging/genre/roc_auc"] = 0.99
    better["metrics"]["retrieval/title/map"] = 0.6
    better["per_class"][0]["roc_auc"] = 0.95
    for draw in (overview_png, classes_png, retrieval_png):
        assert draw(report) == draw(report)
        assert draw(report) != draw(better)
        assert draw(report | {"metrics": {}, "per_class": [], "per_query": []}) is None


def test_pictures_can_be_drawn_in_threads() -> None:
    expected = classes_png(make_report())
    drawn: list[bytes | None] = []
    threads = [threading.Thread(target=lambda: drawn.append(classes_png(make_report()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [expected] * 3


def test_a_large_class_list_stays_a_picture() -> None:
    report = make_report()
    row = report["per_class"][0]
    report["per_class"] = [
        row | {"text": f"class {i} with a rather long name to cut", "roc_auc": i / 200} for i in range(200)
    ]
    pixels = image.imread(io.BytesIO(classes_png(report) or b""))
    assert np.prod(pixels.shape[:2]) < 2e7


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


def test_ablation_table_takes_rows_the_paper_has_not() -> None:
    text = ablation_table([{"name": "mine", "metrics": {"triplets/playlist/accuracy": 0.7}}])
    assert "| mine | **0.700** | - |" in text
    assert ablation_table([]) == "No row has a metric.\n"
