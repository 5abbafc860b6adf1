"""Bodies of requests: how they are read, and how OpenAPI describes them.

FastAPI does neither, since a path takes JSON and uploads alike.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serving.errors import ApiError, invalid

M = TypeVar("M", bound=BaseModel)


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
        ApiError: 400 if the body is no form or ends early; 415 for a charset other than UTF-8; 422 if there is no such
            file, a field comes twice, or text is not UTF-8.
    """
    _, kind = parse_options_header(request.headers.get("content-type"))
    charset = kind.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError(415, f"send the form's text as UTF-8, not {charset[:40]!r}")
    parser = _Form(request.headers, request.stream(), max_files=1, max_fields=8)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(400, error.message) from error
    try:
        if not parser.is_whole:
            raise ApiError(400, "the form ends early, before its last boundary; send all of it")
        audio = form.get("audio")
        if not isinstance(audio, UploadFile):
            raise ApiError(422, "audio: send the file in a form field named audio")
        fields = {name: value for name, value in form.items() if name != "audio"}
        if len(fields) + 1 < len(form.multi_items()):
            raise ApiError(422, "a field of the form comes twice; send each once")
        return await audio.read(), fields
    finally:
        await form.close()


class _Form(MultiPartParser):
    """Starlette's parser, which by itself takes half a form for all of it, and what is not UTF-8 for Latin-1."""

    is_whole = False
    """The last boundary has come."""

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is None:
            try:
                part.data.decode(self._charset)
            except UnicodeDecodeError as error:
                raise ApiError(422, f"{part.field_name}: its bytes are not UTF-8 text; send it as UTF-8") from error
        super().on_part_end()

    def on_end(self) -> None:
        self.is_whole = True


def parse_json(model: type[M], body: bytes) -> M:
    """Read a JSON body.

    Raises:
        ApiError: 400 if it is not JSON, 422 if its values do not fit.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from error


def parse_values(model: type[M], values: dict[str, Any]) -> M:
    """Read the text fields of a form.

    Raises:
        ApiError: 422 if the values do not fit.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from error


def with_json(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """The fields of a form with some of them, written in JSON, read.

    Raises:
        ApiError: 422 if one is not JSON.
    """
    read = dict(fields)
    for name in names:
        if name in fields:
            try:
                read[name] = json.loads(fields[name])
            except (TypeError, ValueError, RecursionError) as error:
                raise ApiError(422, f"{name}: must be JSON") from error
    return read


def request_body(
    json_model: type[BaseModel], examples: dict[str, Any], form_name: str, form_fields: dict[str, Any]
) -> dict[str, Any]:
    """OpenAPI of a route that takes JSON or an upload on the same path."""
    content = _json(json_model, examples) | _form(form_name, form_fields, ["audio"])
    return {"requestBody": {"required": True, "content": content}}


def json_body(model: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI of a route that takes JSON alone."""
    return {"requestBody": {"required": True, "content": _json(model, examples)}}


def upload_body(form_name: str, form_fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """OpenAPI of a route that takes an upload alone."""
    return {"requestBody": {"required": True, "content": _form(form_name, form_fields, ["audio", *required])}}


def _json(model: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    named = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": {"schema": schema, "examples": named}}


def _form(name: str, fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    audio = {"type": "string", "format": "binary", "description": "WAV, FLAC, OGG or MP3."}
    schema = {
        "title": name,
        "type": "object",
        "required": required,
        "properties": {"audio": audio, **fields},
        "additionalProperties": False,
    }
    return {"multipart/form-data": {"schema": schema}}
