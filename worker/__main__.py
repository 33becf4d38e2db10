"""``python -m worker`` is ``kbert``."""

from worker.cli import main

main()
