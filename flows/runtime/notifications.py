"""One readable message where a flow ends badly: in its log in Prefect, and to whoever MULAN_NOTIFY_URL names."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from flows.runtime.settings import read_settings
from mulan_core.errors import UserError
from serving.loopback import http_client

TIMEOUT_S = 10.0


def tell(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say in one sentence what a flow failed of, and in which stage; a hook of every flow.

    A flow inside another says nothing: the outer one ends by the same error. Nor does one that somebody cancels: its
    process is ended, which Prefect calls a crash. The address gets ``{"text": "..."}``, which Slack, Mattermost and
    the like show as it is.
    """
    if flow_run.parent_task_run_id is not None or _is_cancelled(flow_run):
        return
    sentence = describe(flow.name, state, name=flow_run.name, url=url_for(flow_run))
    flow_run_logger(flow_run, flow).error(sentence)
    if address := read_settings().notify_url:
        # Suppressed: nobody is left to tell that it could not be told.
        with suppress(httpx.HTTPError, httpx.InvalidURL, UserError), http_client(address, timeout=TIMEOUT_S) as client:
            client.post(address, json={"text": sentence})


def _is_cancelled(flow_run: FlowRun) -> bool:
    # Suppressed: a server that is away, or has forgotten the run.
    with suppress(Exception), get_client(sync_client=True) as client:
        return any(state.is_cancelling() for state in client.read_flow_run_states(flow_run.id))
    return False


FAILURE_HOOKS: Any = {"on_failure": [tell], "on_crashed": [tell]}
"""What each flow's decorator takes."""


def describe(flow: str, state: State[Any], *, name: str, url: str | None) -> str:
    """The sentence: flow, stage, what went wrong, which run."""
    error = state.data if isinstance(state.data, BaseException) else None
    if error is None:
        with suppress(Exception):  # a result that is gone
            result = state.result(raise_on_failure=False)
            error = result if isinstance(result, BaseException) else None
    stage = next((note for note in getattr(error, "__notes__", ()) if note.startswith("in stage ")), "")
    # A crash is no error of the flow's own: Prefect's words say more than those of what ended it.
    message = state.message if state.is_crashed() or error is None else str(error)
    reason = (message or state.name or "no reason is known").strip().splitlines()[0]
    where = f", {url}" if url else ""
    return f"MuLan: {flow} {(state.name or 'failed').lower()} {stage}".rstrip() + f": {reason} (run {name}{where})"
