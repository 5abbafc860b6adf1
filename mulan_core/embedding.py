"""Vectors of whole tracks and of texts, the same whatever else is in the batch.

The vectors of tracks are those of ``model.get_audio_features(**processor(audio=...))``, but windows are cut as
they are encoded and go through the model in batches, so memory does not grow with the length of a track.

Shape letters: N tracks or texts, W windows of all tracks, D embedding size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mulan_core.audio.windows import cut_window, window_starts
from mulan_core.model import MuLanModel, mean_of_windows
from mulan_core.processor import MuLanProcessor


def embed_tracks(
    model: MuLanModel, processor: MuLanProcessor, waves: Sequence[np.ndarray], *, batch_size: int
) -> np.ndarray:
    """One unit vector per track, float32 (N, D).

    Args:
        model: runs in evaluation mode, on the device it is on, and is left in the mode it was in.
        processor: of the model; gives the window and the hop.
        waves: mono float32 at the processor's sample rate, of any length.
        batch_size: windows encoded at once.

    Raises:
        ValueError: if a wave is empty.
    """
    if not len(waves):
        return np.zeros((0, model.config.model.embedding_dim), np.float32)
    size, hop = processor.window_samples, processor.hop_samples
    starts = [window_starts(len(wave), size, hop) for wave in waves]
    places = [(wave, start) for wave, of_wave in zip(waves, starts, strict=True) for start in of_wave]
    vectors = []
    with _inference(model):
        for first in range(0, len(places), batch_size):
            windows = np.stack([cut_window(wave, start, size) for wave, start in places[first : first + batch_size]])
            vectors.append(model.get_audio_features(torch.from_numpy(windows).to(model.device)))
        num_windows_N = torch.tensor([len(of_wave) for of_wave in starts])
        return mean_of_windows(torch.cat(vectors), num_windows_N).cpu().numpy()


def embed_texts(model: MuLanModel, processor: MuLanProcessor, texts: Sequence[str], *, batch_size: int) -> np.ndarray:
    """One unit vector per text, float32 (N, D), in the order given; see ``embed_tracks``.

    Texts are encoded in order of length, so that padding is little.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors_ND = np.zeros((len(texts), model.config.model.embedding_dim), np.float32)
    with _inference(model):
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            inputs = processor(text=[texts[i] for i in batch]).to(model.device)
            vectors_ND[batch] = model.get_text_features(**inputs).cpu().numpy()
    return vectors_ND


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
