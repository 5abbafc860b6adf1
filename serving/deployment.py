"""The API on Ray Serve: one deployment, so one hop; started, waited for and taken down."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import ValidationError
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from mulan_core.config import ServeConfig
from mulan_core.errors import UserError
from serving.access_log import log_to
from serving.app import create_api
from serving.applications import APP_NAME, had_keys, other_applications, why_refused
from serving.edits import Edits
from serving.keys import KeyFile, check_exposed
from serving.loopback import keep_loopback_direct
from serving.onnx_text_encoder import export_text_program
from serving.places import Places
from serving.ports import check_port_free, url_of
from serving.query_log import QueryLog
from serving.release import Release, check_release
from serving.service import Service
from serving.shadow import Shadow
from serving.shared_answers import SharedAnswers, forget
from serving.store import TrackStore
from serving.tracing import traces_from_environment

_SLACK = 64
"""Room in Serve's own limit for probes, pages and plays beside the queries that ``RequestGuard`` counts."""


@serve.deployment
@serve.ingress()
class MulanApp:
    """A replica: one release in memory behind the API."""

    def __init__(
        self,
        release: dict[str, Any],
        config: ServeConfig,
        *,
        milvus_uri: str,
        milvus_token: str | None,
        edits: str,
        media_root: str | None,
        num_threads: int,
        text_program: str | None,
        keys_file: str | None,
        had_keys: bool,
        log_folder: str | None,
        shadow: dict[str, Any] | None,
        shadow_program: str | None,
        shadow_share: float,
        places: Places | None,
        catalogue: str,
    ) -> None:
        keep_loopback_direct()  # a replica's environment is that of its Ray
        log_to()
        self._config = config
        # A replica may start while the file is away, and must be as closed as those that have seen it.
        self._keys = KeyFile(keys_file, had_keys=had_keys) if keys_file else None
        self._query_log = QueryLog(
            log_folder, config.query_log, model_version=release["model_version"], days=config.query_log_days
        )
        self._traces = traces_from_environment(release["model_version"], release["collection"])

        def open_service(release_dict: dict[str, Any], program: str | None) -> Service:
            return Service(
                Release.from_dict(release_dict),
                TrackStore(milvus_uri, milvus_token),
                edits=Edits(edits),
                media_root=media_root,
                max_audio_s=config.max_audio_s,
                num_threads=num_threads,
                use_gpu=config.num_gpus > 0,
                text_program=program,
                places=places,
                catalogue=catalogue,
            )

        self._service = open_service(release, text_program)
        self._answers = SharedAnswers()
        self._shadow = open_service(shadow, shadow_program) if shadow else None
        self._shadow_share = shadow_share

    def model_version(self) -> str:
        """Of the release; asked by who must know what the endpoint answers with."""
        return self._service.release.model_version

    def needs_keys(self) -> bool:
        """Whether nobody gets in without a key; asked by who deploys over this release."""
        return self._keys is not None and self._keys.look().needed

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray asks for the ASGI application once the replica is constructed."""
        api = create_api(
            self._service,
            self._config,
            self._keys,
            query_log=self._query_log,
            traces=self._traces,
            answers=self._answers,
            names_requests=False,
        )
        if self._shadow:
            metrics = self._service.metrics
            metrics.shadow_share.set(self._shadow_share)
            # Whoever got an answer from the live release may be answered here; nobody else reaches it.
            candidate = create_api(self._shadow, replace(self._config, allow_open=True))
            api.add_middleware(Shadow, candidate=candidate, share=self._shadow_share, metrics=metrics)
        return api


def build_app(
    release: dict[str, Any],
    serve_config: ServeConfig,
    *,
    milvus_uri: str,
    edits: str | Path,
    milvus_token: str | None = None,
    media_root: str | Path | None = None,
    num_threads: int = 1,
    keys_file: str | Path | None = None,
    log_folder: str | Path | None = None,
    shadow: dict[str, Any] | None = None,
    shadow_share: float = 0.0,
    places: Places | None = None,
    catalogue: str = "",
) -> serve.Application:
    """The application of a release, to be given to ``deploy``.

    Args:
        release: ``Release.to_dict()``.
        serve_config: limits and number of replicas.
        milvus_uri, milvus_token: where the collection is.
        edits: folder or URL of what is added and deleted over the API; every replica must reach it. See ``Edits``.
        media_root: folder under which tracks may be played; None plays none.
        num_threads: of torch in each replica, and CPUs that Ray reserves for it.
        keys_file: the file of API keys, which need not exist, unless the endpoint that runs has had keys.
        log_folder: where the query log goes, if ``serve_config.query_log`` is on.
        shadow, shadow_share: another release in each replica's memory, and its share of the searches; see ``Shadow``.
        places: where the tracks' files lie, if the home was moved since it was indexed.
        catalogue: the name of what is served, for those who look at it.

    Raises:
        UserError: if the file of keys cannot be trusted, others reach ``serve_config.host`` and there is no key
            (``check_exposed``), nothing tells whether the endpoint that runs has keys, the release does not fit
            together, or Milvus is away. Replicas look again.
    """
    keys = KeyFile(keys_file, had_keys=had_keys(Path(keys_file))) if keys_file else None
    check_exposed(serve_config.host, keys, allow_open=serve_config.allow_open)
    for release_dict in (release, shadow):
        if release_dict:
            check_release(Release.from_dict(release_dict), TrackStore(milvus_uri, milvus_token))
    options = _options(serve_config, num_threads)
    return MulanApp.options(**options).bind(  # type: ignore[attr-defined]  # the decorator's type is the class
        release,
        serve_config,
        milvus_uri=milvus_uri,
        milvus_token=milvus_token,
        edits=Edits(edits).location,
        media_root=str(Path(media_root).absolute()) if media_root else None,
        num_threads=num_threads,
        text_program=_export_program(release, serve_config),
        keys_file=str(Path(keys_file).absolute()) if keys_file else None,
        had_keys=keys is not None and keys.look().needed,
        log_folder=str(Path(log_folder).absolute()) if log_folder else None,
        shadow=shadow,
        shadow_program=_export_program(shadow, serve_config),
        shadow_share=shadow_share,
        places=places,
        catalogue=catalogue,
    )


def _export_program(release: dict[str, Any] | None, config: ServeConfig) -> str | None:
    """The path of a release's text tower as ONNX; None without a release, or where torch runs it."""
    program = export_text_program(release["model_path"], config.text_tower) if release else None
    return str(program) if program else None


def _options(config: ServeConfig, num_threads: int) -> dict[str, Any]:
    """How Ray Serve runs the replicas."""
    waiting = config.max_ongoing_requests + config.max_queued_requests
    return {
        **_replicas(config),
        "max_ongoing_requests": waiting + _SLACK,
        "ray_actor_options": {"num_cpus": num_threads, "num_gpus": config.num_gpus},
        "logging_config": LoggingConfig(enable_access_log=False, log_level="WARNING"),
        "graceful_shutdown_timeout_s": 10,
        # New replicas start beside the old ones, which stay where the new do not come up; by default Serve stops first.
        "max_surge_percent": 100,
        "max_constructor_retry_count": 2,  # once more, for what passes; a broken release breaks each time
        "health_check_period_s": 2,  # a killed replica is missed within that time; Serve's own 10 s are long
    }


def _replicas(config: ServeConfig) -> dict[str, Any]:
    """A fixed number of replicas, or Ray Serve's autoscaling."""
    if not config.autoscaling:
        return {"num_replicas": config.num_replicas}
    try:
        return {"autoscaling_config": AutoscalingConfig.model_validate(dict(config.autoscaling))}
    except ValidationError as error:
        wrong = error.errors()[0]
        path = ".".join(str(part) for part in wrong["loc"]) or ", ".join(config.autoscaling)
        raise UserError(f"serve.autoscaling: {path}: {wrong['msg']}; see Ray Serve's AutoscalingConfig") from error


def deploy(
    app: serve.Application, *, host: str, port: int, name: str = APP_NAME, ready_timeout_s: float = 120.0
) -> str:
    """Start Serve if need be, run the application, and wait until a search would work.

    The application of another catalogue that runs on this Ray ends: there is one address for all.

    Deploying over a running application replaces it without a gap: the old replicas answer until the new are up, and
    stay where those do not come up.

    Returns:
        The endpoint's URL.

    Raises:
        UserError: if the port is taken, or the release is refused, with the reason.
    """
    # Importing Serve set this level anew; what it would say of its address the caller says.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not serve.status().proxies:
        check_port_free(host, port)
        quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
        serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
    for other in other_applications(name):  # one application has the address
        serve.delete(other)
    try:
        serve.run(app, name=name, route_prefix="/", blocking=False)
    except RuntimeError as error:
        raise UserError(why_refused(name, error)) from error
    # Where Serve ran already, it listens where its first application was deployed.
    listens = serve.context._get_global_client().http_config  # type: ignore[union-attr]  # it runs
    url = url_of(str(listens.host), int(listens.port))
    _wait_ready(url, ready_timeout_s)
    return url


def undeploy() -> None:
    """Stop the endpoint and Serve; does nothing where none runs."""
    forget()
    serve.shutdown()


def _wait_ready(url: str, timeout_s: float) -> None:
    """Ask our own probe: Serve calls itself healthy when an application has failed."""
    deadline, reason = time.monotonic() + timeout_s, "no answer"
    # It listens on this machine, whatever its address: the way there is no proxy's.
    with httpx.Client(transport=httpx.HTTPTransport(), timeout=10) as client:
        while time.monotonic() < deadline:
            try:
                response = client.get(f"{url}/readyz")
                if response.status_code == 200 and response.json().get("status") == "ready":
                    return
                reason = response.text[:300]
            except (httpx.HTTPError, ValueError) as error:
                reason = str(error)
            time.sleep(0.1)
    raise UserError(f"the endpoint {url} did not become ready within {timeout_s:.0f} s: {reason}")
