"""The monthly traffic narrative: articles to an index, and the index to a regression."""
