"""Bots whose packages need an environment of their own: `make test` runs these in it."""
