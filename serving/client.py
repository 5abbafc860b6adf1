"""A client of the endpoint, for the command line, flows and other programs."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx

from mulan_core.data.names import why_unwritable
from mulan_core.errors import UserError
from serving.answers import (
    Answer,
    EmbedAnswer,
    Filter,
    MapAnswer,
    QueryPart,
    ReleaseAnswer,
    SearchAnswer,
    TagAnswer,
    TrackAnswer,
)
from serving.loopback import http_client, proxy_of

_BUSY = (429, 503)
_KEY_LETTERS = re.compile(r"[!-~]+")
_MAX_WAIT_S = 30.0
_KEY = "Idempotency-Key"
_MAY_BE_ASKED_TWICE = ("/v1/search", "/v1/tag", "/v1/embed", "/v1/feedback")
_DOUBT = "; whether it was done is not known, so look before you ask again"


class MulanClient:
    """Ask an endpoint; a context manager, and fit for several threads.

    Every method raises ``UserError``, in one sentence, where the endpoint is down or refuses. An endpoint that is busy
    (429, 503) is asked again. One that hangs up, or that lost the replica at work, may have done what it was asked,
    so only what may be asked twice is: questions, feedback, whose second telling counts no more than the first, and
    adding and deleting, which carry an ``Idempotency-Key``, so that the endpoint answers again what it answered first.
    An endpoint on this machine is asked straight, others through the proxy that the environment names, if it names
    one.

    Args:
        url: of the endpoint, such as ``http://127.0.0.1:8000`` or ``https://site.example/music``.
        key: an API key, where the endpoint wants one.
        timeout_s: how long one answer may take.
        retries: how often a busy endpoint is asked again, after the time that its ``Retry-After`` says.

    Raises:
        UserError: for a url that is no address of a web server, or a key that cannot be one.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 30.0, retries: int = 3) -> None:
        self.url = _address(url)
        if key and not _KEY_LETTERS.fullmatch(key):
            raise UserError("the API key holds letters that no key has, such as a blank or a line break; copy it anew")
        self._timeout_s, self._retries = timeout_s, retries
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = http_client(self.url, timeout=timeout_s, headers=headers)

    def __enter__(self) -> MulanClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def search_text(
        self,
        text: str,
        *,
        k: int = 10,
        offset: int = 0,
        negative_text: str | None = None,
        filter: Filter | None = None,
    ) -> SearchAnswer:
        """Tracks that fit words; ``filter`` narrows by ``labels``, ``dataset`` and ``artist``."""
        asked = {"text": text, "k": k, "offset": offset, "negative_text": negative_text, "filter": filter}
        return self._post("/v1/search", asked)

    def search_track(
        self, track_id: str, *, k: int = 10, offset: int = 0, filter: Filter | None = None
    ) -> SearchAnswer:
        """Tracks like one of the catalogue, without itself."""
        return self._post("/v1/search", {"track_id": track_id, "k": k, "offset": offset, "filter": filter})

    def search(
        self, queries: Sequence[QueryPart], *, k: int = 10, offset: int = 0, filter: Filter | None = None
    ) -> SearchAnswer:
        """Tracks that fit the weighted sum of several queries; a weight below 0 leads away from one."""
        return self._post("/v1/search", {"queries": list(queries), "k": k, "offset": offset, "filter": filter})

    def search_audio(
        self,
        audio: str | Path | bytes,
        *,
        k: int = 10,
        offset: int = 0,
        weight: float = 1.0,
        queries: Sequence[QueryPart] | None = None,
        filter: Filter | None = None,
    ) -> SearchAnswer:
        """Tracks like an audio file, with more queries added to it if there are any."""
        fields = {"k": str(k), "offset": str(offset), "weight": str(weight)}
        fields |= {"queries": json.dumps(list(queries))} if queries else {}
        fields |= {"filter": json.dumps(dict(filter))} if filter else {}
        return self._upload("/v1/search", audio, fields)

    def tag(
        self,
        *,
        audio: str | Path | bytes | None = None,
        track_id: str | None = None,
        labels: Sequence[str] | None = None,
    ) -> TagAnswer:
        """Labels of an audio file or of a track, best first; the catalogue's labels if none are given."""
        if audio is not None:
            return self._upload("/v1/tag", audio, {"labels": json.dumps(list(labels))} if labels else {})
        return self._post("/v1/tag", {"track_id": track_id, "labels": list(labels) if labels else None})

    def embed(self, *, texts: Sequence[str] | None = None, audio: str | Path | bytes | None = None) -> EmbedAnswer:
        """Vectors of texts or of an audio file."""
        if audio is not None:
            return self._upload("/v1/embed", audio, {})
        return self._post("/v1/embed", {"texts": list(texts or ())})

    def track(self, track_id: str) -> TrackAnswer:
        """One track of the catalogue."""
        return self._ask("GET", _path_of(track_id))

    def add_track(
        self,
        track_id: str,
        audio: str | Path | bytes,
        *,
        title: str = "",
        artist: str = "",
        dataset: str = "added",
        labels: Sequence[str] = (),
    ) -> TrackAnswer:
        """Add a track to the live collection, or replace the one of this id."""
        fields = {"track_id": track_id, "title": title, "artist": artist, "dataset": dataset}
        return self._upload("/v1/tracks", audio, fields | {"labels": json.dumps(list(labels))}, headers=_new_key())

    def delete_track(self, track_id: str) -> Answer:
        """Delete a track from the live collection."""
        return self._ask("DELETE", _path_of(track_id), headers=_new_key())

    def feedback(self, request_id: str, track_id: str) -> None:
        """Say that a hit of a search was the one, such as by a click; see ``serve.query_log``."""
        self._post("/v1/feedback", {"request_id": request_id, "track_id": track_id})

    def map(self) -> MapAnswer:
        """The catalogue as points of a plane."""
        return self._ask("GET", "/v1/map")

    def release(self) -> ReleaseAnswer:
        """The release that is served."""
        return self._ask("GET", "/v1/release")

    def ready(self) -> dict[str, Any]:
        """That the endpoint is ready; the error says why it is not."""
        answer: dict[str, Any] = self._ask("GET", "/readyz")
        return answer

    def _post(self, path: str, values: dict[str, Any]) -> Any:
        return self._ask("POST", path, json={key: value for key, value in values.items() if value is not None})

    def _upload(
        self, path: str, audio: str | Path | bytes, fields: dict[str, str], *, headers: dict[str, str] | None = None
    ) -> Any:
        try:
            data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {audio!s}: {error.strerror or error}") from error
        return self._ask("POST", path, data=fields, files={"audio": ("audio", data)}, headers=headers)

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        is_keyed = _KEY in (content.get("headers") or {})
        twice = is_keyed or method == "GET" or path in _MAY_BE_ASKED_TWICE
        response = self._send(method, self.url + path, content, twice=twice, is_write=is_keyed)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise UserError(f"the endpoint at {self.url} answers: {answer['error']['message']}")
        if response.has_redirect_location:  # not followed: a key is for the address that was given
            elsewhere = urljoin(str(response.url), response.headers["location"]).removesuffix(path)
            raise UserError(f"{self.url} sends on to {elsewhere}; give that address, if you trust it")
        # Serve itself answers in plain text, for example while nothing is deployed.
        words = " ".join(response.text.split())[:200]
        raise UserError(f"{self.url} does not answer as a MuLan endpoint ({response.status_code}: {words})")

    def _send(self, method: str, url: str, content: dict[str, Any], *, twice: bool, is_write: bool) -> httpx.Response:
        if proxy := proxy_of(self.url):
            host = urlsplit(self.url).hostname
            nobody = (
                f"{proxy} does not answer for {self.url}; correct or unset it, or add {host} to NO_PROXY to go straight"
            )
        else:
            nobody = f"no MuLan endpoint answers at {self.url}; start one with `mulan serve` or `mulan demo`"
        doubt = ""  # once a write was on its way and no answer came
        for left in range(self._retries, -1, -1):
            try:
                response = self._http.request(method, url, **content)
            except httpx.ConnectTimeout as error:
                raise UserError(f"{nobody}{doubt}") from error
            except httpx.TimeoutException as error:
                doubt = _DOUBT if is_write else ""
                raise UserError(f"{self.url} did not answer within {self._timeout_s:g} s{doubt}") from error
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:  # it hung up
                doubt = _DOUBT if is_write else ""
                if not left or not twice:
                    reason = str(error) or type(error).__name__
                    way = f", asked through {proxy}," if proxy else ""
                    raise UserError(f"the endpoint at {self.url}{way} hangs up: {reason}{doubt}") from error
                time.sleep(0.2)
                continue
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise UserError(f"{nobody}{doubt}") from error
            except UnicodeEncodeError as error:  # half of a character, such as of a file name that is no UTF-8
                raise UserError(f"cannot ask for {error.object!a}: it is not UTF-8 text") from error
            # Ray Serve's own word, in plain text, where a replica died over a request; the API's errors are JSON.
            lost = response.status_code == 500 and "json" not in response.headers.get("content-type", "")
            if not left or not ((lost and twice) or response.status_code in _BUSY):
                return response
            time.sleep(_wait_s(response))
        raise AssertionError("unreachable")


def _address(url: str) -> str:
    """An endpoint's address without a slash at its end.

    Raises:
        UserError: if it is none.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # one above 65535 would be dialled modulo 65536, where somebody else may answer
    except ValueError as error:
        raise UserError(f"{url!r} is no address of an endpoint ({error}); it is like http://127.0.0.1:8000") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{url!r} is no address of an endpoint; it is like http://127.0.0.1:8000")
    return url.rstrip("/")


def _new_key() -> dict[str, str]:
    return {_KEY: uuid.uuid4().hex}


def _path_of(track_id: str) -> str:
    """The address of a track.

    Raises:
        UserError: for what no address can hold, so that no track can be called so.
    """
    if track_id in ("", ".", "..") or why_unwritable(track_id):
        raise UserError(f"there is no track {track_id!r}, and none can have this id")
    return f"/v1/tracks/{quote(track_id, safe='')}"


def _wait_s(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers.get("retry-after", "")), 0.0), _MAX_WAIT_S)
    except ValueError:  # none, or a date
        return 1.0
