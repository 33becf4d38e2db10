"""Checkpoints, tokenising, the packed encoder, its heads, and the engine that runs them in one thread."""
