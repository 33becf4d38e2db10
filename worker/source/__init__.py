"""Kafka in: consumers, decoding, the offset ledger."""
