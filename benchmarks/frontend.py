"""How much faster ``LogMel`` is than librosa and than transformers' ASTFeatureExtractor, on one thread of a CPU.

    python benchmarks/frontend.py [--windows 32] [--rounds 15]

Every round times each front-end on the same windows of 10 s, one after the other. Printed are seconds of audio a second
(median over rounds) and how many times faster ``LogMel`` is (median of the ratios within a round). librosa appears
twice: as called, which computes its mel bank anew each time, and with the bank kept. ``LogMel`` appears thrice: window
by window, a batch, and a batch in one piece, as it runs on a GPU.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from transformers import ASTFeatureExtractor

from mulan_core.audio.frontend import LogMel
from mulan_core.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="At least one mel filter")
    torch.set_num_threads(1)

    rng = np.random.default_rng(0)
    waves = (0.1 * rng.standard_normal((arguments.windows, 160_000))).astype(np.float32)
    with threadpool_limits(1), torch.inference_mode():
        print(f"{arguments.windows} windows of 10 s, {arguments.rounds} rounds, 1 thread; seconds of audio a second")
        compare("librosa's log-mel, 64 bands (configs/resnet50.yaml)", librosas(waves), waves, arguments.rounds)
        compare("Kaldi's log-mel, 128 bands (configs/ast.yaml)", kaldis(waves), waves, arguments.rounds)


Work = Callable[[], object]


def librosas(waves: np.ndarray) -> dict[str, Work]:
    """The front-ends of M-Resnet-50; LogMel first."""
    config = load_config(CONFIGS / "resnet50.yaml").model.frontend
    transform = {"n_fft": config.fft_size, "hop_length": 160, "win_length": 400}
    bands = {"n_mels": config.num_mels, "fmin": config.fmin_hz, "fmax": config.fmax_hz}
    bank = librosa.filters.mel(sr=16_000, n_fft=config.fft_size, **bands)

    def as_called() -> None:
        for wave in waves:
            np.log(librosa.feature.melspectrogram(y=wave, sr=16_000, **transform, **bands) + config.log_offset)

    def bank_kept() -> None:
        for wave in waves:
            power = np.abs(librosa.stft(wave, **transform)) ** 2
            np.log(bank @ power + config.log_offset)

    return ours(LogMel(config), waves) | {"librosa, bank kept": bank_kept, "librosa, as called": as_called}


def kaldis(waves: np.ndarray) -> dict[str, Work]:
    """The front-ends of M-AST; LogMel first."""
    extractor = ASTFeatureExtractor()
    return ours(LogMel(load_config(CONFIGS / "ast.yaml").model.frontend), waves) | {
        "ASTFeatureExtractor": lambda: extractor(list(waves), sampling_rate=16_000, return_tensors="pt")
    }


def ours(frontend: LogMel, waves: np.ndarray) -> dict[str, Work]:
    """LogMel in three ways."""
    batch = torch.from_numpy(waves)
    return {
        "LogMel, a batch": lambda: frontend(batch),
        "LogMel, window by window": lambda: [frontend(wave) for wave in batch.split(1)],
        "LogMel, a batch in one piece": lambda: frontend._log_mel(batch),
    }


def compare(title: str, works: dict[str, Work], waves: np.ndarray, rounds: int) -> None:
    """Time every front-end in turn, ``rounds`` times, and print speeds and ratios to the first."""
    for work in works.values():
        work()
    taken_s = np.empty((rounds, len(works)))
    for r in range(rounds):
        for i, work in enumerate(works.values()):
            started = time.perf_counter()
            work()
            taken_s[r, i] = time.perf_counter() - started
    print(title)
    for i, name in enumerate(works):
        speed = waves.size / 16_000 / np.median(taken_s[:, i])
        print(f"  {name:30} {speed:8,.0f}   LogMel {np.median(taken_s[:, i] / taken_s[:, 0]):5.2f} times as fast")


if __name__ == "__main__":
    main()
