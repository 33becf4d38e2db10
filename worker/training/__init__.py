"""Training, evaluation and export of the models that ship with the project."""
