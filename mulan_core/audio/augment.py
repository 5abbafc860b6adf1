"""SpecAugment, drawn per example.

Drawing and applying are apart: the loader draws the masks of an example from its own random numbers
(so a step is the same whatever the number of workers or micro-batches), the model applies them between
log-mel and tower. One time mask and one frequency mask an example; the paper states that SpecAugment is
used, not its widths.

Shape letters: B examples, F mel bands, T frames; a mask row holds (time start, time width, mel start,
mel width).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def draw_masks(
    rng: np.random.Generator, *, num_frames: int, num_mels: int, time_mask: int, freq_mask: int
) -> np.ndarray:
    """One mask row, int64 (4,), for one example.

    Widths are uniform in 0..``time_mask`` frames and 0..``freq_mask`` bands (0 turns that mask off), starts
    uniform over the places where the mask fits, as in SpecAugment (Park et al., 2019).
    """
    time_width = rng.integers(0, min(time_mask, num_frames) + 1)
    freq_width = rng.integers(0, min(freq_mask, num_mels) + 1)
    time_start = rng.integers(0, num_frames - time_width + 1)
    freq_start = rng.integers(0, num_mels - freq_width + 1)
    return np.array([time_start, time_width, freq_start, freq_width], dtype=np.int64)


def apply_masks(features_BFT: Tensor, masks_B4: Tensor) -> Tensor:
    """Set the masked bands and frames of each example to 0, about the mean of normalised log-mel.

    Raises:
        ValueError: if there is not exactly one mask row per example.
    """
    if masks_B4.shape != (len(features_BFT), 4):
        raise ValueError(f"expected masks of shape ({len(features_BFT)}, 4), got {tuple(masks_B4.shape)}")
    time_start, time_width, freq_start, freq_width = masks_B4.to(features_BFT.device).unsqueeze(-1).unbind(1)
    frames_T = torch.arange(features_BFT.shape[2], device=features_BFT.device)
    bands_F = torch.arange(features_BFT.shape[1], device=features_BFT.device)
    hidden_BT = (frames_T >= time_start) & (frames_T < time_start + time_width)
    hidden_BF = (bands_F >= freq_start) & (bands_F < freq_start + freq_width)
    return features_BFT.masked_fill(hidden_BF.unsqueeze(2) | hidden_BT.unsqueeze(1), 0.0)
