"""The rule for LF text: how much a text describes music, by a vocabulary of music against signs of chatter.

It is the stand-by for the paper's fine-tuned BERT (``classifier.py``): cheap and explainable, and it misses
descriptions that use no word of ``lexicon.py``.
"""

from __future__ import annotations

import re

from mulan_core.text.lexicon import CHATTER, DESCRIBING, GENERIC, MUSIC, VOCABULARY

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")
FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|im|me|my|you|your|u|ur|we|he|she|who|anyone|everyone|guys|lol)\b", re.I)


def music_score(text: str) -> float:
    """How much the most descriptive sentence of a text describes music: from 0 on it does.

    Distinct music words count 1, describing words (tempo, mood, colour of sound, structure) 0.75, generic ones ("song",
    "plays") 0.4, up to 4 together; each sign of chatter counts -2, first and second person -0.75, each "?" or "!"
    -0.5. The sum must reach 1: a music word, or a describing word about a song, and no chatter.
    """
    return max(_sentence_score(sentence) for sentence in SENTENCE_END.split(text))


def words_of(text: str) -> list[str]:
    """The words of a text in order, lower case, without digits and marks."""
    return [word.casefold().replace("’", "'") for word in WORD.findall(text)]


def vocabulary_form(word: str) -> str:
    """The vocabulary's form of a word: "drums" and "drum's" are "drum", "guitar-led" is "guitar"."""
    word = word.removesuffix("'s")
    if word in VOCABULARY:
        return word
    if "-" in word:
        return next((part for part in map(vocabulary_form, word.split("-")) if part in VOCABULARY), word)
    for suffix, ending in (("ies", "y"), ("es", ""), ("s", "")):
        stem = word.removesuffix(suffix) + ending
        if word.endswith(suffix) and stem in VOCABULARY:
            return stem
    return word


def _sentence_score(sentence: str) -> float:
    words = {vocabulary_form(word) for word in words_of(sentence)}
    descriptive = len(words & MUSIC) + 0.75 * len(words & DESCRIBING) + 0.4 * len(words & GENERIC)
    chatter = 2.0 * len(CHATTER.findall(sentence)) + 0.75 * len(FIRST_PERSON.findall(sentence))
    chatter += 0.5 * sum(sentence.count(mark) for mark in "?!")
    return min(descriptive, 4.0) - chatter - 1.0
