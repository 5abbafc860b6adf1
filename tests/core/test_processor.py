"""MuLanProcessor: any audio to windows, texts padded to the longest, saved beside the model, mistakes told."""

import dataclasses
import json
import warnings

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


def test_shorter_audio_is_padded_and_longer_audio_covered_by_even_windows():
    short, long = wave(0.5), wave(5.0)
    inputs = processor()(audio=[short, long, short], sampling_rate=16_000)
    padded = np.concatenate([short, np.zeros(24_000, np.float32)])
    assert inputs["num_windows"].tolist() == [1, 3, 1]
    windows = inputs["waveforms"].numpy()
    for row, expected in enumerate([padded, long[:32_000], long[24_000:56_000], long[48_000:], padded]):
        assert np.array_equal(windows[row], expected)


def test_the_hop_is_one_window_unless_the_model_says_otherwise():
    config = dataclasses.replace(model_config(), hop_s=0.5)
    tokenizer = processor().tokenizer
    dense = MuLanProcessor.from_config(config, tokenizer=tokenizer)
    assert dense(audio=[wave(5.0)], sampling_rate=16_000)["num_windows"].tolist() == [7]
    assert processor().hop_s == 2.0
    for hop_s, words in ((0.0, r"from 0\.01 to 3600"), (2.5, r"at most frontend\.window_s, 2\.0")):
        with pytest.raises(UserError, match=words):
            dataclasses.replace(model_config(), hop_s=hop_s)


def test_other_rates_are_resampled():
    audio = wave(2.0, 44_100)
    assert np.array_equal(one(audio, 44_100), soxr.resample(audio, 44_100, 16_000, quality="HQ"))


def test_channels_are_averaged_and_integers_scaled():
    stereo = np.stack([wave(2.0, seed=1), wave(2.0, seed=2)])
    assert np.allclose(one(stereo), stereo.mean(0), atol=1e-7)
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
        ({"audio": [wave(1.0)], "sampling_rate": 44.1}, "sampling_rate is 44.1; it must be in Hz"),
        ({"audio": [wave(1.0)], "sampling_rate": "44100"}, "sampling_rate is '44100'; it must be in Hz"),
        ({"audio": [wave(1.0)], "sampling_rate": -16_000}, "must be in Hz, 1000 to 768000"),
        ({"audio": [wave(1.0), np.zeros(0)], "sampling_rate": 16_000}, "item 1 is empty"),
        ({"audio": [wave(1.0), np.zeros((2, 0))], "sampling_rate": 16_000}, "item 1 is empty"),
        ({"audio": [np.zeros(1)], "sampling_rate": 48_000}, "item 0 is too short"),
        ({"audio": [np.zeros((1, 2, 3))], "sampling_rate": 16_000}, r"shape \(1, 2, 3\)"),
        ({"audio": [np.zeros((9000, 2))], "sampling_rate": 16_000}, "9000 channels of 2 samples; transpose it"),
        ({"audio": [wave(1.0), np.array([0.0, np.nan])], "sampling_rate": 16_000}, "item 1 .* not finite"),
        ({"audio": [wave(1.0), np.array([np.inf, -np.inf])], "sampling_rate": 16_000}, "item 1 .* not finite"),
        ({"audio": [np.zeros(9, np.uint8)], "sampling_rate": 16_000}, "type uint8"),
        ({"text": []}, "text must be"),
        ({"text": ["a", 3]}, "text must be"),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        processor()(**call)


def test_cut_texts_are_counted_and_warned_of_once():
    own = MuLanProcessor.from_config(model_config(max_tokens=6), tokenizer=processor().tokenizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own(text=["piano", "one two three four"])  # with [CLS] and [SEP] these are 6 tokens: nothing is lost
        assert own.num_truncated == 0
        own(text=["piano", "one two three four five", "one two three four", "six " * 50])
        assert own.num_truncated == 2
        own(text="six " * 50)
    assert own.num_truncated == 3
    assert [str(w.message).split(";")[0] for w in caught] == [
        "texts of more than 6 tokens lose their end, 2 of these 4"
    ]
    assert caught[0].filename == __file__


def test_saved_beside_the_model_it_opens_as_it_was(tmp_path):
    config = ModelConfig(
        hop_s=1.5,
        frontend=FrontendConfig(sample_rate_hz=22_050, window_s=3.0, fft_size=1024),
        text=TextTowerConfig(pretrained="demo-minilm", max_tokens=9),
    )
    tiny_model().save_pretrained(tmp_path)
    MuLanProcessor.from_config(config).save_pretrained(tmp_path)
    again = MuLanProcessor.from_pretrained(tmp_path)
    assert (again.sample_rate_hz, again.window_samples, again.hop_s, again.max_tokens) == (22_050, 66_150, 1.5, 9)
    text = ["relaxing piano for a very long and very rainy evening"]
    assert torch.equal(again(text=text)["input_ids"], processor()(text=text)["input_ids"][:, [*range(8), -1]])
    assert MuLanModel.from_pretrained(tmp_path).config.model == model_config()
    assert "/" not in json.loads((tmp_path / "tokenizer_config.json").read_text()).get("name_or_path", "")


def test_what_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(UserError, match="cannot open"):
        MuLanProcessor.from_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "ClapProcessor"}')
    with pytest.raises(UserError, match="of class ClapProcessor, not a MuLanProcessor"):
        MuLanProcessor.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"text.pretrained is null.*tokenizer"):
        MuLanProcessor.from_config(ModelConfig(text=TextTowerConfig(pretrained=None)))
    own = MuLanProcessor.from_config(
        ModelConfig(text=TextTowerConfig(pretrained=None)), tokenizer=processor().tokenizer
    )
    assert own(text="techno")["input_ids"].shape == (1, 3)
