"""What requests and answers of the API look like; the source of its OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mulan_core.data.names import MAX_BYTES, labels_of, why_misnamed
from serving.filters import TrackFilter
from serving.ranking import MAX_DEPTH

MAX_K = 100
MAX_QUERIES = 16
MAX_TEXTS = 64
MAX_CHOICES = 500

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
TrackId = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
"""The id of a track that is asked for, letter for letter; one that no track can have is one that is not there."""
Choice = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_BYTES["labels"])]
K = Annotated[int, Field(ge=1, le=MAX_K, description="How many tracks.")]
Offset = Annotated[int, Field(ge=0, lt=MAX_DEPTH, description="How many of the best to skip, for the next page.")]
Weight = Annotated[
    float, Field(ge=-10, le=10, allow_inf_nan=False, description="Below 0 leads away from it; 0 leaves it out.")
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WeightedQuery(_Request):
    """One of several things that a search asks for: words, or a track."""

    text: Text | None = None
    track_id: TrackId | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _one(self) -> WeightedQuery:
        if (self.text is None) == (self.track_id is None):
            raise ValueError("give either text or track_id")
        return self


Queries = Annotated[
    list[WeightedQuery], Field(min_length=1, max_length=MAX_QUERIES, description="Several queries, added by weight.")
]


class _Search(_Request):
    negative_text: Text | None = Field(
        default=None, description="What the tracks should be away from; the same as a text with weight -0.5."
    )
    k: K = 10
    offset: Offset = 0
    filter: TrackFilter | None = None


class SearchRequest(_Search):
    """Find tracks by words, like a track of the catalogue, or by several of both."""

    text: Text | None = Field(default=None, description="What to look for, in words.")
    track_id: TrackId | None = Field(default=None, description="Tracks like this one; it is left out itself.")
    queries: Queries | None = None

    @model_validator(mode="after")
    def _one_query(self) -> SearchRequest:
        if [self.text, self.track_id, self.queries].count(None) != 2:
            raise ValueError("give one of text, track_id and queries")
        return self


class AudioSearchForm(_Search):
    """The fields beside the audio in an upload."""

    weight: Weight = 1.0
    queries: Queries | None = None


class TagRequest(_Request):
    """Which labels fit a track of the catalogue."""

    track_id: TrackId
    labels: list[Choice] | None = Field(
        default=None, min_length=1, max_length=MAX_CHOICES, description="To choose from; default: the catalogue's."
    )


class AudioTagForm(_Request):
    """The field beside the audio in an upload."""

    labels: list[Choice] | None = Field(default=None, min_length=1, max_length=MAX_CHOICES)


class NewTrack(_Request):
    """The fields beside the audio of a track that is added, under the rule that holds for a manifest too."""

    track_id: str
    title: str = ""
    artist: str = ""
    dataset: str = "added"
    labels: list[str] = []

    @field_validator("track_id", "title", "artist", "dataset")
    @classmethod
    def _named(cls, value: str, info: ValidationInfo) -> str:
        refused = why_misnamed(str(info.field_name), value)
        if refused:
            raise ValueError(refused)
        return value or str(cls.model_fields[str(info.field_name)].default)

    @field_validator("labels")
    @classmethod
    def _labelled(cls, labels: list[str]) -> list[str]:
        return labels_of(labels)


class EmbedRequest(_Request):
    """Texts to vectors."""

    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)


class FeedbackRequest(_Request):
    """Which hit of a search was the one."""

    request_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    track_id: TrackId


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
    audio_url: str | None = Field(
        description="Where it plays: a path on the host that was asked, under the proxy's X-Forwarded-Prefix if it "
        "sends one; null where it cannot."
    )


class TrackHit(TrackInfo):
    """A track found."""

    score: float = Field(description="Cosine between query and track, -1 to 1.")
    match: float | None = Field(
        description="Chance that the track fits, 0 to 1, by the catalogue's own labels; null where it has too few."
    )
    start_s: float | None = Field(
        description="Where in its audio the window begins that fits best, seconds; null where no windows are indexed."
    )
    end_s: float | None = Field(description="Where that window ends.")


class Answer(BaseModel):
    """What every answer names."""

    request_id: str = Field(description="Also in the header X-Request-ID.")
    release: ReleaseName
    timing_ms: dict[str, float] = Field(examples=[{"encode": 9.1, "search": 6.3, "total": 16.0}])


class SearchAnswer(Answer):
    """Tracks, best first."""

    hits: list[TrackHit]
    no_good_match: bool | None = Field(
        description="Even the best track is not likely to fit; null where the catalogue has too few labels to tell."
    )
    next_offset: int | None = Field(
        description=f"Where the next page starts; null where there is none, and at the first {MAX_DEPTH:,} tracks."
    )
    has_more: bool = Field(
        description="There are tracks after these; with next_offset null beyond what pages reach: narrow the search."
    )


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


class FeedbackAnswer(BaseModel):
    """That it was written down."""

    status: str


class TrackAnswer(Answer):
    """One track."""

    track: TrackInfo


class AddedAnswer(TrackAnswer):
    """A track that was added to the collection."""

    replaced: bool = Field(description="There was a track of this id before.")


class DeletedAnswer(Answer):
    """A track that was deleted from the collection."""

    deleted: str


class ReleaseAnswer(ReleaseName):
    """The release served."""

    catalogue: str = Field(description="The name of the catalogue that is served; empty where it has none.")
    created_at: str
    num_tracks: int
    labels: list[str] = Field(description="The catalogue's labels, most frequent first.")
    takes_feedback: bool = Field(description="The query log is on, so choices are worth sending.")


class LiveAnswer(BaseModel):
    """That the process answers."""

    status: str


class ReadyAnswer(LiveAnswer):
    """That a search would work."""

    release: ReleaseName


class MapPoint(BaseModel):
    """A track on the map."""

    track_id: str
    title: str
    artist: str
    audio_url: str | None
    label: str | None = Field(description="Its label of the facet.")
    x: float
    y: float


class MapAnswer(Answer):
    """The catalogue, or a sample of it, as points within 1 of the middle; near ones tend to sound alike."""

    facet: str | None = Field(description="What the labels are of, such as genre; null where tracks have none.")
    points: list[MapPoint]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The shape of every error."""

    error: ErrorDetail
