"""Pushing to a hub and opening from it, with the real client against a hub of one folder on this machine.

The stand-in speaks the client's own protocol (create, preupload, commit, resolve) and takes every file inline. What
it cannot show is the real hub's own part: accounts, large-file storage and its limits.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from model_fixtures import inputs, processor, tiny_model

from mulan_core import MuLanModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "me/mulan"


class Hub(BaseHTTPRequestHandler):
    """One repository, at the commit COMMIT; its files are ``server.files``, what was asked ``server.asked``."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        base = f"http://{self.headers['Host']}/{NAME}"
        if self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self.answer({"url": base, "id": NAME})
        elif self.path == f"/api/models/{NAME}/preupload/main":
            paths = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif self.path == f"/api/models/{NAME}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{base}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"error": f"no {self.path}"}, status=404)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in (f"/api/models/{NAME}/revision/main", f"/api/models/{NAME}"):
            self.answer({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": f} for f in self.server.files]})
            return
        file = path.removeprefix(f"/{NAME}/resolve/").partition("/")[2]
        if file in self.server.files:
            self.answer(self.server.files[file])
        else:
            self.answer({"error": "no such file"}, status=404)

    do_HEAD = do_GET

    def answer(self, value, status=200):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.asked = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_what_is_pushed_opens_from_the_hub(hub, tmp_path):
    model = tiny_model(seed=3)
    model.save_pretrained(tmp_path / "model")
    processor().save_pretrained(tmp_path / "model")
    script = f"""
import torch
from mulan_core import MuLanModel, MuLanProcessor
from transformers import AutoModel, AutoProcessor
MuLanModel.from_pretrained({str(tmp_path / "model")!r}).push_to_hub({NAME!r})
MuLanProcessor.from_pretrained({str(tmp_path / "model")!r}).push_to_hub({NAME!r}, commit_message="And its processor")
model, processor = MuLanModel.from_pretrained({NAME!r}), MuLanProcessor.from_pretrained({NAME!r})
assert type(AutoModel.from_pretrained({NAME!r})) is MuLanModel
assert type(AutoProcessor.from_pretrained({NAME!r})) is MuLanProcessor
model.save_pretrained({str(tmp_path / "again")!r})
processor.save_pretrained({str(tmp_path / "again")!r}, push_to_hub=True, repo_id={NAME!r}, token="hf_own")
"""
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_made_up",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "README.md"} <= set(
        hub.files
    )
    assert {token for _, token in hub.asked} == {"Bearer hf_made_up", "Bearer hf_own"}
    again = MuLanModel.from_pretrained(tmp_path / "again")
    for ours, pushed in zip(model(**inputs()), again(**inputs()), strict=True):
        torch.testing.assert_close(ours, pushed, rtol=0, atol=1e-6)
