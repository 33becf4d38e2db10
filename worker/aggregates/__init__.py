"""Signals into per-coin Redis windows, and the reader of them; README.md holds every formula."""
