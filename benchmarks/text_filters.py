"""Precision and recall of the LF filters, rule and classifier, on descriptions and junk that neither was made from.

    python benchmarks/text_filters.py [--out FOLDER] [--classifier FOLDER] [--json]

Needs ``shared/data`` beside the checkout (MusicCaps, LP-MusicCaps, Incompetech), which is no part of it.

Training: captions of MusicCaps and rewrites of LP-MusicCaps from one half of the clips, whole or one sentence of them;
junk of one grammar and one hand-written list (benchmarks/junk). Test: the other half of the clips; Incompetech's
descriptions, by a writer who is in no training line; junk of the other grammar and of the other list, whose kinds
(reviews, weather, wine, travel, sport, ...) are mostly in no training line. One thread; some minutes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from junk import grammar

from mulan_core.config import TextClassifierConfig
from mulan_core.text.classifier import TextClassifier, read_report
from mulan_core.text.classifier_training import choose_threshold, precision_recall, train_classifier
from mulan_core.text.filters import drop_reason, form_reason, normalised

DATA = Path(__file__).parents[2] / "shared" / "data"
JUNK = Path(__file__).parent / "junk"
NUM_TRAIN, NUM_TEST = 1500, 600
REWRITES = ("caption_writing", "caption_summary", "caption_paraphrase", "caption_attribute_prediction")


def bucket(text: str, buckets: int) -> int:
    """Which bucket a text falls in, by its hash."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % buckets


def by_hash(texts: list[str], count: int) -> list[str]:
    """As many distinct texts, always the same ones."""
    return sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).digest())[:count]


def captions(half: int) -> tuple[list[str], list[str]]:
    """Captions and rewrites of the clips of one half."""
    with (DATA / "musiccaps" / "musiccaps-public.csv").open(encoding="utf-8", newline="") as file:
        human = [row["caption"] for row in csv.DictReader(file) if bucket(row["ytid"], 2) == half]
    with (DATA / "lp-musiccaps" / "lp_musiccaps_mc_pseudo.jsonl").open(encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["ytid"] and bucket(row["ytid"], 2) == half]
    return human, [row[kind] for row in rows for kind in REWRITES if row[kind]]


def descriptions() -> list[str]:
    """What Kevin MacLeod writes about his tracks, from six words up."""
    with (DATA / "incompetech" / "incompetech_songs.jsonl").open(encoding="utf-8") as file:
        texts = [json.loads(line)["description"] or "" for line in file]
    return [text for text in texts if len(text.split()) >= 6]


def a_sentence_or_all(text: str) -> str:
    """What is written about a track is mostly one sentence, a caption is five: every other is cut to its first."""
    return re.split(r"(?<=[.!?])\s+", text)[0] if bucket(text, 2) else text


def hand_written(name: str) -> dict[str, list[str]]:
    """Lines of junk by kind."""
    kinds: dict[str, list[str]] = {}
    for line in (JUNK / name).read_text(encoding="utf-8").splitlines():
        kind, text = line.split("\t")
        kinds.setdefault(kind, []).append(text)
    return kinds


def training_lines() -> dict[str, bool]:
    """Labelled lines that the rules of form let through, as many descriptions as others."""
    human, rewritten = captions(0)
    music = [a_sentence_or_all(text) for text in by_hash(human, NUM_TRAIN // 2) + by_hash(rewritten, NUM_TRAIN // 2)]
    by_hand = [text for texts in hand_written("train.tsv").values() for text in texts]
    junk = by_hand + grammar.write_lines(grammar.TRAIN, NUM_TRAIN - len(by_hand), seed=1)
    lines = dict.fromkeys(music, True) | dict.fromkeys(junk, False)
    return {text: label for text, label in lines.items() if form_reason("lf", text) is None}


def test_sets() -> dict[str, tuple[bool, list[str]]]:
    """Name -> whether its lines describe music, and the lines."""
    human, rewritten = captions(1)
    by_hand = hand_written("test.tsv")
    comments = ("comment", "promo", "credits", "bio", "lyrics")
    return {
        "MusicCaps captions": (True, [a_sentence_or_all(text) for text in by_hash(human, NUM_TEST)]),
        "LP-MusicCaps rewrites": (True, [a_sentence_or_all(text) for text in by_hash(rewritten, NUM_TEST)]),
        "Incompetech descriptions": (True, by_hash(descriptions(), NUM_TEST)),
        "junk by grammar": (False, grammar.write_lines(grammar.TEST, NUM_TEST * 3, seed=2)),
        "by hand: comments, promotion, credits, lyrics": (False, [t for kind in comments for t in by_hand[kind]]),
        "by hand: descriptions of other things": (
            False,
            [t for k, v in by_hand.items() if k not in comments for t in v],
        ),
    }


def summary(sets: dict[str, tuple[bool, list[str]]], kept: dict[str, np.ndarray]) -> dict[str, float]:
    """Share kept of each set; recall, precision with as many junk lines as descriptions, and the false-positive rate.

    A set counts once for each of its lines in recall and in the rate; precision is that of equal numbers.
    """
    shares = {name: float(kept[name].mean()) for name in sets}
    recall, rate = (
        float(np.concatenate([kept[name] for name, (music, _) in sets.items() if music == wanted]).mean())
        for wanted in (True, False)
    )
    return shares | {"recall": recall, "false positives": rate, "precision": recall / (recall + rate)}


def main() -> None:
    """Train, or open, and print both filters' figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(".mulan/benchmarks/lf"), help="folder for the classifier")
    parser.add_argument("--classifier", type=Path, help="judge by this one instead of training one")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"there is no {DATA}: the real descriptions that this measures on are no part of the checkout")
    torch.set_num_threads(1)
    folder = arguments.classifier
    if folder is None:
        folder, lines = arguments.out, training_lines()
        print(f"training on {len(lines)} lines, {sum(lines.values())} of them descriptions")
        trained, report = train_classifier(lines, TextClassifierConfig(epochs=arguments.epochs))
        trained.save_pretrained(folder, report)
    classifier, report = TextClassifier.from_pretrained(folder), read_report(folder)
    sets = test_sets()
    probabilities = {}
    for name, (_, texts) in sets.items():
        passes_N = np.array([form_reason("lf", text) is None for text in texts])
        probabilities[name] = np.where(passes_N, classifier.predict([normalised(text) for text in texts]), 0.0)
    everything_N = np.concatenate(list(probabilities.values()))
    music_N = np.concatenate([np.full(len(texts), music) for music, texts in sets.values()])
    best = choose_threshold(precision_recall(everything_N, music_N), 0.95)
    results = {
        "rule": summary(
            sets, {n: np.array([drop_reason("lf", t) is None for t in texts]) for n, (_, texts) in sets.items()}
        ),
        "classifier": summary(sets, {n: p >= classifier.threshold for n, p in probabilities.items()}),
    }
    if arguments.json:
        print(json.dumps({"results": results, "held_out": report["held_out"], "best": best}, indent=1))
        return
    print(
        f"threshold {classifier.threshold:.3f}, temperature {classifier.temperature:.2f}; held out of training: ",
        end="",
    )
    print({key: round(value, 3) for key, value in report["held_out"].items()})
    print(f"\n| kept of | lines | {' | '.join(results)} |\n|---|---|---|---|")
    for name in results["rule"]:
        count = len(sets[name][1]) if name in sets else ""
        print(f"| {name} | {count} | {' | '.join(f'{100 * result[name]:.1f} %' for result in results.values())} |")
    print(f"\nprecision 0.95 on these lines: threshold {best['threshold']:.3f}, recall {best['recall']:.3f}")


if __name__ == "__main__":
    main()
