"""The applications that run on Ray Serve, one a catalogue: which are there, and what they say of themselves."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ReplicaState

from mulan_core.errors import UserError
from serving.keys import KeyFile

APP_NAME = "mulan"
"""The application of the demo; that of another catalogue has the name of its registered model, ``mulan-NAME``."""


def is_deployed(name: str = APP_NAME) -> bool:
    """Whether the application runs on the Ray that this process is connected to."""
    return name in _all()


def other_applications(name: str) -> list[str]:
    """The applications of other catalogues that run there."""
    return [other for other in _applications() if other != name]


def _all() -> dict[str, ApplicationStatusOverview]:
    """All that run, ours or not; none without a Ray, which Serve would start if it were asked."""
    return dict(serve.status().applications) if ray.is_initialized() else {}


def _applications() -> list[str]:
    return [name for name in _all() if name == APP_NAME or name.startswith(f"{APP_NAME}-")]


def served_version(name: str = APP_NAME, *, timeout_s: float = 180.0) -> str | None:
    """The model version that the application answers with, once no deployment is under way; None where none runs.

    Who asked for a deployment may have died: Serve goes on with it all the same.

    Raises:
        UserError: if it runs and does not say.
    """
    deadline = time.monotonic() + timeout_s
    while (application := _all().get(name)) is not None:
        if application.status not in (ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING):
            break
        if time.monotonic() > deadline:
            raise UserError(
                f"the endpoint has been deploying a release for {timeout_s:.0f} s; stop it and start it anew"
            )
        time.sleep(0.2)
    if application is None or not _is_up(application):
        return None
    try:
        # Longer than Serve takes to replace a replica that died.
        return str(_handle(name).model_version.remote().result(timeout_s=30))
    except Exception as error:  # its replicas stay down, or are of a version that cannot be asked
        raise UserError(
            "an endpoint runs and does not say which release it answers with; stop it and start it anew"
        ) from error


def had_keys(keys_file: Path) -> bool:
    """Whether there are keys or were, as the file, the mark beside it or the endpoint that runs tells.

    Raises:
        UserError: if an endpoint runs that does not say, and nothing else tells.
    """
    if KeyFile(keys_file).look().needed:
        return True
    up = [name for name in _applications() if _has_come_up(name)]
    try:
        # Longer than Serve takes to replace a replica that died.
        return any(bool(_handle(name).needs_keys.remote().result(timeout_s=30)) for name in up)
    except Exception as error:  # its replicas stay down, or are of a version that cannot be asked
        raise UserError(
            f"there are no keys in {keys_file}, and the endpoint that runs does not say whether it had some; put the "
            "file back if there was one, else stop the endpoint first"
        ) from error


def _handle(name: str) -> DeploymentHandle:
    """The way to ask an application's replicas; it says nothing of itself on the screen."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return serve.get_app_handle(name)


def _has_come_up(name: str) -> bool:
    """Whether an application has let anybody in; not where its first deployment is under way or has failed."""
    application = serve.status().applications[name]
    return _is_up(application) or application.status not in (
        ApplicationStatus.NOT_STARTED,
        ApplicationStatus.DEPLOYING,
        ApplicationStatus.DEPLOY_FAILED,
    )


def why_refused(name: str, error: RuntimeError) -> str:
    """The sentence behind a failed deployment: Serve keeps the replica's traceback as its message."""
    application = serve.status().applications.get(name)
    messages, stays = [str(error)], False
    if application is not None:
        messages += [application.message, *(deployment.message for deployment in application.deployments.values())]
        stays = _is_up(application)
    rest = "; the release before goes on serving" if stays else ""
    for message in messages:
        sentences = re.findall(
            r"(?:UserError|StoreError|StoreUnavailableError|EditsError|DamagedEditError)(?:\([^)]*\))?: ([^\n]+)",
            message,
        )
        if sentences:
            return f"{sentences[-1]}{rest}"
    return f"Ray Serve could not start {name}: {messages[-1].strip().splitlines()[-1]}{rest}"


def _is_up(application: ApplicationStatusOverview) -> bool:
    """Whether a replica of it runs."""
    return any(deployment.replica_states.get(ReplicaState.RUNNING) for deployment in application.deployments.values())
