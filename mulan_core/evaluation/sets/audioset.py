"""AudioSet's class sets of the paper's Table 4: Gen-25, and Mu-141 in both readings. Lists of labels by branch.

The paper prints neither list. Gen-25 follows from the ontology. Of the music subtree 150 classes are labels; only two
unions of whole branches make 141 (PAPER.md, 8.2), so there are two sets, and every report names its own.
"""

from __future__ import annotations

from mulan_core.evaluation.sets.definition import EvaluationSet, parse_names

GEN_25 = parse_names(
    """
    Pop music; Hip hop music; Rock music; Rhythm and blues; Soul music; Reggae; Country; Funk; Folk music; Middle
    Eastern music; Jazz; Disco; Classical music; Electronic music; Music of Latin America; Blues; Music for
    children; New-age music; Vocal music; Music of Africa; Christian music; Music of Asia; Ska; Traditional music;
    Independent music
    """
)
"""Children of "Music genre" (/m/0kpv1t): there are 25, and all are labels (PAPER.md, 8.1)."""

INSTRUMENTS = parse_names(
    """
    Musical instrument; Plucked string instrument; Guitar; Electric guitar; Bass guitar; Acoustic guitar; Steel
    guitar, slide guitar; Tapping (guitar technique); Strum; Banjo; Sitar; Mandolin; Zither; Ukulele; Keyboard
    (musical); Piano; Electric piano; Organ; Electronic organ; Hammond organ; Synthesizer; Sampler; Harpsichord;
    Percussion; Drum kit; Drum machine; Drum; Snare drum; Rimshot; Drum roll; Bass drum; Timpani; Tabla; Cymbal;
    Hi-hat; Cowbell; Wood block; Tambourine; Rattle (instrument); Maraca; Gong; Tubular bells; Mallet percussion;
    Marimba, xylophone; Glockenspiel; Vibraphone; Steelpan; Orchestra; Brass instrument; French horn; Trumpet;
    Trombone; Bowed string instrument; String section; Violin, fiddle; Pizzicato; Cello; Double bass; Wind
    instrument, woodwind instrument; Flute; Saxophone; Clarinet; Harp; Choir; Bell; Church bell; Jingle bell;
    Bicycle bell; Tuning fork; Chime; Wind chime; Change ringing (campanology); Harmonica; Accordion; Bagpipes;
    Didgeridoo; Shofar; Theremin; Singing bowl; Scratching (performance technique)
    """
)
""""Musical instrument" and below. 80 of the 527 labels."""

GENRES = parse_names(
    """
    Pop music; Hip hop music; Beatboxing; Rock music; Heavy metal; Punk rock; Grunge; Progressive rock; Rock and
    roll; Psychedelic rock; Rhythm and blues; Soul music; Reggae; Country; Swing music; Bluegrass; Funk; Folk music;
    Middle Eastern music; Jazz; Disco; Classical music; Opera; Electronic music; House music; Techno; Dubstep; Drum
    and bass; Electronica; Electronic dance music; Ambient music; Trance music; Music of Latin America; Salsa music;
    Flamenco; Blues; Music for children; New-age music; Vocal music; A capella; Chant; Mantra; Music of Africa;
    Afrobeat; Christian music; Gospel music; Music of Asia; Carnatic music; Music of Bollywood; Ska; Traditional
    music; Independent music
    """
)
"""Below "Music genre", which is no label itself. 52 of the 527 labels."""

ROLES = parse_names(
    """
    Background music; Theme music; Jingle (music); Soundtrack music; Lullaby; Video game music; Christmas music;
    Dance music; Wedding music
    """
)
"""Below "Music role". 9 of the 527 labels."""

MOODS = parse_names(
    """
    Happy music; Funny music; Sad music; Tender music; Exciting music; Angry music; Scary music
    """
)
"""Below "Music mood". 7 of the 527 labels."""

MU_141 = (*INSTRUMENTS, *GENRES, *ROLES)
"""Reading A, the more natural one: 80 instruments, 52 genres, 9 roles; no root, no mood, no "Song"."""
MU_141_B = ("Music", *INSTRUMENTS, *GENRES, *MOODS, "Song")
"""Reading B: the root, 80 instruments, 52 genres, 7 moods, and "Song", the only label among the concepts."""

SPLIT = "eval (test): AudioSet's evaluation segments that were prepared, labels as published"
NEEDS = "mulan data import audioset, with --option music_only=true; --option expand_parents=true adds labels above"


def _set(name: str, title: str, classes: tuple[str, ...], class_list: str) -> EvaluationSet:
    return EvaluationSet(
        name=name,
        title=title,
        suites=("tagging", "probe"),
        dataset="audioset",
        split=SPLIT,
        classes=classes,
        class_list=class_list,
        needs=NEEDS,
    )


SETS = (
    _set("audioset-gen25", "AudioSet Gen-25", GEN_25, 'Gen-25: the 25 children of "Music genre"'),
    _set(
        "audioset-mu141",
        "AudioSet Mu-141, reading A",
        MU_141,
        "Mu-141, reading A: 80 instruments, 52 genres, 9 roles",
    ),
    _set(
        "audioset-mu141-b",
        "AudioSet Mu-141, reading B",
        MU_141_B,
        "Mu-141, reading B: Music, 80 instruments, 52 genres, 7 moods, Song",
    ),
)
