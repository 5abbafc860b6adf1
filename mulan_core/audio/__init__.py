"""Audio: decoding, the log-mel front-end, windows and SpecAugment."""

RATES_HZ = (1_000, 768_000)
"""Sample rates that are taken; outside, the resampler's filter grows without measure, and no music is stored."""
