"""The HTTP API put together: routes over ``Service``, probes, the search page, and the guard around all of it.

Bodies are read in the routes rather than by FastAPI, since a path takes JSON and uploads alike; their OpenAPI
description comes from ``schemas``.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from mulan_core.config import ServeConfig
from mulan_core.errors import UserError
from serving.access import Access
from serving.answers import ERRORS, name_of
from serving.catalogue import catalogue_routes
from serving.choices import choice_routes
from serving.errors import RETRY_AFTER, ApiError, install_handlers
from serving.keys import KeyFile
from serving.limits import Guard
from serving.queries import query_routes
from serving.query_log import QueryLog
from serving.records import Recorder, request_log
from serving.service import Service

PAGE = Path(__file__).resolve().parent / "page"
_PAGE_HEADERS = {
    # The page needs nothing from elsewhere; anything else in it did not come from us.
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def create_api(
    service: Service,
    config: ServeConfig,
    keys: KeyFile | None = None,
    *,
    query_log: QueryLog | None = None,
    traces: Recorder | None = None,
) -> FastAPI:
    """The API over an open service.

    Args:
        service: what it does.
        config: limits, and who may ask.
        keys: the file of API keys; where it exists, nobody gets in without one.
        query_log: where searches and choices are kept; by default nowhere.
        traces: told of every answer.
    """
    api = FastAPI(
        title="MuLan",
        summary="Music search by meaning.",
        description="Every answer names the release that gave it and the time of each stage. Errors have one shape.",
        version="1",
    )
    install_handlers(api)
    access = Access(
        keys,
        host=config.host,
        allow_open=config.allow_open,
        rate_per_s=config.rate_per_s,
        origins=config.cors_origins,
    )
    recorders = [request_log(service.release.model_version, service.release.collection)]
    recorders += [traces] if traces else []
    api.add_middleware(Guard, access=access, metrics=service.metrics, recorders=recorders, config=config)
    if config.cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After"],
        )
    log = query_log or QueryLog(None, "off")
    api.include_router(query_routes(service, log))
    api.include_router(choice_routes(service, log))
    api.include_router(catalogue_routes(service, log))
    api.include_router(_probes(service))
    _add_page(api)
    return api


def _probes(service: Service) -> APIRouter:
    routes = APIRouter(tags=["operation"])

    @routes.get("/livez", summary="The process answers")
    async def livez() -> Response:
        return JSONResponse({"status": "alive"})

    @routes.get("/readyz", summary="A search would work now", responses={503: ERRORS[503]})
    async def readyz() -> Response:
        try:
            await service.ready()
        except UserError as error:
            raise ApiError(503, f"not ready: {error}", code="not_ready", headers=RETRY_AFTER) from error
        return JSONResponse({"status": "ready", "release": name_of(service)})

    plain = {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @routes.get("/metrics", summary="Numbers for Prometheus", response_class=Response, responses={200: plain})
    async def numbers() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _add_page(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)

    api.mount("/page", StaticFiles(directory=PAGE))
