"""Log-mel front-end: waveform in, normalised log-mel out, as a module of the model.

Being part of the model, it is saved with the weights, so training and serving cannot drift apart.

Shape letters: B examples, S samples, F mel bands, T frames, K = fft_size / 2 + 1 frequency bins.

Framing. Frame ``t`` is centred on sample ``(t + 1/2) * hop``: the signal gets ``fft_size - hop`` zeros,
half on each side, so S samples give exactly ``S / hop`` frames (10 s at 10 ms: T = 1000, as in the
paper). The analysis window is a periodic Hann of ``frame_ms``.

Mel bank. Slaney's scale (linear below 1 kHz, logarithmic above) with triangles of equal area, computed
here with numpy. The paper does not state its bank.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mulan_core.config import FrontendConfig

_LINEAR_STEP_HZ = 200.0 / 3.0  # Slaney: one mel is 66.7 Hz below the corner
_CORNER_HZ = 1_000.0
_CORNER_MEL = _CORNER_HZ / _LINEAR_STEP_HZ
_LOG_STEP = np.log(6.4) / 27.0  # and a factor 6.4 in 27 mels above it


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale."""
    above = _CORNER_MEL + np.log(np.maximum(hz, _CORNER_HZ) / _CORNER_HZ) / _LOG_STEP
    return np.where(hz < _CORNER_HZ, hz / _LINEAR_STEP_HZ, above)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Inverse of ``hz_to_mel``."""
    above = _CORNER_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _CORNER_MEL) - _CORNER_MEL))
    return np.where(mel < _CORNER_MEL, mel * _LINEAR_STEP_HZ, above)


def mel_bank(config: FrontendConfig) -> np.ndarray:
    """Triangular filters of equal area, float64 (F, K); a row times a power spectrum is one mel band."""
    low_mel, high_mel = hz_to_mel(np.array([config.fmin_hz, config.fmax_hz]))
    edges_hz = mel_to_hz(np.linspace(low_mel, high_mel, config.num_mels + 2))
    lower, centre, upper = (edges_hz[i : i + config.num_mels, None] for i in range(3))
    bins_hz = np.arange(config.fft_size // 2 + 1) * config.sample_rate_hz / config.fft_size
    triangles = np.minimum((bins_hz - lower) / (centre - lower), (upper - bins_hz) / (upper - centre))
    return np.maximum(0.0, triangles) * 2.0 / (upper - lower)


class LogMel(nn.Module):
    """Normalised log-mel of a batch of waveforms; see the module docstring for framing and bank.

    The window and the mel bank are saved buffers: a reloaded model computes the very same features.
    """

    window: Tensor
    bank_FK: Tensor

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config
        self.hop = round(config.hop_ms * config.sample_rate_hz / 1000)
        self.window_samples = round(config.window_s * config.sample_rate_hz)
        frame = round(config.frame_ms * config.sample_rate_hz / 1000)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
        self.register_buffer("window", torch.tensor(hann, dtype=torch.float32))
        self.register_buffer("bank_FK", torch.tensor(mel_bank(config), dtype=torch.float32))

    @property
    def num_frames(self) -> int:
        """Frames T of one window."""
        return self.window_samples // self.hop

    def forward(self, waveforms_BS: Tensor) -> Tensor:
        """float32 (B, S) in [-1, 1] to float32 (B, F, S // hop); float32 inside even under autocast."""
        config = self.config
        with torch.autocast(waveforms_BS.device.type, enabled=False):
            num_frames = waveforms_BS.shape[-1] // self.hop
            left = (config.fft_size - self.hop) // 2
            right = (num_frames - 1) * self.hop + config.fft_size - left - waveforms_BS.shape[-1]
            spectrum_BKT = torch.stft(
                functional.pad(waveforms_BS.float(), (left, right)),
                n_fft=config.fft_size,
                hop_length=self.hop,
                win_length=len(self.window),
                window=self.window.float(),
                center=False,
                return_complex=True,
            )
            power_BKT = spectrum_BKT.real.square() + spectrum_BKT.imag.square()
            mel_BFT = self.bank_FK.float() @ power_BKT
            return (torch.log(mel_BFT + config.log_offset) - config.mean) / config.std
