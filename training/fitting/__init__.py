"""Training, and the run folder with its results."""
