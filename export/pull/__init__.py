"""Copy models from a URL."""
