"""The log-mel against a plain numpy restatement, and what must not change it."""

import numpy as np
import pytest
import torch

from mulan_core.audio.frontend import LogMel, hz_to_mel, mel_bank, mel_to_hz
from mulan_core.config import FrontendConfig


def numpy_log_mel(wave, config):
    """Frame by frame, with the plain DFT of numpy, from the definition in the module's docstring."""
    hop, frame, size = 160, 400, config.fft_size
    window = np.zeros(size)
    window[(size - frame) // 2 : (size - frame) // 2 + frame] = np.hanning(frame + 1)[:-1]
    padded = np.pad(wave.astype(np.float64), ((size - hop) // 2, size))
    frames = np.stack([padded[t * hop : t * hop + size] for t in range(len(wave) // hop)])
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    corner = hz_to_mel(np.array([config.fmin_hz, config.fmax_hz]))
    edges = mel_to_hz(np.linspace(corner[0], corner[1], config.num_mels + 2))
    hz = np.arange(size // 2 + 1) * 16_000 / size
    bands = []
    for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False):
        triangle = np.interp(hz, [low, mid, high], [0, 2 / (high - low), 0])
        bands.append(power @ triangle)
    return (np.log(np.array(bands) + config.log_offset) - config.mean) / config.std


def wave(seconds=10.0, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))).astype(np.float32)


@pytest.mark.parametrize("config", [FrontendConfig(), FrontendConfig(num_mels=128, fft_size=1024)])
def test_equals_plain_numpy(config):
    samples = wave()
    features = LogMel(config)(torch.from_numpy(samples)[None])
    assert features.shape == (1, config.num_mels, 1000)
    assert np.abs(features[0].numpy() - numpy_log_mel(samples, config)).max() < 1e-4


def test_a_window_of_ten_seconds_has_a_thousand_frames():
    frontend = LogMel(FrontendConfig())
    assert (frontend.num_frames, frontend.window_samples) == (1000, 160_000)


@pytest.mark.parametrize("config", [FrontendConfig(), FrontendConfig(num_mels=128, fft_size=1024)])
def test_every_band_hears_something(config):
    assert (mel_bank(config).max(axis=1) > 0).all()


def test_slaney_scale():
    """1 kHz is mel 15, and 27 mels more are a factor of 6.4."""
    assert hz_to_mel(np.array([1_000.0, 6_400.0])) == pytest.approx([15.0, 42.0])
    hz = np.linspace(0, 8_000, 50)
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz, abs=1e-9)


def test_a_tone_is_loudest_in_the_band_around_it():
    config = FrontendConfig()
    tone = np.sin(2 * np.pi * 440 * np.arange(160_000) / 16_000).astype(np.float32)
    loudest = LogMel(config)(torch.from_numpy(tone)[None])[0].mean(1).argmax().item()
    assert loudest == mel_bank(config)[:, round(440 / 31.25)].argmax()


def test_a_click_is_centred_on_its_frame():
    click = np.zeros(160_000, np.float32)
    click[160 * 300 + 80] = 1.0
    power = LogMel(FrontendConfig())(torch.from_numpy(click)[None])[0].sum(0)
    assert power.argmax().item() == 300
    assert power[299].item() == pytest.approx(power[301].item(), abs=1e-3)


def test_batch_mates_and_loudest_example_do_not_matter():
    frontend = LogMel(FrontendConfig())
    quiet, loud = torch.from_numpy(wave(seed=1)) * 1e-3, torch.from_numpy(wave(seed=2)) * 5
    alone = frontend(quiet[None])
    together = frontend(torch.stack([loud, quiet, loud]))
    assert torch.allclose(alone[0], together[1], atol=1e-5)
    assert torch.equal(alone, frontend(quiet[None]))


def test_float32_under_autocast_and_finite_for_silence():
    frontend = LogMel(FrontendConfig())
    samples = torch.from_numpy(wave())[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = frontend(samples)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, frontend(samples))
    silence = frontend(torch.zeros(1, 160_000))
    assert silence.unique().tolist() == pytest.approx([(np.log(1e-5) + 4) / 4])
