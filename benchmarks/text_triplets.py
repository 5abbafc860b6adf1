"""Text triplets on real files: text models, their poolings and prompts, beside randomly initialised BERTs.

    python benchmarks/text_triplets.py [MODEL ...] [--poolings mean cls] [--prompts "{}" "{} music"] [--seeds 0 1 2 3 4]

MODEL is what ``open_encoder`` opens (default: demo-minilm). The sets are AudioSet's ontology (189 labels and
descriptions of the music subtree), Incompetech's titles and descriptions, and SomaFM's channels, out of ``--data``; all
triplets of each. A random BERT has demo-minilm's shape and vocabulary and a seed of its own. Prints one Markdown row a
model, pooling and prompt: accuracy with its 95 % interval over anchors, and for the ontology the seconds it took to
encode 378 texts and to compare all 35,532 triplets.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

from mulan_core.evaluation.encoder import Encoder
from mulan_core.evaluation.encoders import open_encoder
from mulan_core.evaluation.sets.texts import read_ontology_pairs, read_text_pairs
from mulan_core.evaluation.triplets import triplet_accuracy
from mulan_core.towers.pretrained import DEMO_TEXT, locate
from mulan_core.towers.warm_start import load_config

READ = {
    "ontology": (read_ontology_pairs, "audioset/ontology.json"),
    "Incompetech": (read_text_pairs, "incompetech/incompetech_songs.jsonl"),
    "SomaFM": (read_text_pairs, "playlists/somafm_channels.tsv"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[DEMO_TEXT])
    parser.add_argument("--poolings", nargs="+", default=["mean", "cls"])
    parser.add_argument("--prompts", nargs="+", default=["{}"], help="texts made of the anchors")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    sets = {}
    for name, (read, path) in READ.items():
        if (arguments.data / path).exists():
            sets[name] = list(zip(*read(arguments.data / path, []), strict=True))
    counts = ", ".join(f"{name} {len(anchors):,}" for name, (anchors, _) in sets.items())
    print(f"pairs: {counts}\n")
    print(f"| model | pooling | prompt | {' | '.join(sets)} | seconds, ontology |")
    print("|---" * (len(sets) + 4) + "|")
    for model in arguments.models:
        poolings = [None] if Path(model).suffix in (".npz", ".npy") else arguments.poolings
        for pooling in poolings:
            encoder = open_encoder(model, pooling=pooling)
            for prompt in arguments.prompts:
                cells, seconds = measure(encoder, sets, prompt)
                cells = [show(*cell) for cell in cells]
                print(f"| {Path(model).name} | {pooling} | `{prompt}` | {' | '.join(cells)} | {seconds} |", flush=True)
    if arguments.seeds:
        print_random(sets, arguments.seeds, arguments.poolings)


def measure(encoder: Encoder, sets: dict, prompt: str) -> tuple[list[tuple], str]:
    """Accuracy and interval on each set, and how long the first took."""
    cells, took = [], []
    for anchors, descriptions in sets.values():
        texts = [prompt.replace("{}", anchor) for anchor in anchors]
        started = time.perf_counter()
        vectors_TD = encoder.embed_texts([*texts, *descriptions])
        encoded = time.perf_counter()
        result = triplet_accuracy(vectors_TD[: len(texts)], vectors_TD[len(texts) :])
        took.append(f"{encoded - started:.1f} + {time.perf_counter() - encoded:.3f}")
        cells.append((result.accuracy, result.interval(resamples=1000, seed=0)))
    return cells, took[0]


def show(accuracy: float, interval: tuple[float, float]) -> str:
    """A cell of the table."""
    return f"{accuracy:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"


def print_random(sets: dict, seeds: list[int], poolings: list[str]) -> None:
    """One row a pooling: mean, lowest and highest over the seeds."""
    found: dict[str, list[list[float]]] = {pooling: [] for pooling in poolings}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(seed)
            BertModel(load_config(DEMO_TEXT)).save_pretrained(folder)
            AutoTokenizer.from_pretrained(locate(DEMO_TEXT)).save_pretrained(folder)
            for pooling in poolings:
                cells, _ = measure(open_encoder(folder, pooling=pooling), sets, "{}")
                found[pooling].append([accuracy for accuracy, _ in cells])
    for pooling, rows in found.items():
        values = np.array(rows)
        cells = [f"{v.mean():.3f} ({v.min():.3f}-{v.max():.3f})" for v in values.T]
        print(f"| random BERT, {len(seeds)} seeds | {pooling} | `{{}}` | {' | '.join(cells)} | |")


if __name__ == "__main__":
    main()
