"""People who search while a drill breaks or switches something."""

import threading
import time

import httpx

from mulan_core.errors import UserError
from serving.client import MulanClient


class Callers:
    """Two callers that ask one search after another until they are stopped, by ``MulanClient`` or by plain HTTP."""

    count = 2

    def __init__(self, url, *, patient=False, k=5):
        self.answers, self.failures, self._stop = [], [], threading.Event()
        self._search = {"text": "calm piano", "k": k}
        ask = self._ask_by_client if patient else self._ask
        self._threads = [threading.Thread(target=ask, args=(url,)) for _ in range(self.count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, timeout_s=60):
        """Until each caller has been answered several times from now on."""
        enough, deadline = len(self.answers) + 5 * self.count, time.monotonic() + timeout_s
        while len(self.answers) < enough:
            assert time.monotonic() < deadline, f"no more answers; failures: {self.failures[-3:]}"
            time.sleep(0.1)

    def _ask(self, url):
        with httpx.Client(base_url=url, timeout=60) as client:
            while not self._stop.is_set():
                try:
                    response = client.post("/v1/search", json=self._search)
                    if response.is_success:
                        self.answers.append(response.json())
                    else:
                        self.failures.append(response)
                except httpx.HTTPError as error:
                    self.failures.append(error)

    def _ask_by_client(self, url):
        with MulanClient(url, timeout_s=60, retries=20) as client:  # a busy machine starts Milvus slowly
            while not self._stop.is_set():
                try:
                    self.answers.append(client.search_text(self._search["text"], k=self._search["k"]))
                except UserError as error:
                    self.failures.append(error)
