"""The log-mel against librosa and against the public AST checkpoint's own extractor, and what must not change it."""

from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from model_fixtures import TINY_TEXT, model_config
from transformers import ASTFeatureExtractor

from mulan_core.audio.frontend import LogMel, hz_to_mel, mel_bank, mel_to_hz
from mulan_core.config import FrontendConfig, load_config
from mulan_core.model import MuLanModel

CONFIGS = Path(__file__).parents[2] / "configs"
AST = load_config(CONFIGS / "ast.yaml").model.frontend
LIBROSA = [
    FrontendConfig(num_mels=num_mels, fft_size=fft_size, mel_scale=mel_scale)
    for mel_scale in ("slaney", "htk")
    for num_mels, fft_size in ((64, 512), (128, 1024))
]
ALL = [*LIBROSA, AST]


def name(config):
    return f"{config.mel_scale}-{config.num_mels}"


def noise(seconds=10.0, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))).astype(np.float32)


def melody():
    """Decaying notes of four partials over a quiet hiss and an offset: loud, faint and empty bands in one signal."""
    time_s = np.arange(160_000) / 16_000
    notes = sum(np.sin(2 * np.pi * 220 * 2 ** (np.floor(time_s * 2) / 12) * k * time_s) / k for k in range(1, 5))
    return (0.2 * notes * np.exp(-4 * (time_s % 0.5)) + 1e-4 * noise() + 0.01).astype(np.float32)


SIGNALS = {"noise": noise(), "melody": melody(), "silence": np.zeros(160_000, np.float32)}


def log_mel(config, samples):
    return LogMel(config)(torch.from_numpy(samples)[None])[0].numpy()


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("config", LIBROSA, ids=name)
def test_equals_librosa(config, signal):
    side = (config.fft_size - 160) // 2
    mel = librosa.feature.melspectrogram(
        y=np.pad(SIGNALS[signal], side),
        sr=config.sample_rate_hz,
        n_fft=config.fft_size,
        win_length=400,
        hop_length=160,
        center=False,
        n_mels=config.num_mels,
        fmin=config.fmin_hz,
        fmax=config.fmax_hz,
        htk=config.mel_scale == "htk",
    )
    ours = log_mel(config, SIGNALS[signal]) * config.std + config.mean
    assert ours.shape == mel.shape == (config.num_mels, 1000)
    assert np.abs(ours - np.log(mel + config.log_offset)).max() < 1e-4


def test_librosas_centred_frames_are_half_a_hop_earlier():
    """The signal moved by half a hop has librosa's default frames, but for the edges."""
    config = LIBROSA[0]
    mel = librosa.feature.melspectrogram(
        y=noise(), sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=64, fmin=60, fmax=7_800
    )
    assert mel.shape[1] == 1001
    ours = log_mel(config, np.pad(noise(), (80, 80))) * config.std + config.mean
    assert np.abs(ours[:, 2:999] - np.log(mel + config.log_offset)[:, 2:999]).max() < 1e-4


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # band 3, see below
def test_the_ast_option_equals_the_checkpoints_extractor(signal):
    """ASTFeatureExtractor's defaults are the public checkpoint's; padded by (N - hop) / 2 a side, its frames are ours.

    To 3e-4 of normalised features: a band just above the floor beside a loud one holds the rounding of float32.
    """
    theirs = ASTFeatureExtractor(max_length=1000)(np.pad(SIGNALS[signal], 120), sampling_rate=16_000)
    ours = log_mel(AST, SIGNALS[signal])
    assert ours.shape == (128, 1000)
    difference = np.abs(ours - theirs["input_values"][0].T)
    assert difference.max() < 3e-4
    assert np.quantile(difference, 0.999) < 1e-4


def test_every_band_hears_something_but_the_one_that_ast_was_trained_without():
    for config in LIBROSA:
        assert (mel_bank(config).max(axis=1) > 0).all()
    assert (mel_bank(AST).max(axis=1) == 0).nonzero()[0].tolist() == [3]


def test_a_window_of_ten_seconds_has_a_thousand_frames():
    frontend = LogMel(FrontendConfig())
    assert (frontend.num_frames, frontend.window_samples) == (1000, 160_000)


def test_mel_scales():
    """Slaney: 1 kHz is mel 15, and 27 mels more are a factor of 6.4. HTK: 1 kHz is mel 1000."""
    assert hz_to_mel(np.array([1_000.0, 6_400.0]), "slaney") == pytest.approx([15.0, 42.0])
    assert hz_to_mel(np.array([0.0, 1_000.0]), "htk") == pytest.approx([0.0, 1_000.0], abs=0.02)
    hz = np.linspace(0, 8_000, 50)
    for scale in ("slaney", "htk"):
        assert mel_to_hz(hz_to_mel(hz, scale), scale) == pytest.approx(hz, abs=1e-9)


@pytest.mark.parametrize("config", ALL, ids=name)
def test_a_click_is_centred_on_its_frame(config):
    click = np.zeros(160_000, np.float32)
    click[160 * 300 + 80] = 1.0
    power = log_mel(config, click).sum(0)
    assert power.argmax() == 300
    assert power[299] == pytest.approx(power[301], rel=0.01)


@pytest.mark.parametrize("config", ALL, ids=name)
def test_batch_mates_do_not_change_a_bit(config):
    frontend = LogMel(config)
    quiet, loud = torch.from_numpy(noise(seed=1)) * 1e-3, torch.from_numpy(noise(seed=2)) * 5
    alone = frontend(quiet[None])
    assert torch.equal(alone[0], frontend(torch.stack([loud, quiet, loud]))[1])


def test_the_whole_batch_at_once_is_the_same(monkeypatch):
    """As on a GPU and in compiled graphs."""
    frontend, waves = LogMel(AST), torch.from_numpy(np.stack([noise(seed=1), noise(seed=2)]))
    one_by_one = frontend(waves)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert torch.allclose(frontend(waves), one_by_one, atol=1e-5)


def test_exports_with_a_batch_of_any_size():
    exported = torch.export.export(
        LogMel(AST), (torch.zeros(2, 16_000),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    waves = torch.from_numpy(np.stack([noise(1.0, seed) for seed in range(3)]))
    assert torch.allclose(exported.module()(waves), LogMel(AST)(waves), atol=1e-5)


@pytest.mark.parametrize("config", ALL, ids=name)
def test_silence_is_finite(config):
    floor = np.log(config.log_floor + config.log_offset)
    features = log_mel(config, SIGNALS["silence"])
    assert np.unique(features) == pytest.approx([(floor - config.mean) / config.std], abs=1e-6)


def test_bfloat16_changes_no_feature():
    """Neither autocast nor a cast of the model reaches into the front-end."""
    frontend, waves = LogMel(AST), torch.from_numpy(noise())[None]
    expected = frontend(waves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frontend(waves), expected)
    assert torch.equal(frontend.to(torch.bfloat16)(waves), expected)
    assert torch.equal(frontend.double().half()(waves), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_hears_the_same(tmp_path, dtype):
    config = replace(model_config(), frontend=replace(AST, window_s=2.0))
    model = MuLanModel.from_config(config, text_config=TINY_TEXT)
    model.save_pretrained(tmp_path)
    again = MuLanModel.from_pretrained(tmp_path, dtype=dtype)
    assert again.config.model.frontend == config.frontend
    for buffer in ("window", "bank_FK"):
        assert torch.equal(getattr(again.frontend, buffer), getattr(model.frontend, buffer))
    waves = torch.from_numpy(np.stack([noise(2.0), SIGNALS["melody"][:32_000]]))
    assert torch.equal(again.frontend(waves), model.frontend(waves))
    assert torch.cosine_similarity(again.get_audio_features(waves), model.get_audio_features(waves)).min() > 0.99
