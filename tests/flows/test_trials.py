"""Rows of an ablation and trials of a search, as plain configurations; the tables on a terminal of 80 columns."""

import io
import shutil
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from prepared_fixtures import rows_of, write_prepared
from rich.console import Console

from flows.cli import reporting
from flows.pipeline import ablate, tune
from flows.pipeline.page import as_html
from flows.pipeline.train import run_key
from flows.pipeline.trials import check_metric
from flows.runtime.workspace import Workspace
from mulan_core.config import PAPER_ROWS, AblateRow, Config, from_mapping, to_mapping
from mulan_core.errors import UserError
from mulan_core.evaluation.report import ROWS


def test_runs_of_an_ablation_differ_in_text_and_seed_alone():
    base = from_mapping(Config, {"train": {"seed": 3}, "ablate": {"steps": 7}})
    rows = ablate.rows_of(base)
    assert list(rows) == list(PAPER_ROWS) == list(ROWS)
    trials = ablate.trials_of(base, rows, 2)
    assert [trial.name for trial in trials[:2]] == ["aset, seed 3", "aset+sf, seed 3"]
    assert len({run_key(trial.config, "data") for trial in trials}) == len(trials) == 10
    for trial in trials:
        row, train = rows[trial.tags["mulan.ablation_row"]], trial.config.train
        assert {source for source, weight in train.source_weights.items() if weight > 0} == set(row.sources)
        same = replace(train, source_weights=base.train.source_weights, use_filtered_text=True, seed=3, steps=100_260)
        assert replace(trial.config, train=same) == base
        assert (train.use_filtered_text, train.steps) == (row.filtered, 7)
    assert [trial.config.train.seed for trial in trials] == [3] * 5 + [4] * 5


def test_rows_of_one_s_own():
    own = {"ablate": {"rows": {"all": None, "titles": {"sources": ["sf"], "filtered": False}}}}
    config = from_mapping(Config, own)
    assert ablate.rows_of(config) == {"all": AblateRow(), "titles": AblateRow(sources=("sf",), filtered=False)}
    assert list(ablate.rows_of(config, ["aset", "titles"])) == ["aset", "titles"]
    for names, sentence in (
        (["pl"], "there is no ablation row 'pl'; the rows are aset, aset"),
        (["aset", "aset"], "row aset is asked for twice"),
    ):
        with pytest.raises(UserError, match=sentence):
            ablate.rows_of(config, names)
    for rows, sentence in (
        ({"mine": None}, "'mine', none of the paper's rows"),
        (
            {"mine": {"sources": ["tags"]}},
            r"ablate\.rows\.mine\.sources\[0\] is 'tags'; it must be text that is one of sf, lf",
        ),
        ({"mine": {"sources": []}}, r"ablate\.rows\.mine\.sources is \[\]"),
        ({}, r"ablate\.rows is .*; it must be keys and values of 1 or more"),
    ):
        with pytest.raises(UserError, match=sentence):
            from_mapping(Config, {"ablate": {"rows": rows}})
    same = from_mapping(Config, {"ablate": {"rows": {"all": None, "mine": {"sources": ["aset", "pl", "lf", "sf"]}}}})
    with pytest.raises(UserError, match="rows all and mine train on the same"):
        ablate.rows_of(same)
    without = from_mapping(Config, {"train": {"source_weights": {"sf": 1.0}}})
    with pytest.raises(UserError, match=r"row aset trains on aset, which train.source_weights leaves out"):
        ablate.rows_of(without)


def test_rows_that_the_data_cannot_tell_apart_are_left_out_and_said(tmp_path):
    prepared = write_prepared(tmp_path / "prepared")
    rows = ablate.rows_of(Config(), ["aset+sf+lf", "all", "aset"])
    assert ablate.usable(prepared, rows) == (rows, [])
    clips = rows_of("train", 6)
    for clip in clips:
        clip["texts"] = [text for text in clip["texts"] if text["source"] in ("sf", "lf")]
    pq.write_table(pa.Table.from_pylist(clips), prepared / "train" / "shard-00000.parquet")
    kept, notes = ablate.usable(prepared, rows)
    assert list(kept) == ["aset+sf+lf"]
    assert notes == [
        "row all left out: it is aset+sf+lf, since no training track has a text of pl, aset",
        "row aset left out: no training track has a text of aset",
    ]
    with pytest.raises(UserError, match="nothing to ablate: row aset left out"):
        ablate.usable(prepared, ablate.rows_of(Config(), ["aset"]))


SPACE = {
    "train.audio_lr": {"low": 0.001, "high": 0.1, "log": True},
    "train.batch_size": {"choices": [16, 32, 64]},
    "model.tau_init": {"low": 0.1, "high": 0.2},
}


def searched(**more):
    train = {"batch_size": 32, "steps": 1000, "audio_lr": 0.02}
    return from_mapping(Config, {"train": train, "tune": {"trials": 9, "steps": 100, "space": SPACE, **more}})


def test_a_search_covers_every_range_at_one_budget():
    config = searched()
    points = tune.points_of(config)
    assert tune.points_of(config) == points != tune.points_of(searched(seed=1))
    assert next(iter(points.items())) == ("as configured", {})
    drawn = list(points.values())[1:]
    rates, sizes, taus = ([values[key] for values in drawn] for key in SPACE)
    # Eight strips of equal width, in the logarithm or not, and one point in each.
    assert sorted(int(8 * (tau - 0.1) / 0.1) for tau in taus) == list(range(8))
    edges = [0.001 * 100 ** (n / 8) for n in range(9)]
    assert [sum(low <= rate < high for rate in rates) for low, high in pairwise(edges)] == [1] * 8
    assert set(sizes) == {16, 32, 64} and all(type(size) is int for size in sizes)
    trials = tune.trials_of(config, points, 0)
    assert [trial.name for trial in trials] == list(points)
    for trial, values in zip(trials, points.values(), strict=True):
        assert trial.config.train.steps * trial.config.train.batch_size == 100 * 32
        plain = to_mapping(trial.config)
        assert {key: plain[key.split(".")[0]][key.split(".")[1]] for key in values} == values
        assert len(f"{trial.config.train.audio_lr:g}") <= 8


def test_rounds_leave_a_third_and_train_it_longer():
    config = searched(trials=8, rounds=3, metric="m", space={"model.tau_init": {"low": 0.1, "high": 0.2}})
    points, steps = tune.points_of(config), []
    for number, left in enumerate((8, 4, 2)):
        assert len(points) == left and tune.DEFAULT in points
        trials = tune.trials_of(config, points, number)
        steps.append({trial.config.train.steps for trial in trials})
        assert all(trial.name.endswith(f", {trial.config.train.steps} steps") for trial in trials)
        reports = [report(-values.get("model.tau_init", 1)) for values in points.values()]
        scores = tune.scores_of(config, points, trials, reports)
        points = tune.best_third(points, scores)
    assert steps == [{11}, {33}, {100}]
    lowest = sorted(values["model.tau_init"] for values in tune.points_of(config).values() if values)
    assert [values.get("model.tau_init") for values in points.values()] == [None, lowest[0]]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"space": {"train.audio_lr": {"low": 1, "high": 1}}}, r"tune\.space\.train\.audio_lr\.low must be below high"),
        (
            {"space": {"train.audio_lr": {"low": 0, "high": 1, "log": True}}},
            r"tune\.space\.train\.audio_lr\.low is 0\.0; with log it must be above 0",
        ),
        (
            {"space": {"evaluate.seed": {"choices": [1, 2]}}},
            "tune.space has the key 'evaluate.seed'; it must be text that is a key of train or model",
        ),
        (
            {"space": {"train.audio_rate": {"choices": [1, 2]}}},
            "tune.space names 'train.audio_rate', but there is no such number",
        ),
        (
            {"space": {"model.audio.kind.x": {"choices": [1, 2]}}},
            "tune.space names 'model.audio.kind.x', but there is no such number",
        ),
        ({"space": {"train.batch_size": {"choices": [15]}}}, "train.batch_size 15 does not divide"),
        ({"space": {}}, "tune.space is .*; it must be keys and values of 1 or more"),
        ({"trials": 1}, "tune.trials is 1; it must be a whole number from 2"),
        ({"steps": 3, "rounds": 3}, "tune.steps 3 is too few for 3 rounds; give at least 9"),
    ],
)
def test_a_space_that_cannot_be_searched(more, sentence):
    with pytest.raises(UserError, match=sentence):
        tune.trials_of(searched(**more), tune.points_of(searched(**more)), 0)


def report(score):
    return {"run_id": "r", "metrics": {"m": score}, "intervals": {"m": [0.1, 0.9]}}


def test_the_outcome_of_a_search():
    config = searched(trials=4, metric="m", rounds=2)
    points = tune.points_of(config)
    names = list(points)

    def scores(number, *values):
        chosen = {name: points[name] for name in names[: len(values)]}
        trials = tune.trials_of(config, chosen, number)
        return tune.scores_of(config, chosen, trials, [report(value) for value in values])

    found = tune.outcome(config, [scores(0, 0.8, 0.9, 0.95, 0.99), scores(1, 0.5, 0.7, 0.6)])
    assert [row["score"] for row in found["trials"]] == [0.7, 0.6, 0.5, 0.99]  # the last did not get to the last round
    assert [row["round"] for row in found["trials"]] == [2, 2, 2, 1]
    assert found["best"]["name"] == names[1] and found["gain"] == pytest.approx(0.2)
    written = yaml.safe_load(found["params"])
    assert written["model"]["tau_init"] == points[names[1]]["model.tau_init"]
    assert written["train"]["steps"] * written["train"]["batch_size"] == 1000 * 32  # as many pairs as before
    assert "0.200 above the numbers as configured (0.500)" in found["verdict"]
    page = tune.to_markdown(found)
    assert "0.100 to 0.900" in page and found["params"] in page
    none = tune.outcome(config, [scores(0, 0.8, 0.7, 0.6, 0.5), scores(1, 0.8, 0.7, 0.6)])
    assert none["verdict"].startswith("No trial beats the numbers as configured") and none["params"] == ""


def test_a_metric_that_the_validation_split_lacks_is_refused_ahead(tmp_path):
    workspace = Workspace(tmp_path)
    (tmp_path / "params.yaml").write_text("{}")
    write_prepared(workspace.prepared)
    check_metric(workspace, "tagging/pitch/roc_auc")
    check_metric(workspace, "retrieval/text/auc")
    with pytest.raises(UserError, match=r"has no probe/pitch/roc_auc for tune.metric; it has tagging/pitch/roc_auc"):
        check_metric(workspace, "probe/pitch/roc_auc")
    shutil.rmtree(workspace.prepared)
    write_prepared(workspace.prepared, valid=0)
    with pytest.raises(UserError, match="has no valid track"):
        check_metric(workspace, "tagging/pitch/roc_auc")


def test_nothing_is_cut_on_a_terminal_of_80_columns(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(reporting, "console", Console(file=text, width=80))
    name = "a row of one's own with a name that is much too long for any table"
    metrics = ["tagging/genre/roc_auc", "probe/a facet of one's own/roc_auc", "retrieval/description/map"]
    rows = [
        {"name": row, "metrics": dict.fromkeys(metrics, 0.5), "intervals": {m: [0.123, 0.877] for m in metrics}}
        for row in ("unfiltered", name)
    ]
    reporting.show_study({"rows": rows, "words": "words", "run_id": "f" * 32})
    trials = [
        {"name": name, "score": 0.5, "interval": [0.123, 0.877], "steps": 100_260},
        {"name": name, "score": 0.5, "interval": None, "steps": 25_065},
    ]
    reporting.show_search({"metric": "m", "trials": trials, "verdict": "v", "params": "", "run_id": "f" * 32})
    shown = text.getvalue()
    assert shown.count("0.123 - 0.877") == 2 * 3 + 1 and "…" not in shown
    assert "all, SF/LF unfiltered" in shown and "100,260" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_page_is_one_file_and_text_stays_text():
    html = as_html("# Title\n\n| a | b |\n| --- | --- |\n| <script>x</script> | **c** |\n", b"png")
    assert "<td><strong>c</strong></td>" in html and "&lt;script&gt;" in html and "<script" not in html
    assert 'src="data:image/png;base64,cG5n"' in html
