"""What the answers of all routes share: the frame that names release, request and stages, and the errors."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from serving import schemas
from serving.prefix import put_before
from serving.service import Service
from serving.timing import Timing

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorAnswer} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503)
}


def timing_of(request: Request) -> Timing:
    """The stages of this request; ``RequestGuard`` has put them there."""
    timing: Timing = request.state.timing
    return timing


def json_response(service: Service, request: Request, content: dict[str, Any], status: int = 200) -> Response:
    """The answer with the release that gave it, the request's name and its stages."""
    timing_ms = timing_of(request).finish()
    service.metrics.count_stages(timing_ms)
    frame = {"request_id": request.state.request_id, "release": name_of(service), "timing_ms": timing_ms}
    headers = {"Server-Timing": ", ".join(f"{stage};dur={ms}" for stage, ms in timing_ms.items())}
    content = put_before(request.state.prefix, content)
    return JSONResponse(content | frame, headers=headers, status_code=status)


def name_of(service: Service) -> dict[str, str]:
    """The release as answers name it."""
    return {name: getattr(service.release, name) for name in schemas.ReleaseName.model_fields}
