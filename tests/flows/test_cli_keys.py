"""Keys and feedback through the real command: what is printed, what is kept, what is refused."""

import io
import json

import pytest
from flow_fixtures import ROOT, mulan, result_of

from flows.cli import app as cli
from flows.cli import doctor as cli_doctor
from flows.cli import keys as cli_keys
from flows.runtime.terminal import Terminal


def test_keys_are_made_listed_and_revoked(tmp_path):
    refused = mulan("serve", "--host", "0.0.0.0", home=tmp_path, cwd=ROOT)
    assert (
        "0.0.0.0 can be reached by others and there is no API key; make one with `mulan keys create" in refused.stderr
    )
    made = result_of(mulan("keys", "create", "website", "--rate", "20", "--json", home=tmp_path))
    assert made["key"].startswith(f"mulan_{made['key_id']}_") and made["scope"] == "read"
    listed = mulan("keys", "list", "--json", home=tmp_path)
    assert made["key"] not in listed.stdout and [key["name"] for key in result_of(listed)] == ["website"]
    assert "revoked" in mulan("keys", "revoke", "website", home=tmp_path).stdout
    again = mulan("keys", "revoke", "website", home=tmp_path)
    assert (refused.returncode, again.returncode) == (2, 2)
    assert "no key in use has the id or name 'website'" in again.stderr


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What a command of the home says, in this process, which has imported everything once: exit code and words."""
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["mulan", *arguments])
        raw = io.StringIO()
        for of in (cli, cli_keys, cli_doctor):
            monkeypatch.setattr(of, "errors" if of is cli else "console", Terminal(file=raw, width=10_000))
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, raw.getvalue()

    return run


def test_keys_that_are_gone_are_missed_by_every_command_until_a_reset(told, tmp_path):
    """With no endpoint running, as after a restored backup that lacks the file."""
    file = tmp_path / "keys.json"
    assert told("keys", "create", "website")[0] == 0
    file.unlink()
    gone = f"the keys in {file} are gone; put the file back, or run `mulan keys reset` and start the endpoint anew"
    for command in (["keys", "list"], ["keys", "create", "more"], ["keys", "revoke", "website"], ["serve"]):
        code, said = told(*command)
        assert code == 2 and said.startswith(f"mulan: {gone}") and said.count("\n") == 1, (command, said)
        assert not file.exists()
    code, said = told("doctor")
    assert code == 1 and f"nobody gets in: the keys in {file} are gone" in said and "`mulan keys reset`" in said
    code, said = told("keys", "reset")
    assert code == 0 and f"there are no keys in {file}" in said
    assert f"the keys in {file}" not in told("doctor")[1]
    code, said = told("keys", "create", "bad name ")
    assert code == 2 and said == "mulan: the name of a key: 'bad name ' has blanks at its edges; remove them\n"
    assert not file.exists() and told("keys", "list")[0] == 0


def test_feedback_is_exported_from_the_log_of_the_home(tmp_path):
    nothing = mulan("feedback", "export", "out.jsonl", home=tmp_path)
    assert nothing.returncode == 2 and "there is no query log in" in nothing.stderr
    (tmp_path / "queries").mkdir()
    search = {"kind": "search", "request_id": "r", "query": [{"text": "calm piano", "weight": 1}], "hits": ["a", "b"]}
    lines = [search, {"kind": "feedback", "request_id": "r", "track_id": "b"}]
    (tmp_path / "queries" / "2026-11-24-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert result_of(mulan("feedback", "export", "out.jsonl", "--json", home=tmp_path))["playlists"] == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["track_ids"] == ["b"]


def test_a_file_of_keys_that_cannot_be_trusted_is_one_sentence_everywhere(told, tmp_path):
    file = tmp_path / "keys.json"
    assert told("keys", "create", "website")[0] == 0
    file.write_text("{")
    wrong = f"the keys in {file} cannot be read: it is not whole JSON (line 1); put its copy back, or move it away"
    for command in (["keys", "list"], ["keys", "create", "more"], ["keys", "revoke", "website"], ["serve"]):
        code, said = told(*command)
        assert code == 2 and said.startswith(f"mulan: {wrong}") and said.count("\n") == 1, (command, said)
    code, said = told("doctor")
    assert code == 1 and f"nobody gets in: the keys in {file} cannot be read" in said and "put its copy back" in said
    assert file.read_text() == "{"
