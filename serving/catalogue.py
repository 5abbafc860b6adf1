"""Routes of the catalogue: look a track up, play it, add and delete, the map, and the release that is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving import schemas
from serving.bodies import is_json, parse_values, read_upload, upload_body, with_json
from serving.errors import ApiError
from serving.json_response import ERRORS, json_response, name_of, timing_of
from serving.media import SentFile, locate_media
from serving.query_log import QueryLog
from serving.repeats import Answers, IdempotencyKey, Turn, alone_at, answer_once, hash_of
from serving.service import Service

_TEXT = {"type": "string"}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_AUDIO = {
    "audio/*": _BYTES,
    # Generators of clients know no wildcards; this one they read as bytes.
    "application/octet-stream": _BYTES,
}
_PLAYED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The track's file", "content": _AUDIO},
    206: {"description": "The parts of it that Range asks for", "content": _AUDIO | {"multipart/byteranges": _BYTES}},
    304: {"description": "The caller has it, as If-None-Match or If-Modified-Since says"},
    412: ERRORS[404],
    416: ERRORS[404],
}
_TRACK_FORM = {
    "track_id": _TEXT,
    "title": _TEXT,
    "artist": _TEXT,
    "dataset": {"type": "string", "default": "added"},
    "labels": {"type": "string", "description": "A JSON list."},
}


def catalogue_routes(service: Service, log: QueryLog, answers: Answers) -> APIRouter:
    """The routes over an open service.

    Args:
        service: the catalogue.
        log: whether it is on is said with the release.
        answers: remembers the first answers to writes.
    """
    routes = APIRouter(tags=["catalogue"])
    _add_reads(routes, service)
    _add_writes(routes, service, answers)
    _add_catalogue(routes, service, log)
    return routes


def _add_reads(routes: APIRouter, service: Service) -> None:
    # Ids may hold slashes, hence the path converter, and the longer route first.
    @routes.head("/v1/tracks/{track_id:path}/audio", include_in_schema=False)
    @routes.get(
        "/v1/tracks/{track_id:path}/audio",
        summary="Play a track",
        response_class=Response,
        responses=ERRORS | _PLAYED,
    )
    async def play_track(request: Request, track_id: str) -> Response:
        track, _ = await service.track(track_id, timing_of(request))
        path, kind = locate_media(track, service.root_of(track), service.here)
        return SentFile(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @routes.get(
        "/v1/tracks/{track_id:path}",
        summary="Look up a track",
        responses=ERRORS | {200: {"model": schemas.TrackAnswer}},
    )
    async def get_track(request: Request, track_id: str) -> Response:
        track, _ = await service.track(track_id, timing_of(request))
        return json_response(service, request, {"track": service.show(track)})


def _add_writes(routes: APIRouter, service: Service, answers: Answers) -> None:
    @routes.post(
        "/v1/tracks",
        summary="Add a track to the live collection, or replace one",
        responses=ERRORS | {200: {"model": schemas.AddedAnswer}},
        openapi_extra=upload_body("TrackUpload", _TRACK_FORM, ["track_id"]),
    )
    async def add_track(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        if is_json(request):
            raise ApiError(415, "send multipart/form-data with audio")
        timing = timing_of(request)
        audio, fields = await read_upload(request)
        asked = parse_values(schemas.NewTrack, with_json(fields, "labels"))
        heard = await service.hear(audio, timing)

        async def write(turn: Turn) -> Response:
            async with alone_at(answers, asked.track_id):
                replaced = await turn.know("was_there", lambda: service.has(asked.track_id, timing))
                track = await service.add(asked.model_dump(), heard, timing)
            return json_response(service, request, {"track": track, "replaced": replaced})

        content = hash_of(audio, asked.model_dump())
        return await answer_once(request, answers, write, key=idempotency_key, content=content)

    @routes.delete(
        "/v1/tracks/{track_id:path}",
        summary="Delete a track from the live collection",
        responses=ERRORS | {200: {"model": schemas.DeletedAnswer}},
    )
    async def delete_track(request: Request, track_id: str, idempotency_key: IdempotencyKey = None) -> Response:
        timing = timing_of(request)

        async def write(turn: Turn) -> Response:
            async with alone_at(answers, track_id):
                was_there = await turn.know("was_there", lambda: service.has(track_id, timing))
                if not was_there or not (await service.delete(track_id, timing) or turn.is_again):
                    raise ApiError(404, f"there is no track {track_id}")
            return json_response(service, request, {"deleted": track_id})

        return await answer_once(request, answers, write, key=idempotency_key)


def _add_catalogue(routes: APIRouter, service: Service, log: QueryLog) -> None:
    @routes.get(
        "/v1/map",
        summary="The catalogue as points of a plane",
        responses=ERRORS | {200: {"model": schemas.MapAnswer}},
    )
    async def get_map(request: Request) -> Response:
        with timing_of(request).stage("map"):
            drawn = await service.map()
        return json_response(service, request, drawn)

    @routes.get("/v1/release", summary="Say what is served", responses=ERRORS | {200: {"model": schemas.ReleaseAnswer}})
    async def get_release() -> Response:
        return JSONResponse(
            name_of(service)
            | {
                "catalogue": service.catalogue,
                "created_at": service.release.created_at,
                "num_tracks": await service.count_tracks(),
                "labels": list(service.collection.labels),
                "takes_feedback": log.is_on,
            }
        )
