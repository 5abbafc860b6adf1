"""Vectors of whole tracks and of texts, the same whatever else is in the batch.

A track's vector is the re-normalised mean of the unit vectors of its evaluation windows, which are fixed,
even and cover it (``audio.windows``).

Shape letters: N tracks or texts, D embedding size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mulan_core.audio.windows import cut_window, window_starts
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor


def embed_tracks(
    model: MuLanModel, processor: MuLanProcessor, waves: Sequence[np.ndarray], *, hop_s: float, batch_size: int
) -> np.ndarray:
    """One unit vector per track, float32 (N, D).

    Args:
        model: runs in evaluation mode, on the device it is on, and is left in the mode it was in.
        processor: of the model; gives the window.
        waves: mono float32 at the processor's sample rate, of any length.
        hop_s: largest distance between the starts of windows, seconds; at most one window.
        batch_size: windows encoded at once.

    Raises:
        ValueError: if a wave is empty, or ``hop_s`` is not within one window.
    """
    size, hop = processor.window_samples, round(hop_s * processor.sample_rate_hz)
    places = [(track, start) for track, wave in enumerate(waves) for start in window_starts(len(wave), size, hop)]
    sums_ND = np.zeros((len(waves), model.config.model.embedding_dim))
    with _inference(model):
        for first in range(0, len(places), batch_size):
            batch = places[first : first + batch_size]
            windows = np.stack([cut_window(waves[track], start, size) for track, start in batch])
            vectors_BD = model.get_audio_features(torch.from_numpy(windows).to(model.device))
            # float64: a mean of many windows must not depend on how they fell into batches
            np.add.at(sums_ND, [track for track, _ in batch], vectors_BD.cpu().numpy().astype(np.float64))
    return _unit(sums_ND)


def embed_texts(model: MuLanModel, processor: MuLanProcessor, texts: Sequence[str], *, batch_size: int) -> np.ndarray:
    """One unit vector per text, float32 (N, D), in the order given; see ``embed_tracks``.

    Texts are encoded in order of length, so that padding is little.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors_ND = np.zeros((len(texts), model.config.model.embedding_dim))
    with _inference(model):
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            inputs = processor(text=[texts[i] for i in batch]).to(model.device)
            vectors_ND[batch] = model.get_text_features(**inputs).cpu().numpy()
    return _unit(vectors_ND)


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32)


@contextlib.contextmanager
def _inference(model: MuLanModel) -> Iterator[None]:
    # Walking the modules costs a millisecond, which a search would pay twice.
    training = model.training
    if training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if training:
            model.train()
