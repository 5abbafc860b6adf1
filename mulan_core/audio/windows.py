"""Cut audio into the windows that a tower sees: one random crop in training, even cover in evaluation.

Shape letters: N windows, W samples per window.
"""

from __future__ import annotations

import numpy as np


def crop_start(num_samples: int, window_samples: int, rng: np.random.Generator) -> int:
    """First sample of a training crop, uniform over the places where the window fits (PAPER section 1)."""
    return int(rng.integers(0, max(0, num_samples - window_samples) + 1))


def window_starts(num_samples: int, window_samples: int, hop_samples: int) -> list[int]:
    """First samples of the evaluation windows: fixed, even, covering.

    The first window starts at 0 and the last one ends with the audio; between them as many as keep the
    distance of starts at or under ``hop_samples``. Audio no longer than a window has one.

    >>> window_starts(291, 100, 100)
    [0, 95, 191]
    >>> window_starts(60, 100, 100)
    [0]

    Raises:
        ValueError: if the audio is empty, or the hop is not within 1..``window_samples``, which would
            leave gaps.
    """
    if num_samples < 1:
        raise ValueError("the audio is empty: there is no window to cut")
    if not 1 <= hop_samples <= window_samples:
        raise ValueError(f"a hop of {hop_samples} samples must be within 1..{window_samples}, one window")
    last = max(0, num_samples - window_samples)
    count = 1 + -(-last // hop_samples)
    return [i * last // max(1, count - 1) for i in range(count)]


def place_windows(num_windows: int, duration_s: float, window_s: float) -> list[tuple[float, float]]:
    """Where the evaluation windows of ``window_starts`` lie, in seconds: start and end, within the audio.

    >>> place_windows(3, 12.0, 5.0)
    [(0.0, 5.0), (3.5, 8.5), (7.0, 12.0)]
    >>> place_windows(1, 3.0, 5.0)
    [(0.0, 3.0)]
    """
    last_s = max(0.0, duration_s - window_s)
    starts = [i * last_s / max(1, num_windows - 1) for i in range(num_windows)]
    return [(start_s, min(start_s + window_s, duration_s)) for start_s in starts]


def cut_window(wave: np.ndarray, start: int, window_samples: int) -> np.ndarray:
    """The window of ``wave`` at ``start``, zero-padded at its end when the audio is over. float32 (W,)."""
    window = np.zeros(window_samples, dtype=np.float32)
    piece = wave[start : start + window_samples]
    window[: len(piece)] = piece
    return window


def cut_windows(wave: np.ndarray, *, window_samples: int, hop_samples: int) -> np.ndarray:
    """All evaluation windows of mono audio, float32 (N, W); see ``window_starts``."""
    starts = window_starts(len(wave), window_samples, hop_samples)
    return np.stack([cut_window(wave, start, window_samples) for start in starts])
