"""What the endpoint answers and takes, as types of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict


class ReleaseName(TypedDict):
    """What gave an answer."""

    model_version: str
    preprocessing_hash: str
    collection: str
    data_hash: str


class Answer(TypedDict):
    """What every answer names."""

    request_id: str
    release: ReleaseName
    timing_ms: dict[str, float]


class ShownTrack(TypedDict):
    """A track of the catalogue."""

    track_id: str
    title: str
    artist: str
    dataset: str
    labels: list[str]
    audio_url: str | None


class Hit(ShownTrack):
    """A track found: its cosine to the query, the chance that it fits, and the window that fits best."""

    score: float
    match: float | None
    start_s: float | None
    end_s: float | None


class SearchAnswer(Answer):
    """Tracks, best first. With ``has_more`` and no ``next_offset`` there are more than pages reach."""

    hits: list[Hit]
    no_good_match: bool | None
    next_offset: int | None
    has_more: bool


class LabelScore(TypedDict):
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
    """One track; ``replaced`` is said of one that was added."""

    track: ShownTrack
    replaced: NotRequired[bool]


class ReleaseAnswer(ReleaseName):
    """The release served."""

    catalogue: str
    created_at: str
    num_tracks: int
    labels: list[str]
    takes_feedback: bool


class MapPoint(TypedDict):
    """A track on the map, with its label of the map's facet."""

    track_id: str
    title: str
    artist: str
    audio_url: str | None
    label: str | None
    x: float
    y: float


class MapAnswer(Answer):
    """The catalogue, or a sample of it, as points within 1 of the middle; near ones tend to sound alike."""

    facet: str | None
    points: list[MapPoint]


class QueryPart(TypedDict, total=False):
    """One of several queries: ``text`` or ``track_id``, and a weight, 1 where none is given."""

    text: str
    track_id: str
    weight: float


Filter = Mapping[str, Any]
"""``labels``, ``dataset`` and ``artist``; all that are given must hold."""
