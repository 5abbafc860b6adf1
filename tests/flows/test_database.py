"""MLflow's local database: its address whatever the home is called, and every way in which it may be damaged."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.doctor.addresses import check_mlflow
from flows.doctor.status import find_status
from flows.registry import Registry
from flows.runtime.catalogues import Catalogue
from flows.runtime.database import check_database, database_path, database_uri
from flows.runtime.settings import read_settings
from flows.runtime.tracking import NoRegistryError, check_tracking, reading, tracking
from mulan_core.errors import UserError

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 250
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
def test_sqlalchemy_finds_the_file_whatever_its_folder_is_called(name):
    path = Path("/home") / name / "mlflow.db"
    for driver in ("", "aiosqlite"):
        address = database_uri(path, driver)
        assert sqlalchemy.engine.make_url(address).database == str(path)
        assert database_path(address) == path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////a/mlflow.db", "/a/mlflow.db"),
        ("sqlite+pysqlite:////a%3F/mlflow.db?mode=ro", "/a?/mlflow.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("http://127.0.0.1:5000", None),
        ("postgresql://me@host/mlflow", None),
    ],
)
def test_which_addresses_are_files(uri, path):
    assert database_path(uri) == (path and Path(path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A registry with a run, its file and a version."""
    home = tmp_path_factory.mktemp("whole")
    uri = database_uri(home / "mlflow.db")
    with tracking(uri) as client:
        with mlflow.start_run() as run:
            mlflow.log_dict({"a": 1}, "x/y.json")
        client.create_registered_model("mulan")
        client.create_model_version("mulan", f"{run.info.artifact_uri}/x", run.info.run_id)
        client.set_registered_model_alias("mulan", "champion", "1")
    return home


@pytest.fixture
def home(whole, tmp_path, monkeypatch):
    """A copy of it where a home is; what names it says so by now."""
    copy = tmp_path / "a home?of=100%25 #1 ü"
    shutil.copytree(whole, copy)
    monkeypatch.setenv("MULAN_HOME", str(copy))
    monkeypatch.chdir(tmp_path)
    with reading(read_settings().mlflow_uri):
        pass
    return copy


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill_the_middle(path):
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = b"\xa5" * (len(content) // 2 - 4096)
    path.write_bytes(content)


def make_a_folder(path):
    path.unlink()
    path.mkdir()


def execute(statement):
    def change(path):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(statement)

    return change


DAMAGE = {
    "cut": (cut, "is damaged"),
    "changed": (fill_the_middle, "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "another file": (lambda path: path.write_text("no database at all " * 500), "is no SQLite database"),
    "a folder": (make_a_folder, "is a folder"),
    "newer": (execute("UPDATE alembic_version SET version_num = 'ffff00001111'"), "as of a newer one"),
    "older": (execute("UPDATE alembic_version SET version_num = '451aebb31d03'"), "`mlflow db upgrade "),
    "deleted experiment": (
        execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'mulan'"),
        "mlflow experiments restore --experiment-id 1",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whoever_asks_a_damaged_database_hears_the_same_sentence(damage, home):
    change, said = DAMAGE[damage]
    change(home / "mlflow.db")
    before = content_of(home)
    found = read_settings()
    heard = set()
    for ask in (
        lambda: find_status(found),
        Registry.of(found, Catalogue("demo")).versions,
        Registry.of(found, Catalogue("demo")).champions,
        lambda: Registry.of(found, Catalogue("demo")).find("champion"),
        lambda: tracking(found.mlflow_uri).__enter__(),
    ):
        with pytest.raises(UserError, match=r"^[^\n]+$") as error:
            ask()
        heard.add(str(error.value))
    assert len(heard) == 1 and said in heard.pop() and content_of(home) == before
    (finding,) = check_mlflow(found)
    assert finding.level == "failure" and said in f"{finding.said}; {finding.todo}"


def content_of(home):
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_home_without_a_database_is_read_and_stays_without(tmp_path, monkeypatch):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    found = read_settings()
    registry = Registry.of(found, Catalogue("demo"))
    assert registry.versions() == registry.champions() == [] and registry.get("champion") is None
    assert find_status(found)["runs"] == []
    with pytest.raises(NoRegistryError, match="`mulan run` makes some"), reading(found.mlflow_uri):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_new_database_of_no_bytes_is_a_new_one(tmp_path):
    (tmp_path / "mlflow.db").touch()
    check_database(tmp_path / "mlflow.db")  # MLflow makes the file first, and then what is in it


def test_a_change_that_was_cut_off_is_left_to_sqlite(home):
    path = home / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN EXCLUSIVE")
        check_database(path)  # locked, as while another process writes


@pytest.mark.parametrize(
    ("uri", "said"),
    [("{}/mlruns", "migrate-filestore"), ("file://{}/mlruns", "migrate-filestore"), ("bogus://x", "none of http")],
)
def test_what_mlflow_does_not_take_is_told(uri, said, tmp_path):
    with pytest.raises(UserError, match=said):
        check_tracking(uri.format(tmp_path))
