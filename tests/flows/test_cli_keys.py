"""Keys and feedback through the real command: what is printed, what is kept, what is refused."""

import json

from flow_fixtures import ROOT, mulan, result_of


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


def test_feedback_is_exported_from_the_log_of_the_home(tmp_path):
    nothing = mulan("feedback", "export", "out.jsonl", home=tmp_path)
    assert nothing.returncode == 2 and "there is no query log in" in nothing.stderr
    (tmp_path / "queries").mkdir()
    search = {"kind": "search", "request_id": "r", "query": [{"text": "calm piano", "weight": 1}], "hits": ["a", "b"]}
    lines = [search, {"kind": "feedback", "request_id": "r", "track_id": "b"}]
    (tmp_path / "queries" / "2026-11-24-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert result_of(mulan("feedback", "export", "out.jsonl", "--json", home=tmp_path))["playlists"] == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["track_ids"] == ["b"]


def test_a_file_of_keys_that_cannot_be_trusted_is_one_sentence_everywhere(tmp_path):
    mulan("keys", "create", "website", home=tmp_path)
    (file,) = tmp_path.rglob("keys.json")
    file.write_text("{")
    told = f"the keys in {file} cannot be read: it is not whole JSON (line 1); put its copy back, or delete it"
    for command in (["keys", "list"], ["keys", "create", "more"], ["keys", "revoke", "website"], ["serve"]):
        done = mulan(*command, home=tmp_path, cwd=ROOT)
        assert done.returncode == 2 and told in " ".join(done.stderr.split()), (command, done.stderr)
        assert "Traceback" not in done.stderr
    examined = mulan("doctor", "--json", home=tmp_path)
    (row,) = (row for row in json.loads(examined.stdout) if row["check"] == "API keys")
    assert examined.returncode == 1 and row["level"] == "failure" and str(file) in row["said"] and row["todo"]
    assert file.read_text() == "{"
