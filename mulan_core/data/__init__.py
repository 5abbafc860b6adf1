"""Data: the manifest, shards, sampling and the demo corpus."""
