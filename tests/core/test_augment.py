"""SpecAugment: per example, reproducible, within its widths."""

import numpy as np
import pytest
import torch

from mulan_core.audio.augment import apply_masks, draw_masks

SIZES = {"num_frames": 100, "num_mels": 64, "time_mask": 20, "freq_mask": 12}


def draw(count, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return np.stack([draw_masks(rng, **(SIZES | changes)) for _ in range(count)])


def test_every_example_of_a_batch_gets_a_mask_of_its_own():
    masked = apply_masks(torch.ones(16, 64, 100), torch.from_numpy(draw(16)))
    assert len(masked.flatten(1).unique(dim=0)) == 16


def test_exactly_the_drawn_bands_and_frames_become_zero():
    features = torch.rand(3, 64, 100) + 1
    masks = draw(3, seed=4)
    masked = apply_masks(features, torch.from_numpy(masks))
    for example, (t, t_width, f, f_width) in enumerate(masks):
        expected = features[example].clone()
        expected[:, t : t + t_width] = 0
        expected[f : f + f_width, :] = 0
        assert torch.equal(masked[example], expected)


def test_widths_and_places_cover_their_range():
    masks = draw(4_000)
    starts, widths = masks[:, [0, 2]], masks[:, [1, 3]]
    assert set(widths[:, 0]) == set(range(21))
    assert set(widths[:, 1]) == set(range(13))
    assert (starts >= 0).all()
    assert (starts + widths).max(axis=0).tolist() == [100, 64]


def test_the_same_seed_draws_the_same_masks():
    assert np.array_equal(draw(8), draw(8))
    assert not np.array_equal(draw(8), draw(8, seed=1))


def test_width_zero_turns_a_mask_off():
    features = torch.rand(4, 64, 100)
    off = torch.from_numpy(draw(4, time_mask=0, freq_mask=0))
    assert torch.equal(apply_masks(features, off), features)


def test_one_mask_for_the_whole_batch_is_refused():
    with pytest.raises(ValueError, match="masks of shape"):
        apply_masks(torch.ones(2, 64, 100), torch.from_numpy(draw(1)))
