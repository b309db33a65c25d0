"""Sign models."""
