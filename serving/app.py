"""The HTTP API put together: routes over ``Service``, probes, the search page, and the guard around all of it.

Bodies are read in the routes rather than by FastAPI, since a path takes JSON and uploads alike; their OpenAPI
description comes from ``schemas``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from mulan_core.config import ServeConfig
from mulan_core.errors import UserError
from serving import schemas
from serving.access import CLOSED, Access
from serving.access_log import Recorder, request_log
from serving.catalogue import catalogue_routes
from serving.document import SERVERS, describe_all, operation_id
from serving.errors import RETRY_AFTER, ApiError, install_handlers
from serving.feedback_routes import choice_routes
from serving.json_response import ERRORS, name_of
from serving.keys import KeyFile
from serving.limits import Admission
from serving.media import PageFiles
from serving.methods import Methods, forgive_slashes
from serving.middleware import RequestGuard
from serving.origins import Cors
from serving.prefix import Prefix
from serving.queries import query_routes
from serving.query_log import QueryLog
from serving.repeats import REPLAYED, Answers, FirstAnswers
from serving.service import Service

PAGE = Path(__file__).resolve().parent / "page"
_CDN = "https://cdn.jsdelivr.net"
_POLICIES = {
    # The page needs nothing from elsewhere; anything else in it did not come from us.
    "index.html": "default-src 'self'; media-src 'self' blob:; frame-ancestors 'none'",
    "docs.html": f"default-src 'self'; script-src 'self' {_CDN}; style-src 'self' 'unsafe-inline' {_CDN}; "
    "img-src 'self' data:; frame-ancestors 'none'",
}


def create_api(
    service: Service,
    config: ServeConfig,
    keys: KeyFile | None = None,
    *,
    query_log: QueryLog | None = None,
    traces: Recorder | None = None,
    answers: Answers | None = None,
    names_requests: bool = True,
) -> FastAPI:
    """The API over an open service.

    Args:
        service: what it does.
        config: limits, and who may ask.
        keys: the file of API keys; from the first key on nobody gets in without one.
        query_log: where searches and choices are kept; by default nowhere.
        traces: told of every answer.
        answers: remembers the first answers to writes; by default this process alone does.
        names_requests: put each request's name on its answer; Ray Serve's proxy does so itself.
    """
    api = FastAPI(
        title="MuLan",
        summary="Music search by meaning.",
        description="Every answer names the release that gave it and the time of each stage. Errors have one shape.",
        version="1",
        servers=SERVERS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
    )
    install_handlers(api)
    access = Access(
        keys,
        host=config.host,
        allow_open=config.allow_open,
        rate_per_s=config.rate_per_s,
        origins=config.cors_origins,
    )
    recorders = [request_log(service.release.model_version, service.release.collection), *([traces] if traces else [])]
    _guard(api, service, config, access, recorders, names_requests=names_requests)
    log = query_log or QueryLog(None, "off")
    api.include_router(query_routes(service, log))
    api.include_router(choice_routes(service, log))
    api.include_router(catalogue_routes(service, log, answers or FirstAnswers()))
    api.include_router(_probes(service, access))
    _add_pages(api)
    forgive_slashes(api.router)
    describe_all(api)
    return api


def _guard(
    api: FastAPI,
    service: Service,
    config: ServeConfig,
    access: Access,
    recorders: list[Recorder],
    *,
    names_requests: bool,
) -> None:
    """Put the middleware around the routes; what is added last is asked first."""
    api.add_middleware(Methods, router=api.router)
    api.add_middleware(Admission, access=access, metrics=service.metrics, config=config)
    if config.cors_origins:
        api.add_middleware(
            Cors,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID", "Idempotency-Key"],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After", *REPLAYED],
        )
    api.add_middleware(
        RequestGuard,
        metrics=service.metrics,
        recorders=recorders,
        cors=bool(config.cors_origins),
        names_requests=names_requests,
    )
    api.add_middleware(Prefix)


def _probes(service: Service, access: Access) -> APIRouter:
    routes = APIRouter(tags=["operation"])

    @routes.get("/livez", summary="The process answers", responses={200: {"model": schemas.LiveAnswer}})
    async def livez() -> Response:
        return JSONResponse({"status": "alive"})

    ready: dict[int | str, dict[str, Any]] = {200: {"model": schemas.ReadyAnswer}, 503: ERRORS[503]}

    @routes.get("/readyz", summary="A search would work now", responses=ready)
    async def readyz() -> Response:
        if access.look().fault:
            raise ApiError(503, f"not ready: {CLOSED}", code="not_ready", headers=RETRY_AFTER)
        try:
            await service.ready()
        except UserError as error:
            raise ApiError(503, f"not ready: {error}", code="not_ready", headers=RETRY_AFTER) from error
        return JSONResponse({"status": "ready", "release": name_of(service)})

    refused: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (401, 403, 429)}
    plain = {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @routes.get("/metrics", summary="Numbers for Prometheus", response_class=Response, responses=refused | {200: plain})
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _add_pages(api: FastAPI) -> None:
    for path, name in (("/", "index.html"), ("/docs", "docs.html")):
        api.add_route(path, _page(name), include_in_schema=False)
    api.mount("/page", PageFiles(directory=PAGE))


def _page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A page of ours. Its addresses begin with ``./``, which holds wherever a proxy shows it at ``.../``.

    Where the proxy tells its prefix they are written out: it may show the page at ``/music`` too.
    """
    text = (PAGE / name).read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": _POLICIES[name], "Cache-Control": "no-cache"}

    async def page(request: Request) -> Response:
        prefix = request.state.prefix
        return HTMLResponse(text.replace('="./', f'="{prefix}/') if prefix else text, headers=headers)

    return page
