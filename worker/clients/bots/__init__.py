"""What hands signals and aggregates to trading bots, one file each; nothing heavy is imported here."""
