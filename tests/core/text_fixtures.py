"""Labelled lines that a tiny network learns in seconds, and that network as a folder."""

import itertools

from model_fixtures import TINY_TEXT
from transformers import BertModel

from mulan_core.config import TextClassifierConfig
from mulan_core.text.classifier_training import train_classifier
from mulan_core.towers.warm_start import load_tokenizer

MUSIC = [
    f"{tempo} {instrument} over {below}"
    for tempo, instrument, below in itertools.product(
        ("slow", "fast", "warm", "sad"),
        ("piano", "guitar", "strings", "trumpet"),
        ("a soft pad", "brushed drums", "a drone"),
    )
]
JUNK = [
    f"{who} {did} {what}"
    for who, did, what in itertools.product(
        ("my brother", "the teacher", "our dog", "she"),
        ("ate", "lost", "sold", "found"),
        ("my shoes", "the keys", "a car"),
    )
]
LABELS = dict.fromkeys(MUSIC, True) | dict.fromkeys(JUNK, False)


def tiny_bert(folder):
    """A random BERT of 32 units with the demo's vocabulary, as a folder of pretrained weights."""
    BertModel(TINY_TEXT).save_pretrained(folder)
    load_tokenizer("demo-minilm").save_pretrained(str(folder))
    return str(folder)


def config_of(pretrained, **numbers):
    numbers = {"epochs": 6, "batch_size": 16, "lr": 3e-3, "max_tokens": 24} | numbers
    return TextClassifierConfig(pretrained=pretrained, **numbers)


def tiny_classifier(folder, out, **numbers):
    """A classifier trained on the lines above, written to ``out``; hands back what it returned."""
    trained, report = train_classifier(LABELS, config_of(tiny_bert(folder), **numbers))
    trained.save_pretrained(out, report)
    return trained, report
