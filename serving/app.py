"""The HTTP API: routes over ``Service``, and nothing else.

Bodies are read here rather than by FastAPI, since a path takes JSON and uploads alike; their OpenAPI
description comes from ``schemas``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.staticfiles import StaticFiles

from mulan_core.config import ServeConfig
from mulan_core.errors import UserError
from serving import schemas
from serving.errors import RETRY_AFTER, ApiError, install_handlers
from serving.limits import Guard
from serving.media import locate_media
from serving.metrics import Metrics
from serving.schemas import parse_json, parse_values, request_body
from serving.service import Service, Timing

PAGE = Path(__file__).resolve().parent / "page"
_PAGE_HEADERS = {
    # The page needs nothing from elsewhere; anything else in it did not come from us.
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorAnswer} for status in (400, 404, 413, 415, 422, 500, 503)
}
_SEARCHES = {
    "words": {"text": "sad piano for a rainy night", "k": 10},
    "words and filter": {"text": "something to dance to", "filter": {"labels": ["genre:Salsa music"]}},
    "away from": {"text": "relaxing guitar", "negative_text": "vocals"},
    "like a track": {"track_id": "demo-00042", "k": 5},
}
_TEXT_FIELD = {"type": "string"}


def create_api(service: Service, config: ServeConfig) -> FastAPI:
    """The API over an open service."""
    metrics = Metrics()
    metrics.name_release(service.release)
    api = FastAPI(
        title="MuLan",
        summary="Music search by meaning.",
        description="Every answer names the release that gave it and the time of each stage. Errors have one shape.",
        version="1",
    )
    install_handlers(api)
    api.add_middleware(
        Guard,
        metrics=metrics,
        max_body_bytes=config.max_body_mb * 2**20,
        max_ongoing=config.max_ongoing_requests,
        max_queued=config.max_queued_requests,
    )
    _add_queries(api, service, metrics)
    _add_catalogue(api, service, metrics)
    _add_probes(api, service, metrics)
    _add_page(api)
    return api


def _add_queries(api: FastAPI, service: Service, metrics: Metrics) -> None:
    form = {"k": {"type": "integer", "default": 10}, "negative_text": _TEXT_FIELD, "filter": _TEXT_FIELD}

    @api.post(
        "/v1/search",
        summary="Find tracks by words, by audio, or like a track",
        responses=_ERRORS | {200: {"model": schemas.SearchAnswer}},
        openapi_extra=request_body(schemas.SearchRequest, _SEARCHES, form),
    )
    async def search(request: Request) -> Response:
        timing, exclude = Timing(request.state.started), []
        asked: schemas.SearchRequest | schemas.AudioSearchForm
        if _is_json(request):
            asked = parse_json(schemas.SearchRequest, await request.body())
            if asked.track_id is not None:
                query_D, exclude = (await service.track(asked.track_id, timing))[1], [asked.track_id]
            else:
                with timing.stage("encode"):
                    query_D = (await service.encode_texts([str(asked.text)]))[0]
        else:
            audio, fields = await _upload(request)
            asked = parse_values(schemas.AudioSearchForm, _with_json(fields, "filter"))
            query_D = await service.encode_audio(audio, timing)
        hits = await service.search(
            query_D, timing, k=asked.k, negative_text=asked.negative_text, narrow=asked.filter, exclude=exclude
        )
        return _answer(service, metrics, timing, {"hits": hits})

    @api.post(
        "/v1/tag",
        summary="Say which labels fit",
        responses=_ERRORS | {200: {"model": schemas.TagAnswer}},
        openapi_extra=request_body(
            schemas.TagRequest,
            {
                "a track": {"track_id": "demo-00042"},
                "own labels": {"track_id": "demo-00042", "labels": ["calm", "wild"]},
            },
            {"labels": {"type": "string", "description": "A JSON list; default: the catalogue's labels."}},
        ),
    )
    async def tag(request: Request) -> Response:
        timing = Timing(request.state.started)
        asked: schemas.TagRequest | schemas.AudioTagForm
        if _is_json(request):
            asked = parse_json(schemas.TagRequest, await request.body())
            _, audio_D = await service.track(asked.track_id, timing)
        else:
            audio, fields = await _upload(request)
            asked = parse_values(schemas.AudioTagForm, _with_json(fields, "labels"))
            audio_D = await service.encode_audio(audio, timing)
        return _answer(service, metrics, timing, {"labels": await service.tag(audio_D, timing, labels=asked.labels)})

    @api.post(
        "/v1/embed",
        summary="Turn texts or audio into vectors",
        responses=_ERRORS | {200: {"model": schemas.EmbedAnswer}},
        openapi_extra=request_body(schemas.EmbedRequest, {"texts": {"texts": ["calm piano", "techno"]}}, {}),
    )
    async def embed(request: Request) -> Response:
        timing = Timing(request.state.started)
        if _is_json(request):
            asked = parse_json(schemas.EmbedRequest, await request.body())
            with timing.stage("encode"):
                vectors = (await service.encode_texts(asked.texts)).tolist()
        else:
            audio, fields = await _upload(request)
            if fields:
                raise ApiError(422, f"unknown field {next(iter(fields))}; an upload to embed has only audio")
            vectors = [(await service.encode_audio(audio, timing)).tolist()]
        return _answer(service, metrics, timing, {"dim": len(vectors[0]), "vectors": vectors})


def _add_catalogue(api: FastAPI, service: Service, metrics: Metrics) -> None:
    # Ids may hold slashes, hence the path converter, and the longer route first.
    @api.api_route(
        "/v1/tracks/{track_id:path}/audio", methods=["GET", "HEAD"], summary="Play a track", responses=_ERRORS
    )
    async def play(request: Request, track_id: str) -> Response:
        track, _ = await service.track(track_id, Timing(request.state.started))
        path, kind = locate_media(track, service.media_root)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"}
        return FileResponse(path, media_type=kind, headers=headers)

    @api.get(
        "/v1/tracks/{track_id:path}",
        summary="Look up a track",
        responses=_ERRORS | {200: {"model": schemas.TrackAnswer}},
    )
    async def track(request: Request, track_id: str) -> Response:
        timing = Timing(request.state.started)
        found, _ = await service.track(track_id, timing)
        return _answer(service, metrics, timing, {"track": service.show(found)})

    @api.get("/v1/release", summary="Say what is served", responses={200: {"model": schemas.ReleaseAnswer}})
    async def release() -> Response:
        return JSONResponse(
            _name(service)
            | {
                "created_at": service.release.created_at,
                "num_tracks": service.collection.count,
                "labels": list(service.collection.labels),
            }
        )


def _add_probes(api: FastAPI, service: Service, metrics: Metrics) -> None:
    @api.get("/livez", summary="The process answers", tags=["operation"])
    async def livez() -> Response:
        return JSONResponse({"status": "alive"})

    @api.get("/readyz", summary="A search would work now", tags=["operation"], responses={503: _ERRORS[503]})
    async def readyz() -> Response:
        try:
            await service.ready()
        except UserError as error:
            raise ApiError(503, f"not ready: {error}", code="not_ready", headers=RETRY_AFTER) from error
        return JSONResponse({"status": "ready", "release": _name(service)})

    @api.get("/metrics", summary="Numbers for Prometheus", tags=["operation"])
    async def numbers() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)

    api.mount("/page", StaticFiles(directory=PAGE))


def _answer(service: Service, metrics: Metrics, timing: Timing, content: dict[str, Any]) -> Response:
    timing_ms = timing.finish()
    metrics.count_stages(timing_ms)
    headers = {"Server-Timing": ", ".join(f"{stage};dur={ms}" for stage, ms in timing_ms.items())}
    return JSONResponse(content | {"release": _name(service), "timing_ms": timing_ms}, headers=headers)


def _name(service: Service) -> dict[str, str]:
    return {name: getattr(service.release, name) for name in schemas.ReleaseName.model_fields}


def _is_json(request: Request) -> bool:
    """Which of the two kinds of body this is.

    Raises:
        ApiError: 415 if neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise ApiError(415, f"send application/json or multipart/form-data with audio, not {kind or 'an untyped body'}")
    return kind == "application/json"


async def _upload(request: Request) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the file field ``audio`` and the other fields."""
    async with request.form(max_files=1, max_fields=8) as form:
        audio = form.get("audio")
        if not isinstance(audio, UploadFile):
            raise ApiError(422, "audio: send the file in a form field named audio")
        fields = {name: value for name, value in form.items() if name != "audio"}
        return await audio.read(), fields


def _with_json(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields with one of them, written in JSON, read."""
    if name not in fields:
        return fields
    try:
        return fields | {name: json.loads(fields[name])}
    except (TypeError, ValueError, RecursionError) as error:
        raise ApiError(422, f"{name}: must be JSON") from error
