"""The towers: one file each, each ``forward`` gives one vector of size D an example, not yet normalised."""
