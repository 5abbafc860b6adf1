"""Every configured address: does it answer, to us, and is what answers of our version and time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from time import time
from typing import Any

import httpx

from flows.doctor.check import DoctorCheck, failure, ok, warning
from flows.runtime.catalogues import read_records
from flows.runtime.database import check_database, database_path
from flows.runtime.endpoint import endpoint_url, served
from flows.runtime.settings import Settings
from mulan_core.errors import UserError, without_secrets
from serving.loopback import http_client

TIMEOUT_S = 5.0
RAY_TIMEOUT_S = 30.0
SKEW_S, MAX_SKEW_S = 30.0, 300.0
"""Clocks that differ by more are told; by much more, tokens and signed requests are refused (S3: 15 minutes)."""


def check_mlflow(settings: Settings) -> Iterator[DoctorCheck]:
    """The tracking server or database, and whether what commands need is in it."""
    uri = settings.mlflow_uri
    if not uri.startswith(("http://", "https://")):
        yield _database(uri)
        return
    todo = "start it, or correct MLFLOW_TRACKING_URI; unset it to use a local database"
    yield from _http("MLflow", f"{uri.rstrip('/')}/version", todo, "mlflow", login=_mlflow_login())


def _database(uri: str) -> DoctorCheck:
    from flows.runtime.tracking import NoRegistryError, reading

    database = database_path(uri)
    try:
        if database:
            check_database(database, thorough=True)
        with reading(uri):
            return ok("MLflow", f"the database {database or without_secrets(uri)}")
    except NoRegistryError:
        return ok("MLflow", f"the database {database or without_secrets(uri)}, which the first run makes")
    except Exception as error:  # a sentence of ours, or whatever the database's own library raises
        message, _, todo = str(error).partition("; ")
        return failure(
            "MLflow", message.splitlines()[0] if message else repr(error), todo or "correct MLFLOW_TRACKING_URI"
        )


def _mlflow_login() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def check_prefect(_: Settings) -> Iterator[DoctorCheck]:
    """The Prefect server that the user named."""
    with _prefect_makes_no_home():
        from prefect.settings import get_current_settings

    api = get_current_settings().api
    url = api.url
    if not url:
        yield ok("Prefect", "none named: each flow brings its own server")
        return
    given = api.auth_string.get_secret_value() if api.auth_string else ""
    auth = httpx.BasicAuth(*given.split(":", 1)) if ":" in given else None
    todo = "start it with `prefect server start`, or correct PREFECT_API_URL"
    yield from _http("Prefect", f"{url.rstrip('/')}/admin/version", todo, "prefect", auth=auth)


@contextmanager
def _prefect_makes_no_home() -> Iterator[None]:
    """Have the import of Prefect find a home, since it would make one, or warn that it could not; who looks makes none.

    In a home that is not there nothing is kept that its settings could come from.
    """
    home = os.environ.get("PREFECT_HOME", "")
    if Path(home).exists():
        yield
        return
    with tempfile.TemporaryDirectory() as stand_in:
        os.environ["PREFECT_HOME"] = stand_in
        try:
            yield
        finally:
            os.environ["PREFECT_HOME"] = home


def _http(
    check: str,
    url: str,
    todo: str,
    package: str,
    *,
    login: dict[str, str] | None = None,
    auth: httpx.Auth | None = None,
) -> Iterator[DoctorCheck]:
    """Ask a server for its version: the answer tells whether it is there, lets us in, and is of our age and time."""
    address = without_secrets(url)
    try:
        with http_client(url, timeout=TIMEOUT_S, headers=login) as client:
            answer = client.get(url, auth=auth)
    except (httpx.HTTPError, httpx.InvalidURL, UserError) as error:
        yield failure(check, f"{address} does not answer ({_reason(error)})", todo)
        return
    if answer.status_code in (401, 403):
        yield failure(
            check, f"{address} lets us not in ({answer.status_code})", f"correct its user, password or token; {todo}"
        )
        return
    if answer.status_code != 200:
        yield failure(check, f"{address} answers {answer.status_code}, as {check} does not", todo)
        return
    server_version, client_version = answer.text.strip().strip('"'), metadata.version(package)
    if server_version.split(".")[:2] != client_version.split(".")[:2]:
        age = "older" if _numbers(server_version) < _numbers(client_version) else "newer"
        message = f"{address} is {package} {server_version[:20]}, {age} than the client, {client_version}"
        yield warning(
            check, message, f"run server and clients of one version; MuLan is made for {package} {client_version}"
        )
    else:
        yield ok(check, f"{address}, version {server_version}")
    yield from _clock(check, answer)


def _clock(check: str, answer: httpx.Response) -> Iterator[DoctorCheck]:
    if not (date := answer.headers.get("date")):
        return
    try:
        skew = parsedate_to_datetime(date).timestamp() - time()
    except ValueError:
        return
    if abs(skew) > SKEW_S:
        level = failure if abs(skew) > MAX_SKEW_S else warning
        where = "ahead of" if skew > 0 else "behind"
        todo = "set both machines' clocks (chronyc tracking, timedatectl): tokens and signed requests go by them"
        yield level("clock", f"the clock of {check}'s machine is {abs(skew):.0f} s {where} ours", todo)


def check_milvus(settings: Settings) -> Iterator[DoctorCheck]:
    """The Milvus that the user named."""
    from serving.store import TrackStore

    if not settings.milvus_uri:
        yield ok("Milvus", "none named: Milvus Lite runs beside the flow")
        return
    todo = "start it, or correct MULAN_MILVUS_URI and MULAN_MILVUS_TOKEN; unset them to use Milvus Lite"
    live = read_records(settings.home).current.live_alias
    store = TrackStore(settings.milvus_uri, token=settings.milvus_token, timeout_s=TIMEOUT_S, live=live)
    try:
        version = store.collections.server_version()
        yield ok("Milvus", f"{without_secrets(settings.milvus_uri)}, version {version}, {_collections(store)}")
    except UserError as error:
        yield failure("Milvus", str(error), todo)
    finally:
        store.close()


def _collections(store: object) -> str:
    live = store.collections.live_collection()  # type: ignore[attr-defined]
    return f"live collection {live}" if live else "no live collection"


RAY_PROGRAM = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
nodes = [node for node in ray.nodes() if node["Alive"]]
total = ray.cluster_resources()
print(f"@{len(nodes)} nodes, {total.get('CPU', 0):.0f} CPUs, {total.get('GPU', 0):.0f} GPUs, version {ray.__version__}")
"""


def check_ray(settings: Settings) -> Iterator[DoctorCheck]:
    """The Ray cluster that the user named; asked by a process of its own, since a connection to Ray stays with one."""
    address = settings.ray_address
    if not address:
        yield ok("Ray", "none named: a private one runs beside the flow")
        return
    todo = "start it (`ray start --head`), or correct RAY_ADDRESS, RAY_AUTH_MODE and RAY_AUTH_TOKEN"
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        try:  # Ray itself would try for half a minute
            socket.create_connection((host, int(port)), timeout=TIMEOUT_S).close()
        except OSError as error:
            yield failure("Ray", f"{address} does not answer ({_reason(error)})", todo)
            return
    command = [sys.executable, "-c", RAY_PROGRAM, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RAY_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        yield failure("Ray", f"{address} does not answer in {RAY_TIMEOUT_S:.0f} s", todo)
        return
    lines = [line[1:] for line in done.stdout.splitlines() if line.startswith("@")]
    if lines:
        yield ok("Ray", f"{address}: {lines[0]}")
        return
    reason = next(
        (line for line in reversed(done.stderr.splitlines()) if "Error" in line or ":" in line), "no reason given"
    )
    yield failure("Ray", f"{address}: {reason.strip()[:200]}", todo)


def check_dvc(settings: Settings) -> Iterator[DoctorCheck]:
    """The DVC remote: a small object is written, read and removed."""
    if settings.dvc_remote:
        yield _storage("DVC remote", settings.dvc_remote, "MULAN_DVC_REMOTE")
    else:
        yield ok("DVC remote", "none named: data lie in DVC's cache alone")


def check_checkpoints(settings: Settings) -> Iterator[DoctorCheck]:
    """Where training keeps its checkpoints, likewise."""
    if settings.checkpoints == str(settings.home / "ray_results"):
        yield ok("checkpoints", "no place named: a folder of MULAN_HOME")
    else:
        yield _storage("checkpoints", settings.checkpoints, "MULAN_CHECKPOINTS")


def _storage(name: str, location: str, variable: str) -> DoctorCheck:
    from flows.runtime.storage import open_storage

    try:
        open_storage(location, variable=variable)
    except UserError as error:
        message, _, todo = str(error).partition("; ")
        return failure(name, message, todo or "pip install 'mulan[s3]' or 'mulan[gcs]'")
    return ok(name, f"{location} can be written, read and cleaned")


def check_switch(settings: Settings) -> Iterator[DoctorCheck]:
    """Whether endpoint, registry and Milvus have all gone over to the last release."""
    from flows.runtime.catalogues import read_records
    from flows.runtime.journal import unfinished_switch

    try:
        fault, level = unfinished_switch(settings.home, read_records(settings.home).current), warning
    except UserError as error:
        fault, level = str(error), failure
    if fault:
        message, _, todo = fault.partition("; ")
        yield level("switch", message, todo)


def check_edits(settings: Settings) -> Iterator[DoctorCheck]:
    """Whether what was added and deleted over the API can be read."""
    from flows.runtime.storage import open_edits

    try:
        open_edits(settings, read_records(settings.home).current).all()
    except UserError as error:
        message, _, todo = str(error).partition("; ")
        yield failure("edits", message, todo or "mend that; until then no release can be opened or switched to")


def check_endpoint(settings: Settings) -> Iterator[DoctorCheck]:
    """The endpoints: each that is served, that of the catalogue in use, and the one that was named."""
    current = read_records(settings.home).current
    urls = dict.fromkeys([endpoint_url(settings, current), *([] if settings.url else served(settings.home).values())])
    for url in urls:
        if url is None:
            yield ok("endpoint", f"{current.name} is not served; `mulan serve` would")
        else:
            yield from _endpoint(settings, url)


def _endpoint(settings: Settings, url: str) -> Iterator[DoctorCheck]:
    headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
    try:
        with http_client(url, timeout=TIMEOUT_S) as client:
            answer, asked = client.get(f"{url}/readyz"), client.get(f"{url}/v1/release", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, UserError) as error:
        if settings.url:
            yield failure("endpoint", f"{url} does not answer ({_reason(error)})", "start it, or correct MULAN_URL")
        else:
            yield ok("endpoint", f"nothing serves at {url}; `mulan serve` would")
        return
    if answer.status_code != 200:
        yield failure("endpoint", f"{url} is not ready: {_said(answer)}", "docs/operate.md, When something breaks")
    elif asked.status_code == 401:
        yield failure("endpoint", f"{url} wants an API key", "set MULAN_KEY; `mulan keys create NAME` makes one")
    elif asked.status_code != 200:
        yield failure(
            "endpoint", f"{url} answers {asked.status_code}: {_said(asked)}", "is it MuLan that listens there?"
        )
    else:
        release = asked.json()
        yield ok("endpoint", f"{url} serves version {release['model_version']} from {release['collection']}")


def endpoint_misses_keys(settings: Settings) -> bool:
    """Whether an endpoint answers that lets nobody in, because its file of API keys is not what it was."""
    url = endpoint_url(settings, read_records(settings.home).current)
    try:
        answer = httpx.get(f"{url}/v1/release", timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return _told(answer).get("code") == "keys_unavailable"


def _said(answer: httpx.Response) -> str:
    return str(_told(answer).get("message") or answer.text.strip()[:100] or answer.status_code)


def _told(answer: httpx.Response) -> dict[str, Any]:
    try:
        return dict(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return {}


def check_traces(_: Settings) -> Iterator[DoctorCheck]:
    """The collector of traces, where one is named."""
    from serving.tracing import ENDPOINTS, collector_address

    if endpoint := collector_address():
        try:
            with http_client(endpoint, timeout=TIMEOUT_S) as client:
                client.post(endpoint, content=b"")
            yield ok("traces", f"{without_secrets(endpoint)} answers")
        except (httpx.HTTPError, httpx.InvalidURL, UserError) as error:
            named = next(name for name in ENDPOINTS if os.environ.get(name))
            todo = f"start the collector, or unset {named}: the endpoint goes on without its traces"
            yield warning("traces", f"{without_secrets(endpoint)} does not answer ({_reason(error)})", todo)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _reason(error: BaseException) -> str:
    return without_secrets((str(error) or type(error).__name__).splitlines()[0])[:160]
