"""Who gets in while the file of API keys is written, damaged, opened to others, moved and put back: a model of the file
says who may, and the endpoint is asked over HTTP."""

import itertools
import json
import logging
import shutil
import time
from dataclasses import dataclass, replace

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from serving_fixtures import SERVE, check_error, run_bare

from mulan_core.errors import UserError
from serving.app import create_api
from serving.key import SCOPES
from serving.keys import KeyFile

pytestmark = pytest.mark.slow

CONFIG = replace(SERVE, rate_per_s=1e6)
ASKED = {  # what is asked, the scope it needs, and what is answered to who may
    ("GET", "/livez"): (None, 200),
    ("GET", "/page/app.js"): (None, 200),
    ("GET", "/v1/release"): ("read", 200),
    ("GET", "/v1/tracks/none"): ("read", 404),
    ("GET", "/nowhere"): ("read", 404),
    ("DELETE", "/v1/tracks/none"): ("write", 404),
    ("POST", "/v1/tracks"): ("write", 415),
    ("GET", "/metrics"): ("admin", 200),
}
SECRET = "path-that-nobody-is-told"
DAMAGE = ("", "{", "{}", "null", '{"keys": [null]}', '{"keys": [{"key_id": "00112233"}]}', "\x00" * 600)
NO_FILES = ("folder", "link to nothing", "link in a circle")


@dataclass(frozen=True)
class Made:
    """A key that was made, as the model knows it."""

    secret: str
    scope: str
    is_revoked: bool = False


class Door:
    """What an endpoint looks at for its keys: each run, and each new replica, puts its own file there."""

    file: KeyFile

    def look(self):
        return self.file.look()


def machine_over(folder, door, client, counts):
    """The state machine; a class, as hypothesis wants it."""
    numbers = itertools.count()

    class Keys(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            self.home = folder / f"{SECRET}-{next(numbers)}"
            self.home.mkdir()
            self.path, self.away = self.home / "keys.json", self.home / "away.json"
            door.file = KeyFile(self.path, recheck_s=0)
            self.held: dict[str, Made] | None = None  # what a right file holds; None: the file is missing or wrong
            self.is_missing, self.mode = True, 0o600
            self.there, self.copies = None, []  # what was moved away, and copies that were kept
            self.ever = False
            self.secrets = ["", "mulan_00000000_" + 43 * "x"]

        # What the model says.

        @property
        def is_closed(self):
            return self.ever and (self.is_missing or self.held is None or bool(self.mode & 7))

        def expected(self, asked, secret):
            needed, passes = ASKED[asked]
            if needed is None or not self.ever:
                return passes
            if self.is_closed:
                return 503
            key = next((key for key in self.held.values() if key.secret == secret), None)
            if key is None or key.is_revoked:
                return 401
            return passes if SCOPES.index(needed) <= SCOPES.index(key.scope) else 403

        def put(self, held, *, mode=0o600):
            self.held, self.is_missing, self.mode, self.ever = held, False, mode, True

        # What happens to the file.

        def tell(self, act):
            """A command of the operator: it works on a right file alone, and says where the file is otherwise."""
            if self.is_closed:
                with pytest.raises(UserError, match=SECRET):
                    act()
                return None
            return act()

        @rule(scope=st.sampled_from(SCOPES))
        def make(self, scope):
            name = f"key-{next(numbers)}"
            made = self.tell(lambda: KeyFile(self.path).create(name, scope))
            if made:
                self.secrets.append(made[0])
                self.put(
                    (self.held or {}) | {name: Made(made[0], scope)}, mode=self.mode if not self.is_missing else 0o600
                )

        @precondition(lambda self: not self.is_missing and self.held)
        @rule(data=st.data())
        def revoke(self, data):
            name = data.draw(st.sampled_from([*self.held]))
            if self.held[name].is_revoked:
                return
            if self.tell(lambda: KeyFile(self.path).revoke(name)):
                self.held = self.held | {name: replace(self.held[name], is_revoked=True)}

        def clear(self):
            if self.path.is_dir() and not self.path.is_symlink():
                self.path.rmdir()
            self.path.unlink(missing_ok=True)

        @rule(content=st.sampled_from(DAMAGE), in_place=st.booleans())
        def damage(self, content, in_place):
            self.write(content.encode(), in_place)
            self.put(None)

        @precondition(lambda self: not self.is_missing and self.held is not None)
        @rule(share=st.floats(0, 0.99), in_place=st.booleans())
        def half_write(self, share, in_place):
            content = self.path.read_bytes()
            self.write(content[: int(share * len(content))], in_place)
            self.put(None)

        @precondition(lambda self: not self.is_missing and self.held)
        @rule(data=st.data())
        def damage_a_row(self, data):
            whole = json.loads(self.path.read_text())
            row = data.draw(st.sampled_from(whole["keys"]))
            field = data.draw(st.sampled_from(["key_id", "scope", "salt", "digest", "created_at"]))
            if data.draw(st.booleans()):
                del row[field]
            else:
                row[field] = data.draw(st.sampled_from([None, 7, True, ["read"]]))
            self.write(json.dumps(whole).encode(), True)
            self.put(None)

        def write(self, content, in_place):
            if in_place and self.path.is_file():
                with self.path.open("r+b") as file:
                    file.write(content)
                    file.truncate()
            else:
                self.clear()
                self.path.write_bytes(content)
            self.path.chmod(0o600)

        @precondition(lambda self: not self.is_missing and self.path.is_file())
        @rule(mode=st.sampled_from([0o600, 0o640, 0o660, 0o604, 0o644, 0o602, 0o666]))
        def chmod(self, mode):
            self.path.chmod(mode)
            self.mode = mode

        @precondition(lambda self: not self.is_missing and self.path.is_file() and self.there is None)
        @rule()
        def move_away(self):
            self.path.rename(self.away)
            self.there, self.held, self.is_missing = (self.held, self.mode), None, True

        @precondition(lambda self: self.there is not None)
        @rule()
        def move_back(self):
            self.clear()
            self.away.rename(self.path)
            (held, mode), self.there = self.there, None
            self.put(held, mode=mode)

        @precondition(lambda self: not self.is_missing and self.held is not None)
        @rule()
        def keep_a_copy(self):
            copy = self.home / f"copy-{next(numbers)}"
            shutil.copy2(self.path, copy)
            self.copies.append((copy, self.held))

        @precondition(lambda self: self.copies)
        @rule(data=st.data(), in_place=st.booleans())
        def put_a_copy_back(self, data, in_place):
            copy, held = data.draw(st.sampled_from(self.copies))
            self.write(copy.read_bytes(), in_place)
            self.put(held)

        @rule(scope=st.sampled_from(SCOPES))
        def replace_by_another(self, scope):
            other = KeyFile(self.home / f"other-{next(numbers)}.json")
            secret, _ = other.create("another", scope)
            self.clear()
            other.path.rename(self.path)
            self.secrets.append(secret)
            self.put({"another": Made(secret, scope)})

        @rule(kind=st.sampled_from(NO_FILES))
        def put_no_file_there(self, kind):
            self.clear()
            if kind == "folder":
                self.path.mkdir()
            else:
                self.path.symlink_to("nowhere" if kind == "link to nothing" else self.path.name)
            self.put(None)

        @rule()
        def delete(self):
            self.clear()
            self.held, self.is_missing = None, True

        @rule(told=st.booleans())
        def start_a_replica(self, told):
            """A deployment tells it whether there have been keys; an endpoint that starts anew is told nothing."""
            door.file = KeyFile(self.path, had_keys=told and self.ever, recheck_s=0)

        @rule()
        def look_while_no_endpoint_runs(self):
            """And in a home that has lost its keys make another, which would take the place of those."""
            if self.is_closed:
                for act in (lambda keys: keys.list(), lambda keys: keys.create("silent", "admin")):
                    with pytest.raises(UserError, match=SECRET):
                        act(KeyFile(self.path))
                assert not self.is_missing or not self.path.exists()
            else:
                assert len(KeyFile(self.path).list()) == len(self.held or {})

        @rule()
        def start_anew_without_keys(self):
            if not self.is_missing:
                with pytest.raises(UserError, match="is still there"):
                    KeyFile(self.path).reset()
                return
            KeyFile(self.path).reset()
            door.file = KeyFile(self.path, recheck_s=0)
            self.ever = False

        # What the endpoint says of it.

        @invariant()
        def who_may_gets_in_and_nobody_else(self):
            counts["steps"] += 1
            self.ask(("DELETE", "/v1/tracks/none"), "")
            for secret in self.secrets[-3:]:
                self.ask(("DELETE", "/v1/tracks/none"), secret)

        @rule(asked=st.sampled_from([*ASKED]), data=st.data())
        def ask_with_a_key(self, asked, data):
            self.ask(asked, data.draw(st.sampled_from(self.secrets)))

        @rule(asked=st.sampled_from([*ASKED]))
        def ask_with_all_keys(self, asked):
            for secret in self.secrets[-12:]:
                self.ask(asked, secret)

        @rule()
        def ask_whether_it_is_ready(self):
            response = client.get("/readyz")
            if self.is_closed:
                check_error(response, 503, "not_ready", "API keys cannot be checked now")
            else:
                assert response.status_code == 200
            assert SECRET not in response.text

        def ask(self, asked, secret):
            expected = self.expected(asked, secret)
            headers = {"Authorization": f"Bearer {secret}"} if secret else {}
            response = client.request(*asked, headers=headers)
            counts["requests"] += 1
            if response.status_code != expected and response.status_code not in (401, 403, 503):
                counts["admitted wrongly"] += 1
            assert response.status_code == expected, (asked, secret, response.text)
            if expected == 503:
                check_error(response, 503, "keys_unavailable", "nobody gets in")
                assert response.headers["retry-after"]
            assert SECRET not in response.text + str(response.headers) and "keys.json" not in response.text

        def teardown(self):
            counts["runs"] += 1

    return Keys


@pytest.mark.parametrize(
    ("runs", "steps"), [(10, 30), pytest.param(60, 50, marks=pytest.mark.load)], ids=["hundreds", "thousands"]
)
def test_the_model_says_who_gets_in(service, tmp_path, runs, steps):
    counts = {"runs": 0, "steps": 0, "requests": 0, "admitted wrongly": 0}
    door = Door()
    with run_bare(create_api(service, CONFIG, door)) as url, httpx.Client(base_url=url, timeout=30) as client:
        run_state_machine_as_test(
            machine_over(tmp_path, door, client, counts),
            settings=settings(
                max_examples=runs,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
    print(counts)  # noqa: T201 - the figure of the full run
    assert counts["steps"] >= runs * steps * 0.5 and counts["admitted wrongly"] == 0


@pytest.fixture
def door(service, tmp_path):
    """An endpoint with a file of keys as it is deployed, and a key."""
    keys = KeyFile(tmp_path / SECRET / "keys.json")
    secret, _ = keys.create("website", "admin")
    with run_bare(create_api(service, CONFIG, KeyFile(keys.path))) as url:
        headers = {"Authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=url, timeout=30, headers=headers) as client:
            yield client, keys


WRONGS = {
    "damaged": lambda path: path.write_text("{"),
    "open to others": lambda path: path.chmod(0o644),
    "moved away": lambda path: path.rename(path.with_name("moved")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def seconds_until(status, client, **more):
    began = time.monotonic()
    while client.get("/v1/release", **more).status_code != status:
        assert time.monotonic() < began + 5
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("kind", WRONGS)
def test_from_the_first_request_to_the_thousandth_the_answer_is_the_same(door, kind, caplog, monkeypatch):
    client, keys = door
    monkeypatch.setattr(logging.getLogger("mulan"), "propagate", True)
    content = keys.path.read_bytes()
    assert client.get("/v1/release").status_code == 200
    WRONGS[kind](keys.path)
    assert seconds_until(503, client) < 1
    answers = set()
    for i in range(1000 if kind == "damaged" else 100):
        headers = {"Authorization": ""} if i % 3 == 0 else {}
        response = client.request("DELETE" if i % 2 else "GET", "/v1/tracks/none", headers=headers)
        check_error(response, 503, "keys_unavailable", "^API keys cannot be checked now, so nobody gets in")
        answers.add((response.json()["error"]["message"], response.headers["retry-after"]))
        assert SECRET not in response.text
    assert len(answers) == 1
    assert client.get("/livez").status_code == client.get("/").status_code == 200
    check_error(client.get("/readyz"), 503, "not_ready", "API keys cannot be checked")
    check_error(client.get("/metrics"), 503, "keys_unavailable")
    told = [record for record in caplog.records if record.name == "mulan.serving"]
    assert len(told) == 1 and told[0].levelname == "ERROR"
    assert str(keys.path) in told[0].getMessage() and "nobody gets in" in told[0].getMessage()

    if keys.path.is_dir():
        keys.path.rmdir()
    keys.path.write_bytes(content)
    keys.path.chmod(0o600)
    assert seconds_until(200, client) < 1
    assert client.get("/readyz").status_code == 200
    told = [record for record in caplog.records if record.name == "mulan.serving"]
    assert len(told) == 2 and "right again" in told[1].getMessage()


def test_a_revoked_key_ends_within_a_second_and_its_file_opens_nothing(door):
    client, keys = door
    assert client.get("/v1/release").status_code == 200
    keys.revoke("website")
    assert seconds_until(401, client) < 1
    keys.path.unlink()
    assert seconds_until(503, client) < 1
    KeyFile(keys.path).reset()
    assert client.get("/v1/release").status_code == 503, "an endpoint that runs stays closed"
    secret, _ = KeyFile(keys.path).create("another", "read")
    assert seconds_until(200, client, headers={"Authorization": f"Bearer {secret}"}) < 1
    check_error(client.get("/v1/release"), 401, "unauthorized")
