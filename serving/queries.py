"""Routes that ask: search, tag and embed, each by JSON or by an upload."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving import schemas
from serving.bodies import is_json, parse_json, parse_values, read_upload, request_body, with_json
from serving.errors import ApiError
from serving.json_response import ERRORS, json_response, timing_of
from serving.query_log import QueryLog
from serving.ranking import MAX_DEPTH
from serving.service import Part, Service

NEGATIVE_WEIGHT = -0.5
"""Of ``negative_text``; at -1 the query itself would drown."""

_SEARCHES = {
    "words": {"text": "sad piano for a rainy night", "k": 10},
    "words and filter": {"text": "something to dance to", "filter": {"labels": ["genre:Salsa music"]}},
    "away from": {"text": "piano", "negative_text": "sad"},
    "like a track": {"track_id": "demo-00042", "k": 5},
    "several": {
        "queries": [{"track_id": "demo-00042"}, {"text": "faster", "weight": 0.5}, {"text": "vocals", "weight": -0.3}]
    },
    "the next page": {"text": "calm piano", "k": 10, "offset": 10},
}
_TEXT = {"type": "string"}
_SEARCH_FORM = {
    "k": {"type": "integer", "default": 10},
    "offset": {"type": "integer", "default": 0},
    "weight": {"type": "number", "default": 1, "description": "Of the audio, beside queries."},
    "queries": {"type": "string", "description": "More queries, added to the audio: a JSON list as in a JSON search."},
    "negative_text": _TEXT,
    "filter": {"type": "string", "description": "A JSON object as in a JSON search."},
}
_LABELS_FORM = {"labels": {"type": "string", "description": "A JSON list; default: the catalogue's labels."}}
_TAGS = {
    "a track": {"track_id": "demo-00042"},
    "own labels": {"track_id": "demo-00042", "labels": ["calm", "wild"]},
}
_TEXTS = {"texts": {"texts": ["calm piano", "techno"]}}


def query_routes(service: Service, log: QueryLog) -> APIRouter:
    """The routes over an open service."""
    routes = APIRouter(tags=["search"])
    _add_search(routes, service, log)
    _add_tag(routes, service)
    _add_embed(routes, service)
    return routes


def _add_search(routes: APIRouter, service: Service, log: QueryLog) -> None:
    @routes.post(
        "/v1/search",
        summary="Find tracks by words, by audio, like a track, or by several of these",
        responses=ERRORS | {200: {"model": schemas.SearchAnswer}},
        openapi_extra=request_body(schemas.SearchRequest, _SEARCHES, "SearchUpload", _SEARCH_FORM),
    )
    async def search(request: Request) -> Response:
        timing = timing_of(request)
        parts: list[Part] = []
        asked: schemas.SearchRequest | schemas.AudioSearchForm
        if is_json(request):
            asked = parse_json(schemas.SearchRequest, await request.body())
            if asked.queries is None:
                parts.append(Part(text=asked.text, track_id=asked.track_id))
        else:
            audio, fields = await read_upload(request)
            asked = parse_values(schemas.AudioSearchForm, with_json(fields, "filter", "queries"))
            parts.append(Part(asked.weight, vector_D=await service.encode_audio(audio, timing)))
        parts += [Part(part.weight, part.text, part.track_id) for part in asked.queries or ()]
        if asked.negative_text is not None:
            parts.append(Part(NEGATIVE_WEIGHT, asked.negative_text))
        query = await service.combine(parts, timing)
        last = min(asked.offset + asked.k, MAX_DEPTH)
        page = await service.search(query, timing, k=last - asked.offset, offset=asked.offset, narrow=asked.filter)
        if log.is_on:
            hits = [hit["track_id"] for hit in page.hits]
            service.aside(log.search, request.state.request_id, [_kept(part) for part in parts], hits, asked.offset)
        content = {
            "hits": page.hits,
            "no_good_match": page.no_good_match,
            "next_offset": last if page.has_more and last < MAX_DEPTH else None,
            "has_more": page.has_more,
        }
        return json_response(service, request, content)


def _add_tag(routes: APIRouter, service: Service) -> None:
    @routes.post(
        "/v1/tag",
        summary="Say which labels fit",
        responses=ERRORS | {200: {"model": schemas.TagAnswer}},
        openapi_extra=request_body(schemas.TagRequest, _TAGS, "TagUpload", _LABELS_FORM),
    )
    async def tag(request: Request) -> Response:
        timing = timing_of(request)
        asked: schemas.TagRequest | schemas.AudioTagForm
        if is_json(request):
            asked = parse_json(schemas.TagRequest, await request.body())
            _, audio_D = await service.track(asked.track_id, timing)
        else:
            audio, fields = await read_upload(request)
            asked = parse_values(schemas.AudioTagForm, with_json(fields, "labels"))
            audio_D = await service.encode_audio(audio, timing)
        return json_response(service, request, {"labels": await service.tag(audio_D, timing, labels=asked.labels)})


def _add_embed(routes: APIRouter, service: Service) -> None:
    @routes.post(
        "/v1/embed",
        summary="Turn texts or audio into vectors",
        responses=ERRORS | {200: {"model": schemas.EmbedAnswer}},
        openapi_extra=request_body(schemas.EmbedRequest, _TEXTS, "EmbedUpload", {}),
    )
    async def embed(request: Request) -> Response:
        timing = timing_of(request)
        if is_json(request):
            asked = parse_json(schemas.EmbedRequest, await request.body())
            with timing.stage("encode"):
                vectors = (await service.encode_texts(asked.texts)).tolist()
        else:
            audio, fields = await read_upload(request)
            if fields:
                raise ApiError(422, f"unknown field {next(iter(fields))}; an upload to embed has only audio")
            vectors = [(await service.encode_audio(audio, timing)).tolist()]
        return json_response(service, request, {"dim": len(vectors[0]), "vectors": vectors})


def _kept(part: Part) -> dict[str, Any]:
    """What the query log keeps of a part: never audio."""
    words = {"text": part.text} if part.text is not None else {"track_id": part.track_id} if part.track_id else {}
    return words | {"weight": part.weight}
