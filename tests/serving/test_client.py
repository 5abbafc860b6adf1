"""The client, where an endpoint is busy, hangs up or wants a key; and the exported text tower beside the model."""

import http.server
import threading
import time

import numpy as np
import pytest

from mulan_core.errors import UserError
from serving.client import MulanClient
from serving.encoder import Encoder
from serving.onnx_text_encoder import export_text_program

pytestmark = pytest.mark.slow


@pytest.fixture
def script():
    """An endpoint that plays what it is told: (status, headers) or None to hang up; then 200."""
    plan, seen = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((time.monotonic(), self.headers.get("Authorization")))
            act = plan.pop(0) if plan else (200, {})
            if act is None:
                self.close_connection = True
                return
            self.send_response(act[0])
            body = b'{"error": {"message": "busy"}}' if act[0] != 200 else b"{}"
            for name, value in {**act[1], "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", plan, seen
    server.shutdown()


def test_a_busy_endpoint_is_asked_again_when_it_says(script):
    url, plan, seen = script
    lost = (500, {"Content-Type": "text/plain", "Retry-After": "0"})  # Ray Serve's, where a replica died
    plan += [(429, {"Retry-After": "1"}), (503, {"Retry-After": "0"}), None, lost]
    with MulanClient(url, key="mulan_x", retries=4) as client:
        assert client.release() == {}
    assert len(seen) == 5 and seen[1][0] - seen[0][0] >= 0.95
    assert {key for _, key in seen} == {"Bearer mulan_x"}


def test_it_gives_up_with_the_endpoints_own_words(script):
    url, plan, seen = script
    plan += [(503, {"Retry-After": "0"})] * 9
    with MulanClient(url, retries=2) as client, pytest.raises(UserError, match="answers: busy"):
        client.release()
    assert len(seen) == 3
    plan[:] = [None] * 9
    with MulanClient(url, retries=1) as client, pytest.raises(UserError, match="hangs up"):
        client.release()
    plan[:] = [(500, {"Content-Type": "application/json"})]
    with MulanClient(url) as client, pytest.raises(UserError, match="answers: busy"):
        client.release()


def test_the_exported_text_tower_gives_the_models_vectors(model_folder):
    assert export_text_program(model_folder, "torch") is None
    program = export_text_program(model_folder, "onnx")
    made = program.stat().st_mtime_ns
    assert export_text_program(model_folder, "onnx").stat().st_mtime_ns == made, "once"
    texts = ["techno", "a long text about a piano in the rain, late at night", "sad", *map(str, range(40))]
    np.testing.assert_allclose(
        Encoder(model_folder, text_program=program).encode_texts(texts),
        Encoder(model_folder).encode_texts(texts),
        atol=1e-4,
    )


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://[::1", "http://127.0.0.1:99999", "", "http://"])
def test_what_is_no_address_is_told_so_and_not_that_nobody_answers(url):
    with pytest.raises(UserError, match=r"is no address of an endpoint.*it is like http://127\.0\.0\.1:8000"):
        MulanClient(url)


@pytest.mark.parametrize("key", ["\u00e9", "a\nb", "two words", "tab\t"])
def test_a_key_that_was_pasted_wrong_is_told_so(key):
    with pytest.raises(UserError, match="letters that no key has"):
        MulanClient("http://127.0.0.1:1", key=key)
