"""Kafka out: signals, dead letters, topics."""
