"""The endpoints of a home: one a catalogue, each with a port, found by the catalogue's name."""

import fcntl
import json
import socket
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from flow_fixtures import CATALOGUE, mulan, result_of, serving

from flows.cli.catalogue import endpoint_of
from flows.runtime.catalogues import Catalogue, changing, note_use, read_records
from flows.runtime.endpoint import choose_port, endpoint_url, reserved, served
from flows.runtime.session import _address
from flows.runtime.settings import read_settings
from flows.runtime.stack_file import LOCK, Stack, note_endpoint, write_stack
from flows.runtime.workspace import Workspace, workspace_of
from mulan_core.config import load_config
from mulan_core.errors import UserError
from serving.ports import free_port, url_of

HOST = "127.0.0.1"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of a home whose catalogues are the demo, tones and songs, songs used last; all are configured for one port."""
    monkeypatch.setenv("MULAN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MULAN_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    params = f"serve: {{port: {free_port()}}}"
    for folder in (tmp_path, *(workspace_of(tmp_path / "home", f"{name}.csv").folder for name in ("tones", "songs"))):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.yaml").write_text(params)
        (folder / "dvc.yaml").write_text("{}")
        note_use(tmp_path / "home", folder)
    return read_settings()


def port_of(settings):
    return load_config("params.yaml").serve.port


def named(settings, name):
    return read_records(settings.home).named(name)


@contextmanager
def as_served(settings, **ports):
    """As while `mulan serve` runs for these catalogues."""
    with ExitStack() as held:
        for name, port in ports.items():
            state = named(settings, name).state(settings.home)
            state.mkdir(parents=True, exist_ok=True)
            write_stack(state, Stack("a", "b", "c", "", 1, "now", endpoint=url_of(HOST, port)))
            fcntl.flock(held.enter_context((state / LOCK).open("w")), fcntl.LOCK_EX)
        yield


def test_each_catalogue_is_asked_where_it_is_served(settings, capfd):
    port = port_of(settings)
    assert served(settings.home) == {}
    assert {endpoint_of(None, name) for name in ("demo", "tones", "songs", None)} == {url_of(HOST, port)}
    with changing(settings.home) as records:
        records.by_name["tones"] = replace(records.by_name["tones"], used="2099-01-01T00:00:00+00:00")
    with as_served(settings, demo=port, tones=port + 1):
        assert served(settings.home) == {"demo": url_of(HOST, port), "tones": url_of(HOST, port + 1)}
        assert endpoint_of(None, "demo") == url_of(HOST, port)
        assert endpoint_of(None, "tones") == url_of(HOST, port + 1)
        with pytest.raises(UserError, match="songs is not served here; start it with `mulan serve --catalogue songs`"):
            endpoint_of(None, "songs")
        assert capfd.readouterr().err == ""
        assert endpoint_of(None, None) == url_of(HOST, port + 1), "the last one used of those that are served"
        assert capfd.readouterr().err == (
            "mulan: songs is not served here; tones is, and is asked (--catalogue NAME asks another)\n"
        )
        assert endpoint_of("http://there", "songs") == "http://there"
        note_use(settings.home, named(settings, "tones").folder(settings.home))
        assert endpoint_of(None, None) == url_of(HOST, port + 1)
        assert capfd.readouterr().err.startswith("mulan: the catalogue is tones, the last one used; --catalogue NAME")
    with pytest.raises(UserError, match="there is no catalogue 'tunes' here"):
        endpoint_of(None, "tunes")


def test_a_catalogue_whose_port_another_has_gets_one_and_keeps_it(settings, capfd):
    port, songs = port_of(settings), named(settings, "songs")
    workspace = Workspace(songs.folder(settings.home))
    assert choose_port(settings, songs, workspace, HOST) == port and capfd.readouterr().err == ""
    with as_served(settings, songs=port), socket.create_server((HOST, port)):
        assert choose_port(settings, songs, workspace, HOST) == port, "its own endpoint has it"
        with closing(socket.create_server((HOST, 0))):
            chosen = choose_port(settings, named(settings, "tones"), Workspace(tones_of(settings)), HOST)
        assert chosen > port and load_config(tones_of(settings) / "params.yaml").serve.port == chosen
        said = capfd.readouterr().err
        assert said.startswith(f"mulan: songs is served on port {port}, so tones is served on port {chosen}, from now")
        again = choose_port(settings, named(settings, "tones"), Workspace(tones_of(settings)), HOST)
        assert again == chosen and capfd.readouterr().err == ""
    with as_served(settings, songs=port, tones=port + 1), socket.create_server((HOST, port)):
        demo = choose_port(settings, Catalogue("demo"), Workspace(settings.home.parent), HOST)
        assert demo > port + 1 and port_of(settings) == port, "what the working folder says is left alone"
    assert choose_port(settings, Catalogue("demo"), Workspace(settings.home.parent), HOST) == port


def test_a_port_that_a_stranger_has_is_not_passed_over(settings):
    """It is refused by one sentence later, where it was asked for."""
    port = port_of(settings)
    with socket.create_server((HOST, port)):
        assert choose_port(settings, Catalogue("demo"), Workspace(settings.home.parent), HOST) == port


def test_two_that_start_at_once_do_not_share_a_port(settings, capfd):
    port, tones = port_of(settings), named(settings, "tones")
    with reserved(settings.home, port):
        with pytest.raises(UserError, match=f"port {port}.*choose another port"):
            reserved(settings.home, port).__enter__()
        chosen = choose_port(settings, tones, Workspace(tones_of(settings)), HOST)
        assert chosen > port and "another catalogue is served on" in capfd.readouterr().err
    with reserved(settings.home, port):
        pass


def test_who_deploys_to_an_endpoint_keeps_how_it_was_started(settings):
    """A promotion from another terminal knows nothing of its --host and --open."""
    unsaid = {"allow_open": False, "serves": False, "join": True}
    asked = settings, Workspace(Path.cwd()), Catalogue("demo"), None, None
    with as_served(settings, demo=port_of(settings)):
        note_endpoint(settings.home, url_of(HOST, port_of(settings)), "0.0.0.0", allow_open=True)
        with _address(*asked, **unsaid) as address:
            assert address == ("0.0.0.0", port_of(settings), True)
    with _address(*asked, **unsaid) as address:
        assert address == (HOST, port_of(settings), False), "none runs"


def test_no_endpoint_is_another_catalogues(settings):
    port = port_of(settings)
    with as_served(settings, demo=port):
        assert endpoint_url(settings, named(settings, "tones")) is None
        assert endpoint_url(settings, Catalogue("demo")) == url_of(HOST, port)


def tones_of(settings):
    return named(settings, "tones").folder(settings.home)


@pytest.mark.slow
def test_two_catalogues_are_served_side_by_side(home, first):
    """The second one, of three tracks, takes the first one's model; each answers with its own tracks alone."""
    rows = [json.loads(line) for line in (home / "tones.jsonl").read_text().splitlines()][:3]
    rows = [row | {"track_id": f"few {i}", "uri": str(home / row["uri"])} for i, row in enumerate(rows)]
    (home / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = ("--manifest", "few.jsonl", "--params", "params.yaml", "--allow-outside")
    result_of(mulan("prepare", *few, "--json", home=home))
    built = result_of(mulan("index", "--catalogue", "few", "--model", "tones/champion", "--json", home=home))
    assert built["count"] == 3
    with serving(*CATALOGUE, home=home) as (_, tones), serving("--catalogue", "few", home=home) as (_, few):
        assert tones != few
        ids_of = {"tones": {f"t{i}" for i in range(60)}, "few": {f"few {i}" for i in range(3)}}
        for name, url in (("tones", tones), ("few", few)):
            found = result_of(mulan("search", "low sine", "--catalogue", name, "--k", "60", "--json", home=home))
            assert {hit["track_id"] for hit in found["hits"]} <= ids_of[name] and found["hits"]
            assert result_of(mulan("status", "--catalogue", name, "--json", home=home))["endpoint"]["url"] == url
        listed = result_of(mulan("catalogue", "list", "--json", home=home))
        assert {row["name"]: row["endpoint"] for row in listed} == {"tones": tones, "few": few}
    assert result_of(mulan("catalogue", "remove", "few", "--yes", "--json", home=home))["removed"]
