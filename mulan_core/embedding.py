"""Vectors of whole tracks and of texts, the same whatever else is in the batch.

The vectors of tracks are those of ``model.get_audio_features(**processor(audio=...))``, but windows are cut as
they are encoded and go through the model in batches, so memory does not grow with the length of a track.

Shape letters: N tracks or texts, W windows of all tracks, D embedding size.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

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
    return embed_with_windows(model, processor, waves, batch_size=batch_size)[0]


def embed_with_windows(
    model: MuLanModel, processor: MuLanProcessor, waves: Sequence[np.ndarray], *, batch_size: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The vectors of ``embed_tracks`` for at least one wave, and of each track those of its windows, float32 (w, D)."""
    with _inference(model):
        vectors_WD, num_windows_N = encode_windows(
            lambda windows_WS: model.get_audio_features(torch.from_numpy(windows_WS).to(model.device)),
            waves,
            window_samples=processor.window_samples,
            hop_samples=processor.hop_samples,
            batch_size=batch_size,
        )
        tracks_ND = mean_of_windows(vectors_WD, num_windows_N)
        return tracks_ND.cpu().numpy(), [part.cpu().numpy() for part in vectors_WD.split(num_windows_N.tolist())]


def encode_windows(
    encode: Callable[[np.ndarray], torch.Tensor],
    waves: Sequence[np.ndarray],
    *,
    window_samples: int,
    hop_samples: int,
    batch_size: int,
    pad: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut tracks into their evaluation windows and encode these in batches.

    Args:
        encode: windows float32 (w, S) of one length to vectors (w, D).
        waves: at least one, mono float32, of any length above 0.
        window_samples: length of a window.
        hop_samples: largest distance between the starts of a track's windows.
        batch_size: windows encoded at once.
        pad: zero-pad a track that is shorter than a window; False hands it to ``encode`` as short as it is.

    Returns:
        vectors_WD of all windows in order, and how many each track has: int64 (N,).
    """
    starts = [window_starts(len(wave), window_samples, hop_samples) for wave in waves]
    cuts = [(wave, start) for wave, wave_starts in zip(waves, starts, strict=True) for start in wave_starts]

    def length(cut: tuple[np.ndarray, int]) -> int:
        return window_samples if pad else min(window_samples, len(cut[0]))

    vectors = []
    for size, group in itertools.groupby(cuts, key=length):
        run = list(group)
        for first in range(0, len(run), batch_size):
            windows = [cut_window(wave, start, size) for wave, start in run[first : first + batch_size]]
            vectors.append(encode(np.stack(windows)))
    return torch.cat(vectors), torch.tensor([len(wave_starts) for wave_starts in starts])


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
