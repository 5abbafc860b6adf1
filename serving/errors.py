"""Errors of the endpoint: what the parts raise, and the one JSON shape in which all of them are answered.

{"error": {"code": "not_found", "message": "there is no track x9", "request_id": "4f0c..."}}
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from mulan_core.audio.decode import AudioError
from mulan_core.errors import UserError

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "conflict",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    416: "no_such_part",
    422: "invalid",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}
_OF_AUDIO = {
    "empty": "the audio is empty: it holds no sound",
    "silent": "nothing can be heard in the audio: it is silent",
    "undecodable": "the file cannot be read as audio; WAV, FLAC, OGG and MP3 can be",
    "not_finite": "the audio is damaged: it holds values that are no sound",
}
"""What is wrong with an upload, for who sent it; of what is not here ``AudioError`` has a plain sentence itself."""
RETRY_AFTER = {"Retry-After": "2"}

logger = logging.getLogger("mulan.serving")


class StoreError(UserError):
    """Milvus, or the disk, does not do what was asked."""


class StoreUnavailableError(StoreError):
    """Milvus does not answer; it may again later."""


class EditsError(StoreError):
    """Records of what the API has done cannot be used. The sentence names the place, which is for the operator alone.

    Args:
        message: the whole sentence, for commands and the log.
        told: the one for who asks over the API.
    """

    def __init__(self, message: str, told: str) -> None:
        super().__init__(message)
        self.told = told


class DamagedEditError(EditsError):
    """A record of an edit holds what none can hold."""


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}
        self.code = code or CODES[status]


def error_response(error: ApiError, request_id: str) -> JSONResponse:
    """The error as a response."""
    body = {"error": {"code": error.code, "message": error.message, "request_id": request_id}}
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def invalid(error: ValidationError | RequestValidationError) -> ApiError:
    """What is wrong with a request's values, in words; 400 where it is not even JSON."""
    details = error.errors()
    words = "; ".join(_words(item["loc"], item["msg"]) for item in details[:5])
    return ApiError(400 if any(item["type"] == "json_invalid" for item in details) else 422, words)


def _words(where: tuple[int | str, ...], message: str) -> str:
    path = ".".join(str(part) for part in where if part != "body")
    message = message.removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def internal(error: Exception, request_id: str) -> ApiError:
    """The answer to an error that nobody foresaw; its traceback goes to the log."""
    logger.error("a request failed", exc_info=error, extra={"fields": {"request_id": request_id}})
    return ApiError(500, "the endpoint failed on this request; its log has the reason under the request id")


def install_handlers(api: FastAPI) -> None:
    """Answer everything that a request can raise in the one shape."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        api_error = _as_api_error(error)
        request.state.error_code = api_error.code
        return error_response(api_error, getattr(request.state, "request_id", "none"))

    # Others are nobody's mistake but ours: they reach ``RequestGuard``.
    for kind in (ApiError, HTTPException, RequestValidationError, UserError):
        api.add_exception_handler(kind, handle)


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        status = error.status_code if error.status_code in CODES else 400
        return ApiError(status, error.detail, headers=dict(error.headers or {}))
    if isinstance(error, RequestValidationError):
        return invalid(error)
    if isinstance(error, StoreUnavailableError):
        return ApiError(503, str(error), headers=RETRY_AFTER)
    if isinstance(error, EditsError):
        logger.error(str(error))
        return ApiError(503, error.told, code="store_failed", headers=RETRY_AFTER)
    if isinstance(error, StoreError):
        return ApiError(503, str(error), code="store_failed", headers=RETRY_AFTER)
    if isinstance(error, AudioError):
        return ApiError(422, _OF_AUDIO.get(error.reason, str(error)), code=f"audio_{error.reason}")
    return ApiError(422, str(error))
