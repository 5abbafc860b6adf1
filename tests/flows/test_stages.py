"""The stages of dvc.yaml, by ``dvc repro`` and in process: one ``dvc.lock``, and nothing left to do for the other."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import soundfile
import yaml
from flow_fixtures import ROOT, environment, mulan_started, result_of
from prepared_fixtures import PITCHES, SHAPES, tone

from flows.pipeline import data
from flows.runtime.dvc_repo import init_dvc, open_repo
from flows.runtime.stack import ray_for_stage
from flows.runtime.workspace import Workspace, open_workspace, write_set_catalogues
from mulan_core.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BY_HAND, BY_FLOW = "dvc repro", "flow"


@pytest.fixture(scope="module", autouse=True)
def running_ray():
    with ray_for_stage():
        yield


@pytest.fixture
def ran(monkeypatch):
    """The stages that ran in this process."""
    names, run_stage = [], data.run_stage

    def run(workspace, *words):
        names.append(" ".join(word for word in words if word))
        return run_stage(workspace, *words)

    monkeypatch.setattr(data, "run_stage", run)
    return names


def dvc(*words, cwd):
    """What a person types in a workspace; its stages join this Ray, which spares them the start of one each."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(cwd) | {"PATH": path, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout


def made(folder):
    """The tables and sounds that stages have made, by inode: what is made again has another."""
    places = [folder / ".mulan" / "data" / name for name in ("demo", "texts", "prepared", "sets")]
    files = [path for place in places for path in place.rglob("*.*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_ino for path in files}


class Pair:
    """A workspace twice, in turn at the one path that its data hold: for ``dvc repro``, and for the flow."""

    def __init__(self, make, aside, ran):
        self.aside, self.ran = aside, ran
        for way in (BY_HAND, BY_FLOW):
            self.place = make()
            self.place.rename(aside / way)

    @contextmanager
    def at_its_place(self, way):
        (self.aside / way).rename(self.place)
        try:
            yield self.place
        finally:
            self.place.rename(self.aside / way)

    def change(self, what=lambda folder: None):
        """Change both, bring each up to date its own way: they end in one lock, and the other way finds nothing to do.

        Returns the stages in the lock, and the names of those that the flow ran beside ``judge``.
        """
        with self.at_its_place(BY_HAND) as folder:
            what(folder)
            dvc("repro", "-q", cwd=folder)
            lock, before = (folder / "dvc.lock").read_bytes(), made(folder)
            self.ran.clear()
            data.reproduce(Workspace(folder))
            assert self.ran == ["judge"]
            assert (made(folder), (folder / "dvc.lock").read_bytes()) == (before, lock)
        with self.at_its_place(BY_FLOW) as folder:
            what(folder)
            self.ran.clear()
            data.reproduce(Workspace(folder))
            assert (folder / "dvc.lock").read_bytes().decode() == lock.decode()
            assert json.loads(dvc("status", "--json", cwd=folder)) == {"judge": ["always changed"]}
        return yaml.safe_load(lock)["stages"], sorted(set(self.ran) - {"judge"})


def set_numbers(folder, **sections):
    path = folder / "params.yaml"
    known = yaml.safe_load(path.read_text())
    for name, section in sections.items():
        known[name] |= section
    path.write_text(yaml.safe_dump(known))


def write_tones(folder):
    """Twelve tones with texts, and numbers that name two evaluation sets."""
    rows = []
    for i in range(12):
        pitch, shape = list(PITCHES)[i % 3], list(SHAPES)[(i // 3) % 2]
        soundfile.write(folder / f"{i}.wav", tone(pitch, shape, seed=i, seconds=1.0), 16_000)
        texts = [{"source": "sf", "text": f"{pitch} {shape}"}, {"source": "lf", "text": f"A {shape} tone, {pitch}."}]
        rows.append({"track_id": f"t{i}", "uri": f"{i}.wav", "title": f"Tone {i}", "texts": texts})
    (folder / "tones.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "held.jsonl").write_text("\n".join(map(json.dumps, rows[:4])))
    sets = {name: {"manifest": str(folder / "held.jsonl")} for name in ("held", "other")}
    sections = {"prepare": {"clip_s": 1.0, "min_s": 0.5, "shard_mb": 1}, "evaluate": {"sets": sets}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(sections))


@pytest.fixture
def tones(tmp_path):
    write_tones(tmp_path)
    return tmp_path


def opened(tones):
    workspace = open_workspace(tones / "home", manifest=tones / "tones.jsonl", params=tones / "mine.yaml")
    write_set_catalogues(workspace)  # for a DVC by hand, as `mulan prepare` does
    return workspace


def test_the_demos_stages_end_in_one_lock(tmp_path, ran, capfd):
    def make():
        folder = tmp_path / "demo: a@b"  # a target of DVC's would end there
        folder.mkdir()
        for name in ("dvc.yaml", "params.yaml"):
            shutil.copy(ROOT / name, folder)
        set_numbers(folder, corpus={"size": 16, "clip_s": 2.0}, prepare={"clip_s": 2.0, "min_s": 1.0})
        init_dvc(folder)
        return folder

    def damage(folder):
        prepared = next((folder / ".mulan" / "data" / "prepared" / "train").glob("*.parquet"))
        prepared.unlink()
        shutil.rmtree(folder / ".mulan" / "data" / "texts")

    pair = Pair(make, tmp_path, ran)
    first, names = pair.change()
    assert names == ["corpus", "prepare", "text"]
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "prepare: 16 new, 0 changed, 0 removed, 0 unchanged\n"), "DVC says nothing"
    fewer, names = pair.change(lambda folder: set_numbers(folder, text={"min_sf_letters": 9}))
    assert names == ["prepare", "text"] and fewer["text"] != first["text"] and fewer["corpus"] == first["corpus"]
    again, names = pair.change(lambda folder: set_numbers(folder, text={"min_sf_letters": 2}))
    assert names == ["prepare"] and again == first, "the texts come from DVC's run cache"
    again, names = pair.change(damage)
    assert names == ["prepare"] and again == first
    other, names = pair.change(lambda folder: set_numbers(folder, corpus={"seed": 8}))
    assert names == ["corpus", "prepare", "text"] and other["prepare"]["outs"] != first["prepare"]["outs"]
    with pair.at_its_place(BY_FLOW) as folder:
        shards = list((folder / ".mulan" / "data" / "prepared").rglob("shard-*.parquet"))
        assert shards and all(path.stat().st_nlink >= 2 for path in shards), "they lie once, in DVC's cache too"


def test_own_catalogues_with_evaluation_sets_end_in_one_lock(tones, ran):
    def another_file(_):
        soundfile.write(tones / "1.wav", tone("high", "buzzing", seed=99, seconds=1.0), 16_000)
        os.utime(tones / "1.wav", (1e9, 1e9))
        opened(tones)

    def one_set_less(_):
        numbers = yaml.safe_load((tones / "mine.yaml").read_text())
        numbers["evaluate"]["sets"].pop("other", None)
        (tones / "mine.yaml").write_text(yaml.safe_dump(numbers))
        opened(tones)

    pair = Pair(lambda: opened(tones).folder, tones, ran)
    first, names = pair.change()
    assert names == ["prepare", "set held", "set other", "text"]
    changed, names = pair.change(another_file)
    assert names == ["prepare", "set held", "set other", "text"]
    assert changed["prepare"]["outs"] != first["prepare"]["outs"] and changed["text"]["outs"] == first["text"]["outs"]
    _, names = pair.change(one_set_less)
    assert names == []
    shorter, names = pair.change(lambda folder: set_numbers(folder, prepare={"clip_s": 0.8}))
    assert names == ["prepare", "set held"] and shorter["text"] == changed["text"]


COUNTS = """
import sys
def note(event, arguments):
    if event == "subprocess.Popen":
        with open({log!r}, "a") as log:
            log.write(" ".join(map(str, arguments[1])) + "\\n")
sys.addaudithook(note)
"""


def test_prepare_starts_no_interpreter_for_a_stage_and_ray_only_where_there_is_work(tones):
    """Whatever this command or a child of it starts is noted."""
    (tones / "hook").mkdir()
    (tones / "hook" / "sitecustomize.py").write_text(COUNTS.format(log=str(tones / "started.txt")))
    command = ["prepare", "--manifest", "tones.jsonl", "--params", "mine.yaml", "--json"]
    python_path = os.pathsep.join((str(tones / "hook"), os.environ.get("PYTHONPATH", "")))
    for changes, ray_starts in (({"new": 12, "unchanged": 0}, True), ({"new": 0, "unchanged": 12}, False)):
        done = result_of(mulan_started(*command, home=tones, PYTHONPATH=python_path))
        assert changes.items() <= done["changes"].items()
        started = (tones / "started.txt").read_text().splitlines()
        assert any("prefect server" in line for line in started)
        assert any("gcs_server" in line for line in started) is ray_starts
        assert [line for line in started if "dvc" in line.split("--")[0] or "mulan stage" in line] == []
        (tones / "started.txt").unlink()


def test_a_stage_that_fails_says_its_own_sentence_and_the_lock_stays(tones, ran):
    workspace = opened(tones)
    data.reproduce(workspace)
    before, lock = made(workspace.folder), (workspace.folder / "dvc.lock").read_bytes()
    set_numbers(workspace.folder, prepare={"min_s": 30.0})
    for _ in range(2):
        with pytest.raises(UserError, match=r"^not one track of [^\n]+ is usable \(12 too_short\)"):
            data.reproduce(Workspace(workspace.folder))
        assert (workspace.folder / "dvc.lock").read_bytes() == lock
    set_numbers(workspace.folder, prepare={"min_s": 0.5}, text={"lf_classifier": str(tones)})
    with pytest.raises(UserError, match=r"^text\.lf_classifier: [^\n]+ holds no text classifier"):
        data.reproduce(Workspace(workspace.folder))
    set_numbers(workspace.folder, text={"lf_classifier": None})
    ran.clear()
    counts = data.reproduce(Workspace(workspace.folder))
    assert ran == ["judge"] and counts["changes"]["unchanged"] == 12
    assert made(workspace.folder).keys() == before.keys() and (workspace.folder / "dvc.lock").read_bytes() == lock


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from flows.runtime import ending
ending.watch()
try:
    from flows.pipeline import data, prepare
    from flows.runtime.workspace import Workspace
    built = prepare.write_shards
    def write_shards(*arguments):
        written = built(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return written
    prepare.write_shards = write_shards
    data.reproduce(Workspace(Path(sys.argv[1])))
except BaseException:
    ending.end_if_signalled()
    raise
"""


def test_a_stage_that_is_interrupted_counts_as_not_done(tones, ran):
    folder = opened(tones).folder
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(folder)]
    done = subprocess.run(command, env=environment(tones), capture_output=True, text=True, timeout=300)
    assert done.returncode == 128 + signal.SIGINT and done.stderr.endswith("mulan: stopped\n"), done.stderr[-3000:]
    assert {"judge", "text"} <= yaml.safe_load((folder / "dvc.lock").read_text())["stages"].keys()
    assert "prepare" not in (folder / "dvc.lock").read_text()
    assert data.reproduce(Workspace(folder))["changes"]["new"] == 12
    assert "text" not in ran and "prepare" in ran


def test_what_ails_dvc_is_one_sentence(tones):
    workspace = opened(tones)
    tmp = workspace.folder / ".dvc" / "tmp"
    with (
        open_repo(workspace.folder) as repo,
        repo.lock,
        pytest.raises(UserError, match=r"^a dvc is at work in [^\n]+$"),
    ):
        data.reproduce(workspace)
    (tmp / "rwlock").write_text('{"read')
    with pytest.raises(UserError, match=r"^[^\n]+/rwlock is damaged; delete it [^\n]+$"):
        data.reproduce(workspace)
    (tmp / "rwlock").unlink()
    stages = yaml.safe_load((workspace.folder / "dvc.yaml").read_text())
    stages["stages"]["judge"]["cmd"] = "mulan stage jugde"
    (workspace.folder / "dvc.yaml").write_text(yaml.safe_dump(stages))
    with pytest.raises(UserError, match=r"^there is no stage jugde of [^\n]+; see its dvc\.yaml$"):
        data.reproduce(workspace)
    (workspace.folder / "dvc.yaml").write_text("stages: {judge: 3}")
    with pytest.raises(UserError, match=r"^DVC fails in [^\n]+$") as error:
        data.reproduce(workspace)
    assert "\x1b" not in str(error.value)
    settings = workspace.folder / ".dvc" / "config"
    settings.write_text("[core\n  analytics = \x00")
    with pytest.raises(UserError, match=r"^[^\n]+/\.dvc/config is damaged [^\n]+`mulan prepare`[^\n]+$"):
        data.reproduce(workspace)


def test_a_stage_of_somebody_elses_runs_as_dvc_runs_it(tones):
    folder = opened(tones).folder
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())
    stages["stages"]["mine"] = {"cmd": "wc -c < .mulan/data/judge.json > mine.txt", "outs": ["mine.txt"]}
    stages["stages"]["mine"]["deps"] = [".mulan/data/judge.json"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(stages))
    data.reproduce(Workspace(folder))
    assert int((folder / "mine.txt").read_text()) > 10
    assert "mine" in yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
