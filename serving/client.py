"""A client of the endpoint, for the command line, flows and other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from mulan_core.errors import UserError


class MulanClient:
    """Ask an endpoint; answers are its JSON as dicts.

    Every method raises ``UserError``, in one sentence, where the endpoint is down or refuses.

    Args:
        url: of the endpoint, such as ``http://127.0.0.1:8000``.
        timeout_s: how long one answer may take.
    """

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s

    def search_text(
        self, text: str, *, k: int = 10, negative_text: str | None = None, filter: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Tracks that fit words; ``filter`` narrows by ``labels``, ``dataset`` and ``artist``."""
        return self._post("/v1/search", {"text": text, "k": k, "negative_text": negative_text, "filter": filter})

    def search_track(self, track_id: str, *, k: int = 10, filter: dict[str, Any] | None = None) -> dict[str, Any]:
        """Tracks like one of the catalogue, without itself."""
        return self._post("/v1/search", {"track_id": track_id, "k": k, "filter": filter})

    def search_audio(self, audio: str | Path | bytes, *, k: int = 10) -> dict[str, Any]:
        """Tracks like an audio file."""
        return self._upload("/v1/search", audio, {"k": str(k)})

    def tag(
        self,
        *,
        audio: str | Path | bytes | None = None,
        track_id: str | None = None,
        labels: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Labels of an audio file or of a track, best first; the catalogue's labels if none are given."""
        if audio is not None:
            return self._upload("/v1/tag", audio, {"labels": json.dumps(list(labels))} if labels else {})
        return self._post("/v1/tag", {"track_id": track_id, "labels": list(labels) if labels else None})

    def embed(self, *, texts: Sequence[str] | None = None, audio: str | Path | bytes | None = None) -> dict[str, Any]:
        """Vectors of texts or of an audio file."""
        if audio is not None:
            return self._upload("/v1/embed", audio, {})
        return self._post("/v1/embed", {"texts": list(texts or ())})

    def track(self, track_id: str) -> dict[str, Any]:
        """One track of the catalogue."""
        return self._ask("GET", f"/v1/tracks/{quote(track_id, safe='')}")

    def release(self) -> dict[str, Any]:
        """The release that is served."""
        return self._ask("GET", "/v1/release")

    def ready(self) -> dict[str, Any]:
        """That the endpoint is ready; the error says why it is not."""
        return self._ask("GET", "/readyz")

    def _post(self, path: str, values: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, json={key: value for key, value in values.items() if value is not None})

    def _upload(self, path: str, audio: str | Path | bytes, fields: dict[str, str]) -> dict[str, Any]:
        try:
            data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {audio!s}: {error.strerror or error}") from error
        return self._ask("POST", path, data=fields, files={"audio": ("audio", data)})

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            response = httpx.request(method, self.url + path, timeout=self._timeout_s, **content)
        except httpx.TimeoutException as error:
            raise UserError(f"{self.url} did not answer within {self._timeout_s:g} s") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise UserError(
                f"no MuLan endpoint answers at {self.url}; start one with `mulan serve` or `mulan demo`"
            ) from error
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise UserError(f"the endpoint at {self.url} answers: {answer['error']['message']}")
        # Serve itself answers in plain text, for example while nothing is deployed.
        words = " ".join(response.text.split())[:200]
        raise UserError(f"{self.url} does not answer as a MuLan endpoint ({response.status_code}: {words})")
