"""The Prefect server that flows report to: the user's, the one of the stack that is joined, or one of our own.

Prefect would start a temporary server by itself, but leave it running when this process is killed, and a
second one on the same database for every flow that joins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from mulan_core.errors import UserError
from serving.child import Child
from serving.ports import free_port

START_TIMEOUT_S = 180.0
"""How long our server may take to answer; on a new home it makes its database first."""


@contextmanager
def report_flows(home: Path, *, joined: str | None = None) -> Iterator[str | None]:
    """Have the flows inside report to a server, and start one if there is none.

    Args:
        home: where a server of our own writes its log.
        joined: API address of the stack that is joined.

    Returns:
        The API's address; None inside a flow that was called without a stack around it, for which Prefect
        has started a temporary server by now.

    Raises:
        UserError: if the user's server does not answer, or ours does not start.
    """
    from prefect.context import FlowRunContext
    from prefect.settings import PREFECT_API_URL, temporary_settings

    named = PREFECT_API_URL.value()
    if named or FlowRunContext.get():
        if named:
            _check(named)
        yield named
        return
    with ExitStack() as cleanup:
        url = joined or cleanup.enter_context(_own_server(home))
        cleanup.enter_context(temporary_settings({PREFECT_API_URL: url}))
        yield url


def _check(url: str) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error:
        raise UserError(
            f"Prefect does not answer at {url}; start it with `prefect server start`, or unset PREFECT_API_URL"
        ) from error


@contextmanager
def _own_server(home: Path) -> Iterator[str]:
    """A server without UI on loopback."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--host", "127.0.0.1"]
    server = Child("Prefect's server", [*command, "--port", str(port)], log_path=home / "prefect.log")
    url = f"http://127.0.0.1:{port}/api"
    try:
        server.wait_until(lambda: _answers(url), timeout_s=START_TIMEOUT_S)
        yield url
    finally:
        server.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
