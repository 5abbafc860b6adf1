"""Vectors of tracks and texts: unit, and the same whatever else is in the batch."""

import dataclasses
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from model_fixtures import SMALL_AST, SMALL_RESNET, model_config, processor, tiny_model

from mulan_core import MuLanProcessor
from mulan_core.audio.windows import cut_windows
from mulan_core.config import AudioTowerConfig
from mulan_core.embedding import embed_texts, embed_tracks
from mulan_core.model import WINDOWS_AT_ONCE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[SMALL_RESNET, SMALL_AST], ids=["resnet", "ast"])
def model(request):
    return tiny_model(request.param)


def tracks(*seconds, seed=0):
    rng = np.random.default_rng(seed)
    return [(0.1 * rng.standard_normal(int(16_000 * s))).astype(np.float32) for s in seconds]


def embed(model, waves, batch_size=4):
    return embed_tracks(model, processor(), waves, batch_size=batch_size)


def test_unit_vectors_one_a_track(model):
    vectors = embed(model, tracks(0.7, 2.0, 5.3))
    assert vectors.shape == (3, 128)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_equals_the_renormalised_mean_of_unit_window_vectors(model):
    (wave,) = tracks(5.3)
    windows = torch.from_numpy(cut_windows(wave, window_samples=32_000, hop_samples=16_000))
    assert len(windows) == 5
    with torch.no_grad():
        mean = model.get_audio_features(windows).mean(0)
    config = dataclasses.replace(model_config(), hop_s=1.0)
    dense = MuLanProcessor.from_config(config, tokenizer=processor().tokenizer)
    assert np.allclose(embed_tracks(model, dense, [wave], batch_size=4)[0], mean / mean.norm(), atol=1e-6)


def test_the_python_door_gives_the_same_vectors(model):
    """get_audio_features(**processor(...)), also beyond the windows that it encodes at once."""
    waves = tracks(0.7, 2.0, 2.0 * WINDOWS_AT_ONCE + 5.0, 3.0)
    with torch.no_grad():
        vectors = model.get_audio_features(**processor()(audio=waves, sampling_rate=16_000))
    assert np.allclose(embed(model, waves), vectors, atol=1e-5)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_pages_examples_run(page, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    waves = [wave for seconds in (0.7, 9.1) for wave in tracks(seconds)]
    names = {"path": tmp_path, "waves": waves}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        exec(block, names)
    resampled = [soxr.resample(wave, 44_100, 16_000, quality="HQ") for wave in waves]
    assert np.allclose(names["audio_BD"].detach(), embed(model, resampled), atol=1e-5)
    assert names["text_BD"].shape[1] == 128


def test_memory_does_not_grow_with_the_length_of_a_track():
    """The windows of ten minutes are 38 MB; only those of a batch are held, 1 MB."""
    tower = AudioTowerConfig(layer_type="basic", embedding_size=4, hidden_sizes=(4, 4), depths=(1, 1))
    model, wave = tiny_model(tower), np.zeros(16_000 * 600, np.float32)
    tracemalloc.start()
    embed_tracks(model, processor(), [wave], batch_size=8)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 6e6


def test_the_same_wave_gives_the_same_vector(model):
    waves = tracks(3.0)
    assert np.array_equal(embed(model, waves), embed(model, waves))


def test_batch_mates_and_batch_size_do_not_matter(model):
    waves = tracks(0.7, 2.0, 5.3, 9.1)
    together = embed(model, waves)
    for track, wave in enumerate(waves):
        assert np.allclose(embed(model, [wave])[0], together[track], atol=1e-5)
    for batch_size in (1, 3, 100):
        assert np.allclose(embed(model, waves, batch_size), together, atol=1e-5)
    assert np.allclose(embed(model, waves[::-1])[::-1], together, atol=1e-5)


def test_a_clip_played_twice_gives_the_vector_of_the_clip(model):
    (wave,) = tracks(2.0)
    assert np.allclose(embed(model, [wave, np.tile(wave, 2)])[1], embed(model, [wave])[0], atol=1e-5)


def test_zeros_behind_a_short_track_do_not_matter(model):
    (wave,) = tracks(0.7)
    assert np.allclose(embed(model, [np.pad(wave, (0, 9_000))]), embed(model, [wave]), atol=1e-5)


def test_different_audio_gives_different_vectors(model):
    noise, tone = tracks(2.0)[0], np.sin(np.arange(32_000) * 0.2).astype(np.float32)
    first, second = embed(model, [noise, tone])
    assert not np.allclose(first, second, atol=1e-2)


def test_texts_do_not_depend_on_order_batch_or_padding(model):
    texts = ["techno", "a rainy night in the city with one sad piano", "sad piano", ""]
    together = embed_texts(model, processor(), texts, batch_size=4)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for item, text in enumerate(texts):
        alone = embed_texts(model, processor(), [text], batch_size=1)[0]
        assert np.allclose(alone, together[item], atol=1e-5), text
    assert np.allclose(embed_texts(model, processor(), texts[::-1], batch_size=2)[::-1], together, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_was_and_statistics_are_untouched(training):
    model = tiny_model(trainable_layers=1).train(training)
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    embed(model, tracks(2.0, 3.0))
    embed_texts(model, processor(), ["techno"], batch_size=2)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_nothing_in_nothing_out_and_empty_audio_is_refused(model):
    assert embed(model, []).shape == (0, 128)
    assert embed_texts(model, processor(), [], batch_size=2).shape == (0, 128)
    with pytest.raises(ValueError, match="empty"):
        embed(model, [np.zeros(0, np.float32)])
