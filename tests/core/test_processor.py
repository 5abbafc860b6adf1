"""MuLanProcessor: any audio to one window, texts padded to the longest, saved beside the model."""

import json

import numpy as np
import pytest
import soxr
import torch
from model_fixtures import model_config, processor, tiny_model

from mulan_core import MuLanModel, MuLanProcessor
from mulan_core.config import FrontendConfig, ModelConfig, TextTowerConfig
from mulan_core.errors import UserError


def wave(seconds, rate_hz=16_000, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))).astype(np.float32)


def one(audio, rate_hz=16_000):
    return processor()(audio=[audio], sampling_rate=rate_hz)["waveforms"][0].numpy()


def test_audio_of_exactly_one_window_is_untouched():
    assert np.array_equal(one(wave(2.0)), wave(2.0))


def test_shorter_audio_is_padded_and_the_middle_of_longer_audio_is_taken():
    short, long = wave(0.5), wave(5.0)
    assert np.array_equal(one(short), np.concatenate([short, np.zeros(24_000, np.float32)]))
    assert np.array_equal(one(long), long[24_000:56_000])


def test_other_rates_are_resampled():
    audio = wave(2.0, 44_100)
    assert np.array_equal(one(audio, 44_100), soxr.resample(audio, 44_100, 16_000, quality="HQ"))


def test_channels_on_either_axis_are_averaged_and_integers_scaled():
    stereo = np.stack([wave(2.0, seed=1), wave(2.0, seed=2)])
    assert np.allclose(one(stereo), stereo.mean(0), atol=1e-7)
    assert np.array_equal(one(stereo), one(stereo.T))
    integers = (wave(2.0) * 32_768).astype(np.int16)
    assert np.abs(one(integers) - wave(2.0)).max() < 1 / 32_768


def test_a_batch_and_both_inputs_at_once_fit_the_model():
    both = processor()(audio=[wave(1.0), wave(3.0)], text=["sad piano", "techno"], sampling_rate=16_000)
    audio, text = tiny_model()(**both)
    assert audio.shape == text.shape == (2, 128)
    assert processor()(audio=wave(1.0), sampling_rate=16_000)["waveforms"].shape == (1, 32_000)


def test_texts_are_padded_to_the_longest_and_cut_at_max_tokens():
    tokens = processor()(text=["sad piano", "a rainy night in the city"])
    assert tokens["input_ids"].shape == (2, 8)
    assert tokens["attention_mask"].sum(1).tolist() == [4, 8]
    assert set(tokens) == {"input_ids", "attention_mask"}
    long = processor()(text="piano " * 100)
    assert long["input_ids"].shape == (1, 32)
    assert processor()(text="")["input_ids"].shape == (1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({}, "nothing to process"),
        ({"audio": [wave(1.0)]}, "give the sampling_rate"),
        ({"audio": [], "sampling_rate": 16_000}, "list of audio is empty"),
        ({"audio": np.zeros((2, 100)), "sampling_rate": 16_000}, "ambiguous"),
        ({"audio": [np.zeros(0)], "sampling_rate": 16_000}, "shape"),
        ({"audio": [np.array([0.0, np.nan])], "sampling_rate": 16_000}, "item 0 .* not finite"),
        ({"audio": [np.zeros(9, np.uint8)], "sampling_rate": 16_000}, "type uint8"),
        ({"text": []}, "text must be"),
        ({"text": ["a", 3]}, "text must be"),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        processor()(**call)


def test_saved_beside_the_model_it_opens_as_it_was(tmp_path):
    config = ModelConfig(
        frontend=FrontendConfig(sample_rate_hz=22_050, window_s=3.0, fft_size=1024),
        text=TextTowerConfig(pretrained="demo-minilm", max_tokens=9),
    )
    tiny_model().save_pretrained(tmp_path)
    MuLanProcessor.from_config(config).save_pretrained(tmp_path)
    again = MuLanProcessor.from_pretrained(tmp_path)
    assert (again.sample_rate_hz, again.window_samples, again.max_tokens) == (22_050, 66_150, 9)
    text = ["relaxing piano for a very long and very rainy evening"]
    assert torch.equal(again(text=text)["input_ids"], processor()(text=text)["input_ids"][:, [*range(8), -1]])
    assert MuLanModel.from_pretrained(tmp_path).config.model == model_config()
    assert "/" not in json.loads((tmp_path / "tokenizer_config.json").read_text()).get("name_or_path", "")


def test_what_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(UserError, match="cannot open"):
        MuLanProcessor.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"text.pretrained is null.*tokenizer"):
        MuLanProcessor.from_config(ModelConfig(text=TextTowerConfig(pretrained=None)))
    own = MuLanProcessor.from_config(
        ModelConfig(text=TextTowerConfig(pretrained=None)), tokenizer=processor().tokenizer
    )
    assert own(text="techno")["input_ids"].shape == (1, 3)
