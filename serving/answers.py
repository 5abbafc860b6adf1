"""What all routes share: which kind of body came, the parts of an upload, and the frame of every answer."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile

from serving import schemas
from serving.errors import ApiError
from serving.service import Service
from serving.timing import Timing

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorAnswer} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503)
}


def timing_of(request: Request) -> Timing:
    """The stages of this request; ``Guard`` has put them there."""
    timing: Timing = request.state.timing
    return timing


def answer(service: Service, request: Request, content: dict[str, Any], status: int = 200) -> Response:
    """The answer with the release that gave it, the request's name and its stages."""
    timing_ms = timing_of(request).finish()
    service.metrics.count_stages(timing_ms)
    frame = {"request_id": request.state.request_id, "release": name_of(service), "timing_ms": timing_ms}
    headers = {"Server-Timing": ", ".join(f"{stage};dur={ms}" for stage, ms in timing_ms.items())}
    return JSONResponse(content | frame, headers=headers, status_code=status)


def name_of(service: Service) -> dict[str, str]:
    """The release as answers name it."""
    return {name: getattr(service.release, name) for name in schemas.ReleaseName.model_fields}


def is_json(request: Request) -> bool:
    """Which of the two kinds of body this is.

    Raises:
        ApiError: 415 if neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise ApiError(415, f"send application/json or multipart/form-data with audio, not {kind or 'an untyped body'}")
    return kind == "application/json"


async def read_upload(request: Request) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the file field ``audio`` and the other fields.

    Raises:
        ApiError: 422 if there is no such file, or another one.
    """
    async with request.form(max_files=1, max_fields=8) as form:
        audio = form.get("audio")
        if not isinstance(audio, UploadFile):
            raise ApiError(422, "audio: send the file in a form field named audio")
        fields = {name: value for name, value in form.items() if name != "audio"}
        return await audio.read(), fields
