"""Limits of the work that decoding a picture may make."""
