"""``mulan release promote`` and ``mulan index`` are killed at every step of a switch, while ``mulan serve`` runs.

The next command has endpoint, registry and Milvus agree again, on the release that the endpoint answers with. A step is
seen from outside: the journal is there, a replica of the new release starts, the endpoint answers with it, the registry
names it, Milvus does, the journal is gone.
"""

import json
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from flow_fixtures import CATALOGUE, MULAN, environment, left_of, processes_of, result_of, tone, write_catalogue
from flow_fixtures import mulan_started as mulan

from flows.registry import Registry
from flows.runtime.catalogues import read_records
from flows.runtime.database import database_uri
from flows.runtime.journal import FILE
from serving.ports import is_up
from serving.store import TrackStore

pytestmark = pytest.mark.timeout(1800)

JOURNAL, REPLICA, ANSWERS, REGISTRY, ALIAS, ENDED = "journal", "replica", "endpoint", "registry", "alias", "no journal"
MOMENTS = [(JOURNAL, 0.0), (JOURNAL, 1.0), (REPLICA, 0.0), (REPLICA, 2.0), (ANSWERS, 0.0), (REGISTRY, 0.0),
           (ALIAS, 0.0), (ENDED, 0.0)]  # fmt: skip


class Served:
    """A home with two releases, of which ``mulan serve`` serves one."""

    def __init__(self, home):
        self.home = write_catalogue(home)
        self.url = f"http://127.0.0.1:{(home / 'params.yaml').read_text().partition('port: ')[2].partition('}')[0]}"
        result_of(mulan("run", *CATALOGUE, "--no-serve", "--json", home=home))
        rows = [json.loads(line) for line in (home / "tones.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row.get("track_id") not in ("t3", None)]
        soundfile.write(home / "new.wav", tone("low", "smooth", seed=99), 16_000)
        rows.append(rows[2] | {"track_id": "new", "uri": "new.wav", "title": "New", "split": "train"})
        (home / "tones.jsonl").write_text("\n".join(json.dumps(row | {"dataset": "tones"}) for row in rows))
        self.first = self.champion()
        result_of(mulan("prepare", *CATALOGUE, "--json", home=home))
        built = result_of(mulan("index", *CATALOGUE, "--model", "champion", "--no-promote", "--json", home=home))
        self.second = built["version"]
        assert self.first != self.second and built["not_served"] and built["url"] is None

    @property
    def catalogue(self):
        return read_records(self.home).named("tones")

    def champion(self):
        return Registry(database_uri(self.home / "mlflow.db"), self.home, "mulan-tones").champions()[-1]

    def answers(self):
        with suppress(httpx.HTTPError, KeyError):
            return httpx.get(f"{self.url}/v1/release", timeout=10).json()["model_version"]
        return None

    def live(self):
        stack = json.loads(next(self.home.rglob("stack.json")).read_text())
        with closing(TrackStore(stack["milvus_uri"], live=self.catalogue.live_alias)) as store:
            return store.collections.live_collection()

    def has_journal(self):
        return (self.catalogue.state(self.home) / FILE).exists()

    def replicas(self):
        return {
            process.pid
            for process in processes_of(self.home)
            if "ServeReplica" in " ".join(process.cmdline())
        }  # fmt: skip

    def agree(self, *, with_edits=("of the api",)):
        """Endpoint, registry and Milvus say the same; returns the version."""
        version = self.answers()
        rows = {row["version"]: row for row in result_of(mulan("release", "list", "--json", home=self.home))}
        assert version == self.champion() and "champion" in rows[version]["aliases"]
        assert self.live() == rows[version]["collection"] and not self.has_journal()
        for track_id in with_edits:
            assert httpx.get(f"{self.url}/v1/tracks/{track_id}").status_code == 200
        assert httpx.get(f"{self.url}/v1/tracks/t5").status_code == 404, "it was deleted"
        return version


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("killed"))
    home = served.home
    with (home / "serve.log").open("w") as log:
        server = subprocess.Popen([MULAN, "serve", *CATALOGUE], cwd=home, env=environment(home), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while not is_up(f"{served.url}/readyz"):
            assert time.monotonic() < deadline and server.poll() is None, (home / "serve.log").read_text()
            time.sleep(0.5)
        audio = {"audio": (home / "new.wav").read_bytes()}
        httpx.post(f"{served.url}/v1/tracks", files=audio, data={"track_id": "of the api"}).raise_for_status()
        httpx.delete(f"{served.url}/v1/tracks/t5").raise_for_status()
        yield served
    finally:
        server.terminate()
        server.wait(60)
    assert left_of(home, within_s=10) == []


def kill_at(served, moment, command):
    """Run a command that goes over to the second release, and kill it; returns whether it was killed before its end."""
    what, pause_s = moment
    before = served.replicas()
    process = subprocess.Popen(
        [MULAN, *command], cwd=served.home, env=environment(served.home), stdout=subprocess.DEVNULL
    )
    seen = {
        JOURNAL: served.has_journal,
        REPLICA: lambda: served.replicas() - before,
        ANSWERS: lambda: served.answers() == served.second,
        REGISTRY: lambda: served.champion() == served.second,
        ALIAS: lambda: served.live() == built_for(served, served.second),
        ENDED: lambda: begun and not served.has_journal(),
    }[what]
    deadline, begun = time.monotonic() + 300, False
    while not seen() and process.poll() is None:
        begun = begun or served.has_journal()
        assert time.monotonic() < deadline, f"{what} was never seen"
        time.sleep(0.005)
    time.sleep(pause_s)
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    code = process.wait(30)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, "what it had started ends with it"
    return code == -signal.SIGKILL


def built_for(served, version):
    return Registry(database_uri(served.home / "mlflow.db"), served.home, "mulan-tones").find(version).tag("collection")


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]} {moment[1]:g} s")
@pytest.mark.parametrize("command", ["promote", "index"])
def test_whatever_step_it_is_killed_at_the_next_command_has_all_agree(served, command, moment):
    if served.agree() != served.first:
        done = result_of(mulan("release", "rollback", *CATALOGUE, "--json", home=served.home))
        assert done["url"] == served.url and served.agree() == served.first
    words = {"promote": ["release", "promote", served.second], "index": ["index", "--model", "champion"]}[command]
    killed = kill_at(served, moment, [*words, *CATALOGUE])
    done = mulan("release", "prune", "--keep", "5", *CATALOGUE, home=served.home)  # it reads the journal, and no more
    assert done.returncode == 0, done.stderr
    version = served.agree()
    cut_off = "was cut off" in done.stderr
    sys.stdout.write(f"{command}, {moment}: {'killed' if killed else 'ended'}, now {version}; {done.stderr.strip()}\n")
    assert killed or version == served.second
    if moment == (JOURNAL, 0.0):
        assert killed and cut_off and version == served.first
    if moment[0] in (ANSWERS, REGISTRY, ALIAS, ENDED):
        assert version == served.second


def test_an_index_on_a_running_endpoint_switches_it(served):
    if served.agree() == served.second:
        result_of(mulan("release", "rollback", *CATALOGUE, "--json", home=served.home))
    done = result_of(mulan("index", *CATALOGUE, "--model", "champion", "--json", home=served.home))
    assert (done["version"], done["url"], done["not_served"]) == (served.second, served.url, None)
    assert done["edits"] == {"added": 1, "deleted": 1, "superseded": [], "left": []}
    assert served.agree() == served.second
