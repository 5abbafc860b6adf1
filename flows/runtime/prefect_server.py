"""The Prefect server that flows report to: the user's, the one of the stack that is joined, or one of our own.

Prefect would start a temporary server by itself, but leave it running when this process is killed, and a
second one on the same database for every flow that joins.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mulan_core.errors import UserError
from serving.ports import free_port, is_up
from serving.supervised_process import SupervisedProcess

START_TIMEOUT_S = 180.0
"""How long our server may take to answer; on a new home it makes its database first."""


class PrefectServer:
    """``prefect server`` without its UI on loopback. It ends with this process (``SupervisedProcess``).

    Args:
        log_path: where the server's words go.
    """

    def __init__(self, log_path: Path) -> None:
        self._log_path, self._port = log_path, free_port()
        self._process: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """Address of its API."""
        return f"http://127.0.0.1:{self._port}/api"

    def launch(self) -> None:
        """Start the process; ``wait`` says when it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--host", "127.0.0.1"]
        self._process = SupervisedProcess(
            "Prefect's server", [*command, "--port", str(self._port)], log_path=self._log_path
        )

    def wait(self) -> None:
        """Return once it answers.

        Raises:
            UserError: if it ends, or does not answer in time.
        """
        if self._process is not None:
            self._process.wait_until(lambda: is_up(f"{self.url}/health"), timeout_s=START_TIMEOUT_S)

    def begin_stop(self) -> None:
        """Ask the server to end once it has what the flows said last, and do not wait."""
        if self._process is not None:
            if logs := sys.modules.get("prefect.logging.handlers"):
                logs.APILogHandler().flush()
            self._process.begin_stop()

    def stop(self) -> None:
        """Stop the server; returns when the process is gone. May be called twice."""
        if self._process is not None:
            self.begin_stop()
            self._process.stop()
        self._process = None


def find_api() -> str | None:
    """Find the API that flows report to already; None if a server is still to be started.

    It is the one that the user named (PREFECT_API_URL, or a Prefect profile). Around a flow that was called
    from Python without a stack, it is the temporary one that Prefect has started by now.

    Raises:
        UserError: if the user's server does not answer, or does not let us in.
    """
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if url is None and FlowRunContext.get() is None:
        return None
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise UserError(
                f"Prefect does not answer at {url}; start it with `prefect server start`, or unset PREFECT_API_URL"
            ) from error
        try:
            client.api_version()
        except PrefectHTTPStatusError as error:
            raise UserError(
                f"Prefect at {url} answers {error.response.status_code}; give the user:password of its server as "
                "PREFECT_API_AUTH_STRING"
            ) from error
        return str(client.api_url).rstrip("/")


def report_to(url: str) -> AbstractContextManager[Any]:
    """Have the flows inside report to this API, a server of ours.

    They send it no heartbeats: it ends with the command, so nobody is there who would miss them, and each flow would
    wait up to a second at its end for the thread that sends them.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    return temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
