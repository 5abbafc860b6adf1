"""Text that comes with tracks: which of it is worth training on."""
