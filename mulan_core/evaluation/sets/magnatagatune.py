"""MagnaTagATune's class sets of the paper's Table 4, Top-50 and All-188, each on both splits that papers use.

Folders 0-9, a and b are train, c is valid, d, e and f are test, in both. The "codified" split (jukemir) keeps all
clips; the "minz" split (SampleCNN) keeps clips longer than 29.1 s with at least one of the Top-50 tags. The paper does
not say which is its own (PAPER.md, 8.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulan_core.evaluation.sets.definition import EvaluationSet, parse_names

TOP_50 = parse_names(
    """
    guitar; classical; slow; techno; strings; drums; electronic; rock; fast; piano; ambient; beat; violin; vocal;
    synth; female; indian; opera; male; singing; vocals; no vocals; harpsichord; loud; quiet; flute; woman; male
    vocal; no vocal; pop; soft; sitar; solo; man; classic; choir; voice; new age; dance; male voice; female vocal;
    beats; harp; cello; no voice; weird; country; metal; female voice; choral
    """
)
"""The most frequent tags, most frequent first, as every paper takes them (PAPER.md, 8.3)."""

ALL_188 = parse_names(
    """
    no voice; singer; duet; plucking; hard rock; world; bongos; harpsichord; female singing; clasical; sitar;
    chorus; female opera; male vocal; vocals; clarinet; heavy; silence; beats; men; woodwind; funky; no strings;
    chimes; foreign; no piano; horns; classical; female; no voices; soft rock; eerie; spacey; jazz; guitar; quiet;
    no beat; banjo; electric; solo; violins; folk; female voice; wind; happy; ambient; new age; synth; funk; no
    singing; middle eastern; trumpet; percussion; drum; airy; voice; repetitive; birds; space; strings; bass;
    harpsicord; medieval; male voice; girl; keyboard; acoustic; loud; classic; string; drums; electronic; not
    classical; chanting; no violin; not rock; no guitar; organ; no vocal; talking; choral; weird; opera; soprano;
    fast; acoustic guitar; electric guitar; male singer; man singing; classical guitar; country; violin; electro;
    reggae; tribal; dark; male opera; no vocals; irish; electronica; horn; operatic; arabic; lol; low; instrumental;
    trance; chant; strange; drone; synthesizer; heavy metal; modern; disco; bells; man; deep; fast beat; industrial;
    hard; harp; no flute; jungle; pop; lute; female vocal; oboe; mellow; orchestral; viola; light; echo; piano;
    celtic; male vocals; orchestra; eastern; old; flutes; punk; spanish; sad; sax; slow; male; blues; vocal; indian;
    no singer; scary; india; woman; woman singing; rock; dance; piano solo; guitars; no drums; jazzy; singing;
    cello; calm; female vocals; voices; different; techno; clapping; house; monks; flute; not opera; not english;
    oriental; beat; upbeat; soft; noise; choir; female singer; rap; metal; hip hop; quick; water; baroque; women;
    fiddle; english
    """
)
"""All tags, in the order of the annotations' header; the typos are the data set's (PAPER.md, 8.4)."""

MIN_SECONDS = 29.1
RATE = 16_000
"""Sample rate of prepared clips."""

SPLITS = {
    "": "codified: all clips; folders 0-b train, c valid, d-f test (12:1:3)",
    "-minz": "minz (SampleCNN): clips over 29.1 s with a Top-50 tag; folders 0-b train, c valid, d-f test",
}
"""Ending of the set's name -> the split in words."""


def is_minz(row: Mapping[str, Any]) -> bool:
    """Whether a clip is in the minz split.

    >>> is_minz({"labels": ["guitar"], "num_samples": 465_984}), is_minz({"labels": ["lol"], "num_samples": 465_984})
    (True, False)
    """
    return bool(set(TOP_50).intersection(row["labels"])) and row["num_samples"] / RATE > MIN_SECONDS


def _set(size: int, classes: tuple[str, ...], ending: str) -> EvaluationSet:
    kind = "top50" if size == len(TOP_50) else "all188"
    return EvaluationSet(
        name=f"magnatagatune-{kind}{ending}",
        title=f"MagnaTagATune {'Top-50' if kind == 'top50' else 'All-188'}, {SPLITS[ending].partition(':')[0]} split",
        suites=("tagging", "probe"),
        dataset="magnatagatune",
        split=SPLITS[ending],
        classes=classes,
        class_list="the 50 most frequent tags" if kind == "top50" else "all 188 tags",
        keep=is_minz if ending else None,
        needs="mulan data import magnatagatune, all tags; clip_s of 29.2 or more, so that clips stay whole",
    )


SETS = tuple(_set(len(classes), classes, ending) for classes in (TOP_50, ALL_188) for ending in SPLITS)
