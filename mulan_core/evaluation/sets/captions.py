"""Captions as queries: MusicCaps and Song Describer, where each caption should find its own clip."""

from __future__ import annotations

from mulan_core.evaluation.sets.definition import EvaluationSet

SETS = (
    EvaluationSet(
        name="musiccaps",
        title="MusicCaps captions",
        suites=("retrieval",),
        dataset="musiccaps",
        split="test: the clips of AudioSet's evaluation part (2,858), one caption each",
        queries=("caption",),
        needs="mulan data import musiccaps; of 10 s, so clip_s of 10 or more",
    ),
    EvaluationSet(
        name="song-describer",
        title="Song Describer captions",
        suites=("retrieval",),
        dataset="song_describer",
        split="all recordings (706 with 1,106 captions; 547 with 746 if imported with valid_only)",
        queries=("caption",),
        needs="mulan data import song_describer; --option valid_only=true for the valid subset",
    ),
)
