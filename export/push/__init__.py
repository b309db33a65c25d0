"""Copy models to a URL."""
