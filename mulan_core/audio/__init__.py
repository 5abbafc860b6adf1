"""Audio: decoding, the log-mel front-end, windows and SpecAugment."""
