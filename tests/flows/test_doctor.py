"""``mulan doctor``: each finding met for real, by servers that are away, closed, old or of another time."""

import http.server
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from flow_fixtures import mulan
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.doctor import addresses, examine, machine
from flows.runtime.catalogues import note_use
from flows.runtime.settings import read_settings
from flows.runtime.workspace import workspace_of
from serving.keys import KeyFile
from serving.ports import free_port


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    for name in (
        "MLFLOW_TRACKING_URI",
        "MULAN_MILVUS_URI",
        "MULAN_DVC_REMOTE",
        "RAY_ADDRESS",
        "MULAN_URL",
        "MULAN_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    return read_settings()


@contextmanager
def server(status=200, body="", closed=None, clock_s=0.0):
    """A server that answers alike but for 401 below ``closed``; ``clock_s`` is how far its clock is ahead."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(401 if closed and self.path.startswith(closed) else status)
            self.send_header("Date", formatdate(time.time() + clock_s, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()


def only(findings):
    (finding,) = findings
    return finding


def test_a_healthy_machine_is_told_so_by_the_command(tmp_path):
    done = mulan("doctor", "--json", home=tmp_path)
    found = json.loads(done.stdout)
    assert [one for one in found if one["level"] == "failure"] == [] and done.returncode == 0
    assert {"versions", "packages", "memory", "home", "GPU", "MLflow", "Prefect", "Milvus", "Ray"} <= {
        one["check"] for one in found
    }


def test_what_is_wrong_ends_with_1_and_names_what_to_do(tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    env = {"MLFLOW_TRACKING_URI": away, "MULAN_MILVUS_URI": away, "MULAN_URL": away, "PREFECT_API_URL": f"{away}/api"}
    done = mulan("doctor", "--json", home=tmp_path, **env)
    wrong = {one["check"]: one for one in json.loads(done.stdout) if one["level"] == "failure"}
    assert done.returncode == 1 and wrong.keys() == {"MLflow", "Milvus", "endpoint", "Prefect"}
    for check, variable in (
        ("MLflow", "MLFLOW_TRACKING_URI"),
        ("Milvus", "MULAN_MILVUS_URI"),
        ("endpoint", "MULAN_URL"),
    ):
        assert "not answer" in wrong[check]["said"] and variable in wrong[check]["todo"], check


@pytest.mark.parametrize(
    ("answers", "level", "said"),
    [
        ({"status": 401}, "failure", "lets us not in"),
        ({"status": 404}, "failure", "as MLflow does not"),
        ({"body": "2.1.0"}, "warning", "mlflow 2.1.0, older than the client"),
        ({"body": "99.0.0"}, "warning", "mlflow 99.0.0, newer than the client"),
    ],
)
def test_a_tracking_server_that_is_not_ours(settings, answers, level, said):
    with server(**answers) as url:
        finding = only(addresses.check_mlflow(replace(settings, mlflow_uri=url)))
    assert finding.level == level and said in finding.said and finding.todo


@pytest.mark.parametrize(("clock_s", "level"), [(0, None), (90, "warning"), (-3600, "failure")])
def test_clocks_that_differ(settings, clock_s, level):
    from importlib.metadata import version

    with server(body=version("mlflow"), clock_s=clock_s) as url:
        first, *clock = addresses.check_mlflow(replace(settings, mlflow_uri=url))
    assert first.level == "ok"
    assert [one.level for one in clock] == ([level] if level else [])
    assert not clock or ("ahead of" if clock_s > 0 else "behind") in clock[0].said


def test_a_password_in_an_address_is_not_shown(settings):
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    finding = only(addresses.check_mlflow(replace(settings, mlflow_uri=uri)))
    assert finding.level == "failure" and "secret" not in finding.said + finding.todo


def test_a_prefect_server_that_wants_a_password(settings):
    def found(url):
        with temporary_settings({PREFECT_API_URL: f"{url}/api", PREFECT_API_AUTH_STRING: "user:secret"}):
            return only(addresses.check_prefect(settings))

    with server(body='"3.8.8"') as url:
        assert found(url).level == "ok"
    with server(closed="/api") as url:
        refused = found(url)
    assert refused.level == "failure" and "secret" not in refused.said + refused.todo


def test_an_endpoint_that_wants_a_key(settings):
    with server(closed="/v1") as url:
        finding = only(addresses.check_endpoint(replace(settings, url=url)))
    assert finding.level == "failure" and "wants an API key" in finding.said and "MULAN_KEY" in finding.todo


def test_an_endpoint_that_is_not_ready(settings):
    with server(status=503, body='{"error": {"message": "Milvus is away"}}') as url:
        finding = only(addresses.check_endpoint(replace(settings, url=url)))
    assert finding.level == "failure" and "not ready: Milvus is away" in finding.said


def test_a_remote_that_may_be_written_and_one_that_may_not(settings, tmp_path, monkeypatch):
    good = only(addresses.check_dvc(replace(settings, dvc_remote=str(tmp_path / "remote"))))
    assert good.level == "ok" and not list((tmp_path / "remote").iterdir())
    (tmp_path / "file").write_text("")
    bad = only(addresses.check_dvc(replace(settings, dvc_remote=str(tmp_path / "file"))))
    assert bad.level == "failure"
    for name, value in {"ID": "x", "KEY": "y"}.items():
        monkeypatch.setenv(f"AWS_{'ACCESS_KEY_ID' if name == 'ID' else 'SECRET_ACCESS_KEY'}", value)
    with server(status=403) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        refused = only(addresses.check_dvc(replace(settings, dvc_remote="s3://bucket/path")))
        place = only(addresses.check_checkpoints(replace(settings, checkpoints="s3://bucket/path")))
    assert refused.level == place.level == "failure"
    assert "MULAN_DVC_REMOTE" in refused.todo and "MULAN_CHECKPOINTS" in place.todo


def test_a_cluster_that_is_away(settings):
    finding = only(addresses.check_ray(replace(settings, ray_address=f"127.0.0.1:{free_port()}")))
    assert finding.level == "failure" and "RAY_ADDRESS" in finding.todo


def test_a_home_that_cannot_be_written_and_a_disk_that_is_full(settings, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    finding = only(machine.check_home(replace(settings, home=tmp_path / "file")))
    assert finding.level == "failure" and "cannot be written" in finding.said
    monkeypatch.setattr(machine, "ENOUGH_DISK_GB", 10**9)
    assert only(machine.check_home(settings)).level == "warning"
    monkeypatch.setattr(machine, "MIN_DISK_GB", 10**8)
    assert only(machine.check_home(settings)).level == "failure"


def test_the_file_of_keys_is_judged_by_the_endpoints_rule(settings):
    assert only(machine.check_keys(settings)).level == "ok"
    keys = KeyFile(settings.keys_file)
    keys.create("website", "read")
    assert only(machine.check_keys(settings)).level == "ok"
    settings.keys_file.chmod(0o640)
    finding = only(machine.check_keys(settings))
    assert finding.level == "warning" and f"chmod 600 {settings.keys_file}" in finding.todo
    for mode in (0o644, 0o602):
        settings.keys_file.chmod(mode)
        finding = only(machine.check_keys(settings))
        assert finding.level == "failure" and finding.said.startswith("nobody gets in")
        assert str(settings.keys_file) in finding.said and "chmod 600" in finding.todo
    settings.keys_file.chmod(0o600)
    settings.keys_file.write_text("{}")
    finding = only(machine.check_keys(settings))
    assert finding.level == "failure" and "put its copy back" in finding.todo


def test_a_file_of_keys_that_a_running_endpoint_misses_is_told(settings):
    with server(503, '{"error": {"code": "keys_unavailable"}}') as url:
        finding = only(machine.check_keys(replace(settings, url=url)))
    assert finding.level == "failure" and f"{settings.keys_file} are gone" in finding.said
    with server(503, '{"error": {"code": "unavailable"}}') as url:
        assert only(machine.check_keys(replace(settings, url=url))).level == "ok"


def test_drift_from_the_lock_is_told(settings, tmp_path, monkeypatch):
    lock = tmp_path / "constraints.txt"
    lock.write_text("torch==2.0.0\nrich==1.2.3\nnumpy==" + machine._version("numpy") + "\n")
    monkeypatch.setattr(machine, "PROJECT", tmp_path)
    told, pinned, others = machine.check_versions(settings)
    assert told.level == "ok"
    assert pinned.level == "failure" and "torch" in pinned.said and "numpy" not in pinned.said
    assert others.level == "warning" and "instead of 1.2.3" in others.said


def test_the_data_of_each_catalogue_is_told_with_what_names_it(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(machine.check_data(settings)) == [], "nothing here is a workspace"
    folders = {name: workspace_of(settings.home, f"{name}.csv").folder for name in ("songs", "tones")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        for file in ("params.yaml", "dvc.yaml"):
            (folder / file).write_text("{}")
        note_use(settings.home, folder)

    def said():
        return [finding.said for finding in machine.check_data(settings)]

    nothing = (
        "tones, which commands mean without --catalogue: nothing is prepared; `mulan prepare --catalogue tones` does"
    )
    assert said() == [nothing]
    lock = f"stages: {{prepare: {{outs: [{{md5: {'a' * 32}.dir}}]}}}}"
    (folders["songs"] / "dvc.lock").write_text(lock)
    assert said() == [nothing, f"songs, meant by --catalogue songs: aaaaaaaa is prepared in {folders['songs']}"]
    note_use(settings.home, folders["songs"])
    assert said() == [f"songs, which commands mean without --catalogue: aaaaaaaa is prepared in {folders['songs']}"]
    for file in ("params.yaml", "dvc.yaml"):
        (tmp_path / file).write_text("{}")
    (folders["songs"] / "dvc.lock").unlink()
    (tmp_path / "dvc.lock").write_text(lock)
    assert said()[0].endswith("nothing is prepared; `mulan prepare --catalogue songs` does")
    assert said()[1] == f"demo, meant by --catalogue demo: aaaaaaaa is prepared in {tmp_path}"


def test_a_port_that_is_taken(settings, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with server() as url:
        port = int(url.rpartition(":")[2])
        Path("params.yaml").write_text(f"serve: {{port: {port}}}")
        finding = only(machine.check_port(settings))
    assert finding.level == "warning" and str(port) in finding.said


def test_a_check_that_breaks_does_not_end_the_others(settings, monkeypatch):
    def check_broken(_):
        yield from ()
        raise RuntimeError("no luck")

    monkeypatch.setattr("flows.doctor.CHECKS", (check_broken, machine.check_memory))
    broken, memory = examine(settings)
    assert broken.level == "failure" and "no luck" in broken.said and memory.check == "memory"
