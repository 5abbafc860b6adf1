"""What requests and answers of the API look like; the source of its OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from serving.errors import invalid
from serving.filters import TrackFilter

M = TypeVar("M", bound=BaseModel)

MAX_K = 100
MAX_TEXTS = 64
MAX_LABELS = 500

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
K = Annotated[int, Field(ge=1, le=MAX_K, description="How many tracks.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SearchRequest(_Request):
    """Find tracks by words, or like a track of the catalogue."""

    text: Text | None = Field(default=None, description="What to look for, in words.")
    track_id: Text | None = Field(default=None, description="Tracks like this one; it is left out itself.")
    negative_text: Text | None = Field(default=None, description="What the tracks should be away from.")
    k: K = 10
    filter: TrackFilter | None = None

    @model_validator(mode="after")
    def _one_query(self) -> SearchRequest:
        if (self.text is None) == (self.track_id is None):
            raise ValueError("give either text or track_id")
        return self


class AudioSearchForm(_Request):
    """The fields beside the audio in an upload."""

    k: K = 10
    negative_text: Text | None = None
    filter: TrackFilter | None = None


class TagRequest(_Request):
    """Which labels fit a track of the catalogue."""

    track_id: Text
    labels: list[Label] | None = Field(
        default=None, min_length=1, max_length=MAX_LABELS, description="To choose from; default: the catalogue's."
    )


class AudioTagForm(_Request):
    """The field beside the audio in an upload."""

    labels: list[Label] | None = Field(default=None, min_length=1, max_length=MAX_LABELS)


class EmbedRequest(_Request):
    """Texts to vectors."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)


class ReleaseName(BaseModel):
    """What gave an answer."""

    model_version: str
    preprocessing_hash: str
    collection: str
    data_hash: str


class TrackInfo(BaseModel):
    """A track of the catalogue."""

    track_id: str
    title: str
    artist: str
    dataset: str
    labels: list[str]
    audio_url: str | None = Field(description="Where it plays, relative to this endpoint; null where it cannot.")


class TrackHit(TrackInfo):
    """A track found."""

    score: float = Field(description="Cosine between query and track, -1 to 1.")


class Answer(BaseModel):
    """What every answer names."""

    release: ReleaseName
    timing_ms: dict[str, float] = Field(examples=[{"encode": 9.1, "search": 6.3, "total": 16.0}])


class SearchAnswer(Answer):
    """Tracks, best first."""

    hits: list[TrackHit]


class LabelScore(BaseModel):
    """A label and its cosine to the audio."""

    label: str
    score: float


class TagAnswer(Answer):
    """Labels, best first."""

    labels: list[LabelScore]


class EmbedAnswer(Answer):
    """Unit vectors, in the order of the request."""

    dim: int
    vectors: list[list[float]]


class TrackAnswer(Answer):
    """One track."""

    track: TrackInfo


class ReleaseAnswer(ReleaseName):
    """The release served."""

    created_at: str
    num_tracks: int
    labels: list[str] = Field(description="The catalogue's labels, most frequent first.")


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The shape of every error."""

    error: ErrorDetail


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


def request_body(json_model: type[BaseModel], examples: dict[str, Any], form_fields: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI of a route that takes JSON or an upload on the same path."""
    form = {
        "type": "object",
        "required": ["audio"],
        "properties": {
            "audio": {"type": "string", "format": "binary", "description": "WAV, FLAC, OGG or MP3."},
            **form_fields,
        },
    }
    schema = json_model.model_json_schema()
    schema = _inline(schema, schema.pop("$defs", {}))
    named = {name: {"value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": schema, "examples": named}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """Put definitions where they are referred to; these models are not among FastAPI's own components."""
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    return {key: _inline(value, definitions) for key, value in schema.items()}
