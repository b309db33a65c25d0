"""Several processes on one address."""
