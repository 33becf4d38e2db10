"""Which coins a text names."""

from worker.coins.catalogue import Catalogue, CatalogueError, Certainty, Coin, load_catalogue
from worker.coins.tagger import CoinTagger

__all__ = ["Catalogue", "CatalogueError", "Certainty", "Coin", "CoinTagger", "load_catalogue"]
