"""Evaluation: what a model is worth on a test set, beside chance, with intervals. See docs/evaluation.md."""
