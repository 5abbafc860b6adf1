"""MTG-Jamendo's official tasks: the 50 most frequent tags, genres, instruments, moods and themes.

A label is the official tag; its text is spelled as people write it (``readers/mtg_jamendo.py``). The split is the one
that was imported; split 0 is what papers report.
"""

from __future__ import annotations

from mulan_core.evaluation.sets.definition import EvaluationSet, parse_names
from mulan_core.readers.mtg_jamendo import spell

TOP_50 = parse_names(
    """
    genre:alternative; genre:ambient; genre:atmospheric; genre:chillout; genre:classical; genre:dance;
    genre:downtempo; genre:easylistening; genre:electronic; genre:experimental; genre:folk; genre:funk;
    genre:hiphop; genre:house; genre:indie; genre:instrumentalpop; genre:jazz; genre:lounge; genre:metal;
    genre:newage; genre:orchestral; genre:pop; genre:popfolk; genre:poprock; genre:reggae; genre:rock;
    genre:soundtrack; genre:techno; genre:trance; genre:triphop; genre:world; instrument:acousticguitar;
    instrument:bass; instrument:computer; instrument:drummachine; instrument:drums; instrument:electricguitar;
    instrument:electricpiano; instrument:guitar; instrument:keyboard; instrument:piano; instrument:strings;
    instrument:synthesizer; instrument:violin; instrument:voice; mood/theme:emotional; mood/theme:energetic;
    mood/theme:film; mood/theme:happy; mood/theme:relaxing
    """
)
"""The tags of the subset ``top50tags``."""

SUBSETS = {
    "top50": ("top50tags", "50 most frequent tags", TOP_50, None),
    "genre": ("genre", "87 genres", None, "genre"),
    "instrument": ("instrument", "40 instruments", None, "instrument"),
    "moodtheme": ("moodtheme", "56 moods and themes", None, "mood/theme"),
}
"""Ending of the name -> the official subset, its classes in words, the class list, the facet."""

SETS = tuple(
    EvaluationSet(
        name=f"mtg-jamendo-{ending}",
        title=f"MTG-Jamendo, {words}",
        suites=("tagging", "probe"),
        dataset="mtg_jamendo",
        split=f"test of the official split that was imported (0 by default), subset {subset}",
        classes=classes,
        class_list=f"the {words} of the official subset",
        facet=facet,
        spell=spell,
        needs=f"mulan data import mtg_jamendo --option subset={subset}",
    )
    for ending, (subset, words, classes, facet) in SUBSETS.items()
)
