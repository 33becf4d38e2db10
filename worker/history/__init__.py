"""What was: signals and aggregates into files, and files back onto the raw topic."""
