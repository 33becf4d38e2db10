"""Measurements: each against its peer in the same run, medians over interleaved repeats."""
