"""Several processes that listen on one address and serve the same models."""
