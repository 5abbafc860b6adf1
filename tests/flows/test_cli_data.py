"""mulan data: list, fetch, import and overlap, and the overlap that prepare refuses."""

import hashlib
import http.server
import io
import json
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest
import soundfile
from flow_fixtures import mulan, prepared_of, result_of
from prepared_fixtures import tone
from rich.console import Console
from test_cli_errors import refused
from typer.testing import CliRunner

from flows.cli import data as cli_data
from flows.cli import reporting
from flows.cli.app import app
from flows.runtime.terminal import Terminal
from flows.runtime.workspace import open_workspace
from mulan_core.errors import UserError
from mulan_core.readers import DATASETS
from mulan_core.readers.dataset import Dataset, Download
from mulan_core.readers.downloads import fetch_file

CAPTIONS = (
    "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"
    "1,948,A loud song.,True,1,87,149,48/948.mp3,212\n"
    "2,949,A calm song.,,1,87,149,49/949.mp3,200\n"
)


@pytest.fixture
def server(tmp_path):
    """A folder and the address at which a local server gives its files."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_a_known_file_is_verified_and_not_fetched_twice(server, tmp_path):
    folder, url = server
    (folder / "a.csv").write_bytes(b"x" * 100_000)
    download = Download(url=f"{url}/a.csv", file="in/a.csv", checksum=f"sha256:{sha256(b'x' * 100_000)}")
    told = []
    first = fetch_file(download, tmp_path / "to", progress=lambda done, total: told.append((done, total)))
    assert (tmp_path / "to" / "in" / "a.csv").read_bytes() == b"x" * 100_000
    assert (first.is_verified, first.is_new, first.bytes) == (True, True, 100_000)
    assert told[-1] == (100_000, 100_000)
    (folder / "a.csv").unlink()
    again = fetch_file(download, tmp_path / "to")
    assert (again.is_verified, again.is_new) == (True, False)


def test_a_wrong_checksum_keeps_nothing(server, tmp_path):
    folder, url = server
    (folder / "a.csv").write_bytes(b"tampered")
    download = Download(url=f"{url}/a.csv", file="a.csv", checksum=f"sha256:{sha256(b'right')}")
    with pytest.raises(UserError, match=r"gave has not the checksum sha256:.* so it was not kept") as error:
        fetch_file(download, tmp_path / "to")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "to").iterdir()) == []


def test_a_file_that_is_there_is_never_overwritten(server, tmp_path):
    folder, url = server
    (folder / "a.csv").write_bytes(b"right")
    mine = tmp_path / "a.csv"
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"a.csv is there but has sha256 .*, not .*; move it away"):
        fetch_file(Download(url=f"{url}/a.csv", file="a.csv", checksum=f"sha256:{sha256(b'right')}"), tmp_path)
    assert mine.read_bytes() == b"mine"
    unpinned = fetch_file(Download(url=f"{url}/a.csv", file="a.csv"), tmp_path)
    assert (unpinned.is_new, unpinned.is_verified, unpinned.sha256) == (False, False, sha256(b"mine"))


def test_what_a_server_does_not_give_is_one_sentence(server, tmp_path):
    _, url = server
    with pytest.raises(UserError, match=r"none.csv could not be fetched \(404\)"):
        fetch_file(Download(url=f"{url}/none.csv", file="none.csv"), tmp_path)
    with pytest.raises(UserError, match=r"could not be fetched \(ConnectionError\)"):
        fetch_file(Download(url="http://127.0.0.1:9/x", file="x"), tmp_path)


def test_only_the_wanted_members_of_an_archive_are_unpacked(server, tmp_path):
    folder, url = server
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("meta/tracks.csv", "1")
        archive.writestr("meta/features.csv", "2")
    (folder / "m.zip").write_bytes(data.getvalue())
    digest = hashlib.sha1(data.getvalue()).hexdigest()
    download = Download(url=f"{url}/m.zip", file="m.zip", checksum=f"sha1:{digest}", members=("meta/tracks.csv",))
    assert fetch_file(download, tmp_path / "to").is_verified
    assert [path.name for path in (tmp_path / "to" / "meta").iterdir()] == ["tracks.csv"]
    with pytest.raises(UserError, match="is not the archive that was expected"):
        fetch_file(replace(download, file="n.zip", members=("meta/none.csv",)), tmp_path / "to")


def test_fetch_then_import(server, tmp_path, monkeypatch):
    """The commands themselves, with the published address exchanged for the local one."""
    folder, url = server
    (folder / "song_describer.csv").write_text(CAPTIONS)
    described = DATASETS["song_describer"]
    moved = tuple(replace(d, url=f"{url}/{d.file}") for d in described.downloads)
    monkeypatch.setitem(DATASETS, "song_describer", replace(described, downloads=moved))
    monkeypatch.setattr(cli_data, "console", Console(width=200))
    to = tmp_path / "to"
    done = CliRunner().invoke(cli_data.app, ["fetch", "song-describer", "--to", str(to)])
    assert done.exit_code == 0, done.output
    assert "not verified, no checksum is known" in done.output
    assert sha256(CAPTIONS.encode()) in done.output
    assert "by hand, at https://doi.org/10.5281/zenodo.10072001: the audio" in done.output
    told = json.loads(CliRunner().invoke(cli_data.app, ["fetch", "song_describer", "--to", str(to), "--json"]).output)
    assert told["files"][0]["is_new"] is False
    (tmp_path / "audio" / "48").mkdir(parents=True)
    (tmp_path / "audio" / "48" / "948.2min.mp3").write_bytes(b"x")
    arguments = ("import", "song_describer", str(to), "--audio", str(tmp_path / "audio"), "--out")
    done = CliRunner().invoke(cli_data.app, [*arguments, str(tmp_path / "m.parquet")])
    assert done.exit_code == 0, done.output
    assert "without audio, left out: 49/949.2min.mp3" in done.output
    assert pq.read_table(tmp_path / "m.parquet")["track_id"].to_pylist() == ["jamendo:948"]


def test_one_file_that_fails_leaves_the_others(server, tmp_path, monkeypatch):
    folder, url = server
    (folder / "b.csv").write_bytes(b"b")
    downloads = tuple(Download(url=f"{url}/{name}.csv", file=f"{name}.csv") for name in "abc")
    monkeypatch.setitem(DATASETS, "fma", replace(DATASETS["fma"], downloads=downloads))
    done = CliRunner().invoke(cli_data.app, ["fetch", "fma", "--to", str(tmp_path / "to")])
    assert isinstance(done.exception, UserError)
    assert "a.csv could not be fetched (404)" in str(done.exception)
    assert str(done.exception).endswith("(2 of 3 files are not here)")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["b.csv"]


def test_published_addresses_are_what_they_claim():
    for dataset in DATASETS.values():
        assert isinstance(dataset, Dataset)
        assert dataset.downloads or dataset.by_hand, f"{dataset.name} says not how to get it"
        for download in dataset.downloads:
            assert download.url.startswith("https://")
            kind, _, digest = (download.checksum or "sha256:" + 64 * "0").partition(":")
            assert len(digest) == {"sha256": 64, "sha1": 40}[kind]


def test_list(tmp_path):
    listed = result_of(mulan("data", "list", "--json", home=tmp_path))
    assert [dataset["name"] for dataset in listed] == list(DATASETS)
    assert {"tracks", "license", "size", "home", "files", "downloads", "options"} <= set(listed[0])
    table = mulan("data", "list", home=tmp_path).stdout
    for dataset in DATASETS.values():
        assert dataset.name in table
        assert dataset.home in table, "an address must not be folded"
    assert "--option subset=" in mulan("data", "list", "mtg_jamendo", home=tmp_path).stdout


def test_import_counts_and_mistakes(tmp_path):
    (tmp_path / "song_describer.csv").write_text(CAPTIONS)
    (tmp_path / "audio" / "48").mkdir(parents=True)
    (tmp_path / "audio" / "48" / "948.mp3").write_bytes(b"x")
    arguments = ("data", "import", "song_describer", ".", "--audio", "audio", "--out", "m.parquet")
    counts = result_of(mulan(*arguments, "--json", home=tmp_path))
    assert counts == {
        "manifest": "m.parquet", "tracks": 2, "with_audio": 1, "missing": 1, "repeated": 0, "written": 1,
        "splits": {"test": 1}, "texts": {"lf": 1}, "labels": 0, "notes": [],
    }  # fmt: skip
    kept = result_of(mulan(*arguments, "--keep-missing", "--json", home=tmp_path))
    assert (kept["missing"], kept["written"]) == (1, 2)
    refused(mulan(*arguments[:-1], "m.csv", home=tmp_path, cwd=tmp_path), "ends in .parquet")
    refused(mulan(*arguments, "--option", "valid=1", home=tmp_path), "has no option 'valid'; it has: valid_only")
    refused(mulan("data", "fetch", "music4all", home=tmp_path), "is not openly fetchable; get by hand at https://")
    (tmp_path / "song_describer.csv").write_text(CAPTIONS.replace(",", ";"))
    refused(mulan(*arguments, home=tmp_path), "song_describer.csv has no column 'track_id'")


def test_overlap_of_two_manifests(tmp_path):
    for name, ids in (("a", ("1", "2")), ("b", ("2", "3")), ("c", ("4",))):
        rows = [{"track_id": i, "uri": f"{i}.wav", "text": "x"} for i in ids]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = mulan("data", "overlap", "a.jsonl", "b.jsonl", home=tmp_path)
    assert done.returncode == 1
    assert "2 (a) = 2 (b), same track" in done.stdout
    assert "1 overlap between 2 and 2 tracks" in done.stdout
    assert "4 tracks have no sha256" in done.stdout
    done = mulan("data", "overlap", "a.jsonl", "b.jsonl", "--json", home=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["overlaps"][0]["train_id"]) == (1, "2")
    assert result_of(mulan("data", "overlap", "a.jsonl", "c.jsonl", "--json", home=tmp_path))["overlaps"] == []
    refused(mulan("data", "overlap", "a.jsonl", "no.jsonl", home=tmp_path), "there is no file no.jsonl")


@pytest.mark.parametrize("command", ["list", "fetch", "import", "overlap"])
def test_help_has_an_example(tmp_path, command):
    done = mulan("data", command, "--help", home=tmp_path)
    assert f"Example: mulan data {command}" in done.stdout


def test_help_imports_no_reader_and_no_heavy_library():
    heavy = ("pooch", "pyarrow", "numpy", "torch", "pydantic", "fastapi", "ray", "prefect", "mlflow")
    program = f"import sys, flows.cli.app; print([m for m in sys.modules if 'readers' in m or m in {heavy}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_check_ends_with_1_where_run_would_refuse_and_its_yaml_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reporting, "console", Terminal(width=400))
    for i in range(120):
        soundfile.write(tmp_path / f"{i}.wav", tone("low", "smooth", seed=i)[:8_000], 16_000)
    rows = "".join(f'{i}.wav,"A slow waltz for piano, played in the rain by {i + 1} hands."\n' for i in range(120))
    (tmp_path / "tracks.csv").write_text("uri,text\n" + rows)
    (tmp_path / "p.yaml").write_text("prepare: {min_s: 0.1}\n")

    def check(*more):
        return CliRunner().invoke(app, ["data", "check", "tracks.csv", "--params", "p.yaml", *more])

    assert check().exit_code == 0, "a stranger's 120 tracks pass as they are"
    report = json.loads(check("--json").stdout)
    assert report["texts"] == {"lf": {"before": 120, "after": 120}} and report["splits"]["test"] >= 12
    (tmp_path / "p.yaml").write_text("prepare: {min_s: 0.1}\ngate: {min_items: 60}\n")
    done = check()
    assert done.exit_code == 1
    told = f"would be measured on {report['splits']['test']} text queries, at least 60 needed"
    assert f"`mulan run` would refuse this: gate: retrieval/text/auc {told}" in done.stdout
    pasted = done.stdout.partition("--params:\n\n")[2].partition("\n\n")[0]
    (tmp_path / "p.yaml").write_text(f"prepare: {{min_s: 0.1}}\n{pasted}\n")
    assert check().exit_code == 0
    (tmp_path / "few.csv").write_text("uri,text\n" + "".join(rows.splitlines(keepends=True)[:12]))
    said = CliRunner().invoke(app, ["data", "check", "few.csv", "--params", "p.yaml"]).stdout
    borrowing, splitting = (
        said.index("`mulan index --model demo/champion`"),
        said.index("or train on them all the same"),
    )
    assert said.index("would refuse") < said.index("`mulan prepare --manifest few.csv`") < borrowing < splitting
    assert not (tmp_path / "home").exists(), "it reads, and writes nothing"
    open_workspace(tmp_path / "home", manifest="tracks.csv", params="p.yaml")
    assert CliRunner().invoke(app, ["data", "check", "tracks.csv"]).exit_code == 0, "the numbers that are kept count"


@pytest.mark.slow
def test_prepare_refuses_one_recording_in_two_splits(tmp_path):
    rows = []
    for i, split in enumerate(("train", "train", "valid", "test")):
        soundfile.write(tmp_path / f"{i}.wav", tone("low", "smooth", seed=i % 3), 16_000)  # 3 is 0 again
        rows.append({"track_id": f"t{i}", "uri": f"{i}.wav", "split": split, "text": "low smooth"})
    (tmp_path / "tones.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own.yaml").write_text("prepare: {clip_s: 2.5, min_s: 1.0, shard_mb: 1}\n")
    prepare = ("prepare", "--manifest", "tones.jsonl", "--params", "own.yaml")
    done = mulan(*prepare, home=tmp_path)
    assert done.returncode == 2
    assert "1 recording is in training and evaluation both (1 by audio): t0 (tones) = t3 (tones)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not prepared_of(tmp_path).exists()
    assert result_of(mulan(*prepare, "--allow-overlap", "--json", home=tmp_path))["usable"] == 4
    new = tmp_path / "new"  # where no catalogue is the last one
    new.mkdir()
    refused(mulan("prepare", "--allow-overlap", home=new), "--allow-overlap goes with --manifest")


def test_a_folder_of_elsewhere_is_mapped_and_the_workspace_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    (tmp_path / "tables").mkdir()
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", tone("low", "smooth", seed=1, seconds=4.0), 16_000)
    table = tmp_path / "tables" / "m.csv"
    table.write_text("uri,text\nC:\\Music\\a.wav,calm piano\n")
    moved = f"C:\\Music={tmp_path / 'music'}"
    runs = [
        json.loads(CliRunner().invoke(app, ["data", "check", str(table), "--json", *more]).stdout)
        for more in ([], ["--map", moved])
    ]
    assert [(len(run["bad_rows"]), run["usable"]) for run in runs] == [(1, 0), (0, 1)]
    places = dict([moved.split("=")])
    first = open_workspace(tmp_path / "home", manifest=table, moved=places)
    again = open_workspace(tmp_path / "home", manifest=table)
    assert first.config.prepare.moved == again.config.prepare.moved == places
    kept = pq.read_table(again.folder / again.config.catalogue / "manifest.parquet")
    assert kept["uri"].to_pylist() == [str(tmp_path / "music" / "a.wav")]
