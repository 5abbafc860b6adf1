"""What the flows call: plain functions that run alone, each safe to run again."""
