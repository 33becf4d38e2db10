"""What `kbert doctor` looks at: one module for each thing that a worker needs."""
