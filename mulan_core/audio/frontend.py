"""Log-mel front-end: waveform in, normalised log-mel out, as a module of the model.

Being part of the model, it is saved with the weights, so training and serving cannot drift apart. The
paper states 25 ms windows every 10 ms and 64 or 128 bands; the rest is ours, and every number of it a field
of ``FrontendConfig``: its defaults are librosa's log-mel, ``configs/ast.yaml`` sets Kaldi's, on which the
public AST checkpoint was trained.

Shape letters: B examples, S samples, F mel bands, T frames, R = fft_size samples of a row, of which the
first N are the frame, K = R / 2 + 1 frequency bins.

Framing. Frame ``t`` is centred on sample ``(t + 1/2) * hop``: the signal gets ``N - hop`` zeros, half on
each side, so S samples give exactly ``S // hop`` frames (10 s at 10 ms: T = 1000, as in the paper). So it
stands to others:

- librosa with ``center=False``, and Kaldi with ``snip_edges=true`` (ASTFeatureExtractor), give these very
  frames of a signal padded likewise, librosa by ``(fft_size - hop) / 2`` zeros a side. Unpadded, they lose
  the frames that reach over an edge (Kaldi: 998 of 1000).
- Kaldi with ``snip_edges=false`` centres its frames here too, but mirrors the signal at the edges.
- librosa with ``center=True`` centres frame ``t`` on ``t * hop``: half a hop earlier, and one frame more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mulan_core.config import FrontendConfig

_LINEAR_STEP_HZ = 200.0 / 3.0  # Slaney: one mel is 66.7 Hz below the corner
_CORNER_HZ = 1_000.0
_CORNER_MEL = _CORNER_HZ / _LINEAR_STEP_HZ
_LOG_STEP = np.log(6.4) / 27.0  # and a factor 6.4 in 27 mels above it
_HTK_FACTOR, _HTK_CORNER_HZ = 2_595.0 / np.log(10.0), 700.0


def hz_to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    """Slaney's mel scale for ``slaney``, HTK's for ``htk`` and ``kaldi``."""
    if scale != "slaney":
        return _HTK_FACTOR * np.log1p(hz / _HTK_CORNER_HZ)
    above = _CORNER_MEL + np.log(np.maximum(hz, _CORNER_HZ) / _CORNER_HZ) / _LOG_STEP
    return np.where(hz < _CORNER_HZ, hz / _LINEAR_STEP_HZ, above)


def mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    """Inverse of ``hz_to_mel``."""
    if scale != "slaney":
        return _HTK_CORNER_HZ * np.expm1(mel / _HTK_FACTOR)
    above = _CORNER_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _CORNER_MEL) - _CORNER_MEL))
    return np.where(mel < _CORNER_MEL, mel * _LINEAR_STEP_HZ, above)


def mel_bank(config: FrontendConfig) -> np.ndarray:
    """Triangular filters, float64 (F, K); a row times a power spectrum is one mel band.

    ``slaney`` and ``htk``: triangles over Hz, of area 1 (librosa's ``norm="slaney"``). ``kaldi``: triangles
    over mel, of height 1.
    """
    scale = config.mel_scale
    low_mel, high_mel = hz_to_mel(np.array([config.fmin_hz, config.fmax_hz]), scale)
    edges = np.linspace(low_mel, high_mel, config.num_mels + 2)
    bins = np.arange(config.fft_size // 2 + 1) * config.sample_rate_hz / config.fft_size
    if scale == "kaldi":
        bins = hz_to_mel(bins, scale)
    else:
        edges = mel_to_hz(edges, scale)
    lower, centre, upper = (edges[i : i + config.num_mels, None] for i in range(3))
    triangles = np.maximum(0.0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    return triangles if scale == "kaldi" else triangles * 2.0 / (upper - lower)


class LogMel(nn.Module):
    """Normalised log-mel of a batch of waveforms; see the module docstring for its frames.

    The window and the mel bank are saved buffers: a reloaded model computes the very same features. They
    stay float32 whatever the model is cast to, since bfloat16's 8 bits would change every feature.
    """

    window: Tensor
    bank_FK: Tensor

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config
        self.hop = config.hop_samples
        self.window_samples = config.window_samples
        frame = config.frame_samples
        period = frame if config.window == "periodic" else frame - 1
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / period)
        self.register_buffer("window", torch.tensor(hann, dtype=torch.float32))
        self.register_buffer("bank_FK", torch.tensor(mel_bank(config), dtype=torch.float32))

    @property
    def num_frames(self) -> int:
        """Frames T of one window."""
        return self.config.num_frames

    def forward(self, waveforms_BS: Tensor) -> Tensor:
        """Waveforms (B, S) in [-1, 1] to float32 (B, F, S // hop); float32 inside even under autocast."""
        with torch.autocast(waveforms_BS.device.type, enabled=False):
            waveforms_BS = waveforms_BS.float()
            if waveforms_BS.device.type != "cpu" or torch.compiler.is_compiling():
                return self._log_mel(waveforms_BS)
            # One example's frames fit the caches of a CPU, a batch's do not (benchmarks/frontend.py).
            return torch.cat([self._log_mel(waveform_1S) for waveform_1S in waveforms_BS.split(1)])

    def _log_mel(self, waveforms_BS: Tensor) -> Tensor:
        config, frame = self.config, len(self.window)
        num_frames = waveforms_BS.shape[-1] // self.hop
        left = (frame - self.hop) // 2
        right = (num_frames - 1) * self.hop + config.fft_size - left - waveforms_BS.shape[-1]
        # Rows as long as the FFT: what follows the frame in them falls to the zeros behind the window.
        padded_BS = functional.pad(waveforms_BS, (left, right))
        to_onnx = torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()
        size, hop = config.fft_size, self.hop
        rows_BTR = _rows_of_blocks(padded_BS, size, hop) if to_onnx else padded_BS.unfold(-1, size, hop)
        if config.remove_dc:
            rows_BTR = rows_BTR - rows_BTR[..., :frame].mean(-1, keepdim=True)
        if config.preemphasis:
            # Kaldi has a rule for the first sample of a frame; here the window makes it 0.
            rows_BTR = rows_BTR - config.preemphasis * rows_BTR.roll(1, -1)
        rows_BTR = rows_BTR * functional.pad(self.window, (0, config.fft_size - frame))
        if to_onnx:
            power_BTK = _power_by_products(rows_BTR[..., :frame], config.fft_size)
        else:
            spectrum_BTK = torch.fft.rfft(rows_BTR)
            power_BTK = spectrum_BTK.real.square().addcmul_(spectrum_BTK.imag, spectrum_BTK.imag)
        mel_BTF = (power_BTK @ self.bank_FK.T).clamp(min=config.log_floor)
        return ((mel_BTF + config.log_offset).log() - config.mean).div(config.std).transpose(1, 2)

    def _apply(self, fn: Any, recurse: bool = True) -> LogMel:
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers():
            if buffer.dtype != torch.float32:
                setattr(self, name, exact[name].to(buffer.device))
        return self


def _rows_of_blocks(signal_BS: Tensor, size: int, hop: int) -> Tensor:
    """``signal_BS.unfold(-1, size, hop)`` of whole blocks; ONNX Runtime gathers an unfold sample by sample."""
    num_rows, num_blocks = (signal_BS.shape[-1] - size) // hop + 1, -(-size // hop)
    missing = (num_rows + num_blocks - 1) * hop - signal_BS.shape[-1]
    blocks = functional.pad(signal_BS, (0, missing)).unflatten(-1, (-1, hop))
    return torch.cat([blocks[:, first : first + num_rows] for first in range(num_blocks)], dim=-1)[..., :size]


def _power_by_products(rows_BTN: Tensor, fft_size: int) -> Tensor:
    """Power spectrum (B, T, K) by two products, which ONNX Runtime does faster than its own transform."""
    angle_NK = 2 * np.pi / fft_size * np.outer(np.arange(rows_BTN.shape[-1]), np.arange(fft_size // 2 + 1))
    cosine_NK, sine_NK = (torch.tensor(part, dtype=torch.float32) for part in (np.cos(angle_NK), np.sin(angle_NK)))
    return (rows_BTN @ cosine_NK).square() + (rows_BTN @ sine_NK).square()
