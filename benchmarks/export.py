"""Latency, size and quality of the exported towers beside the model they come from, all in one run on one thread.

    python benchmarks/export.py [--model FOLDER] [--ontology ontology.json] [--queries 100] [--variants]

Without ``--model`` the text tower is the demo's MiniLM with mean pooling and the identity as its projection (D = 384),
so that its accuracy on the 35,532 ontology triplets is the known one. Queries are encoded one at a time, each by all
encoders in turn, so that all see the same machine. Quality is the cosine with the model's vectors over the ontology's
names and descriptions and, for int8, over the queries alone and among others: its activations share one scale a
batch. ``--variants`` adds torch's own dynamic quantisation and the settings that were not chosen.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mulan_core.config import AudioTowerConfig, ModelConfig, TextTowerConfig
from mulan_core.evaluation.sets.texts import read_ontology_pairs
from mulan_core.evaluation.triplets import triplet_accuracy
from mulan_core.export import _quiet, export_onnx
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor

ONTOLOGY = Path(__file__).parents[2] / "shared" / "data" / "audioset" / "ontology.json"
WORDS = (
    ("calm", "sad", "happy", "wild"),
    ("piano", "guitar", "organ", "choir"),
    ("", "for a rainy night", "to dance to"),
)
Encode = Callable[[dict[str, torch.Tensor]], np.ndarray]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--ontology", type=Path, default=ONTOLOGY)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--variants", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = opened(arguments.model) if arguments.model else minilm()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_onnx(model, processor, folder, int8=True)
        texts = {"torch, eager float32": eager(model.get_text_features), "onnx float32": session(folder / "text.onnx")}
        sizes = {"onnx float32": megabytes(folder / "text.onnx")}
        sizes["torch, eager float32"] = 4e-6 * sum(p.numel() for p in model.text_tower.parameters())
        chosen = "onnx int8"
        texts[chosen], sizes[chosen] = session(folder / "text.int8.onnx"), megabytes(folder / "text.int8.onnx")
        if arguments.variants:
            add_variants(texts, sizes, model, folder)
        print_texts(texts, sizes, processor, chosen, num_queries=arguments.queries, ontology=arguments.ontology)
        waves = processor(
            audio=[np.random.default_rng(0).standard_normal(3 * processor.window_samples)],
            sampling_rate=processor.sample_rate_hz,
        )["waveforms"]
        audio = {
            "torch, eager float32": eager(model.get_audio_features),
            "onnx float32": session(folder / "audio.onnx"),
        }
        times = in_turn(audio, [{"waveforms": waves[i : i + 1]} for i in [0, 1, 2] * 7])
        print(f"\naudio tower, one window of {processor.window_s:g} s")
        for which, ms in times.items():
            print(f"  {which:32} {ms:7.2f} ms   x{times['torch, eager float32'] / ms:.2f}")


def print_texts(
    texts: dict[str, Encode],
    sizes: dict[str, float],
    processor: MuLanProcessor,
    chosen: str,
    *,
    num_queries: int,
    ontology: Path,
) -> None:
    """A row an encoder: p50 of single queries, texts a second in a batch of 32, size, quality."""
    phrases = [" ".join(words).strip() for words in itertools.product(*WORDS)]
    queries = [dict(processor(text=phrases[i % len(phrases)])) for i in range(num_queries)]
    together = dict(processor(text=phrases[:32]))
    times = in_turn(texts, queries)
    rates = {name: 32_000 / ms for name, ms in in_turn(texts, [together] * 8).items()}
    first = next(iter(texts))
    pairs = list(zip(*read_ontology_pairs(ontology, []), strict=True)) if ontology.exists() else [phrases, phrases]
    vectors = {name: [encode_all(encode, processor, side) for side in pairs] for name, encode in texts.items()}
    print(
        f"text tower, {num_queries} queries one at a time; {len(pairs[0])} pairs"
        + ("" if ontology.exists() else f" of the queries alone: there is no ontology at {ontology}")
    )
    print(f"  {'':32} {'query':>10} {'':6} {'batch of 32':>11} {'size':>9}   cosine mean   min     triplets")
    for name in texts:
        cosines = np.concatenate([(a * b).sum(1) for a, b in zip(vectors[name], vectors[first], strict=True)])
        accuracy = f"{triplet_accuracy(*vectors[name]).accuracy:.4f}" if ontology.exists() else "-"
        print(
            f"  {name:32} {times[name]:7.2f} ms x{times[first] / times[name]:<5.2f} {rates[name]:9.0f}/s "
            f"{sizes[name]:6.1f} MB       {cosines.mean():.4f}   {cosines.min():.4f}  {accuracy}"
        )
    alone = np.concatenate([texts[chosen](dict(processor(text=phrase))) for phrase in phrases[:32]])
    cosines = (alone * texts[chosen](together)).sum(1)
    print(f"  {chosen}, a query alone against the same among 31 others: cosine at least {cosines.min():.4f}")


def add_variants(texts: dict[str, Encode], sizes: dict[str, float], model: MuLanModel, folder: Path) -> None:
    """Encoders quantised in other ways."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    both = {"op_types_to_quantize": ["MatMul", "Gather"], "weight_type": QuantType.QInt8}
    variants = {
        "products alone": both | {"op_types_to_quantize": ["MatMul"], "per_channel": True, "reduce_range": True},
        "8 bits instead of 7": both | {"per_channel": True},
        "one scale a matrix": both | {"reduce_range": True},
        "one scale a matrix, 8 bits": both,
        "unsigned, one scale, 8 bits": both | {"weight_type": QuantType.QUInt8},
    }
    for name, options in variants.items():
        file = folder / f"{name}.onnx"
        with _quiet():
            quantize_dynamic(folder / "text.onnx", file, **options)
        texts[f"  {name}"], sizes[f"  {name}"] = session(file), megabytes(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tower = torch.ao.quantization.quantize_dynamic(model.text_tower, {torch.nn.Linear}, dtype=torch.qint8)
    torch.save(tower.state_dict(), folder / "torch")
    texts["torch, dynamic int8"] = eager(lambda **x: torch.nn.functional.normalize(tower(*x.values()), dim=-1))
    sizes["torch, dynamic int8"] = megabytes(folder / "torch")


def in_turn(encoders: dict[str, Encode], inputs: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Median milliseconds of each encoder, which take turns at every input."""
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for one in inputs[:3] + inputs:
        for name, encode in encoders.items():
            started = time.perf_counter()
            encode(one)
            times[name].append((time.perf_counter() - started) * 1000)
    return {name: float(np.median(values[3:])) for name, values in times.items()}


def encode_all(encode: Encode, processor: MuLanProcessor, texts: list[str]) -> np.ndarray:
    """Vectors of texts, one at a time as queries come."""
    return np.concatenate([encode(dict(processor(text=text))) for text in texts])


def eager(features: Callable[..., torch.Tensor]) -> Encode:
    """The model itself."""

    def encode(inputs: dict[str, torch.Tensor]) -> np.ndarray:
        with torch.inference_mode():
            return features(**inputs).numpy()

    return encode


def session(file: Path) -> Encode:
    """An ONNX program on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    program = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda inputs: program.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


def megabytes(file: Path) -> float:
    """Size of a file."""
    return file.stat().st_size / 1e6


def opened(folder: Path) -> tuple[MuLanModel, MuLanProcessor]:
    """A saved model."""
    return MuLanModel.from_pretrained(folder), MuLanProcessor.from_pretrained(folder)


def minilm() -> tuple[MuLanModel, MuLanProcessor]:
    """The demo's towers, untrained: MiniLM as it is, and windows of 5 s."""
    config = ModelConfig(
        embedding_dim=384,
        audio=AudioTowerConfig(layer_type="basic", embedding_size=16, hidden_sizes=(16, 32, 64, 128), depths=(1,) * 4),
        text=TextTowerConfig(pretrained="demo-minilm", max_tokens=128, pooling="mean"),
    )
    model = MuLanModel.from_config(config)
    with torch.no_grad():
        model.text_tower.projection.weight.copy_(torch.eye(384))
        model.text_tower.projection.bias.zero_()
    return model, MuLanProcessor.from_config(config)


if __name__ == "__main__":
    main()
