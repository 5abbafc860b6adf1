"""Routes of the catalogue: look a track up, play it, and the release that is served."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from serving import schemas
from serving.answers import ERRORS, answer, name_of, timing_of
from serving.media import locate_media
from serving.service import Service


def catalogue_routes(service: Service) -> APIRouter:
    """The routes over an open service."""
    routes = APIRouter(tags=["catalogue"])

    # Ids may hold slashes, hence the path converter, and the longer route first.
    @routes.api_route(
        "/v1/tracks/{track_id:path}/audio", methods=["GET", "HEAD"], summary="Play a track", responses=ERRORS
    )
    async def play(request: Request, track_id: str) -> Response:
        track, _ = await service.track(track_id, timing_of(request))
        path, kind = locate_media(track, service.media_root)
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @routes.get(
        "/v1/tracks/{track_id:path}",
        summary="Look up a track",
        responses=ERRORS | {200: {"model": schemas.TrackAnswer}},
    )
    async def track(request: Request, track_id: str) -> Response:
        found, _ = await service.track(track_id, timing_of(request))
        return answer(service, request, {"track": service.show(found)})

    @routes.get("/v1/release", summary="Say what is served", responses={200: {"model": schemas.ReleaseAnswer}})
    async def release() -> Response:
        return JSONResponse(
            name_of(service)
            | {
                "created_at": service.release.created_at,
                "num_tracks": service.collection.count,
                "labels": list(service.collection.labels),
            }
        )

    return routes
