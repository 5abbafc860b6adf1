"""docs/quickstart.md from its second section on, command by command, as it stands there, after the demo.

The table is one of composed music, 300 tracks and again 120, and each command that makes its numbers is given the
page's own ``train: {steps: 200}``. The demo is served beside it all the time.
"""

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from flow_fixtures import MULAN, ROOT, environment, mulan_started, serving

from mulan_core.config import Config
from mulan_core.demo.corpus import build_corpus
from serving.ports import free_port

pytestmark = pytest.mark.timeout(1800)
TEXT = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip() for line in TEXT[TEXT.index("## 2.") :].splitlines() if re.match(r" {4}(mulan|curl) ", line)
] + re.findall(r"`(mulan (?:prepare|index) [^`]+)`", TEXT[TEXT.index("## Next") :])


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A home in which `mulan demo` was run, and the port of its endpoint."""
    folder, port = tmp_path_factory.mktemp("demo"), str(free_port())
    done = mulan_started("demo", "--exit", "--port", port, home=folder / ".mulan", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / ".mulan", port


@pytest.fixture(scope="module", params=[300, 120])
def folder(request, demo, tmp_path_factory):
    """The music, its table and the numbers, in a folder with a copy of that home; the demo is served from it."""
    folder = tmp_path_factory.mktemp("quickstart")
    build_corpus(replace(Config().corpus, size=request.param, seed=request.param), folder / "composed")
    (folder / "composed" / "audio").rename(folder / "music")
    with (folder / "tracks.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["uri", "text"])
        for i, row in enumerate(pq.read_table(folder / "composed" / "manifest.parquet").to_pylist()):
            (folder / "music" / Path(row["uri"]).name).rename(folder / "music" / f"{i:04}.flac")
            table.writerow([f"music/{i:04}.flac", ", ".join(label.split(":", 1)[1] for label in row["labels"])])
    home, port = demo
    (folder / "numbers.yaml").write_text(f"train: {{steps: 200}}\nserve: {{port: {port}}}\n")
    shutil.copytree(home, folder / ".mulan", symlinks=True)
    with serving("--catalogue", "demo", "--port", port, home=folder / ".mulan", cwd=folder) as (_, url):
        yield folder, url


@pytest.fixture(scope="module")
def started():
    """Commands of the page that go on until they are stopped."""
    processes = []
    yield processes
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def words_of(command, url):
    """The command with the numbers, and the endpoint's address for the page's."""
    words = [str(MULAN) if word == "mulan" else word for word in shlex.split(command)]
    if "--manifest" in words and "lineage" not in words:
        words += ["--params", "numbers.yaml"]
    return [word.replace("http://localhost:8000", url).replace("localhost:8000", url) for word in words]


def own_url(folder):
    """Where the catalogue of the page is served."""
    done = subprocess.run(
        [MULAN, "catalogue", "list", "--json"], cwd=folder, env=environment(folder / ".mulan"), capture_output=True
    )
    return next(row["endpoint"] for row in json.loads(done.stdout) if row["name"] != "demo") or ""


@pytest.mark.parametrize("command", COMMANDS)
def test_it_does_what_the_page_says(command, folder, started):
    folder, demo_url = folder
    env = environment(folder / ".mulan")
    words = words_of(command, own_url(folder) if "localhost" in command else "")
    if words[1:2] in (["serve"], ["ui"]):
        process = subprocess.Popen(
            words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        for line in process.stdout:
            if found := re.search(r"http://[\w.]+:\d+", line):
                assert found.group() != demo_url and httpx.get(found.group(), timeout=60).status_code == 200
                return
        pytest.fail(f"{command} ended")
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, (done.stdout + done.stderr)[-3000:]
    if ("search" in command and "--json" in command) or command.startswith("curl"):
        assert json.loads(done.stdout)["hits"]


def test_every_kind_of_command_was_among_them_and_one_endpoint_ends_without_the_other(folder, started):
    kinds = {command.split()[1] for command in COMMANDS if command.startswith("mulan")}
    assert kinds >= {"data", "run", "serve", "search", "tag", "ui", "status", "release", "lineage", "prepare", "index"}
    folder, demo_url = folder
    releases = {url: httpx.get(f"{url}/v1/release", timeout=60).json() for url in (demo_url, own_url(folder))}
    assert len(releases) == 2 and releases[demo_url]["num_tracks"] == 720
    while started:
        process = started.pop()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert httpx.get(f"{demo_url}/v1/release", timeout=60).status_code == 200, "one ends without the other"
    assert own_url(folder) == ""
