"""Several processes that answer on one address and serve the same models."""
