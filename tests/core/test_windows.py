"""Windows: the paper's example, and what must hold for audio of any length."""

import numpy as np
import pytest

from mulan_core.audio.windows import crop_start, cut_window, cut_windows, window_starts


def test_a_magnatagatune_clip_gets_three_even_windows():
    """29.1 s in 10 s windows: starts at 0, 9.55 and 19.1 s (PAPER section 6.1)."""
    assert window_starts(29_100, 10_000, 10_000) == [0, 9_550, 19_100]


@pytest.mark.parametrize("num_samples", [1, 99, 100, 101, 150, 199, 200, 201, 291, 999, 1_000, 12_345])
@pytest.mark.parametrize("hop", [1, 7, 50, 99, 100])
def test_windows_are_even_and_cover(num_samples, hop):
    starts = window_starts(num_samples, 100, hop)
    assert starts[0] == 0
    assert starts[-1] == max(0, num_samples - 100)
    gaps = np.diff(starts)
    assert (gaps <= hop).all()
    assert np.ptp(gaps) <= 1 if len(gaps) else True
    covered = np.zeros(num_samples, bool)
    for start in starts:
        covered[start : start + 100] = True
    assert covered.all()


def test_no_more_windows_than_the_hop_needs():
    assert len(window_starts(300, 100, 100)) == 3
    assert len(window_starts(301, 100, 100)) == 4


@pytest.mark.parametrize("arguments", [(0, 100, 100), (500, 100, 101), (500, 100, 0)])
def test_empty_audio_and_gaps_are_refused(arguments):
    with pytest.raises(ValueError, match=r"empty|hop"):
        window_starts(*arguments)


def test_short_audio_is_one_window_with_zeros_behind():
    windows = cut_windows(np.arange(1.0, 4.0), window_samples=5, hop_samples=5)
    assert windows.dtype == np.float32
    assert windows.tolist() == [[1, 2, 3, 0, 0]]


def test_cut_windows_cuts_at_the_starts():
    wave = np.arange(29.0)
    windows = cut_windows(wave, window_samples=10, hop_samples=10)
    assert windows[:, 0].tolist() == window_starts(29, 10, 10)
    assert np.array_equal(windows[-1], wave[19:])
    assert np.array_equal(cut_window(wave, 3, 10), wave[3:13])


def test_crops_reach_every_place_and_repeat_with_the_seed():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return [crop_start(12, 10, rng) for _ in range(100)]

    assert set(draw(0)) == {0, 1, 2}
    assert draw(0) == draw(0) != draw(1)
    assert crop_start(5, 10, np.random.default_rng(0)) == 0
