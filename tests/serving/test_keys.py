"""The file of API keys: what it keeps and may look like, who may write it at once, what is told of a bad one."""

import json
import os
import stat
import subprocess
import sys
import time

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulan_core.errors import UserError
from serving.key import parse_keys
from serving.keys import KeyFile, check_exposed

ROOT_READS_ALL = os.geteuid() == 0


@pytest.fixture
def keys(tmp_path):
    """A file that is looked at whenever it is asked."""
    return KeyFile(tmp_path / "home" / "keys.json", recheck_s=0)


def rows_of(keys):
    return json.loads(keys.path.read_text())["keys"]


def write(keys, rows):
    keys.path.write_text(json.dumps({"keys": rows}))


def changed(row, **fields):
    return row | fields


WRONG_ROWS = {
    "no salt": lambda row: {k: v for k, v in row.items() if k != "salt"},
    "no name": lambda row: {k: v for k, v in row.items() if k != "name"},
    "an unknown scope": lambda row: changed(row, scope="root"),
    "a scope that is a list": lambda row: changed(row, scope=["admin"]),
    "a digest that is no hex": lambda row: changed(row, digest="z" * 64),
    "a digest that is cut off": lambda row: changed(row, digest=row["digest"][:-2]),
    "no digest but an empty one": lambda row: changed(row, digest=""),
    "a salt that is no hex": lambda row: changed(row, salt="salt" * 8),
    "an empty salt": lambda row: changed(row, salt=""),
    "an id that is none": lambda row: changed(row, key_id="../../x"),
    "an unknown field": lambda row: changed(row, admin=True),
    "a rate that is NaN": lambda row: changed(row, rate_per_s=float("nan")),
    "a rate that is infinite": lambda row: changed(row, rate_per_s=float("inf")),
    "a rate below 0": lambda row: changed(row, rate_per_s=-1),
    "a rate that is true": lambda row: changed(row, rate_per_s=True),
    "a rate in words": lambda row: changed(row, rate_per_s="1"),
    "revoked: false": lambda row: changed(row, revoked_at=False),
    "a number for a name": lambda row: changed(row, name=7),
    "null": lambda row: None,
    "a list": list,
}
WRONG_FILES = {
    "nothing": "",
    "blanks": " \n",
    "half of it": '{"keys": [{"key_id": "0011',
    "a brace": "{",
    "an object": "{}",
    "a list": "[]",
    "null": "null",
    "keys are null": '{"keys": null}',
    "keys are an object": '{"keys": {}}',
    "more than keys": '{"keys": [], "version": 2}',
    "keys twice": '{"keys": [], "keys": []}',
    "two files in one": '{"keys": []}{"keys": []}',
    "UTF-16": '{"keys": []}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"keys": []}',
    "bytes": bytes(range(256)),
    "zeros": bytes(4096),
    "nested without end": "[" * 100_000,
}


def test_a_key_is_kept_as_a_hash_that_only_its_owner_reads(keys):
    secret, key = keys.create("website", "read")
    content = keys.path.read_text()
    assert secret not in content and secret.split("_", 2)[2] not in content
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert keys.find(secret) == key
    assert "digest" not in key.about() and "salt" not in key.about()
    for wrong in ("", "mulan_", secret[:-1], secret + "x", secret.replace(key.key_id, "00000000"), secret.upper(), "é"):
        assert keys.find(wrong) is None
    with pytest.raises(UserError, match="there is a key 'website' already"):
        keys.create("website", "read")
    with pytest.raises(UserError, match="no scope 'all'"):
        keys.create("x", "all")
    with pytest.raises(UserError, match="no key in use has the id or name 'nobody'"):
        keys.revoke("nobody")


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none(keys, rate):
    with pytest.raises(UserError, match="requests a second is none; give a number above 0"):
        keys.create("x", "read", rate_per_s=rate)


def test_a_key_is_named_by_the_rule_of_names(keys):
    for name in ("", "  ", "bad name ", "\xa0x", "a\nb", "a\u2028", "\x1b[31m", "\x85", "\udc80", "\u200b", "x" * 257):
        with pytest.raises(UserError, match=r"^the name of a key: .*(; | is required)"):
            keys.create(name, "read")
    assert not keys.path.parent.exists(), "nothing was begun"
    for name in ("web site", "a\u3000b", "söng 👩\u200d🎤", "x" * 256):
        keys.create(name, "read")
        assert keys.revoke(name).name == name


@pytest.mark.parametrize("wrong", WRONG_ROWS)
def test_a_row_that_cannot_be_trusted_closes_all_of_the_file(keys, wrong):
    secret, _ = keys.create("good", "admin")
    keys.create("bad", "read")
    first, second = rows_of(keys)
    assert parse_keys(keys.path.read_bytes())
    write(keys, [first, WRONG_ROWS[wrong](second)])
    told = keys.look()
    assert told.needed and not told.by_id and keys.find(secret) is None
    assert f"the keys in {keys.path} cannot be read: key 2 " in told.fault
    assert told.fault.endswith("; put its copy back, or move it away and run `mulan keys reset` to make new ones")
    assert first["salt"] not in told.fault and first["digest"] not in told.fault
    write(keys, [first, second])
    assert keys.find(secret)


@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_a_file_that_cannot_be_trusted_closes(keys, wrong):
    secret, _ = keys.create("good", "admin")
    content = WRONG_FILES[wrong]
    keys.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told = keys.look()
    assert told.needed and keys.find(secret) is None
    assert f"the keys in {keys.path} cannot be read: it " in told.fault
    for act in (keys.list, keys.active, lambda: keys.create("more", "read"), lambda: keys.revoke("good")):
        with pytest.raises(UserError, match="put its copy back"):
            act()
    with pytest.raises(UserError, match="put its copy back"):
        check_exposed("127.0.0.1", KeyFile(keys.path), allow_open=False)


def test_two_rows_of_one_id(keys):
    keys.create("a", "read")
    (row,) = rows_of(keys)
    write(keys, [row, row | {"revoked_at": "2026-01-01T00:00:00Z"}])
    assert "key 2 has the id of another one" in keys.look().fault


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_is_cut_off_or_put_in_a_file_opens_with_its_own_keys_or_not_at_all(tmp_path_factory, data):
    """Every cut and every byte that differs: the keys are those that were made, or there is a fault."""
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json", recheck_s=0)
    keys.create("website", "read")
    made, content = keys.list(), bytearray(keys.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] = data.draw(st.integers(0, 255))
    keys.path.write_bytes(content)
    told = keys.look()
    assert told.needed
    if not told.fault:
        (key,) = told.by_id.values()
        assert key.scope == made[0].scope and key.revoked_at is None, "one byte makes no other scope, and no revocation"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o606, 0o601, 0o777])
def test_a_file_that_others_reach(keys, mode):
    secret, _ = keys.create("website", "read")
    assert keys.find(secret)
    keys.path.chmod(mode)
    assert keys.find(secret) is None
    assert f"{keys.path} may be {'changed' if mode & 2 else 'read'} by anyone on this machine; run chmod 600" in (
        keys.look().fault
    )
    with pytest.raises(UserError, match="run chmod 600"):
        keys.list()
    keys.path.chmod(0o600)
    assert keys.find(secret)


def test_a_group_may_share_the_file_and_keeps_it(keys):
    """As Kubernetes mounts volumes of an fsGroup."""
    keys.create("website", "read")
    keys.path.chmod(0o660)
    keys.create("other", "read")
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o660 and len(keys.list()) == 2


def in_its_place(keys, kind):
    keys.path.unlink()
    if kind == "folder":
        keys.path.mkdir()
    elif kind == "pipe":
        os.mkfifo(keys.path)
    elif kind == "link to nothing":
        keys.path.symlink_to("nowhere.json")
    elif kind == "link in a circle":
        keys.path.symlink_to(keys.path.name)
    elif kind == "device":
        keys.path.symlink_to("/dev/zero")
    elif kind == "a file as its folder":
        keys.path.parent.rename(keys.path.parent.with_name("away"))
        keys.path.parent.write_text("")


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "link to nothing", "link in a circle", "device", "a file as its folder"]
)
def test_what_is_no_file_closes_at_once_for_whoever_looks(keys, kind):
    secret, _ = keys.create("website", "read")
    in_its_place(keys, kind)
    before = psutil.Process().num_fds()
    for file in [keys, *(KeyFile(keys.path) for _ in range(20))]:
        told = file.look()
        assert told.needed and told.find(secret) is None and str(keys.path) in told.fault
        assert "; " in told.fault, "it says what to do"
        with pytest.raises(UserError):
            check_exposed("localhost", file, allow_open=True)
    assert psutil.Process().num_fds() <= before + 1, "no handle is left open"


@pytest.mark.skipif(ROOT_READS_ALL, reason="root may read everything")
def test_a_file_that_cannot_be_read(keys):
    secret, _ = keys.create("website", "read")
    keys.path.chmod(0)
    assert keys.find(secret) is None and "cannot be read: Permission denied" in keys.look().fault
    keys.path.chmod(0o600)
    assert keys.find(secret)


def test_a_file_that_cannot_be_read_to_another_user_or_has_a_folder_that_may_not_be_written(keys):
    """What the test before cannot try as root: a process of user 65534 looks."""
    if not ROOT_READS_ALL:
        pytest.skip("only root may become somebody else")
    keys.create("website", "read")
    look = (
        "import os, sys; from serving.keys import KeyFile; keys = KeyFile(sys.argv[1], had_keys=True); "
        "os.setgid(65534); os.setuid(65534); print(len(keys.look().by_id), keys.look().fault)"
    )
    for folder in (keys.path.parent, *keys.path.parent.parents):
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(folder.stat().st_mode | 0o011)

    def said():
        command = [sys.executable, "-c", look, str(keys.path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "cannot be read: Permission denied; see that the endpoint's user may read" in said()
    os.chown(keys.path, 65534, 65534)
    mark(keys).unlink()
    assert said() == "1 None\n" and not mark(keys).exists(), "as secrets are mounted: no mark, and no fault"


def test_a_file_that_is_gone_closes_whoever_has_seen_it_or_knows_of_it(keys):
    fresh = KeyFile(keys.path, recheck_s=0)
    assert not fresh.look().needed, "nobody has made a key yet"
    with pytest.raises(UserError, match="no key in use"):
        keys.revoke("nobody")
    assert not KeyFile(keys.path).look().needed, "who only asks leaves no mark"
    assert KeyFile(keys.path, had_keys=True).look().fault
    secret, _ = keys.create("website", "read")
    assert fresh.find(secret)
    away = keys.path.rename(keys.path.with_name("away"))
    mark(keys).unlink()
    for file in (fresh, keys, KeyFile(keys.path, had_keys=True)):
        assert file.look().needed and file.find(secret) is None
        assert f"the keys in {keys.path} are gone; put the file back" in file.look().fault
    away.rename(keys.path)
    assert fresh.find(secret) and keys.find(secret)


def mark(keys):
    return keys.path.with_name(".keys.json.mark")


def closed_to_all_who_come_later(keys):
    """What each command, a new endpoint and a new replica say where the file is gone: the same."""
    told = f"^the keys in {keys.path} are gone; put the file back, or run `mulan keys reset` and start "
    with pytest.raises(UserError, match=told):
        check_exposed("127.0.0.1", KeyFile(keys.path), allow_open=False)
    with pytest.raises(UserError, match=told):
        check_exposed("0.0.0.0", KeyFile(keys.path), allow_open=True)
    for act in (lambda k: k.list(), lambda k: k.create("more", "read"), lambda k: k.revoke("website")):
        with pytest.raises(UserError, match=told):
            act(KeyFile(keys.path))
    assert KeyFile(keys.path).look().needed and not keys.path.exists()


@pytest.mark.parametrize("came", ["made here", "put there by hand", "by a link", "damaged", "all revoked"])
def test_a_file_that_was_ever_seen_is_missed_by_who_never_saw_it(keys, came, tmp_path):
    elsewhere = KeyFile(tmp_path / "elsewhere" / "keys.json")
    secret, _ = (keys if came in ("made here", "all revoked") else elsewhere).create("website", "read")
    if came == "all revoked":
        keys.revoke("website")
    elif came != "made here":
        keys.path.parent.mkdir()
        content = elsewhere.path.read_bytes()
        if came == "by a link":
            keys.path.symlink_to(elsewhere.path)
        else:
            keys.path.write_bytes(content[:-3] if came == "damaged" else content)
            keys.path.chmod(0o600)
        assert bool(KeyFile(keys.path).look().fault) == (came == "damaged"), "an endpoint, or a command, looks once"
    with pytest.raises(UserError, match="is still there; move it away first"):
        KeyFile(keys.path).reset()
    away = keys.path.rename(tmp_path / "away")
    closed_to_all_who_come_later(keys)
    away.rename(keys.path)
    assert (KeyFile(keys.path).find(secret) is not None) == (came not in ("damaged", "all revoked"))

    keys.path.unlink()
    KeyFile(keys.path).reset()
    assert not KeyFile(keys.path).look().needed and KeyFile(keys.path).list() == []
    check_exposed("127.0.0.1", KeyFile(keys.path), allow_open=False)
    assert keys.look().needed == (came in ("made here", "all revoked")), "who has seen the keys stays closed"
    secret, _ = KeyFile(keys.path).create("website", "read")
    assert keys.find(secret)
    keys.path.unlink()
    closed_to_all_who_come_later(keys)


def test_a_mark_that_cannot_be_looked_for_closes(tmp_path):
    """Its name is longer than the file's, and here too long for the file system."""
    told = KeyFile(tmp_path / (250 * "k")).look()
    assert told.needed and "cannot be read: File name too long" in told.fault


@pytest.mark.parametrize("clock", ["this file system's", "of seconds"])
def test_a_write_within_a_tick_of_the_clock_is_seen(keys, clock, monkeypatch):
    """Same size, same inode, same time: until Linux 6.13 file systems told no more than some milliseconds apart."""
    if clock == "of seconds":
        monkeypatch.setattr("serving.keys._stamp", lambda s: (s.st_ino, s.st_size, s.st_mode, s.st_ctime_ns // 10**9))
    first, _ = keys.create("one", "read")
    other = KeyFile(keys.path.with_name("other.json"), recheck_s=0)
    second, _ = other.create("two", "read")
    ours, theirs = keys.path.read_bytes(), other.path.read_bytes()
    assert len(ours) == len(theirs)
    for _ in range(200):
        for content, opens, closed in ((theirs, second, first), (ours, first, second)):
            with keys.path.open("r+b") as file:
                file.write(content)
            assert keys.find(opens) and not keys.find(closed)


def test_a_file_that_stays_is_read_no_more(keys, monkeypatch):
    secret, _ = keys.create("website", "read")
    monkeypatch.setattr("serving.keys._SETTLES_S", 0.05)
    time.sleep(0.1)
    assert keys.find(secret)
    time.sleep(0.1)
    assert keys.find(secret)
    monkeypatch.setattr("serving.keys.parse_keys", lambda _: pytest.fail("it was read"))
    assert keys.find(secret)


def test_two_who_change_the_file_at_once_lose_nothing(keys):
    """Eight processes make and revoke keys: a change that is lost may be a revocation."""
    work = (
        "import sys; from serving.keys import KeyFile; keys = KeyFile(sys.argv[1]); who = sys.argv[2]\n"
        "for i in range(6):\n"
        "    keys.create(f'{who}-{i}', 'read')\n"
        "    if i % 2: keys.revoke(f'{who}-{i}')\n"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", work, str(keys.path), str(i)]) for i in range(8)]
    assert [job.wait(60) for job in jobs] == [0] * 8
    made = {key.name: key.revoked_at is not None for key in keys.list()}
    assert made == {f"{who}-{i}": bool(i % 2) for who in range(8) for i in range(6)}


def test_a_link_stays_a_link(keys):
    keys.create("one", "read")
    real = keys.path.rename(keys.path.with_name("real.json"))
    keys.path.symlink_to(real.name)
    keys.create("two", "read")
    assert keys.path.is_symlink() and len(KeyFile(real).list()) == 2


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(UserError, match=r"the keys in .* cannot be written: "):
        KeyFile(tmp_path / "home" / "keys.json").create("x", "read")
