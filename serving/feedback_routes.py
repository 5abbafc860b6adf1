"""The route by which callers say which hit of a search was the one."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving import schemas
from serving.bodies import is_json, json_body, parse_json
from serving.errors import ApiError
from serving.json_response import ERRORS
from serving.query_log import QueryLog
from serving.service import Service

_CLICK = {"a click": {"request_id": "4f0c2b1e", "track_id": "demo-00042"}}


def choice_routes(service: Service, log: QueryLog) -> APIRouter:
    """The route over a query log."""
    routes = APIRouter(tags=["search"])

    @routes.post(
        "/v1/feedback",
        summary="Say which hit of a search was the one, such as by a click",
        responses=ERRORS | {409: ERRORS[404], 200: {"model": schemas.FeedbackAnswer}},
        openapi_extra=json_body(schemas.FeedbackRequest, _CLICK),
    )
    async def send_feedback(request: Request) -> Response:
        if not log.is_on:
            raise ApiError(409, "the query log is off, so there is nothing to add this to; see serve.query_log")
        if not is_json(request):
            raise ApiError(415, "send application/json")
        asked = parse_json(schemas.FeedbackRequest, await request.body())
        await service.aside(log.feedback, asked.request_id, asked.track_id)
        return JSONResponse({"status": "noted"})

    return routes
