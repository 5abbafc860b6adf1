"""``mulan text`` through the real command: labels from a pipe, a classifier, verdicts, the report; the text stage."""

import json
import os
import subprocess

import mlflow
import pyarrow.parquet as pq
import pytest
import yaml
from flow_fixtures import MULAN, ROOT, environment, mulan, result_of
from test_cli_errors import refused
from text_fixtures import JUNK, LABELS, MUSIC, tiny_bert, tiny_classifier

from flows.runtime.database import database_uri
from flows.runtime.dvc_repo import run_dvc
from flows.runtime.workspace import open_workspace
from mulan_core.config import TextConfig
from mulan_core.text.judging import judge_tracks
from mulan_core.text.labelling import read_labels

LINES = [
    MUSIC[0],
    JUNK[0],
    "a bright little tune",
    "subscribe to my channel",
    MUSIC[0].upper(),
    "https://x.com is nice",
]


def label(keys, home, *arguments):
    command = [MULAN, "text", "label", "lines.txt", "--out", "labels.jsonl", *arguments]
    return subprocess.run(
        command, input=keys, cwd=home, env=environment(home), capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(LINES))
    return tmp_path


def test_lines_are_labelled_from_a_pipe_and_not_asked_again(lines):
    done = label("y\nun\nq", lines)
    assert done.returncode == 0, done.stderr
    assert "0 labelled in labels.jsonl, 3 left to ask" in done.stdout
    assert "1 labelled: 0 describe music, 1 do not" in done.stdout
    assert read_labels(lines / "labels.jsonl") == {"a bright little tune": False}  # the hardest line, after the undo
    done = label("sy", lines)
    assert "1 labelled in labels.jsonl, 2 left to ask" in done.stdout
    assert "a bright little tune" not in done.stdout
    assert len(read_labels(lines / "labels.jsonl")) == 2
    done = label("y?y", lines)  # the line that was skipped; a key that means nothing is passed over
    assert len(read_labels(lines / "labels.jsonl")) == 3
    assert "nothing is left to ask" in label("y", lines).stdout


def test_a_limit_ends_the_sitting(lines):
    assert "1 labelled: 1 describe" in label("yyy", lines, "--limit", "1").stdout


def test_a_kill_loses_no_answer(lines):
    command = [MULAN, "text", "label", "lines.txt", "--out", "labels.jsonl"]
    with subprocess.Popen(
        command, cwd=lines, env=environment(lines), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as asked:
        asked.stdin.write(b"yn")
        asked.stdin.flush()
        while not (lines / "labels.jsonl").exists() or len(read_labels(lines / "labels.jsonl")) < 2:
            assert asked.poll() is None
        asked.kill()
    assert len(read_labels(lines / "labels.jsonl")) == 2


def test_judging_by_rule_shows_reason_and_score(lines):
    verdicts = result_of(mulan("text", "judge", "lines.txt", "--json", home=lines))
    assert [(one["text"], one["drop"]) for one in verdicts] == [
        (MUSIC[0], None),
        (JUNK[0], "not_about_music"),
        ("a bright little tune", None),
        ("subscribe to my channel", "boilerplate"),
        (MUSIC[0].upper(), None),
        ("https://x.com is nice", "url"),
    ]
    assert verdicts[0]["score"] > 0 > verdicts[1]["score"] and verdicts[3]["score"] is None
    shown = mulan("text", "judge", "lines.txt", home=lines).stdout
    assert "3 of 6 kept" in shown and "boilerplate" in shown
    (lines / "params.yaml").write_text("text: {min_lf_score: 3.0}\n")
    verdicts = result_of(mulan("text", "judge", "lines.txt", "--json", home=lines))
    assert verdicts[2]["drop"] == "not_about_music"
    tags = result_of(mulan("text", "judge", "lines.txt", "--source", "sf", "--json", home=lines))
    assert [one["drop"] for one in tags] == [None, None, None, "boilerplate", None, "url"]


def test_mistakes_are_told_in_a_sentence(lines):
    refused(mulan("text", "judge", "no.txt", home=lines), "cannot read no.txt")
    refused(mulan("text", "judge", "lines.txt", "--classifier", "no", home=lines), "no holds no text classifier")
    refused(mulan("text", "train", "no.jsonl", "--out", "x", home=lines), "cannot read the labels no.jsonl")
    refused(mulan("text", "train", "lines.txt", "--out", "x", home=lines), "lines.txt, line 1: expected")
    (lines / "tracks.jsonl").write_text('{"uri": "a.wav", "text": "calm"}\n')
    refused(
        mulan("text", "report", "--manifest", "tracks.jsonl", home=lines),
        "run `mulan prepare --manifest tracks.jsonl` first",
    )
    for command in ("label", "train", "judge", "report"):
        assert f"Example: mulan text {command}" in mulan("text", command, "--help", home=lines).stdout


@pytest.mark.slow
def test_training_writes_the_folder_and_logs_the_run(lines):
    labels = [json.dumps({"text": text, "describes": describes}) for text, describes in LABELS.items()]
    (lines / "one.jsonl").write_text("\n".join(labels[:50]) + "\n")
    (lines / "two.jsonl").write_text("\n".join(labels[50:]) + "\n")
    numbers = {"pretrained": tiny_bert(lines / "bert"), "epochs": 6, "batch_size": 16, "lr": 3e-3, "max_tokens": 24}
    (lines / "params.yaml").write_text(yaml.safe_dump({"text_classifier": numbers}))
    done = mulan("text", "train", "one.jsonl", "two.jsonl", "--out", "lf", home=lines, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "20 held-out lines, 10 of them descriptions" in done.stdout and "(chosen)" in done.stdout
    assert "set text.lf_classifier to lf" in done.stdout
    client = mlflow.MlflowClient(database_uri(lines / "mlflow.db"))
    run = client.search_runs([client.get_experiment_by_name("mulan").experiment_id])[0]
    assert run.data.tags["mulan.kind"] == "text_classifier"
    assert run.data.metrics["held_out/precision"] >= 0.95
    assert run.data.params["text_classifier.lr"] == "0.003"
    assert len(client.get_metric_history(run.info.run_id, "held_out_loss")) >= 2
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["classifier.json"]
    verdicts = result_of(mulan("text", "judge", "lines.txt", "--classifier", "lf", "--json", home=lines))
    assert [one["drop"] for one in verdicts[:2]] == [None, "not_about_music"]
    assert verdicts[0]["probability"] > 0.5 > verdicts[1]["probability"] and verdicts[3]["probability"] is None


def texts_of(folder):
    return pq.read_table(folder / "texts.parquet")["texts"].to_pylist()


@pytest.fixture
def workspace(tmp_path):
    """A catalogue of 2,400 tracks, three blocks, with no audio: the text stage needs none."""
    texts = [[("sf", "Low Tide"), ("sf", f"tag {i % 10}x"), ("lf", [*MUSIC, *JUNK][2 * i % 96])] for i in range(2400)]
    rows = [
        {
            "uri": f"{i}.wav",
            "track_id": f"t{(7 * i) % 2400}",
            "title": "Low Tide",
            "texts": [{"source": s, "text": t} for s, t in of],
        }
        for i, of in enumerate(texts)
    ]
    (tmp_path / "tracks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return rows


@pytest.mark.slow
def test_the_text_stage_judges_once_and_again_when_the_judge_changes(tmp_path, workspace, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{MULAN.parent}{os.pathsep}{os.environ['PATH']}")  # DVC's stages are commands
    trained, report = tiny_classifier(tmp_path / "bert", tmp_path / "lf")
    trained.threshold = 0.0  # keeps all that the rules of form let through
    trained.save_pretrained(tmp_path / "lf", report)
    params = yaml.safe_load((ROOT / "configs" / "own.yaml").read_text())

    def judged_with(**numbers):
        """What the stage wrote, and whether it ran."""
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(params | {"text": numbers}))
        opened = open_workspace(tmp_path, manifest="tracks.jsonl", params="mine.yaml")
        before = opened.texts.stat().st_ino if opened.texts.exists() else None
        run_dvc(["repro", "-q", "text"], opened.folder)
        return opened.texts, opened.texts.stat().st_ino != before

    folder, ran = judged_with()
    assert ran
    assert pq.read_table(folder / "texts.parquet")["track_id"].to_pylist() == [row["track_id"] for row in workspace]
    assert texts_of(folder) == judge_tracks(workspace, TextConfig())
    shown = json.loads((folder / "report.json").read_text())
    assert shown["tracks"] == 2400 and shown["sources"]["sf"]["reasons"] == {"name": 2400}
    assert shown["sources"]["sf"]["before"]["tokens"] == 2400 * 2 + 2400 * 3  # "low tide", "tag 5 ##x"
    assert result_of(mulan("text", "report", "--manifest", "tracks.jsonl", "--json", home=tmp_path)) == shown
    assert not judged_with()[1]
    folder, ran = judged_with(lf_classifier="lf")
    assert ran and all(texts[2]["drop"] is None for texts in texts_of(folder))
    trained.threshold = 1.0
    trained.save_pretrained(tmp_path / "lf", report)
    folder, ran = judged_with(lf_classifier="lf")
    assert ran and all(texts[2]["drop"] == "not_about_music" for texts in texts_of(folder))
