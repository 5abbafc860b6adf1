"""Every mistake is one sentence and a non-zero exit, through the real command."""

import json
import socket
from functools import partial
from importlib.util import find_spec

import pytest
from flow_fixtures import ROOT
from flow_fixtures import mulan as mulan_in

from flows.cli.app import app
from flows.cli.help import command_of

mulan = partial(mulan_in, cwd=ROOT)


def refused(done, sentence, code=2):
    """One line on stderr from ``mulan``, no traceback, and the exit code."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("mulan:")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert sentence in lines[0]
    assert "Traceback" not in done.stderr


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_missing_and_empty_manifests(tmp_path):
    refused(mulan("run", "--manifest", "no.csv", home=tmp_path), "there is no file no.csv")
    (tmp_path / "empty.csv").write_text("uri,text\n")
    refused(mulan("run", "--manifest", str(tmp_path / "empty.csv"), home=tmp_path), "has no rows")
    (tmp_path / "typed.jsonl").write_text('{"uri": 3, "text": "x"}')
    refused(mulan("prepare", "--manifest", str(tmp_path / "typed.jsonl"), home=tmp_path), "row 1, column 'uri'")


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_protocol_whose_package_is_missing(tmp_path):
    refused(mulan("data", "check", "gs://bucket/tracks.csv", home=tmp_path), "(mulan[s3] and mulan[gcs] do)")


def test_unknown_configuration_key(tmp_path):
    (tmp_path / "params.yaml").write_text("train: {stepz: 3}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    refused(mulan("train", home=tmp_path, cwd=tmp_path), "unknown key 'train.stepz'")


def test_a_folder_that_is_no_workspace(tmp_path):
    refused(mulan("train", home=tmp_path, cwd=tmp_path), "give --manifest YOUR_FILE")


def test_dead_addresses(tmp_path, closed_port):
    dead = f"http://127.0.0.1:{closed_port}"
    refused(mulan("train", home=tmp_path, MLFLOW_TRACKING_URI=dead), "MLflow does not answer at")
    refused(mulan("train", home=tmp_path, MULAN_MILVUS_URI=dead), "Milvus")
    refused(mulan("train", home=tmp_path, PREFECT_API_URL=f"{dead}/api"), "Prefect does not answer at")
    refused(mulan("search", "piano", "--url", dead, home=tmp_path), "no MuLan endpoint answers")


def test_an_unknown_ablation_row(tmp_path):
    refused(mulan("ablate", "--rows", "aset,nope", home=tmp_path), "there is no ablation row 'nope'")


def test_unusable_files_for_tag(tmp_path):
    refused(mulan("tag", "no.mp3", home=tmp_path), "there is no file no.mp3")


def test_data_check_lists_every_bad_row_and_file(tmp_path):
    (tmp_path / "m.csv").write_text("uri,text\n../x.wav,a\nno.wav,b\n,c\n")
    done = mulan("data", "check", str(tmp_path / "m.csv"), home=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "row 1, column 'uri': '../x.wav' lies outside" in done.stdout
    assert "row 3, column 'uri': a value is required" in done.stdout
    report = json.loads(mulan("data", "check", str(tmp_path / "m.csv"), "--json", home=tmp_path).stdout)
    assert [row["row"] for row in report["bad_rows"]] == [1, 3]
    assert report["reasons"] == {"missing": 1}
    refused(mulan("data", "check", "no.csv", home=tmp_path), "there is no file no.csv")


def test_usage_errors_exit_with_2(tmp_path):
    done = mulan("search", home=tmp_path)
    assert done.returncode == 2
    assert "Missing argument" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ["demo", "run", "prepare", "train", "ablate", "evaluate", "compare", "index", "serve", "search", "export"],
)
def test_help_has_an_example(tmp_path, command):
    done = mulan(command, "--help", home=tmp_path)
    assert done.returncode == 0
    assert f"Example: mulan {command}" in done.stdout


def test_the_help_shows_flags_by_their_names_alone(tmp_path):
    shown = {}

    def walk(command):
        shown.update({(command.name, option.name): option.metavar for option in command.params})
        for under in getattr(command, "commands", {}).values():
            walk(under)

    walk(command_of(app))
    assert not [where for where, metavar in shown.items() if metavar and "<" in metavar]
    assert shown["run", "serve"] == "" and shown["run", "manifest"] == "TEXT" and shown["run", "playlists"] == "PATH"
    assert shown["train", "task"] == "contrastive|tagging|audioset"
    help_of_run = mulan("run", "--help", home=tmp_path).stdout
    assert "--no-serve" in help_of_run and "<" not in help_of_run and "TEXT" in help_of_run
